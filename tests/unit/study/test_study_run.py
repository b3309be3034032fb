"""One run of a study: what is tried, from where it starts, what is stored and what Optuna is told."""

from __future__ import annotations

import functools
import json
from collections.abc import Iterator
from pathlib import Path

import pytest
import torch
from optuna.study import StudyDirection
from optuna.trial import TrialState
from safetensors.torch import load_file
from torch import Tensor, nn

import autoprune
from autoprune.errors import ConfigurationError, NotFoundError, UnknownNameError
from autoprune.measure.quality import evaluate
from autoprune.plan.kept import KeptChannels
from autoprune.plan.widths import planned_widths
from autoprune.records.candidate import CandidateRecord
from autoprune.records.run_folder import RunFolder
from autoprune.search.space.space import budgets
from autoprune.study import store
from autoprune.surgery.cut import cut
from autoprune.trial.context import TrialContext
from tests.slow import slow
from tests.tasks import blobs, flat_task, image_task, trained_mlp
from tests.unit.study.small import comparable, journal_study, journal_trials, settings, space

#: Outputs of every candidate at the moment that it was stored.
Outputs = dict[int, Tensor]


@functools.cache
def task() -> autoprune.PreparedTask:
    """One for all, since a task is never changed."""
    return image_task()


@functools.cache
def flat() -> autoprune.PreparedTask:
    """That of studies whose layers decide nothing."""
    return flat_task()


@pytest.fixture(scope="module")
def finished(tmp_path_factory: pytest.TempPathFactory) -> tuple[autoprune.Study, Outputs]:
    """A finished study of eight trials, and what each of its models answered before it was written."""
    outputs: Outputs = {}
    write = store.store_candidate
    probe = blobs(40, seed=5)[0]

    def watched(folder: RunFolder, record: CandidateRecord, model: nn.Module) -> None:
        with torch.no_grad():
            outputs[record.number] = model(probe)
        write(folder, record, model)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(store, "store_candidate", watched)
        study = autoprune.Study.create(task(), settings(), out=tmp_path_factory.mktemp("study") / "run")
        study.run()
    return study, outputs


@pytest.fixture(scope="module")
def study(finished: tuple[autoprune.Study, Outputs]) -> autoprune.Study:
    return finished[0]


def bench_of(study: autoprune.Study) -> TrialContext:
    assert study.context is not None
    return study.context


def test_warm_starts_come_once_and_in_order(study: autoprune.Study) -> None:
    """Dense, the chain of solved allocations, the uniform sweep from wide to narrow, then the sampler's."""
    assert [record.origin for record in study.records] == ["dense", "solved"] + ["uniform"] * 3 + ["sampled"] * 3
    assert [record.number for record in study.records] == list(range(8))
    uniform = [record.search.multiply_adds for record in study.records[2:5]]
    assert uniform == sorted(uniform, reverse=True)
    dense = study.records[0].search
    topology = bench_of(study).topology
    for record, budget in zip(study.records[2:5], budgets(settings(), topology, 3), strict=True):
        assert record.search.multiply_adds / dense.multiply_adds == pytest.approx(budget, abs=0.08)


def test_the_dense_model_is_measured_as_it_came(study: autoprune.Study) -> None:
    dense = study.records[0]
    assert dense.parent is None
    assert dense.widths == bench_of(study).topology.widths
    assert dense.search.quality == evaluate(task(), task().dense, task().search_split).value
    assert dense.samples_trained == 0


def test_more_trials_do_not_repeat_the_warm_starts(tmp_path: Path) -> None:
    for trials in (2, 6, 7):
        study = autoprune.Study.create(flat(), settings(trials=trials), out=tmp_path / "run")
        study.run()
        assert len(study.records) == trials
    origins = [record.origin for record in study.records]
    assert origins == ["dense", "solved", "uniform", "uniform", "uniform", "sampled", "sampled"]


def test_every_trial_starts_from_an_ancestor_that_contains_it(study: autoprune.Study) -> None:
    by_number = {record.number: record for record in study.records}
    for record in study.records[1:]:
        assert record.parent is not None
        assert record.parent < record.number
        parent = by_number[record.parent]
        for name, indices in record.kept.items():
            assert set(indices) <= set(parent.kept[name]), f"{record.number} has channels its parent lost"
        # The plan says how many, and is kept to.
        assert record.widths == planned_widths(record.plan, bench_of(study).topology)
    assert any(record.parent != 0 for record in study.records[1:]), "no lineage at all"
    assert [record.parent for record in study.records[2:5]] == [0, 2, 3], "the sweep is one line, of its own"


