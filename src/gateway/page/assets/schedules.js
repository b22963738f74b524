// The schedules: when they make jobs next, and for which times none was made.

import { get, objects, patch } from "./api.js";
import { failure, h, nothing, note, say, swap } from "./dom.js";
import { ago, badge, count, number } from "./format.js";
import { oneAtATime } from "./live.js";
import { namespaceField, outOfReach } from "./namespaces.js";
import { guard, rightsIn } from "./rights.js";

const EVERY = 5000;
const RUN_NOW = "crewjob.dev/run-now";

const SKIPS = {
  Overlap: "an earlier job had not ended",
  TooLate: "noticed, or could be made, only after the catch-up window",
  Superseded: "a later time was missed, too, and the latest is made up for",
  TooMany: "more than 100 times were missed",
  Suspended: "the schedule was suspended",
  Paused: "the schedule was paused after failures",
  QueueFull: "100 times waited already",
  NameTaken: "another CrewJob has the name",
};

/** Shows the schedules of a namespace, or of all; returns what ends the screen. */
export function schedulesScreen(main, words) {
  let [ended, shown] = [false, ""];
  const namespace = words.get("namespace") ?? "";
  const body = h("div", { id: "schedules", "aria-busy": "true" });
  main.replaceChildren(h("div", { class: "head" }, h("h1", {}, "Schedules"), namespaceField(namespace, "schedules")), body);

  const read = oneAtATime(async () => {
    try {
      const { items } = await get(objects("crewschedules", namespace));
      if (ended) return;
      const state = JSON.stringify(items);
      if (state === shown) return;
      shown = state;
      draw(items);
    } catch (error) {
      if (!ended && error.status !== 401) swap(body, outOfReach(error, namespace, "schedules") ?? failure(error, read));
    }
  });

  function draw(items) {
    body.removeAttribute("aria-busy");
    items.sort((one, other) => keyOf(one).localeCompare(keyOf(other)));
    swap(body, items.length ? items.map((schedule) => card(schedule, change)) : nothing("There are no schedules", "A CrewSchedule makes a job for each of its times."));
    say(count(items.length, "schedule"));
  }

  async function change(schedule, value, said) {
    try {
      await patch(objects("crewschedules", schedule.metadata.namespace, schedule.metadata.name), value);
      note(said);
    } catch (error) {
      note(`${error.title}: ${error.message}`, "refused");
    }
    read();
  }

  const timer = setInterval(() => !document.hidden && read(), EVERY);
  read();
  return { end: () => ((ended = true), clearInterval(timer)) };
}

const keyOf = ({ metadata }) => `${metadata.namespace}/${metadata.name}`;

function state(schedule, ready) {
  if (schedule.spec.suspend) return badge("rests", "Suspended");
  if (ready?.status === "True") return badge("yes", "Ready");
  return badge(ready ? "no" : "Pending", ready?.reason ?? "Not seen yet");
}

function card(schedule, change) {
  const [spec, status] = [schedule.spec ?? {}, schedule.status ?? {}];
  const { namespace, name } = schedule.metadata;
  const ready = (status.conditions ?? []).find((it) => it.type === "Ready");
  const id = `schedule-${namespace}-${name}`;
  const runNow = h("button", { type: "button", id: `run-${keyOf(schedule)}`, onclick: () => change(schedule, { metadata: { annotations: { [RUN_NOW]: crypto.randomUUID?.() ?? `${Date.now()}-${Math.random()}` } } }, `A job of ${name} is asked for.`) }, "Run now");
  const [verb, said] = spec.suspend ? ["Resume", "resumed"] : ["Suspend", "suspended"];
  const suspend = h("button", { type: "button", id: `suspend-${keyOf(schedule)}`, onclick: () => change(schedule, { spec: { suspend: !spec.suspend } }, `${name} is ${said}.`) }, verb);
  rightsIn(namespace).then((rights) => [runNow, suspend].forEach((button) => guard(button, rights.schedule))).catch(() => {});
  const jobs = `#/jobs?namespace=${encodeURIComponent(namespace)}&label=${encodeURIComponent(`crewjob.dev/schedule=${name}`)}`;
  const figures = [
    ["Last time", ago(status.lastScheduleTime)],
    ["Last success", ago(status.lastSuccessTime)],
    ["Not ended", number(status.activeCount)],
    ["Jobs made", h("a", { href: jobs }, number(status.made))],
  ];
  return h(
    "section",
    { class: "panel schedule", "aria-labelledby": id },
    h("div", { class: "line" }, h("h2", { id }, name), h("span", { class: "muted" }, namespace), state(schedule, ready), h("div", { class: "buttons" }, runNow, suspend)),
    ready?.status === "False" && ready.message ? h("p", { class: "blocked" }, ready.message) : null,
    h("p", {}, (spec.schedules ?? []).map((line, index) => [index ? " and " : "", h("code", {}, line)]), ` in ${spec.timeZone ?? "UTC"}`),
    h("dl", { class: "figures" }, figures.map(([title, value]) => h("div", {}, h("dt", {}, title), h("dd", {}, value)))),
    h("div", { class: "panels" }, nextTimes(spec, status), skips(status.skipped ?? [])),
  );
}

function nextTimes(spec, status) {
  const times = status.nextScheduleTimes ?? [];
  const zone = spec.timeZone ?? "UTC";
  const items = times.map((text) => h("li", {}, localTime(text, zone), " ", h("span", { class: "muted" }, ago(text))));
  const none = spec.suspend ? "None while it is suspended." : "None.";
  return h("div", {}, h("h3", {}, "Next times"), times.length && !spec.suspend ? h("ol", { class: "bare" }, items) : h("p", { class: "muted" }, none));
}

function localTime(text, timeZone) {
  const at = new Date(text);
  try {
    return h("time", { datetime: text, title: at.toLocaleString() }, at.toLocaleString("en-GB", { timeZone, dateStyle: "medium", timeStyle: "short" }));
  } catch {
    return h("time", { datetime: text }, text);
  }
}

function skips(list) {
  if (!list.length) return null;
  const items = list.map((it) => h("li", {}, h("strong", {}, number(it.count)), ` ${it.reason}: ${SKIPS[it.reason] ?? ""} `, h("span", { class: "muted" }, "last ", ago(it.lastTime))));
  return h("div", {}, h("h3", {}, "Times without a job"), h("ul", { class: "bare skips" }, items));
}
