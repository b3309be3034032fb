"""The first run of a task: its model, loss and metrics on a batch of each split, before any trial."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterable, Iterator, Mapping, Sequence, Sized
from dataclasses import dataclass, replace
from functools import partial
from itertools import islice
from typing import cast

import torch
from torch import Tensor, nn
from torch.utils.data import DataLoader, default_collate
from torchmetrics import Metric

from autoprune.errors import ConfigurationError, describe_exception, error_message
from autoprune.task.data import Batch, Inputs, IterableSplit, Split, TensorSplit, call, first_batches, shorten
from autoprune.task.evaluation import Evaluation
from autoprune.task.first_samples import FirstSamples, first_answers, tensor_of_targets
from autoprune.task.first_step import least_batch
from autoprune.task.loaders import surely_ends
from autoprune.task.metrics import are_built_in, family_asked_by, metrics_by_name, told_direction
from autoprune.task.modes import LossMode, loss_mode_of
from autoprune.task.prediction import (
    Prediction,
    TargetProperties,
    are_logits,
    classes_of,
    ignore_index_of,
    kind_of_prediction,
    kind_trained_by,
)
from autoprune.task.task import Task
from autoprune.task.validation import collect_fault, direction_faults, run_user_code

#: Batches after which a split without a length is taken for endless.
ENDLESS = 10_000
#: Entries that are checked at a time, so that large splits need no large copies.
_CHUNK = 2**22

Splits = Mapping[str, Split | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class FirstRun:
    """The result of the first run.

    Attributes:
        prediction: What the model predicts.
        metrics: The metrics by name; none beside an evaluation.
        directions: Name of a metric -> whether higher is better; None if unknown.
        evaluation: The user's function that replaces search split and metrics; None for none.
        loss_mode: Mode in which the loss is defined.
        least_batch: Samples of the smallest batch that the model can be trained on, 1 or 2.
    """

    prediction: Prediction
    metrics: Mapping[str, Metric]
    directions: Mapping[str, bool | None]
    evaluation: Evaluation | None
    loss_mode: LossMode
    least_batch: int


def first_run(task: Task, dense: nn.Module, splits: Splits, faults: list[str]) -> FirstRun | None:
    """Run everything once: the example inputs, a batch of each split, its loss and metrics, and a training step.

    Args:
        task: The task, with its example inputs on the device.
        dense: The model, in eval mode on the task's device.
        splits: "train", "search" and "test".
        faults: Sentences found so far; extended in place.

    Returns:
        The result; None if there are faults.
    """
    mode = loss_mode_of(dense, splits["train"], task.device)
    with torch.no_grad():
        collect_fault(faults, "example_inputs", partial(_forward, dense, task.example_inputs, "example_inputs"))
    # A loss that fails on train would fail on test, too: the first split with faults is the last one checked.
    found: list[str] = []
    batches: dict[str, Batch] = {}
    for name, part in splits.items():
        batch = (
            collect_fault(found, name, partial(_first_batch, task, part)) if part is not None and not found else None
        )
        if batch is None or part is None:
            continue
        with torch.no_grad():
            if _batch(task, dense, mode, name, batch, found):
                batches[name] = batch
                _keep_whole(dense, part, batch)
    # Metrics are for the scored splits; train may have other targets, such as after mixup.
    scored = [name for name in batches if name != "train"] or list(batches)
    prediction: Prediction | None = None
    metrics: dict[str, Metric] = {}
    told: list[str] = []
    if scored:
        with torch.no_grad():
            prediction, metrics = _scored(task, dense, mode, splits, scored, told)
    found += told
    if prediction is None or found or faults:
        faults += found
        return None
    _look_through(task, dense, splits, prediction, faults)
    return None if faults else _complete(task, dense, mode, batches["train"], (prediction, metrics), faults)


def _complete(
    task: Task,
    dense: nn.Module,
    mode: LossMode,
    batch: Batch,
    scored: tuple[Prediction, dict[str, Metric]],
    faults: list[str],
) -> FirstRun | None:
    """The result, after a training step on a batch of train and the first call of the user's evaluation."""
    prediction, metrics = scored
    least = collect_fault(faults, "train", lambda: least_batch(task, dense, batch))
    evaluation = collect_fault(faults, "evaluate", partial(_evaluation, task, dense)) if not faults else None
    if faults:
        return None
    directions = {name: told_direction(metric) for name, metric in metrics.items()}
    if evaluation is not None:
        directions = {name: True if name == task.quality else None for name in evaluation.names}
    return FirstRun(
        prediction=prediction,
        metrics=metrics,
        directions={**directions, **task.directions},
        evaluation=evaluation,
        loss_mode=mode,
        least_batch=least or 1,
    )


def _evaluation(task: Task, dense: nn.Module) -> Evaluation | None:
    """The user's evaluation after its first call, on the dense model; None where metrics evaluate."""
    if task.evaluate is None:
        return None
    found = Evaluation(function=task.evaluate, argument="evaluate", quality=task.quality).first(dense)
    wrong = direction_faults(task.directions, found.names)
    if wrong:
        raise ConfigurationError(" ".join(wrong))
    return found


