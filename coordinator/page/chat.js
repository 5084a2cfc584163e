// The chat: a conversation, kept in this tab alone, and answers as they stream.

import { streamChat } from "./api.js";
import { byId, copyButton, el, setText, speak } from "./dom.js";
import { Markdown, plainPieces } from "./markdown.js";
import { numberSetting, openSettings, setting } from "./settings.js";

const KEY = "witan.chat";
const OFTEN_MS = 60; // between two drawings of an answer; more where one takes long
const NEAR = 80; // pixels from the end within which it is followed

/** {role, content} of users; answers have more: reasoning, tools, info, error. */
let messages = restore();
let views = [];
let running = null; // {abort, view} while an answer streams
const at = {}; // the parts of the view

/* --- keeping ----------------------------------------------------------------------------------- */

function restore() {
  try {
    const found = JSON.parse(sessionStorage.getItem(KEY));
    const fit = (m) => (m?.role === "user" || m?.role === "assistant") && typeof m.content === "string";
    return Array.isArray(found) && found.every(fit) ? found : [];
  } catch {
    return [];
  }
}

function keep() {
  try {
    sessionStorage.setItem(KEY, JSON.stringify(messages));
  } catch {
    sessionStorage.removeItem(KEY); // too long to be kept: it lives until the page is left
  }
}

function exportAll() {
  const all = { exported: new Date().toISOString(), system: setting("system") || undefined, messages };
  const address = URL.createObjectURL(new Blob([JSON.stringify(all, null, 2)], { type: "application/json" }));
  el("a", { href: address, download: "conversation.json" }).click();
  setTimeout(() => URL.revokeObjectURL(address), 1000);
}

/* --- a message --------------------------------------------------------------------------------- */

class UserView {
  constructor(message) {
    this.message = message;
    this.body = el("div", { class: "words", dir: "auto" });
    this.edit = el("button", { type: "button", class: "quiet small", onclick: () => this.open() }, "Edit");
    this.root = el("li", { class: "message user" }, el("h2", { class: "unseen" }, "You"), this.body,
      el("p", { class: "tools" }, this.edit, copyButton(() => this.message.content)));
    this.show();
  }

  show() {
    this.body.replaceChildren(...plainPieces(this.message.content));
  }

  open() {
    if (running) return;
    const area = el("textarea", { rows: 3, "aria-label": "Edit your message", dir: "auto" });
    const close = () => {
      this.show();
      this.edit.hidden = false;
      this.edit.focus();
    };
    const send = () => {
      if (!area.value.trim() || running) return;
      this.message.content = area.value;
      close();
      answerAfter(messages.indexOf(this.message));
    };
    area.value = this.message.content;
    area.addEventListener("keydown", (e) => {
      if (e.key === "Escape") close();
      else if (isSend(e)) send();
      else return;
      e.preventDefault();
    });
    this.edit.hidden = true;
    this.body.replaceChildren(area, el("p", { class: "buttons" },
      el("button", { type: "button", class: "quiet", onclick: close }, "Cancel"),
      el("button", { type: "button", class: "main", onclick: send }, "Send")));
    area.focus();
  }
}

function toolView(tool) {
  let words = tool.arguments;
  try {
    words = JSON.stringify(JSON.parse(words), null, 2);
  } catch { /* not whole yet, or no JSON: as it came */ }
  return el("div", { class: "tool" },
    el("p", {}, "Calls the tool ", el("code", {}, plainPieces(tool.name || "…"))),
    el("pre", { tabindex: "0" }, plainPieces(words)));
}

function infoWords(info) {
  const words = [];
  if (info.tokens !== undefined) words.push(`${info.tokens} tokens`);
  if (info.perSecond) words.push(`${info.perSecond.toFixed(info.perSecond < 10 ? 1 : 0)} tokens/s`);
  if (info.firstMs !== undefined) words.push(`first after ${(info.firstMs / 1000).toFixed(2)} s`);
  if (info.prompt !== undefined) {
    words.push(`prompt ${info.prompt}${info.cached ? `, ${info.cached} cached` : ""}`);
  }
  if (info.seed) words.push(`seed ${info.seed}`);
  if (info.finish === "length") words.push("cut at its most tokens");
  if (info.finish === "stopped") words.push("stopped");
  return words.join(" · ");
}

class AnswerView {
  constructor(message) {
    this.message = message;
    this.thought = el("div", { class: "words markdown" });
    this.summary = el("summary", {}, "Thought");
    this.thinking = el("details", { class: "thinking", hidden: true }, this.summary, this.thought);
    this.words = el("div", { class: "words markdown" });
    this.toolsCalled = el("div", {});
    this.info = el("p", { class: "info" });
    this.trouble = el("div", {});
    this.again = el("button", { type: "button", class: "quiet small", onclick: () => this.retry() }, "Regenerate");
    this.root = el("li", { class: "message answer" }, el("h2", { class: "unseen" }, "Answer"),
      this.thinking, this.words, this.toolsCalled, this.trouble,
      el("div", { class: "foot" }, this.info,
        el("p", { class: "tools" }, this.again, copyButton(() => this.message.content))));
    this.markdown = new Markdown(this.words);
    this.thoughtMarkdown = new Markdown(this.thought);
    this.thinking.addEventListener("toggle", () => this.thinking.open && this.showThought());
    this.show(false);
  }

