// What the worker wrote while it ran an attempt: the end of it.

import { get, ofJob } from "./api.js";
import { h, swap } from "./dom.js";

/** The panel; it is empty until the log is asked for. */
export function logPanel(namespace, name) {
  let [isOpen, numbers, ended] = [false, "", false];
  const attempt = h("select", { id: "log-attempt", "aria-label": "Attempt", onchange: () => read() }, h("option", { value: "" }, "last attempt"));
  const renew = h("button", { type: "button", id: "log-read", onclick: () => read() }, "Show the log");
  const about = h("span", { class: "muted", id: "log-about", role: "status" });
  const text = h("pre", { class: "log", id: "log-text", tabindex: 0, "aria-label": "Log", hidden: true });
  const panel = h("section", { class: "panel", "aria-labelledby": "log-title" }, h("div", { class: "line" }, h("h2", { id: "log-title" }, "Log"), attempt, renew, about), text);

  async function read() {
    isOpen = true;
    renew.textContent = "Read again";
    about.textContent = "reading…";
    try {
      const query = attempt.value ? `?attempt=${encodeURIComponent(attempt.value)}` : "";
      const log = await get(`${ofJob("log", namespace, name)}${query}`);
      if (ended) return;
      about.textContent = `Pod ${log.pod}, attempt ${log.attempt}${log.truncated ? ", the last lines of it" : ""}`;
      text.hidden = false;
      swap(text, log.lines.length ? log.lines.map((line) => document.createTextNode(`${line.text}\n`)) : [document.createTextNode("It has written nothing.")]);
      text.scrollTop = text.scrollHeight;
    } catch (error) {
      if (ended) return;
      text.hidden = true;
      about.textContent = error.message;
    }
  }

  return {
    panel,
    /** The job has changed: other attempts may have a log. */
    know(job) {
      const begun = job.status?.attempts ?? 0;
      panel.hidden = begun === 0 && !job.status?.startedAt;
      const now = (job.status?.attemptHistory ?? []).map((it) => it.number).join();
      if (now === numbers) return;
      numbers = now;
      const chosen = attempt.value;
      attempt.replaceChildren(h("option", { value: "" }, "last attempt"), ...(now ? now.split(",").map((number) => h("option", { value: number }, `attempt ${number}`)) : []));
      attempt.value = chosen;
    },
    /** Whether it was asked for. */
    isOpen: () => isOpen,
    end: () => (ended = true),
  };
}
