// Drives the unmodified client library; each line of output is one JSON event, each line of input one order.
import { Centrifuge } from 'centrifuge';
import { createInterface } from 'node:readline';
import WebSocket from 'ws';

const say = (event) => process.stdout.write(JSON.stringify(event) + '\n');
const tokens = JSON.parse(process.argv[3] ?? '[]');
const getToken = async () => {
  const token = tokens.shift();
  say({ event: 'token', left: tokens.length });
  return token;
};
const client = new Centrifuge(process.argv[2], {
  ...(tokens.length ? { getToken } : {}),
  websocket: WebSocket,
  minReconnectDelay: 20,
  maxReconnectDelay: 100,
});
client.on('connected', (ctx) => say({ event: 'connected', client: ctx.client }));
client.on('connecting', (ctx) => say({ event: 'connecting', code: ctx.code }));
client.on('disconnected', (ctx) => say({ event: 'disconnected', code: ctx.code }));
// What the server subscribed the client to by itself.
client.on('subscribed', (ctx) => say({ event: 'server subscribed', channel: ctx.channel }));
client.on('unsubscribed', (ctx) => say({ event: 'server unsubscribed', channel: ctx.channel }));
client.on('publication', (ctx) => say({ event: 'server publication', channel: ctx.channel, data: ctx.data }));

const subscriptions = new Map();
const orders = {
  subscribe({ channel }) {
    const subscription = client.newSubscription(channel, {});
    subscriptions.set(channel, subscription);
    subscription.on('subscribed', (ctx) =>
      say({ event: 'subscribed', channel, wasRecovering: ctx.wasRecovering, recovered: ctx.recovered }));
    subscription.on('subscribing', (ctx) => say({ event: 'subscribing', channel, code: ctx.code }));
    subscription.on('unsubscribed', (ctx) => say({ event: 'unsubscribed', channel, code: ctx.code }));
    subscription.on('publication', (ctx) => say({ event: 'publication', channel, data: ctx.data, offset: ctx.offset }));
    subscription.subscribe();
  },
  unsubscribe({ channel }) {
    subscriptions.get(channel).unsubscribe();
  },
  async publish({ channel, data }) {
    try {
      await client.publish(channel, data);
      say({ event: 'published', channel });
    } catch (error) {
      say({ event: 'refused', channel, code: error.code });
    }
  },
  async history({ channel, limit }) {
    const { publications, offset } = await subscriptions.get(channel).history({ limit });
    say({ event: 'history', offset, data: publications.map((publication) => publication.data) });
  },
  connect() {
    client.connect();
  },
};

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const order = JSON.parse(line);
    orders[order.do](order);
  })
  .on('close', () => process.exit(0));
