// Drawings of the operator's view: the layout of a group, memory in bars, a figure over time.

import { el, setText, svg } from "./dom.js";

const CELL = { width: 176, height: 66, gap: 8, left: 78, top: 24 };
export const COLOURS = 8;

/** What of "layers 0-23, query heads 0-15, ..." is told in a cell: two lines. */
function holdsWords(holds, stages) {
  const part = (name) => holds.split(", ").find((p) => p.startsWith(`${name} `))?.slice(name.length + 1);
  const layers = stages > 1 && part("layers"), heads = part("query heads"), experts = part("experts"), columns = part("expert columns");
  return [[layers && `layers ${layers}`, heads && `${layers ? "heads" : "query heads"} ${heads}`].filter(Boolean).join(", "), [experts && `experts ${experts}`, columns && `cols ${columns}`]
    .filter(Boolean).join(", ")];
}

/**
 * A group's ranks where its plan puts them: stages one under the other, in each a row for each share
 * of experts (ep) and in it those that share these by columns. `update(ranks)`: ranks by number, gaps
 * where one is not there.
 */
export class LayoutDrawing {
  constructor(name, layout) {
    this.layout = layout;
    this.name = name;
    const { pp, ep, moe_tp: columns } = layout;
    const stage = ep * (CELL.height + CELL.gap);
    const width = CELL.left + columns * (CELL.width + CELL.gap);
    const top = columns > 1 ? CELL.top : 2;
    const height = top + pp * (stage + 14) - 14;
    this.root = svg("svg", { class: "layout", role: "img", width, height, viewBox: `0 0 ${width} ${height}` });
    this.cells = [];
    for (let s = 0; s < pp; s++) this.stage(s, top + s * (stage + 14));
    for (let c = 0; c < columns && columns > 1; c++) {
      this.root.append(this.words("axis", CELL.left + c * (CELL.width + CELL.gap), 16, `columns ${c + 1}/${columns}`));
    }
  }

  words(kind, x, y, text) {
    return svg("text", { class: kind, x, y }, text);
  }

  stage(s, top) {
    const { ep, moe_tp: columns, w, pp } = this.layout;
    for (let i = 0; i < w; i++) {
      const row = Math.floor(i / columns);
      const x = CELL.left + (i % columns) * (CELL.width + CELL.gap);
      const y = top + row * (CELL.height + CELL.gap);
      if (i % columns === 0) {
        if (pp > 1 && row === 0) this.root.append(this.words("axis", 0, y + 18, `stage ${s}`));
        this.root.append(this.words("axis", 0, y + 36, ep > 1 ? `experts ${row + 1}/${ep}` : "all experts"));
      }
      const cell = { number: s * w + i, name: this.words("name", x + 10, y + 20, ""),
        heads: this.words("holds", x + 10, y + 38, ""), experts: this.words("holds", x + 10, y + 54, ""),
        title: svg("title") };
      cell.root = svg("g", {}, svg("rect", { x, y, width: CELL.width, height: CELL.height, rx: 8 }),
        cell.title, cell.name, cell.heads, cell.experts);
      this.cells.push(cell);
      this.root.append(cell.root);
    }
  }

  update(ranks) {
    const said = [];
    for (const cell of this.cells) {
      const rank = ranks.get(cell.number);
      const slow = rank && rank.slowness > 1.5;
      const state = !rank ? "gone" : slow ? "slow" : rank.phase === "forward" ? "busy" : "here";
      const words = `rank ${cell.number} · ${!rank ? "not there" : slow ? "slow" : rank.phase}`;
      const [heads, experts] = rank ? holdsWords(rank.holds, this.layout.pp) : ["", ""];
      cell.root.setAttribute("class", state);
      setText(cell.name, words);
      setText(cell.heads, heads);
      setText(cell.experts, experts);
      setText(cell.title, rank ? `${rank.host}, process ${rank.pid}: ${rank.holds}` : "not there");
      said.push(words);
    }
    this.root.setAttribute("aria-label", `Layout of group ${this.name}: ${said.join("; ")}`);
  }
}

/** A bar of parts {bytes, colour}, `whole` bytes wide. */
export function bar(parts, whole, label) {
  let x = 0;
  const rects = parts.map(({ bytes, colour }) => {
    const width = (1000 * bytes) / whole;
    const rect = svg("rect", { class: `s${colour}`, x, y: 0, width, height: 14 });
    x += width;
    return rect;
  });
  return svg("svg", { class: "bar", viewBox: "0 0 1000 14", preserveAspectRatio: "none", role: "img",
    "aria-label": label }, rects);
}

export const swatch = (colour) =>
  svg("svg", { viewBox: "0 0 11 11", "aria-hidden": "true" },
    svg("rect", { class: `s${colour}`, width: 11, height: 11, rx: 3 }));

/** The last values of a figure, null where it was not known; `most` of them fill the width. */
export class Spark {
  constructor(most) {
    this.most = most;
    this.path = svg("path");
    this.root = svg("svg", { class: "spark", viewBox: "0 0 100 26", preserveAspectRatio: "none", "aria-hidden": "true" },
      this.path);
  }

  update(values) {
    const top = Math.max(...values.map((v) => v ?? 0), 1e-9);
    let line = "", pen = "M";
    values.forEach((v, i) => {
      if (v === null) {
        pen = "M";
        return;
      }
      const x = 100 * (1 - (values.length - 1 - i) / (this.most - 1));
      line += `${pen}${x.toFixed(2)} ${(24 - (22 * v) / top).toFixed(2)}`;
      pen = "L";
    });
    this.path.setAttribute("d", line);
  }
}

/** A tile of one figure. `set(null)` says that it is not known. */
export class Tile {
  constructor(label, spark) {
    this.value = el("span");
    this.small = el("span", { class: "small" });
    this.root = el("div", { class: "tile" }, el("dt", {}, label), el("dd", {}, this.value, this.small, spark?.root));
  }

  set(value, small = "", unknown = "not known") {
    const known = value !== null && value !== undefined;
    setText(this.value, known ? value : unknown);
    this.value.className = known ? "" : "unknown";
    setText(this.small, small);
  }
}
