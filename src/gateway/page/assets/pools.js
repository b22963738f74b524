// The pools: what waits in which queue, the workers and what each of them runs, and limits.

import { get, objects } from "./api.js";
import { failure, h, nothing, say, swap } from "./dom.js";
import { ago, badge, count, number } from "./format.js";
import { follow, oneAtATime } from "./live.js";
import { namespaceField, outOfReach } from "./namespaces.js";
import { jobAddress } from "./rows.js";

const EVERY = 5000;
const RUNNING = 500;
const LIMITED = "LimitReached";

/** Shows the pools of a namespace, or of all; returns what ends the screen. */
export function poolsScreen(main, words) {
  let [ended, shown] = [false, ""];
  const namespace = words.get("namespace") ?? "";
  const body = h("div", { id: "pools", "aria-busy": "true" });
  main.replaceChildren(h("div", { class: "head" }, h("h1", {}, "Pools"), namespaceField(namespace, "pools")), body);

  const read = oneAtATime(async () => {
    try {
      const query = new URLSearchParams({ phase: "Running", sort: "started", limit: RUNNING, ...(namespace ? { namespace } : {}) });
      const [pools, running] = await Promise.all([get(objects("crewworkerpools", namespace)), get(`api/jobs?${query}`)]);
      const limited = new Map(await Promise.all(pools.items.filter((pool) => pool.spec?.limits?.length).map(waitingFor)));
      if (ended) return;
      const state = JSON.stringify([pools.items.map((pool) => [pool.metadata.name, pool.spec, pool.status]), running.jobs, [...limited]]);
      if (state === shown) return;
      shown = state;
      draw(pools.items, running, limited);
    } catch (error) {
      if (!ended && error.status !== 401) swap(body, outOfReach(error, namespace, "pools") ?? failure(error, read));
    }
  });

  function draw(pools, running, limited) {
    body.removeAttribute("aria-busy");
    pools.sort((one, other) => keyOf(one).localeCompare(keyOf(other)));
    swap(body, pools.length ? pools.map((pool) => card(pool, running, limited.get(keyOf(pool)) ?? 0)) : nothing("There are no pools", "A pool says which Redis and which workers are used."));
    say(count(pools.length, "pool"));
  }

  const unfollow = follow(`api/jobs/events${namespace ? `?namespace=${encodeURIComponent(namespace)}` : ""}`, read, () => {});
  const timer = setInterval(() => !document.hidden && read(), EVERY);
  read();
  return { end: () => ((ended = true), clearInterval(timer), unfollow()) };
}

const keyOf = (pool) => `${pool.metadata.namespace}/${pool.metadata.name}`;
const jobsOf = ({ metadata }) => `namespace=${encodeURIComponent(metadata.namespace)}&pool=${encodeURIComponent(metadata.name)}`;

async function waitingFor(pool) {
  const { total } = await get(`api/jobs?${jobsOf(pool)}&reason=${LIMITED}&limit=1`);
  return [keyOf(pool), total];
}

function card(pool, running, waiting) {
  const [spec, status] = [pool.spec ?? {}, pool.status ?? {}];
  const { namespace, name } = pool.metadata;
  const ready = (status.conditions ?? []).find((it) => it.type === "Ready");
  const isReady = ready?.status === "True";
  const replicas = status.replicas ?? {};
  const [id, address] = [`pool-${namespace}-${name}`, `#/jobs?${jobsOf(pool)}`];
  const jobs = running.jobs.filter((job) => job.namespace === namespace && job.pool === name);
  const figures = [
    ["Waiting", number(status.depth), status.oldestQueuedAt ? ["the oldest since ", ago(status.oldestQueuedAt, { bare: true })] : null],
    ["In flight", number(status.inFlight), null],
    ["Workers", `${number(replicas.ready)} of ${number(replicas.desired)}`, `at most ${number(spec.maxReplicas)}`],
    ["Busy", number(replicas.busy), `${count(spec.concurrency ?? 1, "task")} each`],
  ];
  return h(
    "section",
    { class: "panel pool", "aria-labelledby": id },
    h("div", { class: "line" }, h("h2", { id }, h("a", { href: address }, name)), h("span", { class: "muted" }, namespace), badge(isReady ? "yes" : "no", isReady ? "Ready" : (ready?.reason ?? "Not seen yet"))),
    !isReady && ready?.message ? h("p", { class: "blocked" }, ready.message) : null,
    h("dl", { class: "figures" }, figures.map(([title, value, more]) => h("div", {}, h("dt", {}, title), h("dd", {}, value, more ? h("span", { class: "sub" }, more) : null)))),
    queues(status.queues ?? []),
    h("div", { class: "panels" }, workers(jobs, running), limits(spec.limits ?? [], waiting, address)),
    troubles(status.conditions ?? []),
  );
}

