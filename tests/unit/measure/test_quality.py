"""Quality is the metric itself, and its standard error that of an average over samples."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
import torchmetrics
from torch import Tensor, nn

import autoprune
from autoprune.measure import folds
from autoprune.measure.counted import Counted
from autoprune.measure.quality import evaluate, quality_alone
from autoprune.task.data import IterableSplit, TensorSplit
from tests.tasks import image_task, trained_resnet


def coin(share: float, samples: int, seed: int) -> tuple[Tensor, Tensor]:
    """Scores that are right with probability `share`, and their classes."""
    generator = torch.Generator().manual_seed(seed)
    targets = torch.randint(2, (samples,), generator=generator)
    right = torch.rand(samples, generator=generator) < share
    answers = torch.where(right, targets, 1 - targets)
    return nn.functional.one_hot(answers, 2).float(), targets


def coin_task(batch_size: int = 50, **changes: object) -> autoprune.PreparedTask:
    return image_task(
        model=nn.Identity(),
        example_inputs=torch.zeros(2, 2),
        train=coin(0.7, 100, 0),
        test=None,
        batch_size=batch_size,
        metrics=("accuracy", "error", "f1"),
        require_trained=False,
        **changes,
    )


def test_quality_is_the_metric_computed_directly() -> None:
    task = image_task()
    assert task.test_split is not None
    with torch.no_grad():
        batches = list(task.test_split.ordered())
        answers = torch.cat([task.dense(batch.inputs).argmax(1) for batch in batches])
    targets = torch.cat([batch.targets for batch in batches])
    found = evaluate(task, task.dense, task.test_split)
    assert found.value == pytest.approx(float((answers == targets).float().mean()))
    assert found.metrics["accuracy"] == found.value
    recalls = [float((answers[targets == c] == c).float().mean()) for c in range(4)]
    assert found.metrics["recall"] == pytest.approx(sum(recalls) / 4)
    assert found.samples == 200


def test_the_standard_error_is_that_of_a_share() -> None:
    """Averaged over many data sets, its square is the binomial variance p (1 - p) / n."""
    task = coin_task(batch_size=64)
    squares, values = [], []
    for seed in range(30):
        split = TensorSplit(*coin(0.8, 400, seed + 1), batch_size=64)
        found = evaluate(task, task.dense, split)
        squares.append(found.error**2)
        values.append(found.value)
    wanted = 0.8 * 0.2 / 400
    assert sum(squares) / 30 == pytest.approx(wanted, rel=0.05)
    mean = sum(values) / 30
    spread = sum((value - mean) ** 2 for value in values) / 29
    assert sum(squares) / 30 == pytest.approx(spread, rel=0.5), "it says how much the quality really varies"


@pytest.mark.parametrize("batch_size", [1, 7, 10, 64, 400])
def test_batches_change_neither_value_nor_error(batch_size: int) -> None:
    task = coin_task()
    data = coin(0.8, 401, 3)
    whole = evaluate(task, task.dense, TensorSplit(*data, batch_size=401))
    parts = evaluate(task, task.dense, TensorSplit(*data, batch_size=batch_size))
    assert parts.value == pytest.approx(whole.value, rel=1e-4)
    assert parts.error == pytest.approx(whole.error, rel=1e-4)
    assert parts.samples == whole.samples == 401


def test_the_error_of_a_perfect_model_is_zero() -> None:
    task = coin_task()
    found = evaluate(task, task.dense, TensorSplit(*coin(1.0, 100, 0), batch_size=30))
    assert (found.value, found.error) == (1.0, 0.0)


def test_one_sample_has_no_error() -> None:
    task = coin_task()
    assert evaluate(task, task.dense, TensorSplit(*coin(1.0, 1, 0), batch_size=30)).error == 0.0


def test_fewer_samples_than_folds() -> None:
    task = coin_task()
    found = evaluate(task, task.dense, TensorSplit(*coin(0.5, 7, 0), batch_size=3))
    assert math.isfinite(found.error)
    values = [float(a.argmax() == b) for a, b in zip(*coin(0.5, 7, 0), strict=True)]
    mean = sum(values) / 7
    assert found.error == pytest.approx(math.sqrt(sum((v - mean) ** 2 for v in values) / 6 / 7), rel=1e-4)


def test_the_error_of_a_regression() -> None:
    task = image_task(
        model=nn.Identity(),
        example_inputs=torch.zeros(2, 1),
        train=(torch.randn(100, 1), torch.randn(100, 1)),
        test=None,
        loss=nn.functional.mse_loss,
        metrics=("mse", "mae"),
        quality="mse",
        require_trained=False,
    )
    predictions, targets = torch.randn(500, 1), torch.randn(500, 1)
    found = evaluate(task, task.dense, TensorSplit(predictions, targets, batch_size=60))
    squared = (predictions - targets).square()
    assert found.value == pytest.approx(float(squared.mean()), rel=1e-4)
    # 200 folds: the estimate is within 5 % (one sigma) of the plain formula.
    assert found.error == pytest.approx(float(squared.std() / 500**0.5), rel=0.15)


def test_batches_from_an_iterable() -> None:
    task = coin_task()
    scores, targets = coin(0.8, 90, 3)
    pairs = [(scores[start : start + 25], targets[start : start + 25]) for start in range(0, 90, 25)]
    found = evaluate(task, task.dense, IterableSplit(pairs))
    whole = evaluate(task, task.dense, TensorSplit(scores, targets, batch_size=90))
    assert (found.value, found.error) == pytest.approx((whole.value, whole.error), rel=1e-4)


@pytest.mark.parametrize("training", [True, False])
def test_modes_and_statistics_stay(training: bool) -> None:
    import copy

    task = image_task()
    model = copy.deepcopy(trained_resnet()).train(training)
    model.stem[1].train(not training)
    modes = [module.training for module in model.modules()]
    before = copy.deepcopy(model.state_dict())
    evaluate(task, model, task.search_split)
    assert all(torch.equal(before[key], value) for key, value in model.state_dict().items())
    assert model.training == training
    assert [module.training for module in model.modules()] == modes


def test_the_tasks_own_metrics_are_not_fed() -> None:
    task = image_task()
    evaluate(task, task.dense, task.search_split)
    assert not any(metric.update_called for metric in task.metric_set.values())
    first = evaluate(task, task.dense, task.search_split)
    assert first == evaluate(task, task.dense, task.search_split)


@pytest.mark.parametrize("name", ["accuracy", "recall"])
def test_the_quality_alone_is_that_of_all_metrics(name: str) -> None:
    task = image_task(quality=name)
    model = trained_resnet()
    found = evaluate(task, model, task.search_split)
    assert quality_alone(task, model, task.search_split) == (found.value, found.samples)
    assert not model.training


# ---- the error of metrics that are no average


def labelled(outputs: Tensor, wanted: Tensor) -> Tensor:
    return nn.functional.binary_cross_entropy_with_logits(outputs, wanted.float())


def known(name: str, loss: object, targets: Tensor, **changes: object) -> autoprune.PreparedTask:
    """A task whose model gives back its inputs."""
    arguments: dict[str, object] = {
        "model": nn.Identity(),
        "example_inputs": torch.zeros_like(targets[:2]).float(),
        "train": (torch.randn(targets.shape), targets),
        "test": None,
        "loss": loss,
        "metrics": (name,),
        "quality": name,
        "require_trained": False,
    }
    return image_task(**{**arguments, **changes})


def bootstrap(task: autoprune.PreparedTask, predictions: Tensor, targets: Tensor) -> float:
    values = []
    for seed in range(60):
        index = torch.randint(len(targets), (len(targets),), generator=torch.Generator().manual_seed(seed))
        values.append(
            quality_alone(task, task.dense, TensorSplit(predictions[index], targets[index], batch_size=9999))[0]
        )
    return float(torch.tensor(values).std())


@pytest.mark.parametrize("samples", [11, 15, 23, 200])
def test_the_error_of_r2_is_near_that_of_a_bootstrap(samples: int) -> None:
    targets = torch.randn(samples, 1)
    predictions = targets + 0.5 * torch.randn(samples, 1)
    task = known("r2", nn.functional.mse_loss, torch.randn(60, 1))
    found = evaluate(task, task.dense, TensorSplit(predictions, targets, batch_size=4))
    assert 0.4 < found.error / bootstrap(task, predictions, targets) < 2.5


def test_the_error_of_auroc_on_rare_positives_is_near_that_of_a_bootstrap() -> None:
    # Every 60th: in folds of every tenth sample they would all be in one.
    targets = (torch.arange(500)[:, None] % 60 == 0).long()
    predictions = 1.2 * targets + torch.randn(500, 1)

    task = known("auroc", labelled, (torch.randn(60, 1) > 0).long())
    found = evaluate(task, task.dense, TensorSplit(predictions, targets, batch_size=64))
    assert 0.5 < found.error / bootstrap(task, predictions, targets) < 2


@pytest.mark.parametrize("samples", [1, 2, 3])
def test_too_few_samples_have_no_error_and_no_crash(samples: int) -> None:
    targets = torch.randn(samples, 1)
    task = known("r2", nn.functional.mse_loss, torch.randn(60, 1))
    if samples > 1:
        assert math.isfinite(evaluate(task, task.dense, TensorSplit(targets + 1, targets, batch_size=4)).error)
    task = known("mse", nn.functional.mse_loss, torch.randn(60, 1))
    assert math.isfinite(evaluate(task, task.dense, TensorSplit(targets + 1, targets, batch_size=4)).error)


class Picky(torchmetrics.Metric):
    """A metric of one's own that refuses a few samples; torch cannot merge it."""

    higher_is_better = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("values", [], dist_reduce_fx="cat")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take one batch."""
        if len(preds) < 3:
            raise ValueError("three samples at least")
        self.values.append((preds - target).abs().flatten())  # type: ignore[operator, union-attr]

    def compute(self) -> Tensor:
        """The mean distance."""
        return torch.cat(self.values).mean()  # type: ignore[arg-type]


@pytest.mark.parametrize(("samples", "tells"), [(60, True), (25, True), (20, False)])
def test_a_metric_that_refuses_small_folds_has_those_that_it_takes(samples: int, tells: bool) -> None:
    targets = torch.randn(60, 2)
    task = known("mine", nn.functional.mse_loss, targets, metrics={"mine": Picky()})
    found = evaluate(task, task.dense, TensorSplit(targets[:samples] + torch.randn(samples, 2), targets[:samples], 60))
    assert (found.error > 0) == tells
    assert math.isfinite(found.error)


class Outside(Picky):
    """Keeps what it has seen where torchmetrics does not look: merging it would lose that."""

    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.kept: list[Tensor] = []

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take one batch."""
        self.kept = [*self.kept, (preds - target).abs().mean(1)]

    def compute(self) -> Tensor:
        """The mean distance."""
        return torch.cat(self.kept).mean()


