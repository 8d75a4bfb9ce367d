// node ask.js "What is a fugue?" — asks the fleet at OMNIFLEET_REDIS_URL, and prints the result record as JSON.
// node ask.js '{"namespace": "generate", "task": {"name": "t2a", "text": "rain"}}' — any job of job.schema.json.

import { Omnifleet } from "./omnifleet.js";

const omni = new Omnifleet(process.env.OMNIFLEET_REDIS_URL ?? "redis://localhost:6379/0", {
  queue: process.env.OMNIFLEET_QUEUE ?? "audio-omni",
});
const asked = process.argv[2] ?? "What is a fugue?";
const request = asked.startsWith("{")
  ? JSON.parse(asked)
  : { namespace: "understand", task: { name: "question", text: asked, max_new_tokens: 64 } };
try {
  const jobId = await omni.submit(request);
  console.error(`sent: ${jobId}`);
  console.log(JSON.stringify(await omni.result(jobId, { timeout: 120_000 })));
} catch (error) {
  console.log(JSON.stringify({ error: { type: error.type, message: error.message, details: error.details } }));
  process.exitCode = 1;
} finally {
  await omni.close();
}
