"""Distillation compares like with like: what the student returns in training with the same of the dense model."""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
import torchmetrics
from torch import Tensor, nn
from torch.nn import functional

import autoprune
from autoprune.criteria.gathering import gather_signals
from autoprune.criteria.signals import SIGNALS
from autoprune.errors import AutopruneWarning, ConfigurationError
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.plan.recovery import DistillationPlan, RecoveryPlan
from autoprune.recovery.fine_tune import fine_tune
from autoprune.recovery.teacher import PICK, Teacher
from autoprune.sensitivity.scan import scan
from autoprune.study.preflight import mode_notes
from autoprune.trial.context import TrialContext
from tests.end_to_end.script import command, write
from tests.tasks import blobs
from tests.unit.study.small import settings, space

Both = namedtuple("Both", ["logits", "aux"])


class Net(nn.Module):
    """No norm and no dropout: a student with the dense model's weights returns what the dense model returns."""

    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.first, self.second, self.head = nn.Linear(64, 16), nn.Linear(16, 12), nn.Linear(12, 4)

    def logits(self, x: Tensor) -> Tensor:
        output: Tensor = self.head(self.second(self.first(x.flatten(1)).relu()).relu())
        return output

    def forward(self, x: Tensor) -> object:
        return self.logits(x)


class SoftmaxInEval(Net):
    def forward(self, x: Tensor) -> object:
        logits = self.logits(x)
        return logits if self.training else (3 * logits).softmax(1)


class SigmoidInEval(Net):
    def forward(self, x: Tensor) -> object:
        one = self.logits(x)[:, 0]
        return one if self.training else one.sigmoid()


class OneLogit(Net):
    def forward(self, x: Tensor) -> object:
        return self.logits(x)[:, 0]


class Auxiliary(Net):
    def forward(self, x: Tensor) -> object:
        logits = self.logits(x)
        return Both(logits, logits - 1) if self.training else logits


class DictInTraining(Net):
    def forward(self, x: Tensor) -> object:
        logits = self.logits(x)
        return {"out": logits} if self.training else logits


class ClassesInEval(Net):
    def forward(self, x: Tensor) -> object:
        logits = self.logits(x)
        return logits if self.training else functional.one_hot(logits.argmax(1), 4).float()


class Detector(Net):
    """Losses in training, answers in eval mode."""

    def forward(self, x: Tensor) -> object:
        logits = self.logits(x)
        if self.training:
            return {"certainty": -logits.softmax(1).square().sum(1).mean(), "size": logits.square().mean()}
        return {"scores": logits}


class RowMean(torchmetrics.MeanMetric):
    """A metric of any number of rows."""

    higher_is_better = True

    def update(self, preds: Tensor, target: Tensor) -> None:
        super().update(preds.mean())


def first(outputs: object) -> Tensor:
    if isinstance(outputs, Mapping):
        return outputs["out"]
    return outputs.logits if isinstance(outputs, Both) else outputs  # type: ignore[return-value]


def loss(outputs: object, targets: Tensor) -> Tensor:
    return functional.cross_entropy(first(outputs), targets)


def trained_alone(outputs: object, targets: Tensor) -> Tensor:
    """A loss of what the model returns in training, as recipes have it."""
    if isinstance(outputs, Both):
        return functional.cross_entropy(outputs.logits, targets) + 0.3 * functional.cross_entropy(outputs.aux, targets)
    return functional.cross_entropy(outputs["out"], targets)  # type: ignore[index]


def summed(outputs: object, targets: Tensor) -> Tensor:
    return sum(outputs.values())  # type: ignore[attr-defined, no-any-return]


def task_of(model: nn.Module, loss: Callable[..., Tensor] = loss, **changes: object) -> autoprune.PreparedTask:
    images, targets = blobs(240)
    given: dict[str, object] = {
        "model": model,
        "example_inputs": images[:4],
        "train": (images[:160], targets[:160]),
        "search": (images[160:], targets[160:]),
        "loss": loss,
        "metrics": ("accuracy",),
        "quality": "accuracy",
        "batch_size": 40,
        "calibration_samples": 40,
        "require_trained": False,
        "predict": first,
    }
    return autoprune.prepare(autoprune.Task(**{**given, **changes}))  # type: ignore[arg-type]


def binary(model: nn.Module) -> autoprune.PreparedTask:
    images, targets = blobs(240)
    targets = (targets > 1).long()

    def yes_or_no(outputs: Tensor, wanted: Tensor) -> Tensor:
        return functional.binary_cross_entropy_with_logits(outputs, wanted.float())

    data = {"train": (images[:160], targets[:160]), "search": (images[160:], targets[160:])}
    return task_of(model, yes_or_no, predict=None, **data)


