from __future__ import annotations

import pytest
import torch
import torchmetrics
from torch import Tensor, nn

import autoprune
from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.task.metrics import CLASSIFICATION, METRICS, REGRESSION, ErrorRate, build_metric, update_metric
from autoprune.task.prediction import Prediction, kind_of_prediction

generator = torch.Generator().manual_seed(0)
X = torch.randn(200, 6, generator=generator)
#: Kind -> targets that the model `Known` gives right.
TARGETS = {
    "multiclass": X[:, :3].argmax(1),
    "binary": (X[:, 0] > 0).long(),
    "multilabel": (X[:, :3] > 0).long(),
    "regression": X[:, :1].clone(),
}
LOWER_IS_BETTER = {"error", "mse", "mae"}
CASES = [(kind, name) for kind in ("multiclass", "binary", "multilabel") for name in CLASSIFICATION] + [
    ("regression", name) for name in REGRESSION
]


class Known(nn.Module):
    """Answers with some of its inputs, the first `wrong` samples upside down."""

    def __init__(self, columns: int, wrong: int = 0) -> None:
        super().__init__()
        self.columns, self.wrong = columns, wrong
        self.scale = nn.Parameter(torch.ones(()))

    def forward(self, x: Tensor) -> Tensor:
        sign = torch.where(torch.arange(len(x)) < self.wrong, -1.0, 1.0)[:, None]
        return 2.0 * x[:, : self.columns] * self.scale * sign if self.columns > 1 else x[:, :1] * self.scale * sign


def loss_of(kind: str) -> object:
    if kind == "multiclass":
        return nn.functional.cross_entropy
    if kind == "regression":
        return nn.functional.mse_loss
    return lambda outputs, targets: nn.functional.binary_cross_entropy_with_logits(
        outputs.view_as(targets), targets.float()
    )


def task_of(kind: str, name: str, wrong: int = 0) -> autoprune.PreparedTask:
    split = (X, TARGETS[kind])
    return autoprune.prepare(
        autoprune.Task(
            model=Known(3 if kind in ("multiclass", "multilabel") else 1, wrong),
            example_inputs=X[:2],
            train=split,
            search=(X.clone(), TARGETS[kind]),
            loss=loss_of(kind),  # type: ignore[arg-type]
            metrics=(name,),
            quality=name,
            batch_size=200,
        )
    )


def quality_of(task: autoprune.PreparedTask) -> float:
    metric = task.new_metrics()[task.quality]
    for batch in task.search_split.ordered():
        assert isinstance(batch.targets, Tensor)
        update_metric(metric, task.dense(batch.inputs), batch.targets)
    return float(metric.compute())


@pytest.mark.parametrize(("kind", "name"), CASES)
def test_every_metric_works_and_its_direction_is_right(kind: str, name: str) -> None:
    """A model that makes mistakes scores worse in the direction that the task takes from the metric."""
    task, flawed = task_of(kind, name), task_of(kind, name, wrong=40)
    assert task.higher_is_better == (name not in LOWER_IS_BETTER)
    best, worse = quality_of(task), quality_of(flawed)
    # Ranking metrics over classes are not quite 1: each class is ranked by a softmax over all of them.
    assert best == pytest.approx(0.0 if name in LOWER_IS_BETTER else 1.0, abs=5e-3)
    assert (best > worse) == task.higher_is_better
    assert best != worse


def test_every_metric_is_covered_above() -> None:
    assert {name for _, name in CASES} == set(METRICS)


@pytest.mark.parametrize(
    ("name", "value"),
    # By hand: 8 of class 0 all right, 2 of class 1 both taken for class 0.
    [("accuracy", 0.8), ("error", 0.2), ("balanced_accuracy", 0.5)],
)
@pytest.mark.parametrize("kind", ["binary", "multiclass"])
def test_values_by_hand_on_unequal_classes(kind: str, name: str, value: float) -> None:
    targets = torch.tensor([0] * 8 + [1] * 2)
    outputs = torch.full((10, 1), -1.0) if kind == "binary" else torch.tensor([[1.0, 0.0]]).repeat(10, 1)
    metric = build_metric(name, kind_of_prediction(outputs, targets))
    update_metric(metric, outputs, targets)
    assert float(metric.compute()) == pytest.approx(value)


def test_the_error_rate_adds_up_over_batches_and_forgets() -> None:
    error = ErrorRate(torchmetrics.classification.MulticlassAccuracy(num_classes=3, average="micro"))
    error.update(torch.eye(3), torch.tensor([0, 1, 0]))
    error.update(torch.eye(3)[:1], torch.tensor([1]))
    assert float(error.compute()) == pytest.approx(0.5)
    copy = error.clone()
    error.reset()
    error.update(torch.eye(3), torch.arange(3))
    assert float(error.compute()) == 0.0
    assert float(copy.compute()) == pytest.approx(0.5), "a clone does not share the counts"


@pytest.mark.parametrize(
    ("outputs", "targets", "kind", "classes"),
    [
        ((8, 4), torch.zeros(8).long(), "multiclass", 4),
        ((8, 2), torch.zeros(8).long(), "multiclass", 2),
        ((8, 5, 3, 3), torch.zeros(8, 3, 3).long(), "multiclass", 5),
        ((8, 1), torch.zeros(8).long(), "binary", 2),
        ((8,), torch.zeros(8).bool(), "binary", 2),
        ((8, 1), torch.zeros(8, 1).long(), "binary", 2),
        ((8, 4), torch.zeros(8, 4).long(), "multilabel", 4),
        ((8, 1), torch.zeros(8, 1), "regression", 0),
        ((8, 3), torch.zeros(8, 3), "regression", 0),
    ],
)
def test_what_is_predicted_is_read_off_the_shapes(
    outputs: tuple[int, ...], targets: Tensor, kind: str, classes: int
) -> None:
    assert kind_of_prediction(torch.zeros(outputs), targets) == Prediction(kind=kind, classes=classes)


def test_a_column_of_outputs_is_squeezed_for_flat_targets() -> None:
    metric = torchmetrics.MeanSquaredError()
    update_metric(metric, torch.ones(4, 1), torch.zeros(4))
    assert float(metric.compute()) == 1.0


def test_names_are_looked_up() -> None:
    with pytest.raises(UnknownNameError, match=r"a metric must be one of accuracy, .*Did you mean 'recall'"):
        build_metric("recal", Prediction(kind="multiclass", classes=3))
    with pytest.raises(ConfigurationError, match=r"metric 'r2' must suit binary outputs.*Use accuracy"):
        build_metric("r2", Prediction(kind="binary", classes=2))
    with pytest.raises(ConfigurationError, match=r"metric 'f1' must suit regression outputs.*Use mse, mae, r2"):
        build_metric("f1", Prediction(kind="regression", classes=0))
