"""What a task takes its targets for, and that its numbers are the metric's own."""

from __future__ import annotations

import functools
import re

import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torch.nn import functional
from torch.utils.data import DataLoader, TensorDataset

import autoprune
from autoprune.errors import ConfigurationError, TaskError
from autoprune.measure.quality import evaluate, quality_alone
from autoprune.plan.recovery import DistillationPlan, RecoveryPlan
from autoprune.recovery.fine_tune import fine_tune
from autoprune.recovery.teacher import Teacher
from autoprune.task.prediction import ignore_index_of, kind_trained_by
from autoprune.task.trained import assert_trained

generator = torch.Generator().manual_seed(0)
X = torch.randn(120, 6, generator=generator)
bce = functional.binary_cross_entropy_with_logits


class Columns(nn.Module):
    """Answers with its first inputs, so that targets made from these are known."""

    def __init__(self, columns: int, scale: float = 2.0, flat: bool = False) -> None:
        super().__init__()
        self.columns, self.flat = columns, flat
        self.scale = nn.Parameter(torch.tensor(scale))

    def forward(self, x: Tensor) -> Tensor:
        outputs = x[:, : self.columns] * self.scale
        return outputs[:, 0] if self.flat else outputs


def task_of(
    model: nn.Module, targets: object, loss: object, metrics: object, **changes: object
) -> autoprune.PreparedTask:
    assert isinstance(metrics, tuple | dict)
    arguments: dict[str, object] = {
        "model": model,
        "example_inputs": X[:2],
        "train": (X, targets),
        "search": (X.clone(), targets),
        "loss": loss,
        "metrics": metrics,
        "quality": next(iter(metrics)),
        "batch_size": 40,
    }
    return autoprune.prepare(autoprune.Task(**{**arguments, **changes}))  # type: ignore[arg-type]


def quality_of(task: autoprune.PreparedTask) -> float:
    found = evaluate(task, task.dense, task.search_split)
    assert quality_alone(task, task.dense, task.search_split)[0] == found.value
    return found.value


# ---- integers that are numbers

AGES = (40 + 10 * X[:, 0]).round().long()


