"""Changes of the table of candidates since the version that a page has: a refresh sends the changed rows alone."""

from __future__ import annotations

import threading
from collections import OrderedDict
from collections.abc import Iterator, Sequence

from autoprune.dashboard.charts import parallel_axes
from autoprune.dashboard.columns import table_data
from autoprune.dashboard.live import Snapshot
from autoprune.report.figure import Properties

#: Versions of the table that are kept: pages of several windows look at the folders at different times.
_KEPT = 4
#: Lists with one entry for each candidate, beside those of the columns.
_ROWS = ("key", "state", "origin")


class Tables:
    """The last versions of the table of candidates."""

    def __init__(self) -> None:
        self._kept: OrderedDict[str, Properties] = OrderedDict()
        self._lock = threading.Lock()

    def since(self, have: object, snapshots: Sequence[Snapshot], version: str) -> Properties:
        """Collect the changes of the table since the version that a page has.

        Args:
            have: Version of the table that the page has; anything else for none.
            snapshots: The runs.
            version: State that they are in.

        Returns:
            The whole table, see `table_data`, with the axes of the "lines" of each run; or, under "since" with that
            version, the rows that have changed since, the keys that are "gone", and everything that is no row.
        """
        with self._lock:
            now = self._kept.get(version)
            if now is None:
                lines = [parallel_axes(one) for one in snapshots]
                now = self._kept[version] = {**table_data(snapshots, version), "lines": lines}
                while len(self._kept) > _KEPT:
                    self._kept.popitem(last=False)
            before = self._kept.get(have) if isinstance(have, str) else None
        if before is None or before is now or _heads(before) != _heads(now):
            return now
        return _changes(before, now)


def _columns(table: Properties) -> list[Properties]:
    found = table["columns"]
    return found if isinstance(found, list) else []


def _heads(table: Properties) -> list[object]:
    """Describe the columns and the runs: a page that has others needs the whole table."""
    numbers = ("values", "errors")
    columns = [{name: value for name, value in one.items() if name not in numbers} for one in _columns(table)]
    return [table["runs"], columns, ["errors" in one for one in _columns(table)]]


def _lists(table: Properties) -> Iterator[list[object]]:
    """List every list with an entry for each candidate."""
    for part in [*(table[name] for name in _ROWS), *_numbers(table, "values"), *_numbers(table, "errors")]:
        if isinstance(part, list):
            yield part


def _numbers(table: Properties, field: str) -> list[object]:
    return [one.get(field) for one in _columns(table)]


def _changes(before: Properties, now: Properties) -> Properties:
    old = {row[0]: row for row in zip(*_lists(before), strict=True)}
    rows = list(zip(*_lists(now), strict=True))
    places = [place for place, row in enumerate(rows) if old.get(row[0]) != row]
    there = {row[0] for row in rows}
    rest = {name: value for name, value in now.items() if name not in (*_ROWS, "columns")}
    return {
        **rest,
        "since": before["version"],
        "gone": [key for key in old if key not in there],
        **{name: _picked(now[name], places) for name in _ROWS},
        "values": [_picked(part, places) for part in _numbers(now, "values")],
        "errors": [_picked(part, places) for part in _numbers(now, "errors")],
    }


def _picked(part: object, places: Sequence[int]) -> list[object]:
    return [part[place] for place in places] if isinstance(part, list) else []
