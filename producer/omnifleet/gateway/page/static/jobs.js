// The list of this key's jobs.

import { byId, make } from "./dom.js";
import { askJson } from "./gateway.js";

const MANY = 10;

export class JobTable {
  constructor() {
    this.next = null;
    byId("refresh").addEventListener("click", () => this.refresh());
    byId("older").addEventListener("click", () => this.readMore());
  }

  /** Show the newest jobs. */
  async refresh() {
    await this.read(`v1/jobs?limit=${MANY}`, (rows) => byId("jobs-body").replaceChildren(...rows));
  }

  async readMore() {
    const first = byId("jobs-body").children.length;
    await this.read(this.next, (rows) => byId("jobs-body").append(...rows));
    byId("jobs-body").children[first]?.querySelector("a").focus();
  }

  async read(path, show) {
    try {
      const { data, next } = await askJson(path);
      show(data.map(row));
      this.next = next?.replace(/^\//, "");
      byId("jobs-note").textContent = byId("jobs-body").children.length ? "" : "Nothing was sent yet.";
    } catch (error) {
      byId("jobs-note").textContent = error.message;
    }
    byId("jobs-table").hidden = !byId("jobs-body").children.length;
    byId("older").hidden = !this.next;
  }
}

function row(job) {
  const made = new Date(job.created_at);
  const when = make("time", { dateTime: job.created_at }, made.toLocaleString());
  const progress = job.status === "running" && job.progress.steps ? ` ${job.progress.step}/${job.progress.steps}` : "";
  const status = make("span", { class: "badge", "data-status": job.status }, job.status + progress);
  const link = make("a", { href: `#job=${job.id}&task=${job.task}` }, job.task);
  return make("tr", {}, make("th", { scope: "row" }, link), make("td", {}, status), make("td", {}, when),
    make("td", { class: "id" }, job.id));
}
