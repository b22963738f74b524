// The colours that were chosen, before anything is drawn. "system" follows the machine's setting.
"use strict";
(() => {
  const names = ["system", "light", "dark"];
  const stored = () => {
    try {
      return localStorage.getItem("crewjob-theme");
    } catch {
      return null;
    }
  };
  const chosen = () => (names.includes(stored()) ? stored() : "system");
  const apply = (name) => {
    document.documentElement.dataset.theme = name;
    const button = document.getElementById("theme");
    if (button) {
      button.textContent = { system: "Auto", light: "Light", dark: "Dark" }[name];
      button.setAttribute("aria-label", `Colours: ${name}. Change`);
      button.title = "Colours: as the system has them, light or dark";
    }
  };
  apply(chosen());
  addEventListener("DOMContentLoaded", () => {
    apply(chosen());
    document.getElementById("theme").addEventListener("click", () => {
      const next = names[(names.indexOf(document.documentElement.dataset.theme) + 1) % names.length];
      try {
        localStorage.setItem("crewjob-theme", next);
      } catch {
        // It is not kept, then.
      }
      apply(next);
    });
  });
})();
