// The dashboard: asks GET /live each second and shows what it says. Counts become rates of what they
// grew by; nothing that comes from outside is ever read as HTML.
"use strict";

const INTERVAL_MS = 1000;
const HISTORY = 300;
// Percentiles and ratios are of so many looks.
const WINDOW = 10;

const $ = (id) => document.getElementById(id);
const history = { at: [], hit: [], byteHit: [], hits: [], misses: [], bytes: [] };
const looks = [];
let token = sessionStorage.getItem("token") || "";
let paused = false;
let list = "requests";
let latest = null;
let timer = 0;

// --- Asking

class Refused extends Error {
  constructor(status, text) {
    super(text);
    this.status = status;
  }
}

async function ask(path, body) {
  const headers = token ? { Authorization: `Bearer ${token}` } : {};
  const options = { headers, cache: "no-store", credentials: "omit" };
  if (body !== undefined) {
    headers["Content-Type"] = "application/json";
    Object.assign(options, { method: "POST", body: JSON.stringify(body) });
  }
  const response = await fetch(path, options);
  const text = await response.text();
  if (!response.ok) {
    let reason = text.trim();
    try {
      reason = JSON.parse(text).error || reason;
    } catch {
      // It is not JSON; as it is, then.
    }
    throw new Refused(response.status, reason);
  }
  return text;
}

async function look() {
  clearTimeout(timer);
  if (!paused && !document.hidden) {
    try {
      const picture = JSON.parse(await ask("/live"));
      // It may have been paused while that was on its way.
      if (paused) return;
      show(picture);
      $("main").hidden = false;
      $("sign-in").hidden = true;
    } catch (error) {
      if (paused) return;
      trouble(error);
      if (error.status === 401) return;
    }
  }
  timer = setTimeout(look, INTERVAL_MS);
}

function trouble(error) {
  if (error.status === 401) {
    $("main").hidden = true;
    $("sign-in").hidden = false;
    $("sign-in-trouble").textContent = token ? "That is not the token." : "";
    state("A token is needed", true);
    $("token").focus();
    return;
  }
  state(error.status ? error.message : "Larder does not answer", true);
}

function state(text, bad) {
  $("state").textContent = text;
  $("state").className = bad ? "bad" : "";
}

// --- Words

const number = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const few = new Intl.NumberFormat("en", { maximumSignificantDigits: 3 });

function count(value) {
  return value < 10 && value > 0 ? few.format(value) : number.format(value);
}

function size(bytes) {
  const units = ["B", "KiB", "MiB", "GiB", "TiB", "PiB"];
  let unit = 0;
  while (bytes >= 1024 && unit < units.length - 1) {
    bytes /= 1024;
    unit += 1;
  }
  return `${unit === 0 ? number.format(bytes) : few.format(bytes)} ${units[unit]}`;
}

function percent(ratio) {
  return ratio === null || ratio === undefined ? "–" : `${(ratio * 100).toFixed(1)} %`;
}

function span(seconds) {
  const units = [["d", 86400], ["h", 3600], ["m", 60], ["s", 1]];
  const first = units.findIndex(([, length]) => seconds >= length);
  if (first < 0) return "0s";
  const told = units.slice(first, first + 2).map(([name, length], place) => {
    const whole = Math.floor(place === 0 ? seconds / length : (seconds % units[first][1]) / length);
    return `${whole}${name}`;
  });
  return told.join(" ");
}

function duration(microseconds) {
  if (microseconds === null) return "–";
  if (microseconds < 1000) return `${few.format(microseconds)} µs`;
  if (microseconds < 1e6) return `${few.format(microseconds / 1000)} ms`;
  return `${few.format(microseconds / 1e6)} s`;
}

function element(name, text, className) {
  const made = document.createElement(name);
  if (text !== undefined) made.textContent = text;
  if (className) made.className = className;
  return made;
}

function fill(table, rows, empty) {
  const body = $(table).tBodies[0];
  const columns = $(table).tHead.rows[0].cells.length;
  if (rows.length === 0) {
    const cell = element("td", empty, "empty");
    cell.colSpan = columns;
    rows = [[cell]];
  }
  const made = rows.map((cells) => {
    const row = element("tr");
    row.append(...cells);
    return row;
  });
  body.replaceChildren(...made);
}

// --- Showing

