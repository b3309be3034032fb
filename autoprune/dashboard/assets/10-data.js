/* The candidates of every run as columns: formats, selections and lookups that all views share. */
(() => {
  "use strict";
  const board = window.board;
  const MISSING = "–";

  const formats = {
    "": (value) => String(value),
    ",.0f": (value) => Math.round(value).toLocaleString("en-US"),
    "%": (value) => `${(100 * value).toFixed(1)}%`,
  };

  /* Write a number in a format such as ".4f". */
  board.format = (value, form) => {
    if (value === null || value === undefined) return MISSING;
    if (typeof value === "string") return value;
    const known = formats[form];
    return known ? known(value) : value.toFixed(Number(form.slice(1, -1)) || 0);
  };

  /* Take the columns that the server sent. */
  board.receive = (data) => {
    board.data = data;
    board.places = new Map(data.key.map((key, place) => [key, place]));
    board.columns = new Map(data.columns.map((column) => [column.name, column]));
    board.refreshSelection();
  };

  /* Work out which candidates are brushed: null where nothing is. */
  board.refreshSelection = () => {
    const ranges = Object.entries(board.state.brush).filter(([name]) => board.columns && board.columns.has(name));
    if (!board.data || !ranges.length) {
      board.selected = null;
      return;
    }
    const inside = (place) => ranges.every(([name, [low, high]]) => {
      const value = board.columns.get(name).values[place];
      return value !== null && value >= low && value <= high;
    });
    board.selected = new Set(board.data.key.filter((_, place) => inside(place)));
  };

  /* Candidates to emphasise: the brushed ones; else those within the limits, if there are any; null for all. */
  board.emphasised = () => {
    if (board.selected) return board.selected;
    const choice = board.choice;
    return choice && choice.inside && choice.limited ? new Set(choice.inside) : null;
  };

  board.listen((names) => names.includes("brush") && board.refreshSelection());

  board.clearBrush = () => board.set({ brush: {} });

  /* Read a custom property of the theme. */
  board.token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
})();
