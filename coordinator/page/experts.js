// How a group's experts are used: a map of layers by experts, the same as a table, and a sentence.
// GET /admin/experts/GROUP every few seconds, while the map is open.

import { getJson } from "./api.js";
import { el, setText, svg } from "./dom.js";

const EVERY_MS = 3000, PATIENCE_MS = 5000;
const STOPS = [0, 0.5, 1, 2, 4]; // times the mean of a layer, a colour each (--h0 ... --h4)
const STOP_WORDS = ["none", "½ ×", "the mean of its layer", "2 ×", "4 × and more"];
const LEFT = 34, TOP = 18; // room for numbers
const WIDE = 760, HIGH = 480; // what a map fills, at most, where its cells allow it

const ratioWords = (r) => `${r.toLocaleString("en", { maximumFractionDigits: r < 9.95 ? 1 : 0 })} ×`;
const whole = (n) => Math.round(n).toLocaleString("en");

/** Where between the stops a ratio lies: 0 to STOPS.length - 1. */
function heat(ratio) {
  const above = STOPS.findIndex((s) => ratio < s);
  if (above < 0) return STOPS.length - 1;
  return above - 1 + (ratio - STOPS[above - 1]) / (STOPS[above] - STOPS[above - 1]);
}

/** "rgb(...)" of a heat, out of the style sheet's colours "#rrggbb". */
function colours(node) {
  const style = getComputedStyle(node);
  const stops = STOPS.map((_, i) => style.getPropertyValue(`--h${i}`).trim().match(/[0-9a-f]{2}/gi).map((h) => parseInt(h, 16)));
  return (h) => {
    const i = Math.min(Math.floor(h), STOPS.length - 2), part = h - i;
    return `rgb(${stops[i].map((c, k) => Math.round(c + (stops[i + 1][k] - c) * part)).join(" ")})`;
  };
}

/** The layers of an answer, counts by `kind` ("recent", "total"): null where they are not known. */
function layersOf(map, kind) {
  return map.layers.map((l) => {
    const counts = l[kind];
    if (counts === null) return { layer: l.layer, counts: null };
    const sum = counts.reduce((a, b) => a + b, 0), top = counts.indexOf(Math.max(...counts));
    return { layer: l.layer, counts, sum, top, mean: sum / counts.length, idle: counts.filter((n) => n === 0).length };
  });
}

const ratioOf = (l, expert) => (l.mean > 0 ? l.counts[expert] / l.mean : 0);

/** What is known of a group's experts, in a sentence or two. */
function sentence(g) {
  const x = g.experts;
  if (x.layers_known === 0) {
    if (g.through) return `Not known here: the coordinator ${g.through} has its ranks.`;
    if (g.ranks.length === 0) return "Not known: no rank is there.";
    if (g.ranks.some((r) => r.device)) return "Not known: ranks on GPUs do not count it.";
    return "Not known: no rank has told it.";
  }
  if (x.imbalance === null) return "No token was computed of late.";
  const words = [`The busiest expert of a layer has ${ratioWords(x.imbalance)} the mean of its layer; the most uneven is layer `
    + `${x.worst.layer}, where expert ${x.worst.expert} has ${ratioWords(x.worst.ratio)}.`];
  if (x.share_imbalance !== null) words.push(`The busiest share of experts has ${ratioWords(x.share_imbalance)} the mean of the shares.`);
  if (!x.enough) words.push(`That is of about ${whole(x.recent_tokens)} tokens: so few are uneven by chance alone.`);
  if (x.layers_known < x.layers) words.push(`Known of ${x.layers_known} of ${x.layers} layers.`);
  return words.join(" ");
}