def test_the_smallest_ancestor_is_taken(study: autoprune.Study) -> None:
    for place, record in enumerate(study.records[1:], start=1):
        wide = [
            earlier
            for earlier in study.records[:place]
            if (record.origin != "uniform" or earlier.origin in ("dense", "uniform"))
            and all(earlier.widths[name] >= width for name, width in record.widths.items())
        ]
        smallest = min(earlier.search.multiply_adds for earlier in wide)
        parent = next(earlier for earlier in wide if earlier.number == record.parent)
        assert parent.search.multiply_adds == smallest


def test_lineage_trained_adds_up(study: autoprune.Study) -> None:
    by_number = {record.number: record for record in study.records}
    for record in study.records[1:]:
        assert record.parent is not None
        assert record.lineage_trained == by_number[record.parent].lineage_trained + record.samples_trained
        assert record.samples_trained >= 3 * 50, "three steps of fifty samples"


@pytest.fixture(scope="module")
def untrained_child(tmp_path_factory: pytest.TempPathFactory) -> tuple[dict[str, Tensor], dict[str, Tensor], list[str]]:
    """Stored weights of a candidate that was cut and nothing else; the same cut of its parent; names of parameters.

    The parent is a candidate that was trained, so its weights are not the dense model's.
    """
    out = tmp_path_factory.mktemp("lineage") / "run"
    study = autoprune.Study.create(task(), settings(trials=2), out=out)
    study.run()
    parent, context = study.records[1], bench_of(study)
    assert parent.samples_trained > 0
    groups = {
        name: autoprune.GroupPlan(ratio=1 - max(1, width - 2) / context.topology.widths[name])
        for name, width in parent.widths.items()
    }
    untrained = autoprune.RecoveryPlan(steps=0, recalibration=autoprune.RecalibrationPlan())
    study.enqueue(autoprune.PruningPlan(groups=groups, recovery=untrained))
    study.run(trials=3)
    child = study.records[2]
    assert (child.origin, child.parent) == ("enqueued", 1)
    recovered, kept = study.rebuild(1), KeptChannels(groups=child.kept)
    expected = cut(recovered, context.topology, kept, parent=KeptChannels(groups=parent.kept))
    from_dense = cut(context.task.dense, context.topology, kept).state_dict()
    parameters = [name for name, _ in expected.named_parameters()]
    assert not any(torch.equal(expected.state_dict()[name], from_dense[name]) for name in parameters)
    return load_file(study.folder.weights(2)), expected.state_dict(), parameters


def test_a_trial_starts_from_its_ancestors_weights(
    untrained_child: tuple[dict[str, Tensor], dict[str, Tensor], list[str]],
) -> None:
    stored, expected, parameters = untrained_child
    assert stored.keys() == expected.keys()
    assert [name for name in parameters if not torch.equal(stored[name], expected[name])] == []


def test_no_recalibration_leaves_the_running_statistics(
    untrained_child: tuple[dict[str, Tensor], dict[str, Tensor], list[str]],
) -> None:
    """recalibration=(0,) is no recalibration; it must not set means to 0 and variances to 1."""
    stored, expected, parameters = untrained_child
    assert [n for n in stored if n not in parameters and not torch.equal(stored[n], expected[n])] == []


def test_without_lineage_every_trial_starts_from_dense(tmp_path: Path) -> None:
    study = autoprune.Study.create(flat(), settings(trials=6, lineage=False), out=tmp_path / "run")
    study.run()
    assert {record.parent for record in study.records[1:]} == {0}
    assert all(record.lineage_trained == record.samples_trained for record in study.records)


def test_optuna_is_told_what_the_records_say(study: autoprune.Study) -> None:
    found = {trial.number: trial for trial in journal_trials(study.folder.path)}
    assert found.keys() == {record.number for record in study.records}
    for record in study.records:
        trial = found[record.number]
        assert trial.state == TrialState.COMPLETE
        assert trial.values == [record.search.quality, record.search.multiply_adds]
        assert trial.user_attrs.get("origin", "sampled") == record.origin