class Age(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.scale = nn.Parameter(torch.tensor(10.0))

    def forward(self, x: Tensor) -> Tensor:
        return 40 + self.scale * x[:, :1]


@pytest.mark.parametrize("dtype", [torch.int64, torch.int32, torch.uint8])
@pytest.mark.parametrize("column", [True, False])
@pytest.mark.parametrize(
    "metrics", [("mae",), {"mae": torchmetrics.MeanAbsoluteError()}], ids=["by name", "as an object"]
)
def test_ages_and_counts_are_numbers(dtype: torch.dtype, column: bool, metrics: object) -> None:
    ages = AGES.to(dtype)[:, None] if column else AGES.to(dtype)
    task = task_of(Age(), ages, lambda o, t: functional.mse_loss(o.view(t.shape), t.float()), metrics)
    assert task.prediction.kind == "regression"
    assert quality_of(task) == pytest.approx(float((40 + 10 * X[:, 0] - AGES).abs().mean()), rel=1e-4)
    assert_trained(task)


def test_counts_that_begin_with_zeros_and_ones_are_numbers_all_the_same() -> None:
    counts = torch.cat([torch.arange(100) % 2, torch.full((20,), 7)])[:, None]
    task = task_of(Columns(1), counts, nn.PoissonNLLLoss(), {"mae": torchmetrics.MeanAbsoluteError()})
    assert task.prediction.kind == "regression"


def test_a_metric_of_numbers_makes_zeros_and_ones_numbers() -> None:
    targets = (X[:, :1] > 0).long()
    for metrics in (("mae",), {"mae": torchmetrics.MeanAbsoluteError()}):
        task = task_of(Columns(1), targets, lambda o, t: functional.mse_loss(o, t.float()), metrics)
        assert quality_of(task) == pytest.approx(float((2 * X[:, :1] - targets).abs().mean()), rel=1e-4)


class Seen(torchmetrics.Metric):
    """A metric of one's own: the mean of the outputs as they come."""

    higher_is_better = True
    full_state_update = False

    def __init__(self) -> None:
        super().__init__()
        self.add_state("total", torch.zeros(()), dist_reduce_fx="sum")
        self.add_state("count", torch.zeros(()), dist_reduce_fx="sum")

    def update(self, preds: Tensor, target: Tensor) -> None:
        """Add up."""
        assert target.dtype == torch.int64
        self.total += preds.sum()
        self.count += preds.numel()

    def compute(self) -> Tensor:
        """The mean."""
        return self.total / self.count


def test_a_metric_of_ones_own_gets_the_outputs_as_they_are() -> None:
    task = task_of(Columns(1), (X[:, :1] > 0).long(), lambda o, t: bce(o, t.float()), {"mine": Seen()})
    assert quality_of(task) == pytest.approx(float(2 * X[:, 0].mean()), abs=1e-5)


# ---- floating point labels


@pytest.mark.parametrize("metric", ["accuracy", "f1", "auroc", "error", "balanced_accuracy"])
@pytest.mark.parametrize(
    ("targets", "columns", "flat", "loss", "kind"),
    [
        ((X[:, :3] > 0.3).float(), 3, False, nn.BCEWithLogitsLoss(), "multilabel"),
        ((X[:, :3] > 0.3).float(), 3, False, lambda o, t: 2 * bce(o, t), "multilabel"),
        ((X[:, :1] > 0).float(), 1, False, nn.BCEWithLogitsLoss(), "binary"),
        ((X[:, 0] > 0).float(), 1, True, nn.BCEWithLogitsLoss(), "binary"),
        ((X[:, 0] > 0).double(), 1, False, lambda o, t: bce(o[:, 0], t.float()), "binary"),
        (functional.one_hot(X[:, :3].argmax(1), 3).float(), 3, False, nn.CrossEntropyLoss(), "multiclass"),
        (
            functional.one_hot(X[:, :3].argmax(1), 3).float(),
            3,
            False,
            lambda o, t: (o - t).square().mean(),
            "multiclass",
        ),
        (X[:, :3].argmax(1).float(), 3, False, lambda o, t: functional.cross_entropy(o, t.long()), "multiclass"),
    ],
    ids=[
        "labels",
        "labels, own loss",
        "column",
        "flat",
        "column, flat targets",
        "one-hot",
        "one-hot, own loss",
        "index",
    ],
)
def test_floating_point_labels_are_labels(
    metric: str, targets: Tensor, columns: int, flat: bool, loss: object, kind: str
) -> None:
    """The loss gets them as given, the metric as integers: the numbers are those of integer labels."""
    task = task_of(Columns(columns, flat=flat), targets, loss, (metric,))
    assert task.prediction.kind == kind
    whole = targets.argmax(1) if kind == "multiclass" and targets.ndim == 2 else targets.long()
    same = task_of(
        Columns(columns, flat=flat), whole, lambda o, t: o.square().mean(), (metric,), kind=kind, logits=True
    )
    assert quality_of(task) == pytest.approx(quality_of(same))
    assert_trained(task)


@pytest.mark.parametrize("dtype", [torch.bool, torch.uint8, torch.int32])
def test_labels_of_any_integer_type(dtype: torch.dtype) -> None:
    labels = task_of(Columns(3), (X[:, :3] > 0.3).to(dtype), lambda o, t: bce(o, t.float()), ("f1",))
    assert labels.prediction.kind == "multilabel"
    assert quality_of(labels) > 0.5
    classes = X[:, :2].argmax(1).to(dtype)
    task = task_of(Columns(2), classes, lambda o, t: functional.cross_entropy(o, t.long()), ("accuracy",))
    assert quality_of(task) == 1.0


def test_numbers_are_no_labels() -> None:
    with pytest.raises(
        TaskError, match=r"'accuracy' must suit regression outputs.*integers, or 0 and 1, beside a score.*kind="
    ):
        task_of(Columns(1), X[:, :1] / 3, functional.mse_loss, ("accuracy",))


def test_train_may_have_soft_labels() -> None:
    """After a mixup, say; candidates are scored on search."""
    soft = torch.rand(120, 3, generator=generator).softmax(1)
    search = (X.clone(), X[:, :3].argmax(1))
    task = task_of(Columns(3), soft, functional.cross_entropy, ("accuracy",), search=search)
    assert task.prediction.kind == "multiclass"
    assert quality_of(task) == 1.0


# ---- the loss tells logits


def test_probabilities_under_their_loss_stay_probabilities() -> None:
    probable = nn.Sequential(Columns(1), nn.Sigmoid())
    task = task_of(probable, (X[:, :1] > 0).float(), nn.BCELoss(), ("accuracy",))
    assert not task.prediction.logits
    assert quality_of(task) == 1.0


def test_logits_that_all_lie_within_zero_and_one_are_known_by_their_loss() -> None:
    class Small(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.tensor(0.01))

        def forward(self, x: Tensor) -> Tensor:
            return 0.45 + self.scale * x[:, :1]

    targets = (X[:, :1] > -9).float()
    task = task_of(Small(), targets, nn.BCEWithLogitsLoss(), ("accuracy",))
    assert quality_of(task) == 1.0, "0.45 is a yes of a logit, and a no of a probability"
    own = lambda o, t: 2 * bce(o, t)  # noqa: E731
    given = task_of(Small(), targets, own, ("accuracy",))
    assert quality_of(given) == 0.0
    assert quality_of(task_of(Small(), targets, own, ("accuracy",), logits=True)) == 1.0


def test_the_ranking_of_classes_does_not_depend_on_the_batch() -> None:
    """torchmetrics takes a batch of logits within [0, 1] for probabilities of classes."""
    targets = X[:, :3].argmax(1)
    rough = X + 0.8 * torch.randn(120, 6, generator=generator)
    values = [
        quality_of(
            task_of(
                Columns(3, 0.4), targets, functional.cross_entropy, ("auroc",), search=(rough, targets), batch_size=size
            )
        )
        for size in (1, 120)
    ]
    assert values[0] == pytest.approx(values[1])


# ---- labels that no class has

CLASSES = X[:, :3].argmax(1)
IGNORED = torch.where(torch.arange(120) % 4 == 3, 255, CLASSES)


def loss_255(outputs: Tensor, targets: Tensor) -> Tensor:
    return functional.cross_entropy(outputs, targets, ignore_index=255)


def as_loader(targets: Tensor) -> DataLoader[tuple[Tensor, ...]]:
    return DataLoader(TensorDataset(X.clone(), targets), batch_size=40)


@pytest.mark.parametrize("label", [255, -100, -1, 3])
@pytest.mark.parametrize("first", [0, 110])
@pytest.mark.parametrize("where", ["search", "train", "test"])
def test_a_label_that_no_class_has_is_refused_with_the_remedy(label: int, first: int, where: str) -> None:
    targets = CLASSES.clone()
    targets[first:] = label
    loss = functools.partial(lambda o, t: (o - t.clamp(0, 2)[:, None]).square().mean())
    with pytest.raises(
        TaskError, match=rf"the targets of {where} must be labels 0 to 2.*{label}.*ignore_index={label}"
    ):
        task_of(Columns(3), CLASSES, loss, ("accuracy",), **{where: (X.clone(), targets)})


def test_such_a_label_later_in_a_loader_is_refused_when_it_comes() -> None:
    targets = CLASSES.clone()
    targets[100] = 9
    task = task_of(
        Columns(3), CLASSES, functional.cross_entropy, ("accuracy",), search=as_loader(targets), calibration_samples=40
    )
    with pytest.raises(ConfigurationError, match=r"the targets of search must be labels 0 to 2, but got 9"):
        evaluate(task, task.dense, task.search_split)


def test_an_answer_beside_yes_and_no_is_refused() -> None:
    targets = (X[:, :1] > 0).long()
    targets[5] = -1
    own = lambda o, t: bce(o, t.float().clamp(0))  # noqa: E731
    with pytest.raises(TaskError, match=r"'accuracy' must suit regression outputs|labels 0 to 1.*ignore_index=-1"):
        task_of(Columns(1), targets, own, ("accuracy",))
    task = task_of(Columns(1), targets, own, ("accuracy", "f1", "balanced_accuracy"), ignore_index=-1)
    assert task.prediction.kind == "binary"
    assert quality_of(task) == 1.0


@pytest.mark.parametrize(
    ("loss", "given"),
    [
        (nn.CrossEntropyLoss(ignore_index=255), None),
        (functools.partial(functional.cross_entropy, ignore_index=255), None),
        (loss_255, 255),
    ],
    ids=["module", "partial", "given"],
)
def test_the_ignored_label_is_left_out(loss: object, given: int | None) -> None:
    model = nn.Sequential(Columns(3), nn.Softplus())
    wrong = torch.where(torch.arange(120) % 8 == 0, (CLASSES + 1) % 3, IGNORED)
    names = ("accuracy", "error", "recall", "f1", "balanced_accuracy", "auroc", "average_precision", "precision")
    task = task_of(model, wrong, loss, names, ignore_index=given)
    assert task.prediction.ignore_index == 255
    known = wrong != 255
    share = float((X[known, :3].argmax(1) == wrong[known]).float().mean())
    found = evaluate(task, task.dense, task.search_split)
    assert found.value == pytest.approx(share)
    # 75 of 90 are right: the error is that of a share of 90, not of 120.
    assert found.error == pytest.approx((share * (1 - share) / 90) ** 0.5, rel=0.6)
    assert found.metrics["error"] == pytest.approx(1 - share)
    assert_trained(task)
    assert ("left out as in the loss" in task.summary()) == (given is None)


def test_padding_of_sequences_is_left_out() -> None:
    """Outputs [N, C, L], targets [N, L] with -100, as of language models; folds of padding alone do nothing."""
    tokens = torch.randint(3, (30, 5), generator=generator)
    inputs = functional.one_hot(tokens, 3).movedim(-1, 1).float()
    targets = tokens.clone()
    targets[:, 2:] = -100
    targets[::10] = -100
    targets[1, 0] = (targets[1, 0] + 1) % 3

    class Echo(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.scale = nn.Parameter(torch.ones(()))

        def forward(self, x: Tensor) -> Tensor:
            return 3 * x * self.scale

    task = task_of(
        Echo(),
        targets,
        functional.cross_entropy,
        ("accuracy",),
        train=(inputs, targets),
        search=(inputs.clone(), targets),
        example_inputs=inputs[:2],
    )
    assert quality_of(task) == pytest.approx(53 / 54)
    assert 0 < evaluate(task, task.dense, task.search_split).error < 0.1


@pytest.mark.parametrize(
    ("loss", "label"),
    [
        (functional.cross_entropy, -100),
        (nn.NLLLoss(ignore_index=0), 0),
        (nn.Sequential(nn.CrossEntropyLoss(ignore_index=7)), 7),
        (nn.MSELoss(), None),
        (loss_255, None),
        (lambda o, t: o.sum(), None),
        (3, None),
    ],
)
def test_the_label_that_a_loss_leaves_out(loss: object, label: int | None) -> None:
    assert ignore_index_of(loss) == label


def test_losses_of_torch_are_known() -> None:
    assert kind_trained_by(functools.partial(functional.cross_entropy, label_smoothing=0.1)) == "multiclass"
    assert kind_trained_by(nn.BCEWithLogitsLoss()) == "logits"
    assert kind_trained_by(functional.binary_cross_entropy) == "probabilities"
    assert kind_trained_by(loss_255) == ""


def test_a_loss_of_numbers_makes_zeros_and_ones_numbers() -> None:
    """A metric of one's own does not say what it takes."""
    counts = (X[:, :1] > 0).long()
    assert task_of(Columns(1), counts, nn.PoissonNLLLoss(), {"mine": Seen()}).prediction.kind == "regression"
    assert task_of(Columns(1), counts, lambda o, t: bce(o, t.float()), {"mine": Seen()}).prediction.kind == "binary"
    assert task_of(Columns(1), counts, nn.MSELoss(), ("accuracy",)).prediction.kind == "binary"


def test_classes_last_are_refused_with_the_remedy() -> None:
    inputs, targets = torch.randn(20, 4, 7, generator=generator), torch.randint(7, (20, 4), generator=generator)
    with pytest.raises(TaskError, match=r"axis 1.*movedim\(-1, 1\)"):
        task_of(
            nn.Linear(7, 7), targets, lambda o, t: functional.cross_entropy(o.movedim(-1, 1), t), ("accuracy",),
            train=(inputs, targets), search=(inputs.clone(), targets), example_inputs=inputs[:2],
        )  # fmt: skip


# ---- what is inferred is said, and can be overridden


@pytest.mark.parametrize(
    ("targets", "columns", "loss", "metrics", "text"),
    [
        (
            CLASSES,
            3,
            loss_255,
            ("accuracy", "f1"),
            "3 classes, logits; accuracy, f1 over labels 0 to 2",
        ),
        (
            IGNORED,
            3,
            nn.CrossEntropyLoss(ignore_index=255),
            ("accuracy",),
            "3 classes, logits; accuracy over labels 0 to 2, label 255 left out as in the loss",
        ),
        ((X[:, :1] > 0).float(), 1, bce, ("f1",), "one answer of yes or no, logits; f1 over labels 0 to 1"),
        ((X[:, :3] > 0.3).float(), 3, bce, ("f1",), "3 labels, each yes or no, logits; f1 over labels 0 to 1"),
        (X[:, :3], 3, functional.mse_loss, ("mae",), "numbers; mae over values"),
        (
            AGES,
            1,
            lambda o, t: (o - t).mean(),
            {"mine": torchmetrics.MeanAbsoluteError()},
            "numbers; mine as your own metrics count",
        ),
    ],
)
def test_what_is_inferred_is_said_in_a_line(
    targets: Tensor, columns: int, loss: object, metrics: object, text: str
) -> None:
    assert task_of(Columns(columns), targets, loss, metrics).summary() == text


def test_what_is_inferred_can_be_overridden() -> None:
    hot = functional.one_hot(CLASSES, 3).float()
    own = lambda o, t: (o - t).square().mean()  # noqa: E731
    assert task_of(Columns(3), hot, own, ("accuracy",)).prediction.kind == "multiclass"
    labels = task_of(Columns(3), hot, own, ("accuracy",), kind="multilabel", logits=True)
    assert labels.prediction.kind == labels.kind == "multilabel"
    by_hand = ((2 * X[:, :3]).sigmoid() > 0.5).float() == hot
    assert quality_of(labels) == pytest.approx(float(by_hand.float().mean()))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            {"kind": "clases"},
            "kind must be None or one of multiclass, binary, multilabel, regression, but got 'clases'",
        ),
        ({"logits": "yes"}, "logits must be None, True or False, but got 'yes'"),
        ({"ignore_index": "255"}, "ignore_index must be a label, but got '255'"),
        ({"ignore_index": True}, "ignore_index must be a label, but got True"),
        ({"kind": "multilabel"}, r"kind='multilabel' must have outputs with one score for each on axis 1.*\(40, 1\)"),
    ],
)
def test_an_override_that_cannot_be(changes: dict[str, object], message: str) -> None:
    with pytest.raises(TaskError) as error:
        task_of(Columns(1), (X[:, :1] > 0).long(), lambda o, t: bce(o, t.float()), ("accuracy",), **changes)
    assert any(re.search(message, line) for line in error.value.faults), error.value.faults


