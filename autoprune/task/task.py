"""Task: the user's input, checked at once before any work starts."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from types import MappingProxyType

import torch
from torch import Tensor, nn
from torch.optim import Optimizer
from torch.optim.lr_scheduler import LRScheduler
from torchmetrics import Metric

from autoprune.errors import ConfigurationError, TaskError, error_message, plain_text
from autoprune.task import validation
from autoprune.task.carve import carve
from autoprune.task.data import Batch, Inputs, Split, call, first_batches, take_batches
from autoprune.task.evaluation import EvaluateFunction, Evaluation, Scorable
from autoprune.task.first_run import first_run
from autoprune.task.functions import FunctionMetric
from autoprune.task.metrics import Metrics, are_built_in, check_direction, update_metric
from autoprune.task.modes import LossMode, Objective, loss_mode_of
from autoprune.task.prediction import Prediction, ignore_index_of
from autoprune.task.validation import collect_fault

LossFunction = Callable[..., Tensor]


#: Default of torch's classification losses: not worth a word in the summary.
TORCHS_IGNORE_INDEX = -100


@dataclass(frozen=True, slots=True, kw_only=True)
class Task:
    """A trained model, the way to score it, and the data.

    Attributes:
        model: The trained module, or a function without arguments that builds it. It is copied, never changed.
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
            `higher_is_better` counts as one where higher is better. Complete after the checks; None is unknown.
        search: Split that drives the study; None carves it from train. Never pass the test split here.
        test: Split for the final front only; None leaves test numbers out of the report.
        checkpoint: .safetensors file or torch state dict that is loaded into the model.
        predict: outputs -> tensor for metrics and distillation, if the model returns more than one tensor.
        kind: "multiclass", "binary", "multilabel" or "regression"; None infers it from outputs, targets, metrics and
            loss, see `summary`.
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
        dense: Copy of the model on the device, in eval mode.
        train_split: The train split, without the carved search split.
        search_split: The search split, or the evaluation that replaces it.
        test_split: The same for test, or None.
        calibration: Batches of the calibration samples, on the device.
        loss_mode: Mode in which the loss is defined.
        metric_set: The metrics by name.
        higher_is_better: Direction of the quality.
        prediction: What the model predicts.
        least_batch: Samples of the smallest batch that the model can be trained on, 1 or 2.

    Raises:
        TaskError: The task has faults; the message lists all of them.

    Example:
        >>> import torch
        >>> from autoprune import Task
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
        >>> task.summary()
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
    dense: nn.Module = field(init=False, repr=False)
    train_split: Split = field(init=False, repr=False)
    search_split: Scorable = field(init=False, repr=False)
    test_split: Scorable | None = field(init=False, repr=False)
    calibration: tuple[Batch, ...] = field(init=False, repr=False)
    loss_mode: LossMode = field(init=False, repr=False)
    metric_set: Mapping[str, Metric] = field(init=False, repr=False)
    higher_is_better: bool = field(init=False)
    prediction: Prediction = field(init=False, repr=False)
    least_batch: int = field(init=False, repr=False)

    def __post_init__(self) -> None:
        faults = validation.argument_faults(self)
        put = partial(object.__setattr__, self)
        dense = collect_fault(faults, "model", partial(validation.build_model, self))
        splits = {
            name: collect_fault(faults, name, partial(validation.read_split, self, name))
            for name in ("train", "search", "test")
        }
        faults += validation.overlap_faults(splits)
        train, search = splits["train"], splits["search"]
        if train is not None and validation.can_carve(self):
            carving = partial(carve, train, self.search_share, self.seed)
            train, search = collect_fault(faults, "carving search from train", carving) or (train, None)
        run = None
        if dense is not None:
            put("example_inputs", _place(self.example_inputs, self.device))
            put("loss_mode", loss_mode_of(dense, train, self.device))
            run = first_run(self, dense, {"train": train, "search": search, "test": splits["test"]}, faults)
        calibration: tuple[Batch, ...] | None = None
        if run is not None and train is not None:
            device, least = torch.device(self.device), run.least_batch
            few = partial(first_batches, train, self.calibration_samples, least)
            calibration = collect_fault(faults, "train", lambda: tuple(batch.to(device) for batch in few()))
        scored = None if run is None else run.evaluation or search
        if faults or dense is None or train is None or scored is None or run is None:
            raise TaskError(faults)
        put("schedulers", MappingProxyType(dict(self.schedulers)))
        put("dense", dense)
        put("train_split", train)
        put("search_split", scored)
        put("test_split", splits["test"] if run.evaluation is None else self._test_evaluation(run.evaluation))
        put("calibration", calibration)
        put("metric_set", run.metrics)
        put("directions", MappingProxyType(dict(run.directions)))
        put("higher_is_better", check_direction(self.quality, run.directions[self.quality]))
        put("prediction", run.prediction)
        put("least_batch", run.least_batch)

    def _test_evaluation(self, evaluation: Evaluation) -> Evaluation | None:
        if self.evaluate_test is None:
            return None
        return replace(evaluation, function=self.evaluate_test, argument="evaluate_test")

    def summary(self) -> str:
        """Describe the prediction and the metrics in one line.

        Returns:
            A line such as "10 classes, logits; accuracy over labels 0 to 9".
        """
        found, names = self.prediction, plain_text(", ".join(self.directions), 200)
        direction = f"{'higher' if self.higher_is_better else 'lower'} {plain_text(self.quality, 100)} is better"
        if isinstance(self.search_split, Evaluation):
            test = "" if self.test_split is not None else "; no test numbers without evaluate_test"
            return f"{found}; {names} ({direction}) by evaluate(model){test}"
        if isinstance(self.metric_set[self.quality], FunctionMetric):
            names += f" ({direction})"
        if not are_built_in(self.metrics):
            return f"{found}; {names} as your own metrics count"
        if found.kind == "regression":
            return f"{found}; {names} over values"
        ignored = ""
        if found.ignore_index not in (None, TORCHS_IGNORE_INDEX) or self.ignore_index is not None:
            ignored = f", label {found.ignore_index} left out"
            ignored += " as in the loss" if found.ignore_index == ignore_index_of(self.loss) else ""
        return f"{found}; {names} over labels {found.labels[0]} to {found.labels[-1]}{ignored}"

    def update(self, metric: Metric, predictions: Tensor, targets: Tensor) -> None:
        """Feed one batch to one of the task's metrics, in the form that it takes.

        Args:
            metric: A metric from `new_metric` or `new_metrics`.
            predictions: Predictions from `predictions`.
            targets: Targets from `labels`.
        """
        update_metric(metric, predictions, targets, self.prediction)

    def labels(self, batch: Batch, where: str = "a split") -> Tensor:
        """Check the targets of a batch before it is scored.

        Args:
            batch: Batch of the search or test split.
            where: Name of the split in messages.

        Returns:
            The targets.

        Raises:
            ConfigurationError: The targets are no tensor, or hold a label without a class.
        """
        if not isinstance(batch.targets, Tensor):
            got = type(batch.targets).__name__
            raise ConfigurationError(error_message(f"the targets of {where}", "be a tensor for the metrics", got))
        if are_built_in(self.metrics):
            self.prediction.check(batch.targets, where)
        return batch.targets

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

    @property
    def objective(self) -> Objective:
        """The loss together with the mode in which it is defined."""
        return Objective(self.loss, self.loss_mode)

    def new_metrics(self) -> dict[str, Metric]:
        """Copy every metric to the task's device, without counts.

        Returns:
            The metrics by name.
        """
        return {name: self.new_metric(name) for name in self.metric_set}

    def new_metric(self, name: str) -> Metric:
        """Copy one metric to the task's device, without counts.

        Args:
            name: Name of the metric.

        Returns:
            The copy.
        """
        metric = self.metric_set[name].clone().to(self.device)
        metric.reset()
        return metric