TIMED = ("quality", "size_bytes", "latency_ms")


def test_latency_is_told_as_its_ratio_to_dense(tmp_path: Path) -> None:
    chosen = settings(trials=3, latency_rounds=2, latency_backend="eager", objectives=TIMED)
    study = autoprune.Study.create(flat(), chosen, out=tmp_path / "run")
    study.run()
    for record, trial in zip(study.records, journal_trials(study.folder.path), strict=True):
        # Of the trial: a latency in doubt is measured again afterwards.
        stored = json.loads(study.folder.weights(record.number).with_name("candidate.json").read_text())
        ratio = stored["search"]["latencies"]["default"]["ratio"] if record.number else 1.0  # dense against itself
        assert trial.values == [record.search.quality, record.search.size_bytes, ratio]


def test_the_records_are_on_disk(study: autoprune.Study) -> None:
    assert comparable(study.folder.read_candidates()) == comparable(study.records)
    assert not list((study.folder.path / "candidates").glob(".*")), "nothing temporary is left"


def test_sizes_of_the_records_are_those_of_the_stored_models(study: autoprune.Study) -> None:
    topology = bench_of(study).topology
    for record in study.records:
        cost = topology.cost(record.widths)
        assert record.search.parameters == cost.parameters
        assert record.search.multiply_adds == cost.multiply_adds
        assert record.search.size_bytes == study.folder.weights(record.number).stat().st_size


def test_a_rebuilt_candidate_is_bit_identical_to_what_was_measured(
    finished: tuple[autoprune.Study, Outputs],
) -> None:
    study, outputs = finished
    probe = blobs(40, seed=5)[0]
    assert outputs.keys() == {record.number for record in study.records}
    for record in study.records:
        model = study.rebuild(record.number)
        assert not model.training
        with torch.no_grad():
            assert torch.equal(model(probe), outputs[record.number])
        again = evaluate(task(), model, task().search_split)
        assert (again.value, again.error, again.metrics) == (
            record.search.quality,
            record.search.quality_error,
            dict(record.search.metrics),
        )


def test_it_is_rebuilt_by_another_study_object_too(finished: tuple[autoprune.Study, Outputs]) -> None:
    study, outputs = finished
    other = autoprune.Study.open(study.folder.path, task())
    with torch.no_grad():
        assert torch.equal(other.rebuild(7)(blobs(40, seed=5)[0]), outputs[7])


def test_changing_a_rebuilt_model_changes_nothing_else(study: autoprune.Study) -> None:
    """Nobody's fine-tune of a rebuilt model may leak into the study, the dense one's least of all."""
    for number in (0, 3):
        before = study.rebuild(number).state_dict()
        before = {name: tensor.clone() for name, tensor in before.items()}
        model = study.rebuild(number)
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.add_(1.0)
        after = study.rebuild(number).state_dict()
        changed = [name for name in before if not torch.equal(before[name], after[name])]
        with torch.no_grad():
            for parameter in model.parameters():
                parameter.sub_(1.0)
        assert not changed


def test_the_models_of_the_user_stay_as_they_were(tmp_path: Path) -> None:
    model = trained_mlp()
    for parameter in model.parameters():
        parameter.grad = None
    before = {name: tensor.clone() for name, tensor in model.state_dict().items()}
    chosen = settings(trials=4, space=space(criteria=("taylor",)))
    autoprune.Study.create(flat(), chosen, out=tmp_path / "run").run()
    assert all(torch.equal(before[name], tensor) for name, tensor in model.state_dict().items())
    assert all(parameter.grad is None for parameter in model.parameters())
    assert not model.training


def test_opened_without_a_task_it_can_be_looked_at(study: autoprune.Study) -> None:
    looked = autoprune.Study.open(study.folder.path)
    assert looked.front() == study.front()
    assert looked.samples() == study.samples()
    assert looked.settings == study.settings
    for action, call in (
        ("rebuild", lambda: looked.rebuild(0)),
        ("run", lambda: looked.run(trials=9)),
        ("enqueue", lambda: looked.enqueue(autoprune.PruningPlan(groups={}))),
    ):
        with pytest.raises(ConfigurationError, match=f"a study to {action} must be opened with its task"):
            call()


