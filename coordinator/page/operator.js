// The operator's view: GET /admin/status once a second while it is looked at. What the server does
// not know is said so and is never shown as 0.

import { getJson } from "./api.js";
import { byId, el, setText, speak } from "./dom.js";
import { bar, COLOURS, LayoutDrawing, Spark, swatch, Tile } from "./draw.js";
import { ExpertsView } from "./experts.js";
import { openSettings } from "./settings.js";

const EVERY_MS = 1000, PATIENCE_MS = 5000;
const HISTORY = 120; // samples of a figure, one a poll
const OVER_S = 5; // rates are taken over so long
const GOOD = ["ready"], COMING = ["loading", "proving", "draining", "stopping", "waiting for ranks"];

let shown = false;
let timer = 0;
let asking = null; // of the request under way
let groups = new Map(); // GroupView by name
let page = null; // what is there once
let lastEvent = -1;
let heard = 0; // when the last answer came

/* --- figures in words -------------------------------------------------------------------------- */

const digits = (n, most = 3) => Number(n.toPrecision(most)).toLocaleString("en", { maximumFractionDigits: 3 });
const whole = (n) => n.toLocaleString("en");

function bytes(n) {
  const units = ["B", "kB", "MB", "GB", "TB"];
  let i = 0;
  for (; n >= 1000 && i < units.length - 1; i++) n /= 1000;
  return `${digits(n)} ${units[i]}`;
}

function time(seconds) {
  if (seconds >= 1) return `${digits(seconds)} s`;
  return seconds >= 1e-3 ? `${digits(seconds * 1e3)} ms` : `${digits(seconds * 1e6)} µs`;
}

function age(seconds) {
  const units = [["s", 1], ["min", 60], ["h", 3600], ["days", 86400]];
  let i = 0;
  while (i + 1 < units.length && seconds >= 2 * units[i + 1][1]) i++;
  return `${Math.round(seconds / units[i][1])} ${units[i][0]}`;
}

const badgeKind = (g) => (GOOD.includes(g.state) ? "good" : COMING.includes(g.state) && g.losses === 0 ? "warn"
  : g.state === "lost" || g.state === "waiting for ranks" ? "bad" : "warn");

/* --- rates ------------------------------------------------------------------------------------- */

/** Counters of one group over time: what they grew by in the last seconds. */
class Rates {
  constructor() {
    this.samples = []; // {at, ...counters}, the newest last
  }

  /** A counter that shrinks begins anew: its group came again. */
  add(sample) {
    const last = this.samples.at(-1);
    const again = last && Object.keys(sample).some((k) => sample[k] !== null && last[k] !== null && sample[k] < last[k]);
    if (again) this.samples = [];
    this.samples.push(sample);
    while (this.samples.length > 1 && sample.at - this.samples[0].at > OVER_S) this.samples.shift();
  }

  /** By how much `name` grew; null: not known. */
  grown(name) {
    const first = this.samples[0], last = this.samples.at(-1);
    if (this.samples.length < 2 || first[name] === null || last[name] === null) return null;
    return last[name] - first[name];
  }

  perSecond(name) {
    const by = this.grown(name);
    return by === null ? null : by / (this.samples.at(-1).at - this.samples[0].at);
  }

  /** The mean of what was counted in the last seconds, else null. */
  mean(sum, count) {
    const n = this.grown(count);
    return n ? this.grown(sum) / n : null;
  }
}

function sampleOf(g) {
  const s = { at: performance.now() / 1000, tokens: g.tokens };
  for (const name of ["prompt", "decode", "overhead"]) {
    s[`${name}Count`] = g.steps[name]?.count ?? null;
    s[`${name}Seconds`] = g.steps[name]?.seconds ?? null;
  }
  return s;
}

/* --- ranks ------------------------------------------------------------------------------------- */

const RANK_COLUMNS = [
  ["Host", (r) => r.host + (r.region ? ` in ${r.region}` : "")],
  ["Process", (r) => String(r.pid), "number"],
  ["Phase", (r) => r.phase],
  ["Step", (r) => whole(r.step), "number"],
  ["Heard", (r) => `${digits(r.heartbeat_seconds_ago, 2)} s ago`, "number"],
  ["In collectives", (r) => (r.forward_seconds > 0 && r.collective_seconds !== null
    ? `${Math.round((100 * r.collective_seconds) / r.forward_seconds)} %` : "not known"), "number"],
  ["To its peers", (r) => (r.slowness === null ? "not known" : `${digits(r.slowness, 2)} ×`), "number"],
  ["Power", (r) => (r.gpu?.power_w !== undefined ? `${digits(r.gpu.power_w)} W` : "not measured"), "number"],
  ["Computes on", (r) => r.device?.name ?? `${r.kernels ?? "not known"}`],
];