def test_metrics_of_very_many_entries_take_fewer_folds_then_their_own_values(monkeypatch: pytest.MonkeyPatch) -> None:
    scores, targets = coin(0.8, 600, 3)
    scores = scores + 0.5 * torch.randn(scores.shape, generator=torch.Generator().manual_seed(0))
    task, split = known_classes("auroc"), TensorSplit(scores, targets, batch_size=64)
    entries = scores.numel() + targets.numel()
    whole = evaluate(task, task.dense, split)
    monkeypatch.setattr(folds, "_WORK", 30 * entries)
    fewer = evaluate(task, task.dense, split)
    monkeypatch.setattr(folds, "_WORK", entries)
    own = evaluate(task, task.dense, split)
    assert (len(whole.deviations), len(fewer.deviations), len(own.deviations)) == (200, 30, 20)
    assert fewer.error == pytest.approx(whole.error, rel=0.5)
    assert own.error == pytest.approx(whole.error, rel=0.6)
    assert 0 < own.error != fewer.error


def test_folds_whose_lack_leaves_no_value_are_left_out_and_the_others_stand_for_them() -> None:
    """Without its one positive an AUROC has no value."""
    targets = (torch.arange(40)[:, None] == 12).long()
    scores = torch.linspace(1, 0, 40)[:, None]
    task = known("auroc", labelled, (torch.randn(60, 1) > 0).long())
    found = evaluate(task, task.dense, TensorSplit(scores, targets, batch_size=16))
    assert found.deviations[12] == 0.0
    assert found.error > 0
    ranks = [float((scores[12] > score).float()) for place, score in enumerate(scores) if place != 12]
    mean = sum(ranks) / 39
    plain = math.sqrt(sum((rank - mean) ** 2 for rank in ranks) / 38 / 39)
    assert found.error == pytest.approx(plain, rel=0.05), "that of the share of negatives below the one positive"


