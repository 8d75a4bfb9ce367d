// A client of omnifleet over plain Redis, after the contract in schemas/: submit, wait, progress, cancel.

import { randomInt, randomUUID } from "node:crypto";
import { readFileSync } from "node:fs";
import { Redis } from "ioredis";

const SUBMIT = readFileSync(new URL("../../schemas/submit.lua", import.meta.url), "utf8");
const PRIORITY = { interactive: 0, batch: 6 };
const LOOK_AGAIN = 1000; // milliseconds after which a state is read without having been told
const DAY = 24 * 3600;

/** Why a job failed: `type` is the class of the error, as drawn in omnifleet_shared/errors.py. */
export class JobError extends Error {
  constructor(type, [problem, field, remedy, details]) {
    super(`${field ? `${field}: ` : ""}${problem}.${remedy ? ` ${remedy}.` : ""}`);
    Object.assign(this, { name: type, type, problem, field, remedy, details });
  }
}

export class Omnifleet {
  constructor(url, { queue = "audio-omni", lifetime = 7 * DAY, maxQueued = 100_000 } = {}) {
    this.redis = new Redis(url);
    this.queue = queue;
    this.lifetime = lifetime;
    this.maxQueued = maxQueued;
  }

  /** Sends a job (see job.schema.json; ids, seed and time are filled in) and gives its id. */
  async submit(request, { idempotencyKey } = {}) {
    const job = {
      schema_version: request.audio_track != null ? 3 : request.callback ? 2 : 1,
      job_id: randomUUID().replaceAll("-", ""),
      submitted_at: new Date().toISOString(),
      priority: "interactive",
      // The same in every attempt, so that a retry makes the same thing again.
      seed: randomInt(2 ** 32),
      ...request,
    };
    const priority = PRIORITY[job.priority];
    const lists = Object.values(PRIORITY).map((step) => this.list(step));
    const keys = [
      state(job.job_id),
      `omnifleet:runs:${job.job_id}`,
      `omnifleet:wake:${this.queue}`,
      this.list(priority),
      `omnifleet:finished:${this.queue}:`,
      idempotencyKey ? `omnifleet:idempotency:${this.queue}:${idempotencyKey}` : "",
      "", // unfinished jobs of this producer are not counted
      ...lists,
    ];
    const message = JSON.stringify(this.message(job, priority));
    const args = [job.job_id, message, queued(job.job_id), this.lifetime, this.maxQueued, "", randomUUID()];
    const [verdict, jobId, count] = await this.redis.eval(SUBMIT, keys.length, ...keys, ...args);
    if (verdict !== "sent") throw new JobError("QueueFull", [`${count} jobs wait in the queue already`]);
    return jobId;
  }

  /** The result record (result.schema.json) once it is there; throws JobError where the job failed. */
  async result(jobId, { timeout = Infinity } = {}) {
    const until = Date.now() + timeout;
    const news = this.redis.duplicate();
    try {
      // Subscribed before the first look: what happens in between would otherwise go unseen.
      await news.subscribe(state(jobId));
      for (;;) {
        const record = JSON.parse(await this.redis.get(state(jobId)));
        if (record === null) throw new JobError("UnknownJob", [`no job ${jobId} is known here`]);
        if (record.status === "SUCCESS") return record.result;
        if (record.status === "FAILURE") throw new JobError(record.result.exc_type, record.result.exc_message);
        if (record.status === "REVOKED") throw new JobError("JobCancelled", ["the job was revoked"]);
        const left = Math.min(LOOK_AGAIN, until - Date.now());
        if (left <= 0) throw new JobError("ResultTimeout", [`job ${jobId} has no result yet`]);
        await heard(news, left);
      }
    } finally {
      news.disconnect();
    }
  }

  /** How far a running job is (progress.schema.json). */
  async progress(jobId) {
    return JSON.parse(await this.redis.get(`omnifleet:progress:${jobId}`)) ?? { step: 0, steps: 0, eta: null };
  }

  /** Asks for the job to be stopped, before it starts or at its next step. */
  async cancel(jobId) {
    const wish = this.redis.multi().set(`omnifleet:cancel:${jobId}`, "1", "EX", 7 * DAY);
    await wish.publish("omnifleet:cancel", jobId).exec();
  }

  async close() {
    await this.redis.quit();
  }

  /** The list that jobs of a priority wait in, named as kombu's Redis transport does. */
  list(priority) {
    return priority === 0 ? this.queue : `${this.queue}\x06\x16${priority}`;
  }

  /** See message.schema.json. */
  message(job, priority) {
    return {
      body: Buffer.from(JSON.stringify([[], { job }, {}])).toString("base64"),
      "content-encoding": "utf-8",
      "content-type": "application/json",
      headers: { lang: "js", task: `omnifleet.${job.namespace}`, id: job.job_id, root_id: job.job_id },
      properties: {
        correlation_id: job.job_id,
        delivery_mode: 2,
        delivery_info: { exchange: "", routing_key: this.queue },
        priority,
        body_encoding: "base64",
        delivery_tag: randomUUID(),
      },
    };
  }
}

const state = (jobId) => `celery-task-meta-${jobId}`;

const queued = (jobId) =>
  JSON.stringify({ status: "QUEUED", result: null, traceback: null, children: [], task_id: jobId, date_done: new Date().toISOString() });

function heard(news, milliseconds) {
  return new Promise((resolve) => {
    const timer = setTimeout(done, milliseconds);
    news.once("message", done);
    function done() {
      clearTimeout(timer);
      news.off("message", done);
      resolve();
    }
  });
}
