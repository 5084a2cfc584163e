// A model's markdown as DOM nodes. What a model writes is hostile until shown otherwise: every piece
// of it goes in as text, links are http, https and mailto alone, pictures are not fetched, marks that
// reorder text are shown as what they are, and time and nodes are bounded whatever it writes.
//
// Blocks: fenced code, headings, rules, quotes, lists, tables, paragraphs. In a line: code, strong,
// emphasis, struck out, links, addresses, escapes. HTML is text.

import { copyButton, el } from "./dom.js";

const MOST_DEPTH = 6; // of quotes and lists in each other, and of marks in a line
const MOST_NODES = 8000; // of one text; what is left then is plain
const MOST_ROWS = 400, MOST_CELLS = 40; // of a table
const MOST_LANGUAGE = 100; // characters of a block of code's
const LONG_LINE = 20000; // characters of a paragraph: longer ones are plain
const PIECE = 10000; // characters of plain text in one node
const FAR = 2000; // characters between the marks of a link
const TRIES = 32; // at the end of an emphasis

// Marks that turn the direction of what follows, or hide: shown by their numbers.
const TURNS = /[\u061C\u202A-\u202E\u2066-\u2069\u0000-\u0008\u000B\u000C\u000E-\u001F\u007F\u{E0000}-\u{E007F}]/gu;

const number = (c) => `U+${c.codePointAt(0).toString(16).toUpperCase().padStart(4, "0")}`;

/** Text, with such marks as words in boxes; `left.nodes` counts down. */
function plain(text, left) {
  const out = [];
  let from = 0;
  for (const found of text.matchAll(TURNS)) {
    if (left.nodes <= 0) break;
    left.nodes -= 2;
    out.push(text.slice(from, found.index), el("span", { class: "mark" }, number(found[0])));
    from = found.index + found[0].length;
  }
  out.push(left.nodes <= 0 ? text.slice(from).replace(TURNS, "\uFFFD") : text.slice(from));
  return out;
}

/** The same of a long text, in pieces that the browser draws as they come into view. */
export function plainPieces(text) {
  const out = [];
  const left = { nodes: MOST_NODES };
  if (text.length <= PIECE) return plain(text, left);
  for (let at = 0, end; at < text.length; at = end) {
    end = at + PIECE;
    if (/[\uD800-\uDBFF]/.test(text[end - 1] ?? "")) end++; // no character is cut
    out.push(el("div", { class: "piece" }, plain(text.slice(at, end), left)));
  }
  return out;
}

/** A link's address where it is one that may be followed, else null. */
export function safeAddress(words) {
  try {
    const url = new URL(words);
    return ["http:", "https:", "mailto:"].includes(url.protocol) ? url.href : null;
  } catch {
    return null; // relative ones too: they would lead into this page
  }
}

function link(address, children) {
  return el("a", { href: address, rel: "noopener noreferrer nofollow", target: "_blank", title: address },
    children);
}

/* --- in a line --------------------------------------------------------------------------------- */

/** An address without the marks of the sentence around it. */
function withoutTrail(words) {
  let end = words.length;
  while (end > 0 && ".,;:!?'*_~)]".includes(words[end - 1])) end--;
  return words.slice(0, end);
}

/** One paragraph's text as nodes. */
class Line {
  constructor(text, left, depth, inLink) {
    Object.assign(this, { text, left, depth, inLink, out: [], from: 0, next: new Map() });
  }

  /** Where `words` are next, at `at` or behind it: each is looked for once over the whole text. */
  find(words, at) {
    let found = this.next.get(words);
    if (found === undefined || (found >= 0 && found < at)) {
      found = this.text.indexOf(words, at);
      this.next.set(words, found);
    }
    return found;
  }

  put(node, end) {
    this.left.nodes--;
    this.out.push(node);
    this.from = end;
    return end;
  }

  flush(at) {
    if (at > this.from) this.out.push(...plain(this.text.slice(this.from, at), this.left));
    this.from = at;
  }

  inside(text, inLink = this.inLink) {
    return inline(text, this.left, this.depth + 1, inLink);
  }

  code(at) {
    let run = 1;
    while (this.text[at + run] === "`") run++;
    const mark = "`".repeat(run);
    let end = this.find(mark, at + run);
    for (let i = 0; end >= 0 && i < TRIES && this.text[end + run] === "`"; i++) {
      while (this.text[end] === "`") end++; // a longer run ends nothing
      end = this.text.indexOf(mark, end);
    }
    if (end < 0 || this.text[end + run] === "`") return at + run;
    this.flush(at);
    let words = this.text.slice(at + run, end);
    if (words.startsWith(" ") && words.endsWith(" ") && words.trim()) words = words.slice(1, -1);
    return this.put(el("code", {}, plain(words, this.left)), end + run);
  }

