// Numbers, times and phases as they are read.

import { h, svg } from "./dom.js";

export const PHASES = ["Pending", "Queued", "Running", "Retrying", "Succeeded", "Failed", "Cancelled"];
export const OVER = ["Succeeded", "Failed", "Cancelled"];

/** A number with separators. */
export const number = (value) => Number(value ?? 0).toLocaleString("en");

/** `1 job`, `2 jobs`. */
export const count = (value, noun) => `${number(value)} ${noun}${value === 1 ? "" : "s"}`;

/** What was consumed of models, as far as programs report it. */
export function consumed(usage) {
  if (!usage) return null;
  const tokens = (usage.inputTokens ?? 0) + (usage.outputTokens ?? 0);
  const parts = [usage.requests && count(usage.requests, "request"), tokens && count(tokens, "token"), usage.costUSD && `${usage.costUSD} USD`];
  return parts.filter(Boolean).join(", ");
}

/** A length of time in at most two units. */
export function length(milliseconds) {
  const seconds = Math.max(0, Math.round(milliseconds / 1000));
  const two = (more, unit, less, lesser) => (less ? `${more}${unit} ${less}${lesser}` : `${more}${unit}`);
  if (seconds < 120) return `${seconds}s`;
  if (seconds < 7200) return two(Math.floor(seconds / 60), "m", seconds < 600 ? seconds % 60 : 0, "s");
  if (seconds < 172800) return two(Math.floor(seconds / 3600), "h", seconds < 28800 ? Math.floor((seconds % 3600) / 60) : 0, "m");
  return two(Math.floor(seconds / 86400), "d", seconds < 691200 ? Math.floor((seconds % 86400) / 3600) : 0, "h");
}

function relative(at, now) {
  const away = at.getTime() - now;
  return away > 0 ? `in ${length(away)}` : `${length(-away)} ago`;
}

/** A time as how long ago it is, or how far ahead; the whole of it when pointed at. */
export function ago(text, { bare = false } = {}) {
  if (!text) return "–";
  const at = new Date(text);
  const shown = bare ? length(Date.now() - at.getTime()) : relative(at, Date.now());
  return h("time", { datetime: text, title: at.toLocaleString(), "data-as": bare ? "age" : "relative" }, shown);
}

/** The hour and minute of a time, with its date unless that is today. */
export function clock(text) {
  if (!text) return "–";
  const at = new Date(text);
  const today = at.toDateString() === new Date().toDateString();
  const options = today ? { timeStyle: "medium" } : { dateStyle: "medium", timeStyle: "short" };
  return h("time", { datetime: text, title: at.toLocaleString() }, at.toLocaleString("en-GB", options));
}

/** Brings the times of the page up to date. */
export function tick() {
  const now = Date.now();
  for (const time of document.querySelectorAll("time[data-as]")) {
    const at = new Date(time.dateTime);
    const text = time.dataset.as === "age" ? length(now - at.getTime()) : relative(at, now);
    if (time.textContent !== text) time.textContent = text;
  }
}

// Each phase has a shape of its own, so that no two differ by colour only.
const SHAPES = {
  Pending: () => [svg("circle", { cx: 8, cy: 8, r: 5, class: "line", "stroke-dasharray": "2.6 2.6" })],
  Queued: () => [svg("path", { d: "M3 4.5h10M3 8h10M3 11.5h10", class: "line" })],
  Running: () => [svg("path", { d: "M5 3.2v9.6L13 8z", class: "solid" })],
  Retrying: () => [svg("path", { d: "M12.6 8a4.6 4.6 0 1 1-1.5-3.4", class: "line" }), svg("path", { d: "M11.9 1.8v3.6H8.3z", class: "solid" })],
  Succeeded: () => [svg("path", { d: "M3 8.5l3.4 3.4L13 4.8", class: "line" })],
  Failed: () => [svg("path", { d: "M4 4l8 8M12 4l-8 8", class: "line" })],
  Cancelled: () => [svg("circle", { cx: 8, cy: 8, r: 5.2, class: "line" }), svg("path", { d: "M4.4 11.6l7.2-7.2", class: "line" })],
  yes: () => [svg("circle", { cx: 8, cy: 8, r: 6, class: "solid" })],
  no: () => [svg("path", { d: "M8 2l6.5 12h-13z", class: "line" }), svg("path", { d: "M8 6.5v3.5M8 11.6v.6", class: "line" })],
  rests: () => [svg("path", { d: "M5.5 3.5v9M10.5 3.5v9", class: "line" })],
};

/** A word with its shape. */
export function badge(kind, text = kind) {
  const shape = SHAPES[kind] ?? SHAPES.Pending;
  return h("span", { class: "badge", "data-kind": kind }, svg("svg", { viewBox: "0 0 16 16", "aria-hidden": "true" }, ...shape()), text);
}

/** A value as JSON for people. */
export function json(value) {
  return JSON.stringify(value, null, 2);
}
