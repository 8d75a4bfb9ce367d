// Speaks and transcribes with OpenAI's own client: node call.mjs BASE_URL KEY FOLDER
import fs from "node:fs";
import path from "node:path";
import OpenAI from "openai";

const [baseURL, apiKey, folder] = process.argv.slice(2);
const client = new OpenAI({ baseURL, apiKey, maxRetries: 0 });

const speech = await client.audio.speech.create({
  model: "audio-omni", voice: "default", input: "Hello.", response_format: "flac",
});
fs.writeFileSync(path.join(folder, "hello.flac"), Buffer.from(await speech.arrayBuffer()));

const { text } = await client.audio.transcriptions.create({
  model: "audio-omni", file: fs.createReadStream(path.join(folder, "call.wav")),
});

const models = [];
for await (const model of client.models.list()) models.push(model.id);

let refused;
try {
  await client.audio.speech.create({ model: "audio-omni", voice: "alloy", input: "Hello." });
} catch (error) {
  refused = { status: error.status, param: error.param, code: error.code };
}
console.log(JSON.stringify({ text, models, refused }));