  /** **strong**, ~~struck out~~ */
  pair(at, mark, name) {
    const end = this.find(mark, at + mark.length + 1);
    if (end < 0 || /\s/.test(this.text[at + mark.length])) return at + mark.length;
    this.flush(at);
    return this.put(el(name, {}, this.inside(this.text.slice(at + mark.length, end))), end + mark.length);
  }

  /** *so* or _so_, but no part_of_a_word */
  emphasis(at, mark) {
    const word = /[\p{L}\p{N}_]/u;
    if (/\s/.test(this.text[at + 1] ?? " ")) return at + 1;
    if (mark === "_" && at > 0 && word.test(this.text[at - 1])) return at + 1;
    let end = this.find(mark, at + 1);
    for (let i = 0; end >= 0 && i < TRIES; i++) {
      const inner = end > at + 1 && !/\s/.test(this.text[end - 1]);
      const closes = this.text[end + 1] !== mark && (mark !== "_" || !word.test(this.text[end + 1] ?? ""));
      if (inner && closes) {
        this.flush(at);
        return this.put(el("em", {}, this.inside(this.text.slice(at + 1, end))), end + 1);
      }
      end = this.text.indexOf(mark, end + (this.text[end + 1] === mark ? 2 : 1));
    }
    return at + 1;
  }

  /** [words](address "title"); of ![words](address) the words, as a link: nothing is fetched. */
  link(at, picture) {
    const open = at + (picture ? 2 : 1);
    const middle = this.find("](", open);
    if (middle < 0 || middle - open > FAR || this.inLink) return open;
    const end = this.find(")", middle + 2);
    if (end < 0 || end - middle > FAR) return open;
    const words = this.text.slice(open, middle);
    const address = safeAddress(this.text.slice(middle + 2, end).trim().split(/\s/)[0].replace(/^<|>$/g, ""));
    if (!address) return open;
    this.flush(at);
    const shown = this.inside(words, true);
    return this.put(link(address, picture ? ["picture: ", ...shown] : shown), end + 1);
  }

