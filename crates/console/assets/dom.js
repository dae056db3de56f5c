// Small helpers: text and elements, never HTML from data.

const SVG = "http://www.w3.org/2000/svg";

export const $ = (id) => document.getElementById(id);

export function text(id, value) {
  const node = $(id);
  if (node.textContent !== value) node.textContent = value;
}

function fill(node, attributes, children) {
  for (const [name, value] of Object.entries(attributes ?? {})) {
    if (value === undefined || value === null || value === false) continue;
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else node.setAttribute(name, value === true ? "" : value);
  }
  for (const child of children.flat()) {
    if (child !== undefined && child !== null && child !== false) node.append(child);
  }
  return node;
}

export const element = (name, attributes, ...children) => fill(document.createElement(name), attributes, children);
export const shape = (name, attributes, ...children) => fill(document.createElementNS(SVG, name), attributes, children);

const whole = new Intl.NumberFormat("en", { maximumFractionDigits: 0 });
const tenths = new Intl.NumberFormat("en", { minimumFractionDigits: 1, maximumFractionDigits: 1 });

export const count = (value) => whole.format(value);
export const rate = (value) => (value === 0 ? "0" : value < 100 ? tenths.format(value) : whole.format(value));

// A decimal is text and stays exact: only the separators of thousands are added.
export function money(value) {
  const [before, after = ""] = String(value).split(".");
  const grouped = before.replace(/\B(?=(\d{3})+(?!\d))/g, ",");
  return `${grouped}.${after.padEnd(2, "0")}`;
}

export function span(ms) {
  if (ms < 1000) return `${Math.round(ms)} ms`;
  if (ms < 60000) return `${tenths.format(ms / 1000)} s`;
  if (ms < 3600000) return `${Math.floor(ms / 60000)} min`;
  return `${Math.floor(ms / 3600000)} h`;
}

export const clock = (ms) => new Date(ms).toISOString().slice(11, 23);
export const minute = (ms) => new Date(ms).toISOString().slice(0, 16).replace("T", " ");
export const short = (id) => id.slice(0, 8);

// A rejected promise is a server that does not answer, or an error that it explains.
export async function fetchJson(path, options) {
  const response = await fetch(path, options);
  const body = await response.json();
  if (!response.ok) throw new Error(body.error ?? `status ${response.status}`);
  return body;
}

export function closable(dialog) {
  dialog.querySelector(".close").addEventListener("click", () => dialog.close());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close();
  });
}
