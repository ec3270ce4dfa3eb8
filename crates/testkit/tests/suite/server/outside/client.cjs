// node-redis under load until the key `stop` appears; prints one JSON line of what it met.
process.env.REDIS_EMIT_DIAGNOSTICS = "1";
const { createClient } = require("redis");
const notices = [];
require("node:diagnostics_channel").channel("redis.maintenance").subscribe((event) => {
  if (event.data && event.data.push) notices.push(event.type);
});
const [host, port, endpointType] = process.argv.slice(2);
(async () => {
  const client = createClient({
    RESP: 3,
    maintNotifications: "enabled",
    maintEndpointType: endpointType,
    socket: { host, port: Number(port) },
  });
  const errors = [];
  client.on("error", (error) => errors.push(String(error)));
  await client.connect();
  let done = 0;
  for (;;) {
    try {
      await client.incr("n");
      done += 1;
      if (await client.get("stop")) break;
    } catch (error) {
      errors.push(String(error));
      if (errors.length > 100) break;
    }
  }
  console.log(JSON.stringify({ done, errors, notices }));
  client.destroy();
})();