def test_numbers_have_no_ignored_label() -> None:
    with pytest.raises(TaskError, match="ignore_index must be left out for numbers, but got 255"):
        task_of(Columns(1), X[:, :1], functional.mse_loss, ("mse",), ignore_index=255)


# ---- a column of targets, outputs without an axis


@pytest.mark.parametrize("metrics", [("accuracy",), {"mine": torchmetrics.classification.MulticlassAccuracy(3)}])
def test_classes_in_a_column(metrics: object) -> None:
    task = task_of(Columns(3), CLASSES[:, None], lambda o, t: functional.cross_entropy(o, t[:, 0]), metrics)
    assert task.prediction.kind == "multiclass"
    assert quality_of(task) == 1.0


def test_masks_with_an_axis_of_channels() -> None:
    images = torch.randn(20, 3, 4, 4, generator=generator)
    masks = images.argmax(1, keepdim=True)
    task = task_of(
        nn.Hardtanh(-9, 9), masks, lambda o, t: functional.cross_entropy(o, t[:, 0]), ("accuracy",),
        train=(images, masks), search=(images.clone(), masks), example_inputs=images[:2],
    )  # fmt: skip
    assert quality_of(task) == 1.0


class Squeezing(Columns):
    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x).squeeze()


@pytest.mark.parametrize(
    ("columns", "targets", "loss", "metric"),
    [
        (1, (X[:, 0] > 0).float(), lambda o, t: bce(o.view(t.shape), t), "accuracy"),
        (1, 2 * X[:, 0], lambda o, t: functional.mse_loss(o.view(t.shape), t), "mae"),
        (3, CLASSES, lambda o, t: functional.cross_entropy(o.view(len(t), 3), t), "accuracy"),
    ],
    ids=["yes or no", "numbers", "classes"],
)
def test_a_model_that_squeezes_the_last_batch_of_one(columns: int, targets: Tensor, loss: object, metric: str) -> None:
    task = task_of(Squeezing(columns), targets, loss, (metric,), batch_size=17)
    assert [batch.size for batch in task.search_split.ordered()][-1] == 1
    assert quality_of(task) == pytest.approx(float(metric == "accuracy"), abs=1e-6)
    plan = RecoveryPlan(steps=2, distillation=DistillationPlan(weight=0.5))
    assert fine_tune(task.dense, task, plan, seed=0, teacher=Teacher(task)).trained == 34


