"use strict";
// Elements, numbers and charts. Text enters the page as text, never as markup.

const $ = (id) => document.getElementById(id);
function el(tag, attributes = {}, ...children) {
  const e = document.createElement(tag);
  for (const [k, v] of Object.entries(attributes)) {
    if (k === "class") e.className = v;
    else if (k.startsWith("on")) e.addEventListener(k.slice(2), v);
    else if (v !== null && v !== undefined && v !== false) e.setAttribute(k, v === true ? "" : v);
  }
  e.append(...children.filter((c) => c !== null && c !== undefined));
  return e;
}
function svg(tag, attributes = {}, ...children) {
  const e = document.createElementNS("http://www.w3.org/2000/svg", tag);
  for (const [k, v] of Object.entries(attributes)) e.setAttribute(k, v);
  e.append(...children);
  return e;
}
// To so many significant digits, without an exponent where it can be helped.
function short(x, digits = 3) {
  if (x === null || x === undefined || !Number.isFinite(x)) return "–";
  if (x === 0) return "0";
  const a = Math.abs(x);
  if (a >= 1e9) return short(x / 1e9, digits) + "G";
  if (a >= 1e6) return short(x / 1e6, digits) + "M";
  if (a >= 1e4) return short(x / 1e3, digits) + "k";
  if (a < 1e-4) return x.toExponential(digits - 1).replace("e-", "e−").replace(/^-/, "−");
  const t = a >= 100 ? x.toFixed(digits > 3 ? 1 : 0) : String(Number(x.toPrecision(digits)));
  return t.replace("-", "−");
}
const percent = (x) => (x * 100 >= 10 ? (x * 100).toFixed(1) : short(x * 100, 2)) + " %";

function tip(target, text) {
  target.dataset.tip = text;
  return target;
}
function showTip(e) {
  const t = e.target.closest && e.target.closest("[data-tip]");
  const box = $("tip");
  if (!t) { box.hidden = true; return; }
  box.textContent = t.dataset.tip;
  box.hidden = false;
  const r = t.getBoundingClientRect(), x = e.clientX || r.left + r.width / 2;
  const w = box.offsetWidth, h = box.offsetHeight;
  box.style.left = Math.max(6, Math.min(innerWidth - w - 6, x - w / 2)) + "px";
  box.style.top = (r.top - h - 7 < 4 ? Math.min(innerHeight - h - 4, r.bottom + 7) : r.top - h - 7) + "px";
}
document.addEventListener("mouseover", showTip);
document.addEventListener("focusin", showTip);
document.addEventListener("scroll", () => { $("tip").hidden = true; }, { passive: true });

// Round numbers from low to high, about n of them.
function ticks(low, high, n) {
  if (!(high > low)) return [low];
  const raw = (high - low) / n, unit = 10 ** Math.floor(Math.log10(raw));
  const step = [1, 2, 2.5, 5, 10].find((m) => m * unit >= raw) * unit, out = [];
  for (let v = Math.ceil(low / step - 1e-9) * step; v <= high + step * 1e-9; v += step) out.push(Math.abs(v) < step / 1e6 ? 0 : v);
  return out;
}
function logTicks(low, high) {
  const first = Math.floor(Math.log10(low)), last = Math.ceil(Math.log10(high)), out = [];
  const within = last - first <= 1 ? [1, 2, 3, 5] : last - first <= 3 ? [1, 3] : [1];
  for (let e = first; e <= last; ++e) for (const m of within) if (m * 10 ** e >= low * 0.999 && m * 10 ** e <= high * 1.001) out.push(m * 10 ** e);
  return out.length > 8 ? out.filter((_, i) => i % Math.ceil(out.length / 8) === 0) : out;
}
function scaleOf(low, high, from, to, log) {
  const f = log ? Math.log : (v) => v, a = f(low), b = f(high);
  return (v) => from + ((f(v) - a) / (b - a || 1)) * (to - from);
}
const W = 400, H = 216, L = 48, R = 12, T = 10, B = 30;

function frame(x, y, labelX) {
  const g = svg("svg", { viewBox: `0 0 ${W} ${H}`, role: "img" });
  for (const v of y.ticks) {
    g.append(svg("line", { class: "grid", x1: L, x2: W - R, y1: y.at(v), y2: y.at(v) }));
    const t = svg("text", { x: L - 7, y: y.at(v) + 4, "text-anchor": "end" });
    t.textContent = short(v);
    g.append(t);
  }
  g.append(svg("line", { class: "axis", x1: L, x2: W - R, y1: H - B, y2: H - B }));
  for (const v of x.ticks) {
    const t = svg("text", { x: x.at(v), y: H - B + 16, "text-anchor": "middle" });
    t.textContent = x.label ? x.label(v) : short(v);
    g.append(t);
  }
  if (labelX) {
    const t = svg("text", { x: W - R, y: H - 1, "text-anchor": "end" });
    t.textContent = labelX;
    g.append(t);
  }
  return g;
}
function chartCard(title, detail, figure) {
  return el("figure", { class: "card chart", style: "margin:0" },
            el("h3", {}, title + " ", el("span", {}, detail || "")), figure);
}
// A little room, so that lines do not run along the frame.
function bounds(values, log, zero) {
  let low = Infinity, high = -Infinity;
  for (const v of values) if (Number.isFinite(v) && (!log || v > 0)) { low = Math.min(low, v); high = Math.max(high, v); }
  if (!(high >= low)) return null;
  if (log) return low === high ? [low / 2, high * 2] : [low / 1.08, high * 1.08];
  if (zero) low = Math.min(0, low);
  const room = (high - low || Math.abs(high) || 1) * 0.05;
  return [low - (zero && low === 0 ? 0 : room), high + room];
}

