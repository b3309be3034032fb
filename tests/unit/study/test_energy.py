"""A study of energy: counters laid out as Linux lays them out, moved by each call of a model by a known amount."""

from __future__ import annotations

import json
from collections.abc import Callable, Collection
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from torch import nn
from typer.testing import CliRunner

import autoprune
from autoprune.cli.main import app
from autoprune.errors import AutopruneError, AutopruneWarning, ConfigurationError
from autoprune.measure.energy import counters, rapl
from autoprune.measure.energy.comparer import EnergyComparer
from autoprune.measure.latency.backend import Backend, Loaded, Prepared
from autoprune.measure.latency.host import Counters, Host
from autoprune.measure.latency.timing import Timing
from autoprune.plan.kept import KeptChannels
from autoprune.records.energy import Energy
from autoprune.records.limits import Limits
from autoprune.records.measurement import Latency, Measurement
from autoprune.records.profile import LatencyProfile
from autoprune.records.run_folder import LATENCIES
from autoprune.report.html import write_report
from autoprune.search.settings import with_fields
from autoprune.surgery.cut import cut
from autoprune.task.data import Inputs
from autoprune.trial import energy as trial_energy
from autoprune.trial.context import TrialContext
from autoprune.trial.energy import EnergyUse
from tests.tasks import flat_task
from tests.unit.front.builders import latency
from tests.unit.measure.energy.zones import add, write_zones
from tests.unit.measure.latency.fakes import register
from tests.unit.study.small import settings, space

#: Millijoules that a parameter takes in a call.
PRICE = 0.01


def _parameters(model: nn.Module) -> int:
    return sum(parameter.numel() for parameter in model.parameters())


class Machine:
    """A package whose counter moves by calls alone, and by a little while anyone sleeps.

    Attributes:
        busy: Measurements in which other processes take a whole processor.
        failing: Numbers of the measurements in which a driver sets the counter back to 0 all the time.
    """

    failing: Collection[int] = ()

    def __init__(self, root: Path) -> None:
        self.root, self.busy, self.measured, self.own = root, 0, 0, 0.0

    def prepare(self, model: nn.Module, inputs: Inputs, profile: LatencyProfile) -> Prepared:
        def run() -> None:
            if self.measured in self.failing:
                (self.root / "intel-rapl:0" / "energy_uj").write_text("0\n")
            else:
                add(self.root, 1000 * PRICE * _parameters(model))

        return Prepared(load=lambda: Loaded(run=run), outputs=list)

    def comparer(self, *given: object) -> EnergyComparer:
        machine = self

        class Counted(EnergyComparer):
            def compare(self, model: nn.Module) -> Energy:
                machine.measured += 1
                machine.own = 0.0
                return super().compare(model)

        return Counted(*given, host=Host(counters=self.counters))  # type: ignore[arg-type]

    def counters(self) -> Counters:
        self.own += 0.2
        return Counters(own=self.own, busy=(2 if self.measured <= self.busy else 1) * self.own)


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    made = Machine(write_zones(tmp_path / "powercap"))
    monkeypatch.setenv("TMPDIR", str(tmp_path))
    monkeypatch.setattr("tempfile.tempdir", None)
    monkeypatch.setattr(rapl, "POWERCAP", made.root)
    monkeypatch.setattr(rapl.RaplCounter, "seconds", 0.002)
    monkeypatch.setattr(counters, "Host", partial(Host, sleep=lambda _: add(made.root, 1)))
    monkeypatch.setattr(trial_energy, "EnergyComparer", made.comparer)
    register(monkeypatch, "counted", Backend(prepare=made.prepare, title="", exact=True))
    return made


def chosen(**changes: object) -> autoprune.StudySettings:
    given: dict[str, object] = {
        "trials": 5,
        "uniform_points": 2,
        "latency_backend": "counted",
        "latency_seconds": 0.01,  # three bursts
        "space": space(scan=False),
        "solved_points": 0,
    }
    return settings(**{**given, **changes})