/** A row for each rank of the plan, there or not. */
class RankTable {
  constructor(count) {
    this.rows = Array.from({ length: count }, (_, i) => RANK_COLUMNS.map(([, , kind]) => el("td", { class: kind })));
    const head = [["Rank"], ...RANK_COLUMNS].map(([name, , kind]) => el("th", { scope: "col", class: kind }, name));
    this.root = el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Ranks" },
      el("table", { class: "ranks" }, el("thead", {}, el("tr", {}, head)),
        el("tbody", {}, this.rows.map((cells, i) => el("tr", {}, el("th", { scope: "row" }, String(i)), cells)))));
  }

  update(ranks) {
    this.rows.forEach((cells, i) => {
      const rank = ranks.get(i);
      RANK_COLUMNS.forEach(([name, words], k) =>
        setText(cells[k], rank ? words(rank) : name === "Phase" ? "not there" : ""));
    });
  }
}

/** Memory of each rank by purpose; made anew when it changes, which is rare. */
class MemoryView {
  constructor() {
    this.root = el("div");
    this.shown = "";
  }

  update(ranks) {
    const key = JSON.stringify([...ranks].map(([i, r]) => [i, r.memory]));
    if (key === this.shown) return;
    this.shown = key;
    const purposes = [...new Set([...ranks.values()].flatMap((r) => r.memory.map((m) => m.purpose)))];
    if (purposes.length === 0) {
      this.root.replaceChildren(el("p", { class: "soft" }, "Not known until ranks have loaded."));
      return;
    }
    const total = (r) => r.memory.reduce((sum, m) => sum + m.bytes, 0);
    const most = Math.max(...[...ranks.values()].map(total), 1);
    const rows = [...ranks].flatMap(([i, r]) => [el("span", {}, `rank ${i}`),
      bar(r.memory.map((m) => ({ bytes: m.bytes, colour: purposes.indexOf(m.purpose) % COLOURS })), most,
        `rank ${i}: ${r.memory.map((m) => `${m.purpose} ${bytes(m.bytes)}`).join(", ")}`),
      el("span", {}, bytes(total(r)))]);
    const sum = (p) => [...ranks.values()].flatMap((r) => r.memory).filter((m) => m.purpose === p)
      .reduce((all, m) => all + m.bytes, 0);
    this.root.replaceChildren(el("div", { class: "memory" }, rows),
      el("ul", { class: "legend" }, purposes.map((p, i) => el("li", {}, swatch(i % COLOURS), `${p} ${bytes(sum(p))}`))));
  }
}

/* --- a group ----------------------------------------------------------------------------------- */

class GroupView {
  constructor(g) {
    this.key = JSON.stringify(g.layout);
    this.state = g.state;
    this.rates = new Rates();
    this.history = [];
    this.spark = new Spark(HISTORY);
    this.tiles = {
      speed: new Tile("Tokens/s", this.spark), queue: new Tile("Requests"), kv: new Tile("KV cache used"),
      prefix: new Tile("Prefix hit rate"), decode: new Tile("Decode step"), prompt: new Tile("Prompt step"),
      overhead: new Tile("Outside the forward pass"), energy: new Tile("Power"),
    };
    this.badge = el("span", { class: "badge" });
    this.facts = el("span", { class: "soft" });
    this.message = el("p", { class: "soft" });
    this.losses = el("p", { class: "notice warn", hidden: true });
    this.layout = new LayoutDrawing(g.name, g.layout);
    this.ranks = new RankTable(g.layout.ranks);
    this.memory = new MemoryView();
    this.experts = new ExpertsView(g.name);
    const tiles = Object.values(this.tiles).map((t) => t.root);
    this.root = el("section", { class: "group", "aria-label": `Group ${g.name}` },
      el("div", { class: "line" }, el("h2", {}, `Group ${g.name}`), this.badge, this.facts),
      this.message, this.losses, el("dl", { class: "tiles four" }, tiles),
      el("h3", {}, "Layout"), el("div", { class: "wide", tabindex: "0", role: "region", "aria-label": "Layout" }, this.layout.root),
      el("h3", {}, "Ranks"), this.ranks.root, el("h3", {}, "Memory by purpose"), this.memory.root,
      this.experts.root);
  }

