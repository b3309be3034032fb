"""A study on a device profile: budgets of latency, widths on the device's grain, and few latencies to measure."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path
from typing import ClassVar

import pytest
from torch import nn

import autoprune
from autoprune.cli import following
from autoprune.errors import AutopruneWarning, ConfigurationError, StorageError
from autoprune.front.findings import findings
from autoprune.front.table import text_table
from autoprune.measure.latency.backends import backend_of
from autoprune.measure.latency.timing import Timing
from autoprune.plan.kept import KeptChannels
from autoprune.profiling.device import this_device
from autoprune.profiling.make import OnTimed, ProfileRequest
from autoprune.records.device_profile import DeviceProfile
from autoprune.records.measurement import Latency
from autoprune.records.profile import LatencyProfile
from autoprune.records.user_cache import CACHE_VARIABLE
from autoprune.search.allocation.latency_model import latency_model_of
from autoprune.search.settings import StudySettings
from autoprune.study import device
from autoprune.study.progress import Progress
from autoprune.study.study import Study
from autoprune.surgery.cut import cut
from autoprune.trial import costs
from autoprune.trial.context import TrialContext
from tests.device_profiles import half_for_nothing, profile_of
from tests.settings import study_of
from tests.tasks import flat_task, image_task
from tests.unit.study.small import settings, space

GRAIN = 4
MADE: list[str] = []


def made(request: ProfileRequest, on_timed: OnTimed | None = None) -> DeviceProfile:
    """In place of measuring."""
    MADE.append(request.profile.name)
    if on_timed is not None:
        on_timed(1, 2, None)
        on_timed(2, 2, 0.0)
    found = profile_of(request.topology, half_for_nothing(request.topology), grain=GRAIN)
    return replace(found, device=this_device(backend_of(request.profile)), latency_profile=request.profile)


@pytest.fixture(autouse=True)
def _quick(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[None]:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "cache"))
    monkeypatch.setattr(device, "make_profile", made)
    MADE.clear()
    return


def chosen(trials: int = 4, **changes: object) -> StudySettings:
    brief = space(scan=False, steps=0, cost="latency_ms", round_to="device", min_budget=0.5)
    return settings(trials=trials, solved_points=3, uniform_points=0, space=brief, **changes)


def test_half_the_latency_is_a_budget_and_widths_are_on_the_grain(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    told: list[Progress] = []
    study = Study.create(flat_task(), chosen(), out=tmp_path / "run")
    following.show_start(study, tmp_path, study.settings)
    assert "First the device profile, from the user's cache or measured" in capsys.readouterr().err
    study.run(on_progress=told.append)
    following.show_start(study, tmp_path, study.settings)
    assert "First the device profile" not in capsys.readouterr().err
    assert MADE == ["default"]
    assert [one.part for one in told if one.stage == "profile"] == [(1, 2), (2, 2)]
    assert study.context is not None
    topology = study.context.topology
    clock, (_, *others) = half_for_nothing(topology), study.records
    shares = [clock(record.widths, record.dropped) for record in others]
    assert shares == sorted(shares, reverse=True)
    assert shares[0] == pytest.approx(0.75, rel=0.05)
    assert shares[-1] < 0.62
    assert all(
        width % GRAIN == 0 or width in (1, 2, topology.widths[name])
        for record in others
        for name, width in record.widths.items()
    )
    # The study keeps its profile, and another one finds it in the cache.
    Study.create(flat_task(), chosen(5), out=tmp_path / "run").run(trials=5)
    Study.create(flat_task(), chosen(1), out=tmp_path / "other").run()
    assert MADE == ["default"]


def test_no_study_makes_a_profile_that_needs_none(tmp_path: Path) -> None:
    Study.create(flat_task(), settings(trials=1, space=space(scan=False)), out=tmp_path / "run").run()
    assert MADE == []


PHONE = LatencyProfile(name="phone", backend="remote", command="phone")


def by_default(**changes: object) -> StudySettings:
    """A study that says nothing of rounding, and whose objectives have a latency."""
    brief = space(scan=False, steps=0, min_budget=0.5, round_to="auto")
    return settings(**({"trials": 4, "solved_points": 3, "uniform_points": 0, "space": brief} | TIMED | changes))


TIMED: dict[str, object] = {"objectives": ("quality", "latency_ms"), "latency_rounds": 1, "latency_backend": "eager"}


def test_where_latency_is_an_objective_widths_are_rounded_by_default(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    study = Study.create(flat_task(), by_default(), out=tmp_path / "run")
    following.show_start(study, tmp_path, study.settings)
    assert "First the device profile, from the user's cache or measured" in capsys.readouterr().err
    study.run()
    assert MADE == ["default"]
    assert study.context is not None
    whole = study.context.topology.widths
    pruned = {(name, width) for record in study.records[1:] for name, width in record.widths.items()}
    assert all(width % GRAIN == 0 or width in (1, 2, whole[name]) for name, width in pruned)
    assert any(width < whole[name] for name, width in pruned)


@pytest.mark.parametrize(
    "changes",
    [
        {"objectives": ("quality", "multiply_adds")},
        {"seconds": 599.0},
        {"trials": 1},
        {"objectives": ("quality", "latency_ms[phone]"), "profiles": (PHONE,)},
        {"round_to": 1},
        {"modes": ("threshold",)},
    ],
    ids=lambda changes: next(iter(changes)),
)
def test_no_profile_is_made_unasked_where_it_does_not_serve(changes: dict[str, object]) -> None:
    context = TrialContext.of(flat_task())
    assert device.rounds_by_itself(by_default(), context)
    assert not device.rounds_by_itself(by_default(**changes), context)
    assert not device.rounds_by_itself(by_default(), TrialContext.of(image_task())), "no group has 16 channels"


def test_a_profile_that_cannot_be_made_unasked_is_a_warning(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fails(request: ProfileRequest, on_timed: OnTimed | None = None) -> DeviceProfile:
        raise RuntimeError("no such kernel")

    monkeypatch.setattr(device, "make_profile", fails)
    study = Study.create(flat_task(), by_default(), out=tmp_path / "run")
    with pytest.warns(AutopruneWarning, match="no device profile could be made.*no such kernel"):
        study.run()
    assert len(study.records) == 4
    # What has begun without a profile goes on without.
    monkeypatch.setattr(device, "make_profile", made)
    Study.open(tmp_path / "run", flat_task()).run(trials=5)
    assert MADE == []


def test_a_profile_of_a_busy_machine_serves_its_study_alone(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def busy(request: ProfileRequest, on_timed: OnTimed | None = None) -> DeviceProfile:
        return replace(made(request, on_timed), trusted=False, doubts=("Other work ran.",))

    monkeypatch.setattr(device, "make_profile", busy)
    study = Study.create(flat_task(), chosen(1), out=tmp_path / "run")
    with pytest.warns(AutopruneWarning, match=r"in doubt, and kept for no other study\. Other work ran\."):
        study.run()
    assert study.folder.read_device_profile() is not None
    Study.create(flat_task(), chosen(2), out=tmp_path / "run").run(trials=2)
    assert MADE == ["default"]
    monkeypatch.setattr(device, "make_profile", made)
    Study.create(flat_task(), chosen(1), out=tmp_path / "other").run()
    assert MADE == ["default", "default"]


def test_masks_alone_need_no_profile(tmp_path: Path) -> None:
    masked = space(scan=False, steps=0, kinds=("weights",), cost="latency_ms")
    Study.create(flat_task(), settings(trials=2, space=masked), out=tmp_path / "run").run()
    assert MADE == []


def test_a_profile_from_elsewhere_is_used_and_kept(tmp_path: Path) -> None:
    study = Study.create(flat_task(), chosen(1), out=tmp_path / "run")
    assert study.context is not None
    topology = study.context.topology
    profile = profile_of(topology, half_for_nothing(topology), grain=2)
    study.use_device_profile(profile)
    study.use_device_profile(profile)
    study.run()
    assert MADE == []
    assert study.folder.read_device_profile() == profile
    with pytest.raises(ConfigurationError, match="the device profile must be that of the study, but got another one"):
        study.use_device_profile(profile_of(topology, half_for_nothing(topology), grain=1))
    other = TrialContext.of(image_task()).topology
    with pytest.raises(StorageError, match="a device profile of this model, but got one of another model"):
        study.use_device_profile(profile_of(other, half_for_nothing(other)))


@pytest.mark.parametrize("change", [{"cost": "latency_ms"}, {"latency_when": "front"}], ids=str)
def test_where_latency_is_predicted_widths_need_no_grain(change: dict[str, object], tmp_path: Path) -> None:
    study = Study.create(flat_task(), study_of(**change, scan=False), out=tmp_path / "run")
    assert study.settings.structure.round_to == "auto"


def test_a_ranking_has_no_budget_of_latency() -> None:
    with pytest.raises(ConfigurationError, match=r"search.cost must be one that follows from widths alone.*ranking"):
        settings(space=space(cost="latency_ms", modes=("ranking",)))


class Comparer:
    """Latency by the number of parameters; counts what it times."""

    timed = 0
    doubtful = False
    seen: ClassVar[set[float]] = set()

    def __init__(self, dense: nn.Module, *_: object, **__: object) -> None:
        self._dense = sum(p.numel() for p in dense.parameters())

    def check(self) -> None:
        pass

    def compare(self, model: nn.Module) -> Latency:
        Comparer.timed += 1
        ratio = 0.5 + 0.5 * sum(p.numel() for p in model.parameters()) / self._dense
        numbers = {"latency_ms": ratio, "low_ms": ratio, "high_ms": ratio, "dense_ms": 1.0}
        doubts = ("The machine was busy.",) if Comparer.doubtful and ratio not in Comparer.seen else ()
        Comparer.seen.add(ratio)
        ends = {"ratio": ratio, "ratio_low": ratio, "ratio_high": ratio}
        return Latency(**numbers, **ends, backend="eager", rounds=1, doubts=doubts)


def test_what_was_in_doubt_is_measured_again_and_not_predicted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "LatencyComparer", Comparer)
    monkeypatch.setattr(Comparer, "doubtful", True)
    monkeypatch.setattr(Comparer, "seen", set())
    asked = chosen(4, objectives=("quality", "latency_ms"), latency_rounds=1, latency_when="front", sampler="random")
    study = Study.create(flat_task(), asked, out=tmp_path / "run")
    study.run()
    front = autoprune.Study.open(tmp_path / "run").front()
    assert front.members
    for record in front.members:
        assert record.search.latency is not None
        assert record.search.latency.trusted
        assert not record.search.predicted


def test_the_dense_model_is_never_predicted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(costs, "LatencyComparer", Comparer)
    context = TrialContext.of(flat_task(), timing=Timing())
    topology = context.topology
    oracle = context.costs
    oracle.predict_with({"default": latency_model_of(profile_of(topology, half_for_nothing(topology)))})
    whole = KeptChannels.whole(topology)
    less = KeptChannels(groups={topology.groups[0].name: (0, 1)})
    found = [oracle.latencies(cut(context.task.dense, topology, kept), kept)["default"] for kept in (whole, less)]
    assert [one.is_predicted for one in found] == [False, True]
    assert not oracle.latencies(cut(context.task.dense, topology, less), less, measured=True)["default"].is_predicted


def test_only_what_would_reach_the_front_is_timed(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(costs, "LatencyComparer", Comparer)
    monkeypatch.setattr(Comparer, "timed", 0)
    asked = chosen(
        10, objectives=("quality", "latency_ms"), latency_rounds=1, latency_when="front", sampler="random", seed=1
    )
    study = Study.create(flat_task(), asked, out=tmp_path / "run")
    following.show_start(study, tmp_path, study.settings)
    assert "latency where it would reach the front." in capsys.readouterr().err
    study.run()
    again = autoprune.Study.open(tmp_path / "run")
    predicted = [record.number for record in again.records if record.search.predicted]
    front = again.front()
    assert 0 < len(predicted) < 9
    assert not {record.number for record in front.members} & {*predicted}
    assert not again.records[0].search.predicted, "the dense model is measured"
    assert Comparer.timed <= len(again.records) - len(predicted)
    stored = again.folder.read_device_profile()
    assert stored is not None
    model = latency_model_of(stored)
    for record in again.records:
        if record.search.predicted:
            assert record.search.latency == model.predict(record.widths, record.dropped)
    heads, rows = text_table(again.problem, front.dense, again.records)
    cells = [row[heads.index("latency / dense (95 %)")] for row in rows]
    assert [
        record.number for record, cell in zip(again.records, cells, strict=True) if "predicted" in cell
    ] == predicted
    said = f"The latency of {len(predicted)} of 10 candidates is predicted; those of the front are measured."
    assert (said, False) in findings(front)