/** The map: a row for each layer with experts, a column for each expert. */
class HeatMap {
  constructor(said) {
    this.said = said;
    this.canvas = el("canvas", { class: "heat", role: "img", tabindex: "0",
      onkeydown: (e) => this.key(e), onpointermove: (e) => this.point(e), onpointerleave: () => this.leave() });
    this.root = el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Map of experts" }, this.canvas);
    this.at = null; // {row, expert} that is told
    matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => this.draw());
  }

  update(map, layers, label) {
    Object.assign(this, { map, layers });
    this.cell = { width: Math.min(26, Math.max(4, Math.floor(WIDE / map.experts))),
      height: Math.min(18, Math.max(5, Math.floor(HIGH / Math.max(1, layers.length)))) };
    this.canvas.setAttribute("aria-label", label);
    if (this.at && (this.at.row >= layers.length || this.at.expert >= map.experts)) this.at = null;
    this.draw();
    this.tell();
  }

  draw() {
    if (!this.map || !this.canvas.isConnected) return;
    const { width, height } = this.cell, scale = window.devicePixelRatio || 1;
    const across = LEFT + this.map.experts * width + 2, down = TOP + this.layers.length * height + 2;
    this.canvas.width = across * scale;
    this.canvas.height = down * scale;
    this.canvas.style.width = `${across}px`;
    this.canvas.style.height = `${down}px`;
    const pen = this.canvas.getContext("2d");
    pen.scale(scale, scale);
    this.cells(pen);
    this.axes(pen);
    if (this.at) this.frame(pen);
  }

  cells(pen) {
    const { width, height } = this.cell, colour = colours(this.canvas);
    const gap = Math.min(width, height) > 8 ? 1 : 0;
    this.layers.forEach((l, row) => {
      for (let e = 0; l.counts && e < this.map.experts; e++) {
        pen.fillStyle = colour(heat(ratioOf(l, e)));
        pen.fillRect(LEFT + e * width, TOP + row * height, width - gap, height - gap);
      }
    });
  }

  /** Numbers at the borders, and lines between the shares of expert parallelism. */
  axes(pen) {
    const { width, height } = this.cell, style = getComputedStyle(this.canvas);
    pen.fillStyle = style.getPropertyValue("--soft");
    pen.font = "11px system-ui, sans-serif";
    const rows = Math.ceil(14 / height), columns = [1, 2, 4, 8, 16, 32, 64].find((n) => n * width >= 26) ?? 64;
    pen.textAlign = "right";
    for (let row = 0; row < this.layers.length; row += rows) {
      pen.fillText(String(this.layers[row].layer), LEFT - 6, TOP + row * height + Math.min(height, 14) / 2 + 4);
    }
    pen.textAlign = "left";
    this.layers.forEach((l, row) => {
      if (!l.counts && height >= 11) pen.fillText("not known", LEFT + 4, TOP + row * height + height / 2 + 4);
    });
    for (let e = 0; e < this.map.experts; e += columns) pen.fillText(String(e), LEFT + e * width, TOP - 6);
    pen.fillStyle = style.getPropertyValue("--ink");
    const share = this.map.experts / this.map.ep;
    for (let s = 1; s < this.map.ep; s++) pen.fillRect(LEFT + s * share * width - 1, TOP - 4, 1, this.layers.length * height + 4);
  }

  frame(pen) {
    const { width, height } = this.cell;
    pen.strokeStyle = getComputedStyle(this.canvas).getPropertyValue("--bad");
    pen.lineWidth = 2;
    pen.strokeRect(LEFT + this.at.expert * width - 1, TOP + this.at.row * height - 1, width + 1, height + 1);
  }

  tell() {
    const l = this.at && this.layers[this.at.row];
    if (!l) {
      setText(this.said, "Point at a cell, or go through them with the arrow keys.");
    } else if (!l.counts) {
      setText(this.said, `Layer ${l.layer}: not known.`);
    } else {
      const share = this.map.ep > 1 ? ` (share ${Math.floor((this.at.expert * this.map.ep) / this.map.experts) + 1} of ${this.map.ep})` : "";
      setText(this.said, `Layer ${l.layer}, expert ${this.at.expert}${share}: ${whole(l.counts[this.at.expert])} tokens, `
        + `${ratioWords(ratioOf(l, this.at.expert))} the mean of its layer.`);
    }
  }

  move(at) {
    if (this.at?.row === at?.row && this.at?.expert === at?.expert) return;
    this.at = at;
    this.draw();
    this.tell();
  }

  point(e) {
    if (!this.map) return;
    const box = this.canvas.getBoundingClientRect();
    const expert = Math.floor((e.clientX - box.left - LEFT) / this.cell.width);
    const row = Math.floor((e.clientY - box.top - TOP) / this.cell.height);
    const inside = expert >= 0 && expert < this.map.experts && row >= 0 && row < this.layers.length;
    this.move(inside ? { row, expert } : null);
  }

  leave() {
    if (document.activeElement !== this.canvas) this.move(null);
  }

  key(e) {
    const by = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[e.key];
    if (!by || !this.map || this.layers.length === 0) return;
    e.preventDefault();
    const keep = (n, most) => Math.min(Math.max(n, 0), most - 1);
    const from = this.at ?? { row: -by[0], expert: -by[1] };
    this.move({ row: keep(from.row + by[0], this.layers.length), expert: keep(from.expert + by[1], this.map.experts) });
    const x = LEFT + this.at.expert * this.cell.width;
    if (x < this.root.scrollLeft + LEFT) this.root.scrollLeft = x - LEFT;
    else if (x + this.cell.width > this.root.scrollLeft + this.root.clientWidth) this.root.scrollLeft = x + 40 - this.root.clientWidth;
  }
}