def test_an_unknown_candidate_names_those_of_the_front(study: autoprune.Study) -> None:
    with pytest.raises(NotFoundError, match=r"a candidate must be a finished trial \(front: .*\), but got 99"):
        study.rebuild(99)


def test_nothing_to_open(tmp_path: Path) -> None:
    with pytest.raises(NotFoundError, match=r"a run folder must hold study\.json"):
        autoprune.Study.open(tmp_path / "nowhere")
    assert not (tmp_path / "nowhere").exists()


@pytest.mark.parametrize(
    "changes",
    [
        slow({"criteria": ("l2",)}),
        {"criteria": ("taylor", "mean_activation")},
        {"criteria": ("l2",), "distillation": (0.5,)},
        {"criteria": ("l2",), "learning_rate": 1e12, "steps": 6},
        slow({"criteria": ("l2",), "recalibration": (0,)}),
    ],
    ids=["plain", "signals", "distillation", "divergence", "no-recalibration"],
)
def test_samples_are_the_sum_of_all_work(changes: dict[str, object], tmp_path: Path) -> None:
    """Counted at the model itself: every sample that passed through it, whichever copy of it ran."""
    seen: list[int] = []

    class Counting(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.model = trained_mlp()

        def forward(self, x: Tensor) -> Tensor:
            seen.append(len(x))
            output: Tensor = self.model(x)
            return output

    counted = flat_task(model=Counting().eval(), test=None)
    chosen = settings(trials=4, uniform_points=1, space=space(**changes))
    study = autoprune.Study.create(counted, chosen, out=tmp_path / "run")
    seen.clear()
    study.run()
    total = study.samples()
    # Multiply-adds are counted on the four example inputs, which are no data.
    assert sum(size for size in seen if size != 4) == total.total
    scanned = study.folder.read_sensitivity()
    assert scanned is not None
    assert total.trained == scanned.samples_trained + sum(record.samples_trained for record in study.records)
    assert total.forward == scanned.samples_forward + sum(record.samples_forward for record in study.records)


@pytest.fixture(scope="module")
def lower(tmp_path_factory: pytest.TempPathFactory) -> autoprune.Study:
    """A study of error, which is 1 - accuracy."""
    wrong = image_task(metrics=("error", "accuracy"), quality="error")
    found = autoprune.Study.create(wrong, settings(), out=tmp_path_factory.mktemp("lower") / "run")
    found.run()
    return found


def test_a_metric_where_lower_is_better(lower: autoprune.Study) -> None:
    study, front = lower, lower.front()
    assert not front.problem.higher_is_better
    assert journal_study(study.folder.path).directions == [StudyDirection.MINIMIZE, StudyDirection.MINIMIZE]
    for record in study.records:
        assert record.search.quality == pytest.approx(1 - record.search.metrics["accuracy"], abs=1e-6)
    everything = [(record.search.quality, record.search.multiply_adds) for record in study.records]
    for member in front.strict:
        quality, cost = member.search.quality, member.search.multiply_adds
        assert not any(q <= quality and c <= cost and (q, c) != (quality, cost) for q, c in everything)
    best = min(everything)[0]
    assert min(record.search.quality for record in front.members) == best
    assert front.choose(autoprune.Limits(), by="quality").search.quality == best


def test_the_search_is_the_same_whichever_way_the_metric_points(study: autoprune.Study, lower: autoprune.Study) -> None:
    """The sampler must be led to the same plans."""
    assert [record.plan for record in lower.records] == [record.plan for record in study.records]


@pytest.mark.parametrize(
    ("sampler", "kind"),
    [
        *((sampler, "guided") for sampler in ("evolution", "nsga2", "qmc")),
        *((sampler, "direct") for sampler in ("tpe", "random")),
        *(slow(sampler, "guided") for sampler in ("tpe", "random", "nsga3", "gp")),
        *(slow(sampler, "direct") for sampler in ("evolution", "nsga2", "qmc", "nsga3", "gp")),
    ],
)
def test_every_sampler_runs_in_every_space(sampler: str, kind: str, tmp_path: Path) -> None:
    untrained = space(space=kind, steps=0, reconstruction=(0,))
    chosen = settings(trials=6, uniform_points=1, solved_points=1, sampler=sampler, space=untrained)
    study = autoprune.Study.create(flat(), chosen, out=tmp_path / "run")
    study.run()
    sampled = [record for record in study.records if record.origin == "sampled"]
    assert len(study.records) == 6
    assert len(sampled) == (3 if kind == "guided" else 4)
    assert len({tuple(record.widths.items()) for record in sampled}) > 1, "it samples different models"


def test_the_list_of_samplers_is_covered() -> None:
    from autoprune.search.samplers.registry import SAMPLERS

    assert set(SAMPLERS) == {"tpe", "evolution", "nsga2", "nsga3", "gp", "qmc", "random"}


def test_a_plan_of_ones_own(tmp_path: Path) -> None:
    own = autoprune.Study.create(flat(), settings(trials=1), out=tmp_path / "run")
    own.run()
    plan = autoprune.PruningPlan(
        groups={"0": autoprune.GroupPlan(ratio=0.5, criterion="random")},
        recovery=autoprune.RecoveryPlan(steps=1, learning_rate=0.01),
        seed=77,
    )
    own.enqueue(autoprune.PruningPlan.from_json(plan.to_json()))
    own.run(trials=2)
    record = own.records[-1]
    assert record.origin == "enqueued"
    assert record.plan == plan
    assert record.widths == bench_of(own).topology.widths | {"0": 16}
    assert record.samples_trained == 50


@pytest.mark.parametrize(
    ("group", "error", "message"),
    [
        ({"nowhere": autoprune.GroupPlan(ratio=0.5)}, ConfigurationError, "a group must be one of stem.0"),
        ({"stem.0": autoprune.GroupPlan(ratio=0.5, criterion="l3")}, UnknownNameError, "a criterion must be one of"),
    ],
    ids=["group", "criterion"],
)
def test_a_plan_that_does_not_fit_is_refused_at_once(
    group: dict[str, autoprune.GroupPlan], error: type[Exception], message: str, tmp_path: Path
) -> None:
    study = autoprune.Study.create(task(), settings(), out=tmp_path / "run")
    with pytest.raises(error, match=message):
        study.enqueue(autoprune.PruningPlan(groups=group))


@pytest.mark.parametrize("numbers", [{"trials": 0}, {"trials": -1}, {"seconds": 0}, {"seconds": -1.0}])
def test_run_refuses_numbers_that_make_no_sense(numbers: dict[str, float], tmp_path: Path) -> None:
    study = autoprune.Study.create(task(), settings(trials=1), out=tmp_path / "run")
    with pytest.raises(ConfigurationError, match=next(iter(numbers))):
        study.run(**numbers)  # type: ignore[arg-type]
    assert not study.records


def test_time_that_has_run_out_starts_no_trial_but_dense(tmp_path: Path) -> None:
    """The limit is looked at before each trial; what is done stays, and the next run goes on."""
    study = autoprune.Study.create(flat(), settings(), out=tmp_path / "run")
    study.run(seconds=1e-9)
    assert [record.origin for record in study.records] == ["dense"]
    study.run(seconds=1e-9)
    assert len(study.records) == 1
    study.run()
    assert len(study.records) == 8


def test_progress_says_where_the_run_is(tmp_path: Path) -> None:
    seen: list[autoprune.Progress] = []
    study = autoprune.Study.create(flat(), settings(trials=3), out=tmp_path / "run")
    study.run(on_progress=seen.append)
    stages = [progress.stage for progress in seen]
    assert [stage for stage, before in zip(stages, ["", *stages], strict=False) if stage != before] == [
        "scan",
        "trial",
        "test",
        "end",
    ], "one after the other"
    groups = len(bench_of(study).topology.groups)
    scanned = [progress for progress in seen if progress.stage == "scan"]
    assert [progress.part for progress in scanned] == [(done, groups) for done in range(groups + 1)]
    assert scanned[0].remaining_seconds is None
    assert all(progress.remaining_seconds is not None for progress in scanned[1:])
    assert scanned[-1].remaining_seconds == 0.0
    tried = [progress for progress in seen if progress.stage == "trial"]
    assert [progress.done for progress in tried] == [1, 2, 3]
    assert tried[0].remaining_seconds is None, "the dense model's trial trains nothing, and says nothing of the others"
    assert tried[2].remaining_seconds == 0.0
    tested = [progress.part for progress in seen if progress.stage == "test"]
    assert tested == [(done, 3) for done in range(4)]
    assert {progress.target for progress in seen} == {3}
    assert all(progress.failed == "" for progress in seen)
    assert [len(progress.front.records) for progress in tried] == [1, 2, 3]
    assert seen[-1].ending is not None
    assert not seen[-1].ending.early


class Watched:
    """Batches of the test split that count how often they are gone through."""

    def __init__(self) -> None:
        images, targets = blobs(200, seed=1)
        self.batches = list(zip(images.flatten(1).split(50), targets.split(50), strict=True))
        self.passes = 0

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor]]:
        self.passes += 1
        return iter(self.batches)