function show(picture) {
  const last = looks.at(-1);
  if (last && (last.since_ms !== picture.since_ms || last.at_ms >= picture.at_ms)) {
    looks.length = 0;
    for (const values of Object.values(history)) values.length = 0;
  }
  const before = looks.at(-1);
  looks.push(picture);
  if (looks.length > WINDOW + 1) looks.shift();
  latest = picture;
  if (before) remember(before, picture);
  showNow(picture);
  showLatency(picture);
  showCurve(picture.curve);
  showStore(picture);
  showTop();
  showPurges(picture.purges || []);
  draw();
  $("version").textContent = picture.version;
  state(`Up ${span((picture.at_ms - picture.since_ms) / 1000)}`, false);
}

const part = (some, all) => (all > 0 ? some / all : null);

function remember(before, after) {
  const seconds = (after.at_ms - before.at_ms) / 1000;
  const grown = (name) => after.totals[name] - before.totals[name];
  const [requests, hits, bytes] = [grown("requests"), grown("hits"), grown("bytes")];
  history.at.push(after.at_ms / 1000);
  history.hit.push(part(hits, requests));
  history.byteHit.push(part(grown("hit_bytes"), bytes));
  history.hits.push(hits / seconds);
  history.misses.push((requests - hits) / seconds);
  history.bytes.push(bytes / seconds);
  for (const values of Object.values(history)) if (values.length > HISTORY) values.shift();
}

function showNow(picture) {
  const first = looks[0];
  const seconds = (picture.at_ms - first.at_ms) / 1000;
  const grown = (name) => picture.totals[name] - first.totals[name];
  const rate = (grew) => (seconds > 0 ? grew / seconds : 0);
  $("hit-ratio").textContent = percent(part(grown("hits"), grown("requests")));
  $("byte-hit-ratio").textContent = percent(part(grown("hit_bytes"), grown("bytes")));
  $("requests").textContent = count(rate(grown("requests")));
  $("requests-all").textContent = count(picture.totals.requests);
  $("bytes").textContent = size(rate(grown("bytes")));
  $("bytes-all").textContent = size(picture.totals.bytes);
  const errors = rate(grown("errors"));
  $("errors").textContent = count(errors);
  $("errors").className = errors > 0 ? "bad" : "";
  $("errors-all").textContent = count(picture.totals.errors);
  $("evicted").textContent = count(rate(picture.store.evicted - first.store.evicted));
  $("evicted-all").textContent = count(picture.store.evicted);
}

function showLatency(picture) {
  const { bounds_us: bounds, outcomes } = picture.latency || { bounds_us: [], outcomes: [] };
  const first = looks[0];
  const rows = [];
  for (const { outcome, counts } of outcomes) {
    const were = (first.latency?.outcomes || []).find((was) => was.outcome === outcome);
    const grown = counts.map((now, step) => now - (were && first !== picture ? were.counts[step] : 0));
    const all = counts.reduce((sum, now) => sum + now, 0);
    if (all === 0) continue;
    const recent = grown.reduce((sum, now) => sum + now, 0);
    // Of the last seconds where there were any, else of all.
    const of = recent > 0 ? grown : counts;
    const cells = [element("td", outcome), element("td", count(all), "number")];
    for (const at of [0.5, 0.9, 0.99]) {
      const cell = element("td", duration(percentile(bounds, of, at)), "number");
      if (recent === 0) cell.classList.add("empty");
      cells.push(cell);
    }
    rows.push(cells);
  }
  fill("latency", rows, "No requests yet.");
}

// Between the bounds of the step in which it lies; what is over the last bound is told as that.
function percentile(bounds, counts, at) {
  const all = counts.reduce((sum, now) => sum + now, 0);
  if (all === 0) return null;
  let below = 0;
  for (let step = 0; step < bounds.length; step += 1) {
    const within = counts[step];
    if (within > 0 && below + within >= at * all) {
      const low = step === 0 ? 0 : bounds[step - 1];
      return low + ((bounds[step] - low) * (at * all - below)) / within;
    }
    below += within;
  }
  return bounds.at(-1) ?? null;
}