const TABLE = [["Layer"], ["Busiest expert", "number"], ["Its tokens", "number"], ["To the mean", "number"], ["Without tokens", "number"]];

/** The same in numbers: the busiest expert of each layer. */
class ExpertTable {
  constructor() {
    this.body = el("tbody");
    this.root = el("details", {}, el("summary", {}, "The busiest expert of each layer"),
      el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "The busiest expert of each layer" },
        el("table", { class: "ranks" }, el("thead", {}, el("tr", {}, TABLE.map(([name, kind]) => el("th", { scope: "col", class: kind }, name)))),
          this.body)));
    this.rows = [];
  }

  update(layers) {
    if (this.rows.length !== layers.length) {
      this.rows = layers.map(() => TABLE.slice(1).map(([, kind]) => el("td", { class: kind })));
      this.body.replaceChildren(...this.rows.map((cells, i) => el("tr", {}, el("th", { scope: "row" }, String(layers[i].layer)), cells)));
    }
    layers.forEach((l, i) => {
      const words = !l.counts ? ["not known", "", "", ""] : l.sum === 0 ? ["none", "0", "", String(l.idle)]
        : [String(l.top), whole(l.counts[l.top]), ratioWords(ratioOf(l, l.top)), String(l.idle)];
      words.forEach((w, k) => setText(this.rows[i][k], w));
    });
  }
}

/** All of it for one group; hidden for a model without experts. */
export class ExpertsView {
  constructor(name) {
    this.name = name;
    this.asked = -Infinity;
    this.words = el("p", { class: "soft" });
    this.said = el("p", { class: "soft", "aria-live": "polite" });
    this.heat = new HeatMap(this.said);
    this.table = new ExpertTable();
    this.kind = el("select", { "aria-label": "Tokens of", onchange: () => this.show() },
      el("option", { value: "recent" }, "the last minute or so"), el("option", { value: "total" }, "all since its ranks were loaded"));
    this.trouble = el("p", { class: "soft", hidden: true });
    this.map = el("div", { hidden: true }, el("div", { class: "line" }, el("span", { class: "soft" }, "Tokens of"), this.kind),
      this.heat.root, this.said, this.legend(), this.table.root);
    this.details = el("details", { class: "experts", open: true, ontoggle: () => { this.asked = -Infinity; } },
      el("summary", {}, "Load of each expert by layer"), this.trouble, this.map);
    this.root = el("div", { hidden: true }, el("h3", {}, "Experts"), this.words, this.details);
  }

  legend() {
    return el("ul", { class: "legend" }, STOPS.map((_, i) => el("li", {},
      svg("svg", { viewBox: "0 0 11 11", "aria-hidden": "true" }, svg("rect", { class: `h${i}`, width: 11, height: 11, rx: 3 })), STOP_WORDS[i])));
  }

  /** `g`: the group as /admin/status has it. */
  update(g) {
    this.root.hidden = g.experts === null;
    if (g.experts === null) return;
    setText(this.words, sentence(g));
    this.details.hidden = g.experts.layers_known === 0;
    if (!this.details.hidden && this.details.open && performance.now() - this.asked >= EVERY_MS) this.ask();
  }

  async ask() {
    this.asked = performance.now();
    try {
      this.answer = await getJson(`/admin/experts/${encodeURIComponent(this.name)}`, AbortSignal.timeout(PATIENCE_MS));
      this.trouble.hidden = true;
      this.show();
    } catch (e) {
      setText(this.trouble, e.name === "TimeoutError" || e.name === "AbortError" ? "The server does not answer." : e.message);
      this.trouble.hidden = false;
    }
  }

  show() {
    if (!this.answer) return;
    this.map.hidden = false;
    const layers = layersOf(this.answer, this.kind.value);
    this.heat.update(this.answer, layers, `Load of each expert of group ${this.name} by layer, ${layers.length} layers of `
      + `${this.answer.experts} experts. ${this.words.textContent}`);
    this.table.update(layers);
  }
}