  update(g) {
    this.tell(g);
    this.rates.add(sampleOf(g));
    this.history = [...this.history, this.rates.perSecond("tokens")].slice(-HISTORY);
    this.spark.update(this.history);
    this.figures(g);
    const ranks = new Map(g.ranks.map((r) => [r.rank, r]));
    this.layout.update(ranks);
    this.ranks.update(ranks);
    this.memory.update(ranks);
    this.experts.update(g);
  }

  tell(g) {
    const l = g.layout;
    this.badge.className = `badge ${badgeKind(g)}`;
    setText(this.badge, g.state);
    setText(this.facts, [`${l.ranks} ${l.ranks === 1 ? "rank" : "ranks"}: pp ${l.pp} × tp ${l.tp} × ep ${l.ep}`,
      g.numerics_class, g.through && `through ${g.through}`, g.drained && "drained", g.restarting && "restarting",
      g.proven_seconds_ago !== null && `proven ${age(g.proven_seconds_ago)} ago`].filter(Boolean).join(" · "));
    setText(this.message, g.message);
    this.message.hidden = !g.message || g.message === g.last_loss;
    this.losses.hidden = g.last_loss === null;
    if (g.last_loss !== null) {
      const times = [g.losses && `lost ${g.losses} ×`, g.failed_starts && `lost before it was ready ${g.failed_starts} ×`];
      setText(this.losses, `${times.filter(Boolean).join(", ")}, last ${age(g.last_loss_seconds_ago)} ago: ${g.last_loss}`);
    }
    if (g.state !== this.state) speak(`Group ${g.name}: ${g.state}`);
    this.state = g.state;
  }

  figures(g) {
    const t = this.tiles;
    const speed = this.rates.perSecond("tokens");
    t.speed.set(speed === null ? null : digits(speed), g.tokens === null ? "" : `${whole(g.tokens)} drawn in all`);
    t.queue.set(g.running === null ? null : `${g.running} running`,
      g.running === null ? "" : `${g.waiting} waiting${g.wait_seconds > 0 ? `, about ${time(g.wait_seconds)}` : ""}`);
    const used = g.kv_blocks - g.kv_blocks_free;
    t.kv.set(g.kv_blocks === null ? null : `${digits((100 * used) / g.kv_blocks)} %`, g.kv_blocks === null ? ""
      : `${whole(used)} of ${whole(g.kv_blocks)} blocks${g.kv_blocks_cached === null ? "" : `, ${whole(g.kv_blocks_cached)} cached`}`);
    t.prefix.set(g.prefix_hit_rate === null ? null : `${digits(100 * g.prefix_hit_rate)} %`,
      g.prefix_hit_rate === null ? "" : `of ${whole(g.prefix_asked_tokens)} prompt tokens`,
      g.prefix_asked_tokens === null ? "not known" : "nothing asked yet");
    for (const name of ["decode", "prompt", "overhead"]) this.step(t[name], name, g.steps[name]);
    this.energy(g);
  }

  /** Of ranks whose devices measure it. */
  energy(g) {
    const told = (name) => g.ranks.map((r) => r.gpu?.[name]).filter((n) => Number.isFinite(n));
    const sum = (numbers) => numbers.reduce((a, b) => a + b, 0);
    const power = told("power_w"), joules = told("energy_j");
    const words = [`of ${power.length} of ${g.layout.ranks} ranks`, joules.length && `${digits(sum(joules) / 1000)} kJ since they started`];
    this.tiles.energy.set(power.length ? `${digits(sum(power))} W` : null,
      power.length ? words.filter(Boolean).join(", ") : "no rank's device tells it", "not measured");
  }

  /** Now where steps were run in the last seconds, else the mean of all. */
  step(tile, name, all) {
    const now = this.rates.mean(`${name}Seconds`, `${name}Count`);
    const mean = all && all.count > 0 ? all.seconds / all.count : null;
    const words = mean === null ? "" : `mean ${time(mean)} of ${whole(all.count)}`;
    tile.set(now !== null ? time(now) : mean === null ? null : "–", words, all ? "none yet" : "not known");
  }
}

/* --- the page ---------------------------------------------------------------------------------- */

