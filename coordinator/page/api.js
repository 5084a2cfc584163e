// Asking this server, the only one that the page's policy allows; its errors in words.

import { setting } from "./settings.js";

/** What went wrong, for people: `advice` says what to do, `action` is "settings" or "retry". */
export class ApiError extends Error {
  constructor(message, { status = 0, advice = "", action = "", retryAfter = 0, code = "" } = {}) {
    super(message);
    Object.assign(this, { status, advice, action, retryAfter, code });
  }
}

function headers(more = {}) {
  const key = setting("key");
  return key ? { ...more, Authorization: `Bearer ${key}` } : more;
}

const ADVICE = {
  400: ["The server refused the request.", "Change what it names, in the message or in the settings.", ""],
  401: ["This server asks for an API key.", "Enter one in the settings. Its operator makes them with `witan key`.", "settings"],
  403: ["This API key may not do that.", "It lacks a scope: ask the operator for a key that has it.", "settings"],
  404: ["The server does not know that.", "It may be of another release: load the page again.", ""],
  409: ["The request collided with another one.", "Send it again.", "retry"],
  413: ["The conversation is too long for the server.", "Start a new one, or remove long messages.", ""],
  429: ["The server has too much to do.", "Nothing was lost: the same request can be sent again.", "retry"],
  503: ["No group of this server can answer at the moment.", "It may be starting or mending itself: the operator's view tells.", "retry"],
};

function explain(status, error, retryAfter) {
  const said = typeof error?.message === "string" ? error.message : "";
  const [words, advice, action] = error?.code === "context_length_exceeded"
    ? ["The conversation is longer than the model can take.", "Start a new one, or ask for fewer tokens.", ""]
    : ADVICE[status] ?? ["The server failed.", "Try again; its log says more.", "retry"];
  return new ApiError(said ? `${words} ${said}` : words,
    { status, advice, action, retryAfter, code: String(error?.code ?? "") });
}

async function refused(response) {
  let error = null;
  try {
    error = (await response.json()).error;
  } catch { /* no JSON: the status says enough */ }
  const seconds = Number(response.headers.get("Retry-After"));
  return explain(response.status, error, Number.isFinite(seconds) && seconds > 0 ? seconds : 0);
}

async function ask(path, options) {
  try {
    return await fetch(path, { cache: "no-store", credentials: "omit", redirect: "error", ...options });
  } catch (e) {
    if (e.name === "AbortError") throw e;
    throw new ApiError("The server cannot be reached.",
      { advice: "Is it running, and the network up? The page tries again.", action: "retry" });
  }
}

/** GET as JSON. */
export async function getJson(path, signal) {
  const response = await ask(path, { headers: headers(), signal });
  if (!response.ok) throw await refused(response);
  return response.json();
}

/** Does the model answer? {ready, reason}: never throws but when the server cannot be reached. */
export async function health() {
  const response = await ask("/health/ready", {});
  let body = {};
  try {
    body = await response.json();
  } catch { /* its status is what counts */ }
  return { ready: response.ok, reason: body.reason ?? "" };
}

/** The data of events, as their text comes; lines may be cut anywhere, and be long. */
async function* eventData(body) {
  const reader = body.getReader();
  const decoder = new TextDecoder();
  let parts = []; // of the line that has not ended
  try {
    for (;;) {
      const { done, value } = await reader.read();
      if (done) return;
      const lines = decoder.decode(value, { stream: true }).split("\n");
      parts.push(lines[0]);
      for (let i = 1; i < lines.length; i++) {
        const line = parts.join("");
        parts = [lines[i]];
        if (line.startsWith("data:")) yield line.slice(5).trim();
      }
    }
  } finally {
    reader.cancel().catch(() => {});
  }
}

/** The chunks of a streamed answer; `onStart(response)` before the first. */
export async function* streamChat(request, signal, onStart) {
  const response = await ask("/v1/chat/completions", {
    method: "POST",
    headers: headers({ "Content-Type": "application/json" }),
    body: JSON.stringify({ ...request, stream: true, stream_options: { include_usage: true } }),
    signal,
  });
  if (!response.ok) throw await refused(response);
  onStart(response);
  let whole = false;
  try {
    for await (const data of eventData(response.body)) {
      if (data === "[DONE]") {
        whole = true;
        continue;
      }
      const chunk = JSON.parse(data);
      if (chunk.error) throw explain(503, chunk.error, 0);
      yield chunk;
    }
  } catch (e) {
    if (e instanceof ApiError || e.name === "AbortError") throw e;
    throw new ApiError("The answer broke off.", { advice: "What came is above.", action: "retry" });
  }
  if (!whole) {
    throw new ApiError("The answer broke off.", { advice: "What came is above.", action: "retry" });
  }
}