def assert_trained(task: Task, samples: int = 1024, permutations: int = 20) -> None:
    """Check that the dense model is better than chance on the search split.

    Its predictions are scored against the true targets and against shuffled targets. A model that has learned what the
    metric measures exceeds the mean of the shuffled scores by three of their standard deviations. If all targets are
    the
    same, or `evaluate` replaces the metrics, nothing is checked.

    Args:
        task: The task.
        samples: Most samples that are scored.
        permutations: Number of shuffles.

    Raises:
        ConfigurationError: The model is no better than chance.
    """
    pairs = _answers(task, samples)
    seen = sum(len(targets) for _, targets in pairs)
    if not any(bool((targets != targets[0]).any()) for _, targets in pairs):
        return
    generator = torch.Generator().manual_seed(task.seed)
    real = _score(task, pairs)
    chance = torch.tensor([_score(task, _reordered(pairs, generator)) for _ in range(permutations)]).double()
    mean, deviation = float(chance.mean()), float(chance.std())
    gain = real - mean if task.higher_is_better else mean - real
    # With fewer samples the deviation grows, until even a perfect model is within three deviations. Below 81 samples,
    # the gain that suffices at 81 therefore suffices. Differences by rounding are no gain.
    enough = max(min(3.0, math.sqrt(seen) / 3) * deviation, 1e-6 * abs(mean))
    if not gain > enough:
        raise ConfigurationError(
            error_message(
                f"the dense model's {task.quality}",
                "be better than against shuffled targets",
                f"{real:.4g} (shuffled: {mean:.4g} ± {deviation:.4g})",
                "Train the model first, load its checkpoint, or check the metric and its direction (directions=...); "
                "require_trained=False skips this.",
            )
        )