# ---- yes and no for each pixel


def test_a_mask_without_an_axis_of_channels() -> None:
    images = torch.randn(20, 1, 4, 4, generator=generator)
    masks = (images[:, 0] > 0).long()
    task = task_of(
        nn.Conv2d(1, 1, 1), masks, lambda o, t: bce(o[:, 0], t.float()), ("accuracy", "f1"),
        train=(images, masks), search=(images.clone(), masks), example_inputs=images[:2],
    )  # fmt: skip
    assert task.prediction.kind == "binary"
    with torch.no_grad():
        expected = ((task.dense(images)[:, 0] > 0) == (masks > 0)).float().mean()
    assert quality_of(task) == pytest.approx(float(expected))


# ---- samples that are no numbers


@pytest.mark.parametrize("where", ["train", "search", "test"])
def test_a_sample_that_is_not_finite_is_named(where: str) -> None:
    bad = X.clone()
    bad[77, 2] = float("nan")
    expected = f"the inputs of {where} must be finite, but got NaN or infinity in 1 of 120 samples.*position 77"
    with pytest.raises(TaskError, match=expected):
        task_of(Columns(3), CLASSES, functional.cross_entropy, ("accuracy",), **{where: (bad, CLASSES)})


def test_a_model_that_fills_gaps_takes_samples_with_gaps() -> None:
    class Filling(Columns):
        def forward(self, x: Tensor) -> Tensor:
            return super().forward(x.nan_to_num())

    bad = X.clone()
    bad[77, 2] = float("nan")
    assert task_of(Filling(3), CLASSES, functional.cross_entropy, ("accuracy",), train=(bad, CLASSES)).train_split


def test_nan_in_a_loader_of_the_search_split_is_found_before_a_study() -> None:
    bad = X.clone()
    bad[77, 2] = float("nan")
    search = DataLoader(TensorDataset(bad, CLASSES), batch_size=40)
    task = task_of(Columns(3), CLASSES, functional.cross_entropy, ("accuracy",), search=search)
    with pytest.raises(ConfigurationError, match="the dense model's outputs on search must be finite, but got NaN"):
        assert_trained(task)


def test_targets_of_numbers_have_to_be_finite() -> None:
    targets = X[:, :1].clone()
    targets[70] = float("nan")
    masked = lambda o, t: (o - t).nan_to_num().square().mean()  # noqa: E731
    with pytest.raises(TaskError, match="the targets of search must be finite"):
        task_of(Columns(1), targets, masked, ("mse",))