def test_the_test_split_is_not_touched_before_the_search_has_ended(tmp_path: Path) -> None:
    test = Watched()
    passes: list[tuple[str, int]] = []
    study = autoprune.Study.create(flat_task(test=test), settings(), out=tmp_path / "run")
    test.passes = 0

    study.run(trials=8, on_progress=lambda progress: passes.append((progress.stage, test.passes)))
    assert {stage for stage, _ in passes} == {"scan", "trial", "test", "end"}
    assert {count for stage, count in passes if stage in ("scan", "trial")} == {0}
    front = {record.number for record in study.front().members}
    measured = {record.number for record in study.records if record.test is not None}
    baselines = {record.number for record in study.records if record.origin in ("dense", "uniform")}
    assert measured == front | baselines
    assert test.passes == len(measured)

    # Run again, nothing is measured twice; with more trials only what is new.
    study.run(trials=8)
    assert test.passes == len(measured)
    study.run(trials=10)
    front = {record.number for record in study.front().members}
    measured = {record.number for record in study.records if record.test is not None}
    assert front <= measured
    assert test.passes == len(measured)


def test_a_run_that_is_cut_short_leaves_the_test_split_alone(tmp_path: Path) -> None:
    test = Watched()
    study = autoprune.Study.create(flat_task(test=test), settings(), out=tmp_path / "run")
    test.passes = 0

    def stop(progress: autoprune.Progress) -> None:
        if progress.done == 3:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        study.run(on_progress=stop)
    # Nor does a run whose time is up before its trials are done.
    study.run(seconds=1e-9)
    assert len(study.records) == 3
    assert test.passes == 0
    assert all(record.test is None for record in study.records)


