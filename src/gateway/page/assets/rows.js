// Jobs as the rows of a table. On a narrow screen each row is a card.

import { h } from "./dom.js";
import { ago, badge, length } from "./format.js";

export const keyOf = (job) => `${job.namespace}/${job.name}`;
export const jobAddress = ({ namespace, name }) => `#/job/${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`;

const COLUMNS = [
  ["phase", "Phase"],
  ["name", "Job"],
  ["pool", "Pool"],
  [null, "Reason"],
  ["priority", "Priority"],
  ["attempts", "Attempts"],
  ["created", "Age"],
  ["started", "Runs"],
];

/** The table. `tools` are `{marked, mark, markPage, sort}`. */
export function jobTable(jobs, params, tools) {
  const sorted = params.get("sort") ?? "-created";
  const all = jobs.every((job) => tools.marked.has(keyOf(job)));
  const some = jobs.some((job) => tools.marked.has(keyOf(job)));
  const whole = h("input", {
    type: "checkbox",
    id: "mark-page",
    "aria-label": "Mark all jobs of this page",
    checked: all,
    indeterminate: some && !all,
    onchange: (event) => tools.markPage(event.target.checked),
  });
  const heads = COLUMNS.map(([word, title]) => (word ? sortHead(word, title, sorted, tools.sort) : h("th", { scope: "col" }, title)));
  return h(
    "table",
    { class: "jobs" },
    h("caption", { class: "unseen" }, "Jobs"),
    h("thead", {}, h("tr", {}, h("th", { scope: "col", class: "mark" }, whole), heads)),
    h("tbody", {}, jobs.map((job) => row(job, tools))),
  );
}

function sortHead(word, title, sorted, sort) {
  const [isIt, descends] = [sorted.replace("-", "") === word, sorted.startsWith("-")];
  const arrow = isIt ? (descends ? " ↓" : " ↑") : "";
  return h(
    "th",
    { scope: "col", class: `of-${word}`, "aria-sort": isIt ? (descends ? "descending" : "ascending") : null },
    h("button", { type: "button", class: "sorts", id: `sort-${word}`, onclick: () => sort(word) }, title, h("span", { "aria-hidden": "true" }, arrow)),
  );
}

function row(job, tools) {
  const key = keyOf(job);
  const box = h("input", {
    type: "checkbox",
    id: `mark-${key}`,
    "aria-label": `Mark ${job.name}`,
    checked: tools.marked.has(key),
    onchange: (event) => tools.mark(job, event.target.checked),
  });
  const link = h("a", { href: jobAddress(job), id: `job-${key}`, class: "whole" }, job.name);
  return h(
    "tr",
    { "data-job": key, class: tools.marked.has(key) ? "marked" : null },
    h("td", { class: "mark" }, box),
    h("td", { class: "of-phase" }, badge(job.phase), stops(job)),
    h("th", { scope: "row", class: "of-name" }, link, h("span", { class: "topic" }, job.topic)),
    h("td", { class: "of-pool" }, h("span", {}, job.pool), h("span", { class: "sub" }, job.namespace)),
    h("td", { class: "of-reason" }, why(job)),
    h("td", { class: "of-priority number" }, String(job.priority)),
    h("td", { class: "of-attempts number" }, String(job.attempts)),
    h("td", { class: "of-created number" }, ago(job.created, { bare: true })),
    h("td", { class: "of-started number" }, runs(job)),
  );
}

function stops(job) {
  const is = ["Succeeded", "Failed", "Cancelled"].includes(job.phase);
  const word = is ? null : job.cancelling ? "cancelling" : job.suspended && job.phase !== "Running" ? "suspended" : null;
  return word && h("span", { class: "sub" }, word);
}

function why(job) {
  if (job.phase === "Running" && job.percent !== undefined) {
    return [h("progress", { max: 100, value: job.percent, "aria-label": `Progress of ${job.name}` }), h("span", { class: "sub" }, `${job.percent} %`)];
  }
  const error = job.error && job.phase !== "Succeeded" ? h("span", { class: "sub" }, job.error, job.errorMessage ? `: ${job.errorMessage}` : "") : null;
  const reason = job.reason && job.reason !== job.phase ? job.reason : null;
  return [h("span", { class: reason || error ? null : "none" }, reason ?? (error ? "" : "–")), error];
}

function runs(job) {
  if (!job.started) return "–";
  if (job.phase === "Running") return ago(job.started, { bare: true });
  return job.finished ? length(new Date(job.finished) - new Date(job.started)) : "–";
}
