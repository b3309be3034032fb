/* Controls: buttons and fields change the state, and show it. */
(() => {
  "use strict";
  const board = window.board;
  const { element } = board;
  const shownValue = (name) => {
    const value = board.state[name];
    if (value !== "" && value !== undefined) return String(value);
    const figure = board.figure;
    if (!figure) return "";
    return { ...figure.quantities, xs: figure.scales[0], ys: figure.scales[1] }[name] || "";
  };

  /* ---- tabs ---- */
  function showTab() {
    showPanels();
    if (board.state.tab === "choose" && board.data) { board.drawTable(); board.showChart(); board.showLines(); }
  }

  function showPanels() {
    document.querySelectorAll("[data-tab]").forEach((tab) => {
      const on = tab.dataset.tab === board.state.tab;
      tab.setAttribute("aria-selected", String(on));
      tab.tabIndex = on ? 0 : -1;
      const panel = document.getElementById(`panel-${tab.dataset.tab}`);
      if (panel) panel.hidden = !on;
    });
    const pins = document.getElementById("count-compare");
    if (pins) pins.textContent = board.state.pins.length ? String(board.state.pins.length) : "";
  }

  function tabKeys(event) {
    const tab = event.target.closest("[data-tab]");
    const step = { ArrowRight: 1, ArrowLeft: -1 }[event.key];
    if (!tab || !step) return;
    const tabs = [...document.querySelectorAll("[data-tab]")];
    const next = tabs[(tabs.indexOf(tab) + step + tabs.length) % tabs.length];
    board.set({ tab: next.dataset.tab });
    next.focus();
  }

  /* ---- limits ---- */
  const STEPS = 200;
  const digits = (value) => Number(value.toPrecision(3));
  function toSlider(spec, value) {
    const on = spec.log ? Math.log : (x) => x;
    return Math.round((STEPS * (on(value) - on(spec.low))) / (on(spec.high) - on(spec.low)));
  }
  function fromSlider(spec, at) {
    const part = at / STEPS;
    return digits(spec.log ? spec.low * (spec.high / spec.low) ** part : spec.low + part * (spec.high - spec.low));
  }

  let pending = 0;
  function setNumber(part, name, value) {
    const numbers = { ...board.state[part] };
    if (value === null || !Number.isFinite(value)) delete numbers[name];
    else numbers[name] = value;
    window.clearTimeout(pending);
    pending = window.setTimeout(() => board.set({ [part]: numbers }), 60);
  }

  /* A number with its field and its slider; at the open end of the slider there is none. */
  function numberRow(part, spec, open, none) {
    const row = element("div", { class: "limit", "data-name": spec.name });
    const id = `${part}-${spec.name}`;
    const field = element("input", { id, type: "number", class: "field", step: "any", placeholder: none });
    const slider = element("input", { type: "range", min: "0", max: String(STEPS), step: "1", "aria-label": `${spec.title}, slider` });
    const tell = (value) => slider.setAttribute("aria-valuetext", value === undefined ? none : String(value));
    row.show = (value) => {
      const at = value === undefined ? open : Math.max(0, Math.min(STEPS, toSlider(spec, value)));
      if (document.activeElement !== field) field.value = value === undefined ? "" : String(value);
      if (document.activeElement !== slider) slider.value = String(at);
      tell(value);
    };
    slider.addEventListener("input", () => {
      const value = Number(slider.value) === open ? null : fromSlider(spec, Number(slider.value));
      field.value = value === null ? "" : String(value);
      tell(value === null ? undefined : value);
      setNumber(part, spec.name, value);
    });
    field.addEventListener("input", () => setNumber(part, spec.name, field.value.trim() === "" ? null : Number(field.value)));
    row.append(element("label", { for: id }, spec.title), field);
    if (spec.high > spec.low) row.append(slider);
    return row;
  }

  const rowsOf = {
    limits: () => [...board.data.limits[board.state.run].map((spec) => numberRow("limits", spec, spec.side === "max" ? STEPS : 0, "no limit")), chooseBy()],
    weights: () => board.data.by[board.state.run].map(({ name, title }) =>
      numberRow("weights", { name, title, low: 0, high: 10, log: false }, 0, "0")),
    knee: () => [element("p", { class: "soft small" }, "The bend of the front: the member farthest from the line between the cheapest and the best one.")],
  };

  let shownRows = "";
  function drawNumbers() {
    const place = document.getElementById("limits");
    if (!place || !board.data) return;
    const { mode, run } = board.state;
    const known = mode in rowsOf ? mode : "limits";
    const text = JSON.stringify([known, run, board.data.limits[run], board.data.by[run]]);
    if (text !== shownRows) {
      shownRows = text;
      place.replaceChildren(...rowsOf[known]());
    }
    place.querySelectorAll("[data-name]").forEach((row) => row.show((board.state[known] || {})[row.dataset.name]));
  }

  function chooseBy() {
    const row = element("div", { class: "limit one" });
    row.append(element("label", { for: "set-by" }, "best by"));
    const select = element("select", { id: "set-by", class: "field", "data-set": "by" });
    board.data.by[board.state.run].forEach(({ name, title }) => select.append(element("option", { value: name }, title)));
    row.append(select);
    return row;
  }

  /* ---- selects and groups of buttons ---- */
  function fillAxes() {
    ["x", "y", "z"].forEach((name) => {
      const select = document.getElementById(`set-${name}`);
      if (!select || !board.data) return;
      const columns = board.data.columns.filter((column) => !column.name.includes("@"));
      const text = columns.map((column) => column.name).join();
      if (select.dataset.options !== text) {
        select.dataset.options = text;
        select.replaceChildren(...columns.map((column) => element("option", { value: column.name }, column.short)));
      }
    });
  }

  function showControls() {
    fillAxes();
    drawNumbers();
    document.querySelectorAll("select[data-set]").forEach((select) => {
      const value = select.dataset.set === "by" ? board.state.by || (board.choice && board.choice.by) || "" : shownValue(select.dataset.set);
      if (value !== "" && select.value !== value) select.value = value;
    });
    document.querySelectorAll("button[data-set]").forEach((button) =>
      button.setAttribute("aria-pressed", String(button.dataset.value === shownValue(button.dataset.set))));
    document.querySelectorAll("[data-act=pin]").forEach((button) =>
      button.setAttribute("aria-pressed", String(board.state.pins.includes(button.dataset.key))));
    const space = board.state.view === "3d";
    document.getElementById("set-z")?.parentElement.toggleAttribute("hidden", !space);
    ["xs", "ys"].forEach((name) => document.querySelector(`[data-set=${name}]`)?.parentElement.toggleAttribute("hidden", space));
    document.getElementById("csv")?.setAttribute("href", `download/${board.state.run}/candidates.csv`);
    const clear = document.getElementById("clear");
    if (clear) clear.disabled = !Object.keys(board.state.brush).length;
  }

  const acts = {
    link: () => navigator.clipboard.writeText(window.location.href).then(
      () => board.say("The link is copied: it restores this view."),
      () => board.say("The browser does not allow copying; take the link from the address bar.")),
    clear: () => board.clearBrush(),
    close: () => board.set({ open: "" }),
    unpin: (target) => board.pin(target.dataset.key, false),
    pin: (target) => board.pin(target.dataset.key),
    open: (target) => board.set({ open: target.dataset.key, tab: "choose" }),
    mark: (target) => board.act("mark", target.dataset.key),
    unmark: (target) => board.act("unmark", target.dataset.key),
    note: (target) => board.act("note", target.dataset.key, document.getElementById("note").value, document.getElementById("note").dataset.seen),
    copy: (target) => navigator.clipboard.writeText(target.dataset.key).then(() => board.say("Copied.")),
  };

  let asked = 0;
  let ticks = 0;
  let shown = false;
  /* Ask the server to do something: the button's name, the candidate's key, a text, and the text that was there. */
  board.act = (name, key, text = "", seen = "") => {
    asked += 1;
    window.dash_clientside.set_props("act", { data: { name, key, text, seen, asked } });
  };

  document.addEventListener("click", (event) => {
    const tab = event.target.closest("[data-tab]");
    if (tab) return void board.set({ tab: tab.dataset.tab });
    const choice = event.target.closest("button[data-set]");
    if (choice) return void board.set({ [choice.dataset.set]: choice.dataset.value });
    const act = event.target.closest("[data-act]");
    if (act && acts[act.dataset.act]) acts[act.dataset.act](act);
  });
  document.addEventListener("change", (event) => {
    const select = event.target.closest("select[data-set]");
    if (!select) return;
    const name = select.dataset.set;
    board.set(name === "run" ? { run: Number(select.value), limits: board.data.given[select.value] || {}, weights: {}, by: "", x: "", y: "", z: "", brush: {} } : { [name]: select.value, ...(name === "x" ? { xs: "" } : name === "y" ? { ys: "" } : {}) });
  });
  document.addEventListener("keydown", (event) => {
    tabKeys(event);
    if (event.key === "Escape" && board.state.open && document.getElementById("details-card")?.contains(document.activeElement)) board.set({ open: "" });
  });

  /* The buttons come after the theme was set. */
  const showTheme = () => document.querySelectorAll("[data-choose-theme]").forEach((button) =>
    button.setAttribute("aria-pressed", String(button.dataset.chooseTheme === (document.documentElement.dataset.theme || "system"))));

  const showDetails = () => {
    const card = document.getElementById("details-card");
    if (card) card.hidden = !board.state.open;
  };

  /* The answer and the opened candidate come from the server. */
  const pinned = new MutationObserver(() => board.data && showControls());
  const watch = () => ["answer", "details"].forEach((id) => pinned.observe(document.getElementById(id), { childList: true }));

  board.listen((names) => {
    if (names.includes("tab") || names.includes("pins")) showTab();
    if (names.includes("open")) showDetails();
    showControls();
  });

  window.autopruneTheme.onChange(() => { if (board.data) board.repaint(); });
  document.addEventListener("click", (event) => {
    const button = event.target.closest("[data-choose-theme]");
    if (button) board.set({ theme: button.dataset.chooseTheme === "system" ? "" : button.dataset.chooseTheme });
  });
  if (["light", "dark"].includes(board.state.theme)) window.autopruneTheme.choose(board.state.theme);

  /* What came last: columns of the candidates, figure and choice come together, or one of them alone. */
  let [lastData, lastFigure, lastChoice] = [null, null, null];

  /* Draw the candidates that have come, and tell the views of single ones. */
  function showData(data) {
    if (!shown) {
      watch();
      board.mountTable();
      showTheme();
      showDetails();
      showPanels();
    }
    if (board.state.limits === null) board.adopt({ limits: data.given[board.state.run] || {} });
    const { open, pins, tab } = board.state;
    if (shown && (open || pins.length || tab === "understand")) window.dash_clientside.set_props("shown", { data: data.version });
    shown = true;
  }

  Object.assign(window.dash_clientside.board, {
    receive: (data, figure, choice) => {
      const news = { data: data && data !== lastData, figure: figure && figure !== lastFigure, choice: choice && choice !== lastChoice };
      [lastData, lastFigure, lastChoice] = [data, figure, choice];
      const fits = !news.data || board.receive(data);
      if (news.figure && board.isAnswer("axes", figure)) board.figure = { ...figure };
      if (news.choice && board.isAnswer("limits", choice)) board.choice = { ...choice };
      if (!fits || !board.data) return;
      if (news.data) showData(data);
      showControls();
      if (!board.drawNew() && news.choice) board.paintFront();
      if (news.data || news.choice) {
        board.drawTable();
        board.showLines();
      }
    },
    /* What the person wrote is stored: the page looks at the folder at once. */
    acted: (done) => {
      if (!done) return;
      board.say(done.said);
      ticks += 1;
      window.dash_clientside.set_props("tick", { n_intervals: -ticks });
    },
  });
})();
