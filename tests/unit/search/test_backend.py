"""The search alone, for a caller that trains by other means: its folder, its processes, what it is told."""

from __future__ import annotations

import gc
import math
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

import pytest

import autoprune
from autoprune.errors import AutopruneError, ConfigurationError, StorageError, StudyConflictError, UnknownNameError
from autoprune.plan.allocation import GroupPlan
from autoprune.records import atomic
from autoprune.search.backend import SearchBackend
from autoprune.search.ledger import Ledger
from autoprune.search.proposal import Proposal
from autoprune.search.told import Details
from autoprune.structure.stored import Structure
from autoprune.structure.written import Block, Group, Layer, structure_of_layers
from tests.processes import forked
from tests.settings import study_of
from tests.unit.search import synthetic

GROUPS = (Group(name="a", channels=16), Group(name="b", channels=24, least=4), Group(name="c", channels=32))
LAYERS = (
    Layer(name="a", groups=("a",), weights=27, positions=64),
    Layer(name="b", groups=("a", "b"), weights=9, positions=16),
    Layer(name="c", groups=("b", "c"), positions=4),
    Layer(name="inner", groups=("c", "c"), positions=4),
    Layer(name="out", groups=("c",), weights=10),
)
OBJECTIVES = ("quality", "multiply_adds")


def structure() -> Structure:
    return structure_of_layers(GROUPS, LAYERS, [Block(name="inner", layers=("inner",))])


def settings(**changes: object) -> autoprune.StudySettings:
    given = {"trials": 14, "objectives": OBJECTIVES, "solved_points": 3, "kinds": ("channels", "blocks"), **changes}
    return study_of(**given)  # type: ignore[arg-type]


def quality(proposal: Proposal) -> float:
    return 0.9 - sum(1 / width for width in proposal.plan.widths.values()) - 0.02 * len(proposal.plan.dropped)


def finish(backend: SearchBackend, *, out: int = 1, most: int = 10**6) -> list[Proposal]:
    """Ask and tell to the end, with some out at once, the last asked told first."""
    asked: list[Proposal] = []
    waiting: list[Proposal] = []
    while len(asked) < most or waiting:
        while len(waiting) < out and len(asked) < most and (proposal := backend.ask()) is not None:
            waiting.append(proposal)
            asked.append(proposal)
        if not waiting:
            break
        done = waiting.pop()
        rungs = tuple((share, quality(done) - 0.02 * (1 - share)) for share in done.rungs)
        backend.tell(done, quality=quality(done), details=Details(rungs=rungs))
    return asked


def test_several_are_out_at_once_and_no_more_than_are_wanted() -> None:
    backend = SearchBackend(structure(), settings())
    first = backend.ask()
    assert first is not None
    assert first.origin == "dense"
    assert backend.ask() is None, "the dense model is out"
    assert not backend.is_done
    backend.tell(first, quality=quality(first))
    out = [backend.ask() for _ in range(13)]
    assert [proposal.number for proposal in backend.pending] == [p.number for p in out if p is not None]
    assert len(backend.pending) == 13
    assert backend.ask() is None, "as many as are wanted are out"
    for proposal in reversed(backend.pending):
        backend.tell(proposal, quality=quality(proposal))
    assert backend.is_done
    assert backend.ask() is None
    assert [record.number for record in backend.run.records] == sorted(
        {record.number for record in backend.run.records}
    )
    assert any(record.dropped == ("inner",) for record in backend.run.records)
    dense = backend.run.records[0].search
    assert (dense.multiply_adds, dense.parameters) == (
        16 * 27 * 64 + 16 * 24 * 9 * 16 + 24 * 32 * 4 + 32 * 32 * 4 + 320,
        6000,
    )
    assert dense.size_bytes == 4 * dense.parameters
    folder = backend.folder.path
    assert folder.is_dir()
    del backend
    gc.collect()
    assert not folder.exists(), "a temporary folder goes with its search"


def test_the_same_as_the_search_of_a_study(tmp_path: Path) -> None:
    """With a scan and weights of its own, it proposes what the engine of a study proposes."""
    chosen = synthetic.settings(trials=16, kinds=("channels",), early_stopping="none")
    engine = synthetic.Search(synthetic.model(), chosen)
    wanted = [(p.number, p.plan.asked, p.start_from) for p in synthetic.run(engine, 16)]
    described = synthetic.topology().describe()
    with SearchBackend(
        described,
        chosen,
        tmp_path / "run",
        metrics={"accuracy": True},
        sensitivity=synthetic.sensitivity(),
        has_weights=lambda number: True,
    ) as backend:
        found = []
        while (proposal := backend.ask()) is not None:
            found.append((proposal.number, proposal.plan.asked, proposal.start_from))
            told = synthetic.run_trial(engine, proposal)
            assert isinstance(told, synthetic.Result)
            backend.tell(
                proposal,
                quality=told.measurement.quality,
                quality_error=told.measurement.quality_error,
                details=Details(trained=told.work.trained),
            )
    assert found == wanted
    assert {parent for _, _, parent in found} - {None, 0}, "some start from the weights of others"


