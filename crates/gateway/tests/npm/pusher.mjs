// Drives the unmodified client library; each line of output is one JSON event, each line of input one order.
import { createHmac } from 'node:crypto';
import { createInterface } from 'node:readline';
import Pusher from 'pusher-js';

const say = (event) => process.stdout.write(JSON.stringify(event) + '\n');
const { hostname, port } = new URL(process.argv[2]);
const client = new Pusher('app-key', {
  cluster: '',
  wsHost: hostname,
  wsPort: Number(port),
  forceTLS: false,
  enabledTransports: ['ws'],
  disableStats: true,
  channelAuthorization: {
    customHandler: ({ socketId, channelName }, done) => {
      const secret = channelName === 'private-forbidden' ? 'wrong' : 'app-secret';
      const mac = createHmac('sha256', secret).update(`${socketId}:${channelName}`).digest('hex');
      done(null, { auth: `app-key:${mac}` });
    },
  },
});
client.connection.bind('state_change', ({ current }) => say({ event: current, socket: client.connection.socket_id }));

const orders = {
  subscribe({ channel }) {
    const subscription = client.subscribe(channel);
    subscription.bind('pusher:subscription_succeeded', () => say({ event: 'subscribed', channel }));
    subscription.bind('pusher:subscription_error', ({ status }) => say({ event: 'refused', channel, status }));
    subscription.bind_global((name, data) => {
      if (!name.startsWith('pusher:')) say({ event: 'message', channel, name, data });
    });
  },
  trigger({ channel, name, data }) {
    client.channel(channel).trigger(name, data);
  },
};

createInterface({ input: process.stdin })
  .on('line', (line) => {
    const order = JSON.parse(line);
    orders[order.do](order);
  })
  .on('close', () => process.exit(0));