def _prediction_for_training(task: Task, dense: nn.Module, mode: LossMode, splits: Splits) -> Prediction:
    """The prediction by the train split. Without metrics only distillation and the choice of an optimizer need it."""
    train = splits["train"]
    assert train is not None
    try:
        return _prediction(task, dense, mode, train, "train")
    except ConfigurationError:
        if task.predict is not None or task.kind is not None:
            raise
        return Prediction(kind="regression", classes=0)  # such as boxes beside labels


def _scored(
    task: Task, dense: nn.Module, mode: LossMode, splits: Splits, names: Iterable[str], faults: list[str]
) -> tuple[Prediction | None, dict[str, Metric]]:
    """The prediction, inferred on the first of these splits, and the metrics after a few samples of each."""
    if task.evaluate is not None:
        return collect_fault(faults, "predict", partial(_prediction_for_training, task, dense, mode, splits)), {}
    prediction: Prediction | None = None
    metrics: dict[str, Metric] = {}
    for where in names:
        split = splits[where]
        answers = (
            collect_fault(faults, where, partial(first_answers, task, dense, split, where))
            if split is not None
            else None
        )
        if split is None or answers is None:
            continue
        if prediction is None:
            prediction = collect_fault(faults, "predict", partial(_prediction, task, dense, mode, split, where))
        if prediction is None:
            return None, {}
        if are_built_in(task.metrics):
            collect_fault(faults, where, partial(_check_all, (targets for _, targets in answers), prediction, where))
        scoring = FirstSamples(task=task, dense=dense, split=split, where=where, answers=answers, prediction=prediction)
        for name, given in metrics_by_name(task.metrics).items() if not faults else ():
            metric = collect_fault(faults, f"metric {name!r}", partial(scoring.metric, name, given))
            metrics.update({name: metric} if metric is not None else {})
    return prediction, metrics


def _prediction(task: Task, dense: nn.Module, mode: LossMode, split: Split, where: str) -> Prediction:
    try:
        batches = [batch.to(torch.device(task.device)) for batch in first_batches(split, task.calibration_samples)]
    except (Exception, SystemExit) as error:  # the user's loader runs here
        raise ConfigurationError(error_message(where, "run", describe_exception(error))) from error
    outputs = task.predictions(call(dense, batches[0].inputs))
    targets = tensor_of_targets(batches[0], where)
    ignored = ignore_index_of(task.loss) if task.ignore_index is None else task.ignore_index
    loss = kind_trained_by(task.loss)
    if task.kind is None:
        values = TargetProperties.of(_targets(split, batches), ignored)
        found = kind_of_prediction(outputs, targets, values, asked=family_asked_by(task.metrics), loss=loss)
    else:
        found = Prediction(kind=task.kind, classes=classes_of(task.kind, outputs))
    if found.kind == "regression":
        if task.ignore_index is not None:
            remedy = "Leave it out, or say by kind=... that labels are predicted."
            raise ConfigurationError(
                error_message("ignore_index", "be left out for numbers", task.ignore_index, remedy)
            )
        return found
    return replace(found, ignore_index=ignored, logits=_logits(task, dense, mode, batches, found.kind, loss))


def _logits(task: Task, dense: nn.Module, mode: LossMode, batches: Sequence[Batch], kind: str, loss: str) -> bool:
    """Whether labels are predicted as logits: as the user or the loss says, else inferred from the dense model's
    outputs.
    """
    if task.logits is not None:
        return task.logits
    if loss in ("logits", "probabilities") and task.predict is None and not mode.trains:
        return loss == "logits"
    looked_at = batches[:1] if kind == "multiclass" else batches
    return any(are_logits(task.predictions(call(dense, batch.inputs)), kind) for batch in looked_at)


def _look_through(task: Task, dense: nn.Module, splits: Splits, prediction: Prediction, faults: list[str]) -> None:
    """Check all samples that can be read cheaply, and that the scored splits end."""
    named = are_built_in(task.metrics)
    for name, part in splits.items():
        if part is None:
            continue
        if named and (name != "train" or prediction.kind != "regression"):
            collect_fault(faults, name, partial(_check_labels, part, prediction, name))
        if isinstance(part, TensorSplit):
            collect_fault(faults, name, partial(_check_finite, task, dense, part, name))
        elif name != "train" and isinstance(part, IterableSplit) and not faults:
            collect_fault(faults, name, partial(_check_end, part))


def _check_all(targets: Iterable[Tensor], prediction: Prediction, where: str) -> None:
    for each in targets:
        prediction.check(each, where)


def _check_labels(split: Split, prediction: Prediction, where: str) -> None:
    targets = _targets(split, list(islice(split.ordered(), 1)))
    # Train may have other targets, such as after mixup.
    _check_all((each for each in targets if where != "train" or not each.is_floating_point()), prediction, where)


