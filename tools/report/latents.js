// The latents: a list that can be searched, and the dashboard of the one that is open. Only that one is in the page.

function tokenText(id) { return DATA.tokens[id]; }
// For one line: line ends and tabs as marks, and the spaces around it kept.
function inline(text) { return text.replace(/\n/g, "⏎").replace(/\t/g, "⇥"); }

function tokens(example, max) {
  const [, , position, begin, ids, active] = example, values = new Map(), p = el("p");
  for (let i = 0; i < active.length; i += 2) values.set(active[i], active[i + 1]);
  let plain = "";
  const flush = () => { if (plain) p.append(plain); plain = ""; };
  ids.forEach((id, i) => {
    const text = tokenText(id), value = values.get(i) || 0, peak = i === position - begin;
    const shown = text.replace(/\n/g, "⏎").replace(/\t/g, "⇥");
    if (!value && !peak) { plain += shown; return; }
    flush();
    const t = el("span", { class: peak ? "t peak" : "t" }, shown);
    t.style.setProperty("--p", Math.round(8 + 77 * Math.min(1, value / (max || 1))) + "%");
    p.append(tip(t, `${JSON.stringify(text)}  ${short(peak ? example[0] : value, 4)}`));
  });
  flush();
  return p;
}
function example(e, max) {
  return el("div", { class: "ex" }, tip(el("div", { class: "val" }, short(e[0])), `context ${e[1]}, token ${e[2]}`), tokens(e, max));
}

function effects(title, list, kind) {
  return el("div", { class: kind }, el("h4", {}, title), el("div", { class: "effects" },
            ...list.map(([id, logit]) => el("div", {}, el("span", { class: "tok mono" }, inline(tokenText(id))),
                                            el("span", { class: "num" }, (logit > 0 ? "+" : "") + short(logit))))));
}
function activations(l) {
  const n = l.histogram.length, width = l.scale / n;
  const last = l.histogram.reduce((a, c, i) => (c ? i : a), 0) + 1, bins = l.histogram.slice(0, last);
  return el("div", { class: "hist" }, el("h4", {}, "Activations, their number on a log scale"),
            histogram(bins.map((count, i) => ({ low: i * width, high: (i + 1) * width, count })), {
              title: "histogram of activations",
              tip: (b) => `${short(b.low)} to ${short(b.high)}: ${b.count}`,
              ticks: [[0, "0"], [0.5, short((last * width) / 2)], [1, short(last * width)]],
            }, true, [340, 150]));
}
function neighbours(l, open, known) {
  if (!l.near.length) return null;
  return el("div", { class: "near" }, el("h4", {}, "Nearest by decoder cosine"), ...l.near.map(([id, cosine]) =>
    known.has(id) ? el("button", { type: "button", onclick: () => open(id, true) }, `${id} · ${short(cosine, 2)}`)
                  : tip(el("span", {}, `${id} · ${short(cosine, 2)}`), "not among the latents of this page")));
}
function dashboard(l, sae, open, known) {
  const density = sae.seen.tokens ? l.count / sae.seen.tokens : 0;
  const stat = (name, value) => el("span", {}, name + " ", el("b", {}, value));
  const head = el("div", { class: "dash-head" }, el("h3", { tabindex: -1 }, `Latent ${l.id}`), el("div", { class: "stats" },
    stat("density", percent(density)), stat("active on", `${l.count.toLocaleString("en")} tokens`),
    stat("max", short(l.max)), stat("mean", short(l.mean))));
  const facts = el("div", { class: "facts" });
  if (l.raises.length) facts.append(effects("Raises", l.raises, "raise"), effects("Lowers", l.lowers, "lower"));
  facts.append(l.count ? activations(l) : "", neighbours(l, open, known) || "");
  if (!l.count) return el("div", { class: "card dash" }, head, el("p", { class: "muted" }, `Dead: it is active on none of ${sae.seen.tokens.toLocaleString("en")} tokens.`), facts);
  const out = el("div", { class: "card dash" }, head, facts,
                 el("div", { class: "group" }, el("h4", {}, "Largest activations, one of a context"), ...l.top.map((e) => example(e, l.max))));
  for (const band of l.bands) {
    const share = band.count / l.count, bar = el("span", { class: "bar-of" });
    bar.style.width = Math.max(2, share * 120) + "px";
    out.append(el("div", { class: "group" }, el("h4", {}, `${short(band.low)} to ${short(band.high)}: ${percent(share)} of its activations`, bar),
                  ...band.examples.map((e) => example(e, l.max))));
  }
  return out;
}

