// What can be asked for: the tasks of each namespace, and the fields of each. A test compares them with the calls.

const FORMATS = [["", "wav (default)"], ["flac", "flac"], ["mp3", "mp3"], ["ogg", "ogg"]];

/** Fields by their names in the calls. `kind` says how one is shown and read. */
export const FIELDS = {
  question: { kind: "text", label: "Question", placeholder: "What is heard, and in which order?" },
  text: { kind: "text", label: "Text" },
  desc: { kind: "text", label: "Description" },
  source: { kind: "line", label: "Sound that is there" },
  target: { kind: "line", label: "Sound to make of it" },
  audio: { kind: "file", label: "Recording", accept: "audio/*,video/*", microphone: true },
  video: { kind: "file", label: "Video", accept: "video/*" },
  ref: { kind: "voice", label: "Voice", accept: "audio/*,video/*", microphone: true },
  ref_text: { kind: "text", label: "What is said in the voice’s recording", hint: "Transcribed by the model if left out." },
  seconds: { kind: "number", label: "Length in seconds", min: 0.1, max: 300, placeholder: "10" },
  speed: { kind: "number", label: "Speed", min: 0.25, max: 4, placeholder: "1" },
  span: { kind: "span", label: "Or the words between two seconds" },
  system: { kind: "text", label: "System prompt" },
  max_new_tokens: { kind: "number", label: "Longest answer in tokens", min: 1, max: 4096, step: 1, placeholder: "512" },
  temperature: { kind: "number", label: "Temperature", min: 0, max: 2, placeholder: "0" },
  timestamps: { kind: "choice", label: "Times", options: [["", "none"], ["segment", "of segments"], ["word", "of words"]] },
  steps: { kind: "number", label: "Diffusion steps", min: 1, max: 1000, step: 1, placeholder: "100" },
  quality: { kind: "choice", label: "Quality", options: [["", "exact (default)"], ["fast", "fast"]] },
  guidance: { kind: "number", label: "Guidance", min: 0, max: 50 },
  adapter: { kind: "line", label: "Adapter", placeholder: "none" },
  adapter_scale: { kind: "number", label: "Strength of the adapter", min: -4, max: 4, placeholder: "1" },
  format: { kind: "choice", label: "File format", options: FORMATS },
  loudness: { kind: "choice", label: "Loudness", options: [["", "as the source (default)"], ["peak", "to full scale"]] },
  channels: { kind: "choice", label: "Channels", number: true, options: [["", "stereo (default)"], ["1", "mono"]] },
  mux: { kind: "check", label: "Make the video with its new sound too" },
  dry_run: { kind: "check", label: "Only show which words would change" },
  stream: { kind: "check", label: "Give parts as they are made" },
  seed: { kind: "number", label: "Seed", min: 0, max: 2 ** 32 - 1, step: 1, placeholder: "drawn" },
  language: { kind: "line", label: "Language (such as en)" },
  model: { kind: "model", label: "Model" },
  priority: { kind: "choice", label: "Priority", options: [["", "interactive (default)"], ["batch", "batch"]] },
  deadline: { kind: "number", label: "Deadline in seconds", min: 0.1 },
  audio_track: { kind: "number", label: "Sound track of the file", min: 0, max: 99, step: 1 },
  commercial: { kind: "check", label: "Only by a model whose licence allows commercial use" },
};

const COMMON = ["model", "seed", "language", "audio_track", "priority", "deadline", "commercial"];
const DIFFUSION = ["steps", "quality", "guidance", "adapter", "adapter_scale", "format"];
const OPTIONS = {
  understand: ["system", "max_new_tokens", "temperature", "stream", ...COMMON],
  generate: [...DIFFUSION, "stream", ...COMMON],
  edit: [...DIFFUSION, "loudness", "channels", ...COMMON],
};

// Fields of each task; those with ! cannot be left out. What is besides them changes a field for this task.
const named = (title, fields, changes = {}) => ({ title, fields: fields.split(" "), changes });
const HEARD = "audio video";
export const TASKS = {
  understand: {
    question: named("Ask anything", "question! audio video", { audio: { multiple: true }, video: { multiple: true } }),
    transcribe: named("Transcribe speech", "audio! timestamps"),
    caption: named("Describe it", HEARD),
    qa: named("Answer a question about it", `text! ${HEARD}`, { text: { label: "Question" } }),
    classify: named("Name its class", HEARD),
    sources: named("List the sources of sound", HEARD),
    scene: named("Say what scene it is", HEARD),
    speakers: named("Count the speakers", "audio!"),
    gender: named("Tell the speaker’s gender", "audio!"),
    sarcasm: named("Tell whether it is sarcasm", "audio!"),
    feedback: named("Judge a pronunciation", "text audio!", { text: { label: "What the learner meant to say" } }),
  },
  generate: {
    t2a: named("Sound from text", "text! seconds", { text: { label: "Sound", placeholder: "rain on a tin roof" } }),
    t2m: named("Music from text", "text! seconds", { text: { label: "Music", placeholder: "a slow waltz, piano" } }),
    tts: named("Speech from text", "text! ref ref_text speed seconds", {
      text: { label: "What is said" },
      seconds: { label: "Or its length in seconds", placeholder: "as long as it takes" },
    }),
    vc: named("Another voice for speech", "audio! ref! text ref_text", {
      audio: { label: "Speech" },
      text: { label: "What is said in it", hint: "Transcribed by the model if left out." },
    }),
    v2a: named("Sound for a video", "video! text seconds mux", { text: { label: "Sound" }, seconds: { placeholder: "the video’s" } }),
    v2m: named("Music for a video", "video! text seconds mux", { text: { label: "Music" }, seconds: { placeholder: "the video’s" } }),
  },
  edit: {
    add: named("Add a sound", "audio! desc!", { desc: { label: "Sound to add", placeholder: "rain" } }),
    remove: named("Remove a sound", "audio! desc!", { desc: { label: "Sound to remove", placeholder: "traffic" } }),
    extract: named("Keep one sound alone", "audio! desc!", { desc: { label: "Sound to keep", placeholder: "the guitar" } }),
    style: named("Turn one sound into another", "audio! source! target!"),
    speech: named("Change spoken words", "audio! desc span text dry_run", {
      desc: { label: "What to change", placeholder: "replace 'hello' with 'goodbye'" },
      text: { label: "What is said there instead", hint: "Left out, the words between those seconds are cut." },
    }),
  },
};

/** The fields of a task: those it is about, and its options, each with its name and whether it is needed. */
export function fieldsOf(namespace, name) {
  const task = TASKS[namespace][name];
  const about = task.fields.map((one) => field(one.replace("!", ""), one.endsWith("!"), task.changes));
  const left = name === "speech" ? ["loudness", "channels"] : [];
  const options = OPTIONS[namespace].filter((one) => !left.includes(one)).map((one) => ({ ...field(one, false, {}), isOption: true }));
  return { about, options };
}

const field = (name, needed, changes) => ({ name, needed, ...FIELDS[name], ...changes[name] });