  showThought() {
    this.thoughtMarkdown.update((this.message.reasoning ?? "").trim());
  }

  /** A thought that is folded is not drawn. */
  show(streams) {
    const { message } = this;
    const thinks = Boolean(message.reasoning?.trim());
    this.thinking.hidden = !thinks;
    if (thinks && this.thinking.open) this.showThought();
    setText(this.summary, streams && !message.content ? "Thinking…" : "Thought");
    this.markdown.update(message.content);
    if (message.tools) this.toolsCalled.replaceChildren(...message.tools.filter(Boolean).map(toolView));
    setText(this.info, infoWords(message.info ?? {}));
    this.root.classList.toggle("streams", streams);
    this.root.setAttribute("aria-busy", String(streams));
    this.again.hidden = streams;
  }

  retry() {
    if (!running) answerAfter(messages.indexOf(this.message) - 1);
  }

  showError(error) {
    const box = el("div", { class: "notice bad" }, el("p", {}, el("strong", {}, plainPieces(error.message))));
    if (error.advice) box.append(el("p", {}, error.advice));
    if (error.action === "settings") {
      box.append(el("button", { type: "button", onclick: () => openSettings("key") }, "Open settings"));
    }
    if (error.action) box.append(" ", this.retryButton(error.retryAfter));
    this.trouble.replaceChildren(box);
  }

  retryButton(seconds) {
    const button = el("button", { type: "button", onclick: () => this.retry() }, "Try again");
    const until = Date.now() + seconds * 1000;
    const tick = () => {
      const left = Math.ceil((until - Date.now()) / 1000);
      button.disabled = left > 0;
      button.textContent = left > 0 ? `Try again in ${left} s` : "Try again";
      if (left > 0) setTimeout(tick, 250);
    };
    tick();
    return button;
  }
}

/* --- answering --------------------------------------------------------------------------------- */

function requestFor(upTo) {
  const said = messages.slice(0, upTo + 1).map(({ role, content }) => ({ role, content }));
  const system = setting("system");
  const request = { messages: system ? [{ role: "system", content: system }, ...said] : said };
  for (const name of ["temperature", "top_p", "max_tokens", "seed"]) {
    const value = numberSetting(name);
    if (value !== undefined) request[name] = value;
  }
  const thinking = setting("thinking");
  if (thinking) request.chat_template_kwargs = { enable_thinking: thinking === "on" };
  return request;
}

function takeTools(message, deltas) {
  message.tools ??= [];
  for (const d of deltas) {
    const i = Number.isInteger(d.index) && d.index >= 0 && d.index < 128 ? d.index : 0;
    const tool = (message.tools[i] ??= { name: "", arguments: "" });
    tool.name += d.function?.name ?? "";
    tool.arguments += d.function?.arguments ?? "";
  }
}

/** What one chunk adds. */
function take(message, chunk, times) {
  const choice = chunk.choices?.[0];
  const delta = choice?.delta ?? {};
  if (delta.content || delta.reasoning_content || delta.tool_calls) {
    times.last = performance.now();
    times.first ??= times.last;
  }
  message.content += delta.content ?? "";
  if (delta.reasoning_content) message.reasoning = (message.reasoning ?? "") + delta.reasoning_content;
  if (delta.tool_calls) takeTools(message, delta.tool_calls);
  if (choice?.finish_reason) message.info.finish = choice.finish_reason;
  if (chunk.usage) {
    message.info.tokens = chunk.usage.completion_tokens;
    message.info.prompt = chunk.usage.prompt_tokens;
    message.info.cached = chunk.usage.prompt_tokens_details?.cached_tokens;
  }
}

function measure(message, times) {
  const { info } = message;
  if (times.first !== undefined) info.firstMs = times.first - times.sent;
  if (info.tokens > 1 && times.last - times.first > 20) { // all at once has no rate
    info.perSecond = (info.tokens - 1) / ((times.last - times.first) / 1000);
  }
}

/** Draws as chunks come, never for more than a part of the time. */
class Pace {
  constructor(draw) {
    Object.assign(this, { draw, timer: 0, wait: OFTEN_MS });
  }

  soon() {
    if (this.timer) return;
    this.timer = setTimeout(() => {
      this.timer = 0;
      const begun = performance.now();
      this.draw();
      this.wait = Math.max(OFTEN_MS, 4 * (performance.now() - begun));
    }, this.wait);
  }

