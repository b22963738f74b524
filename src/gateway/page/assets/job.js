// One job: where it is and why, its attempts, and what came of it.

import { get, objects, ofJob } from "./api.js";
import { ACTIONS, act } from "./actions.js";
import { attempts } from "./attempts.js";
import { byId, failure, h, nothing, say, swap } from "./dom.js";
import { ago, badge, clock, consumed, json, length, number } from "./format.js";
import { follow, oneAtATime } from "./live.js";
import { logPanel } from "./log.js";
import { guard, rightsIn } from "./rights.js";

// Of a job that runs more changes than its list shows: its progress, and when it is expected to end.
const EVERY = 5000;

/** Shows one job; returns what ends the screen. */
export function jobScreen(main, namespace, name) {
  let [job, explained, ended, inputsShown] = [null, null, false, false];
  const head = h("div", { class: "head", id: "job-head" });
  const body = h("div", { id: "job-body", "aria-busy": "true" });
  const log = logPanel(namespace, name);
  main.replaceChildren(h("p", { class: "path" }, h("a", { href: `#/jobs?namespace=${encodeURIComponent(namespace)}` }, namespace), " / "), head, body, log.panel);

  const read = oneAtATime(async () => {
    try {
      const [found, why] = await Promise.all([
        get(objects("crewjobs", namespace, name)),
        get(ofJob("explain", namespace, name)).catch((error) => ({ failed: error.message })),
      ]);
      if (ended) return;
      [job, explained] = [found, why];
      draw();
    } catch (error) {
      if (ended || error.status === 401) return;
      swap(head, h("h1", {}, name));
      swap(body, error.status === 404 ? nothing("There is no such job", "It may have been deleted when its time was over. ", h("a", { href: "#/jobs" }, "All jobs")) : failure(error, read));
      log.panel.hidden = true;
    }
  });

  function draw() {
    // What is being pressed stays under the pointer until it is let go.
    if (head.querySelector(":active") || body.querySelector(":active")) return void setTimeout(() => ended || draw(), 150);
    const [spec, status] = [job.spec ?? {}, job.status ?? {}];
    const phase = status.phase || "Pending";
    swap(head, h("h1", {}, name), badge(phase), actionButtons({ ...listed(), phase }));
    swap(
      body,
      h("p", { class: "lead" }, spec.topic ?? ""),
      h("div", { class: "panels" }, why(phase, status), facts(spec, status)),
      failed(status),
      attempts(status),
      outcome(status),
      inputs(spec),
      conditions(status.conditions ?? []),
    );
    body.removeAttribute("aria-busy");
    log.know(job);
    say(`${name} is ${phase}`);
  }

  const listed = () => ({
    namespace,
    name,
    priority: job.spec?.priority,
    suspended: Boolean(job.spec?.suspend),
    cancelling: Boolean(job.spec?.cancel),
  });

  function actionButtons(row) {
    const useful = Object.entries(ACTIONS).filter(([, what]) => what.fits(row));
    const buttons = useful.map(([action, what]) =>
      h("button", { type: "button", id: `act-${action}`, class: what.danger ? "danger" : "", onclick: () => act(action, { jobs: [row] }, row.priority).then((done) => done && read()) }, what.label),
    );
    const again = h("a", { class: "button", href: `#/submit?from=${encodeURIComponent(namespace)}/${encodeURIComponent(name)}`, id: "copy" }, "Copy…");
    const refusals = h("p", { class: "muted refusals", id: "refusals", hidden: true });
    rightsIn(namespace)
      .then((rights) => {
        useful.forEach(([, what], index) => guard(buttons[index], rights[what.right]));
        refusals.textContent = [...new Set(useful.map(([, what]) => rights[what.right].reason))].filter(Boolean).join(" ");
        refusals.hidden = !refusals.textContent;
      })
      .catch(() => {});
    return [h("div", { class: "buttons", role: "group", "aria-label": "Actions" }, buttons, again), refusals];
  }

  function why(phase, status) {
    const found = explained ?? {};
    const rows = [];
    if (found.reason) rows.push(["Reason", found.reason]);
    if (found.message) rows.push(["Why", h("span", { class: found.blocked ? "blocked" : null }, found.blocked ? "Blocked: " : "", found.message)]);
    if (found.position) rows.push(["Position", place(found.position)]);
    if (found.expected) rows.push(["Expected", expected(found.expected, phase)]);
    if (found.remedy) rows.push(["To do", found.remedy]);
    if (found.failed) rows.push(["", `What holds it up could not be read: ${found.failed}`]);
    return h("section", { class: "panel", "aria-labelledby": "why-title" }, h("h2", { id: "why-title" }, "Where it stands"), progress(phase, status), definitions(rows));
  }

  function inputs(spec) {
    const shown = ["inputs", "args", "kwargs"].filter((field) => spec[field] !== undefined);
    if (!shown.length) return null;
    const texts = h("div");
    const toggle = (event) => {
      inputsShown = event.target.open;
      // They are not in the page before they are asked for.
      texts.replaceChildren(...(inputsShown ? shown.flatMap(values) : []));
    };
    const values = (field) => [...(field === "inputs" ? [] : [h("h3", {}, field)]), h("pre", { tabindex: 0 }, json(spec[field]))];
    return h("details", { class: "panel", id: "inputs", open: inputsShown, ontoggle: toggle }, h("summary", { id: "inputs-summary" }, "Inputs"), texts);
  }

  const unfollow = follow(`api/jobs/events?namespace=${encodeURIComponent(namespace)}&name=${encodeURIComponent(name)}`, read, () => {});
  const timer = setInterval(() => !document.hidden && ["Running", "Queued", "Retrying"].includes(job?.status?.phase) && read(), EVERY);
  read();
  return {
    end: () => ((ended = true), clearInterval(timer), unfollow(), log.end()),
    escape: () => (location.hash = byId("main").dataset.list || "#/jobs"),
  };
}

