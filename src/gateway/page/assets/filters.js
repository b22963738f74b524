// Which jobs are listed: what stands in the address, as chips that can be added and taken away.

import { h, swap } from "./dom.js";
import { PHASES, badge, number } from "./format.js";

const KINDS = { namespace: "Namespace", pool: "Pool", reason: "Reason", label: "Label", name: "Name" };

/** The words of the address that say which jobs are meant. */
export function filterOf(params) {
  const filter = new URLSearchParams();
  for (const [word, value] of params) {
    if (word in KINDS || word === "phase" || word === "text") filter.append(word, value);
  }
  return filter;
}

/** The same as a sentence. */
export function described(filter) {
  const parts = [...filter].map(([word, value]) => (word === "text" ? `with “${value}”` : `${word} ${value}`));
  return parts.length ? parts.join(", ") : "all that you may see";
}

function without(params, word, value) {
  const rest = new URLSearchParams();
  for (const [name, is] of params) {
    if (name !== "continue" && !(name === word && (value === undefined || is === value))) rest.append(name, is);
  }
  return rest;
}

function having(params, word, value) {
  const more = without(params, word, value);
  more.append(word, value);
  return more;
}

/** The field for text, the chips, and the menus that add further ones. `go` is called with other words for the address. */
export function filterBar(params, go) {
  let timer = 0;
  const search = (value) => {
    clearTimeout(timer);
    timer = setTimeout(() => go(value.trim() ? having(without(params(), "text"), "text", value.trim()) : without(params(), "text"), true), 250);
  };
  const text = h("input", {
    type: "search",
    id: "filter-text",
    value: params().get("text") ?? "",
    placeholder: "Name, topic, error or worker",
    "aria-label": "Text within name, topic, error or worker",
    "aria-keyshortcuts": "/",
    autocomplete: "off",
    spellcheck: "false",
    oninput: (event) => search(event.target.value),
  });
  const field = h("div", { class: "search" }, text, h("kbd", { "aria-hidden": "true" }, "/"));
  const phases = h("div", { class: "chips", role: "group", "aria-label": "Phases", id: "phases" });
  const menus = h("div", { class: "menus", id: "menus" });
  const chosen = h("div", { class: "chips", role: "group", "aria-label": "Filters that are set", id: "chosen" });
  const bar = h("section", { class: "filters", "aria-label": "Filters" }, h("div", { class: "line" }, field, menus), phases, chosen);
  const parts = { phases, menus, chosen, drawn: null };
  return { bar, text, draw: (facets) => draw(parts, params(), facets, go) };
}

function draw(parts, params, facets, go) {
  const { phases, menus, chosen } = parts;
  swap(phases, phaseChips(params, facets.phase ?? [], go));
  // A menu that is open, or a label that is being written, stays as it is.
  const isUsed = menus.contains(document.activeElement) && parts.drawn === params.toString();
  parts.drawn = params.toString();
  if (!isUsed) swap(menus, ["namespace", "pool", "reason"].map((word) => menu(word, params, facets[word] ?? [], go)), labelField(params, go));
  const set = [...params].filter(([word]) => word in KINDS);
  const chips = set.map(([word, value]) =>
    h(
      "button",
      { type: "button", class: "chip set", "aria-label": `${KINDS[word]} ${value}: remove`, onclick: () => go(without(params, word, value)) },
      h("span", { class: "muted" }, `${KINDS[word].toLowerCase()} `),
      h("span", {}, value),
      h("span", { "aria-hidden": "true", class: "cross" }, "×"),
    ),
  );
  const clear = [...filterOf(params)].length > 0 && h("button", { type: "button", class: "quiet", id: "clear", onclick: () => go(new URLSearchParams()) }, "Clear all");
  swap(chosen, chips, clear);
  chosen.hidden = !clear;
}

function phaseChips(params, counts, go) {
  const known = new Map(counts.map(({ value, count }) => [value, count]));
  const others = [...known.keys()].filter((phase) => !PHASES.includes(phase));
  return [...PHASES, ...others].map((phase) => {
    const isSet = params.getAll("phase").includes(phase);
    return h(
      "button",
      {
        type: "button",
        class: "chip",
        id: `phase-${phase}`,
        "aria-pressed": String(isSet),
        onclick: () => go(isSet ? without(params, "phase", phase) : having(params, "phase", phase)),
      },
      badge(phase),
      h("span", { class: "count" }, number(known.get(phase) ?? 0)),
    );
  });
}

function menu(word, params, values, go) {
  const free = values.filter(({ value }) => !params.getAll(word).includes(value));
  const options = free.map(({ value, count }) => h("option", { value }, `${value} (${number(count)})`));
  const choose = (event) => event.target.value && go(having(params, word, event.target.value));
  return h(
    "select",
    { id: `add-${word}`, "aria-label": `Add a ${word}`, disabled: free.length === 0, onchange: choose },
    h("option", { value: "" }, KINDS[word]),
    options,
  );
}

function labelField(params, go) {
  const input = h("input", { id: "add-label", placeholder: "label=value", "aria-label": "Add a label: name=value, or a name", autocomplete: "off", spellcheck: "false" });
  const add = (event) => {
    event.preventDefault();
    if (input.value.trim()) go(having(params, "label", input.value.trim()));
  };
  return h("form", { class: "label", onsubmit: add }, input);
}