function showCurve(curve) {
  const today = curve.points.find((point) => point.times === 1);
  const rows = curve.points.map((point) => {
    const change = (point.hit_ratio - today.hit_ratio) * 100;
    const told = point === today ? "today" : `${change < 0 ? "−" : "+"}${Math.abs(change).toFixed(1)} points`;
    const cells = [
      element("th", `${point.times} ×`),
      element("td", size(point.bytes), "number"),
      element("td", percent(point.hit_ratio), "number"),
      element("td", told, "number"),
      element("td", percent(point.byte_hit_ratio), "number"),
    ];
    cells[0].scope = "row";
    return cells;
  });
  fill("curve", rows, "Nothing is known yet.");
  const full = curve.points.some((point) => point.times === 1 && point.full);
  $("curve-note").textContent =
    `From ${count(curve.keys)} keys, one in ${count(curve.one_in)}, and ${count(curve.requests)} requests.` +
    (full ? "" : " No store of today's size would be full yet, so this may still change.");
}

function showStore(picture) {
  const { store } = picture;
  const used = part(store.bytes, store.limit) || 0;
  $("store-part").textContent = percent(used);
  $("store-bytes").textContent = `${size(store.bytes)} of ${size(store.limit)}`;
  $("store-meter").value = used;
  $("store-meter").textContent = percent(used);
  $("entries").textContent = count(store.entries);
  $("memory").textContent = size(store.memory_bytes);
  $("fills").textContent = count(store.fills);
  $("connections").textContent = count(picture.connections_open);
  $("alarm").hidden = !store.pass_through;
  $("alarm").textContent = store.pass_through ? `The store passes through: ${store.pass_through}` : "";
  const dirs = store.dirs.map((dir) => [
    element("td", dir.path),
    element("td", `${size(dir.bytes)} of ${size(dir.limit)}`, "number"),
    dir.out ? element("td", `out: ${dir.out}`, "bad") : element("td", "in use", "good"),
  ]);
  fill("dirs", dirs, "None.");
  const origins = picture.origins.map((origin) => [
    element("td", origin.name),
    origin.usable ? element("td", "up", "good") : element("td", "down", "bad"),
  ]);
  fill("origins", origins, "None.");
}

// --- Heaviest URLs

function showTop() {
  if (!latest) return;
  const { top } = latest;
  const wanted = $("filter").value.toLowerCase();
  const passes = (row) => `${row.url} ${row.reason || ""}`.toLowerCase().includes(wanted);
  const focused = document.activeElement?.dataset?.row;
  const rows = top[list].filter(passes).map((row) => {
    const reason = element("td", row.reason || "");
    reason.hidden = list !== "not_cached";
    const told = list === "bytes" ? size(row.count) : count(row.count);
    return [element("td", told, "number"), reason, element("td", row.url), actions(row)];
  });
  $("top-count").textContent = list === "bytes" ? "Bytes" : list === "requests" ? "Requests" : "Misses";
  $("top-reason").hidden = list !== "not_cached";
  $("top-span").textContent = `of the last ${span(top.seconds)}`;
  fill("top", rows, wanted ? "None passes the filter." : "None.");
  // Who is on a button stays there while the table is written anew.
  if (focused) {
    const again = [...$("top").querySelectorAll("button")].find((button) => button.dataset.row === focused);
    again?.focus();
  }
}

function actions(row) {
  const cell = element("td");
  const url = `http://${row.url}`;
  const act = (name, what) => {
    const button = element("button", name, "small");
    button.type = "button";
    button.dataset.row = `${name} ${row.reason || ""} ${row.url}`;
    button.setAttribute("aria-label", `${name} ${row.url}`);
    button.addEventListener("click", what);
    cell.append(button);
  };
  act("Explain", () => {
    $("explain-url").value = url;
    $("explain-url").focus();
  });
  act("Purge", () => {
    $("purge-kind").value = "urls";
    kindChosen();
    $("purge-items").value = url;
    $("purge-items").focus();
  });
  return cell;
}

function choose(name) {
  list = name;
  for (const tab of document.querySelectorAll("[role=tab]")) {
    const chosen = tab.dataset.list === name;
    tab.setAttribute("aria-selected", String(chosen));
    tab.tabIndex = chosen ? 0 : -1;
    if (chosen) $("top-panel").setAttribute("aria-labelledby", tab.id);
  }
  showTop();
}

function hearTabs() {
  const tabs = [...document.querySelectorAll("[role=tab]")];
  tabs.forEach((tab, place) => {
    tab.addEventListener("click", () => choose(tab.dataset.list));
    tab.addEventListener("keydown", (event) => {
      const steps = { ArrowRight: 1, ArrowLeft: -1, Home: -place, End: tabs.length - 1 - place };
      if (!(event.key in steps)) return;
      event.preventDefault();
      const next = tabs[(place + steps[event.key] + tabs.length) % tabs.length];
      choose(next.dataset.list);
      next.focus();
    });
  });
}

