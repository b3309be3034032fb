"""Lines of a journal: as short as Optuna's journal storage can read them."""

from __future__ import annotations

import functools
import json
from collections.abc import Mapping, Sequence

from optuna.storages.journal._storage import JournalOperation
from optuna.trial import TrialState

#: Key of a line: how many lines of its transaction follow. Optuna reads none but its own keys.
MORE = "more"
#: In place of the name of the process that wrote a line, where that was the only one that wrote.
_NO_WORKER = ""

#: Line of a journal, as data.
Line = Mapping[str, object]


def write_lines(logs: Sequence[Line], *, alone: bool) -> bytes:
    """Write lines as JSON.

    Args:
        logs: Lines that are written at once.
        alone: Whether nobody has to tell this process's lines from others'.

    Returns:
        The lines, each with its end.
    """
    texts = []
    for left, log in zip(reversed(range(len(logs))), logs, strict=True):
        worker = {"worker_id": _NO_WORKER} if alone else {}
        told = {**log, **worker, **_abbreviated(log), **({MORE: left} if left else {})}
        texts.append(json.dumps(told, separators=(",", ":")))
    return "".join(f"{text}\n" for text in texts).encode()


def fold(logs: Sequence[Line], trials: int) -> list[Line]:
    """Put parameters, attributes and the start of a trial into the line that creates it.

    A line for each parameter repeats the names of its fields and the number of the trial. Optuna creates trials with
    all of them, too, and has the same trial in the end.

    Args:
        logs: Lines of a transaction.
        trials: Trials of the journal after these lines.

    Returns:
        Fewer lines that say the same.
    """
    number = trials - sum(log["op_code"] == JournalOperation.CREATE_TRIAL for log in logs)
    created: dict[object, dict[str, object]] = {}
    found: list[Line] = []
    for log in logs:
        if log["op_code"] == JournalOperation.CREATE_TRIAL:
            created[number] = dict(log)
            found.append(created[number])
            number += 1
            continue
        line = created.get(log.get("trial_id"))
        if line is not None and _add(line, log):
            continue
        created.pop(log.get("trial_id"), None)  # what follows may depend on this line
        found.append(log)
    return found


def _add(line: dict[str, object], log: Line) -> bool:
    """Add a line about a trial to the one that creates it; return whether that was possible."""
    match log["op_code"]:
        case JournalOperation.SET_TRIAL_PARAM:
            name = str(log["param_name"])
            _update(line, "params", {name: log["param_value_internal"]})
            _update(line, "distributions", {name: log["distribution"]})
        case JournalOperation.SET_TRIAL_USER_ATTR:
            _update(line, "user_attrs", log["user_attr"])
        case JournalOperation.SET_TRIAL_SYSTEM_ATTR:
            _update(line, "system_attrs", log["system_attr"])
        case JournalOperation.SET_TRIAL_STATE_VALUES if log["state"] == TrialState.RUNNING and log["values"] is None:
            line.update(state=log["state"], datetime_start=log["datetime_start"])
        case _:
            return False
    return True


def _update(line: dict[str, object], key: str, entries: object) -> None:
    before = line.get(key, {})
    assert isinstance(before, dict)
    assert isinstance(entries, dict)
    line[key] = {**before, **entries}


def _abbreviated(log: Line) -> Line:
    """Return the fields of a line that can be said in fewer bytes."""
    found: dict[str, object] = {}
    if "distribution" in log:
        found["distribution"] = _short(str(log["distribution"]))
    several = log.get("distributions")
    if isinstance(several, dict):
        found["distributions"] = {name: _short(str(distribution)) for name, distribution in several.items()}
    return found


@functools.lru_cache(maxsize=1000)
def _short(distribution: str) -> str:
    """Return a distribution in Optuna's abbreviated format, as it is written for each parameter of each trial."""
    found = json.loads(distribution)
    kind = str(found.get("name", "")).removesuffix("Distribution").lower()
    if kind not in ("float", "int", "categorical"):
        return distribution
    usual = {"step": 1 if kind == "int" else None, "log": False}
    told = {name: value for name, value in found["attributes"].items() if name not in usual or value != usual[name]}
    return json.dumps({"type": kind, **told}, separators=(",", ":"))
