/* Charts: drawn by plotly.js from the figures of the server, in the colours of the page, with marks of the state on top. */
(() => {
  "use strict";
  const board = window.board;
  /* Fill of the region within the limits, on light and dark pages. */
  const REGION = "rgba(18,161,124,0.10)";
  const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "autoScale2d"] };

  const whenReady = new Promise((resolve) => {
    const look = () => (window.Plotly ? resolve() : window.setTimeout(look, 15));
    look();
  });

  /* Draw a figure into an element, as high as the element. */
  board.draw = (place, data, { height, ...layout }) => whenReady.then(() => window.Plotly.react(
    place, data, { ...layout, template: window.autopruneTheme.template(), autosize: true }, CONFIG));

  /* Figures of sections are written into the page as JSON; they are drawn when they come in sight. */
  const sight = new IntersectionObserver((entries) => entries.filter((entry) => entry.isIntersecting).forEach((entry) => {
    sight.unobserve(entry.target);
    drawSection(entry.target);
  }), { rootMargin: "300px" });

  function drawSection(place) {
    const figure = JSON.parse(place.dataset.figure);
    place.style.height = `${figure.layout.height || 420}px`;
    return board.draw(place, figure.data, figure.layout);
  }

  new MutationObserver((changes) => changes.forEach((change) => {
    if (change.type === "attributes") return void sight.observe(change.target);
    change.removedNodes.forEach((node) => node.querySelectorAll?.(".js-plotly-plot").forEach((one) => window.Plotly.purge(one)));
    change.addedNodes.forEach((node) => {
      if (node.dataset?.figure) sight.observe(node);
      node.querySelectorAll?.("[data-figure]").forEach((one) => sight.observe(one));
    });
  })).observe(document.documentElement, { childList: true, subtree: true, attributeFilter: ["data-figure"] });

  /* Whether a graphics card draws WebGL. Without one, shapes of the page are quicker. */
  let card = null;
  function hasCard() {
    if (card === null) {
      const gl = document.createElement("canvas").getContext("webgl");
      const known = gl && gl.getExtension("WEBGL_debug_renderer_info");
      const name = known ? gl.getParameter(known.UNMASKED_RENDERER_WEBGL) : "";
      card = Boolean(gl) && !/swiftshader|llvmpipe|software|basic render/i.test(name);
    }
    return card;
  }

  const drawable = (trace) => (trace.type === "scattergl" && !hasCard() ? { ...trace, type: "scatter" } : trace);

  /* Place of a candidate in the chart: [x, y], or null where it is not drawn. */
  function spot(figure, key) {
    for (const trace of figure.data) {
      const at = trace.customdata ? trace.customdata.indexOf(key) : -1;
      if (at >= 0) return [trace.x[at], trace.y[at]];
    }
    return null;
  }

  /* Rings around the pinned, the opened, the pointed and the best candidate. */
  function marks(figure, pointed) {
    const wanted = [
      ...board.state.pins.map((key) => [key, "pinned", "circle-open", 17, "--accent"]),
      [board.state.open, "open", "circle-open", 21, "--ink"],
      [pointed, "", "circle-open", 25, "--ink"],
      [board.choice && board.choice.chosen, "best within limits", "diamond-open", 21, "--good"],
    ];
    const found = wanted.flatMap(([key, text, symbol, size, token]) => {
      const at = key ? spot(figure, key) : null;
      return at ? [{ at, text: text && `${text}: ${board.called(key)}`, symbol, size, color: board.token(token) }] : [];
    });
    return {
      type: "scatter", mode: "markers", hoverinfo: "skip", showlegend: false, name: "marks", cliponaxis: false,
      x: found.map((one) => one.at[0]), y: found.map((one) => one.at[1]),
      marker: {
        symbol: found.map((one) => one.symbol), size: found.map((one) => one.size),
        color: found.map((one) => one.color), line: { width: 3, color: found.map((one) => one.color) }, opacity: 1,
      },
    };
  }

  /* The region within the limits, with its edges: where a limit is on neither axis, there is none. */
  function limitShapes(figure) {
    const bounds = (board.choice && board.choice.bounds) || {};
    const ends = ["x", "y"].map((axis, at) => {
      const values = figure.data.filter((trace) => trace.customdata).flatMap((trace) => trace[axis]).filter(Number.isFinite);
      const { min, max } = bounds[figure.axes[at]] || {};
      return { axis, least: Math.min(...values), most: Math.max(...values), min, max };
    });
    if (ends.every((one) => one.min === undefined && one.max === undefined)) return [];
    const region = { type: "rect", layer: "below", line: { width: 0 }, fillcolor: REGION };
    const edges = [];
    for (const { axis, least, most, min, max } of ends) {
      const within = (value) => Math.max(least, Math.min(most, value));
      if (min === undefined && max === undefined) {
        Object.assign(region, { [`${axis}ref`]: `${axis} domain`, [`${axis}0`]: 0, [`${axis}1`]: 1 });
        continue;
      }
      Object.assign(region, { [`${axis}0`]: within(min ?? least), [`${axis}1`]: within(max ?? most) });
      const other = axis === "x" ? "y" : "x";
      for (const at of [min, max].filter((value) => value !== undefined && value >= least && value <= most)) {
        edges.push({ type: "line", layer: "above", line: { width: 1.5, dash: "dash", color: board.token("--good") },
          [`${other}ref`]: `${other} domain`, [`${other}0`]: 0, [`${other}1`]: 1, [`${axis}0`]: at, [`${axis}1`]: at });
      }
    }
    return [region, ...edges];
  }

  let pointed = "";
  /* Point at a candidate in the chart, as an active row of the table does. */
  board.point = (key) => { pointed = key; decorate(); };

  /* Draw the chart with the marks of the state: once, however many changes come before the next frame. */
  let waiting = null;
  function decorate() {
    waiting = waiting || new Promise((resolve) => requestAnimationFrame(() => {
      waiting = null;
      resolve(drawFront());
    }));
    return waiting;
  }

  function drawFront() {
    const figure = board.figure;
    const place = document.getElementById("plot-front");
    if (!figure || !place || !place.offsetParent) return Promise.resolve();
    const flat = !figure.layout.scene;
    const emphasised = board.emphasised();
    const data = figure.data.map(drawable).map((trace) => {
      if (!trace.customdata) return trace;
      if (!flat) return emphasised ? faded(trace, emphasised) : trace;
      const selectedpoints = emphasised ? trace.customdata.flatMap((one, at) => (emphasised.has(one) ? [at] : [])) : null;
      return { ...trace, selectedpoints, unselected: { marker: { opacity: 0.12 } } };
    });
    if (flat) data.push(marks(figure, pointed));
    const shapes = [...(figure.layout.shapes || []), ...(flat ? limitShapes(figure) : [])];
    return board.draw(place, data, {
      ...figure.layout, shapes, showlegend: place.clientWidth >= 560, dragmode: flat ? "select" : "orbit", selections: [], uirevision: figure.view,
    });
  }

  /* Points of a 3-D chart cannot be unselected: those without emphasis become pale. */
  function faded(trace, emphasised) {
    const size = trace.marker.size;
    return { ...trace, marker: { ...trace.marker, size: trace.customdata.map((one, at) => {
      const own = Array.isArray(size) ? size[at] : size;
      return emphasised.has(one) ? own : own / 3;
    }) } };
  }

  function brushedFront(event) {
    if (!event || !event.range || !board.figure.axes) return;
    const [x, y] = board.figure.axes;
    const ends = (range) => [Math.min(...range), Math.max(...range)].map((value) => Number(value.toPrecision(6)));
    board.set({ brush: { ...board.state.brush, [x]: ends(event.range.x), [y]: ends(event.range.y) } });
  }

  function clicked(event) {
    const point = event.points.find((one) => one.customdata !== undefined);
    if (!point) return;
    const key = point.customdata;
    if (event.event && (event.event.shiftKey || event.event.ctrlKey || event.event.metaKey)) board.pin(key);
    else board.set({ open: key });
  }

  function listen(place, name, act) {
    if (place.dataset[name]) return;
    place.dataset[name] = "yes";
    place.on(`plotly_${name}`, act);
  }

  /* Draw the front from the figure of the server. */
  board.showFront = (figure) => {
    if (!figure) return;
    board.figure = figure;
    decorate().then(() => {
      const place = document.getElementById("plot-front");
      if (!place.on) return;
      listen(place, "click", clicked);
      listen(place, "selected", brushedFront);
      listen(place, "deselect", board.clearBrush);
      place.dataset.drawn = figure.version;
    });
  };

  board.redraw = () => {
    decorate();
    board.showLines();
  };

  /* Draw everything again, in the colours of the page as they are now. */
  board.repaint = () => {
    board.redraw();
    document.querySelectorAll("[data-figure].js-plotly-plot").forEach(drawSection);
  };
  board.listen((names) => {
    if (names.includes("brush") || names.includes("open")) board.redraw();
    else if (names.includes("pins")) decorate();
  });
})();
