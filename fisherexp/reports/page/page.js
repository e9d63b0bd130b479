"use strict";

const ESCAPES = { "&": "&amp;", "<": "&lt;", ">": "&gt;", '"': "&quot;" };
const safe = (text) => String(text).replace(/[&<>"]/g, (sign) => ESCAPES[sign]);
const $ = (id) => document.getElementById(id);

function shown(heading, value) {
  if (value === undefined || value === null) return "";
  if (typeof value !== "number") return safe(value);
  return heading.includes("%") || heading === "seconds" ? value.toFixed(1) : String(Number(value.toPrecision(4)));
}

// --- theme ------------------------------------------------------------------------------------------------

function theme(name) { document.documentElement.dataset.theme = name; }
theme(matchMedia("(prefers-color-scheme: dark)").matches ? "dark" : "light");
$("theme").onclick = () => theme(document.documentElement.dataset.theme === "dark" ? "light" : "dark");

// --- data -------------------------------------------------------------------------------------------------

async function unpacked() {
  const bytes = Uint8Array.from(atob($("data").textContent.trim()), (sign) => sign.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

// --- table of runs ----------------------------------------------------------------------------------------

// Always there; another column only where runs differ in it.
const FIXED = ["run", "method", "seed"];

class Runs {
  constructor(content) {
    const { headings, runs } = content;
    const metrics = Object.keys(headings).filter((name) => runs.some((run) => name in run.metrics.after));
    this.columns = [
      { title: "run", value: (run) => run.id, cell: (run) => `<a href="#run/${safe(run.id)}">${safe(run.id)}</a>` },
      { title: "method", value: (run) => run.names.method },
      { title: "options", value: (run) => run.options, word: true },
      ...["data", "model", "scenario"].map((key) => ({ title: key, value: (run) => run.names[key] })),
      { title: "seed", value: (run) => run.seed, figure: true },
      ...metrics.map((name) => ({ title: headings[name], value: (run) => run.metrics.after[name], figure: true })),
    ].filter(({ title, value }) => FIXED.includes(title) || new Set(runs.map(value)).size > 1);
    const words = (run) => `${run.title} seed=${run.seed} ${run.options} ${run.command}`.toLowerCase();
    this.runs = runs.map((run) => ({ run, text: words(run) }));
    this.order = { column: 1, sign: 1 };
    const heads = this.columns.map((c, i) => `<th data-i="${i}" class="${c.figure ? "figure" : ""}">${safe(c.title)}</th>`);
    $("runs").tHead.innerHTML = `<tr>${heads.join("")}</tr>`;
    $("runs").tHead.onclick = (event) => this.sort(Number(event.target.closest("th").dataset.i));
    $("filter").oninput = () => this.draw();
    this.draw();
  }

  sort(column) {
    this.order = { column, sign: this.order.column === column ? -this.order.sign : 1 };
    this.draw();
  }

  draw() {
    const words = $("filter").value.toLowerCase().split(/\s+/).filter(Boolean);
    const kept = this.runs.filter(({ text }) => words.every((word) => text.includes(word))).map(({ run }) => run);
    const { column, sign } = this.order;
    const { value } = this.columns[column];
    const missing = (x) => x === undefined || x === null;
    const compared = (x, y) => {
      if (typeof x === "number" && typeof y === "number") return x - y;
      return String(x).localeCompare(String(y), "en", { numeric: true });
    };
    kept.sort((a, b) => {
      const [x, y] = [value(a), value(b)];
      if (missing(x) || missing(y)) return missing(x) - missing(y); // always last
      return sign * compared(x, y) || compared(a.options, b.options) || a.seed - b.seed;
    });
    [...$("runs").tHead.rows[0].cells].forEach((head, i) => {
      head.setAttribute("aria-sort", i !== column ? "none" : sign > 0 ? "ascending" : "descending");
    });
    const cell = (c, run) => (c.cell ? c.cell(run) : shown(c.title, c.value(run)));
    const row = (run) => this.columns.map((c) => `<td class="${c.figure ? "figure" : c.word ? "word" : ""}">${cell(c, run)}</td>`).join("");
    $("runs").tBodies[0].innerHTML = kept.map((run) => `<tr>${row(run)}</tr>`).join("");
    $("count").textContent = `${kept.length} of ${this.runs.length}`;
  }
}

// --- one run ----------------------------------------------------------------------------------------------

function metricsTable(run, headings) {
  const stages = Object.keys(run.metrics);
  const names = [...new Set(stages.flatMap((stage) => Object.keys(run.metrics[stage])))];
  const heads = stages.map((stage) => `<th class="figure">${safe(stage.replace("_", " "))}</th>`).join("");
  const row = (name) => {
    const figures = stages.map((stage) => `<td class="figure">${shown(headings[name] || "", run.metrics[stage][name])}</td>`);
    return `<tr><td>${safe(headings[name] || name).replaceAll("_", "_<wbr>")}</td>${figures.join("")}</tr>`;
  };
  return `<div class="wide"><table><thead><tr><th></th>${heads}</tr></thead><tbody>${names.map(row).join("")}</tbody></table></div>`;
}

function curve(name, points) {
  const [width, height, left, bottom] = [280, 150, 48, 16];
  const xs = points.map((p) => p[0]), ys = points.map((p) => p[1]);
  const [x0, x1, y0, y1] = [Math.min(...xs), Math.max(...xs), Math.min(...ys), Math.max(...ys)];
  const x = (v) => left + ((v - x0) / (x1 - x0 || 1)) * (width - left - 6);
  const y = (v) => 6 + (1 - (v - y0) / (y1 - y0 || 1)) * (height - bottom - 12);
  const path = points.map((p, i) => `${i ? "L" : "M"}${x(p[0]).toFixed(1)},${y(p[1]).toFixed(1)}`).join("");
  const number = (v) => Number(v.toPrecision(3));
  return `<div class="curve"><div>${safe(name)}</div><svg width="${width}" height="${height}" role="img" aria-label="${safe(name)}">
    <path d="${path}"/><text x="2" y="14">${number(y1)}</text><text x="2" y="${height - bottom - 4}">${number(y0)}</text>
    <text x="${left}" y="${height - 3}">step ${number(x0)}</text>
    <text x="${width - 4}" y="${height - 3}" text-anchor="end">${number(x1)}</text></svg></div>`;
}

function runPage(run, headings) {
  const json = (value) => `<pre>${safe(JSON.stringify(value, null, 2))}</pre>`;
  const curves = Object.entries(run.curves).map(([name, points]) => curve(name, points)).join("");
  const pictures = run.pictures.map((p) => `<figure><img alt="${safe(p.name)}" src="data:image/${p.type};base64,${p.data}">
    <figcaption>${safe(p.name)}</figcaption></figure>`).join("");
  const rest = Object.fromEntries(["finished", "seconds", "code", "versions", "hardware", "memory", "costs", "outcome"]
    .filter((key) => key in run).map((key) => [key, run[key]]));
  const omitted = run.left_out ? `<p class="notes">${run.left_out} further pictures lie in the run's folder.</p>` : "";
  return `<p><a href="#">← all runs</a></p><h2>${safe(run.title)}</h2>
    ${run.trial ? '<p class="warning">A trial: a debug preset, limited batches, evaluate_on=validation or uncommitted code.</p>' : ""}
    <h3>Again</h3><pre id="command">${safe(run.command)}</pre>
    <h3>Metrics</h3>${metricsTable(run, headings)}
    ${curves ? `<h3>Curves</h3><div class="curves">${curves}</div>` : ""}
    ${pictures ? `<h3>Pictures</h3><div class="figures">${pictures}</div>` : ""}${omitted}
    <details><summary>Config</summary>${json(run.config)}</details>
    <details><summary>Record</summary>${json(rest)}</details>`;
}

// --- start ------------------------------------------------------------------------------------------------

unpacked().then((content) => {
  new Runs(content);
  const byId = Object.fromEntries(content.runs.map((run) => [run.id, run]));
  const route = () => {
    const run = byId[decodeURIComponent(location.hash).replace(/^#run\//, "")];
    $("overview").hidden = Boolean(run);
    $("run").hidden = !run;
    $("run").innerHTML = run ? runPage(run, content.headings) : "";
    const anchor = !run && location.hash.length > 1 && $(location.hash.slice(1));
    if (anchor) anchor.scrollIntoView();
    document.title = run ? `${run.id} – fisherexp` : "fisherexp report";
    if (run) scrollTo(0, 0);
  };
  addEventListener("hashchange", route);
  route();
  document.body.dataset.ready = "yes";
});
