// Signing in with a token, where the gateway asks for one.

import { get, signIn } from "./api.js";
import { h } from "./dom.js";

/** Shows the form; calls `done` with the session once a token was taken. `why` says what happened to an earlier one. */
export function signInScreen(main, done, why) {
  const token = h("input", { type: "password", id: "token", required: true, autocomplete: "off", spellcheck: "false" });
  const keep = h("input", { type: "checkbox", id: "keep" });
  const wrong = h("p", { class: "wrong", role: "alert", id: "token-wrong" }, why ?? "");
  const button = h("button", { class: "primary", id: "sign-in" }, "Sign in");
  const submit = async (event) => {
    event.preventDefault();
    const given = token.value.trim().replace(/^Bearer\s+/i, "");
    if (!/^[\x21-\x7e]+$/.test(given)) return (wrong.textContent = "A token has no spaces and no special letters.");
    signIn(given, keep.checked);
    button.disabled = true;
    try {
      done(await get("api/session"));
    } catch (error) {
      signIn(null);
      wrong.textContent = error.status === 401 ? "The API server does not take this token." : error.message;
      button.disabled = false;
      token.select();
    }
  };
  main.replaceChildren(
    h(
      "form",
      { class: "panel sign-in", onsubmit: submit },
      h("h1", {}, "Sign in"),
      h("p", {}, "With a token of the cluster. What you may do there is what you may do here."),
      h("p", { class: "field" }, h("label", { for: "token" }, "Token"), token, h("span", { class: "sub" }, "Such as that of ", h("code", {}, "kubectl create token NAME"))),
      h("p", { class: "check" }, h("label", {}, keep, " Keep it until this tab is closed")),
      wrong,
      h("div", { class: "buttons" }, button),
    ),
  );
  token.focus();
}
