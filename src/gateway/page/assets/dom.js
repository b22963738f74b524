// Elements. What the server says becomes text, never markup: nothing in this page parses HTML.

const SVG = "http://www.w3.org/2000/svg";

/** An element. Attributes that are null or false are left out; `on…` are listeners; children are nodes or texts. */
export function h(tag, attributes = {}, ...children) {
  return fill(document.createElement(tag), attributes, children);
}

/** An element of a drawing. */
export function svg(tag, attributes = {}, ...children) {
  return fill(document.createElementNS(SVG, tag), attributes, children);
}

function fill(element, attributes, children) {
  for (const [name, value] of Object.entries(attributes)) {
    if (value === null || value === undefined || value === false) continue;
    if (name.startsWith("on")) element.addEventListener(name.slice(2), value);
    else if (["value", "checked", "indeterminate"].includes(name)) element[name] = value;
    else element.setAttribute(name, value === true ? "" : String(value));
  }
  element.append(...children.flat(Infinity).filter((child) => child !== null && child !== undefined && child !== false));
  return element;
}

/** The element of this id. */
export const byId = (id) => document.getElementById(id);

/** Replaces what an element holds, and keeps the focus where it was: on the element of the same id. */
export function swap(element, ...children) {
  const focused = element.contains(document.activeElement) ? document.activeElement : null;
  const [id, from, to] = [focused?.id, focused?.selectionStart, focused?.selectionEnd];
  element.replaceChildren(...children.flat(Infinity).filter(Boolean));
  const again = id ? byId(id) : null;
  if (!again) return;
  again.focus({ preventScroll: true });
  if (typeof from === "number" && again.setSelectionRange) again.setSelectionRange(from, to);
}

/** Says a sentence to those that hear the page. */
export function say(text) {
  if (byId("said").textContent !== text) byId("said").textContent = text;
}

/** A note that goes after a while, or when it is closed. */
export function note(text, kind = "done") {
  const close = h("button", { type: "button", class: "quiet", "aria-label": "Close", onclick: () => shown.remove() }, "×");
  const shown = h("div", { class: `note ${kind}` }, h("span", {}, text), close);
  byId("notes").append(shown);
  if (kind === "done") setTimeout(() => shown.remove(), 6000);
}

/** What is shown where something could not be read. */
export function failure(error, again) {
  const retry = again && h("button", { type: "button", onclick: again }, "Try again");
  return h("div", { class: "failure", role: "alert" }, h("strong", {}, error.title ?? "That failed"), h("p", {}, error.message), retry);
}

/** What is shown where there is nothing. */
export function nothing(title, ...more) {
  return h("div", { class: "nothing" }, h("strong", {}, title), more.length ? h("p", {}, ...more) : null);
}

/** Asks for a confirmation; resolves to what the form holds, or to null. */
export function confirm({ title, text, act, dismiss = "Do nothing", danger = false, fields = [] }) {
  const dialog = byId("dialog");
  return new Promise((resolve) => {
    const form = h(
      "form",
      { method: "dialog" },
      h("h2", { id: "dialog-title" }, title),
      text.map((line) => (line instanceof Node ? line : h("p", {}, line))),
      fields,
      h(
        "div",
        { class: "buttons" },
        h("button", { value: "", formnovalidate: true, id: "dialog-no" }, dismiss),
        act && h("button", { value: "yes", class: danger ? "danger" : "primary", id: "dialog-yes" }, act),
      ),
    );
    dialog.replaceChildren(form);
    dialog.onclose = () => {
      resolve(dialog.returnValue === "yes" ? new FormData(form) : null);
      dialog.replaceChildren();
    };
    dialog.returnValue = "";
    dialog.showModal();
    (fields[0]?.querySelector?.("input, select") ?? byId("dialog-no")).focus();
  });
}
