/* Points, lines and shapes of plotly's figures on a canvas, between plotly's axes and its legend. A chart of thousands of
   points is painted in a few milliseconds, where plotly makes an element of each. It knows what our figures have. */
(() => {
  "use strict";
  const board = window.board;

  /* Empty a canvas and give it a size, in pixels of the page; returns its pen. Thousands of small shapes are quicker without
     the graphics card, and much quicker where there is none. */
  board.pen = (canvas, width, height) => {
    const scaled = window.devicePixelRatio || 1;
    Object.assign(canvas, { width: width * scaled, height: height * scaled });
    Object.assign(canvas.style, { width: `${width}px`, height: `${height}px` });
    const pen = canvas.getContext("2d", { willReadFrequently: true });
    pen.scaled = scaled;
    pen.scale(scaled, scaled);
    return pen;
  };

  /* Opacity of a point without emphasis. */
  board.unselected = 0.12;
  const DASH = [7, 5];

  /* Symbol -> outline for a radius, as in plotly. */
  const polygon = (...corners) => (path, r) => {
    corners.forEach(([x, y], at) => (at ? path.lineTo(x * r, y * r) : path.moveTo(x * r, y * r)));
    path.closePath();
  };
  const star = Array.from({ length: 10 }, (_, at) => {
    const [far, turn] = [at % 2 ? 0.535 : 1.4, (Math.PI * at) / 5];
    return [far * Math.sin(turn), -far * Math.cos(turn)];
  });
  const arm = [[1.2, 0.4], [0.4, 0.4], [0.4, 1.2]];
  const OUTLINES = {
    circle: (path, r) => path.arc(0, 0, r, 0, 2 * Math.PI),
    square: polygon([1, 1], [-1, 1], [-1, -1], [1, -1]),
    diamond: polygon([1.3, 0], [0, 1.3], [-1.3, 0], [0, -1.3]),
    "triangle-up": polygon([-1.1547, 0.5], [1.1547, 0.5], [0, -1]),
    star: polygon(...star),
    cross: polygon(...arm, ...[...arm].reverse().map(([x, y]) => [-x, y]), ...arm.map(([x, y]) => [-x, -y]), ...[...arm].reverse().map(([x, y]) => [x, -y])),
    "x-thin": (path, r) => { path.moveTo(r, r); path.lineTo(-r, -r); path.moveTo(r, -r); path.lineTo(-r, r); },
  };
  const outlines = new Map();
  function outline(name, size) {
    const key = `${name} ${size}`;
    if (!outlines.has(key)) {
      const path = new Path2D();
      (OUTLINES[name] || OUTLINES.circle)(path, size / 2);
      outlines.set(key, path);
    }
    return outlines.get(key);
  }

  /* Property of one point: plotly has one for each, or one for all. */
  const each = (value, at) => (Array.isArray(value) ? value[at] : value);
  board.each = each;

  /* Axis of a drawn chart -> function from a number to its place in pixels. */
  function scale(axis, upward) {
    const [low, high] = axis.range;
    const [from, unit] = [axis._offset, axis._length / (high - low)];
    const along = axis.type === "log" ? Math.log10 : (value) => value;
    return upward ? (value) => from + axis._length - (along(value) - low) * unit : (value) => from + (along(value) - low) * unit;
  }

  function area(place) {
    const { xaxis, yaxis } = place._fullLayout;
    return { x: scale(xaxis, false), y: scale(yaxis, true), left: xaxis._offset, top: yaxis._offset, wide: xaxis._length, high: yaxis._length };
  }

  /* Paint the intervals of one point: they are as pale as the point. */
  function paintBars(pen, trace, place, at, alpha) {
    for (const [axis, other] of [["x", "y"], ["y", "x"]]) {
      const arms = trace[`error_${axis}`];
      const [value, across] = [trace[axis][place], at[other](trace[other][place])];
      if (!arms || arms.array[place] === null || arms.arrayminus[place] === null) continue;
      const ends = [at[axis](value - arms.arrayminus[place]), at[axis](value + arms.array[place])];
      if (!ends.every(Number.isFinite)) continue;
      const corners = axis === "x" ? [[ends[0], across], [ends[1], across]] : [[across, ends[0]], [across, ends[1]]];
      pen.setTransform(pen.scaled, 0, 0, pen.scaled, 0, 0);
      Object.assign(pen, { globalAlpha: alpha, strokeStyle: arms.color, lineWidth: arms.thickness });
      pen.beginPath();
      pen.moveTo(...corners[0]);
      pen.lineTo(...corners[1]);
      pen.stroke();
    }
  }

  /* Paint one marker of a trace. The pen's place and colours are another's afterwards. */
  board.stamp = (pen, { symbol, color, size, width, alpha }, x, y) => {
    const [, kind, open, dot] = /^(.*?)(-open)?(-dot)?$/.exec(symbol || "circle");
    pen.globalAlpha = alpha;
    pen.setTransform(pen.scaled, 0, 0, pen.scaled, x * pen.scaled, y * pen.scaled);
    pen.fillStyle = pen.strokeStyle = color;
    /* The edge has the colour of the inside: both are one shape, so that a pale one has no darker rim. */
    pen.lineWidth = width || 1;
    if (open) pen.stroke(outline(kind, size));
    else pen.fill(outline(kind, size + width));
    if (dot) pen.fill(outline("circle", 2.5));
  };

  function paintMarkers(pen, trace, at, strong) {
    const { marker } = trace;
    const edge = marker.line || {};
    const seen = (x, y) => x > at.left - 20 && x < at.left + at.wide + 20 && y > at.top - 20 && y < at.top + at.high + 20;
    pen.save();
    trace.x.forEach((value, place) => {
      const [x, y] = [at.x(value), at.y(trace.y[place])];
      if (value === null || trace.y[place] === null || !seen(x, y)) return;
      const faded = strong && !strong.has(trace.customdata[place]);
      const alpha = (faded ? board.unselected : each(marker.opacity, place) ?? 1) * (trace.opacity ?? 1);
      const [symbol, color, size, width] = [marker.symbol, marker.color, marker.size, edge.width].map((value) => each(value, place));
      paintBars(pen, trace, place, at, alpha);
      board.stamp(pen, { symbol, color, size, width: width || 0, alpha }, x, y);
    });
    pen.restore();
  }

  /* The best of each: horizontal, then vertical. */
  function paintLine(pen, trace, at) {
    pen.save();
    Object.assign(pen, { strokeStyle: trace.line.color, lineWidth: trace.line.width, globalAlpha: trace.opacity ?? 1 });
    pen.beginPath();
    trace.x.forEach((value, place) => {
      const [x, y] = [at.x(value), at.y(trace.y[place])];
      if (!place) return void pen.moveTo(x, y);
      pen.lineTo(x, at.y(trace.y[place - 1]));
      pen.lineTo(x, y);
    });
    pen.stroke();
    pen.restore();
  }

  /* Place of an end of a shape: a number of the axis, or a share of the chart. */
  function corner(shape, name, at) {
    const [value, share] = [shape[name], String(shape[`${name[0]}ref`] || "").endsWith("domain")];
    if (!share) return at[name[0]](value);
    return name[0] === "x" ? at.left + value * at.wide : at.top + (1 - value) * at.high;
  }

  function paintShape(pen, shape, at) {
    const [x0, x1, y0, y1] = ["x0", "x1", "y0", "y1"].map((name) => corner(shape, name, at));
    pen.save();
    if (shape.type === "rect") {
      pen.fillStyle = shape.fillcolor;
      pen.fillRect(Math.min(x0, x1), Math.min(y0, y1), Math.abs(x1 - x0), Math.abs(y1 - y0));
    } else {
      Object.assign(pen, { strokeStyle: shape.line.color, lineWidth: shape.line.width });
      pen.setLineDash(DASH);
      pen.beginPath();
      pen.moveTo(x0, y0);
      pen.lineTo(x1, y1);
      pen.stroke();
    }
    pen.restore();
  }

  function canvasOf(place) {
    const layer = place.querySelector(".gl-container");
    if (!layer) return null;
    if (!layer.querySelector(".painted")) layer.prepend(board.element("canvas", { class: "painted", "aria-hidden": "true" }));
    return layer.querySelector(".painted");
  }

  board.area = area;

  /* Pen for the empty canvas of a chart that plotly has drawn, in pixels of the chart; null where there is no place for one. */
  board.penOf = (place) => {
    const canvas = canvasOf(place);
    return canvas && board.pen(canvas, place._fullLayout.width, place._fullLayout.height);
  };

  /* Paint traces and shapes into a chart that plotly has drawn: shapes below the points, points, marks, shapes above.
     Points whose keys are not in `strong` are faded; null for none. */
  board.paint = (place, { traces, marks, shapes, strong }) => {
    const pen = board.penOf(place);
    if (!pen) return;
    const at = area(place);
    pen.save();
    pen.beginPath();
    pen.rect(at.left, at.top, at.wide, at.high);
    pen.clip();
    shapes.filter((one) => one.layer === "below").forEach((one) => paintShape(pen, one, at));
    traces.forEach((trace) => {
      if (trace.mode === "lines") paintLine(pen, trace, at);
      else paintMarkers(pen, trace, at, trace.customdata ? strong : null);
    });
    shapes.filter((one) => one.layer === "above").forEach((one) => paintShape(pen, one, at));
    pen.restore();
    paintMarkers(pen, marks, at, null);
  };
})();
