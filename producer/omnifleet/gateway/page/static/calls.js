// The request of a form as a call: in Python, for curl and for the command line.

import { jobOf } from "./form.js";

const LONGEST_LINE = 50;

/** The Python call. Its client reads OMNIFLEET_REDIS_URL and OMNIFLEET_STORAGE. */
export function pythonCall(request) {
  const { namespace, name, fields, files } = request;
  const { audio, ...media } = mediaOf(files);
  const given = name === "question" ? [`question=${python(fields.question ?? "")}`] : [python(name)];
  // Behind the task, where it may stand without its name.
  const isSecond = name !== "question" && namespace !== "generate";
  if (audio !== undefined) given.push(isSecond ? python(audio) : `audio=${python(audio)}`);
  const named = Object.entries({ ...media, ...fields }).filter(([field]) => field !== "question");
  given.push(...named.map(([field, value]) => `${field}=${python(value, field)}`));
  return [
    "from omnifleet import Client", "", "with Client() as omni:",
    `    job = omni.${namespace}(${asLines(given)})`,
    ...endOf(request),
  ].join("\n");
}

// On one line, or one a line where that would be long.
function asLines(given) {
  const line = given.join(", ");
  return line.length <= LONGEST_LINE ? line : `\n${given.map((one) => `        ${one},\n`).join("")}    `;
}

function endOf({ namespace, name, fields }) {
  const isText = namespace === "understand" || fields.dry_run;
  if (fields.stream && isText) return ["    for part in job.stream():", '        print(part.text, end="", flush=True)'];
  if (fields.stream) {
    return ["    for part in job.stream():", '        part.audio.save(f"{part.number}.wav")', ...saved(name, fields)];
  }
  if (isText) return ["    result = job.result()", "    print(result.text)"];
  return saved(name, fields);
}

const saved = (name, fields) => ["    result = job.result()", `    result.audio.save(${python(outputOf(name, fields))})`];

const outputOf = (name, { mux, format }) => (mux ? `${name}-sound.${format ?? "wav"}` : `${name}.${format ?? "wav"}`);

/** A value as Python writes it. JSON's strings are Python's. */
function python(value, field) {
  if (value === true) return "True";
  if (Array.isArray(value)) {
    const inside = value.map((one) => python(one)).join(", ");
    return field === "span" ? `(${inside})` : `[${inside}]`;
  }
  return JSON.stringify(value);
}

/** The call of curl; $OMNIFLEET_KEY holds the key, which is never shown. */
export function curlCall(request, origin) {
  const job = JSON.stringify(jobOf(request));
  const files = Object.entries(request.files).flatMap(([field, some]) => some.map((file) => [field, file.name]));
  const body = files.length
    ? [`--form-string ${quote(`job=${job}`)}`, ...files.map(([field, name]) => `-F ${quote(`${field}=@"${escaped(name)}"`)}`)]
    : ['-H "Content-Type: application/json"', `--data-raw ${quote(job)}`];
  const head = [`curl -sS ${quote(new URL("v1/jobs?wait=60", origin).href)}`, '-H "Authorization: Bearer $OMNIFLEET_KEY"'];
  return [...head, ...body].join(" \\\n  ");
}

// Inside the quotes in which curl takes a file's name, whatever is in it.
const escaped = (name) => name.replace(/[\\"]/g, "\\$&");

/** The command; -o names the file to write. */
export function commandCall(request) {
  const { namespace, name, fields, files } = request;
  const { question, stream, ...others } = fields;
  const positional = name === "question" ? [] : [name];
  const options = name === "question" ? [option("question", question ?? "")] : [];
  for (const [field, value] of Object.entries({ ...others, ...mediaOf(files) })) {
    if (field === "audio" && namespace !== "generate") positional.push(...[value].flat());
    else if (field === "text" && namespace === "generate") positional.splice(1, 0, value);
    else options.push(...[value].flat(field === "span" ? 0 : 1).map((one) => option(field, one)));
  }
  const output = namespace === "understand" || fields.dry_run ? [] : ["-o", outputOf(name, fields)];
  if (stream) output.splice(0, 2, "-o", "-");
  const words = positional.map(quote);
  const named = [...options, ...output];
  // Behind -- nothing is an option, whatever it begins with.
  const all = positional.some((one) => one.startsWith("-")) ? [...named, "--", ...words] : [...words, ...named];
  return ["omnifleet", namespace, ...all].join(" ");
}

const option = (field, value) => {
  const name = `--${field.replaceAll("_", "-")}`;
  if (value === true) return name;
  return `${name}=${quote(Array.isArray(value) ? value.join("-") : String(value))}`;
};

const mediaOf = (files) => Object.fromEntries(Object.entries(files).map(([field, some]) => [field, pathsOf(some)]));

function pathsOf(files) {
  // A name that begins with a hyphen, or as voices and addresses do, is a path all the same.
  const paths = files.map(({ name }) => (/^(-|[a-z0-9+.]+:)/i.test(name) ? `./${name}` : name));
  return paths.length === 1 ? paths[0] : paths;
}

/** A word of the shell, in quotes where it needs them. */
function quote(word) {
  return /^[\w@%+=:,./-]+$/.test(word) ? word : `'${word.replaceAll("'", `'\\''`)}'`;
}
