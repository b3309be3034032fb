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

  /* Place of a key in the order of the columns. */
  const rank = (key) => { const [run, number] = key.split("."); return Number(run) * 1e9 + Number(number); };

  /* Columns with the rows that have changed since. */
  function merged(data, { key, state, origin, values, errors, gone, ...rest }) {
    const news = new Map(key.map((one, place) => [one, place]));
    const away = new Set(gone);
    const keys = [...data.key.filter((one) => !away.has(one)), ...key.filter((one) => !board.places.has(one))].sort((a, b) => rank(a) - rank(b));
    const joined = (old, fresh) => keys.map((one) => (news.has(one) ? fresh[news.get(one)] : old[board.places.get(one)]));
    const columns = data.columns.map((column, place) => ({
      ...column, values: joined(column.values, values[place]), ...(column.errors ? { errors: joined(column.errors, errors[place]) } : {}),
    }));
    return { ...data, ...rest, key: keys, state: joined(data.state, state), origin: joined(data.origin, origin), columns };
  }

  /* Take the columns that the server sent, or what has changed in them. Returns whether they fit; if not, all are asked for. */
  board.receive = (data) => {
    const fits = !data.since || (board.data && board.data.version === data.since);
    window.dash_clientside.set_props("have", { data: fits ? data.version : "" });
    if (!fits) window.dash_clientside.set_props("live", { data: "" });
    else {
      board.data = data.since ? merged(board.data, data) : data;
      board.places = new Map(board.data.key.map((key, place) => [key, place]));
      board.columns = new Map(board.data.columns.map((column) => [column.name, column]));
      board.refreshSelection();
    }
    return fits;
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
    if (!choice || !choice.inside || !choice.limited) return null;
    choice.set = choice.set || new Set(choice.inside);
    return choice.set;
  };

  board.listen((names) => names.includes("brush") && board.refreshSelection());

  board.clearBrush = () => board.set({ brush: {} });

  /* Read a custom property of the theme. */
  board.token = (name) => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
})();
