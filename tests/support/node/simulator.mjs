// Starts Cloudflare's local R2 simulator and stays until it is ended.
//
// Arguments: the node_modules directory, then one JSON object
//   {port, buckets: [names], accessKeyId, secretAccessKey, persist}
// Prints "ready" when it answers. Ends when its standard input ends, so that it never
// outlives the test run that started it.
import { createRequire } from "node:module";
import { join } from "node:path";

const [modules, text] = process.argv.slice(2);
const options = JSON.parse(text);
const { Miniflare } = createRequire(join(modules, "here.js"))("miniflare");

const credentials = {
  accessKeyId: options.accessKeyId,
  secretAccessKey: options.secretAccessKey,
};
const buckets = Object.fromEntries(
  options.buckets.map((name, at) => [`B${at}`, { id: name, s3Credentials: credentials }]),
);
const simulator = new Miniflare({
  modules: true,
  script: "export default { fetch() { return new Response() } }",
  host: "127.0.0.1",
  port: options.port,
  r2Buckets: buckets,
  r2Persist: options.persist,
});

async function end() {
  await simulator.dispose();
  process.exit(0);
}
process.on("SIGTERM", end);
process.stdin.on("end", end);
process.stdin.resume();

await simulator.ready;
console.log("ready");