def test_the_test_numbers_are_those_of_the_test_split(study: autoprune.Study) -> None:
    test_split = task().test_split
    assert test_split is not None
    for record in study.front().members:
        assert record.test is not None
        assert record.test.split == "test"
        assert record.test.quality == evaluate(task(), study.rebuild(record.number), test_split).value


def test_the_front_is_decided_on_the_search_split(study: autoprune.Study) -> None:
    front = study.front()
    for record in study.records:
        better = [
            other
            for other in study.records
            if other.search.quality >= record.search.quality
            and other.search.multiply_adds <= record.search.multiply_adds
            and (other.search.quality, other.search.multiply_adds)
            != (record.search.quality, record.search.multiply_adds)
        ]
        if record in front.strict:
            assert not better
    assert front.dense == study.records[0]


@pytest.mark.parametrize("steps", [0, 1, slow(2), 3, slow(4), slow(5), slow(6)])
def test_any_number_of_steps_trains(steps: int, tmp_path: Path) -> None:
    chosen = settings(trials=2, uniform_points=1, space=space(steps=steps, scan=False, criteria=("l2",)))
    study = autoprune.Study.create(flat(), chosen, out=tmp_path / "run")
    study.run()
    assert [record.samples_trained for record in study.records] == [0, 50 * steps]
    assert [record.note for record in study.records] == ["", ""]


def test_without_a_scan_there_is_no_solved_point(tmp_path: Path) -> None:
    study = autoprune.Study.create(flat(), settings(trials=5, space=space(scan=False)), out=tmp_path / "run")
    study.run()
    assert [record.origin for record in study.records] == ["dense", "uniform", "uniform", "uniform", "sampled"]
    assert not (study.folder.path / "sensitivity.json").exists()
