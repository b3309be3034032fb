/* The state of the view. It is kept in the address, so that a link restores it; whoever changes it calls board.set. */
(() => {
  "use strict";
  const board = (window.board = window.board || {});
  const START = {
    tab: "choose", view: "2d", run: 0, x: "", y: "", z: "", split: "search", xs: "", ys: "", rows: "all", sort: "",
    mode: "limits", by: "", limits: null, weights: {}, brush: {}, pins: [], open: "", theme: "",
  };
  /* Parts that hold a number for each name -> how they are called in the address. */
  const NUMBERS = { limits: "limit", weights: "weight" };
  /* Store of the page -> parts of the state that its callbacks on the server read. The server answers a change of the first two,
     and draws both anew where a run has changed, for which "view" holds them. */
  const STORES = {
    axes: ["run", "x", "y", "z", "split", "xs", "ys", "view"],
    limits: ["run", "mode", "limits", "by", "weights"],
    pins: ["pins"],
    open: ["open"],
    tab: ["tab", "run"],
  };
  /* Parts that are one of a few words; any other word in an address is the first one. */
  const WORDS = {
    tab: ["choose", "compare", "understand"], view: ["2d", "3d"], split: ["search", "test"], xs: ["", "linear", "log"],
    ys: ["", "linear", "log"], rows: ["all", "front", "within", "pins"], mode: ["limits", "knee", "weights"],
    theme: ["", "light", "dark"],
  };
  const VIEW = ["axes", "limits"];
  const LONGEST = 6000;
  const listeners = [];
  let others = [];

  const number = (text) => (text.trim() === "" || !Number.isFinite(Number(text)) ? null : Number(text));

  function parse(search) {
    const found = structuredClone(START);
    others = [];
    for (const [name, value] of new URLSearchParams(search)) {
      const part = Object.keys(NUMBERS).find((one) => NUMBERS[one] === name);
      if (part) {
        const cut = value.lastIndexOf(":");
        const given = number(value.slice(cut + 1));
        found[part] = found[part] || {};
        if (cut > 0 && given !== null) found[part][value.slice(0, cut)] = given;
      } else if (name === "brush") {
        const cut = value.lastIndexOf(":");
        const ends = value.slice(cut + 1).split("~").map(number);
        if (cut > 0 && ends.length === 2 && !ends.includes(null)) found.brush[value.slice(0, cut)] = ends;
      } else if (name === "pin") {
        found.pins = value.split(",").filter((key) => /^\d+\.\d+$/.test(key));
      } else if (name === "run") {
        found.run = /^\d+$/.test(value) ? Number(value) : 0;
      } else if (name in WORDS) {
        found[name] = WORDS[name].includes(value) ? value : START[name];
      } else if (name in START) {
        found[name] = value;
      } else {
        others.push([name, value]);
      }
    }
    return found;
  }

  function address() {
    const query = new URLSearchParams(others);
    for (const [name, value] of Object.entries(board.state)) {
      if (name in NUMBERS) {
        const given = Object.entries(value || {});
        given.forEach(([limit, at]) => query.append(NUMBERS[name], `${limit}:${at}`));
        if (value && !given.length && name === "limits") query.append("limit", "none");
      } else if (name === "brush") {
        Object.entries(value).forEach(([column, [low, high]]) => query.append("brush", `${column}:${low}~${high}`));
      } else if (name === "pins") value.length && query.set("pin", value.join(","));
      else if (String(value) !== String(START[name])) query.set(name, String(value));
    }
    const text = query.toString().replaceAll("%3A", ":").replaceAll("%2C", ",").replaceAll("%7E", "~");
    return text.length > LONGEST ? "" : text;
  }

  /* Store -> number of its changes: an answer to an earlier one is of no use any more. */
  const turns = { axes: 0, limits: 0 };
  const slice = (store) => Object.fromEntries(STORES[store].map((name) => [name, board.state[name]]));
  const asked = (store) => (store in turns ? { ...slice(store), turn: turns[store] } : slice(store));
  const view = () => Object.fromEntries(VIEW.map((store) => [store, asked(store)]));
  const send = (store, data) => window.dash_clientside.set_props(`store-${store}`, { data });

  function ask(store) {
    if (store in turns) {
      turns[store] += 1;
      send("view", view());
    }
    send(store, asked(store));
  }

  board.state = parse(window.location.search);

  /* Change parts of the state: the address, the stores that the server reads, and every view follow. */
  board.set = (changes) => {
    const before = Object.fromEntries(Object.keys(STORES).map((store) => [store, JSON.stringify(slice(store))]));
    take(changes);
    Object.keys(STORES).filter((store) => JSON.stringify(slice(store)) !== before[store]).forEach(ask);
    listeners.forEach((listener) => listener(Object.keys(changes)));
  };

  function take(changes) {
    board.state = { ...board.state, ...changes };
    const text = address();
    window.history.replaceState(null, "", text ? `?${text}` : window.location.pathname);
  }

  /* Take parts of the state that the server has taken by itself where nothing was given. */
  board.adopt = (changes) => {
    take(changes);
    send("view", view());
  };

  /* Whether an answer is one to what the store holds now; if not, what it holds is asked again. */
  board.isAnswer = (store, { turn }) => {
    const found = turn === turns[store];
    if (!found) send(store, asked(store));
    return found;
  };

  /* Call a function with the names of the changed parts after each change. */
  board.listen = (listener) => listeners.push(listener);

  board.pin = (key, wanted = !board.state.pins.includes(key)) => {
    const others = board.state.pins.filter((other) => other !== key);
    board.set({ pins: wanted ? [...others, key].slice(-6) : others });
    board.say(wanted ? `Candidate ${board.called(key)} is pinned.` : `Candidate ${board.called(key)} is no longer pinned.`);
  };

  /* Say a sentence to screen readers, and show it for a while. */
  let silence = 0;
  board.say = (sentence) => {
    const place = document.getElementById("said");
    if (!place) return;
    place.textContent = sentence;
    place.classList.add("shown");
    window.clearTimeout(silence);
    silence = window.setTimeout(() => place.classList.remove("shown"), 4000);
  };

  /* Key of a candidate -> what people call it: the number, with the run where there are several. */
  board.called = (key) => {
    const [run, candidate] = key.split(".");
    const runs = board.data ? board.data.runs : [];
    return runs.length > 1 ? `${candidate} of ${runs[run] ? runs[run].name : run}` : candidate;
  };

  /* Make an element of the page. */
  board.element = (tag, attributes = {}, text = "") => {
    const made = document.createElement(tag);
    Object.entries(attributes).forEach(([name, value]) => made.setAttribute(name, value));
    if (text) made.textContent = text;
    return made;
  };

  window.dash_clientside = window.dash_clientside || {};
  window.dash_clientside.board = {
    restore: () => {
      board.loadPlotly();
      return [0, view(), ...Object.keys(STORES).filter((store) => !VIEW.includes(store)).map(slice)];
    },
  };
})();