def test_the_front_of_a_study_uses_energy(machine: Machine, tmp_path: Path) -> None:
    """From the settings to the report, over a run folder that is opened again."""
    limits = Limits(max_energy_share=0.8)
    asked = chosen(objectives=("quality", "energy_mj"), limits=limits)
    study = autoprune.Study.create(flat_task(), asked, out=tmp_path / "run")
    front = study.run()
    whole = front.get(0)
    for record in front.records:
        found = record.search.energy
        assert found is not None
        assert found.trusted, found.doubts
        assert found.dense_mj == pytest.approx(PRICE * whole.search.parameters, rel=1e-3)
        assert found.ratio == pytest.approx(record.search.parameters / whole.search.parameters, rel=1e-3)
        assert (found.counter, found.backend) == ("rapl", "counted")
        assert record.test is None or record.test.energy == found
    sampled = [one for one in front.records if one.origin == "sampled"]
    assert sampled
    assert all(one.search.energy.ratio <= 0.8 for one in sampled if one.search.energy), "repaired"
    rivals = sorted(front.records, key=lambda one: one.search.parameters)
    assert rivals[0] in front.members, "the least energy is never beaten"
    for record in front.records:
        smaller = [one for one in rivals if one.search.parameters < record.search.parameters]
        if any(one.search.quality >= record.search.quality for one in smaller):
            assert record not in front.members or record.number in front.as_good_as

    stored = autoprune.Study.open(tmp_path / "run")
    assert [one.search.energy for one in stored.records] == [one.search.energy for one in study.records]
    run = CliRunner().invoke
    lines = json.loads(run(app, ["front", str(tmp_path / "run"), "--json"]).output)
    assert [line["energy_mj"] for line in lines] == [front.value(one, "energy_mj") for one in front.members]
    assert {"energy_ratio", "energy_ratio_low", "energy_trusted"} <= {*lines[0]}
    by = run(app, ["choose", str(tmp_path / "run"), "--by", "energy_mj", "--limit", "max_energy_share=0.8"])
    assert int(by.stdout) == front.choose(limits, "energy_mj").number
    page = write_report(study.stored).read_text(encoding="utf-8")
    assert " and energy (mJ), " in page
    assert "take measurably less energy than dense; the thriftiest, candidate" in page


def test_as_a_column_it_is_measured_beside_latency(machine: Machine, tmp_path: Path) -> None:
    asked = with_fields(chosen(latency_rounds=3, trials=3), ["measure.energy=true"])
    front = autoprune.Study.create(flat_task(), asked, out=tmp_path / "run").run()
    assert [one.search.energy is not None for one in front.records] == [True] * 3
    assert front.problem.objectives == ("quality", "multiply_adds")
    assert front.table()["energy_mj"].notna().all()


@pytest.mark.parametrize(
    "asked",
    [{"objectives": ("quality", "energy_mj")}, {"limits": Limits(max_energy_mj=3.0)}],
    ids=["objective", "limit"],
)
def test_without_a_counter_it_is_refused_before_any_work(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, asked: dict[str, object]
) -> None:
    monkeypatch.setattr(rapl, "POWERCAP", tmp_path / "absent")
    wants = r"the energy must be one that can be read here, .*, but got none\. .*absent has no processor package.*_mj"
    with pytest.raises(ConfigurationError, match=wants):
        autoprune.Study.create(flat_task(), chosen(**asked), out=tmp_path / "run")
    assert not (tmp_path / "run").exists()

    # A counter that was there when the study began.
    monkeypatch.setattr(rapl, "POWERCAP", machine.root)
    study = autoprune.Study.create(flat_task(), chosen(**asked), out=tmp_path / "run")
    monkeypatch.setattr(rapl, "POWERCAP", tmp_path / "absent")
    again = autoprune.Study.open(study.folder.path, flat_task())
    with pytest.raises(ConfigurationError, match=wants):
        again.run()
    assert not again.records


