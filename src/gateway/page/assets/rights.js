// What the caller may do, as the API server says it: buttons that would be refused say so before.

import { get } from "./api.js";

const KEPT_FOR = 10000;
const known = new Map();

/** What the caller may do in a namespace: `{cancel: {allowed, reason}, …}`. */
export async function rightsIn(namespace) {
  const found = known.get(namespace);
  if (found && Date.now() - found.at < KEPT_FOR) return found.rights;
  const rights = get(`api/rights?namespace=${encodeURIComponent(namespace)}`).then((answer) => answer.rights);
  known.set(namespace, { at: Date.now(), rights });
  rights.catch(() => known.delete(namespace));
  return rights;
}

/** Forgets all of it, for another caller. */
export function forgetRights() {
  known.clear();
}

/** Makes a button say why it cannot be used; it stays where the keyboard finds it. */
export function guard(button, right) {
  const refused = right && !right.allowed;
  if (refused) {
    button.setAttribute("aria-disabled", "true");
    button.title = right.reason;
    button.setAttribute("aria-description", right.reason);
  } else {
    button.removeAttribute("aria-disabled");
    button.removeAttribute("aria-description");
    button.title = "";
  }
  return button;
}

// A click on such a button goes nowhere.
document.addEventListener(
  "click",
  (event) => {
    const button = event.target.closest?.("button[aria-disabled=true]");
    if (!button) return;
    event.preventDefault();
    event.stopImmediatePropagation();
  },
  true,
);
