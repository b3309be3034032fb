"""The Dash application: the page, and the callbacks between it and the run folders."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

from dash import ClientsideFunction, Dash, Input, Output, State, html, no_update
from dash.development.base_component import Component

from autoprune.dashboard.answer import answer
from autoprune.dashboard.bodies import check_bodies
from autoprune.dashboard.changes import Tables
from autoprune.dashboard.charts import front_chart
from autoprune.dashboard.comparing import compare
from autoprune.dashboard.details import details
from autoprune.dashboard.elements import sentences
from autoprune.dashboard.guard import Access
from autoprune.dashboard.live import LiveRuns, Snapshot
from autoprune.dashboard.page import RESTORED, index_page, layout
from autoprune.dashboard.understanding import understand
from autoprune.display import printable_line
from autoprune.errors import AutopruneError, UnknownNameError
from autoprune.front.run_state import duration_text

#: Key of a candidate, as a client gives it.
_KEY = re.compile(r"(\d{1,4})\.(\d{1,9})")
_ASSETS = Path(__file__).parent / "assets"


def make_app(runs: LiveRuns, access: Access) -> Dash:
    """Build the application.

    Args:
        runs: Run folders to show.
        access: Access to the dashboard.

    Returns:
        The application; `serve` wraps it with the guard and serves it.
    """
    app = Dash(
        __name__,
        assets_folder=str(_ASSETS),
        title=printable_line(f"{runs.snapshots()[0].run.name}: autoprune", 80),
        update_title="",
        add_log_handler=False,
        index_string=index_page(),
        meta_tags=[{"name": "viewport", "content": "width=device-width, initial-scale=1"}],
    )
    app.layout = lambda: layout(runs.snapshots(), access.read_only)
    check_bodies(app)
    _client(app)
    _live(app, runs)
    _views(app, runs)
    _explanations(app, runs, access)
    _acts(app, runs, access)
    return app


def _client(app: Dash) -> None:
    """Register what the page does by itself."""

    def on_client(name: str, *parts: Output | Input) -> None:
        app.clientside_callback(ClientsideFunction("board", name), *parts)  # type: ignore[no-untyped-call]

    restored = [Output(f"store-{name}", "data") for name in RESTORED]
    on_client("restore", Output("tick", "n_intervals"), *restored, Input("main", "id"))
    on_client("receive", Input("data", "data"), Input("front-figure", "data"), Input("choice", "data"))
    on_client("acted", Input("acted", "data"))


def _live(app: Dash, runs: LiveRuns) -> None:
    """Register what follows the run folders.

    One answer has all that is drawn of a new candidate: the page draws once, and nothing is asked for after it.
    """
    tables = Tables()

    @app.callback(
        Output("live", "data"),
        Output("data", "data"),
        Output("banner", "children"),
        Output("state", "children"),
        Output("front-figure", "data"),
        Output("choice", "data"),
        Output("answer", "children"),
        Input("tick", "n_intervals"),
        State("live", "data"),
        State("have", "data"),
        State("store-view", "data"),
    )
    def look(_: object, seen: object, have: object, view: object) -> tuple[object, ...]:
        runs.refresh()
        version = runs.version
        if version == seen or not isinstance(view, dict):
            return (no_update,) * 7
        changes = tables.since(have, runs.snapshots(), version)
        said = sentences(_faults(runs), "warning"), how_far(runs)
        return version, changes, *said, _chart(runs, view.get("axes")), *_choice(runs, view.get("limits"))


def _views(app: Dash, runs: LiveRuns) -> None:
    """Register the views, as far as they follow the person."""

    @app.callback(
        Output("front-figure", "data", allow_duplicate=True), Input("store-axes", "data"), prevent_initial_call=True
    )
    def front(axes: object) -> object:
        return _chart(runs, axes)

    @app.callback(
        Output("choice", "data", allow_duplicate=True),
        Output("answer", "children", allow_duplicate=True),
        Input("store-limits", "data"),
        prevent_initial_call=True,
    )
    def choice(wanted: object) -> tuple[object, object]:
        return _choice(runs, wanted)


def _chart(runs: LiveRuns, axes: object) -> object:
    """Draw the chart of the front; "turn" tells the page which of its wishes it answers."""
    if not isinstance(axes, dict):
        return no_update
    figure = front_chart(runs.snapshots(), runs.place(axes.get("run")), axes, runs.version)
    return {**figure, "turn": axes.get("turn")}


def _choice(runs: LiveRuns, wanted: object) -> tuple[object, object]:
    """Choose the best candidate; "turn" tells the page which of its wishes it answers."""
    if not isinstance(wanted, dict):
        return no_update, no_update
    place = runs.place(wanted.get("run"))
    marks, elements = answer(runs.runs[place].now, place, wanted)
    return {**marks, "turn": wanted.get("turn")}, elements


def _explanations(app: Dash, runs: LiveRuns, access: Access) -> None:
    """Register the views of single candidates, and of the sections that explain a study.

    The page tells "shown" of a new version only while it shows one of them.
    """

    @app.callback(Output("understanding", "children"), Input("shown", "data"), Input("store-tab", "data"))
    def understanding(_: object, wanted: object) -> object:
        if not isinstance(wanted, dict) or wanted.get("tab") != "understand":
            return no_update
        return _readable(lambda: understand(runs.runs[runs.place(wanted.get("run"))].now))

    @app.callback(Output("comparison", "children"), Input("shown", "data"), Input("store-pins", "data"))
    def comparison(_: object, wanted: object) -> object:
        keys = wanted.get("pins") if isinstance(wanted, dict) else None
        found = [candidate(runs, key) for key in keys] if isinstance(keys, list) else []
        return _readable(lambda: compare(runs.snapshots(), [one for one in found if one is not None]))

    @app.callback(Output("details", "children"), Input("shown", "data"), Input("store-open", "data"))
    def opened(_: object, wanted: object) -> object:
        found = candidate(runs, wanted.get("open") if isinstance(wanted, dict) else None)
        if found is None:
            return []
        place, number = found
        return details(runs.runs[place].now, place, number, read_only=access.read_only)


def _readable(make: Callable[[], list[Component]]) -> list[Component]:
    """Make elements that read files of the run folder; a file that cannot be read now is a sentence."""
    try:
        return make()
    except (AutopruneError, OSError) as error:
        return [html.Section(sentences([printable_line(error, 1000)], "warning"), className="card")]


def _acts(app: Dash, runs: LiveRuns, access: Access) -> None:
    """Register what a person writes into the run folder."""

    @app.callback(Output("acted", "data"), Input("act", "data"), prevent_initial_call=True)
    def act(wanted: object) -> object:
        found = candidate(runs, wanted.get("key")) if isinstance(wanted, dict) else None
        if not isinstance(wanted, dict) or found is None:
            return no_update
        place, number = found
        try:
            access.check_writable()
            said = _write(runs.runs[place].now, number, wanted)
        except AutopruneError as error:
            said = printable_line(error, 400)
        runs.refresh()
        return {"said": said, "asked": wanted.get("asked")}


def _write(one: Snapshot, number: int, wanted: Mapping[str, object]) -> str:
    """Write what a person asked for, and say that it is written."""
    name, text, seen = (str(wanted.get(part, "")) for part in ("name", "text", "seen"))
    if name == "note":
        one.run.annotate(text, number, seen)
        return f"The note on candidate {number} is stored in the run folder."
    if name == "mark":
        one.run.mark(number)
        return f"Candidate {number} is marked as chosen, in the run folder."
    if name == "unmark":
        one.run.mark(None)
        return "No candidate is marked as chosen any more."
    raise UnknownNameError("what is done with a candidate", name, ("note", "mark", "unmark"))


def candidate(runs: LiveRuns, key: object) -> tuple[int, int] | None:
    """Read the key of a candidate.

    Args:
        runs: All runs.
        key: Key as a client gives it.

    Returns:
        (position of the run, number of the candidate); None for anything else.
    """
    found = _KEY.fullmatch(key) if isinstance(key, str) else None
    if found is None or int(found[1]) >= len(runs.runs):
        return None
    return int(found[1]), int(found[2])


def _faults(runs: LiveRuns) -> list[str]:
    return [
        f"A run folder cannot be read; this page shows it as it was, and goes on when it can be read again: {fault}"
        for fault in runs.faults
    ]


def how_far(runs: LiveRuns) -> str:
    """Write how far each run is.

    Args:
        runs: All runs.

    Returns:
        A line for people.
    """
    shown = runs.snapshots()
    named = [f"{printable_line(one.run.name, 40)}: " if len(shown) > 1 else "" for one in shown]
    return "; ".join(f"{name}{_run_state(one)}" for name, one in zip(named, shown, strict=True))


def _run_state(one: Snapshot) -> str:
    state = one.state
    of = f" of {state.target:,}" if state.left else ""
    parts = [f"{state.finished:,}{of} candidates", f"{len(one.front.members)} on the front"]
    if state.ending is not None:
        parts.append("ended early" if state.ending.early else "finished")
    else:
        left, count = state.remaining_seconds, len(state.workers)
        doing = f"running in {count} worker{'s' if count > 1 else ''}" if count else "running, or interrupted"
        parts += [doing, *([] if left is None else [f"about {duration_text(left)} left"])]
    return ", ".join(parts)
