// What the user sets, and the dialog for it. Kept in sessionStorage alone: it is gone with the tab.

import { byId, el } from "./dom.js";

const KEY = "witan.settings";

/** name, words, kind, attributes, help. Empty: what the checkpoint says. */
const FIELDS = [
  ["key", "API key", "password", { autocomplete: "off", spellcheck: "false", placeholder: "wk-…" },
    "Kept in this tab until it is closed. Needed where the server demands keys."],
  ["system", "System prompt", "textarea", { rows: 3 }, ""],
  ["thinking", "Thinking", "select", {}, "Of models that can do both."],
  ["temperature", "Temperature", "number", { min: 0, max: 1000, step: "any" }, "0: always the likeliest token"],
  ["top_p", "Top p", "number", { min: 0, max: 1, step: "any" }, ""],
  ["max_tokens", "Most tokens of an answer", "number", { min: 1, step: 1 }, ""],
  ["seed", "Seed", "number", { min: 0, max: Number.MAX_SAFE_INTEGER, step: 1 },
    "The same seed gives the same answer."],
];
const THINKING = [["", "as the model does"], ["on", "on"], ["off", "off"]];

let values = read();

function read() {
  try {
    const found = JSON.parse(sessionStorage.getItem(KEY));
    return found && typeof found === "object" ? found : {};
  } catch {
    return {};
  }
}

export const setting = (name) => String(values[name] ?? "").trim();

/** A number, or undefined where none is set. */
export function numberSetting(name) {
  const words = setting(name);
  return words !== "" && Number.isFinite(Number(words)) ? Number(words) : undefined;
}

function control([name, , kind, attributes, help]) {
  const all = { id: `set-${name}`, name, ...attributes, "aria-describedby": help && `help-${name}` };
  let node;
  if (kind === "textarea") node = el("textarea", all);
  else if (kind === "select") {
    node = el("select", all, THINKING.map(([value, words]) => el("option", { value }, words)));
  } else node = el("input", { type: kind, placeholder: "default", ...all });
  node.value = values[name] ?? "";
  return node;
}

function save(dialog) {
  const controls = FIELDS.map(([name]) => dialog.querySelector(`#set-${name}`));
  const bad = controls.find((c) => !c.checkValidity());
  if (bad) {
    bad.reportValidity();
    return;
  }
  values = Object.fromEntries(controls.map((c) => [c.name, c.value]));
  try {
    sessionStorage.setItem(KEY, JSON.stringify(values));
  } catch { /* a browser that keeps nothing: they hold until the page is left */ }
  dialog.close();
  document.dispatchEvent(new Event("settings-changed"));
}

/** Opens the dialog, at one of its fields where it is named. */
export function openSettings(at) {
  const dialog = byId("settings");
  const rows = FIELDS.map((field) => el("p", { class: "field" },
    el("label", { for: `set-${field[0]}` }, field[1]), control(field),
    field[4] && el("span", { class: "help", id: `help-${field[0]}` }, field[4])));
  dialog.replaceChildren(
    el("h2", { id: "settings-title" }, "Settings"),
    ...rows,
    el("p", { class: "buttons" },
      el("button", { type: "button", class: "quiet", onclick: () => dialog.close() }, "Cancel"),
      el("button", { type: "button", class: "main", onclick: () => save(dialog) }, "Save")));
  dialog.onkeydown = (e) => {
    if (e.key !== "Enter" || e.target.tagName !== "INPUT") return;
    e.preventDefault(); // else the button that gets the focus back is pressed by it
    save(dialog);
  };
  dialog.showModal();
  if (at) dialog.querySelector(`#set-${at}`).focus();
}
