// openapi.json as a page: what each request takes, with an example as curl sends it, to be sent from here too.

import { byId, copyButton, make } from "./dom.js";
import { ask, askJson } from "./gateway.js";

let schemas = {};
const resolve = (schema) => (schema?.$ref ? schemas[schema.$ref.split("/").pop()] : (schema ?? {}));

async function show() {
  const description = await askJson("openapi.json");
  schemas = description.components?.schemas ?? {};
  const byTag = new Map();
  for (const [path, methods] of Object.entries(description.paths)) {
    for (const [method, operation] of Object.entries(methods)) {
      const tag = operation.tags?.[0] ?? "other";
      byTag.set(tag, [...(byTag.get(tag) ?? []), makeOperation(method.toUpperCase(), path, operation)]);
    }
  }
  for (const [tag, operations] of byTag) {
    byId("operations").append(make("section", { class: "card" }, make("h2", {}, tag), ...operations));
  }
}

function makeOperation(method, path, operation) {
  const parameters = operation.parameters ?? [];
  const bodies = bodiesOf(operation);
  const summary = make("summary", {}, make("span", { class: "method" }, method), make("code", {}, path), make("span", {}, operation.summary ?? ""));
  return make("details", { class: "operation" }, summary, make("p", {}, operation.description ?? ""),
    makeTable("Parameters", parameters.map((one) => [one.name, one.in, one.required, one.schema, one.description])),
    ...bodies.map((body) => makeTable(`Body as ${body.kind}`, fieldsOf(body.schema))),
    makeTable("Answers", Object.entries(operation.responses).map(([status, one]) => [status, "", false, null, one.description])),
    ...(bodies.length ? bodies : [null]).map((body) => makeTrial(method, path, parameters, body)));
}

/** The kinds of body, each with its schema and its example. */
function bodiesOf(operation) {
  return Object.entries(operation.requestBody?.content ?? {}).map(([kind, { schema, example }]) => {
    const fields = resolve(schema);
    return { kind, schema: fields, example: example ?? fields.example };
  });
}

function fieldsOf(schema) {
  const needed = new Set(schema.required ?? []);
  return Object.entries(schema.properties ?? {}).map(([name, one]) => [name, "", needed.has(name), one, one.description]);
}

function makeTable(caption, rows) {
  if (!rows.length) return null;
  const head = ["Name", "Type", "Meaning"].map((text) => make("th", { scope: "col" }, text));
  const lines = rows.map(([name, place, needed, schema, meaning]) =>
    make("tr", {}, make("th", { scope: "row" }, make("code", {}, name)),
      make("td", {}, [typeOf(schema), place, needed ? "needed" : ""].filter(Boolean).join(", ")),
      make("td", { class: "meaning" }, meaning ?? "")));
  const table = make("table", {}, make("caption", {}, caption), make("thead", {}, make("tr", {}, ...head)), make("tbody", {}, ...lines));
  return make("div", { class: "scroll", tabIndex: 0, role: "region", "aria-label": caption }, table);
}

function typeOf(schema) {
  const one = resolve(schema);
  if (one.const !== undefined) return JSON.stringify(one.const);
  if (one.enum) return one.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (one.anyOf) return [...new Set(one.anyOf.filter((each) => each.type !== "null").map(typeOf))].join(" or ");
  if (one.format === "binary" || one.contentMediaType) return "file";
  return one.type ?? "";
}

const isFile = (schema) => typeOf(schema) === "file";

/** The example as a curl call, which changes with the values of its path and its files, and a button that sends it. */
function makeTrial(method, path, parameters, body) {
  const id = `${method}${path}-${body?.kind ?? ""}`.replaceAll(/\W+/g, "-").toLowerCase();
  const inputs = parameters.filter((one) => one.in === "path").map((one) => makeInput(id, one.name, { value: one.schema.examples?.[0] ?? one.schema.enum?.[0] ?? "", required: true }));
  const needed = (name) => (body.schema.required ?? []).includes(name);
  const files = Object.entries(body?.schema.properties ?? {}).filter(([name, one]) => isFile(one) && (needed(name) || body.example?.[name]));
  inputs.push(...files.map(([name]) => makeInput(id, name, { type: "file", required: true })));
  const code = make("code");
  const answer = make("pre", { tabIndex: 0, hidden: true, role: "status" });
  const form = make("form", { "data-call": id }, ...inputs, make("pre", { tabIndex: 0 }, code),
    make("p", { class: "below" }, make("button", {}, "Send"), copyButton(code, `the call of ${method} ${path}`)), answer);
  const request = () => makeRequest(method, path, form, body);
  const update = () => (code.textContent = curlOf(request()));
  form.addEventListener("input", update);
  form.addEventListener("submit", async (event) => {
    event.preventDefault();
    answer.hidden = false;
    answer.textContent = "Sending…";
    answer.textContent = await send(request()).catch((error) => `${error.status || ""} ${error.message}`.trim());
  });
  update();
  return form;
}

function makeInput(id, name, properties) {
  const input = make("input", { type: "text", ...properties, id: `${id}-${name}`, name });
  return make("div", { class: "field" }, make("label", { for: input.id }, name), input);
}

function makeRequest(method, path, form, body) {
  const value = (name) => form.elements[name].value || `{${name}}`;
  const url = path.replaceAll(/\{(\w+)\}/g, (_, name) => encodeURIComponent(value(name)).replaceAll(/%7B|%7D/g, (one) => decodeURIComponent(one)));
  const request = { method, url: new URL(`.${url}`, document.baseURI).href, kind: body?.kind, fields: [], json: null };
  if (body?.kind === "application/json") request.json = JSON.stringify(body.example);
  else if (body) {
    for (const [name, one] of Object.entries(body.example ?? {})) {
      if (!form.elements[name]) request.fields.push([name, typeof one === "object" ? JSON.stringify(one) : String(one)]);
    }
    for (const input of form.querySelectorAll("input[type=file]")) request.fields.push([input.name, input.files[0] ?? { name: body.example?.[input.name] }]);
  }
  return request;
}

function curlOf({ method, url, json, fields }) {
  const quote = (text) => `'${text.replaceAll("'", `'\\''`)}'`;
  const lines = [`curl -sS ${method === "GET" || json || fields.length ? "" : `-X ${method} `}${quote(url)}`, '-H "Authorization: Bearer $OMNIFLEET_KEY"'];
  if (json) lines.push('-H "Content-Type: application/json"', `--data-raw ${quote(json)}`);
  for (const [name, value] of fields) {
    lines.push(typeof value === "string" ? `--form-string ${quote(`${name}=${value}`)}` : `-F ${quote(`${name}=@"${value.name.replace(/[\\"]/g, "\\$&")}"`)}`);
  }
  return lines.join(" \\\n  ");
}

async function send({ method, url, json, fields }) {
  const options = { method };
  if (json) Object.assign(options, { body: json, headers: { "Content-Type": "application/json" } });
  if (fields.length) {
    options.body = new FormData();
    for (const [name, value] of fields) options.body.append(name, value);
  }
  const answer = await ask(url, options);
  const kind = answer.headers.get("Content-Type") ?? "";
  const head = `${answer.status} ${kind}`;
  if (/^(audio|video)/.test(kind)) return `${head}\n${(await answer.blob()).size} bytes`;
  const text = await answer.text();
  return `${head}\n${kind.includes("json") && text ? JSON.stringify(JSON.parse(text), null, 2) : text}`;
}

show().catch((error) => (byId("problem").textContent = error.message));
