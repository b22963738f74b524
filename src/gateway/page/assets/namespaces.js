// Which namespace is looked at, on screens that list objects of the API server.

import { get } from "./api.js";
import { h, nothing } from "./dom.js";

/** The namespaces of the jobs that the caller may see. */
export async function namespaces() {
  const { facets } = await get("api/jobs?limit=1");
  return facets.namespace.map(({ value }) => value).sort();
}

/** Offers them in a field that takes others, too. */
export function offers(id) {
  const list = h("datalist", { id });
  namespaces().then((names) => list.replaceChildren(...names.map((value) => h("option", { value })))).catch(() => {});
  return list;
}

/** A field that leads to the same screen for another namespace; an empty one for all. */
export function namespaceField(namespace, screen) {
  const input = h("input", { id: "namespace", value: namespace, placeholder: "all namespaces", list: "namespaces", autocomplete: "off", spellcheck: "false" });
  const go = () => (location.hash = `#/${screen}${input.value.trim() ? `?namespace=${encodeURIComponent(input.value.trim())}` : ""}`);
  const submit = (event) => (event.preventDefault(), go());
  return h("form", { class: "namespace", onsubmit: submit }, h("label", { for: "namespace" }, "Namespace"), input, h("button", {}, "Show"), offers("namespaces"));
}

/** What is shown to a caller that may list objects of its own namespaces only, and asked for all. */
export function outOfReach(error, namespace, what) {
  return error.status === 403 && !namespace ? nothing(`You may not list the ${what} of all namespaces`, "Name a namespace above.") : null;
}
