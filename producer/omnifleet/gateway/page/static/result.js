// One job on the page: how far it is, its parts as they come, and what it made.

import { Comparison } from "./comparison.js";
import { announce, byId, make, seconds } from "./dom.js";
import { ask, follow } from "./gateway.js";

const STATUS = {
  queued: "Waiting for a worker", running: "Running", retrying: "Trying again",
  succeeded: "Done", failed: "Failed", cancelled: "Cancelled",
};

/** The job that is shown; showing another one ends its stream and its sound. */
export class JobPanel {
  constructor(onOutcome) {
    this.onOutcome = onOutcome;
    this.recordings = new Map(); // what was sent with jobs of this page, by job id
    this.close();
    byId("cancel").addEventListener("click", () => this.cancel());
    byId("before-file").addEventListener("change", ({ target }) => {
      if (!target.files.length) return;
      this.recordings.set(this.jobId, target.files[0]);
      this.compare();
    });
  }

  /** Forget the job that is shown. */
  close() {
    this.reading?.abort();
    this.comparison?.close();
    for (const sound of this.sounds ?? []) sound.pause();
    this.jobId = this.job = this.comparison = this.after = null;
    this.sounds = [];
  }

  /** Show a job, and follow it to its outcome. */
  async show(jobId, title, before = null) {
    this.close();
    this.jobId = jobId;
    this.reading = new AbortController();
    if (before) this.recordings.set(jobId, before);
    this.clear(title);
    const { signal } = this.reading;
    try {
      for await (const { name, data } of follow(jobId, signal)) {
        if (name === "progress") this.showProgress(data);
        if (name === "part") await this.showPart(data, signal);
        if (name === "outcome") await this.showOutcome(data, signal);
      }
    } catch (error) {
      if (error.name !== "AbortError" && this.jobId === jobId) this.showError(error.message);
    }
    if (this.jobId === jobId) byId("job").dataset.shown = jobId; // all that there is of it
  }

  clear(title) {
    byId("job").hidden = false;
    byId("job-title").textContent = title;
    byId("job-id").textContent = this.jobId;
    for (const id of ["answer", "times", "parts", "made", "comparison", "facts", "job-error"]) byId(id).replaceChildren();
    for (const id of ["answer", "compare-with", "job-error"]) byId(id).hidden = true;
    byId("before-file").value = "";
    byId("cancel").hidden = false;
    byId("cancel").disabled = false;
    this.status = null;
    this.showProgress({ status: "queued", step: 0, steps: 0, eta: null });
  }

  showProgress({ status, step, steps, eta }) {
    const bar = byId("progress");
    bar.hidden = false;
    if (steps) bar.value = step / steps;
    else bar.removeAttribute("value");
    const left = eta ? `, about ${Math.ceil(eta)} s left` : "";
    byId("steps").textContent = steps ? `Step ${step} of ${steps}${left}` : "";
    this.showStatus(status);
  }

  showStatus(status) {
    if (this.status === status) return;
    this.status = status;
    byId("status").textContent = STATUS[status] ?? status;
    byId("status").dataset.status = status;
  }

  /** A piece of text, or of sound, which is played behind the one before. */
  async showPart({ text, audio }, signal) {
    if (text) {
      byId("answer").hidden = false;
      byId("answer").append(text);
    }
    if (!audio) return;
    const sound = await (await ask(audio.path.replace(/^\//, ""), { signal })).blob();
    const number = this.sounds.length + 1;
    const player = make("audio", { src: URL.createObjectURL(sound), controls: true, "aria-label": `Part ${number}` });
    player.addEventListener("ended", () => this.sounds[number]?.play().catch(() => {}));
    this.sounds.push(player);
    byId("parts").append(player);
    const before = this.sounds[number - 2];
    if (!before || before.ended) player.play().catch(() => {}); // browsers may want to be asked first
  }

  async showOutcome(job, signal) {
    this.job = job;
    byId("cancel").hidden = true;
    byId("progress").hidden = true;
    byId("steps").textContent = "";
    this.showStatus(job.status);
    if (job.error) this.showError(job.error.message);
    if (job.result) await this.showResult(job.result, signal);
    this.onOutcome();
  }

  showError(message) {
    byId("job-error").hidden = false;
    byId("job-error").textContent = message;
  }

  async showResult(result, signal) {
    if (result.text !== null) {
      byId("answer").hidden = false;
      if (byId("answer").textContent !== result.text) byId("answer").textContent = result.text;
    }
    this.showTimes(result.transcript?.segments ?? []);
    this.showFacts(result);
    for (const kind of ["audio", "video"]) {
      if (!result[kind]) continue;
      const file = await (await ask(`v1/jobs/${this.jobId}/${kind}`, { signal })).blob();
      if (kind === "audio") this.after = file;
      this.showFile(kind, file, result);
    }
    await this.compare();
  }

  /** What is said when: each can be listened to. */
  showTimes(segments) {
    const items = segments.map(({ start, text }) => {
      const button = make("button", { type: "button", class: "quiet" }, make("span", { class: "time" }, seconds(start)), ` ${text}`);
      button.addEventListener("click", () => this.comparison?.listenFrom(start));
      return make("li", {}, button);
    });
    byId("times").replaceChildren(...items);
  }

  showFile(kind, file, result) {
    const name = `${result.task}-${result.job_id.slice(0, 8)}.${result[kind].format}`;
    const url = URL.createObjectURL(file);
    if (kind === "video") byId("made").append(make("video", { src: url, controls: true, "aria-label": "Video with its new sound" }));
    byId("made").append(make("a", { href: url, download: name, class: "button" }, `Download ${name}`));
  }

  /** Show the recordings that are at hand, before and after. */
  async compare() {
    const result = this.job?.result;
    if (!result) return;
    const before = this.recordings.get(this.jobId) ?? null;
    this.comparison?.close();
    byId("comparison").replaceChildren();
    byId("compare-with").hidden = before !== null || !(result.namespace === "edit" || result.task === "vc");
    if (!before && !this.after) return;
    this.comparison = new Comparison({ before, after: this.after }, spansOf(result));
    byId("comparison").append(this.comparison.element);
    await this.comparison.draw();
  }

  showFacts(result) {
    const facts = [
      ["Model", `${result.model.name}, ${result.model.licence}`],
      ["Seed", String(result.seed)],
      ["Attempts", String(result.attempts)],
    ];
    if (result.audio) facts.push(["File", `${result.audio.format}, ${seconds(result.audio.seconds)}, ${result.audio.sample_rate} Hz`]);
    for (const warning of result.warnings ?? []) facts.push(["Note", warning]);
    const rows = facts.flatMap(([name, value]) => [make("dt", {}, name), make("dd", {}, value)]);
    byId("facts").replaceChildren(...rows);
  }

  async cancel() {
    byId("cancel").disabled = true;
    try {
      await ask(`v1/jobs/${this.jobId}`, { method: "DELETE" });
      announce("Cancelling");
    } catch (error) {
      this.showError(error.message);
    }
  }
}

/** What is marked: edited words, words that would be edited, or what is said when. */
function spansOf(result) {
  const words = ({ old, new: made }) => (!old ? `“${made}” inserted` : !made ? `“${old}” deleted` : `“${old}” → “${made}”`);
  if (result.edits) {
    return result.edits.map((one) => ({
      before: [one.source_start, one.source_end], after: [one.start, one.end], text: `${seconds(one.start)}: ${words(one)}`,
    }));
  }
  if (result.plan) {
    return result.plan.edits.map((one) => ({ before: [one.start, one.end], after: null, text: `${seconds(one.start)}: ${words(one)}` }));
  }
  return [];
}
