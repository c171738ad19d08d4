// The page: what there is of each SAE, section by section.

const DATA = JSON.parse($("data").textContent);
const COLORS = [0, 1, 2, 3, 4, 5, 6, 7].map((i) => `var(--s${i})`);
const several = DATA.runs.length > 1;
DATA.saes.forEach((s, i) => {
  s.color = COLORS[i % COLORS.length];
  s.label = several ? `${DATA.runs[s.run].name} · ${s.name}` : s.name;
  s.key = several ? `${s.run}:${s.name}` : s.name;
});

function theme() {
  const root = document.documentElement, button = $("theme");
  const dark = () => (root.dataset.theme ? root.dataset.theme === "dark" : matchMedia("(prefers-color-scheme: dark)").matches);
  try { if (/^(dark|light)$/.test(localStorage.getItem("theme"))) root.dataset.theme = localStorage.getItem("theme"); } catch { /* a file may have no storage */ }
  button.addEventListener("click", () => {
    root.dataset.theme = dark() ? "light" : "dark";
    try { localStorage.setItem("theme", root.dataset.theme); } catch { /* likewise */ }
  });
}

function heading() {
  const names = DATA.runs.map((r) => r.name).join(", ");
  $("title").textContent = names;
  document.title = `${names}: SAE report`;
  const models = [...new Set(DATA.runs.map((r) => r.settings.model).filter(Boolean))];
  const places = [...new Set(DATA.saes.filter((s) => s.site).map((s) => `${s.site} of layer ${s.layer}`))];
  $("subtitle").textContent = [
    `${DATA.saes.length} SAE${DATA.saes.length === 1 ? "" : "s"}`, places.length <= 3 ? places.join(", ") : `${places.length} places`,
    models.length ? models.join(", ") : null].filter(Boolean).join(" · ");
  for (const r of DATA.runs)
    for (const note of r.notes) $("notes").append(el("p", { class: "note" }, several ? `${r.name}: ${note}` : note));
  $("footer").append(`Written by gemma_sae ${DATA.version}. Press / to search the latents; arrow keys move through their list.`);
}