def test_missing_folds_count_like_the_others() -> None:
    targets = torch.zeros(400, 1)
    targets[::37] = 1
    outputs = torch.randn(400, 1, generator=torch.Generator().manual_seed(0))

    def whole(values: Tensor, marks: Tensor) -> float:
        return float(values.mean()) if len(values) < 300 or marks.sum() == 11 else math.nan

    def mean(values: Tensor, _: Tensor) -> float:
        return float(values.mean())

    split, found = TensorSplit(outputs, targets, batch_size=400), {}
    for function in (whole, mean):
        task = known("mine", nn.functional.mse_loss, targets, metrics={"mine": function}, train=(outputs, targets))
        found[function] = evaluate(task, task.dense, split).deviations
    there = [place for place, one in enumerate(found[whole]) if one]
    assert 4 < len(there) < 16
    plain = math.hypot(*(found[mean][place] for place in there)) * math.sqrt(20 / len(there))
    assert math.hypot(*found[whole]) == pytest.approx(plain, rel=0.1)


def test_a_function_of_the_user_is_called_a_few_times() -> None:
    calls = []

    def distance(outputs: Tensor, targets: Tensor) -> Tensor:
        calls.append(len(outputs))
        return (outputs - targets).abs().mean()

    targets, noise = torch.randn(400, 2), torch.randn(400, 2)
    task = known("mine", nn.functional.mse_loss, targets, metrics={"mine": distance}, directions={"mine": False})
    calls.clear()
    found = evaluate(task, task.dense, TensorSplit(targets + noise, targets, batch_size=64))
    assert len(found.deviations) == folds.FEW_FOLDS
    assert len(calls) == folds.FEW_FOLDS + 2
    assert found.error == pytest.approx(float(noise.abs().mean(1).std() / 20), rel=0.4)


