// What one writes in an afternoon: a WebSocket server that gives its clients what Redis publishes.
import { createServer } from 'node:http';
import Redis from 'ioredis';
import { WebSocketServer } from 'ws';

const channels = new Map();
const redis = new Redis(Number(process.argv[2]), '127.0.0.1');
redis.on('error', () => {});
redis.on('message', (channel, message) => {
  for (const socket of channels.get(channel) ?? []) socket.send(message);
});

const http = createServer();
const server = new WebSocketServer({ server: http, perMessageDeflate: false });
server.on('connection', (socket, request) => {
  const channel = request.url.slice(1);
  let sockets = channels.get(channel);
  if (!sockets) {
    channels.set(channel, (sockets = new Set()));
    redis.subscribe(channel).catch(() => {});
  }
  sockets.add(socket);
  socket.on('error', () => {});
  socket.on('close', () => {
    sockets.delete(socket);
    if (sockets.size === 0) {
      channels.delete(channel);
      redis.unsubscribe(channel).catch(() => {});
    }
  });
});
http.listen(0, '127.0.0.1', 16384, () => console.log(`listening on 127.0.0.1:${http.address().port}`));