TASKS: dict[str, Callable[[], autoprune.PreparedTask]] = {
    "the same in both": lambda: task_of(Net()),
    "softmax in eval mode": lambda: task_of(SoftmaxInEval()),
    "sigmoid in eval mode": lambda: binary(SigmoidInEval()),
    "auxiliary outputs in training": lambda: task_of(Auxiliary()),
    "a loss of training alone": lambda: task_of(Auxiliary(), trained_alone),
    "a dict in training": lambda: task_of(DictInTraining(), trained_alone),
    "classes in eval mode": lambda: task_of(ClassesInEval()),
}


@pytest.mark.parametrize("name", TASKS)
def test_a_student_like_the_teacher_has_nothing_to_learn(name: str) -> None:
    task = TASKS[name]()
    teacher = Teacher(task)
    assert not teacher.comparison.fault
    assert teacher.comparison.kind == ("binary" if "sigmoid" in name else "multiclass")
    student = copy.deepcopy(task.dense)
    fine_tune(
        student,
        task,
        RecoveryPlan(steps=3, learning_rate=0.5, weight_decay=0.0, distillation=DistillationPlan(weight=1.0)),
        seed=0,
        teacher=teacher,
    )
    for before, after in zip(task.dense.parameters(), student.parameters(), strict=True):
        torch.testing.assert_close(before, after, atol=1e-4, rtol=1e-4)


@pytest.mark.parametrize("name", TASKS)
def test_the_teacher_gives_logits_whatever_eval_mode_gives(name: str) -> None:
    task = TASKS[name]()
    batch = next(task.train_split.ordered())
    with torch.no_grad():
        logits = task.dense.logits(batch.inputs)
    expected = logits[:, 0] if "sigmoid" in name else logits
    torch.testing.assert_close(Teacher(task)(batch), expected)
    assert not task.dense.training


@pytest.mark.parametrize("name", TASKS)
def test_criteria_and_scan_take_the_loss_where_it_is_defined(name: str) -> None:
    task = TASKS[name]()
    context = TrialContext.of(task)
    parent = (context.topology, KeptChannels.whole(context.topology))
    signals = gather_signals(task.dense, SIGNALS, parent, task.calibration, task.objective, 0)
    model, batch = copy.deepcopy(task.dense).train(), task.calibration[0]
    value = task.loss(model(batch.inputs), batch.targets)
    value.backward()
    assert signals.gradients is not None
    torch.testing.assert_close(signals.gradients["first.weight"][0], model.first.weight.grad)
    for signal in ("hessian", "weight_hessian", "gates", "weight_gates", "movement"):
        assert getattr(signals, signal), f"the loss reaches no {signal}"
    found = scan(context, "taylor", (0.5,))
    assert set(found.added_loss) == {"first", "second"}


def test_a_detector_is_pruned_without_distillation_and_that_is_said_before_work(tmp_path: Path) -> None:
    task = task_of(Detector(), summed, predict=lambda outputs: outputs["scores"])
    teacher = Teacher(task)
    assert "the model's outputs in training mode hold no single tensor to compare" in teacher.comparison.fault
    assert "predict raised KeyError: 'scores'" in teacher.comparison.fault
    assert not teacher.comparison.remedy
    chosen = settings(trials=3, uniform_points=1, space=space(distillation=(0.5,), criteria=("taylor",)))
    with pytest.warns(AutopruneWarning, match=r"^Distillation is off, and fine-tunes follow the targets alone: "):
        study = autoprune.Study.create(task, chosen, out=tmp_path / "run")
    assert len(study.run().records) == 3
    assert not (tmp_path / "run" / "failures").exists()
    with pytest.warns(AutopruneWarning, match=r"^Distillation is off"):
        study.enqueue(PruningPlan(seed=0, groups={}, recovery=RecoveryPlan(distillation=DistillationPlan(weight=0.9))))
    with pytest.warns(AutopruneWarning, match=r"^Distillation is off"):
        autoprune.Study.open(tmp_path / "run", task)


def test_nothing_is_said_where_no_distillation_is_asked_for(tmp_path: Path) -> None:
    task = task_of(Detector(), summed, predict=lambda outputs: outputs["scores"])
    study = autoprune.Study.create(task, settings(), out=tmp_path / "run")
    assert study.context is not None
    assert len(mode_notes((0.0,), study.context)) == 1, "but that the modes differ"


