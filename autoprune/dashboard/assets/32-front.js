/* The chart of the front. Plotly draws its axes, intervals, legend and labels, and tells what is pointed at; the points and the
   marks of the state are painted on a canvas (25-canvas.js), so that a moved limit or a selection redraws nothing else. */
(() => {
  "use strict";
  const board = window.board;
  /* Fill of the region within the limits, on light and dark pages. */
  const REGION = "rgba(18,161,124,0.10)";
  /* On a narrow page the legend is below the chart. */
  const NARROW = 560;
  const BELOW = { orientation: "h", x: 0, xanchor: "left", y: -0.16, yanchor: "top", font: { size: 11 }, entrywidth: 0 };
  let pointed = "";

  /* Traces of the figure with the numbers of the page's columns, and where each candidate is: key -> [trace, place]. */
  function fill(figure) {
    const [x, y] = (figure.axes || []).map((name) => board.columns.get(name));
    const numbers = (column, keys) => keys.map((key) => (column && board.places.has(key) ? column.values[board.places.get(key)] : null));
    figure.traces = figure.data.map((trace) => (trace.customdata && !trace.x
      ? { ...trace, x: numbers(x, trace.customdata), y: numbers(y, trace.customdata) } : trace));
    figure.spots = new Map();
    figure.traces.forEach((trace) => (trace.customdata || []).forEach((key, at) => figure.spots.set(key, [trace, at])));
    const points = figure.traces.filter((trace) => trace.customdata);
    figure.reach = Object.fromEntries(["x", "y"].map((axis) => {
      const values = points.flatMap((trace) => trace[axis]).filter(Number.isFinite);
      return [axis, values.reduce(([low, high], value) => [Math.min(low, value), Math.max(high, value)], [Infinity, -Infinity])];
    }));
  }

  /* Rings around the pinned, the opened, the pointed and the best candidate. */
  function marks(figure) {
    const wanted = [
      ...board.state.pins.map((key) => [key, "circle-open", 17, "--accent"]),
      [board.state.open, "circle-open", 21, "--ink"],
      [pointed, "circle-open", 25, "--ink"],
      [board.choice && board.choice.chosen, "diamond-open", 21, "--good"],
    ];
    const found = wanted.filter(([key]) => key && figure.spots.has(key)).map(([key, symbol, size, token]) => {
      const [trace, at] = figure.spots.get(key);
      return { x: trace.x[at], y: trace.y[at], z: trace.z && trace.z[at], symbol, size, color: board.token(token) };
    });
    const part = (name) => found.map((one) => one[name]);
    return {
      type: "scatter", mode: "markers", hoverinfo: "skip", showlegend: false, name: "marks", x: part("x"), y: part("y"),
      ...(isFlat(figure) ? {} : { z: part("z") }),
      marker: { symbol: part("symbol"), size: part("size"), color: part("color"), line: { width: 3, color: part("color") }, opacity: 1 },
    };
  }

  /* The region within the limits, with its edges: where a limit is on neither axis, there is none. */
  function limitShapes(figure) {
    const bounds = (board.choice && board.choice.bounds) || {};
    const ends = ["x", "y"].map((axis, at) => {
      const [least, most] = figure.reach[axis];
      const { min, max } = bounds[figure.axes[at]] || {};
      return { axis, least, most, min, max };
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

  const legend = (chart) => (chart.clientWidth >= NARROW ? {} : { legend: BELOW });

  const place = () => document.getElementById("plot-front");
  const isFlat = (figure) => !figure.layout.scene;

  /* Group of the legend that switches a trace off. */
  const groupOf = (trace, number) => trace.legendgroup || `trace ${number}`;

  /* What plotly draws of a trace whose points are painted: its intervals, and one entry of the legend. Plotly finds the point
     under the pointer without drawing any. */
  function bare(trace, number) {
    const own = { type: "scatter", legendgroup: groupOf(trace, number), legendrank: trace.legendrank, name: trace.name, opacity: trace.opacity };
    const entry = { ...own, mode: trace.mode, x: [null], y: [null], line: trace.line, marker: first(trace.marker), showlegend: trace.showlegend, hoverinfo: "skip" };
    if (!trace.customdata) return [given(entry)];
    const { x, y, customdata, error_x, error_y } = trace;
    return [given({ ...own, mode: "none", x, y, customdata, error_x, error_y, hoverinfo: "none", showlegend: false }), given(entry)];
  }

  /* Plotly takes a property that is undefined for one that is there. */
  const given = (trace) => Object.fromEntries(Object.entries(trace).filter(([, value]) => value !== undefined));

  const first = (marker) => marker && Object.fromEntries(Object.entries(marker).map(([name, value]) => [name, board.each(value, 0)]));

  /* Traces that the legend has not switched off. */
  function shownTraces(figure, chart) {
    const hidden = new Set(chart._fullData.filter((trace) => trace.visible !== true).map((trace) => trace.legendgroup));
    return figure.traces.filter((trace, number) => !hidden.has(groupOf(trace, number)));
  }

  /* Paint the points and the marks of the state: once, however many changes come before the next frame. */
  let waiting = 0;
  board.paintFront = () => {
    waiting = waiting || requestAnimationFrame(() => {
      waiting = 0;
      if (board.figure && !isFlat(board.figure)) board.drawFront();
      else paint();
    });
  };

  /* Whether plotly has drawn the axes of a figure of the plane. */
  const isDrawn = (figure, chart) => Boolean(figure && figure.drawn && chart && chart.dataset.painting === figure.drawn);

  function paint() {
    const [figure, chart] = [board.figure, place()];
    if (!isDrawn(figure, chart)) return;
    const strong = board.emphasised();
    const traces = shownTraces(figure, chart);
    board.paint(chart, { traces, marks: marks(figure), shapes: limitShapes(figure), strong });
    /* Keys of the candidates that are painted in full, for the tests and the benchmark. */
    board.bold = traces.flatMap((trace) => (trace.customdata || []).filter((key) => !strong || strong.has(key)));
  }

  let drawing = 0;
  /* Draw the chart anew. */
  board.drawFront = () => {
    const [figure, chart] = [board.figure, place()];
    if (!figure || !figure.spots || !chart || !chart.offsetParent) return Promise.resolve();
    return isFlat(figure) ? drawFlat(figure, chart) : drawSpace(figure, chart);
  };

  /* The chart has come in sight again, perhaps in another size. */
  board.showChart = () => {
    const [figure, chart] = [board.figure, place()];
    if (isDrawn(figure, chart) && chart._fullLayout.width === chart.clientWidth) board.paintFront();
    else board.drawFront();
  };

  /* Wait until the browser has shown what is painted, and has nothing else to do. */
  const shown = () => new Promise((done) => requestAnimationFrame(() => requestIdleCallback(done, { timeout: 300 })));

  async function drawFlat(figure, chart) {
    drawing += 1;
    figure.drawn = String(drawing);
    if (chart.dataset.view === figure.view) {
      /* New points come at once, on the axes that are there; plotly takes its time. */
      chart.dataset.painting = figure.drawn;
      paint();
      await shown();
      if (figure !== board.figure) return undefined;
    }
    const data = figure.traces.flatMap(bare);
    const layout = { ...figure.layout, dragmode: "select", selections: [], ...legend(chart), uirevision: figure.view };
    return board.plotly.then(({ Icons }) => board.draw(chart, data, layout, {
      modeBarButtonsToRemove: ["lasso2d", "autoScale2d", "toImage"],
      modeBarButtonsToAdd: [{ name: "Download plot as a PNG", icon: Icons.camera, click: board.savePicture }],
    })).then(() => {
      if (figure !== board.figure) return;
      Object.assign(chart.dataset, { painting: figure.drawn, view: figure.view });
      listen(chart, "afterplot", paint);
      listen(chart, "relayouting", paint);
      listen(chart, "relayout", paint);
      paint();
    });
  }

  /* Points in space are few enough for plotly, or WebGL is there. They cannot be unselected: those without emphasis become small. */
  function drawSpace(figure, chart) {
    const strong = board.emphasised();
    const rings = marks(figure);
    const data = figure.traces.map((trace) => (trace.customdata && strong ? faded(trace, strong) : trace));
    if (rings.x.length) data.push({ ...rings, type: "scatter3d", marker: { ...rings.marker, size: rings.marker.size.map((size) => 1.2 * size) } });
    board.unpaint(chart);
    Object.assign(chart.dataset, { painting: "", view: figure.view });
    return board.draw(chart, data, { ...figure.layout, ...legend(chart), dragmode: "orbit", uirevision: figure.view });
  }

  function faded(trace, strong) {
    const size = trace.customdata.map((one, at) => board.each(trace.marker.size, at) / (strong.has(one) ? 1 : 3));
    return { ...trace, marker: { ...trace.marker, size } };
  }

  /* The chart as it is painted, as a figure that plotly draws alone. */
  board.flatFigure = () => {
    const figure = board.figure;
    const strong = board.emphasised();
    const chart = place();
    const data = shownTraces(figure, chart).map((trace) => (trace.customdata ? {
      ...trace, selectedpoints: strong ? trace.customdata.flatMap((one, at) => (strong.has(one) ? [at] : [])) : null,
      unselected: { marker: { opacity: board.unselected } },
    } : trace));
    const shapes = [...(figure.layout.shapes || []), ...limitShapes(figure)];
    const { xaxis, yaxis } = chart._fullLayout;
    const ranged = { xaxis: { ...figure.layout.xaxis, range: xaxis.range }, yaxis: { ...figure.layout.yaxis, range: yaxis.range } };
    return { data: [...data, marks(figure)], layout: { ...figure.layout, ...ranged, shapes, template: window.autopruneTheme.template() } };
  };

  board.savePicture = () => {
    const { width, height } = place()._fullLayout;
    return window.Plotly.downloadImage(board.flatFigure(), { format: "png", width, height, scale: 2, filename: "front" });
  };

  /* Point at a candidate in the chart, as an active row of the table does. */
  board.point = (key) => { pointed = key; board.paintFront(); };

  function brushed(event) {
    if (!event || !event.range || !board.figure.axes) return;
    const [x, y] = board.figure.axes;
    const ends = (range) => [Math.min(...range), Math.max(...range)].map((value) => Number(value.toPrecision(6)));
    board.set({ brush: { ...board.state.brush, [x]: ends(event.range.x), [y]: ends(event.range.y) } });
    window.Plotly.relayout(place(), { selections: [] });
  }

  function clicked(event) {
    const point = event.points.find((one) => one.customdata !== undefined);
    if (!point) return;
    const key = point.customdata;
    if (event.event && (event.event.shiftKey || event.event.ctrlKey || event.event.metaKey)) board.pin(key);
    else board.set({ open: key });
  }

  function listen(chart, name, act) {
    if (chart.dataset[name]) return;
    chart.dataset[name] = "yes";
    chart.on(`plotly_${name}`, act);
  }

  /* Draw the figure of the server with the columns of the same moment, when both have come. Returns whether there is a new one. */
  board.drawNew = () => {
    const { figure, data } = board;
    const isNew = figure && data && figure.version === data.version && !figure.spots;
    if (isNew) show(figure);
    return isNew;
  };

  function show(figure) {
    fill(figure);
    board.drawFront().then(() => {
      const chart = place();
      if (!chart.on) return;
      listen(chart, "click", clicked);
      /* Plotly itself says what there is to say of a point in space. */
      listen(chart, "hover", (event) => board.tell(isFlat(board.figure) ? event : null));
      listen(chart, "unhover", () => board.tell(null));
      listen(chart, "selected", brushed);
      listen(chart, "deselect", board.clearBrush);
      chart.dataset.drawn = figure.version;
    });
  }

  board.listen((names) => ["brush", "open", "pins"].some((name) => names.includes(name)) && board.paintFront());
})();
