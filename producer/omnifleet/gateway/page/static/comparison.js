// Before and after, side by side: pictures with the edited spans marked, and one player that changes between them.

import { announce, make, seconds as inWords } from "./dom.js";
import { decode, drawWave, levelsOf, paint, peakOf } from "./sound.js";

const WIDTH = 800, WAVE = 96, HEIGHT = 256; // pixels of the pictures
const OTHER = { before: "after", after: "before" };
// Letter, title and what pictures are called, beside another recording and alone.
const OF_BOTH = { before: ["A", "Before", "before"], after: ["B", "After", "after"] };
const ALONE = { before: ["", "Recording", "of the recording"], after: ["", "Result", "of the result"] };

/**
 * The moment of one recording that sounds like a moment of the other.
 * @param {number} moment seconds
 * @param {Array<{from: number[], to: number[]}>} spans that differ, start and end in both, in order
 */
export function translate(moment, spans) {
  let shift = 0;
  for (const { from, to } of spans) {
    if (moment < from[0]) break;
    if (moment < from[1]) return to[0] + ((moment - from[0]) / (from[1] - from[0])) * (to[1] - to[0]);
    shift = to[1] - from[1];
  }
  return moment + shift;
}

/** The recordings of one job. Only one comparison is shown at a time. */
export class Comparison {
  /**
   * @param {{before: Blob|null, after: Blob|null}} files at least one
   * @param {Array<{before: number[], after: number[], text: string}>} spans that differ
   */
  constructor(files, spans) {
    this.spans = spans;
    this.panels = {};
    const names = files.before && files.after ? OF_BOTH : ALONE;
    for (const side of ["before", "after"]) {
      if (files[side]) this.panels[side] = new Panel(side, names[side], files[side], spans);
    }
    this.active = this.panels.after ? "after" : "before";
    this.element = make("div", { class: "comparison" });
    this.player = this.makePlayer();
    const panels = Object.values(this.panels);
    const side = make("div", { class: "panels" }, ...panels.map((panel) => panel.element));
    this.element.append(side, this.player.element, this.makeList() ?? "");
    panels.forEach((panel) => this.follow(panel));
    this.update();
  }

  get audio() {
    return this.panels[this.active].audio;
  }

  /** Draw what the browser can read. */
  async draw() {
    const panels = Object.values(this.panels);
    await Promise.all(panels.map((panel) => panel.decode()));
    const drawn = panels.filter((panel) => panel.sound);
    const longest = Math.max(...drawn.map((panel) => panel.sound.seconds));
    const peak = Math.max(...drawn.map((panel) => peakOf(panel.sound)));
    for (const panel of drawn) panel.drawWave(longest, peak);
    this.update();
    for (const panel of drawn) await panel.measure(longest);
    const loudest = Math.max(...drawn.map((panel) => panel.loudest));
    for (const panel of drawn) panel.paint(loudest);
    this.element.dataset.drawn = "true";
  }

  /** End what plays, and let the files go. */
  close() {
    for (const panel of Object.values(this.panels)) panel.close();
  }

  makePlayer() {
    const play = make("button", { type: "button", class: "play", id: "play" }, "Play");
    const position = make("input", {
      type: "range", id: "position", min: 0, max: 1, step: 0.01, value: 0, "aria-label": "Position",
    });
    const time = make("span", { class: "time" });
    play.addEventListener("click", () => (this.audio.paused ? this.audio.play() : this.audio.pause()));
    position.addEventListener("input", () => this.seek(Number(position.value)));
    const both = Object.keys(this.panels).length === 2;
    const element = make("div", { class: "player", role: "group", "aria-label": "Player" },
      play, position, time, both ? this.makeSwitch() : null);
    return { element, play, position, time };
  }

  makeSwitch() {
    const choice = (side, letter, text) => {
      const radio = make("input", { type: "radio", name: "side", id: `listen-${side}`, value: side, checked: side === this.active });
      radio.addEventListener("change", () => this.change(side));
      return [radio, make("label", { for: radio.id }, make("b", {}, letter), ` ${text}`)];
    };
    return make("fieldset", { class: "segments switch" }, make("legend", { class: "unseen" }, "Listen to"),
      ...choice("before", "A", "before"), ...choice("after", "B", "after"));
  }

  /** The edited spans in words: each can be listened to. */
  makeList() {
    if (!this.spans.length) return null;
    const items = this.spans.map((span) => {
      const button = make("button", { type: "button", class: "quiet" }, span.text);
      button.addEventListener("click", () => this.listenFrom((span[this.active] ?? span.before)[0] - 0.5));
      return make("li", {}, button);
    });
    return make("div", { class: "spans" }, make("h4", {}, "Edited spans"), make("ol", {}, ...items));
  }

  follow(panel) {
    const { audio, side } = panel;
    for (const name of ["play", "pause", "ended", "seeked", "durationchange", "timeupdate"]) {
      audio.addEventListener(name, () => side === this.active && this.update());
    }
    audio.addEventListener("play", () => this.run());
    panel.pictures.addEventListener("click", (event) => {
      const box = panel.pictures.getBoundingClientRect();
      const moment = ((event.clientX - box.left) / box.width) * this.longest;
      this.seek(side === this.active ? moment : this.translated(moment, side));
    });
  }

