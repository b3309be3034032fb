/* Box with the numbers of the candidate under the pointer. Its lines come from the server when they are asked for:
   those of thousands of candidates would be most of what a page loads. */
(() => {
  "use strict";
  const board = window.board;
  const APART = 14;
  const known = new Map();
  let asked = "";

  function box() {
    const found = document.getElementById("tip");
    if (found) return found;
    const made = board.element("div", { id: "tip", class: "tip", "aria-hidden": "true" });
    document.body.append(made);
    return made;
  }

  async function lines(key) {
    const name = `${board.data.version} ${key}`;
    if (!known.has(name)) {
      if (known.size > 500) known.clear();
      known.set(name, fetch(`hover/${key.replace(".", "/")}`).then((found) => (found.ok ? found.json() : [])).catch(() => []));
    }
    return known.get(name);
  }

  function put(tip, [x, y]) {
    const around = document.getElementById("plot-front").getBoundingClientRect();
    const [left, top] = [around.left + x, around.top + y];
    const fits = left + APART + tip.offsetWidth < window.innerWidth - 8;
    tip.style.left = `${Math.max(8, fits ? left + APART : left - APART - tip.offsetWidth)}px`;
    tip.style.top = `${Math.max(8, Math.min(top - tip.offsetHeight / 2, window.innerHeight - tip.offsetHeight - 8))}px`;
  }

  /* Show the box of the candidate that plotly's event points at; null hides it. */
  board.tell = (event) => {
    const point = event && event.points.find((one) => one.customdata !== undefined);
    const at = point && board.area(document.getElementById("plot-front"));
    return point ? board.tellAt(point.customdata, [at.x(point.x), at.y(point.y)]) : board.tellAt("");
  };

  /* Show the box of a candidate beside a place of the chart, in pixels; "" hides it. */
  board.tellAt = async (key, spot) => {
    if (key && key === asked) return;
    asked = key;
    if (!key) return void box().classList.remove("shown");
    const found = await lines(key);
    if (asked !== key || !found.length) return;
    const tip = box();
    tip.replaceChildren(...found.map((line) => board.element("div", {}, line)));
    put(tip, spot);
    tip.classList.add("shown");
  };
})();