def test_it_goes_on_in_its_folder_and_proposals_come_back(tmp_path: Path) -> None:
    whole = SearchBackend(structure(), settings())
    asked = finish(whole)
    with SearchBackend(structure(), settings(), tmp_path / "run") as backend:
        finish(backend, most=5)
        left = [backend.ask() for _ in range(3)]
    before = [(p.number, p.plan.asked) for p in left if p is not None]
    assert len(before) == 3
    with SearchBackend(structure(), settings(trials=16), tmp_path / "run") as backend:
        again = [backend.ask() for _ in range(3)]
        assert [(p.number, p.plan.asked) for p in again if p is not None] == before
        for proposal in backend.pending:
            backend.tell(proposal, quality=quality(proposal))
        finish(backend)
        assert len(backend.run.records) == 16, "more trials may be asked for"
    run = autoprune.Run.open(tmp_path / "run")
    assert len(run.records) == 16
    assert run.front().members
    assert [p.plan.asked for p in asked[:5]] == [record.plan for record in run.records[:5]]


def test_of_several_proposals_none_is_given_up_because_the_process_ended(tmp_path: Path) -> None:
    with SearchBackend(structure(), settings(), tmp_path / "run") as backend:
        finish(backend, most=4)

    def ask_three() -> list[int]:
        opened = SearchBackend(structure(), settings(), tmp_path / "run")
        return [proposal.number for proposal in (opened.ask() for _ in range(3)) if proposal is not None]

    for _ in range(4):
        assert forked(ask_three) == 0, "it ends without closing"
    assert ask_three() == [4, 5, 6]
    assert not autoprune.Run.open(tmp_path / "run").failures


def test_a_result_that_comes_after_the_process_died_is_taken(tmp_path: Path) -> None:
    backend = SearchBackend(structure(), settings(), tmp_path / "run")
    finish(backend, most=4)
    late = backend.ask()
    assert late is not None
    sent = Proposal.from_json(late.to_json())
    assert sent == late
    del backend, late  # without close
    gc.collect()
    with SearchBackend(structure(), settings(), tmp_path / "run") as backend:
        record = backend.tell(sent, quality=0.5)
        assert record.number == sent.number
        with pytest.raises(ConfigurationError, match=f"number {sent.number}, which has been told"):
            backend.tell(sent, quality=0.5)
        with pytest.raises(ConfigurationError, match="still to be told"):
            backend.tell_failed(replace(sent, number=99), "never asked")
        assert sent.number not in [proposal.number for proposal in finish(backend)]
        assert len(backend.run.records) == 14
    with pytest.raises(ConfigurationError, match="be open"):
        backend.tell(sent, quality=0.5)


@pytest.mark.parametrize(
    ("other", "named"),
    [
        (lambda: (structure(), settings(seed=4), {"quality": True}), "seed"),
        (lambda: (structure(), settings(max_ratio=0.5), {"quality": True}), "structure.max_ratio"),
        (lambda: (structure(), settings(), {"quality": False}), "higher_is_better"),
        (lambda: (structure(), settings(), {"accuracy": True}), "quality"),
        (lambda: (structure_of_layers(GROUPS, LAYERS), settings(), {"quality": True}), "blocks"),
        (
            lambda: (
                structure_of_layers(
                    GROUPS, [replace(LAYERS[0], positions=9), *LAYERS[1:]], [Block(name="inner", layers=("inner",))]
                ),
                settings(),
                {"quality": True},
            ),
            "costs",
        ),
    ],
    ids=["seed", "max_ratio", "direction", "metric", "blocks", "costs"],
)
def test_another_search_is_refused(
    other: Callable[[], tuple[Structure, autoprune.StudySettings, dict[str, bool]]], named: str, tmp_path: Path
) -> None:
    SearchBackend(structure(), settings(), tmp_path / "run").close()
    described, chosen, metrics = other()
    with pytest.raises(StudyConflictError, match=rf"other .*\b{named}\b") as held:
        SearchBackend(described, chosen, tmp_path / "run", metrics=metrics)
    SearchBackend(structure(), settings(), tmp_path / "run").close()  # the lock is free, although the error is held
    del held


