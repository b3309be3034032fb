// Draws the figures of a report when they come into view, sorts tables, and marks the current section.
(function () {
  "use strict";
  const theme = window.autopruneTheme;
  const narrow = () => window.innerWidth < 560;

  function draw(plot) {
    if (plot.dataset.drawn) { return; }
    plot.dataset.drawn = "true";
    const figure = JSON.parse(document.getElementById(plot.dataset.figure).textContent);
    const layout = Object.assign({}, figure.layout, { template: theme.template() });
    if (narrow()) {
      // The legend takes what a narrow page has: it is smaller, and the chart higher.
      if (layout.showlegend !== false && figure.data.length > 4) {
        layout.legend = { font: { size: 11 } };
        layout.height += 80;
        plot.style.height = `${layout.height}px`;
      }
      if (layout.scene) { layout.scene.camera.eye = { x: 1.95, y: -1.95, z: 0.95 }; }
      for (const trace of figure.data) {
        if (trace.type === "parcoords") { trace.labelangle = -35; layout.margin = { l: 56, r: 72, t: 120, b: 24 }; }
      }
    }
    const config = { responsive: true, displaylogo: false, displayModeBar: narrow() ? false : "hover" };
    window.Plotly.newPlot(plot, figure.data, layout, config);
  }

  const plots = [...document.querySelectorAll(".plot")];
  if ("IntersectionObserver" in window) {
    const seen = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (entry.isIntersecting) { seen.unobserve(entry.target); draw(entry.target); }
      }
    }, { rootMargin: "600px" });
    plots.forEach((plot) => seen.observe(plot));
  } else {
    plots.forEach(draw);
  }
  window.addEventListener("beforeprint", () => plots.forEach(draw));
  theme.onChange(() => {
    for (const plot of plots) {
      if (plot.dataset.drawn) { window.Plotly.relayout(plot, { template: theme.template() }); }
    }
  });

  // A number in front of other text decides; cells without one are sorted as text, and empty ones come last.
  const value = (row, column) => row.cells[column].textContent.trim();
  const number = (text) => parseFloat(text.replace(/,/g, ""));
  function sort(table, column, header) {
    const rows = [...table.tBodies[0].rows];
    const falling = header.getAttribute("aria-sort") === "ascending";
    const filled = rows.filter((row) => value(row, column));
    const numeric = filled.every((row) => !Number.isNaN(number(value(row, column))));
    const compare = numeric
      ? (one, other) => number(value(one, column)) - number(value(other, column))
      : (one, other) => value(one, column).localeCompare(value(other, column));
    filled.sort((one, other) => (falling ? -1 : 1) * compare(one, other));
    for (const other of table.tHead.rows[0].cells) { other.removeAttribute("aria-sort"); }
    header.setAttribute("aria-sort", falling ? "descending" : "ascending");
    table.tBodies[0].append(...filled, ...rows.filter((row) => !value(row, column)));
  }
  for (const table of document.querySelectorAll("table.sortable")) {
    if (table.tBodies[0].rows.length < 3) { continue; }
    [...table.tHead.rows[0].cells].forEach((header, column) => {
      const button = document.createElement("button");
      button.type = "button";
      button.append(...header.childNodes);
      header.append(button);
      button.addEventListener("click", () => sort(table, column, header));
    });
  }

  const links = new Map([...document.querySelectorAll(".contents a")].map((link) => [link.hash.slice(1), link]));
  const contents = document.querySelector(".contents details");
  if (contents && window.innerWidth <= 1100) { contents.open = false; }
  if ("IntersectionObserver" in window) {
    const place = new IntersectionObserver((entries) => {
      for (const entry of entries) {
        if (!entry.isIntersecting) { continue; }
        links.forEach((link) => link.removeAttribute("aria-current"));
        const link = links.get(entry.target.id);
        if (link) { link.setAttribute("aria-current", "true"); }
      }
    }, { rootMargin: "-15% 0px -70% 0px" });
    document.querySelectorAll("main > section").forEach((section) => place.observe(section));
  }
})();
