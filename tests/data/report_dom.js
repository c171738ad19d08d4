// As much of a document as the scripts of a report's page need: `node report_dom.js PAGE` runs them and prints, as
// JSON, the lines and dots of its Pareto plots, and the latents that can be opened, as text.
"use strict";
const fs = require("fs");
const html = fs.readFileSync(process.argv[2], "utf8");

class Element {
  constructor(tag) { Object.assign(this, { tag, attributes: {}, children: [], dataset: {}, listeners: {}, value: "" }); }
  style = { setProperty() {} };
  append(...more) { this.children.push(...more); }
  prepend(...more) { this.children.unshift(...more); }
  before() {}
  replaceChildren(...those) { this.children = those; }
  setAttribute(name, value) {
    this.attributes[name] = String(value);
    if (name.startsWith("data-")) this.dataset[name.slice(5)] = String(value);
  }
  toggleAttribute() {}
  addEventListener(event, call) { this.listeners[event] = call; }
  querySelector() { return null; }
  scrollIntoView() {}
  set textContent(text) { this.children = [text]; }
  get textContent() { return this.children.map((c) => (c instanceof Element ? c.textContent : c)).join(" "); }
  all(tag) { return this.children.flatMap((c) => (c instanceof Element ? [...(c.tag === tag ? [c] : []), ...c.all(tag)] : [])); }
}
const ids = new Map();
globalThis.document = {
  documentElement: new Element("html"),
  getElementById: (id) => ids.get(id) || (ids.set(id, new Element(id)), ids.get(id)),
  createElement: (tag) => new Element(tag),
  createElementNS: (_, tag) => new Element(tag),
  addEventListener() {},
};
globalThis.location = { hash: process.argv[3] || "" };
globalThis.history = { replaceState() {} };
globalThis.matchMedia = () => ({ matches: false });
const inside = (begin) => { const from = html.indexOf(begin) + begin.length; return html.slice(from, html.indexOf("</script>", from)); };
document.getElementById("data").textContent = inside('<script type="application/json" id="data">');
(0, eval)(inside("<script>"));

const plots = document.getElementById("evaluation-body").all("figure").filter((f) => f.textContent.includes("against L0"));
const shown = document.getElementById("latents-body");
console.log(JSON.stringify({
  plots: plots.map((f) => ({ lines: f.all("path").map((p) => p.attributes.d), dots: f.all("circle").length })),
  opened: shown.textContent,
}));
