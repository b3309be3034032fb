"""Task: what the user declares, with arguments of the right types and values."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path
from types import MappingProxyType

from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler

from autoprune.errors import ConfigurationError, TaskError, error_message
from autoprune.task.data import Inputs
from autoprune.task.evaluation import EvaluateFunction
from autoprune.task.metrics import Metrics
from autoprune.task.models import check_type as check_model
from autoprune.task.prediction import PREDICTION_KINDS, is_label
from autoprune.task.splits import check_type as check_split
from autoprune.task.validation import (
    collect_fault,
    evaluate_faults,
    is_count,
    is_device,
    is_inputs,
    is_share,
    metric_faults,
    scheduler_faults,
)

LossFunction = Callable[..., Tensor]


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A trained model, the way to score it, and the data: what the user declares.

    A task is cheap to make, in a notebook as well. Making it checks the types and values of its arguments; it calls no
    function of yours and reads no data. `prepare` checks everything else, before any work starts: that the model can be
    copied and run, that the splits can be read and carved and share no samples, and that loss and metrics take the
    outputs. `Study`, `explain` and `repeat` prepare a task themselves. Prepare it once yourself to see its faults
    first, or to hand it to several of them.

    Attributes:
        model: The trained module, or a function without arguments that builds it. `prepare` copies it;
            it is never changed.
        example_inputs: Inputs of one call, as a tensor, tuple or dict; latency and multiply-adds refer to them.
        train: Pair of tensors, Dataset, DataLoader or any re-iterable of (inputs, targets) batches.
        loss: (outputs, targets) -> scalar tensor; it gets the targets unchanged.
        metrics: Names of autoprune.task.metrics.METRICS and functions, or name -> torchmetrics.Metric or function. A
            function (outputs, targets) -> number is called once with all outputs and targets of a split, on the CPU.
        quality: The metric that the search improves.
        evaluate: model -> {"quality": ..., ...}, in place of metrics, search and test: the whole evaluation of a
            candidate for the search. It gets a copy of the model in eval mode; further names become further metrics.
        evaluate_test: The same on test data, for the final front only; None leaves test numbers out of the report.
        directions: Metric -> whether higher is better, for metrics that do not tell it: a function without an attribute
            `higher_is_better` counts as one where higher is better.
        search: Split that drives the study; None carves it from train. Never pass the test split here.
        test: Split for the final front only; None leaves test numbers out of the report.
        checkpoint: .safetensors file or torch state dict that is loaded into the model.
        predict: outputs -> tensor for metrics and distillation, if the model returns more than one tensor.
        kind: "multiclass", "binary", "multilabel" or "regression"; None infers it from outputs, targets, metrics and
            loss, see `PreparedTask.summary`.
        logits: True if labels are predicted as logits, False for probabilities; None infers it.
        ignore_index: Label that metrics given by name leave out, such as 255 or -100; None takes that of the loss, if
            any.
        schedulers: The user's learning-rate schedulers for RecoveryPlan.scheduler: name -> function (optimizer, total
            steps) that builds one. The optimizer has one group with the plan's learning rate.
        device: Device of the model and the batches.
        batch_size: Samples per batch for tensors and Datasets, >= 1.
        search_share: Share of train that becomes the search split if none is given, in (0, 1).
        calibration_samples: Training samples for criteria and the sensitivity scan, >= 1.
        require_trained: Refuse a model that scores no better than chance.
        seed: Seed of carving and every other random choice, >= 0.

    Raises:
        TaskError: Arguments have faults; the message lists all of them.

    Example:
        >>> import torch
        >>> from autoprune import Task, prepare
        >>> inputs = torch.linspace(-1, 1, 64).reshape(64, 1)
        >>> targets = (inputs > 0).long().flatten()
        >>> model = torch.nn.Linear(1, 2)
        >>> state = {"weight": torch.tensor([[-9.0], [9.0]]), "bias": torch.zeros(2)}
        >>> model.load_state_dict(state)
        <All keys matched successfully>
        >>> task = Task(
        ...     model=model,
        ...     example_inputs=inputs[:1],
        ...     train=(inputs, targets),
        ...     loss=torch.nn.functional.cross_entropy,
        ...     metrics=("accuracy",),
        ...     quality="accuracy",
        ... )
        >>> prepare(task).summary()
        '2 classes, logits; accuracy over labels 0 to 1'
    """

    model: nn.Module | Callable[[], nn.Module]
    example_inputs: Inputs
    train: object
    loss: LossFunction
    metrics: Metrics = ()
    quality: str = "quality"
    evaluate: EvaluateFunction | None = None
    evaluate_test: EvaluateFunction | None = None
    directions: Mapping[str, bool | None] = field(default_factory=dict)
    search: object = None
    test: object = None
    checkpoint: str | Path | None = None
    predict: Callable[[object], Tensor] | None = None
    kind: str | None = None
    logits: bool | None = None
    ignore_index: int | None = None
    schedulers: Mapping[str, Callable[[Optimizer, int], LRScheduler]] = field(default_factory=dict)
    device: str = "cpu"
    batch_size: int = 128
    search_share: float = 0.15
    calibration_samples: int = 256
    require_trained: bool = True
    seed: int = 0

    def __post_init__(self) -> None:
        faults = self._argument_faults()
        collect_fault(faults, "model", partial(check_model, self.model))
        for name in ("train", "search", "test"):
            given = getattr(self, name)
            if given is not None or name == "train":
                collect_fault(faults, name, partial(check_split, given, name))
        if faults:
            raise TaskError(faults)
        object.__setattr__(self, "schedulers", MappingProxyType(dict(self.schedulers)))

    def _argument_faults(self) -> list[str]:
        """Check the types and values of arguments, without calling any of them."""
        checks = (
            (is_count(self.batch_size, 1), "batch_size", "be an integer >= 1", self.batch_size),
            (is_share(self.search_share), "search_share", "lie in (0, 1)", self.search_share),
            (
                is_count(self.calibration_samples, 1),
                "calibration_samples",
                "be an integer >= 1",
                self.calibration_samples,
            ),
            (is_count(self.seed, 0), "seed", "be an integer >= 0", self.seed),
            (callable(self.loss), "loss", "be a function (outputs, targets) -> Tensor", type(self.loss).__name__),
            (
                is_inputs(self.example_inputs),
                "example_inputs",
                "be a tensor, a tuple or a dict",
                type(self.example_inputs).__name__,
            ),
            (is_device(self.device), "device", "be available here", self.device),
            (
                self.kind is None or self.kind in PREDICTION_KINDS,
                "kind",
                f"be None or one of {', '.join(PREDICTION_KINDS)}",
                self.kind,
            ),
            (self.logits is None or isinstance(self.logits, bool), "logits", "be None, True or False", self.logits),
            (self.ignore_index is None or is_label(self.ignore_index), "ignore_index", "be a label", self.ignore_index),
            (
                self.checkpoint is None or isinstance(self.checkpoint, str | Path),
                "checkpoint",
                "be None or the path of a file",
                self.checkpoint,
            ),
            (
                self.predict is None or callable(self.predict),
                "predict",
                "be None or a function outputs -> Tensor",
                self.predict,
            ),
        )
        faults = [error_message(what, want, repr(got)) for ok, what, want, got in checks if not ok]
        return faults + self._scoring_faults() + scheduler_faults(self.schedulers)

    def _scoring_faults(self) -> list[str]:
        """Check the metrics, or the evaluation that replaces them."""
        if self.evaluate is not None:
            functions = {"evaluate": self.evaluate, "evaluate_test": self.evaluate_test}
            replaced = {"metrics": self.metrics, "search": self.search, "test": self.test}
            return evaluate_faults(functions, self.quality, replaced)
        faults = metric_faults(self.metrics, self.quality, self.directions)
        if self.evaluate_test is not None:
            remedy = "Give the test split as test."
            faults.append(error_message("evaluate_test", "come beside evaluate", "metrics", remedy))
        return faults

    def predictions(self, outputs: object) -> Tensor:
        """Select the tensor that metrics and distillation use.

        Args:
            outputs: Outputs of the model.

        Returns:
            Predictions [N, ...].

        Raises:
            ConfigurationError: The outputs, or the result of `predict`, are no tensor.
        """
        tensor = self.predict(outputs) if self.predict is not None else outputs
        if not isinstance(tensor, Tensor):
            what, remedy = ("the model's outputs", "Give predict=...")
            if self.predict is not None:
                what, remedy = ("the result of predict", "Pick the tensor that the metrics compare with the targets.")
            raise ConfigurationError(error_message(what, "be a tensor for the metrics", type(tensor).__name__, remedy))
        return tensor