// --- Purges

function showPurges(purges) {
  const rows = purges.map((purge) => [
    element("td", clock(purge.at_ms / 1000)),
    element("td", purge.id),
    element("td", `${purge.soft ? "soft, " : ""}${purge.kinds.map(({ kind, items }) => (kind === "all" ? kind : `${items} ${kind}`)).join(", ")}`),
    element("td", purge.entries === null ? "…" : count(purge.entries), "number"),
    purge.durable ? element("td", "yes", "good") : element("td", "not yet", "bad"),
  ]);
  fill("purges", rows, "None.");
}

function kindChosen() {
  const all = $("purge-kind").value === "all";
  $("purge-items").disabled = all;
  $("purge-items").required = !all;
}

function lines(id) {
  return $(id).value.split("\n").map((line) => line.trim()).filter((line) => line !== "");
}

async function purge(event) {
  event.preventDefault();
  const kind = $("purge-kind").value;
  const body = { [kind]: kind === "all" ? true : lines("purge-items") };
  if ($("purge-soft").checked) body.soft = true;
  if (kind === "all" && !window.confirm("Purge everything that is stored?")) return;
  const result = $("purge-result");
  result.className = "";
  result.textContent = "Purging …";
  try {
    const receipt = JSON.parse(await ask("/purge", body));
    const entries = receipt.entries === null || receipt.entries === undefined ? "" : `, ${count(receipt.entries)} entries`;
    const durable = receipt.durable ? "" : "; not yet on disk";
    result.textContent = `Purged: receipt ${receipt.id}${entries}${durable}.`;
  } catch (error) {
    result.className = "bad";
    result.textContent = `Not purged: ${error.message}`;
  }
}

// --- Explain

async function explain(event) {
  event.preventDefault();
  const body = { url: $("explain-url").value };
  for (const line of lines("explain-headers")) {
    const colon = line.indexOf(":");
    const [name, value] = colon < 0 ? [line, ""] : [line.slice(0, colon).trim(), line.slice(colon + 1).trim()];
    body.headers ??= {};
    (body.headers[name] ??= []).push(value);
  }
  if ($("explain-fetch").checked) body.fetch = true;
  $("explain-trouble").textContent = "";
  try {
    showExplanation(JSON.parse(await ask("/explain", body)));
  } catch (error) {
    $("explain-result").replaceChildren();
    $("explain-trouble").textContent = `Not explained: ${error.message}`;
  }
}

// What would be done and why, what is stored, and behind it every number there is.
function showExplanation(told) {
  const list = element("dl", undefined, "pairs left");
  const pair = (name, value) => {
    if (value === null || value === undefined || value === "") return;
    list.append(element("dt", name), element("dd", value));
  };
  const because = ({ reason, because: why, section }) => `${reason}: ${why}${section ? ` (${section})` : ""}`;
  const { would, fetched } = told;
  pair("Would", would.act);
  pair("Because", because(would));
  pair("Remedy", would.remedy);
  pair("Cache-Status", would.cache_status);
  pair("Site", told.site?.name);
  pair("Stored", `${told.stored.length} under its key`);
  if (fetched) {
    pair("The origin says", fetched.status);
    pair("Would store", fetched.would_store ? "yes" : "no");
    if (fetched.not_stored) {
      pair("Not stored", because(fetched.not_stored));
      pair("Remedy", fetched.not_stored.remedy);
    }
  }
  const all = element("details");
  all.append(element("summary", "Everything"), element("pre", JSON.stringify(told, null, 2)));
  $("explain-result").replaceChildren(list, all);
}

// --- Charts

const charts = [];

function color(name) {
  return getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
}

function axis(values, more) {
  return {
    space: 70,
    stroke: () => color("faint"),
    grid: { stroke: () => color("line"), width: 1 },
    ticks: { stroke: () => color("line"), width: 1 },
    font: "12px system-ui, sans-serif",
    ...(values ? { values: (_chart, ticks) => ticks.map(values) } : {}),
    ...more,
  };
}

// A value without neighbours is on no line: it is shown as a point.
function alone(chart, series) {
  const values = chart.data[series];
  const missing = (at) => values[at] === null || values[at] === undefined;
  return [...values.keys()].filter((at) => !missing(at) && missing(at - 1) && missing(at + 1));
}