def test_one_process_at_a_time_and_no_other_files(tmp_path: Path) -> None:
    first = SearchBackend(structure(), settings(), tmp_path / "run")
    with pytest.raises(StudyConflictError, match="which another one runs"):
        SearchBackend(structure(), settings(), tmp_path / "run")
    first.close()
    first.close()
    SearchBackend(structure(), settings(), tmp_path / "run").close()
    (tmp_path / "mine.txt").write_text("mine")
    with pytest.raises(StudyConflictError, match="with other files"):
        SearchBackend(structure(), settings(), tmp_path)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"modes": ("ranking",)}, "structure.modes must be ratio or count"),
        ({"block_criteria": ("l1",)}, "scores no blocks"),
        ({"round_to": "device"}, "has no device"),
        ({"latency_when": "front"}, "has no device"),
        ({"kinds": ("heads",)}, "have something of the kinds heads"),
        ({"objectives": ("quality", "recall")}, "recall"),
    ],
)
def test_settings_that_need_weights_or_a_device_are_refused(changes: dict[str, object], message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        SearchBackend(structure(), settings(**changes))


def test_a_full_disk_loses_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    with SearchBackend(structure(), settings(), tmp_path / "run") as backend:
        finish(backend, most=4)
        proposal = backend.ask()
        assert proposal is not None
        for kind, name in ((atomic.Path, "rename"), (Ledger, "tell")):
            with monkeypatch.context() as patch:
                patch.setattr(kind, name, lambda *_: (_ for _ in ()).throw(StorageError("No space left on device")))
                with pytest.raises(StorageError):
                    backend.tell(proposal, quality=0.5)
        backend.tell(proposal, quality=0.5)
        numbers = [record.number for record in backend.run.records]
        assert len(numbers) == len({*numbers}) == 5
        finish(backend)
    assert len(autoprune.Run.open(tmp_path / "run").records) == 14


def test_failures_are_stored_and_the_dense_model_is_tried_three_times(tmp_path: Path) -> None:
    with SearchBackend(structure(), settings(), tmp_path / "run") as backend:
        for attempt in range(3):
            dense = backend.ask()
            assert dense is not None
            assert dense.origin == "dense"
            if attempt < 2:
                backend.tell_failed(dense, "Traceback ...\nValueError: no\n")
        assert dense is not None
        with pytest.raises(AutopruneError, match="failed 3 times: the last time with ValueError: no"):
            backend.tell_failed(dense, "Traceback ...\nValueError: no\n")
        finish(backend, most=3)
        other = backend.ask()
        assert other is not None
        backend.tell_failed(other, "out of memory")
        assert (tmp_path / "run" / "failures" / f"{other.number:05d}.txt").read_text() == "out of memory"
        assert other.number not in [proposal.number for proposal in finish(backend)]


def test_latencies_are_compared_with_the_dense_model_within_their_noise() -> None:
    backend = SearchBackend(structure(), settings(objectives=("quality", "latency_ms")), metrics={"f1": True})
    dense = backend.ask()
    assert dense is not None
    with pytest.raises(ConfigurationError, match="have latency_ms, an objective or limit"):
        backend.tell(dense, quality=0.9)
    backend.tell(dense, quality=0.9, costs={"latency_ms": (4.0, 0.2), "peak_memory_bytes": 100.0})
    proposal = backend.ask()
    assert proposal is not None
    record = backend.tell(proposal, quality=0.9, costs={"latency_ms": (2.0, 0.1), "parameters": 7})
    latency = record.search.latency
    assert latency is not None
    assert (latency.ratio, latency.dense_ms, record.search.parameters) == (0.5, 4.0, 7)
    assert latency.ratio_low == pytest.approx(0.5 / 1.1487, rel=1e-3)  # 1.96 times hypot(5 %, 5 %), in the logarithm
    assert latency.ratio_high == pytest.approx(0.5 * 1.1487, rel=1e-3)
    assert record.search.metrics == {"f1": 0.9}
    assert backend.run.records[0].search.costs == {"peak_memory_bytes": 100.0}


@pytest.mark.parametrize(
    ("numbers", "error", "message"),
    [
        ({"quality": float("nan")}, ConfigurationError, "tell_failed"),
        ({"quality": 0.5, "costs": {"watts": 3.0}}, UnknownNameError, "a cost must be one of"),
        ({"quality": 0.5, "metrics": {"loss": 3.0}}, UnknownNameError, "a metric must be one of energy"),
        ({"quality": 0.5, "costs": {"parameters": (3.0, 0.1)}}, ConfigurationError, "parameters"),
        ({"quality": 0.5, "costs": {"parameters": -1.0}}, ConfigurationError, "parameters"),
        ({"quality": 0.5, "costs": {"latency_ms": (0.0, 0.1)}}, ConfigurationError, "latency_ms"),
        ({"quality": 0.5, "metrics": {"energy": float("inf")}}, ConfigurationError, "energy"),
        ({"quality": 0.5, "quality_error": -0.1}, ConfigurationError, "quality_error"),
        ({"quality": 0.5}, ConfigurationError, "have energy, an objective"),
        (
            {"quality": 0.5, "metrics": {"energy": 1.0}, "details": Details(kept={"a": (40,)})},
            AutopruneError,
            "kept channels of a",
        ),
    ],
)
def test_wrong_numbers_are_refused_and_nothing_is_stored(
    numbers: dict[str, object], error: type[Exception], message: str
) -> None:
    chosen = settings(objectives=("quality", "energy", "multiply_adds"))
    backend = SearchBackend(structure(), chosen, metrics={"quality": True, "energy": False})
    dense = backend.ask()
    assert dense is not None
    with pytest.raises(error, match=message):
        backend.tell(dense, **numbers)  # type: ignore[arg-type]
    assert not backend.run.records
    backend.tell(dense, quality=0.5, metrics={"energy": 3.0})
    assert len(backend.front().members) == 1


def test_a_queued_plan_comes_next_and_early_stopping_is_there() -> None:
    backend = SearchBackend(structure(), settings(trials=40, early_stopping="front"), metrics={"accuracy": True})
    finish(backend, most=24)
    plan = autoprune.PruningPlan(groups={"a": GroupPlan(count=3)}, dropped=("inner",))
    backend.enqueue(plan)
    with pytest.raises(ConfigurationError, match="a group must be one of a, b, c"):
        backend.enqueue(autoprune.PruningPlan(groups={"z": GroupPlan(count=3)}))
    proposal = backend.ask()
    assert proposal is not None
    assert proposal.plan.asked == plan
    assert proposal.plan.widths["a"] == 13
    backend.tell(proposal, quality=quality(proposal), details=Details(kept={"a": tuple(range(1, 14))}))
    assert backend.run.records[-1].kept["a"] == tuple(range(1, 14))
    stopped = 0
    while (proposal := backend.ask()) is not None:
        hopeless = bool(proposal.rungs) and backend.should_stop(proposal, 0.5, 0.0)
        fidelity = 0.5 if hopeless else 1.0
        record = backend.tell(proposal, quality=quality(proposal) * fidelity, details=Details(fidelity=fidelity))
        stopped += record.stopped
    assert stopped


def test_a_journal_that_lost_a_parameter_is_made_again(tmp_path: Path) -> None:
    """Optuna would go on with a finished trial of fewer parameters."""
    with SearchBackend(structure(), settings(trials=5), tmp_path / "run") as backend:
        finish(backend)
    journal = tmp_path / "run" / "journal.log"
    lines = journal.read_bytes().splitlines(keepends=True)
    torn = max(number for number, line in enumerate(lines) if b'"param_name"' in line)
    journal.write_bytes(b"".join([*lines[:torn], lines[torn][:20], *lines[torn + 1 :]]))
    with SearchBackend(structure(), settings(trials=6), tmp_path / "run") as backend:
        trials = backend._search.state.ledger.trials()
        assert [trials[record.number].params for record in backend.run.records] == [
            record.parameters for record in backend.run.records
        ]
        finish(backend)
        assert len(backend.run.records) == 6


def test_energy_is_told_as_a_number_with_its_error() -> None:
    with pytest.raises(ConfigurationError, match=r"measure.energy must be off, as a backend has no device"):
        SearchBackend(structure(), settings(energy=True))
    backend = SearchBackend(structure(), settings(objectives=("quality", "energy_mj")))
    dense = backend.ask()
    assert dense is not None
    with pytest.raises(ConfigurationError, match="energy_mj"):
        backend.tell(dense, quality=0.9, costs={"energy_mj": 0.0})
    backend.tell(dense, quality=0.9, costs={"energy_mj": (40.0, 2.0)})
    proposal = backend.ask()
    assert proposal is not None
    record = backend.tell(proposal, quality=0.9, costs={"energy_mj": (20.0, 1.0)})
    assert record.search.energy is not None
    assert record.search.energy.ratio == pytest.approx(0.5)
    assert record.search.energy.ratio_high == pytest.approx(0.5 * math.exp(1.96 * math.hypot(0.05, 0.05)), rel=1e-3)
    assert record.search.latencies == {}