def test_batches_of_different_shapes_are_told_apart() -> None:
    generator = torch.Generator().manual_seed(0)
    targets = [torch.randn(10, 1, size, size, generator=generator) for size in (4, 6, 4)]
    task = known("mse", nn.functional.mse_loss, torch.randn(60, 1, 4, 4))
    found = evaluate(task, task.dense, IterableSplit([(one + 1, one) for one in targets]))
    assert found.value == pytest.approx(1.0)
    assert len(found.deviations) == 30


def test_a_metric_that_loses_what_it_knows_when_merged_has_the_spread_of_its_folds() -> None:
    targets = torch.randn(200, 2)
    predictions = targets + torch.randn(200, 2)
    task = known("mine", nn.functional.mse_loss, targets, metrics={"mine": Outside()})
    error = evaluate(task, task.dense, TensorSplit(predictions, targets, batch_size=200)).error
    plain = (predictions - targets).abs().mean(1).std() / 200**0.5
    assert 0.5 < error / float(plain) < 2


@pytest.mark.parametrize("name", ["mse", "mae"])
@pytest.mark.parametrize("shape", [(8,), (1, 6, 6), (2, 3)])
@pytest.mark.parametrize("batch_size", [1, 7, 50])
def test_regression_of_several_values_and_of_images(name: str, shape: tuple[int, ...], batch_size: int) -> None:
    targets, noise = torch.randn(50, *shape), torch.randn(50, *shape)
    task = known(name, nn.functional.mse_loss, targets)
    found = evaluate(task, task.dense, TensorSplit(targets + noise, targets, batch_size=batch_size))
    each = noise.square() if name == "mse" else noise.abs()
    assert found.value == pytest.approx(float(each.mean()), rel=1e-4)
    assert 0.4 < found.error / float(each.flatten(1).mean(1).std() / 50**0.5) < 2.5


def test_outputs_of_strides_of_their_own() -> None:
    """As of predict=lambda outputs: outputs.movedim(-1, 1)."""
    targets = torch.randn(40, 3, 5)
    task = known(
        "mse", lambda o, t: nn.functional.mse_loss(o.movedim(-1, 1), t), targets,
        train=(torch.randn(40, 5, 3), targets), example_inputs=torch.zeros(2, 5, 3), predict=lambda o: o.movedim(-1, 1),
    )  # fmt: skip
    found = evaluate(task, task.dense, TensorSplit(targets.movedim(1, -1) + 1, targets, batch_size=16))
    assert found.value == pytest.approx(1.0, rel=1e-4)


def test_half_precision_is_scored_with_more_digits() -> None:
    targets = torch.full((40, 1), 1000.0, dtype=torch.bfloat16)
    task = known("mse", nn.functional.mse_loss, torch.randn(40, 1))
    counts = torch.full((40, 1), 1001)
    assert evaluate(task, task.dense, TensorSplit(targets, counts, batch_size=16)).value == pytest.approx(1.0)


@pytest.mark.parametrize("name", ["balanced_accuracy", "error", "recall", "f1", "auroc"])
def test_the_error_of_every_kind_of_named_metric(name: str) -> None:
    """Those that wrap others are merged as well: the jackknife's error is near that of a bootstrap."""
    scores, targets = coin(0.8, 300, 3)
    task = coin_task(quality=name) if name in ("error", "f1") else known_classes(name)
    found = evaluate(task, task.dense, TensorSplit(scores, targets, batch_size=64))
    assert 0.4 < found.error / bootstrap(task, scores, targets) < 2.5