const FIGURES = [
  ["l0", "L0", "mean count of f > 0"],
  ["fvu", "FVU", "Σ |x̂ − x|² / Σ |x − mean x|²"],
  ["cosine", "Cosine", "mean x · x̂ / (|x| |x̂|)"],
  ["norm_ratio", "Norm ratio", "mean |x̂| / |x|"],
  ["delta_loss", "Δ loss", "L(x̂ spliced in) − L, nats per token"],
  ["loss_recovered", "Recovered", "(L(zeros) − L(x̂)) / (L(zeros) − L)"],
  ["loss_recovered_mean_ablation", "Recovered, mean", "(L(mean) − L(x̂)) / (L(mean) − L)"],
  ["dead_latents", "Dead", "latents that never fired here"],
];
function figure(evaluation, key) {
  const v = evaluation[key];
  if (v === undefined || v === null) return ["–", ""];
  if (typeof v === "number") return [String(v), ""];
  const error = v.standard_error, digits = error > 0 ? Math.max(0, Math.min(6, 1 - Math.floor(Math.log10(error)))) : 4;
  return v.value === null ? ["–", ""] : [v.value.toFixed(digits).replace("-", "−"), error > 0 ? "±" + error.toFixed(digits) : ""];
}
function evaluation() {
  const body = $("evaluation-body"), measured = DATA.saes.filter((s) => s.evaluation);
  if (!measured.length) body.append(el("p", { class: "muted" }, "No eval.json: these SAEs have not been evaluated. gemma_sae eval measures them."));
  else {
    const shown = FIGURES.filter(([key]) => measured.some((s) => s.evaluation[key] !== undefined));
    const rows = measured.map((s) => el("tr", {}, el("th", { scope: "row" }, s.label), el("td", {}, s.latents.toLocaleString("en")), el("td", {}, s.target_l0 ? short(s.target_l0, 4) : "–"),
      ...shown.map(([key]) => { const [value, error] = figure(s.evaluation, key); return el("td", {}, value, error ? el("small", {}, error) : ""); })));
    const e = measured[0].evaluation, same = measured.every((s) => s.evaluation.tokens === e.tokens);
    body.append(el("div", { class: "card" }, el("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Evaluation table" }, el("table", {}, el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "SAE"), el("th", { scope: "col" }, "Latents"), el("th", { scope: "col" }, "Asked L0"),
      ...shown.map(([, title, formula]) => tip(el("th", { scope: "col" }, title), formula)))), el("tbody", {}, ...rows))),
      el("div", { class: "formulas" }, ...shown.map(([, title, formula]) => el("div", {}, el("b", {}, title + "  "), formula)),
        el("div", {}, "± standard error over contexts; BOS, EOS and padding left out", same && e.tokens ? `; ${e.tokens.toLocaleString("en")} held-out tokens` : ""))));
  }
  const figures = el("div", { class: "charts pair" });
  if (measured.length > 1) {
    // What only the L0 tells apart is one line: a run's SAEs of a place and width.
    const place = (s) => `${several ? DATA.runs[s.run].name + " · " : ""}${s.site} of layer ${s.layer}, ${s.latents.toLocaleString("en")} latents`, places = [...new Set(measured.map(place))];
    const points = (key) => measured.filter((s) => s.evaluation[key] && s.evaluation[key].value !== null).map((s) => ({
      x: s.evaluation.l0.value, y: s.evaluation[key].value, group: place(s), color: COLORS[places.indexOf(place(s)) % COLORS.length],
      tip: `${s.label}\nL0 ${short(s.evaluation.l0.value)}, ${short(s.evaluation[key].value)}` }));
    figures.append(scatterChart("FVU", "against L0", points("fvu"), "L0"));
    if (points("delta_loss").length) figures.append(scatterChart("Δ loss", "against L0", points("delta_loss"), "L0"));
    if (places.length > 1 && places.length <= 24)
      figures.append(el("div", { class: "card chart" }, el("h3", {}, "SAEs ", el("span", {}, "by place and width")), el("ul", { class: "keys" },
        ...places.map((name, i) => { const item = el("li", {}, el("i"), name); item.style.setProperty("--c", COLORS[i % COLORS.length]); return item; }))));
  }
  const counted = DATA.saes.map((s) => ({ s, d: (s.evaluation && s.evaluation.density) || (s.seen && s.seen.density) })).filter((x) => x.d);
  if (counted.length) {
    const card = el("div"), choose = el("select", { "aria-label": "Density of which SAE" }, ...counted.map(({ s }, i) => el("option", { value: i }, s.label)));
    const draw = () => {
      const { d } = counted[choose.value || 0], edges = d.log10_edges, span = edges[edges.length - 1] - edges[0];
      const chart = chartCard("Density", "latents by log10 of the share of tokens on which they fire",
        histogram(d.latents.map((count, i) => ({ low: edges[i], high: edges[i + 1], count })), {
          title: "density histogram", tip: (b) => `10^${b.low} to 10^${b.high}: ${b.count} latents`,
          ticks: edges.filter((v) => Number.isInteger(v)).map((v) => [(v - edges[0]) / span, String(v).replace("-", "−")]) }, false, [DATA.saes.length === 1 ? 620 : 400, 216]));
      if (counted.length > 1) chart.prepend(choose);
      card.replaceChildren(chart);
    };
    choose.addEventListener("change", draw);
    draw();
    figures.append(card);
  }
  for (const r of DATA.runs) figures.append(about(r));
  body.append(figures);
}
// How a run was made.
function about(r) {
  const s = r.settings, list = el("dl", { class: "about" });
  const data = [].concat(s.data || []).map((f) => String(f).split("/").pop()).join(", ");
  for (const [name, value] of [["Folder", r.path], ["Model", s.model], ["Data", data], ["Tokens", s.tokens && s.tokens.toLocaleString("en")],
    ["Steps", s.steps && `${s.steps.toLocaleString("en")} of ${s.batch.toLocaleString("en")} tokens`], ["Contexts", s.context && `${s.context} tokens`],
    ["Recipe", s.preset && `${s.preset}, ${s.precision}, seed ${s.seed}`], ["State", r.is_run && (r.finished ? "finished" : "not finished")]])
    if (value) list.append(el("dt", {}, name), el("dd", {}, String(value)));
  return el("div", { class: "card chart" }, el("h3", {}, r.is_run ? "Run " : "SAE ", el("span", {}, r.name)), list);
}

