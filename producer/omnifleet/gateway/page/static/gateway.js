// Asks the gateway, with the key that is kept for as long as this tab is open.

const KEY = "omnifleet-key";
const AGAIN = 1000; // milliseconds after which a stream that broke off is opened again

export const readKey = () => sessionStorage.getItem(KEY) ?? "";
export const keepKey = (text) => sessionStorage.setItem(KEY, text);
export const forgetKey = () => sessionStorage.removeItem(KEY);

/** An answer of the gateway that is an error: its status, and the field, remedy and code of its error object. */
export class GatewayError extends Error {
  constructor(status, record) {
    super(record.message);
    this.status = status;
    this.field = record.param ?? null;
    this.code = record.code ?? "";
  }

  /** Whether the same request would fail again. */
  get isFinal() {
    return this.status >= 400 && this.status < 500 && this.status !== 408 && this.status !== 429;
  }
}

/** Ask, and give the answer. Throws GatewayError for one that is an error, and where none comes. */
export async function ask(path, options = {}) {
  const headers = new Headers(options.headers);
  if (readKey()) headers.set("Authorization", `Bearer ${readKey()}`);
  let answer;
  try {
    answer = await fetch(path, { ...options, headers, credentials: "omit", cache: "no-store" });
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new GatewayError(0, { message: "The gateway does not answer. Check the connection and try again." });
  }
  if (!answer.ok) throw await errorOf(answer);
  return answer;
}

export const askJson = async (path, options) => (await ask(path, options)).json();

async function errorOf(answer) {
  try {
    return new GatewayError(answer.status, (await answer.json()).error);
  } catch {
    return new GatewayError(answer.status, { message: `The gateway answered with status ${answer.status}.` });
  }
}

/**
 * Follow a job: gives its events, the outcome last. A stream that breaks off goes on where it was.
 * Not EventSource: it sends no key.
 */
export async function* follow(jobId, signal) {
  let lastId = "";
  for (;;) {
    try {
      const headers = lastId ? { "Last-Event-ID": lastId } : {};
      const answer = await ask(`v1/jobs/${jobId}/events`, { signal, headers });
      if (answer.status === 204) return;
      for await (const event of readEvents(answer.body)) {
        lastId = event.id || lastId;
        yield event;
        if (event.name === "outcome") return;
      }
    } catch (error) {
      if (signal.aborted || (error instanceof GatewayError && error.isFinal)) throw error;
    }
    await new Promise((resolve) => setTimeout(resolve, AGAIN));
    signal.throwIfAborted();
  }
}

/** Read server-sent events as they come: name, id and data, which is JSON. */
export async function* readEvents(body) {
  const reader = body.pipeThrough(new TextDecoderStream()).getReader();
  let unread = "";
  try {
    for (;;) {
      const { value, done } = await reader.read();
      if (done) return;
      const blocks = (unread + value).split(/\r?\n\r?\n/);
      unread = blocks.pop();
      for (const block of blocks) {
        const event = readEvent(block);
        if (event) yield event;
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

function readEvent(block) {
  const event = { name: "message", id: "", data: null };
  const data = [];
  for (const line of block.split(/\r?\n/)) {
    const [, field, value] = /^([^:]*):? ?(.*)$/s.exec(line);
    if (field === "event") event.name = value;
    if (field === "id") event.id = value;
    if (field === "data") data.push(value);
  }
  if (!data.length) return null; // a comment that keeps the connection open
  event.data = JSON.parse(data.join("\n"));
  return event;
}