function queues(list) {
  if (!list.length) return null;
  const steps = [...new Set(list.flatMap((queue) => (queue.bands ?? []).map((band) => band.step)))].sort((one, other) => one - other);
  const most = Math.max(1, ...list.flatMap((queue) => (queue.bands ?? []).map((band) => band.depth ?? 0)));
  const rows = list.map((queue) =>
    h(
      "tr",
      {},
      h("th", { scope: "row" }, queue.name),
      steps.map((step) => bandCell((queue.bands ?? []).find((band) => band.step === step)?.depth ?? 0, most)),
      h("td", { class: "number" }, number(queue.depth)),
      h("td", { class: "number" }, number(queue.inFlight)),
    ),
  );
  const heads = steps.map((step, index) => h("th", { scope: "col", class: "number" }, `Band ${step}`, index === 0 ? h("span", { class: "sub" }, "first") : null));
  return h(
    "div",
    { class: "scroll", tabindex: 0, role: "region", "aria-label": "Queues" },
    h("table", { class: "plain queues" }, h("caption", { class: "unseen" }, "Messages that wait, by queue and band"), h("thead", {}, h("tr", {}, h("th", { scope: "col" }, "Queue"), heads, h("th", { scope: "col", class: "number" }, "Waiting"), h("th", { scope: "col", class: "number" }, "In flight"))), h("tbody", {}, rows)),
  );
}

function bandCell(depth, most) {
  return h("td", { class: "number band" }, h("meter", { min: 0, max: most, value: depth, "aria-hidden": "true" }), h("span", {}, number(depth)));
}

function workers(jobs, running) {
  const byWorker = new Map();
  for (const job of jobs) {
    const name = job.worker ?? "a worker that is not known";
    byWorker.set(name, [...(byWorker.get(name) ?? []), job]);
  }
  const items = [...byWorker].map(([name, its]) =>
    h("li", {}, h("span", { class: "worker" }, name), h("ul", {}, its.map((job) => h("li", {}, h("a", { href: jobAddress(job) }, job.name), " ", h("span", { class: "muted" }, ago(job.started, { bare: true }), job.percent === undefined ? "" : ` · ${job.percent} %`))))),
  );
  const more = running.total > running.jobs.length ? h("p", { class: "muted" }, `Of ${number(running.total)} jobs that run, the ${number(running.jobs.length)} that began first are looked through.`) : null;
  return h("div", {}, h("h3", {}, "What the workers run"), items.length ? h("ul", { class: "workers" }, items) : h("p", { class: "muted" }, "No worker runs a job."), more);
}

// Of a pool without limits nothing is said.
function limits(declared, waiting, address) {
  if (!declared.length) return null;
  const rows = declared.map((limit) => {
    const rate = limit.rate ? `${limit.rate.count} in ${limit.rate.per}` : "–";
    const weights = Object.entries(limit.weights ?? {}).map(([key, weight]) => `${key}: ${weight}`);
    const weight = [limit.weight ?? (weights.length ? null : 1), ...weights].filter((it) => it !== null).join(", ");
    return h("tr", {}, h("th", { scope: "row" }, limit.name), h("td", {}, keyText(limit.key ?? {})), h("td", { class: "number" }, limit.maxInFlight === undefined ? "–" : number(limit.maxInFlight)), h("td", {}, rate), h("td", {}, weight));
  });
  const heads = ["Name", "Key", "At once", "Rate", "Weight"].map((title) => h("th", { scope: "col" }, title));
  return h(
    "div",
    {},
    h("h3", {}, "Limits"),
    h("div", { class: "scroll", tabindex: 0, role: "region", "aria-label": "Limits" }, h("table", { class: "plain" }, h("caption", { class: "unseen" }, "Limits"), h("thead", {}, h("tr", {}, heads)), h("tbody", {}, rows))),
    h("p", {}, h("a", { href: `${address}&reason=${LIMITED}` }, count(waiting, "job")), ` ${waiting === 1 ? "waits" : "wait"} for a limit.`),
  );
}

function keyText({ by, label }) {
  return { Label: `label ${label}`, Namespace: "namespace" }[by] ?? "all jobs";
}

// A condition that is true and is neither of these is one of the pool's troubles.
const FINE = ["Ready", "BrokerReachable"];

function troubles(list) {
  const wrong = list.filter((it) => it.status === "True" && !FINE.includes(it.type));
  return wrong.length ? h("ul", { class: "troubles" }, wrong.map((it) => h("li", {}, badge("no", it.type), " ", it.message ?? it.reason))) : null;
}
