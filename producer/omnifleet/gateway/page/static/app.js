// The page: a key, a task with its fields, the job that was sent, the jobs before it, and the call to copy.

import { commandCall, curlCall, pythonCall } from "./calls.js";
import { announce, byId, copyButton, make } from "./dom.js";
import { jobOf, makeField, readForm } from "./form.js";
import { askJson, forgetKey, keepKey, readKey } from "./gateway.js";
import { JobTable } from "./jobs.js";
import { JobPanel } from "./result.js";
import { TASKS, fieldsOf } from "./tasks.js";

const form = byId("task-form");
const table = new JobTable();
const panel = new JobPanel(() => table.refresh());
let names = { voices: [], models: [] };
let shown = [];

const namespace = () => form.elements.namespace.value;
const taskName = () => form.elements.kind.value;
const request = () => readForm(form, namespace(), taskName(), shown);

/** Ask whether the key opens the gateway, and show what it opens. */
async function enter() {
  byId("key-error").textContent = "";
  try {
    const [voices, models] = await Promise.all(["v1/voices", "v1/models"].map(readNames));
    names = { voices: voices.filter((name) => name !== "default"), models };
    byId("key-note").textContent = readKey() ? "Your key is used until this tab is closed." : "This gateway asks for no key.";
    byId("key-form").classList.add("open");
    byId("forget").hidden = !readKey();
    showFields();
    await table.refresh();
    return true;
  } catch (error) {
    byId("key-form").classList.remove("open");
    byId("key-note").textContent = "Ask whoever runs the gateway for a key: they make it with omnifleet keys add.";
    if (readKey() || error.status !== 401) byId("key-error").textContent = error.message;
    byId("key").focus();
    return false;
  }
}

const readNames = async (path) => (await askJson(path)).data.map(({ id }) => id);

byId("key-form").addEventListener("submit", async (event) => {
  event.preventDefault();
  keepKey(byId("key").value.trim());
  byId("key").value = "";
  if (await enter()) {
    announce("The key is accepted");
    form.querySelector("[name=namespace]:checked").focus();
  } else forgetKey();
});

byId("forget").addEventListener("click", () => {
  forgetKey();
  panel.close();
  byId("job").hidden = true;
  byId("jobs-body").replaceChildren();
  enter();
});

function showTasks() {
  const options = Object.entries(TASKS[namespace()]).map(([value, { title }]) => make("option", { value }, title));
  form.elements.kind.replaceChildren(...options);
  showFields();
}

function showFields() {
  const { about, options } = fieldsOf(namespace(), taskName());
  shown = [...about, ...options];
  byId("fields").replaceChildren(...about.map((field) => makeField(field, names)));
  byId("options").replaceChildren(...options.map((field) => makeField(field, names)));
  showCalls();
}

function showCalls() {
  const calls = request();
  byId("call-python").textContent = pythonCall(calls);
  byId("call-curl").textContent = curlCall(calls, document.baseURI);
  byId("call-command").textContent = commandCall(calls);
}

for (const radio of form.elements.namespace) radio.addEventListener("change", showTasks);
form.elements.kind.addEventListener("change", showFields);
form.addEventListener("input", showCalls);
form.addEventListener("change", showCalls);

form.addEventListener("submit", async (event) => {
  event.preventDefault();
  const sent = request();
  const send = byId("send");
  complain(null);
  send.disabled = true;
  send.textContent = "Sending…";
  try {
    const job = await askJson("v1/jobs", { method: "POST", body: bodyOf(sent) });
    const title = TASKS[sent.namespace][sent.name].title;
    location.hash = `job=${job.id}&task=${sent.namespace}.${sent.name}`;
    open(job.id, title, sent.files.audio?.[0]);
    table.refresh();
  } catch (error) {
    complain(error);
  }
  send.disabled = false;
  send.textContent = "Send";
});

function bodyOf(sent) {
  const body = new FormData();
  body.append("job", JSON.stringify(jobOf(sent)));
  for (const [name, files] of Object.entries(sent.files)) for (const file of files) body.append(name, file);
  return body;
}

/** Say what is wrong with the request, at the field that it is about. */
function complain(error) {
  byId("form-error").textContent = error?.message ?? "";
  for (const control of form.querySelectorAll("[aria-invalid]")) control.removeAttribute("aria-invalid");
  const control = error?.field ? byId(`field-${error.field.split(".")[0]}`) : null;
  control?.setAttribute("aria-invalid", "true");
  control?.closest("details")?.setAttribute("open", "");
  control?.focus();
}

function open(jobId, title, before) {
  panel.show(jobId, title, before);
  byId("job-title").focus();
}

/** Show the job that the address names, such as one of the list. */
function openLinked() {
  const named = new URLSearchParams(location.hash.slice(1));
  const jobId = named.get("job");
  if (!jobId || jobId === panel.jobId || !/^[A-Za-z0-9][A-Za-z0-9_-]{0,63}$/.test(jobId)) return;
  const [space, name] = (named.get("task") ?? "").split(".");
  open(jobId, TASKS[space]?.[name]?.title ?? "Job");
}

addEventListener("hashchange", openLinked);
for (const id of ["python", "curl", "command"]) {
  byId(`copy-${id}`).append(copyButton(byId(`call-${id}`), `the call for ${id}`));
}
for (const radio of document.getElementsByName("call")) {
  radio.addEventListener("change", () => {
    for (const id of ["python", "curl", "command"]) byId(`shown-${id}`).hidden = id !== radio.value;
  });
}

showTasks();
if (await enter()) openLinked();