def test_a_column_without_a_counter_is_left_out_with_one_sentence(
    machine: Machine, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(rapl, "POWERCAP", tmp_path / "absent")
    study = autoprune.Study.create(flat_task(), chosen(trials=2, energy=True), out=tmp_path / "run")
    with pytest.warns(AutopruneWarning, match=r"Energy is left out\. .*absent has no processor package"):
        front = study.run()
    assert [one.search.energy for one in front.records] == [None, None]
    told = CliRunner().invoke(app, ["choose", str(tmp_path / "run"), "--by", "energy_mj"])
    assert told.exit_code != 0
    said = " ".join(told.output.split())
    assert "measure.energy=true was set, but the machine showed no counter of energy: " in said
    assert "absent has no processor package" in said
    plain = autoprune.Study.create(flat_task(), chosen(trials=1), out=tmp_path / "plain")
    plain.run()
    asked = CliRunner().invoke(app, ["choose", str(tmp_path / "plain"), "--by", "energy_mj"])
    assert "measure.energy=true measures it where the machine has a counter" in " ".join(asked.output.split())

    # With a counter, the same command measures what the front lacks.
    monkeypatch.setattr(rapl, "POWERCAP", machine.root)
    later = autoprune.Study.create(flat_task(), chosen(trials=2, energy=True), out=tmp_path / "run")
    assert all(one.search.energy is not None for one in later.run().members)


def test_what_is_in_doubt_decides_nothing_and_is_measured_again_at_the_end(machine: Machine, tmp_path: Path) -> None:
    machine.busy = 3
    asked = chosen(objectives=("quality", "energy_mj"), trials=3)
    study = autoprune.Study.create(flat_task(), asked, out=tmp_path / "run")
    study.run()
    assert machine.measured == 6
    stored = autoprune.Study.open(study.folder.path).records
    assert all(one.search.energy is not None and one.search.energy.trusted for one in stored)
    assert (study.folder.path / "candidates" / "00001" / LATENCIES).exists()


def test_other_trials_would_be_counted_too(machine: Machine, tmp_path: Path) -> None:
    asked = chosen(objectives=("quality", "energy_mj"))
    study = autoprune.Study.create(flat_task(), asked, out=tmp_path / "run")
    with pytest.raises(ConfigurationError, match=r"workers.latency must be 'quiet' where energy is an objective"):
        study.run(workers=2)


def test_a_counter_that_fails_for_a_while_is_read_again(machine: Machine, tmp_path: Path) -> None:
    machine.failing = {2, 3}
    asked = chosen(objectives=("quality", "energy_mj"), trials=3)
    front = autoprune.Study.create(flat_task(), asked, out=tmp_path / "run").run()
    assert all(one.search.energy is not None for one in front.records)
    assert machine.measured == 5


def test_a_counter_that_fails_ends_no_study_in_which_energy_is_a_column(machine: Machine, tmp_path: Path) -> None:
    machine.failing = {*range(2, 100)}
    study = autoprune.Study.create(flat_task(), chosen(energy=True, trials=3), out=tmp_path / "run")
    with pytest.warns(AutopruneWarning, match=r"Energy is left out of a candidate.*(jumped|stood still)"):
        front = study.run()
    assert [one.search.energy is None for one in front.records] == [False, True, True]

    machine.failing = set()
    again = autoprune.Study.open(study.folder.path, flat_task()).run()
    assert all(one.search.energy is not None for one in again.members), "the next run measures what the front lacks"


def test_where_energy_decides_a_counter_that_fails_ends_the_run_which_goes_on_later(
    machine: Machine, tmp_path: Path
) -> None:
    machine.failing = {*range(2, 100)}
    study = autoprune.Study.create(
        flat_task(), chosen(objectives=("quality", "energy_mj"), trials=3), out=tmp_path / "run"
    )
    with pytest.raises(AutopruneError, match=r"5 trials crashed.* energy in the profile default could not be measured"):
        study.run()
    machine.failing = set()
    front = autoprune.Study.open(study.folder.path, flat_task()).run()
    assert len(front.records) == 3


class _Predictor:
    def predict(self, widths: object, dropped: object = ()) -> Latency:
        return replace(latency(0.5), clock="prediction")


@pytest.fixture
def context_of(machine: Machine) -> Callable[[bool], TrialContext]:
    profile = LatencyProfile(name="default", backend="counted")
    timing = Timing(seconds=0.01)
    context = TrialContext.of(flat_task(), profiles=(profile,), timing=timing)
    return lambda decides: replace(context, energy=EnergyUse(timing=timing, decides=decides))


@pytest.mark.parametrize("decides", [False, True], ids=["column", "objective"])
def test_it_is_never_predicted_and_as_a_column_left_out_where_latency_is(
    context_of: Callable[[bool], TrialContext], decides: bool, machine: Machine
) -> None:
    context = context_of(decides)
    less = KeptChannels(groups={context.topology.groups[0].name: (0, 1)})
    model, whole = cut(context.task.dense, context.topology, less), KeptChannels.whole(context.topology)
    costs = context.costs
    costs.predict_with({"default": _Predictor()})
    assert costs.energy(context.task.dense, whole) is not None, "the dense model is always measured"
    assert (costs.energy(model, less) is not None) == decides
    assert costs.energy(model, less, measured=True) is not None
    known = costs.energy(model, less)
    assert known is not None, "what was measured once stays"
    assert machine.measured == 2
    assert known.ratio == pytest.approx(_parameters(model) / _parameters(context.task.dense), rel=1e-3)


def test_measurements_of_earlier_versions_have_none() -> None:
    plain = {key: value for key, value in _plain().items() if key != "energy"}
    assert Measurement.from_dict(plain).energy is None


def _plain() -> dict[str, object]:
    return Measurement(
        split="search",
        quality=0.5,
        quality_error=0.0,
        metrics={},
        parameters=1,
        multiply_adds=1,
        size_bytes=1,
    ).to_dict()
