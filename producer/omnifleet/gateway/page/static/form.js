// The fields of a task as a form, and what was filled in as a request.

import { make } from "./dom.js";
import { recordButton } from "./microphone.js";

/**
 * Make the control of a field; each is labelled, and described by its hint.
 * @param {Object} field of `fieldsOf`
 * @param {{voices: string[], models: string[]}} names that may be chosen
 */
export function makeField(field, names) {
  const id = `field-${field.name}`;
  const hint = field.hint ? make("p", { id: `${id}-hint`, class: "hint" }, field.hint) : null;
  const describe = hint ? { "aria-describedby": hint.id } : {};
  const controls = MAKERS[field.kind](field, id, describe, names);
  if (field.kind === "check") return make("p", { class: "field check" }, ...controls, label(field, id));
  if (field.kind === "span" || field.kind === "voice") {
    const legend = make("legend", {}, field.label, note(field));
    return make("fieldset", { class: "field" }, legend, ...controls, hint);
  }
  return make("div", { class: `field ${field.kind}` }, label(field, id), ...controls, hint);
}

const note = (field) => (field.needed || field.isOption ? null : make("span", { class: "optional" }, " (optional)"));
const label = (field, id) =>
  make("label", { for: id }, field.label, ["check", "choice", "model"].includes(field.kind) ? null : note(field));

const base = (field, id) => ({ id, name: field.name, required: field.needed });
const placeholder = (field) => (field.placeholder ? { placeholder: field.placeholder } : {});

const MAKERS = {
  text: (field, id, describe) => [
    make("textarea", { ...base(field, id), ...placeholder(field), rows: 2, maxLength: 10000, ...describe }),
  ],
  line: (field, id) => [
    make("input", { ...base(field, id), ...placeholder(field), type: "text", maxLength: 10000 }),
  ],
  number: (field, id) => [makeNumber(base(field, id), field)],
  choice: (field, id) => [makeSelect(base(field, id), field.options)],
  model: (field, id, describe, { models }) => [
    makeSelect(base(field, id), [["", "the first that can"], ...models.map((name) => [name, name])]),
  ],
  check: (field, id) => [make("input", { ...base(field, id), type: "checkbox" })],
  file: makeFile,
  span: (field, id) => [
    make("div", { class: "pair" },
      make("label", { for: `${id}-start` }, "Start"), makeNumber({ id: `${id}-start`, name: "span-start" }, { min: 0 }),
      make("label", { for: `${id}-end` }, "End"), makeNumber({ id: `${id}-end`, name: "span-end" }, { min: 0 })),
  ],
  voice: makeVoice,
};

function makeNumber(properties, field) {
  const limits = { min: field.min ?? "", max: field.max ?? "", step: field.step ?? "any" };
  return make("input", { ...properties, ...placeholder(field), type: "number", inputMode: "decimal", ...limits });
}

const makeSelect = (properties, options) =>
  make("select", properties, ...options.map(([value, text]) => make("option", { value }, text)));

function makeFile(field, id) {
  const input = make("input", {
    ...base(field, id), type: "file", accept: field.accept, multiple: field.multiple ?? false,
  });
  const preview = make("div", { class: "previews" });
  input.addEventListener("change", () => showPreviews(input, preview));
  const record = field.microphone ? recordButton(input, field.label) : null;
  return [make("div", { class: "choose" }, input, record), preview];
}

function showPreviews(input, preview) {
  for (const old of preview.querySelectorAll("audio, video")) URL.revokeObjectURL(old.src);
  preview.replaceChildren(
    ...[...input.files].map((file) => {
      const kind = file.type.startsWith("video/") && input.name === "video" ? "video" : "audio";
      const player = { src: URL.createObjectURL(file), controls: true, preload: "metadata", "aria-label": file.name };
      return make("figure", {}, make("figcaption", {}, file.name), make(kind, player));
    }),
  );
}

function makeVoice(field, id, describe, { voices }) {
  const own = field.needed ? [] : [["", "the model’s own"]];
  const names = voices.map((name) => [`voice:${name}`, name]);
  const select = makeSelect({ id: `${id}-voice`, name: "voice", "aria-label": "Whose voice" }, [
    ...own, ["file", "that of a recording"], ...names,
  ]);
  const about = { ...field, label: "Recording of the voice", needed: true };
  const recording = make("div", { class: "field file" }, label(about, id), ...makeFile(about, id));
  const update = () => {
    recording.hidden = select.value !== "file";
    recording.querySelector("input").disabled = recording.hidden;
  };
  select.addEventListener("change", update);
  update();
  return [select, recording];
}

/**
 * Read a form.
 * @returns {{task: string, fields: Object, files: Object<string, File[]>}} the arguments of the call that were given
 */
export function readForm(form, namespace, name, shown) {
  const fields = {};
  const files = {};
  for (const field of shown) {
    if (field.kind === "file" || field.kind === "voice") readMedia(form, field, fields, files);
    else {
      const value = field.kind === "span" ? readSpan(form) : readValue(form.elements[field.name], field);
      if (value !== null) fields[field.name] = value;
    }
  }
  return { namespace, name, fields, files };
}

function readMedia(form, field, fields, files) {
  const voice = field.kind === "voice" ? form.elements.voice.value : "file";
  if (voice === "file") {
    const chosen = [...form.elements[field.name].files];
    if (chosen.length) files[field.name] = chosen;
  } else if (voice) fields[field.name] = voice;
}

function readValue(control, field) {
  if (field.kind === "check") return control.checked ? true : null;
  const text = control.value.trim();
  if (!text) return null;
  return field.kind === "number" || field.number ? Number(text) : text;
}

function readSpan(form) {
  const ends = [form.elements["span-start"].value, form.elements["span-end"].value];
  return ends.some((end) => end !== "") ? ends.map(Number) : null;
}

/** The fields of a request as the gateway takes them in JSON. */
export function jobOf({ namespace, name, fields }) {
  return { task: name === "question" ? namespace : `${namespace}.${name}`, ...fields };
}
