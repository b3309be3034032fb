/* Points in space on a canvas over plotly's axes: they follow its camera, and a selection redraws nothing else. */
(() => {
  "use strict";
  const board = window.board;
  /* Pixels around the pointer in which a point is found, and those that a click may move. */
  const NEAR = 14;
  const STILL = 4;
  /* Diameters of plotly's points in space are smaller than those of the plane. */
  const GROWN = 1.6;
  const AXES = ["x", "y", "z"];
  /* Points as they are on the screen, the nearest ones last. */
  let spots = [];

  /* Places of the candidates on the screen, for the tests. */
  board.spotsInSpace = () => Object.fromEntries(spots.map(({ key, spot }) => [key, spot]));

  const times = (matrix, [x, y, z, one]) => [0, 1, 2, 3].map((row) => matrix[row] * x + matrix[4 + row] * y + matrix[8 + row] * z + matrix[12 + row] * one);

  /* Plotly's scene; undefined before it is drawn, and where there is no WebGL. */
  const sceneOf = (chart) => chart._fullLayout?.scene?._scene;

  const isLog = (axis) => axis.type === "log";
  const along = (axis, value) => (isLog(axis) ? Math.log10(value) : value);

  /* Function from three numbers to [pixels across, pixels down, distance]. */
  function projection(chart) {
    const { _size: { l, t, w, h }, scene } = chart._fullLayout;
    const { glplot, dataScale } = sceneOf(chart);
    const { model, view, projection: lens } = glplot.cameraParams;
    const axes = AXES.map((name) => scene[`${name}axis`]);
    return (values) => {
      const at = values.map((value, place) => along(axes[place], value) * dataScale[place]);
      const [x, y, , far] = times(lens, times(view, times(model, [...at, 1])));
      return [l + w * (0.5 + (0.5 * x) / far), t + h * (0.5 - (0.5 * y) / far), far];
    };
  }

  const at = (trace, place) => AXES.map((name) => trace[name][place]);

  function seen(traces, project) {
    const found = traces.filter((trace) => trace.customdata).flatMap((trace) => trace.customdata.flatMap((key, place) => {
      const values = at(trace, place);
      return values.includes(null) ? [] : [{ key, trace, place, spot: project(values) }];
    }));
    return found.sort((one, other) => other.spot[2] - one.spot[2]);
  }

  /* A line from a marked point down to the floor says where it is. */
  function paintStems(pen, marks, low, project) {
    pen.save();
    marks.x.forEach((_, place) => {
      const [x, y, z] = at(marks, place);
      const [[fromX, fromY], [toX, toY]] = [project([x, y, z]), project([x, y, low])];
      pen.strokeStyle = pen.fillStyle = marks.marker.color[place];
      pen.setLineDash([3, 3]);
      pen.beginPath();
      pen.moveTo(fromX, fromY);
      pen.lineTo(toX, toY);
      pen.stroke();
      pen.beginPath();
      pen.arc(toX, toY, 2.5, 0, 2 * Math.PI);
      pen.fill();
    });
    pen.restore();
  }

  /* Paint traces and marks over a scene that plotly has drawn. Points whose keys are not in `strong` are faded; null for none. */
  board.paintSpace = (chart, { traces, marks, strong }) => {
    const pen = board.penOf(chart);
    if (!pen || !sceneOf(chart)?.glplot) return;
    const project = projection(chart);
    const { zaxis, xaxis, yaxis } = chart._fullLayout.scene;
    const [middle, low] = [[xaxis, yaxis, zaxis].map((axis) => (axis.range[0] + axis.range[1]) / 2), zaxis.range[0]];
    const value = (axis, end) => (isLog(axis) ? 10 ** end : end);
    const [, , centre] = project([xaxis, yaxis, zaxis].map((axis, place) => value(axis, middle[place])));
    spots = seen(traces, project);
    pen.save();
    for (const { key, trace: { marker }, place, spot: [x, y, far] } of spots) {
      const size = GROWN * board.each(marker.size, place) * Math.max(0.6, Math.min(1.6, centre / far));
      const alpha = strong && !strong.has(key) ? board.unselected : board.each(marker.opacity, place) ?? 1;
      board.stamp(pen, { symbol: board.each(marker.symbol, place), color: board.each(marker.color, place), size: Math.round(2 * size) / 2, width: 0, alpha }, x, y);
    }
    pen.restore();
    paintStems(pen, marks, value(zaxis, low), project);
    marks.x.forEach((_, place) => {
      const [x, y] = project(at(marks, place));
      const { symbol, size, color } = marks.marker;
      pen.save();
      board.stamp(pen, { symbol: symbol[place], color: color[place], size: size[place], width: 3, alpha: 1 }, x, y);
      pen.restore();
    });
  };

  /* Candidate at a place of the screen: of those that are near, the one in front. */
  function under(chart, event) {
    const { left, top } = chart.getBoundingClientRect();
    const away = ({ spot: [x, y] }) => Math.hypot(x - (event.clientX - left), y - (event.clientY - top));
    const near = spots.filter((one) => away(one) < NEAR);
    return near.reduce((best, one) => (best && away(best) + 2 < away(one) ? best : one), null);
  }

  let pressed = null;
  /* Follow the camera, and the pointer: act.open and act.tell are called with the key and the place of a candidate. */
  board.watchSpace = (chart, { paint, open, tell }) => {
    const glplot = sceneOf(chart)?.glplot;
    if (glplot && !glplot.painted) {
      glplot.painted = true;
      const own = glplot.onrender;
      glplot.onrender = () => { own?.(); paint(); };
    }
    if (chart.dataset.space) return;
    chart.dataset.space = "yes";
    const inSpace = (event) => sceneOf(chart) && event.target.closest?.(".gl-container");
    chart.addEventListener("pointermove", (event) => {
      if (!sceneOf(chart)) return;
      const found = inSpace(event) && !event.buttons && under(chart, event);
      tell(found ? found.key : "", found ? found.spot : []);
    }, true);
    chart.addEventListener("pointerleave", () => sceneOf(chart) && tell("", []));
    chart.addEventListener("pointerdown", (event) => { pressed = inSpace(event) ? [event.clientX, event.clientY] : null; }, true);
    chart.addEventListener("pointerup", (event) => {
      if (!pressed || !sceneOf(chart) || Math.hypot(event.clientX - pressed[0], event.clientY - pressed[1]) > STILL) return;
      const found = under(chart, event);
      if (found) open(found.key, event);
    }, true);
  };

  /* Two points that nobody sees, as plotly's scene has no size without any. */
  board.corners = (reach) => ({
    type: "scatter3d", mode: "markers", marker: { opacity: 0, size: 1 }, hoverinfo: "skip", showlegend: false, ...reach,
  });

  /* Layout of a scene whose axes reach a little beyond all points, which plotly does not have, seen from farther on a narrow page. */
  board.sceneAround = (scene, reach, narrow) => {
    const { eye } = scene.camera;
    const camera = narrow ? { ...scene.camera, eye: { x: 1.45 * eye.x, y: 1.45 * eye.y, z: 1.45 * eye.z } } : scene.camera;
    const ranged = AXES.map((name) => {
      const axis = scene[`${name}axis`];
      const [low, high] = reach[name].map((value) => along(axis, value));
      const room = 0.05 * (high - low) || 0.05;
      return [`${name}axis`, Number.isFinite(low) ? { ...axis, range: [low - room, high + room] } : axis];
    });
    return { ...scene, ...Object.fromEntries(ranged), camera, aspectmode: "cube" };
  };
})();
