// Light or dark, by choice or by the system, for the page and for its figures.
(function () {
  "use strict";
  const KEY = "autoprune-theme";
  const root = document.documentElement;
  const system = window.matchMedia("(prefers-color-scheme: dark)");
  const listeners = [];

  function stored() {
    try { return localStorage.getItem(KEY) || "system"; } catch { return "system"; }
  }
  function mode() {
    const choice = root.dataset.theme;
    return choice === "light" || choice === "dark" ? choice : system.matches ? "dark" : "light";
  }
  function show(choice) {
    if (choice === "system") { delete root.dataset.theme; } else { root.dataset.theme = choice; }
    for (const button of document.querySelectorAll("[data-choose-theme]")) {
      button.setAttribute("aria-pressed", String(button.dataset.chooseTheme === choice));
    }
    for (const listener of listeners) { listener(mode()); }
  }
  function choose(choice) {
    try { localStorage.setItem(KEY, choice); } catch { /* a file may have no storage */ }
    show(choice);
  }
  let known = null;
  function template() {
    known = known || JSON.parse(document.getElementById("theme-templates").textContent);
    return known[mode()];
  }

  show(stored());
  system.addEventListener("change", () => show(stored()));
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-choose-theme]");
    if (button) { choose(button.dataset.chooseTheme); }
  });
  document.addEventListener("DOMContentLoaded", () => show(stored()));
  window.autopruneTheme = { mode, choose, template, onChange: (listener) => listeners.push(listener) };
})();