const CURVES = [
  ["loss", "Loss", "squared error + penalty, against tokens seen"], ["l0", "L0", "dashed: the target in the end"], ["fvu", "FVU", "of training batches"],
  ["dead", "Dead latents", "silent for long"], ["lambda", "λ", "coefficient of the penalty"], ["lr", "Learning rate", ""],
];
function training() {
  const trained = DATA.saes.filter((s) => s.curves), body = $("training-body"), tools = $("training-tools");
  if (!trained.length) {
    body.className = "";
    body.append(el("p", { class: "muted" }, "No train.jsonl: there are no training curves."));
    return;
  }
  const on = new Set(trained.slice(0, 12));
  let log = false;
  const draw = () => body.replaceChildren(...CURVES.map(([key, title, detail]) =>
    lineChart(title, detail, trained.filter((s) => on.has(s)).map((s) => ({ name: s.label, color: s.color, x: s.curves.tokens, y: s.curves[key], target: key === "l0" ? s.target_l0 : 0 })), { log, zero: key === "dead" || key === "lr" })));
  const scale = el("button", { type: "button", "aria-pressed": "false", onclick: () => { log = !log; scale.setAttribute("aria-pressed", log); draw(); } }, "Log scale");
  tools.append(scale);
  if (trained.length > 1) {
    const chips = trained.map((s) => {
      const chip = el("button", { type: "button", "aria-pressed": String(on.has(s)), onclick: () => { on.has(s) ? on.delete(s) : on.add(s); chip.setAttribute("aria-pressed", on.has(s)); draw(); } }, el("i"), s.label);
      chip.style.setProperty("--c", s.color);
      return chip;
    });
    const all = el("button", { type: "button", onclick: () => { const full = on.size === trained.length; trained.forEach((s, i) => { full ? on.delete(s) : on.add(s); chips[i].setAttribute("aria-pressed", !full); }); draw(); } }, "All / none");
    tools.append(all);
    body.before(el("div", { class: "legend" }, ...chips));
  }
  draw();
}

function latents() {
  const looked = DATA.saes.filter((s) => s.dashboards.length), tools = $("latents-tools"), body = $("latents-body");
  if (!looked.length) {
    body.append(el("p", { class: "muted" }, "This page has no latents: there is no SAE yet, or --latents none was given."));
    return;
  }
  const [, hash, id] = start.match(/^#(.*)\/(\d+)$/) || [];
  const choose = el("select", { "aria-label": "SAE" }, ...looked.map((s, i) => el("option", { value: i }, s.label)));
  choose.value = String(Math.max(0, looked.findIndex((s) => s.key === hash)));
  const about = el("p", { class: "muted", style: "margin-bottom:14px" });
  const show = (wanted) => {
    const s = looked[choose.value];
    tools.replaceChildren(...(looked.length > 1 ? [choose] : []));
    about.textContent = `${s.dashboards.length} of ${s.latents.toLocaleString("en")} latents; ${s.seen.dead.toLocaleString("en")} are dead on these ${s.seen.tokens.toLocaleString("en")} tokens (${s.seen.split === "heldout" ? "held out" : "all of the data"}).`;
    body.replaceChildren(about);
    latentBrowser(s, tools, body, wanted);
  };
  choose.addEventListener("change", () => show());
  show(id === undefined ? undefined : Number(id));
}

// Where a link leads: to a section, or to a latent ("#res.3/4k/l0_32/17"). There is nothing to scroll to before.
const start = (() => { try { return decodeURIComponent(location.hash); } catch { return ""; } })();
theme();
heading();
evaluation();
training();
latents();
if (start) ($(start.slice(1)) || $("latents")).scrollIntoView({ behavior: "instant" });
