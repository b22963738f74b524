// A form for a new job.

import { get, objects, send } from "./api.js";
import { byId, failure, h, note } from "./dom.js";
import { offers } from "./namespaces.js";
import { guard, rightsIn } from "./rights.js";

/** Shows the form; `words` may say the namespace, or from which job to copy. */
export function submitScreen(main, words) {
  const from = (words.get("from") ?? "").split("/");
  const [fromNamespace, fromName] = from.length === 2 ? from : ["", ""];
  const input = (id, attributes = {}) => h("input", { id, name: id, autocomplete: "off", spellcheck: "false", ...attributes });
  const field = (id, label, control, help) =>
    h("p", { class: "field" }, h("label", { for: id }, label), control, help ? h("span", { class: "sub", id: `${id}-help` }, help) : null, h("span", { class: "wrong", id: `${id}-wrong` }));
  const namespace = input("namespace", { required: true, value: words.get("namespace") ?? fromNamespace, list: "namespaces", onchange: () => know() });
  const topic = h("textarea", { id: "topic", name: "topic", required: true, maxlength: 4096, rows: 2 });
  const inputs = h("textarea", { id: "inputs", name: "inputs", rows: 6, spellcheck: "false", class: "code", placeholder: '{ "level": "undergraduate" }' });
  const pools = h("datalist", { id: "pools" });
  const submit = h("button", { class: "primary", id: "submit" }, "Submit");
  const check = h("button", { type: "button", id: "check", onclick: () => create(true) }, "Only check");
  const refusal = h("span", { class: "muted", id: "refusals" });
  const problem = h("div", { id: "problem" });
  const form = h(
    "form",
    { class: "panel submit", novalidate: true, onsubmit: (event) => (event.preventDefault(), create(false)) },
    h("div", { class: "columns" }, field("namespace", "Namespace", namespace), field("name", "Name", input("name", { maxlength: 253, placeholder: "made from the topic" }), "Empty: a new name each time")),
    field("topic", "Topic", topic),
    field("inputs", "Inputs", inputs, "A JSON object; empty for none"),
    h(
      "div",
      { class: "columns" },
      field("pool", "Pool", input("pool", { list: "pools", placeholder: "default" })),
      field("queue", "Queue", input("queue", { placeholder: "the pool's first" })),
      field("priority", "Priority", input("priority", { type: "number", min: 0, max: 10, placeholder: "5" }), "0 to 10, 10 is the most urgent"),
      field("maxRetries", "Retries", input("maxRetries", { type: "number", min: 0, max: 100, placeholder: "as the pool says" })),
    ),
    h(
      "details",
      {},
      h("summary", {}, "More"),
      h(
        "div",
        { class: "columns" },
        field("task", "Task", input("task", { placeholder: "backend.tasks.run_crew_task" })),
        field("runOnce", "Run-once key", input("runOnce", { maxlength: 253 }), "Of all jobs with the same key one runs"),
        field("ttlAfterFinished", "Kept for", input("ttlAfterFinished", { placeholder: "24h" }), "After its end; empty: as the pool says"),
      ),
      h("p", { class: "check" }, h("label", {}, h("input", { type: "checkbox", id: "suspend" }), " Hold it back until it is resumed")),
    ),
    problem,
    h("div", { class: "buttons" }, submit, check, refusal),
    pools,
    offers("namespaces"),
  );
  main.replaceChildren(h("div", { class: "head" }, h("h1", {}, "Submit a job")), form);

  async function know() {
    const name = namespace.value.trim();
    if (!name) return;
    rightsIn(name)
      .then(({ create: right }) => {
        [submit, check].forEach((button) => guard(button, right));
        refusal.textContent = right.reason;
      })
      .catch(() => {});
    get(objects("crewworkerpools", name))
      .then(({ items }) => pools.replaceChildren(...items.map((pool) => h("option", { value: pool.metadata.name }))))
      .catch(() => {});
  }

  function wrong(id, text) {
    byId(`${id}-wrong`).textContent = text;
    byId(id).setAttribute("aria-invalid", "true");
    byId(id).setAttribute("aria-describedby", `${id}-wrong`);
    byId(id).focus();
  }

  function manifest() {
    for (const element of form.querySelectorAll("[aria-invalid]")) element.removeAttribute("aria-invalid");
    for (const element of form.querySelectorAll(".wrong")) element.textContent = "";
    const text = (id) => byId(id).value.trim();
    if (!text("namespace")) return wrong("namespace", "In which namespace?");
    if (!text("topic")) return wrong("topic", "What is it about?");
    const spec = { topic: text("topic") };
    if (text("inputs")) {
      try {
        spec.inputs = JSON.parse(text("inputs"));
      } catch (error) {
        return wrong("inputs", `That is no JSON: ${error.message}`);
      }
      if (spec.inputs === null || typeof spec.inputs !== "object" || Array.isArray(spec.inputs)) return wrong("inputs", "That is no JSON object.");
    }
    for (const id of ["queue", "task", "runOnce", "ttlAfterFinished"]) if (text(id)) spec[id] = text(id);
    if (text("pool")) spec.poolRef = { name: text("pool") };
    if (text("priority")) spec.priority = Number(text("priority"));
    if (text("maxRetries")) spec.retryPolicy = { maxRetries: Number(text("maxRetries")) };
    if (byId("suspend").checked) spec.suspend = true;
    const stem = text("topic").toLowerCase().split(/[^a-z0-9]+/).filter(Boolean).join("-").slice(0, 40).replace(/^-+|-+$/g, "");
    const metadata = text("name") ? { name: text("name") } : { generateName: `${stem || "job"}-` };
    return { apiVersion: "crewjob.dev/v1alpha1", kind: "CrewJob", metadata, spec };
  }

  async function create(isCheck) {
    const job = manifest();
    if (!job) return;
    problem.replaceChildren();
    submit.disabled = true;
    try {
      const place = namespace.value.trim();
      const made = await send("POST", `${objects("crewjobs", place)}${isCheck ? "?dryRun=All" : ""}`, job);
      if (isCheck) return note("The API server would take it.");
      note(`${made.metadata.name} is created.`);
      location.hash = `#/job/${encodeURIComponent(place)}/${encodeURIComponent(made.metadata.name)}`;
    } catch (error) {
      problem.replaceChildren(failure(error));
    } finally {
      submit.disabled = false;
    }
  }

  async function copy() {
    const { spec } = await get(objects("crewjobs", fromNamespace, fromName));
    topic.value = spec.topic ?? "";
    if (spec.inputs) inputs.value = JSON.stringify(spec.inputs, null, 2);
    const values = { pool: spec.poolRef?.name, queue: spec.queue, priority: spec.priority, maxRetries: spec.retryPolicy?.maxRetries, task: spec.task, ttlAfterFinished: spec.ttlAfterFinished };
    for (const [id, value] of Object.entries(values)) if (value !== undefined && byId(id)) byId(id).value = value;
  }
  if (fromName) copy().catch((error) => problem.replaceChildren(failure(error)));
  know();
  (namespace.value ? topic : namespace).focus();
  return { end: () => {} };
}
