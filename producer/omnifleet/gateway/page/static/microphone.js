// A recording from the microphone, put where a file would be chosen.

import { announce, make } from "./dom.js";

/** A button that records into a file field: the first press starts, the second ends. */
export function recordButton(input, about) {
  const button = make("button", { type: "button", class: "record", "aria-pressed": "false" }, "Record");
  button.setAttribute("aria-label", `Record ${about.toLowerCase()} with the microphone`);
  let recorder = null;
  button.addEventListener("click", async () => {
    if (recorder) {
      recorder.stop();
      return;
    }
    button.disabled = true;
    try {
      recorder = await begin(button, (file) => put(input, file), () => (recorder = null));
    } catch (error) {
      tell(button, REASONS[error.name] ?? `The microphone does not work: ${error.message}`);
    }
    button.disabled = false;
  });
  return button;
}

const REASONS = {
  NotAllowedError: "The microphone is not allowed. Allow it in the browser, or choose a file.",
  NotFoundError: "There is no microphone. Choose a file.",
  InsecureError: "Browsers give the microphone to pages on HTTPS or localhost alone. Choose a file.",
};

async function begin(button, take, end) {
  if (!navigator.mediaDevices) throw Object.assign(new Error(), { name: "InsecureError" });
  const stream = await navigator.mediaDevices.getUserMedia({
    audio: { echoCancellation: false, noiseSuppression: false, autoGainControl: false },
  });
  const recorder = new MediaRecorder(stream);
  const pieces = [];
  const begun = performance.now();
  const clock = setInterval(() => (button.textContent = `Stop (${Math.floor((performance.now() - begun) / 1000)} s)`), 250);
  recorder.addEventListener("dataavailable", (event) => pieces.push(event.data));
  recorder.addEventListener("stop", () => {
    clearInterval(clock);
    stream.getTracks().forEach((track) => track.stop());
    const kind = recorder.mimeType.split(";")[0] || "audio/webm";
    take(new File(pieces, `recording.${kind.includes("mp4") ? "m4a" : kind.split("/")[1]}`, { type: kind }));
    button.textContent = "Record";
    button.setAttribute("aria-pressed", "false");
    announce("Recorded");
    end();
  });
  recorder.start();
  button.textContent = "Stop";
  button.setAttribute("aria-pressed", "true");
  tell(button, "");
  announce("Recording");
  return recorder;
}

function put(input, file) {
  const chosen = new DataTransfer();
  if (input.multiple) [...input.files].forEach((one) => chosen.items.add(one));
  chosen.items.add(file);
  input.files = chosen.files;
  input.dispatchEvent(new Event("change", { bubbles: true }));
}

function tell(button, text) {
  let note = button.parentElement.querySelector(".problem");
  if (!note) {
    note = make("p", { class: "problem", role: "alert" });
    button.parentElement.append(note);
  }
  note.textContent = text;
}