def _check_finite(task: Task, dense: nn.Module, split: TensorSplit, name: str) -> None:
    """Raise ConfigurationError if inputs with NaN or infinity lead to NaN in the outputs."""
    if not split.inputs.is_floating_point():
        return
    chunks = split.inputs.split(_rows(split.inputs))
    bad = (
        torch.cat([~chunk.flatten(1).isfinite().all(1) for chunk in chunks])
        if split.inputs.ndim > 1
        else ~split.inputs.isfinite()
    )
    where = bad.nonzero().flatten()
    if not len(where):
        return
    with torch.no_grad():
        few = split.take(where[:8])
        outputs = task.predictions(call(dense, next(few.ordered()).to(torch.device(task.device)).inputs))
    if bool(outputs.isnan().any()):
        got = f"NaN or infinity in {len(where)} of {split.samples} samples, the first at position {int(where[0])}"
        raise ConfigurationError(
            error_message(f"the inputs of {name}", "be finite", got, "Repair them or leave them out.")
        )


def _check_end(split: IterableSplit) -> None:
    """Raise ConfigurationError if a pass does not end, or if only one pass is possible."""
    if surely_ends(split.batches):
        return
    most = ENDLESS
    with contextlib.suppress(TypeError):  # a loader over a stream has __len__ and fails in it
        most = max(most, len(cast("Sized", split.batches)))
    if sum(1 for _ in islice(split.ordered(), most + 1)) > most:
        remedy = "A candidate is scored on all of it: give a part that ends, or a loader whose length is known."
        raise ConfigurationError(error_message(split.name, f"end after {most:,} batches at most", "more", remedy))
    next(split.ordered())


def _targets(split: Split, batches: Sequence[Batch]) -> Iterator[Tensor]:
    """Targets that need no reading: all targets of tensors and lists, else the targets of `batches`."""
    if isinstance(split, TensorSplit):
        yield from split.targets.split(_rows(split.targets))
        return
    listed = isinstance(split, IterableSplit) and isinstance(split.batches, Sequence)
    for batch in split.ordered() if listed else batches:
        if isinstance(batch.targets, Tensor):
            yield batch.targets


def _rows(tensor: Tensor) -> int:
    return max(1, _CHUNK // max(1, tensor[0].numel()))


def _keep_whole(dense: nn.Module, split: Split, batch: Batch) -> None:
    """Mark a split whose batches cannot be cut along the first axis, such as batches with time first."""
    if not isinstance(split, IterableSplit):
        return
    loader = split.batches
    if isinstance(loader, DataLoader) and loader.collate_fn is default_collate and loader.batch_sampler is not None:
        return  # default_collate stacks samples
    split.divisible = _is_divisible(dense, batch)


def _is_divisible(dense: nn.Module, batch: Batch) -> bool:
    if not batch.divisible or batch.size < 2:
        return batch.divisible
    half = shorten(batch, batch.size // 2)
    try:
        outputs = call(dense, half.inputs)
    except (Exception, SystemExit):  # the model may refuse half a batch with any error
        return False
    # If the first axis is time, half of it gives outputs for as many samples as before.
    return not isinstance(outputs, Tensor) or outputs.ndim == 0 or len(outputs) != batch.size


def _first_batch(task: Task, part: Split) -> Batch:
    return next(part.ordered()).to(torch.device(task.device))


def _batch(task: Task, dense: nn.Module, mode: LossMode, name: str, batch: Batch, faults: list[str]) -> bool:
    """Whether the batch gives predictions for the metrics."""
    forward = partial(_forward, dense, batch.inputs, f"a batch of {name}")
    before, outputs = len(faults), collect_fault(faults, name, forward)
    if len(faults) > before:
        return False
    collect_fault(faults, "loss", lambda: _loss(task, dense, mode, name, outputs, batch))
    if task.evaluate is not None:
        return True
    return collect_fault(faults, "predict", lambda: task.predictions(outputs)) is not None


def _loss(task: Task, dense: nn.Module, mode: LossMode, name: str, outputs: object, batch: Batch) -> None:
    if mode.trains:
        with mode.on(dense):
            outputs = _forward(dense, batch.inputs, f"a batch of {name} in training mode")
    loss = run_user_code(f"loss on {name}", lambda: task.loss(outputs, batch.targets))
    if not isinstance(loss, Tensor) or loss.numel() != 1:
        got = f"a tensor of shape {tuple(loss.shape)}" if isinstance(loss, Tensor) else type(loss).__name__
        raise ConfigurationError(
            error_message("loss", "return a scalar tensor", got, "Reduce it, such as by reduction='mean'.")
        )
    if not math.isfinite(float(loss)):
        raise ConfigurationError(error_message(f"loss on {name}", "be finite", float(loss), "Is the model trained?"))


def _forward(model: nn.Module, inputs: Inputs, what: str) -> object:
    try:
        return run_user_code(f"the model on {what}", lambda: call(model, inputs))
    except ConfigurationError as error:
        if not isinstance(inputs, tuple):
            raise
        remedy = f"The {len(inputs)} parts of a tuple or list are passed as arguments one by one"
        raise ConfigurationError(f"{error} {remedy}: a model that takes one list needs inputs ([...],).") from error
