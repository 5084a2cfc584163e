// Making elements. Text goes in as text: nothing here, or anywhere in the page, makes markup of a string.

const SVG = "http://www.w3.org/2000/svg";

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : String(value));
  }
  for (const child of children.flat()) {
    if (child !== undefined && child !== null && child !== false) node.append(child);
  }
  return node;
}

/** An element; children are nodes or text. Attributes `onclick` and its like take functions. */
export function el(name, attributes = {}, ...children) {
  return fill(document.createElement(name), attributes, children);
}

/** The same of a drawing. */
export function svg(name, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, name), attributes, children);
}

export const byId = (id) => document.getElementById(id);

/** Sets a text only where it differs, so that what is selected stays so. */
export function setText(node, text) {
  if (node.textContent !== text) node.textContent = text;
}

/** Says something to those who listen to the page and do not see it. */
export function speak(words) {
  byId("spoken").textContent = words;
}

/** A button that copies what `text()` gives. */
export function copyButton(text, label = "Copy") {
  const button = el("button", { type: "button", class: "quiet small" }, label);
  button.addEventListener("click", async () => {
    let done = true;
    try {
      await navigator.clipboard.writeText(text());
    } catch {
      done = false; // no permission, or a page without TLS off loopback
    }
    button.textContent = done ? "Copied" : "Not allowed";
    speak(done ? "Copied" : "The browser does not allow copying here");
    setTimeout(() => { button.textContent = label; }, 1500);
  });
  return button;
}
