// The page's entry: which view is shown, and whether the model answers.

import { getJson, health } from "./api.js";
import { startChat } from "./chat.js";
import { byId, setText } from "./dom.js";
import { hideOperator, showOperator } from "./operator.js";
import { openSettings } from "./settings.js";

const VIEWS = ["chat", "operator"];
const HEALTH_MS = 5000;

let model = "";

function show() {
  const wanted = location.hash.slice(1);
  if (wanted === "main" && document.body.dataset.view) return; // the link over the header
  const view = VIEWS.includes(wanted) ? wanted : VIEWS[0];
  for (const name of VIEWS) {
    byId(name).hidden = name !== view;
    const link = byId(`to-${name}`);
    if (name === view) link.setAttribute("aria-current", "page");
    else link.removeAttribute("aria-current");
  }
  document.body.dataset.view = view;
  document.title = view === "chat" ? "Chat · Witan" : "Operator · Witan";
  if (view === "operator") showOperator();
  else hideOperator();
}

async function learnModel() {
  try {
    model = (await getJson("/v1/models")).data[0].id;
  } catch {
    model = ""; // without a key the name is not told
  }
}

async function look() {
  let state = "off", words = "not reachable";
  try {
    const { ready } = await health();
    if (!model) await learnModel();
    state = ready ? "good" : "bad";
    words = ready ? model || "ready" : `${model || "model"}: not ready`;
  } catch { /* said already */ }
  byId("health-dot").className = `dot ${state}`;
  setText(byId("health"), words);
  byId("health").title = words;
}

function watch() {
  if (!document.hidden) look();
}

byId("open-settings").addEventListener("click", () => openSettings());
window.addEventListener("hashchange", show);
document.addEventListener("visibilitychange", watch);
document.addEventListener("settings-changed", () => { model = ""; look(); });
startChat(byId("chat"));
show();
if (!byId("chat").hidden && matchMedia("(hover: hover)").matches) byId("input").focus(); // no keyboard pops up
look();
setInterval(watch, HEALTH_MS);