function build() {
  page = {
    title: el("h1", {}, "Operator"), facts: el("span", { class: "soft" }), trouble: el("div"),
    groups: el("div"), events: el("ul", { class: "events" }),
    tiles: {
      running: new Tile("Requests under way"), done: new Tile("Ended"), refused: new Tile("Refused"),
      first: new Tile("First token"), between: new Tile("Between tokens"), tokens: new Tile("Tokens told"),
    },
  };
  page.body = el("div", { hidden: true },
    el("dl", { class: "tiles six" }, Object.values(page.tiles).map((t) => t.root)), page.groups,
    el("section", { class: "group", "aria-label": "Recent events" }, el("h2", {}, "Recent events"), page.events));
  byId("operator").replaceChildren(el("div", { class: "line" }, page.title, page.facts), page.trouble, page.body);
}

const sumOf = (o) => Object.values(o).reduce((a, b) => a + b, 0);
const named = (o) => Object.entries(o).filter(([, n]) => n > 0).map(([k, n]) => `${k.replaceAll("_", " ")} ${whole(n)}`).join(", ");
const meanOf = (h) => (h.count > 0 ? time(h.seconds / h.count) : null);

function showRequests(r) {
  const t = page.tiles;
  t.running.set(whole(r.running), r.held > 0 ? `${r.held} wait for a group` : "");
  t.done.set(whole(sumOf(r.ended)), named(r.ended));
  t.refused.set(whole(sumOf(r.refused)), named(r.refused));
  t.first.set(meanOf(r.first_token), r.first_token.count ? `mean of ${whole(r.first_token.count)}` : "", "none yet");
  t.between.set(meanOf(r.between_tokens), r.between_tokens.count ? "mean" : "", "none yet");
  t.tokens.set(whole(r.generated_tokens), `${whole(r.prompt_tokens)} of prompts`);
}

function showGroups(list) {
  const made = new Map();
  let changed = list.length !== groups.size;
  for (const g of list) {
    let view = groups.get(g.name);
    if (!view || view.key !== JSON.stringify(g.layout)) {
      view = new GroupView(g);
      changed = true;
    }
    view.update(g);
    made.set(g.name, view);
  }
  groups = made;
  if (changed) page.groups.replaceChildren(...[...made.values()].map((v) => v.root));
}

function showEvents(events) {
  const last = events.at(-1)?.number ?? 0;
  if (last === lastEvent) return;
  lastEvent = last;
  if (events.length === 0) {
    page.events.replaceChildren(el("li", {}, "None since the coordinator started."));
    return;
  }
  page.events.replaceChildren(...events.toReversed().map((e) => {
    const when = new Date(e.unix_time * 1000);
    return el("li", {}, el("time", { datetime: when.toISOString(), title: when.toLocaleString() },
      when.toLocaleTimeString("en-GB")), el("span", {}, `${e.group} ${e.event}`), el("span", {}, e.message ?? ""));
  }));
}

function show(s) {
  setText(page.facts, `${s.model} · witan ${s.version} · up ${age(s.uptime_seconds)} · context ${whole(s.context)} tokens`
    + (s.manifest ? ` · signed by ${s.manifest.signers}` : ""));
  page.body.hidden = false;
  page.trouble.replaceChildren();
  showRequests(s.requests);
  showGroups(s.groups);
  showEvents(s.events);
}

function showTrouble(error) {
  const old = heard ? ` What is below is ${age((performance.now() - heard) / 1000)} old.` : "";
  const box = el("div", { class: "notice bad" }, el("p", {}, el("strong", {}, error.message)),
    el("p", {}, (error.advice ?? "") + old));
  if (error.action === "settings") {
    box.append(el("button", { type: "button", onclick: () => openSettings("key") }, "Open settings"));
  }
  if (page.trouble.textContent !== box.textContent) page.trouble.replaceChildren(box);
}

async function poll() {
  if (!shown || document.hidden || asking) return;
  const begun = performance.now();
  asking = new AbortController();
  const patience = setTimeout(() => asking.abort(), PATIENCE_MS);
  try {
    const status = await getJson("/admin/status", asking.signal);
    show(status);
    heard = performance.now();
  } catch (e) {
    if (e.name !== "AbortError") showTrouble(e);
    else if (shown) showTrouble(new Error("The server does not answer."));
  }
  clearTimeout(patience);
  asking = null;
  clearTimeout(timer);
  timer = setTimeout(poll, Math.max(0, EVERY_MS - (performance.now() - begun)));
}

export function showOperator() {
  if (!page) build();
  shown = true;
  poll();
}

export function hideOperator() {
  shown = false;
  clearTimeout(timer);
}

document.addEventListener("visibilitychange", () => poll());
document.addEventListener("settings-changed", () => poll());
