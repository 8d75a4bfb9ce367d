// Hears and reads streams with OpenAI's own client: node stream.mjs BASE_URL KEY FOLDER TEXT
import fs from "node:fs";
import path from "node:path";
import OpenAI from "openai";

const [baseURL, apiKey, folder, text] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });
const ask = (method, job) =>
  fetch(`${baseURL}/jobs/${job}`, { method, headers: { Authorization: `Bearer ${apiKey}` } }).then((answer) => answer.json());
const transcribe = () =>
  client.audio.transcriptions
    .create({ model: "audio-omni", file: fs.createReadStream(path.join(folder, "call.wav")), stream: true })
    .withResponse();

const speech = await client.audio.speech.create({
  model: "audio-omni", voice: "default", input: text, response_format: "wav",
});
const job = speech.headers.get("x-job-id");
const file = fs.createWriteStream(path.join(folder, "speech.wav"));
let wasRunning;
for await (const chunk of speech.body) {
  wasRunning ??= (await ask("GET", job)).status;
  file.write(chunk);
}
await new Promise((resolve) => file.end(resolve));

const deltas = [];
let whole;
for await (const event of (await transcribe()).data) {
  if (event.type === "transcript.text.delta") deltas.push(event.delta);
  if (event.type === "transcript.text.done") whole = event.text;
}

let failed;
const { data: broken, response } = await transcribe();
try {
  for await (const event of broken) {
    if (event.type === "transcript.text.delta") await ask("DELETE", response.headers.get("x-job-id"));
  }
} catch (error) {
  failed = error.code;
}
console.log(JSON.stringify({ wasRunning, job, deltas, text: whole, failed }));