  /** Follow the position as it is drawn, while something plays. */
  run() {
    this.update();
    if (!this.audio.paused) requestAnimationFrame(() => this.run());
  }

  get longest() {
    return Math.max(...Object.values(this.panels).map((panel) => panel.seconds), 0.01);
  }

  translated(moment, side) {
    return translate(moment, this.spans.map((span) => ({ from: span[side], to: span[OTHER[side]] })));
  }

  seek(moment) {
    this.audio.currentTime = Math.min(Math.max(0, moment), this.panels[this.active].seconds);
    this.update();
  }

  /** Play from a moment of the recording that is listened to. */
  listenFrom(moment) {
    this.seek(moment);
    this.audio.play();
  }

  /** Listen to the other one, from the same place on. */
  change(side) {
    const plays = !this.audio.paused;
    const moment = this.translated(this.audio.currentTime, this.active);
    this.audio.pause();
    this.active = side;
    this.seek(moment);
    if (plays) this.audio.play();
    announce(`Listening to ${side}`);
  }

  update() {
    const { play, position, time } = this.player;
    const { seconds } = this.panels[this.active];
    const moment = Math.min(this.audio.currentTime, seconds);
    play.textContent = this.audio.paused ? "Play" : "Pause";
    position.max = seconds || 1;
    position.value = moment;
    position.setAttribute("aria-valuetext", `${inWords(moment)} of ${inWords(seconds)}`);
    time.textContent = `${inWords(moment)} / ${inWords(seconds)}`;
    for (const panel of Object.values(this.panels)) {
      const own = panel.side === this.active ? moment : this.translated(moment, this.active);
      panel.update(Math.min(own, panel.seconds) / this.longest, panel.side === this.active, this.longest);
    }
  }
}

/** One recording: its pictures and its audio element. */
class Panel {
  constructor(side, [letter, title, about], file, spans) {
    this.side = side;
    this.about = about;
    this.file = file;
    this.spans = spans.filter((span) => span[side]);
    this.sound = null;
    this.audio = make("audio", { id: `audio-${side}`, src: URL.createObjectURL(file), preload: "auto" });
    this.audio.addEventListener("loadedmetadata", () => this.findEnd(), { once: true });
    this.wave = make("canvas", { width: WIDTH, height: WAVE, role: "img" });
    this.spectrogram = make("canvas", { width: WIDTH, height: HEIGHT, role: "img" });
    this.line = make("div", { class: "cursor" });
    this.marks = this.spans.map((_, number) => make("div", { class: "mark" }, make("span", {}, String(number + 1))));
    this.pictures = make("div", { class: "pictures" }, this.wave, this.spectrogram, ...this.marks, this.line);
    this.caption = make("figcaption", {}, letter ? make("b", {}, letter) : null, title);
    this.problem = make("p", { class: "hint" });
    this.element = make("figure", { class: "panel", "data-side": side }, this.caption, this.pictures, this.problem, this.audio);
  }

  get seconds() {
    return this.sound?.seconds ?? (Number.isFinite(this.audio.duration) ? this.audio.duration : 0);
  }

  /** A recording of a microphone does not say how long it is, until its end was looked for. */
  findEnd() {
    if (Number.isFinite(this.audio.duration)) return;
    this.audio.addEventListener("durationchange", () => (this.audio.currentTime = 0), { once: true });
    this.audio.currentTime = 1e7;
  }

  async decode() {
    try {
      this.sound = await decode(this.file);
      this.caption.append(make("span", { class: "time" }, inWords(this.sound.seconds)));
    } catch (error) {
      this.pictures.hidden = true;
      this.problem.textContent = `There is no picture of it: ${error.message || "this browser cannot read the file."}`;
    }
  }

  drawWave(longest, peak) {
    drawWave(this.wave, this.sound, longest, peak);
    const marked = this.spans.map((span) => `${span[this.side].map(inWords).join(" to ")}`).join("; ");
    const about = `${this.about}, ${inWords(this.sound.seconds)}${marked ? `; edited from ${marked}` : ""}`;
    this.wave.setAttribute("aria-label", `Waveform ${about}`);
    this.spectrogram.setAttribute("aria-label", `Spectrogram ${about}`);
  }

  async measure(longest) {
    this.levels = await levelsOf(this.sound, longest, this.spectrogram);
    this.loudest = this.levels.reduce((loudest, level) => Math.max(loudest, level), -120);
  }

  paint(loudest) {
    paint(this.spectrogram, this.levels, loudest);
  }

  update(share, isActive, longest) {
    this.line.style.left = `${share * 100}%`;
    this.element.classList.toggle("active", isActive);
    this.spans.forEach((span, number) => {
      const [start, end] = span[this.side];
      this.marks[number].style.left = `${(start / longest) * 100}%`;
      this.marks[number].style.width = `${((end - start) / longest) * 100}%`;
    });
  }

  close() {
    this.audio.pause();
    URL.revokeObjectURL(this.audio.src);
  }
}
