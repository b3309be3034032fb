"""Allocations solved anew: when, what is queued, and that a plan keeps its widths whatever the space can name."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import pytest
from optuna.storages import InMemoryStorage

import autoprune
from autoprune.plan.plan import PruningPlan
from autoprune.search.allocation.correction import CorrectedScan
from autoprune.search.ledger import Ledger
from autoprune.search.sources import rescan
from autoprune.search.space.space import build_space
from autoprune.search.state import Model, SearchState
from tests.tasks import flat_task
from tests.unit.study.small import journal_trials, settings


def test_when_it_is_due() -> None:
    last = [rescan.last_rescan(count) for count in range(400)]
    assert [count for count in range(1, 400) if last[count] != last[count - 1]] == [20, 40, 80, 160, 320]
    assert all(due in (0, 20, 40, 80, 160, 320) and due <= count for count, due in enumerate(last))


def test_what_is_queued_is_the_corrected_allocation_and_only_once(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    study = autoprune.Study.create(flat_task(), settings(trials=1), out=tmp_path / "run")
    study.run()
    assert study.context is not None
    topology, chosen = study.context.topology, study.settings
    scanned = study.folder.read_sensitivity()
    assert scanned is not None
    first = next(iter(scanned.added_loss))
    dearer = {name: tuple(x * (4.0 if name == first else 1.0) for x in v) for name, v in scanned.added_loss.items()}

    def corrected(factor: float) -> None:
        factors = dict.fromkeys(scanned.added_loss, 1.0) | {first: factor}
        found = CorrectedScan(sensitivity=replace(scanned, added_loss=dearer), factors=factors, observations=9)
        monkeypatch.setattr(rescan, "correct_scan", lambda *_: found)

    monkeypatch.setattr(rescan, "FIRST", 1)
    space = build_space(chosen, topology, scanned)
    ledger = Ledger.of(InMemoryStorage(), study.problem)
    state = SearchState(
        ledger=ledger,
        settings=study.settings.changed({"search.solved_points": 3}),
        model=Model(topology=topology, problem=study.problem, sensitivity=scanned),
        space=space,
        records=list(study.records),
        planned=1,
    )
    corrected(1.0)
    assert not rescan.enqueue_rescanned(state), "nothing is corrected"
    assert state.ledger.rescanned_at == 1, "and it is not worked out again"
    ledger = state.ledger = Ledger.of(InMemoryStorage(), study.problem)
    corrected(4.0)
    assert rescan.enqueue_rescanned(state)
    assert not rescan.enqueue_rescanned(state), "once"
    plans = [PruningPlan.from_dict(trial.user_attrs["plan"]) for trial in ledger.trials()]
    plain = [space.decode(space.solved(0.2) or {}, seed=0).groups[first].ratio]
    fresh = build_space(chosen, topology, replace(scanned, added_loss=dearer))
    assert fresh.decode(fresh.solved(0.2) or {}, seed=0).groups[first].ratio <= plain[0], "dearer groups stay wider"
    assert {trial.user_attrs["origin"] for trial in ledger.trials()} == {"solved"}
    assert len({plan.to_json() for plan in plans}) == 3


def test_a_study_trains_what_is_queued_at_the_widths_that_were_solved(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rescan, "FIRST", 6)

    def always(sensitivity: object, observations: object) -> CorrectedScan:
        found = replace(sensitivity, criterion="l2")  # type: ignore[type-var]
        return CorrectedScan(sensitivity=found, factors={"any": 2.0}, observations=len(list(observations)))  # type: ignore[call-overload]

    monkeypatch.setattr(rescan, "correct_scan", always)
    study = autoprune.Study.create(
        flat_task(), settings(trials=9, collect_garbage=False, lineage_slack=0.0), out=tmp_path / "run"
    )
    study.run()
    late = [
        trial for trial in journal_trials(tmp_path / "run") if str(trial.user_attrs.get("warm_start")) == "solved 6 0"
    ]
    assert len(late) == 1
    plan = PruningPlan.from_dict(late[0].user_attrs["plan"])
    twin = late[0].user_attrs.get("duplicate_of", late[0].number)
    record = study.front().get(twin)
    for name, group in plan.groups.items():
        dense = study.context.topology.widths[name] if study.context is not None else 0
        assert record.widths[name] == max(1, round(dense * (1 - group.ratio)))