function definitions(rows) {
  return h("dl", {}, rows.filter(([, value]) => value !== null && value !== undefined && value !== "").map(([name, value]) => [h("dt", {}, name), h("dd", {}, value)]));
}

function progress(phase, status) {
  const { percent, message } = status.progress ?? {};
  if (phase !== "Running" || (percent === undefined && !message)) return null;
  const bar = percent === undefined ? null : [h("progress", { max: 100, value: percent, "aria-label": "Progress" }), h("strong", {}, `${percent} %`)];
  return h("p", { class: "progress", id: "progress" }, bar, h("span", {}, message ?? ""));
}

function place({ queue, band, ahead, foreign, depth }) {
  const others = foreign ? `, ${foreign} of them of other producers` : "";
  return `${ahead + 1} of ${depth} in queue ${queue}, band ${band}: ${ahead} ahead${others}`;
}

function expected({ startsAt, endsAt, takesSeconds }, phase) {
  const begins = phase === "Running" ? null : ["begins ", ago(startsAt), ", "];
  return h("span", {}, begins, "ends ", ago(endsAt), `; a run takes ${length(takesSeconds * 1000)} on the average`);
}

function facts(spec, status) {
  const worker = status.worker ?? {};
  const rows = [
    ["Pool", spec.poolRef?.name],
    ["Queue", status.queue ?? spec.queue],
    ["Priority", spec.priority === undefined ? null : String(spec.priority)],
    ["Attempts", String(status.attempts ?? 0)],
    ["Task", spec.task],
    ["Task ID", status.taskID && h("code", {}, status.taskID)],
    ["Worker", worker.name],
    ["Queued", status.queuedAt && ago(status.queuedAt)],
    ["Began", status.startedAt && ago(status.startedAt)],
    ["Ended", status.finishedAt && ago(status.finishedAt)],
    ["Next attempt", status.phase === "Retrying" && status.nextRetryAt ? ago(status.nextRetryAt) : null],
    ["Consumed", consumed(status.usage)],
    ["State", state(status.state)],
    ["Run once", spec.runOnce],
    ["Deleted after", status.expiryBucket && `${status.expiryBucket.replace("T", " ")} h UTC`],
    ["Trace", status.traceID && h("code", {}, status.traceID)],
  ];
  return h("section", { class: "panel", "aria-labelledby": "facts-title" }, h("h2", { id: "facts-title" }, "Details"), definitions(rows));
}

// What one attempt leaves to the next one.
function state(said) {
  if (!said) return null;
  const saved = said.savedAt ? [`${number(said.sizeBytes)} bytes, saved `, ago(said.savedAt, { bare: true })] : null;
  return [saved, said.problem ? h("div", { class: "blocked" }, said.problem) : null].filter(Boolean);
}

function failed(status) {
  const error = status.error;
  if (!error || status.phase === "Succeeded") return null;
  return h(
    "section",
    { class: "panel error", "aria-labelledby": "error-title" },
    h("h2", { id: "error-title" }, "Error of the last run"),
    h("p", {}, h("strong", {}, error.type ?? ""), error.message ? `: ${error.message}` : ""),
    error.traceback ? h("pre", { tabindex: 0 }, error.traceback) : null,
  );
}

function outcome(status) {
  const result = status.result;
  if (!result) return null;
  let shown = null;
  if (result.value !== undefined) shown = h("pre", { tabindex: 0 }, typeof result.value === "string" ? result.value : json(result.value));
  else if (result.text !== undefined) shown = h("pre", { tabindex: 0 }, result.text);
  else if (result.configMapName) shown = h("p", {}, "It is in the ConfigMap ", h("code", {}, result.configMapName), ", under ", h("code", {}, "result.json"), ".");
  else if (result.redisKey) shown = h("p", {}, "It is on the pool's Redis, under ", h("code", {}, result.redisKey), result.redisExpiresAt ? [", until ", clock(result.redisExpiresAt)] : "", ".");
  const size = result.sizeBytes === undefined ? null : h("p", { class: "muted" }, `${result.sizeBytes.toLocaleString("en")} bytes`);
  return h("section", { class: "panel", "aria-labelledby": "result-title" }, h("h2", { id: "result-title" }, "Result"), shown, size);
}

function conditions(list) {
  if (!list.length) return null;
  const rows = list.map((it) =>
    h("tr", {}, h("th", { scope: "row" }, it.type), h("td", {}, it.status), h("td", {}, it.reason), h("td", { class: "wide" }, it.message ?? ""), h("td", {}, ago(it.lastTransitionTime))),
  );
  return h(
    "section",
    { class: "panel", "aria-labelledby": "conditions-title" },
    h("h2", { id: "conditions-title" }, "Conditions"),
    h(
      "div",
      { class: "scroll", tabindex: 0, role: "region", "aria-labelledby": "conditions-title" },
      h("table", { class: "plain" }, h("caption", { class: "unseen" }, "Conditions"), h("thead", {}, h("tr", {}, ["Type", "Status", "Reason", "Message", "Since"].map((title) => h("th", { scope: "col" }, title)))), h("tbody", {}, rows)),
    ),
  );
}
