/* Parallel coordinates: every candidate as a line over all quantities, drawn on a canvas along the axes of the server.
   Plotly draws the same figure with WebGL, which takes seconds where there is no graphics card. */
(() => {
  "use strict";
  const board = window.board;
  const AROUND = { left: 56, right: 40, top: 44, bottom: 16 };
  const HEIGHT = 300;
  const GRIP = 17;
  const SVG = "http://www.w3.org/2000/svg";
  let figure = null;
  let drag = null;
  let seen = false;

  const drawn = (tag, attributes, text = "") => {
    const made = document.createElementNS(SVG, tag);
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    made.textContent = text;
    return made;
  };

  /* Labels of the figure are written for plotly; those of the columns are plain. */
  const called = ({ name, label }) => {
    const full = board.columns.has(name) ? board.columns.get(name).short : label;
    const text = full.length > 17 ? full.replace(/ \([^()]*\)$/, "") : full;
    return text.length > 17 ? `${text.slice(0, 16)}…` : text;
  };

  /* Axes with texts in place of numbers are logarithmic. */
  const isLog = (axis) => axis.ticktext !== undefined;
  const toAxis = (axis, value) => (isLog(axis) ? Math.log10(value) : value);
  const fromAxis = (axis, at) => Number((isLog(axis) ? 10 ** at : at).toPrecision(6));

  /* Candidates that were trained to the end, with their places along each axis; null where one is not known. */
  function fill(run, split) {
    const shown = (board.data.lines[run] || {})[split] || [];
    const columns = shown.map((axis) => board.columns.get(axis.column).values);
    const places = board.data.key.flatMap((key, place) => (key.startsWith(`${run}.`) && board.data.state[place] !== "stopped" &&
      columns.every((values) => values[place] !== null) ? [place] : []));
    return {
      data: board.data, run, split, places,
      axes: shown.map((axis, number) => ({ ...axis, values: places.map((place) => toAxis(axis, columns[number][place])) })),
    };
  }

  function measure(place) {
    const axes = figure.axes;
    const width = Math.max(place.clientWidth, axes.length * 92);
    const step = (width - AROUND.left - AROUND.right) / Math.max(axes.length - 1, 1);
    const tall = HEIGHT - AROUND.top - AROUND.bottom;
    return {
      axes, width,
      x: (number) => AROUND.left + number * step,
      y: (axis, at) => AROUND.top + tall * (1 - (at - axis.range[0]) / (axis.range[1] - axis.range[0])),
      at: (axis, y) => axis.range[0] + (1 - Math.max(0, Math.min(1, (y - AROUND.top) / tall))) * (axis.range[1] - axis.range[0]),
    };
  }

  function ticks(axis) {
    if (isLog(axis)) return axis.tickvals.map((at, number) => [at, axis.ticktext[number]]);
    return [0, 1, 2, 3, 4].map((part) => {
      const at = axis.range[0] + (part / 4) * (axis.range[1] - axis.range[0]);
      return [at, String(Number(at.toPrecision(3)))];
    });
  }

  function drawAxis(layer, sizes, axis, number) {
    const x = sizes.x(number);
    layer.append(drawn("line", { x1: x, x2: x, y1: AROUND.top, y2: HEIGHT - AROUND.bottom, class: "axis" }));
    ticks(axis).forEach(([at, text]) => {
      const y = sizes.y(axis, at);
      layer.append(drawn("text", { x: x - 6, y: y + 4, class: "tick" }, text));
    });
    layer.append(drawn("text", { x, y: 18, class: "name" }, called(axis)));
    const range = drag && drag.axis === axis ? drag.range : board.state.brush[axis.name];
    if (range) {
      const ends = range.map((value) => sizes.y(axis, toAxis(axis, value)));
      const [top, bottom] = [Math.max(AROUND.top, Math.min(...ends)), Math.min(HEIGHT - AROUND.bottom, Math.max(...ends))];
      layer.append(drawn("rect", { x: x - 7, y: top, width: 14, height: Math.max(bottom - top, 2), rx: 3, class: "brushed" }));
    }
    layer.append(drawn("rect", { x: x - GRIP, y: AROUND.top - 6, width: 2 * GRIP, height: HEIGHT - AROUND.top - AROUND.bottom + 12, class: "grip", "data-axis": number }));
  }

  function drawLines(canvas, sizes) {
    const pen = board.pen(canvas, sizes.width, HEIGHT);
    const { key: keys, state } = board.data;
    const emphasised = board.emphasised();
    const strong = new Set(["front", "as good", "dense"]);
    const level = (place) => {
      const key = keys[place];
      if (key === board.state.open || key === (board.choice && board.choice.chosen)) return 3;
      if (emphasised) return emphasised.has(key) ? 2 : 0;
      return strong.has(state[place]) ? 2 : 1;
    };
    const levels = figure.places.map(level);
    /* Many lines are thin glass, few are ink. */
    const glass = (wanted) => Math.max(0.05, Math.min(0.9, 50 / levels.filter((found) => found === wanted).length));
    const looks = [["--line", 0.9, 1], ["--edge", glass(1), 1], ["--accent", glass(2), 1.3], ["--good", 1, 3]];
    looks.forEach(([token, alpha, width], wanted) => {
      pen.strokeStyle = board.token(token);
      pen.globalAlpha = alpha;
      pen.lineWidth = width;
      pen.beginPath();
      levels.forEach((found, place) => found === wanted && sizes.axes.forEach((axis, number) => {
        const to = [sizes.x(number), sizes.y(axis, axis.values[place])];
        if (number) pen.lineTo(...to); else pen.moveTo(...to);
      }));
      pen.stroke();
    });
  }

  let waiting = 0;
  /* Draw the lines: once, however many changes come before the next frame. */
  board.showLines = () => {
    waiting = waiting || requestAnimationFrame(() => { waiting = 0; show(); });
  };

  function show() {
    const place = document.getElementById("plot-parallel");
    if (!place || !board.data || !place.offsetParent) return;
    const { run, split } = board.state;
    if (!figure || figure.data !== board.data || figure.run !== run || figure.split !== split) figure = fill(run, split);
    if (!place.firstChild) mount(place);
    const [canvas, layer] = place.children;
    if (!figure.axes.length) {
      canvas.width = 0;
      return void layer.replaceChildren();
    }
    const sizes = measure(place);
    if (seen) drawLines(canvas, sizes);
    layer.setAttribute("width", sizes.width);
    layer.setAttribute("height", HEIGHT);
    layer.replaceChildren();
    sizes.axes.forEach((axis, number) => drawAxis(layer, sizes, axis, number));
  }

  function mount(place) {
    place.append(document.createElement("canvas"), drawn("svg", {}));
    place.addEventListener("pointerdown", start);
    place.addEventListener("pointermove", move);
    place.addEventListener("pointerup", end);
    new ResizeObserver(() => board.showLines()).observe(place);
    /* Thousands of lines are drawn when they come in sight. */
    new IntersectionObserver(([entry]) => {
      seen = entry.isIntersecting;
      if (seen) board.showLines();
    }, { rootMargin: "100px" }).observe(place);
  }

  function start(event) {
    const grip = event.target.closest("[data-axis]");
    if (!grip) return;
    event.preventDefault();
    event.currentTarget.setPointerCapture(event.pointerId);
    const sizes = measure(event.currentTarget);
    const axis = sizes.axes[Number(grip.dataset.axis)];
    drag = { axis, from: height(event), range: null };
  }

  const height = (event) => event.clientY - event.currentTarget.getBoundingClientRect().top;

  function move(event) {
    if (!drag || Math.abs(height(event) - drag.from) < 3) return;
    const sizes = measure(event.currentTarget);
    const ends = [drag.from, height(event)].map((y) => fromAxis(drag.axis, sizes.at(drag.axis, y)));
    drag.range = [Math.min(...ends), Math.max(...ends)];
    board.showLines();
  }

  /* A drag selects a range; a click without one takes the selection of the axis back. */
  function end() {
    if (!drag) return;
    const brush = { ...board.state.brush };
    if (drag.range) brush[drag.axis.name] = drag.range;
    else delete brush[drag.axis.name];
    drag = null;
    board.set({ brush });
  }

  board.listen((names) => ["brush", "open", "run", "split"].some((name) => names.includes(name)) && board.showLines());
})();