  end() {
    clearTimeout(this.timer);
    this.timer = 0;
  }
}

async function run(view, upTo) {
  const { message } = view;
  const times = { sent: performance.now() };
  const abort = new AbortController();
  const pace = new Pace(() => following(() => view.show(true)));
  let failure = null;
  running = { abort, view };
  view.show(true);
  showRunning();
  speak("The answer begins");
  try {
    const noteSeed = (response) => { message.info.seed = response.headers.get("x-witan-seed") ?? ""; };
    for await (const chunk of streamChat(requestFor(upTo), abort.signal, noteSeed)) {
      take(message, chunk, times);
      pace.soon();
    }
  } catch (e) {
    if (abort.signal.aborted) message.info.finish = "stopped";
    else failure = e;
  }
  pace.end();
  measure(message, times);
  running = null;
  following(() => {
    view.show(false);
    if (failure) view.showError(failure);
  });
  showRunning();
  keep();
  speak(failure ? `${failure.message} ${failure.advice ?? ""}`
    : message.info.finish === "stopped" ? "Stopped" : "The answer is there");
}

/** Answers the message at `index`; what came after it is gone. */
function answerAfter(index) {
  if (running || index < 0 || messages[index].role !== "user") return;
  messages.length = index + 1;
  messages.push({ role: "assistant", content: "", info: {} });
  showAll(index + 1);
  keep();
  at.log.scrollTop = at.log.scrollHeight;
  run(views.at(-1), index);
}

function stop() {
  running?.abort.abort();
}

/* --- the view ---------------------------------------------------------------------------------- */

const isSend = (e) => e.key === "Enter" && !e.shiftKey && !e.isComposing;

/** Changes the log; stays at its end if the reader was there. */
function following(change) {
  const near = at.log.scrollHeight - at.log.scrollTop - at.log.clientHeight < NEAR;
  change();
  if (near) at.log.scrollTop = at.log.scrollHeight;
}

/** Views of messages from `from` on are made anew. */
function showAll(from = 0) {
  for (const old of views.slice(from)) old.root.remove();
  views = views.slice(0, from);
  for (const message of messages.slice(from)) {
    const view = message.role === "user" ? new UserView(message) : new AnswerView(message);
    views.push(view);
    at.list.append(view.root);
  }
  at.empty.hidden = messages.length > 0;
  at.more.hidden = messages.length === 0;
}

function showRunning() {
  at.send.hidden = Boolean(running);
  at.stop.hidden = !running;
  at.clear.disabled = Boolean(running);
  at.list.setAttribute("aria-busy", String(Boolean(running)));
}

function grow() {
  at.input.style.height = "auto";
  at.input.style.height = `${Math.min(at.input.scrollHeight + 2, 240)}px`;
}

function send() {
  const words = at.input.value;
  if (!words.trim() || running) return;
  at.input.value = "";
  grow();
  messages.push({ role: "user", content: words });
  showAll(messages.length - 1);
  answerAfter(messages.length - 1);
}

function clear() {
  if (running) return;
  messages = [];
  showAll();
  keep();
  at.input.focus();
  speak("A new conversation");
}

function build(root) {
  at.list = el("ol", { class: "messages" });
  at.empty = el("div", { class: "empty" }, el("h2", {}, "Ask something"),
    el("p", {}, "The conversation stays in this tab and is gone when it is closed. "
      + "The server keeps nothing of it."));
  at.log = el("div", { class: "log", tabindex: "0", role: "region", "aria-label": "Conversation" }, at.empty, at.list);
  at.input = el("textarea", { id: "input", rows: 1, dir: "auto", placeholder: "Message",
    "aria-label": "Message. Enter sends, Shift and Enter begin a new line.", oninput: grow });
  at.send = el("button", { type: "button", id: "send", class: "main", onclick: send }, "Send");
  at.stop = el("button", { type: "button", id: "stop", class: "main", hidden: true, onclick: stop }, "Stop");
  at.clear = el("button", { type: "button", id: "clear", class: "quiet small", onclick: clear }, "New conversation");
  at.more = el("p", { class: "more", hidden: true }, at.clear,
    el("button", { type: "button", class: "quiet small", onclick: exportAll }, "Export as JSON"));
  at.input.addEventListener("keydown", (e) => {
    if (!isSend(e)) return;
    e.preventDefault();
    send();
  });
  root.append(el("h1", { class: "unseen" }, "Chat"), at.log, el("div", { class: "composer" },
    el("div", { class: "row" }, at.input, at.send, at.stop), at.more));
}

export function startChat(root) {
  build(root);
  showAll();
  showRunning();
  document.addEventListener("keydown", (e) => {
    if (e.key === "Escape" && running && !byId("settings").open) stop();
  });
}
