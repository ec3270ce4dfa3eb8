// node-redis under load until the key `stop` appears; prints what it heard, met and did, one thing a line.
// Arguments: standalone or cluster, host, port, endpoint type, keys to count on.
process.env.REDIS_EMIT_DIAGNOSTICS = "1";
const { createClient, createCluster } = require("redis");
const heard = new Set();
require("node:diagnostics_channel").channel("redis.maintenance").subscribe((event) => {
  if (event.data && event.data.push) heard.add(`${event.type} ${event.data.push[1]}`);
});
const [mode, host, port, maintEndpointType, ...keys] = process.argv.slice(2);
const options = { RESP: 3, maintNotifications: "enabled", maintEndpointType };
const socket = { host, port: Number(port) };
(async () => {
  const client =
    mode === "cluster"
      ? createCluster({ RESP: 3, rootNodes: [{ socket }], defaults: options })
      : createClient({ ...options, socket });
  const errors = [];
  client.on("error", (error) => errors.push(String(error)));
  await client.connect();
  const done = new Map(keys.map((key) => [key, 0]));
  let stopped = null;
  while (!stopped && errors.length < 100) {
    try {
      for (const key of keys) {
        await client.incr(key);
        done.set(key, done.get(key) + 1);
      }
      stopped = await client.get("stop");
    } catch (error) {
      errors.push(String(error));
    }
  }
  for (const notice of heard) console.log("heard", notice);
  for (const error of errors) console.log("error", error);
  for (const [key, count] of done) console.log("done", key, count);
  client.destroy();
})();