#: (predictions, targets) of some batches.
Answers = list[tuple[Tensor, Tensor]]
#: Most entries of predictions in memory, about 128 MiB: dense predictions of 1024 images would not fit.
MAX_ENTRIES = 2**25


def _answers(task: Task, samples: int) -> Answers:
    """The dense model's predictions on part of the search split, in one piece if their shapes allow it."""
    split, answers = task.search_split, Answers()
    if isinstance(split, Evaluation):  # nothing to shuffle
        return answers
    # Data is often sorted by class, so a part of it is drawn at random if possible.
    passing = split.shuffled(task.seed) if (split.samples or 0) > samples else split.ordered()
    with torch.no_grad():
        for raw in take_batches(passing, samples):
            batch = raw.to(torch.device(task.device))
            outputs, targets = task.predictions(call(task.dense, batch.inputs)), task.labels(batch, "search")
            if bool(outputs.isnan().any()):
                raise ConfigurationError(error_message("the dense model's outputs on search", "be finite", "NaN"))
            if min(outputs.ndim, targets.ndim) == 0:
                return []
            answers.append((outputs, targets))
            if sum(outputs.numel() for outputs, _ in answers) > MAX_ENTRIES:
                break
    if len({(outputs.shape[1:], targets.shape[1:]) for outputs, targets in answers}) == 1:
        answers = [(torch.cat([outputs for outputs, _ in answers]), torch.cat([targets for _, targets in answers]))]
    return answers


def _reordered(answers: Answers, generator: torch.Generator) -> Answers:
    orders = [torch.randperm(len(targets), generator=generator).to(targets.device) for _, targets in answers]
    return [(outputs, targets[order]) for (outputs, targets), order in zip(answers, orders, strict=True)]


def _score(task: Task, answers: Answers) -> float:
    metric = task.new_metric(task.quality)
    for outputs, targets in answers:
        task.update(metric, outputs, targets)
    return float(metric.compute())


def _place(inputs: Inputs, device: str) -> Inputs:
    return Batch(inputs=inputs, targets=(), size=1).to(torch.device(device)).inputs
