// The attempts of a job on one scale of time: how long each waited, and how long it ran.

import { h, svg } from "./dom.js";
import { badge, clock, consumed, length } from "./format.js";

const WIDTH = 1000;
const KINDS = { Succeeded: "Succeeded", Cancelled: "Cancelled" };

/** The attempts that have ended, and the one that goes on. */
export function attempts(status) {
  const list = [...(status.attemptHistory ?? [])];
  const last = list.at(-1);
  const isNew = status.queuedAt && !["Succeeded", "Failed", "Cancelled", "Retrying", "Pending"].includes(status.phase);
  if (isNew && last?.taskID !== status.taskID) {
    list.push({
      number: (last?.number ?? 0) + 1,
      outcome: status.phase,
      worker: status.worker?.name,
      enqueuedAt: status.queuedAt,
      startedAt: status.phase === "Running" ? status.startedAt : undefined,
      goesOn: true,
    });
  }
  if (!list.length) return null;
  const times = list.map(spans);
  const from = Math.min(...times.map((it) => it.queued));
  const to = Math.max(...times.map((it) => it.ended), from + 1000);
  const scale = (at) => Math.round(((at - from) / (to - from)) * WIDTH);
  return h(
    "section",
    { class: "panel", "aria-labelledby": "attempts-title" },
    h("h2", { id: "attempts-title" }, "Attempts"),
    h("ol", { class: "attempts" }, list.map((attempt, index) => line(attempt, times[index], scale))),
    h("p", { class: "muted legend" }, h("span", { class: "key waits" }, "waited"), h("span", { class: "key runs" }, "ran"), ` · ${length(to - from)} in all`),
  );
}

function spans({ enqueuedAt, startedAt, finishedAt, goesOn }) {
  const at = (text) => (text ? new Date(text).getTime() : null);
  const ended = goesOn ? Date.now() : (at(finishedAt) ?? at(startedAt) ?? at(enqueuedAt));
  const queued = at(enqueuedAt) ?? at(startedAt) ?? ended;
  return { queued, started: at(startedAt), ended };
}

function line(attempt, { queued, started, ended }, scale) {
  const kind = attempt.goesOn ? attempt.outcome : (KINDS[attempt.outcome] ?? "Failed");
  const waited = (started ?? ended) - queued;
  const ran = started === null ? null : ended - started;
  const bar = (className, begin, end) => svg("rect", { class: className, x: scale(begin), y: 0, width: Math.max(scale(end) - scale(begin), end > begin ? 4 : 0), height: 10, rx: 2 });
  const drawing = svg(
    "svg",
    { class: "bar", viewBox: `0 0 ${WIDTH} 10`, preserveAspectRatio: "none", "aria-hidden": "true" },
    bar("waits", queued, started ?? ended),
    started === null ? "" : bar(`runs ${kind}`, started, ended),
  );
  const said = [`waited ${length(waited)}`, ran === null ? null : `${attempt.goesOn ? "runs since" : "ran"} ${length(ran)}`].filter(Boolean).join(", ");
  const error = attempt.errorType ? `${attempt.errorType}${attempt.message ? `: ${attempt.message}` : ""}` : attempt.message;
  return h(
    "li",
    {},
    h("div", { class: "attempt" }, h("strong", {}, `Attempt ${attempt.number}`), badge(kind, attempt.outcome ?? "Ended"), h("span", { class: "muted" }, said), h("span", { class: "muted end" }, clock(attempt.startedAt ?? attempt.enqueuedAt))),
    drawing,
    attempt.worker ? h("div", { class: "sub" }, "on ", attempt.worker, attempt.resumed ? ", resumed" : "", attempt.usage ? `, ${consumed(attempt.usage)}` : "") : null,
    error ? h("div", { class: "sub" }, error) : null,
  );
}