def known_classes(name: str) -> autoprune.PreparedTask:
    return known(
        name,
        nn.functional.cross_entropy,
        coin(0.7, 60, 0)[1],
        train=coin(0.7, 60, 0),
        example_inputs=torch.zeros(2, 2),
    )


# ---- metrics that count are asked once for all folds


def counted(kind: str) -> tuple[autoprune.PreparedTask, Tensor, Tensor]:
    """A task of a kind of prediction, and outputs and targets of 450 samples."""
    generator = torch.Generator().manual_seed(5)
    scores, right = torch.randn(450, 4, generator=generator), torch.rand(450, generator=generator) < 0.6
    classes = torch.where(right, scores.argmax(1), torch.randint(4, (450,), generator=generator))
    labels = (scores + torch.randn(450, 4, generator=generator) > 0).long()
    image, pixels = torch.randn(450, 4, 2, 2, generator=generator), torch.randint(4, (450, 2, 2), generator=generator)
    outputs, targets = {
        "classes": (scores, classes),
        "ignored": (scores, torch.where(torch.arange(450) % 9 == 0, -100, classes)),
        "images": (image, pixels),
        "labels": (scores, labels),
        "answers": (scores[:, :1], labels[:, :1]),
    }[kind]
    loss = labelled if kind in ("labels", "answers") else nn.functional.cross_entropy
    metrics = ("accuracy", "error", "recall", "precision", "f1", "balanced_accuracy")
    given = {"train": (outputs, targets), "example_inputs": outputs[:2], "metrics": metrics}
    return known("accuracy", loss, targets, **given), outputs, targets


@pytest.mark.parametrize("kind", ["classes", "ignored", "images", "labels", "answers"])
def test_counts_of_each_sample_tell_what_an_update_for_each_fold_tells(
    kind: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    task, outputs, targets = counted(kind)
    split = TensorSplit(outputs, targets, batch_size=64)
    for name in task.metric_set:
        own = replace(task, quality=name)
        by_sample = evaluate(own, task.dense, split)
        with monkeypatch.context() as patch:
            patch.setattr(Counted, "update", lambda *_: False)
            by_fold = evaluate(own, task.dense, split)
        assert len(by_fold.deviations) == 200
        assert by_sample.deviations == pytest.approx(by_fold.deviations, rel=1e-3, abs=1e-7), name
        assert by_sample.error > 0


class Asked(torchmetrics.classification.MulticlassRecall):
    """Counts its updates."""

    updates = 0

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Take one batch."""
        Asked.updates += 1
        super().update(preds, target)


class Gathered(Asked):
    """One value, whatever it holds: rows of counts tell nothing."""

    def compute(self) -> Tensor:
        """The mean."""
        return super().compute().mean()


@pytest.mark.parametrize(("kind", "most"), [(Asked, 10), (Gathered, 210)])
def test_metrics_that_count_are_updated_a_few_times(kind: type[Asked], most: int) -> None:
    _, outputs, targets = counted("classes")
    found = {}
    for name, metrics in (("mine", {"mine": kind(4)}), ("recall", ("recall",))):
        given = {"train": (outputs, targets), "example_inputs": outputs[:2], "metrics": metrics}
        task = known(name, nn.functional.cross_entropy, targets, **given)
        Asked.updates = 0
        found[name] = evaluate(task, task.dense, TensorSplit(outputs, targets, batch_size=64)).deviations
        assert Asked.updates <= most
    assert found["mine"] == pytest.approx(found["recall"], rel=1e-3, abs=1e-7)


def test_further_metrics_that_are_judged_have_deviations() -> None:
    """Those of the error rate are as large as those of the accuracy."""
    task = image_task(metrics=("accuracy", "recall", "error"))
    assert task.test_split is not None
    bare = evaluate(task, task.dense, task.test_split)
    assert bare.metric_deviations == {}
    found = evaluate(task, task.dense, task.test_split, ("error", "recall"))
    assert found.deviations == bare.deviations
    assert set(found.metric_deviations) == {"error", "recall"}
    assert math.hypot(*found.metric_deviations["error"]) == pytest.approx(found.error, rel=1e-3)
    assert 0.5 * found.error < math.hypot(*found.metric_deviations["recall"]) < 2 * found.error
