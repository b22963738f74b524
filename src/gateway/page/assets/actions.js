// What can be done with jobs: one of them, those that are marked, or all that match.

import { send } from "./api.js";
import { confirm, h, note } from "./dom.js";
import { OVER, count } from "./format.js";

/** The actions. `fits` says of which jobs they make sense; `right` is what the caller needs. */
export const ACTIONS = {
  cancel: {
    label: "Cancel",
    done: "cancelled",
    right: "change",
    danger: true,
    fits: (job) => !OVER.includes(job.phase) && !job.cancelling,
    text: "A job that waits ends at once; one that runs is told to stop, and what it has cost is spent.",
  },
  suspend: {
    label: "Suspend",
    done: "suspended",
    right: "change",
    fits: (job) => !OVER.includes(job.phase) && !job.suspended,
    text: "A job that waits is taken off its queue until it is resumed. One that runs is left alone.",
  },
  resume: {
    label: "Resume",
    done: "resumed",
    right: "change",
    fits: (job) => !OVER.includes(job.phase) && job.suspended,
    text: "The jobs go on where they were held back.",
  },
  priority: {
    label: "Priority…",
    done: "given another priority",
    right: "change",
    fits: (job) => !OVER.includes(job.phase),
    text: "A job that waits moves at once. 10 is the most urgent.",
  },
  retry: {
    label: "Run again",
    done: "run again, as a new job",
    right: "create",
    fits: (job) => job.phase === "Failed" || job.phase === "Cancelled",
    text: "Each becomes a new job with the same task and inputs, and is paid for again.",
  },
};

const VERBS = { cancel: "Cancel", suspend: "Suspend", resume: "Resume", priority: "Change the priority of", retry: "Run again" };

function priorityField(value = 5) {
  return h(
    "p",
    { class: "field" },
    h("label", { for: "new-priority" }, "Priority, 0 to 10"),
    h("input", { type: "number", id: "new-priority", name: "priority", min: 0, max: 10, value, required: true }),
  );
}

/** Does it after a confirmation that says with how many jobs. `target` is `{jobs}` or `{filter, words}`. Resolves to whether anything was done. */
export async function act(action, target, priority) {
  const what = ACTIONS[action];
  let request = { action, ...selection(target) };
  try {
    const found = await send("POST", "api/jobs/actions", { ...request, dryRun: true, ...(action === "priority" ? { priority: 5 } : {}) });
    if (found.count === 0) {
      note(`There is no job among them to ${VERBS[action].toLowerCase()}.`, "refused");
      return false;
    }
    const only = target.jobs?.length === 1 ? target.jobs[0].name : null;
    const given = await confirm({
      title: only ? `${VERBS[action]} ${only}?` : `${VERBS[action]} ${count(found.count, "job")}?`,
      text: [
        target.words ? `These are the jobs that match: ${target.words}.` : null,
        found.skipped ? `Nothing would change in ${count(found.skipped, "further job")} that ${found.skipped === 1 ? "is" : "are"} left alone.` : null,
        what.text,
      ].filter(Boolean),
      fields: action === "priority" ? [priorityField(priority)] : [],
      act: only ? VERBS[action].replace("Change the priority of", "Change priority") : `${VERBS[action].replace("Change the priority of", "Change")} ${count(found.count, "job")}`,
      danger: what.danger,
    });
    if (!given) return false;
    request = { ...request, expected: found.count };
    if (action === "priority") request.priority = Number(given.get("priority"));
    return report(what, await send("POST", "api/jobs/actions", request));
  } catch (error) {
    note(`${error.title}: ${error.message}`, "refused");
    return false;
  }
}

function selection(target) {
  if (target.jobs) return { jobs: target.jobs.map(({ namespace, name }) => ({ namespace, name })) };
  return { filter: target.filter.toString() };
}

function report(what, { results }) {
  const failed = results.filter((result) => !result.done);
  const done = results.length - failed.length;
  const made = results.length === 1 && results[0].made ? ` as ${results[0].made}` : "";
  if (done) note(`${results.length === 1 ? results[0].name : count(done, "job")} ${what.done}${made}.`);
  if (failed.length) {
    const lines = failed.slice(0, 50).map(({ namespace, name, message }) => h("li", {}, h("code", {}, `${namespace}/${name}`), ` ${message}`));
    const more = failed.length > 50 ? `and ${failed.length - 50} more.` : "";
    confirm({ title: `${count(failed.length, "job")} refused`, text: [h("ul", { class: "results" }, lines), more].filter(Boolean), dismiss: "Close" });
  }
  return done > 0;
}