@pytest.mark.parametrize("predict", [None, lambda outputs: outputs[:, :4]], ids=["none", "of eval mode alone"])
@pytest.mark.parametrize("model", [Auxiliary, DictInTraining])
def test_a_forgotten_tensor_of_training_mode_is_asked_for_before_work(
    model: type[Net], predict: Callable[[object], Tensor] | None, tmp_path: Path
) -> None:
    task = task_of(model(), trained_alone, predict=predict)
    with pytest.raises(ConfigurationError, match=r"Distillation does not work: .*in training mode.*distillation=") as e:
        autoprune.Study.create(task, settings(space=space(distillation=(0.0, 0.5))), out=tmp_path / "run")
    assert PICK in str(e.value)
    assert not (tmp_path / "run").exists()
    study = autoprune.Study.create(task, settings(), out=tmp_path / "run")
    with pytest.raises(ConfigurationError, match="Distillation does not work"):
        study.enqueue(PruningPlan(seed=0, groups={}, recovery=RecoveryPlan(distillation=DistillationPlan(weight=0.5))))


def test_a_loss_of_logits_says_nothing_of_what_eval_mode_returns() -> None:
    """Metrics would take probabilities of eval mode for logits, and call every answer yes."""
    images, targets = blobs(240)
    targets = (targets > 1).float()
    data = {"train": (images[:160], targets[:160]), "search": (images[160:], targets[160:])}
    for model, logits in ((SigmoidInEval(), False), (OneLogit(), True)):
        task = task_of(model, functional.binary_cross_entropy_with_logits, predict=None, **data)
        assert task.prediction.kind == "binary"
        assert task.prediction.logits == logits
        assert Teacher(task).comparison.kind == "binary"


def test_rows_that_are_no_samples_are_not_kept_by_sample() -> None:
    """As of a language model whose positions are flattened."""

    def flat(outputs: Tensor, targets: Tensor) -> Tensor:
        return functional.cross_entropy(outputs.reshape(-1, 2), targets.repeat_interleave(2) % 2)

    metric = {"mean": RowMean()}
    task = task_of(Net(), flat, predict=lambda outputs: outputs.reshape(-1, 2), metrics=metric, quality="mean")
    teacher, student = Teacher(task), copy.deepcopy(task.dense)
    batch = next(task.train_split.shuffled(1))
    torch.testing.assert_close(teacher(batch), task.dense.logits(batch.inputs).detach().reshape(-1, 2))
    fine_tune(student, task, RecoveryPlan(steps=2, distillation=DistillationPlan(weight=0.5)), seed=0, teacher=teacher)


def largest(outputs: Tensor) -> Tensor:
    """As many rows as there are certain answers."""
    return outputs[outputs.softmax(1).max(1).values > 0.32]


@pytest.mark.parametrize(
    ("predict", "why"),
    [
        (lambda outputs: functional.one_hot(outputs.argmax(1), 4).float(), "no gradient"),
        (lambda outputs: outputs.detach(), "no gradient"),
        (largest, "depends on the weights"),
    ],
    ids=["argmax", "detached", "rows by value"],
)
def test_predictions_that_cannot_be_followed_are_not(predict: Callable[[Tensor], Tensor], why: str) -> None:
    metric = {"mean": RowMean()}
    teacher = Teacher(task_of(Net(), predict=predict, metrics=metric, quality="mean"))
    assert why in teacher.comparison.fault
    assert not teacher.comparison.remedy


def test_a_model_of_both_modes_is_explained_and_one_of_one_is_not(tmp_path: Path) -> None:
    class_of_script = """
    class Both(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def forward(self, x):
            return self.body(x) if self.training else self.body(x).softmax(1)
    arguments["model"] = Both(arguments["model"])
"""
    for change, said in ((class_of_script, True), ("pass", False)):
        answer = command("explain", write(tmp_path / str(said), change=change))
        assert answer.code == 0, answer.text
        assert ("returns something else in training than in eval mode" in answer.sentence) == said


def test_the_command_line_says_that_distillation_is_off(tmp_path: Path) -> None:
    change = """
    class Detector(nn.Module):
        def __init__(self, body):
            super().__init__()
            self.body = body

        def forward(self, x):
            return {"size": self.body(x).square().mean()} if self.training else self.body(x)
    arguments["model"] = Detector(arguments["model"])
    arguments["loss"] = lambda outputs, targets: outputs["size"]
"""
    answer = command("run", write(tmp_path, change=change), "--out", tmp_path / "run", "--trials", "1")
    assert answer.code == 0, answer.text
    assert answer.err.count("Distillation is off") == 1
    assert "Warning" not in answer.err
