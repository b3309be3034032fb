/* The chart of the front. Plotly draws its axes, legend and labels, and tells what is pointed at; the points with their intervals
   and the marks of the state are painted on a canvas (25-canvas.js), so that a moved limit or a selection redraws nothing else. */
(() => {
  "use strict";
  const board = window.board;
  /* On a narrow page the legend is below the chart. */
  const NARROW = 560;
  const BELOW = { orientation: "h", x: 0, xanchor: "left", y: -0.16, yanchor: "top", font: { size: 11 }, entrywidth: 0 };
  let pointed = "";

  /* Traces of the figure with the numbers of the page's columns, and where each candidate is: key -> [trace, place]. */
  function fill(figure) {
    const columns = Object.entries(figure.axes).map(([axis, name]) => [axis, board.columns.get(name)]);
    const numbers = (column, keys) => keys.map((key) => (column && board.places.has(key) ? column.values[board.places.get(key)] : null));
    figure.traces = figure.data.map((trace) => (trace.customdata && !trace.x
      ? { ...trace, ...Object.fromEntries(columns.map(([axis, column]) => [axis, numbers(column, trace.customdata)])) } : trace));
    figure.spots = new Map();
    figure.traces.forEach((trace) => (trace.customdata || []).forEach((key, at) => figure.spots.set(key, [trace, at])));
    const points = figure.traces.filter((trace) => trace.customdata);
    figure.reach = Object.fromEntries(columns.map(([axis]) => {
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
    const ends = ["x", "y"].map((axis) => {
      const [least, most] = figure.reach[axis];
      const { min, max } = bounds[figure.axes[axis]] || {};
      return { axis, least, most, min, max };
    });
    if (ends.every((one) => one.min === undefined && one.max === undefined)) return [];
    const region = { type: "rect", layer: "below", line: { width: 0 }, fillcolor: board.token("--region") };
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

  const isNarrow = (chart) => chart.clientWidth < NARROW;
  const legend = (chart) => (isNarrow(chart) ? { legend: BELOW } : {});

  const place = () => document.getElementById("plot-front");
  const isFlat = (figure) => !figure.layout.scene;

  /* Group of the legend that switches a trace off. */
  const groupOf = (trace, number) => trace.legendgroup || `trace ${number}`;

  /* What plotly draws of a trace whose points are painted: one entry of the legend. Plotly finds the point under the pointer
     without drawing any; in space it knows of none. */
  function bare(trace, number, flat) {
    const own = { type: flat ? "scatter" : "scatter3d", legendgroup: groupOf(trace, number), legendrank: trace.legendrank, name: trace.name, opacity: trace.opacity };
    const entry = { ...own, mode: trace.mode, x: [null], y: [null], ...(flat ? {} : { z: [null] }), line: trace.line, marker: sample(trace.marker), showlegend: trace.showlegend, hoverinfo: "skip" };
    if (!trace.customdata || !flat) return [given(entry)];
    const { x, y, customdata } = trace;
    return [given({ ...own, mode: "none", x, y, customdata, hoverinfo: "none", showlegend: false }), given(entry)];
  }

  /* Plotly takes a property that is undefined for one that is there. */
  const given = (trace) => Object.fromEntries(Object.entries(trace).filter(([, value]) => value !== undefined));

  /* Marker of the legend: that of the first point, as bold as can be seen alone. */
  function sample(marker) {
    if (!marker) return marker;
    const first = Object.fromEntries(Object.entries(marker).map(([name, value]) => [name, board.each(value, 0)]));
    return { ...first, opacity: Math.max(first.opacity ?? 1, 0.75), size: Math.max(first.size, 6) };
  }

  /* Traces that the legend has not switched off. */
  function shownTraces(figure, chart) {
    const hidden = new Set(chart._fullData.filter((trace) => trace.visible !== true).map((trace) => trace.legendgroup));
    return figure.traces.filter((trace, number) => !hidden.has(groupOf(trace, number)));
  }

  /* Paint the points and the marks of the state: once, however many changes come before the next frame. */
  let waiting = 0;
  board.paintFront = () => {
    waiting = waiting || requestAnimationFrame(() => { waiting = 0; paint(); });
  };

  /* Whether plotly has drawn the axes of a figure. */
  const isDrawn = (figure, chart) => Boolean(figure && figure.drawn && chart && chart.dataset.painting === figure.drawn);

  function paint() {
    const [figure, chart] = [board.figure, place()];
    if (!isDrawn(figure, chart)) return;
    const strong = board.emphasised();
    const traces = shownTraces(figure, chart);
    if (isFlat(figure)) board.paint(chart, { traces, marks: marks(figure), shapes: limitShapes(figure), strong });
    else board.paintSpace(chart, { traces, marks: marks(figure), strong });
    /* Keys of the candidates that are painted in full, for the tests and the benchmark. */
    board.bold = traces.flatMap((trace) => (trace.customdata || []).filter((key) => !strong || strong.has(key)));
  }

  let drawing = 0;
  /* Draw the chart anew. */
  board.drawFront = () => {
    const [figure, chart] = [board.figure, place()];
    return figure && figure.spots && chart && chart.offsetParent ? drawFigure(figure, chart) : Promise.resolve();
  };

  /* The chart has come in sight again, perhaps in another size. */
  board.showChart = () => {
    const [figure, chart] = [board.figure, place()];
    if (isDrawn(figure, chart) && Math.abs(chart._fullLayout.width - chart.clientWidth) < 1) board.paintFront();
    else board.drawFront();
  };

  /* Wait until the browser has shown what is painted, and has nothing else to do. */
  const shown = () => new Promise((done) => requestAnimationFrame(() => requestIdleCallback(done, { timeout: 300 })));

  async function drawFigure(figure, chart) {
    drawing += 1;
    figure.drawn = String(drawing);
    if (chart.dataset.view === figure.view) {
      /* New points come at once, on the axes that are there; plotly takes its time. */
      chart.dataset.painting = figure.drawn;
      paint();
      await shown();
      if (figure !== board.figure) return;
    }
    const flat = isFlat(figure);
    const { Icons } = await board.plotly;
    const own = flat ? { dragmode: "select", selections: [] } : { dragmode: "orbit", scene: board.sceneAround(figure.layout.scene, figure.reach, isNarrow(chart)) };
    const data = figure.traces.flatMap((trace, number) => bare(trace, number, flat));
    await board.draw(chart, flat ? data : [...data, board.corners(figure.reach)], { ...figure.layout, ...own, ...legend(chart), uirevision: figure.view }, {
      modeBarButtonsToRemove: ["lasso2d", "autoScale2d", "toImage", "resetCameraLastSave3d"],
      modeBarButtonsToAdd: [{ name: "Download plot as a PNG", icon: Icons.camera, click: board.savePicture }],
    });
    if (figure !== board.figure) return;
    Object.assign(chart.dataset, { painting: figure.drawn, view: figure.view });
    ["afterplot", "relayouting", "relayout"].forEach((name) => listen(chart, name, paint));
    if (!flat) board.watchSpace(chart, { paint, open: pick, tell: board.tellAt });
    paint();
  }

  /* The chart as it is painted, as a figure that plotly draws alone. Points in space cannot be unselected: they become small. */
  board.wholeFigure = () => (isFlat(board.figure) ? flatFigure() : spaceFigure());

  function spaceFigure() {
    const { figure } = board;
    const [chart, strong, rings] = [place(), board.emphasised(), marks(figure)];
    const faded = (trace) => trace.customdata.map((one, at) => board.each(trace.marker.size, at) / (!strong || strong.has(one) ? 1 : 3));
    const data = shownTraces(figure, chart).map((trace) => ({ ...trace, type: "scatter3d", marker: { ...trace.marker, size: faded(trace) } }));
    const { camera } = chart._fullLayout.scene;
    const scene = { ...board.sceneAround(figure.layout.scene, figure.reach), camera };
    return { data: [...data, { ...rings, type: "scatter3d" }], layout: { ...figure.layout, scene, template: window.autopruneTheme.template() } };
  }

  function flatFigure() {
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
  }

  board.savePicture = () => {
    const { width, height } = place()._fullLayout;
    return window.Plotly.downloadImage(board.wholeFigure(), { format: "png", width, height, scale: 2, filename: "front" });
  };

  /* Point at a candidate in the chart, as an active row of the table does. */
  board.point = (key) => { pointed = key; board.paintFront(); };

  function brushed(event) {
    if (!event || !event.range || !isFlat(board.figure)) return;
    const { x, y } = board.figure.axes;
    const ends = (range) => [Math.min(...range), Math.max(...range)].map((value) => Number(value.toPrecision(6)));
    board.set({ brush: { ...board.state.brush, [x]: ends(event.range.x), [y]: ends(event.range.y) } });
    window.Plotly.relayout(place(), { selections: [] });
  }

  function clicked(event) {
    const point = event.points.find((one) => one.customdata !== undefined);
    if (point) pick(point.customdata, event.event);
  }

  function pick(key, event) {
    if (event && (event.shiftKey || event.ctrlKey || event.metaKey)) board.pin(key);
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
      listen(chart, "hover", board.tell);
      listen(chart, "unhover", () => board.tell(null));
      listen(chart, "selected", brushed);
      listen(chart, "deselect", board.clearBrush);
      chart.dataset.drawn = figure.version;
    });
  }

  board.listen((names) => ["brush", "open", "pins"].some((name) => names.includes(name)) && board.paintFront());
})();