// What a latent can be found by: its number, the tokens it raises, those where it peaks.
function searchText(l) {
  const peaks = l.top.map((e) => tokenText(e[4][e[2] - e[3]]));
  return { peaks, all: (peaks.join("\n") + "\n" + l.raises.map(([id]) => tokenText(id)).join("\n")).toLowerCase() };
}
function mostCommon(list) {
  const counts = new Map();
  for (const t of list) counts.set(t, (counts.get(t) || 0) + 1);
  return [...counts].sort((a, b) => b[1] - a[1]).map(([t]) => t);
}

// The commonest of some tokens, on a line.
function hint(texts) {
  return mostCommon(texts.map((t) => inline(t).trim() || "␣")).slice(0, 3).join(" · ") || "–";
}

function latentBrowser(sae, tools, body, wanted) {
  const known = new Map(sae.dashboards.map((l) => [l.id, l])), entries = sae.dashboards.map((l) => ({ l, ...searchText(l) }));
  const orders = {
    "as chosen": () => 0, "by number": (a, b) => a.l.id - b.l.id, "densest first": (a, b) => b.l.count - a.l.count,
    "rarest first": (a, b) => a.l.count - b.l.count, "largest first": (a, b) => b.l.max - a.l.max,
  };
  const search = el("input", { type: "search", placeholder: "Number or token text", "aria-label": "Search latents by number or token text" });
  const order = el("select", { "aria-label": "Order" }, ...Object.keys(orders).map((o) => el("option", {}, o)));
  tools.append(search, order);
  const list = el("div", { class: "card list", role: "group", "aria-label": "Latents" }), place = el("div", { class: "place" });
  body.append(el("div", { class: "browser" }, list, place));
  let current = null;

  function open(id, focus, first) {
    if (!known.has(id)) return;
    current = id;
    place.replaceChildren(dashboard(known.get(id), sae, open, known));
    for (const b of list.children) if (b.dataset.id) b.toggleAttribute("aria-current", false);
    const button = list.querySelector(`[data-id="${id}"]`);
    if (button) {
      button.setAttribute("aria-current", "true");
      const top = button.offsetTop - list.offsetTop;
      if (top < list.scrollTop || top > list.scrollTop + list.clientHeight - 50) list.scrollTop = top - 60;
    }
    if (!first) try { history.replaceState(null, "", `#${encodeURIComponent(sae.key)}/${id}`); } catch { /* not of a file, in some browsers */ }
    if (focus) place.querySelector("h3").focus({ preventScroll: false });
  }
  function fill() {
    const q = search.value.trim().toLowerCase(), raw = search.value.toLowerCase();
    const hits = entries.filter((e) => !q || String(e.l.id).startsWith(q) || e.all.includes(raw.length > q.length ? raw.replace(/\s+$/, "") : q));
    if (/^\d+$/.test(q)) hits.sort((a, b) => (String(b.l.id) === q) - (String(a.l.id) === q));
    else hits.sort(orders[order.value]);
    list.replaceChildren(...hits.map(({ l, peaks }) => el("button", { type: "button", "data-id": l.id, "aria-current": l.id === current ? "true" : null, onclick: () => open(l.id) },
      el("div", { class: "id" }, String(l.id), el("span", {}, l.count ? percent(l.count / sae.seen.tokens) : "dead")),
      el("div", { class: "hint mono" }, hint(peaks), l.raises.length ? ` → ${hint(l.raises.slice(0, 2).map(([t]) => tokenText(t)))}` : ""))));
    if (!hits.length) list.append(el("p", { class: "muted" }, "None of the latents of this page has that number or text."));
    return hits;
  }
  list.addEventListener("keydown", (e) => {
    const step = { ArrowDown: "nextElementSibling", ArrowUp: "previousElementSibling" }[e.key];
    const next = step && document.activeElement[step];
    if (!next) return;
    e.preventDefault();
    next.focus();
    next.click();
  });
  search.addEventListener("input", fill);
  search.addEventListener("keydown", (e) => { if (e.key === "Enter" && list.querySelector("button")) list.querySelector("button").click(); });
  order.addEventListener("change", fill);
  document.onkeydown = (e) => {
    if (e.key !== "/" || /^(INPUT|SELECT|TEXTAREA)$/.test(document.activeElement.tagName)) return;
    e.preventDefault();
    search.focus();
  };
  const hits = fill();
  if (wanted !== undefined && known.has(wanted)) open(wanted, false, true);
  else if (hits.length) open(hits[0].l.id, false, true);
}
