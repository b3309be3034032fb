/* Table of candidates: only the rows in sight are in the page. It is the counterpart of the points for keyboards and
   screen readers: arrows move, Enter opens, Space pins. */
(() => {
  "use strict";
  const board = window.board;
  const { element } = board;
  const HEIGHT = 34;
  const SPARE = 6;
  let order = [];
  let active = 0;
  let grid, head, body, count;

  const STATES = {
    front: ["●", "on the front"],
    "as good": ["◐", "as good as one on the front, within noise"],
    "in doubt": ["◌", "on the front only by numbers in doubt"],
    dominated: ["○", "another one is better"],
    stopped: ["×", "stopped early"],
    removed: ["⌫", "weights deleted"],
    dense: ["◆", "the dense model"],
  };

  function shownRows() {
    const { data, state } = board;
    const all = data.key.map((_, place) => place);
    const emphasised = state.rows === "within" ? board.emphasised() : null;
    const front = new Set(["front", "as good", "in doubt", "dense"]);
    return all.filter((place) => {
      if (state.rows === "front") return front.has(data.state[place]);
      if (state.rows === "pins") return state.pins.includes(data.key[place]);
      return !emphasised || emphasised.has(data.key[place]);
    });
  }

  function sorted(rows) {
    const [name, down] = board.state.sort.startsWith("-") ? [board.state.sort.slice(1), true] : [board.state.sort, false];
    const column = board.columns.get(name);
    const value = column ? (place) => column.values[place] : { "": (place) => place, origin: (p) => board.data.origin[p],
      state: (p) => Object.keys(STATES).indexOf(board.data.state[p]) }[name] || ((place) => place);
    const sign = down ? -1 : 1;
    return rows.sort((a, b) => {
      const [one, other] = [value(a), value(b)];
      if (one === other) return a - b;
      if (one === null) return 1;
      if (other === null) return -1;
      return (one < other ? -1 : 1) * sign;
    });
  }

  function headings() {
    const fixed = [["", "candidate"], ["state", "state"], ["origin", "origin"]];
    return [...fixed, ...board.data.columns.map((column) => [column.name, column.heading])];
  }

  function drawHead() {
    head.replaceChildren();
    const row = element("div", { role: "row", "aria-rowindex": "1", class: "grid-row grid-head" });
    headings().forEach(([name, title], place) => {
      const sort = board.state.sort;
      const direction = sort === name ? "ascending" : sort === `-${name}` && name ? "descending" : "none";
      const cell = element("div", {
        role: "columnheader", class: "grid-cell", "aria-colindex": String(place + 1), "aria-sort": direction,
      });
      const arrow = { ascending: " ↑", descending: " ↓", none: "" }[direction];
      cell.append(element("button", { type: "button", "data-sort": name }, `${title}${arrow}`));
      row.append(cell);
    });
    head.append(row);
  }

  function drawRow(at, emphasised) {
    const place = order[at];
    const { data, state } = board;
    const key = data.key[place];
    const chosen = board.choice && board.choice.chosen === key;
    const classes = ["grid-row", at === active && "active", state.pins.includes(key) && "pinned", chosen && "chosen",
      state.open === key && "open", emphasised && !emphasised.has(key) && "faded"].filter(Boolean);
    const row = element("div", {
      role: "row", id: `row-${at}`, class: classes.join(" "), "aria-rowindex": String(at + 2), "data-at": String(at),
      "aria-selected": String(state.open === key), style: `top:${at * HEIGHT}px`,
    });
    const add = (text, title = "", kind = "") => {
      const cell = element("div", { role: "gridcell", class: `grid-cell ${kind}` }, text);
      if (title) cell.title = title;
      row.append(cell);
    };
    add(board.called(key), data.note[key] || "");
    const marks = { chosen: data.marked.includes(key), best: chosen, pinned: state.pins.includes(key) };
    Object.keys(marks).filter((mark) => marks[mark]).forEach((mark) => row.firstChild.append(element("span", { class: "mark" }, mark)));
    const [sign, said] = STATES[data.state[place]];
    add(`${sign} ${data.state[place]}`, said, `state-${data.state[place].replace(" ", "-")}`);
    add(data.origin[place]);
    data.columns.forEach((column) => {
      const [value, error] = [column.values[place], column.errors ? column.errors[place] : null];
      const text = board.format(value, column.form);
      add(error && value !== null ? `${text} ± ${board.format(error, column.form)}` : text, "", "number");
    });
    return row;
  }

  function drawBody() {
    body.style.height = `${order.length * HEIGHT}px`;
    const first = Math.max(0, Math.floor((grid.scrollTop - HEIGHT) / HEIGHT) - SPARE);
    const last = Math.min(order.length, first + Math.ceil(grid.clientHeight / HEIGHT) + 2 * SPARE);
    const rows = [];
    const emphasised = board.emphasised();
    for (let at = first; at < last; at += 1) rows.push(drawRow(at, emphasised));
    if (active < order.length && (active < first || active >= last)) rows.push(drawRow(active, emphasised));
    body.replaceChildren(...rows);
    if (order.length) grid.setAttribute("aria-activedescendant", `row-${active}`);
    else grid.removeAttribute("aria-activedescendant");
  }

  function draw() {
    if (!board.data || !grid) return;
    const here = order.length ? board.data.key[order[active]] : null;
    order = sorted(shownRows());
    const again = order.findIndex((place) => board.data.key[place] === here);
    active = again >= 0 ? again : Math.min(active, Math.max(order.length - 1, 0));
    grid.setAttribute("aria-rowcount", String(order.length + 1));
    grid.setAttribute("aria-colcount", String(headings().length));
    const widths = [board.data.runs.length > 1 ? 190 : 130, 116, 98, ...board.data.columns.map((column) => (column.errors ? 142 : 112))];
    grid.style.setProperty("--columns", widths.map((width) => `${width}fr`).join(" "));
    grid.style.setProperty("--wide", `${widths.reduce((sum, width) => sum + width)}px`);
    count.textContent = `${order.length.toLocaleString("en-US")} of ${board.data.key.length.toLocaleString("en-US")}`;
    drawHead();
    drawBody();
  }

  function move(to) {
    active = Math.max(0, Math.min(order.length - 1, to));
    const top = active * HEIGHT;
    if (top < grid.scrollTop) grid.scrollTop = top;
    else if (top + 2 * HEIGHT > grid.scrollTop + grid.clientHeight) grid.scrollTop = top + 2 * HEIGHT - grid.clientHeight;
    drawBody();
    board.point(board.data.key[order[active]]);
  }

  const keys = {
    ArrowDown: () => move(active + 1),
    ArrowUp: () => move(active - 1),
    PageDown: () => move(active + 10),
    PageUp: () => move(active - 10),
    Home: () => move(0),
    End: () => move(order.length - 1),
    Enter: () => board.set({ open: board.data.key[order[active]] }),
    " ": () => board.pin(board.data.key[order[active]]),
  };

  function press(event) {
    if (event.target !== grid || !order.length || !keys[event.key]) return;
    event.preventDefault();
    keys[event.key]();
  }

  function click(event) {
    const button = event.target.closest("[data-sort]");
    if (button) {
      const name = button.dataset.sort;
      board.set({ sort: board.state.sort === name && name ? `-${name}` : name });
      head.querySelector(`[data-sort="${CSS.escape(name)}"]`)?.focus();
      return;
    }
    const row = event.target.closest("[data-at]");
    if (!row) return;
    active = Number(row.dataset.at);
    board.set({ open: board.data.key[order[active]] });
  }

  board.mountTable = () => {
    const place = document.getElementById("candidates");
    if (!place || grid) return;
    count = document.getElementById("candidates-count");
    grid = element("div", { role: "grid", tabindex: "0", class: "grid", "aria-label":
      "Candidates. Arrow keys move, Enter opens a candidate, Space pins it for the comparison." });
    head = element("div", { role: "rowgroup", class: "grid-top" });
    body = element("div", { role: "rowgroup", class: "grid-body" });
    grid.append(head, body);
    place.append(grid);
    grid.addEventListener("keydown", press);
    grid.addEventListener("click", click);
    let waiting = false;
    grid.addEventListener("scroll", () => {
      if (waiting) return;
      waiting = true;
      requestAnimationFrame(() => { waiting = false; drawBody(); });
    });
    new ResizeObserver(() => board.data && drawBody()).observe(grid);
  };

  board.drawTable = draw;
  board.listen((names) => {
    if (names.some((name) => ["sort", "rows", "brush"].includes(name))) draw();
    else if (names.some((name) => ["pins", "open"].includes(name)) && board.data && grid) {
      if (board.state.rows === "pins") draw();
      else drawBody();
    }
  });
})();