// series: [{name, color, x: [...], y: [...], target}]
function lineChart(title, detail, series, options) {
  const log = options.log, all = series.flatMap((s) => (s.target > 0 ? [...s.y, s.target] : s.y));
  const by = bounds(all, log, options.zero), bx = bounds(series.flatMap((s) => s.x), false, true);
  if (!by || !bx) return chartCard(title, detail, el("p", { class: "muted" }, "nothing to draw"));
  const x = { at: scaleOf(bx[0], bx[1], L, W - R), ticks: ticks(bx[0], bx[1], 4) };
  const y = { at: scaleOf(by[0], by[1], H - B, T, log), ticks: log ? logTicks(by[0], by[1]) : ticks(by[0], by[1], 4) };
  const g = frame(x, y);
  g.setAttribute("aria-label", title);
  for (const target of new Set(series.map((s) => s.target).filter((t) => t > 0)))
    g.append(svg("line", { class: "target", x1: L, x2: W - R, y1: y.at(target), y2: y.at(target) }));
  for (const s of series) {
    let d = "", pen = false;
    s.x.forEach((v, i) => {
      const ok = Number.isFinite(s.y[i]) && s.y[i] !== null && (!log || s.y[i] > 0);
      if (ok) d += (pen ? "L" : "M") + x.at(v).toFixed(1) + " " + y.at(s.y[i]).toFixed(1);
      pen = ok;
    });
    g.append(svg("path", { class: "line", d, stroke: s.color }));
  }
  const cursor = svg("line", { class: "target", y1: T, y2: H - B, visibility: "hidden" });
  g.append(cursor);
  const box = $("tip");
  g.addEventListener("mousemove", (e) => {
    const r = g.getBoundingClientRect(), at = ((e.clientX - r.left) / r.width) * W;
    const lines = [];
    let px = 0;
    for (const s of series.slice(0, 8)) {
      let best = 0;
      s.x.forEach((v, i) => { if (Math.abs(x.at(v) - at) < Math.abs(x.at(s.x[best]) - at)) best = i; });
      px = x.at(s.x[best]);
      if (!lines.length) lines.push(short(s.x[best], 4) + " tokens");
      lines.push((series.length > 1 ? s.name + ": " : title + ": ") + short(s.y[best], 4));
    }
    cursor.setAttribute("x1", px);
    cursor.setAttribute("x2", px);
    cursor.setAttribute("visibility", "visible");
    box.textContent = lines.join("\n");
    box.hidden = false;
    box.style.left = Math.max(6, Math.min(innerWidth - box.offsetWidth - 6, e.clientX + 14)) + "px";
    box.style.top = Math.max(6, e.clientY - box.offsetHeight - 10) + "px";
    e.stopPropagation();
  });
  g.addEventListener("mouseleave", () => { cursor.setAttribute("visibility", "hidden"); box.hidden = true; });
  return chartCard(title, detail, g);
}

// points: [{group, color, x, y, tip}], those of a group joined by their x; x <= 0 has no place
function scatterChart(title, detail, all, labelX) {
  const points = all.filter((p) => p.x > 0);
  const bx = bounds(points.map((p) => p.x), true), by = bounds(points.map((p) => p.y), false, true);
  if (!bx || !by) return chartCard(title, detail, el("p", { class: "muted" }, "nothing to draw"));
  const x = { at: scaleOf(bx[0], bx[1], L + 8, W - R - 8, true), ticks: logTicks(bx[0], bx[1]) };
  const y = { at: scaleOf(by[0], by[1], H - B, T), ticks: ticks(by[0], by[1], 4) };
  const g = frame(x, y, labelX);
  g.setAttribute("aria-label", title);
  for (const group of new Set(points.map((p) => p.group))) {
    const own = points.filter((p) => p.group === group).sort((a, b) => a.x - b.x);
    const d = own.map((p, i) => (i ? "L" : "M") + x.at(p.x).toFixed(1) + " " + y.at(p.y).toFixed(1)).join("");
    g.append(svg("path", { class: "line", d, stroke: own[0].color, "stroke-opacity": 0.35 }));
  }
  for (const p of points)
    g.append(tip(svg("circle", { class: "dot", cx: x.at(p.x), cy: y.at(p.y), r: 4.5, fill: p.color, tabindex: 0, "aria-label": p.tip }), p.tip));
  return chartCard(title, detail, g);
}

// bins: [{low, high, count}]; heights by the logarithm of the count where `log`
function histogram(bins, label, log, size) {
  const [w, h] = size, left = 4, right = 4, bottom = 20, top = 6;
  const g = svg("svg", { viewBox: `0 0 ${w} ${h}`, role: "img", "aria-label": label.title });
  const height = log ? (n) => Math.log1p(n) : (n) => n, most = Math.max(1e-9, ...bins.map((b) => height(b.count)));
  const step = (w - left - right) / bins.length;
  bins.forEach((b, i) => {
    if (b.count === 0) return;
    const bar = Math.max(1, (height(b.count) / most) * (h - top - bottom));
    g.append(tip(svg("rect", { class: "bar", x: left + i * step + 0.5, width: Math.max(0.5, step - 1), y: h - bottom - bar, height: bar, rx: 1 }), label.tip(b)));
  });
  g.append(svg("line", { class: "axis", x1: left, x2: w - right, y1: h - bottom, y2: h - bottom }));
  label.ticks.forEach(([at, text]) => {
    const x = left + at * (w - left - right);
    const t = svg("text", { x, y: h - 5, "text-anchor": at === 0 ? "start" : at === 1 ? "end" : "middle" });
    t.textContent = text;
    g.append(t);
  });
  return g;
}