function line(label, name, told, more) {
  return {
    label,
    stroke: () => color(name),
    width: 2,
    points: { show: false, size: 4, filter: alone },
    value: (_chart, value) => (value === null || value === undefined ? "–" : told(value)),
    ...more,
  };
}

function chart(id, series, told, more = {}) {
  const place = $(id);
  const made = new uPlot(
    {
      width: Math.max(place.clientWidth, 120),
      height: 190,
      scales: { y: { range: (_chart, _low, high) => [0, high > 0 ? high * 1.1 : 1] }, ...more.scales },
      axes: [axis(clock, more.x || { incrs: SECONDS }), axis(told, { size: 64, space: 35, ...more.y })],
      series: [more.xSeries || { value: (_chart, at) => (at ? clock(at) : "–") }, ...series],
      cursor: { drag: { x: false, y: false } },
      ...more.options,
    },
    [[], ...series.map(() => [])],
    place,
  );
  charts.push(made);
  return made;
}

function fit() {
  for (const made of charts) {
    const width = made.root.parentElement.clientWidth;
    if (width > 0 && width !== made.width) made.setSize({ width, height: 190 });
  }
}

function clock(seconds) {
  return new Date(seconds * 1000).toLocaleTimeString("en-GB");
}

const SECONDS = [1, 2, 5, 10, 15, 30, 60, 120, 300];
const DOUBLES = Array.from({ length: 60 }, (_, power) => 2 ** power);

let ratioChart, rateChart, bytesChart, curveChart;

function makeCharts() {
  const whole = { scales: { y: { range: [0, 1] } } };
  const share = (value) => `${Math.round(value * 100)} %`;
  ratioChart = chart("ratio-chart", [line("of requests", "first", percent), line("of bytes", "second", percent)], share, whole);
  rateChart = chart("rate-chart", [line("hits", "first", count), line("misses", "second", count)], count);
  bytesChart = chart("bytes-chart", [line("sent", "third", size)], size, { y: { incrs: DOUBLES } });
  // Sizes are drawn by how often they double.
  const sizes = (at) => `${2 ** at} ×`;
  const points = { points: { show: true, size: 8, fill: () => color("card") } };
  curveChart = chart("curve-chart", [line("of requests", "first", percent, points), line("of bytes", "second", percent, points)], share, {
    scales: { x: { time: false, range: [-1.2, 2.2] }, y: { range: [0, 1] } },
    x: { values: (_chart, ticks) => ticks.map((at) => (Number.isInteger(at) ? sizes(at) : "")), incrs: [1] },
    xSeries: { label: "size", value: (_chart, at) => (at === null ? "–" : sizes(at)) },
  });
}

function draw() {
  const { at } = history;
  ratioChart.setData([at, history.hit, history.byteHit]);
  rateChart.setData([at, history.hits, history.misses]);
  bytesChart.setData([at, history.bytes]);
  const { points } = latest.curve;
  curveChart.setData([
    points.map((point) => Math.log2(point.times)),
    points.map((point) => point.hit_ratio),
    points.map((point) => point.byte_hit_ratio),
  ]);
  const last = (values) => values.at(-1) ?? null;
  $("ratio-chart").setAttribute("aria-label", `Hit ratio, now ${percent(last(history.hit))} of requests`);
  $("rate-chart").setAttribute("aria-label", `Requests a second, now ${count((last(history.hits) || 0) + (last(history.misses) || 0))}`);
  $("bytes-chart").setAttribute("aria-label", `Bytes a second, now ${size(last(history.bytes) || 0)}`);
}

// --- Beginning

$("pause").addEventListener("click", () => {
  paused = !paused;
  $("pause").setAttribute("aria-pressed", String(paused));
  $("pause").textContent = paused ? "Go on" : "Pause";
  if (paused) state("Paused", false);
  else look();
});
$("sign-in").addEventListener("submit", (event) => {
  event.preventDefault();
  token = $("token").value.trim();
  sessionStorage.setItem("token", token);
  look();
});
$("filter").addEventListener("input", showTop);
$("purge-kind").addEventListener("change", kindChosen);
$("purge").addEventListener("submit", purge);
$("explain").addEventListener("submit", explain);
document.addEventListener("visibilitychange", () => {
  if (!document.hidden) look();
});
matchMedia("(prefers-color-scheme: dark)").addEventListener("change", () => {
  for (const made of charts.splice(0)) made.destroy();
  makeCharts();
  if (latest) draw();
});
hearTabs();
makeCharts();
new ResizeObserver(fit).observe($("main"));
look();
