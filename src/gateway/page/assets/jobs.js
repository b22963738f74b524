// The list of jobs.

import { get } from "./api.js";
import { ACTIONS, act } from "./actions.js";
import { byId, failure, h, nothing, say, swap } from "./dom.js";
import { described, filterBar, filterOf } from "./filters.js";
import { count, number } from "./format.js";
import { follow, oneAtATime } from "./live.js";
import { guard, rightsIn } from "./rights.js";
import { jobTable, keyOf } from "./rows.js";

const LIMIT = 50;
const address = (words) => `#/jobs${[...words].length ? `?${words}` : ""}`;
const LIVE = { live: "Live", paused: "Paused", lost: "Not live" };

/** Shows the screen for the words of the address; returns what ends it. */
export function jobsScreen(main, words, record) {
  let [params, page, shown, ended] = [words, null, "", false];
  // The places at which the pages before this one began.
  let trail = [];
  const marked = new Map();
  let isAll = false;

  const go = (next, keepsFocus = false) => {
    params = next;
    trail = [];
    marked.clear();
    isAll = false;
    record(address(next), keepsFocus);
    restart();
    if (!keepsFocus && document.activeElement === document.body) byId("filter-text")?.focus();
  };
  const filters = filterBar(() => params, go);
  const state = h("span", { class: "live", "data-state": "lost", id: "live" }, LIVE.lost);
  const total = h("span", { class: "muted", id: "total" });
  const bar = h("div", { class: "actions", id: "actions", role: "group", "aria-label": "Actions on marked jobs" });
  const list = h("div", { id: "list", "aria-busy": "true" });
  const pager = h("nav", { class: "pager", "aria-label": "Pages", id: "pager" });
  main.replaceChildren(h("div", { class: "head" }, h("h1", {}, "Jobs"), total, state), filters.bar, bar, list, pager);

  const said = (how) => {
    state.dataset.state = how;
    state.textContent = LIVE[how];
    state.title = { live: "Changes are shown as they happen", paused: "The list rests while it is not looked at", lost: "Changes are not heard of just now; it is tried again" }[how];
  };

  const read = oneAtATime(async () => {
    const asked = params.toString();
    try {
      const query = new URLSearchParams(params);
      query.set("limit", LIMIT);
      const answer = await get(`api/jobs?${query}`);
      if (ended || asked !== params.toString()) return;
      page = answer;
      draw();
    } catch (error) {
      if (!ended && error.status !== 401) swap(list, failure(error, read));
    }
  });

  function draw() {
    // What is being pressed stays under the pointer until it is let go.
    if (list.querySelector(":active")) return void setTimeout(() => ended || draw(), 150);
    list.removeAttribute("aria-busy");
    const now = JSON.stringify([page, [...marked.keys()], isAll, params.toString()]);
    if (now === shown) return;
    shown = now;
    total.textContent = page.ready ? count(page.total, "job") : "reading the jobs of the cluster…";
    filters.draw(page.facets);
    swap(list, page.jobs.length ? jobTable(page.jobs, params, { marked, mark, sort, markPage }) : empty());
    drawActions();
    drawPager();
    say(`${count(page.total, "job")} match, ${number(page.before + 1)} to ${number(page.before + page.jobs.length)} are shown`);
  }

  function empty() {
    if (!page.ready) return nothing("The jobs are being read", "The list is complete within seconds.");
    if ([...filterOf(params)].length) return nothing("No job matches", h("button", { type: "button", onclick: () => go(new URLSearchParams()) }, "Clear the filters"));
    return nothing("There are no jobs yet", h("a", { href: "#/submit" }, "Submit the first one"));
  }

  function mark(job, isOn) {
    isAll = false;
    if (isOn) marked.set(keyOf(job), job);
    else marked.delete(keyOf(job));
    draw();
  }

  function markPage(isOn) {
    isAll = false;
    for (const job of page.jobs) {
      if (isOn) marked.set(keyOf(job), job);
      else marked.delete(keyOf(job));
    }
    draw();
  }

  function sort(word) {
    const next = new URLSearchParams(params);
    next.delete("continue");
    next.set("sort", params.get("sort") === `-${word}` ? word : `-${word}`);
    go(next);
  }

  function drawActions() {
    const jobs = page.jobs.map((job) => (marked.has(keyOf(job)) ? (marked.set(keyOf(job), job), job) : job));
    const chosen = isAll ? jobs : [...marked.values()];
    bar.hidden = chosen.length === 0;
    if (bar.hidden) return bar.replaceChildren();
    const target = () => (isAll ? { filter: filterOf(params), words: described(filterOf(params)) } : { jobs: chosen });
    const label = isAll ? `All ${count(page.total, "job")} that match` : `${number(chosen.length)} marked`;
    const whole = !isAll && page.total > chosen.length && h("button", { type: "button", id: "mark-all", class: "quiet", onclick: () => ((isAll = true), draw()) }, `Take all ${number(page.total)} that match`);
    const buttons = Object.entries(ACTIONS).map(([action, what]) =>
      h(
        "button",
        { type: "button", id: `act-${action}`, class: what.danger ? "danger" : "", disabled: !isAll && !chosen.some(what.fits), onclick: () => run(action, target()) },
        what.label,
      ),
    );
    const none = h("button", { type: "button", class: "quiet", id: "mark-none", onclick: () => (marked.clear(), (isAll = false), draw()) }, "Mark none");
    swap(bar, h("strong", {}, label), whole, buttons, none);
    guardAll(chosen, buttons);
  }

  // Of jobs in several namespaces the answer says which were refused.
  async function guardAll(chosen, buttons) {
    const namespaces = new Set(chosen.map((job) => job.namespace));
    if (namespaces.size !== 1) return;
    try {
      const rights = await rightsIn([...namespaces][0]);
      Object.values(ACTIONS).forEach((what, index) => guard(buttons[index], rights[what.right]));
    } catch {
      // The API server will say so when it is asked.
    }
  }

  async function run(action, target) {
    const one = target.jobs?.length === 1 ? target.jobs[0].priority : undefined;
    if (await act(action, target, one)) {
      marked.clear();
      isAll = false;
      read();
    }
  }

  function drawPager() {
    const turn = (next, back) => {
      const other = new URLSearchParams(params);
      other.delete("continue");
      if (next) other.set("continue", next);
      if (back) trail.pop();
      else trail.push(params.get("continue") ?? "");
      params = other;
      record(address(other), false);
      read();
      byId("main").scrollIntoView();
    };
    const isFirst = !params.get("continue");
    const range = page.total ? `${number(page.before + 1)}–${number(page.before + page.jobs.length)} of ${number(page.total)}` : "";
    const omitted = page.omitted ? h("p", { class: "muted" }, `${count(page.omitted, "job")} more found no room in the gateway's list, and are in no page.`) : null;
    swap(
      pager,
      h("button", { type: "button", id: "previous", disabled: isFirst, onclick: () => turn(trail.at(-1), true) }, "Previous"),
      h("span", { class: "muted" }, range),
      h("button", { type: "button", id: "next", disabled: !page.next, onclick: () => turn(page.next, false) }, "Next"),
      omitted,
    );
    pager.hidden = isFirst && !page.next && !page.omitted;
  }

  let unfollow = () => {};
  function restart() {
    unfollow();
    read();
    unfollow = follow(`api/jobs/events?${filterOf(params)}`, read, said);
  }
  restart();
  return {
    end: () => ((ended = true), unfollow()),
    focusFilter: () => filters.text.focus(),
    escape: () => {
      if (document.activeElement === filters.text && filters.text.value) ((filters.text.value = ""), filters.text.dispatchEvent(new Event("input")));
      else document.activeElement?.blur();
    },
  };
}
