"""Changes of the table of candidates since the version that a page has."""

from __future__ import annotations

from pathlib import Path

import pytest

from autoprune.dashboard.changes import Tables
from autoprune.dashboard.live import LiveRuns
from tests.browser.recorded import Recorded


@pytest.fixture
def run(tmp_path: Path) -> Recorded:
    run = Recorded(tmp_path / "run")
    run.add(12)
    return run


def whole(runs: LiveRuns) -> dict[str, object]:
    return Tables().since(None, runs.snapshots(), runs.version)


def merged(before: dict, changes: dict) -> dict:  # type: ignore[type-arg]
    """The table as the page merges it."""
    rows = {key: place for place, key in enumerate(before["key"]) if key not in changes["gone"]}
    news = {key: place for place, key in enumerate(changes["key"])}
    keys = sorted({*rows, *news}, key=lambda key: tuple(map(int, key.split("."))))

    def joined(old: list[object], new: list[object]) -> list[object]:
        return [new[news[key]] if key in news else old[rows[key]] for key in keys]

    columns = []
    for place, column in enumerate(before["columns"]):
        numbers = {
            field: joined(column[field], changes[field][place]) for field in ("values", "errors") if field in column
        }
        columns.append({**column, **numbers})
    lists = {name: joined(before[name], changes[name]) for name in ("state", "origin")}
    rest = {name: value for name, value in changes.items() if name not in ("since", "gone", "values", "errors")}
    return {**rest, "key": keys, "columns": columns, **lists}


def test_a_refresh_sends_the_rows_that_have_changed(run: Recorded) -> None:
    runs, tables = LiveRuns([run.folder.path]), Tables()
    first = tables.since(None, runs.snapshots(), runs.version)
    assert "since" not in first
    run.add(2)
    runs.refresh()
    changes = tables.since(first["version"], runs.snapshots(), runs.version)
    assert changes["since"] == first["version"]
    assert {"0.12", "0.13"} <= set(changes["key"])  # type: ignore[call-overload]
    assert len(changes["key"]) < 14  # type: ignore[arg-type]
    assert merged(first, changes) == whole(runs)


def test_candidates_that_are_gone_are_named(run: Recorded) -> None:
    runs, tables = LiveRuns([run.folder.path]), Tables()
    first = tables.since(None, runs.snapshots(), runs.version)
    for path in (run.folder.path / "candidates" / "00007").iterdir():
        path.unlink()
    (run.folder.path / "candidates" / "00007").rmdir()
    runs.refresh()
    changes = tables.since(first["version"], runs.snapshots(), runs.version)
    assert changes["gone"] == ["0.7"]
    assert merged(first, changes) == whole(runs)


@pytest.mark.parametrize("have", [None, "", "99", 3, ["0"], {"0": 1}])
def test_a_page_with_an_unknown_table_gets_the_whole_one(run: Recorded, have: object) -> None:
    runs, tables = LiveRuns([run.folder.path]), Tables()
    assert tables.since(have, runs.snapshots(), runs.version) == whole(runs)


def test_other_columns_are_sent_whole(run: Recorded) -> None:
    runs, tables = LiveRuns([run.folder.path]), Tables()
    first = tables.since(None, runs.snapshots(), runs.version)
    run.test()
    runs.refresh()
    found = tables.since(first["version"], runs.snapshots(), runs.version)
    assert found == whole(runs)
    assert "quality@test" in [one["name"] for one in found["columns"]]  # type: ignore[attr-defined]
