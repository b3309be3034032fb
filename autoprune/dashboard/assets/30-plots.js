/* Charts by plotly.js from the figures of the server, in the colours of the page. */
(() => {
  "use strict";
  const board = window.board;
  const CONFIG = { responsive: true, displaylogo: false, modeBarButtonsToRemove: ["lasso2d", "autoScale2d"] };

  /* Plotly. Its script is run once the page has asked for its data: the server works it out meanwhile. */
  let begin;
  board.plotly = new Promise((resolve) => { begin = resolve; }).then(() => new Promise((resolve) => {
    const script = board.element("script", { src: document.getElementById("plotly").href });
    script.addEventListener("load", () => resolve(window.Plotly));
    document.head.append(script);
  }));
  board.loadPlotly = () => window.requestIdleCallback(begin, { timeout: 500 });

  /* Draw a figure into an element, as high as the element. */
  board.draw = (place, data, { height, ...layout }, config = {}) => board.plotly.then((Plotly) => Plotly.react(
    place, data, { ...layout, template: window.autopruneTheme.template(), autosize: true }, { ...CONFIG, ...config }));

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

  /* Draw everything again, in the colours of the page as they are now. */
  board.repaint = () => {
    board.drawFront();
    board.showLines();
    document.querySelectorAll("[data-figure].js-plotly-plot").forEach(drawSection);
  };
})();