  /** An address as it stands, or in < and >. */
  address(at, bracket) {
    const from = bracket ? at + 1 : at;
    const found = /^(https?:\/\/|mailto:)[^\s<>"`\u0000-\u001f]{1,2000}/i.exec(this.text.slice(from, from + FAR));
    if (!found || this.inLink) return at + 1;
    let words = found[0];
    if (!bracket) words = withoutTrail(words);
    else if (this.text[from + words.length] !== ">") return at + 1;
    const address = safeAddress(words);
    if (!address) return at + 1;
    this.flush(at);
    return this.put(link(address, plain(words, this.left)), from + words.length + (bracket ? 1 : 0));
  }

  /** One mark at `at`; returns where to go on. */
  mark(at) {
    const { text } = this;
    const two = text.slice(at, at + 2);
    switch (text[at]) {
      case "\\":
        if (!/[!-/:-@[-`{-~]/.test(text[at + 1] ?? "")) return at + 1;
        this.flush(at);
        this.from = at + 1; // the character itself, as text
        return at + 2;
      case "`": return this.code(at);
      case "*": return two === "**" ? this.pair(at, "**", "strong") : this.emphasis(at, "*");
      case "_": return two === "__" ? this.pair(at, "__", "strong") : this.emphasis(at, "_");
      case "~": return two === "~~" ? this.pair(at, "~~", "s") : at + 1;
      case "[": return this.link(at, false);
      case "!": return two === "![" ? this.link(at, true) : at + 1;
      case "<": return this.address(at, true);
      default:
        return at > 0 && /[\p{L}\p{N}]/u.test(text[at - 1]) ? at + 1 : this.address(at, false);
    }
  }

  nodes() {
    const marks = /[\\`*_~[!<]|https?:\/\//g;
    let found;
    while (this.left.nodes > 0 && (found = marks.exec(this.text))) {
      marks.lastIndex = Math.max(this.mark(found.index), found.index + 1);
    }
    this.flush(this.text.length);
    return this.out;
  }
}

function inline(text, left, depth = 0, inLink = false) {
  if (text.length > LONG_LINE) return plainPieces(text);
  if (depth > MOST_DEPTH) return plain(text, left);
  return new Line(text, left, depth, inLink).nodes();
}

/* --- blocks ------------------------------------------------------------------------------------ */

const FENCE = /^ {0,3}(`{3,}|~{3,})/;
const HEADING = /^ {0,3}(#{1,6})[ \t]+(.*)$/;
const RULE = /^ {0,3}(?:(?:\* *){3,}|(?:- *){3,}|(?:_ *){3,})$/;
const QUOTE = /^ {0,3}> ?/;
const ITEM = /^( {0,12})([-*+]|\d{1,9}[.)])( +|$)/;
const DELIMITERS = /^ {0,3}\|?(?: *:?-+:? *\|)+ *(?::?-+:? *)?$/;

const short = (line) => line.length <= LONG_LINE; // regular expressions see no longer one
const is = (pattern, line) => short(line) && pattern.test(line);
const indent = (line) => /^ */.exec(line.slice(0, 64))[0].length;

/** What begins a block of code: [marks, language], else null. */
function fenced(line) {
  const found = short(line) && FENCE.exec(line);
  const language = found ? line.slice(found[0].length).trim() : "`";
  return language.length <= MOST_LANGUAGE && !language.includes("`") ? [found[1], language] : null;
}

/** Does this line begin a block of its own, whatever came before it? */
function begins(lines, at) {
  const line = lines[at];
  return fenced(line) || is(HEADING, line) || is(RULE, line) || is(QUOTE, line) || is(ITEM, line) ||
    isTable(lines, at);
}

function isTable(lines, at) {
  return at + 1 < lines.length && short(lines[at]) && lines[at].includes("|") &&
    lines[at + 1].length <= FAR && DELIMITERS.test(lines[at + 1]);
}

/** The lines from `at` on that make one block: [kind, end]. */
function measure(lines, at) {
  const line = lines[at];
  let end = at + 1;
  const fence = fenced(line);
  if (fence) {
    const closing = new RegExp(`^ {0,3}\\${fence[0][0]}{${fence[0].length},}\\s*$`);
    while (end < lines.length && !is(closing, lines[end])) end++;
    return ["code", Math.min(end + 1, lines.length)];
  }
  if (is(HEADING, line)) return ["heading", end];
  if (is(RULE, line)) return ["rule", end];
  if (isTable(lines, at)) {
    while (end < lines.length && lines[end].includes("|")) end++;
    return ["table", end];
  }
  if (is(QUOTE, line)) {
    while (end < lines.length && is(QUOTE, lines[end])) end++;
    return ["quote", end];
  }
  if (is(ITEM, line)) return ["list", endOfList(lines, at)];
  while (end < lines.length && lines[end].trim() && !begins(lines, end)) end++;
  return ["text", end];
}

/** A list goes on over items, what is indented under them, and single empty lines between these. */
function endOfList(lines, at) {
  const first = indent(lines[at]);
  const kind = (line) => /\d/.test(ITEM.exec(line)[2]);
  let end = at + 1;
  while (end < lines.length) {
    const line = lines[end];
    const empty = !line.trim();
    const ahead = empty ? lines[end + 1] ?? "" : line;
    const goesOn = ahead.trim() && (indent(ahead) > first + 1 || (is(ITEM, ahead) && !is(RULE, ahead)));
    const another = is(ITEM, line) && indent(line) <= first + 1 && kind(line) !== kind(lines[at]);
    if (another) break;
    if (!goesOn && (empty || begins(lines, end) || !lines[end - 1].trim())) break;
    end++;
  }
  return end;
}

function cells(line) {
  const words = line.trim().replace(/^\|/, "").replace(/\|$/, "");
  return words.split(/(?<!\\)\|/, MOST_CELLS + 1).slice(0, MOST_CELLS).map((c) => c.trim().replaceAll("\\|", "|"));
}

function tableBlock(lines, left) {
  const head = cells(lines[0]);
  const sides = cells(lines[1]).map((c) => (c.endsWith(":") ? (c.startsWith(":") ? "centre" : "right") : null));
  const row = (name, words) => el("tr", {}, head.map((_, i) => {
    left.nodes -= 2;
    return el(name, { class: sides[i], scope: name === "th" && "col" }, inline(words[i] ?? "", left));
  }));
  const body = el("tbody");
  let at = 2;
  for (; at < lines.length && at < MOST_ROWS + 2 && left.nodes > 0; at++) body.append(row("td", cells(lines[at])));
  const table = el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Table" },
    el("table", {}, el("thead", {}, row("th", head)), body));
  if (at === lines.length) return [table];
  return [table, el("pre", { class: "rest" }, plainPieces(lines.slice(at).join("\n")))];
}

function codeBlock(lines) {
  const [fence, language] = fenced(lines[0]);
  const closed = lines.length > 1 && lines.at(-1).trim().startsWith(fence) && !lines.at(-1).trim().replaceAll(fence[0], "");
  const text = lines.slice(1, closed ? -1 : undefined).join("\n");
  return el("figure", { class: "code" },
    el("figcaption", {}, el("span", {}, plain(language || "code", { nodes: 9 })), copyButton(() => text)),
    el("pre", { tabindex: "0" }, el("code", {}, text.length > PIECE ? plainPieces(text) : plain(text, { nodes: 2000 }))));
}

function listBlock(lines, left, depth) {
  const first = ITEM.exec(lines[0]);
  const ordered = /\d/.test(first[2]);
  const from = ordered ? parseInt(first[2], 10) : 1;
  const list = el(ordered ? "ol" : "ul", { start: ordered && from !== 1 && from });
  let item = null, under = 0;
  const close = () => {
    if (item) list.append(el("li", {}, renderLines(item, left, depth + 1)));
  };
  for (const line of lines) {
    const found = short(line) && ITEM.exec(line);
    if (found && found[1].length <= first[1].length + 1) {
      close();
      under = found[0].length;
      item = [line.slice(under)];
      left.nodes--;
    } else {
      item.push(line.slice(Math.min(indent(line), under)));
    }
  }
  close();
  return list;
}

/** "Title ##" is "Title". */
function withoutMarks(words) {
  const bare = words.trimEnd();
  let end = bare.length;
  while (end > 0 && bare[end - 1] === "#") end--;
  return end === 0 || bare[end - 1] === " " ? bare.slice(0, end).trimEnd() : bare;
}

function block(kind, lines, left, depth) {
  left.nodes--;
  switch (kind) {
    case "code":
      left.nodes -= 8;
      return [codeBlock(lines)];
    case "rule": return [el("hr")];
    case "table": return tableBlock(lines, left);
    case "list": return [listBlock(lines, left, depth)];
    case "quote":
      return [el("blockquote", {}, renderLines(lines.map((l) => l.replace(QUOTE, "")), left, depth + 1))];
    case "heading": {
      const [, marks, words] = HEADING.exec(lines[0]);
      return [el(`h${Math.min(marks.length + 2, 6)}`, { dir: "auto" }, inline(withoutMarks(words), left))];
    }
    default: return [el("p", { dir: "auto" }, inline(lines.join("\n"), left))];
  }
}

function* blocksOf(lines) {
  for (let at = 0; at < lines.length;) {
    if (!lines[at].trim()) {
      at++;
      continue;
    }
    const [kind, end] = measure(lines, at);
    yield [kind, at, end];
    at = end;
  }
}

function renderLines(lines, left, depth) {
  if (depth > MOST_DEPTH) return plain(lines.join("\n"), left);
  const out = [];
  for (const [kind, at, end] of blocksOf(lines)) {
    if (left.nodes <= 0) {
      out.push(...plainPieces(lines.slice(at).join("\n")));
      break;
    }
    out.push(...block(kind, lines.slice(at, end), left, depth));
  }
  return out;
}

/**
 * Shows a text that grows: `update(text)` makes anew only what has changed, so that what stands is
 * kept with its selection. `root` is the renderer's.
 */
export class Markdown {
  constructor(root) {
    this.root = root;
    this.shown = []; // {key, nodes} of the blocks so far
  }

  update(text) {
    const lines = text.replaceAll("\r\n", "\n").split("\n");
    const shown = [];
    let nodes = 0;
    for (const [kind, at, end] of blocksOf(lines)) {
      const over = nodes >= MOST_NODES; // plain from here on
      const key = over ? `rest\n${lines.slice(at).join("\n")}` : `${kind}\n${lines.slice(at, end).join("\n")}`;
      const old = this.shown[shown.length];
      if (old && old.key === key) {
        shown.push(old);
      } else {
        const left = { nodes: MOST_NODES - nodes };
        const made = over ? plainPieces(lines.slice(at).join("\n")) : block(kind, lines.slice(at, end), left, 0);
        shown.push({ key, nodes: made, cost: MOST_NODES - nodes - left.nodes });
      }
      nodes += shown.at(-1).cost ?? 0;
      if (over) break;
    }
    this.replace(shown);
  }

  replace(shown) {
    let same = 0;
    while (same < shown.length && shown[same] === this.shown[same]) same++;
    for (const old of this.shown.slice(same)) old.nodes.forEach((n) => n.remove());
    for (const made of shown.slice(same)) this.root.append(...made.nodes);
    this.shown = shown;
  }
}
