"""Check that a model has learned something."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from autoprune.errors import ConfigurationError, error_message
from autoprune.task.data import call, take_batches
from autoprune.task.evaluation import Evaluation
from autoprune.task.prepare import PreparedTask

#: (predictions, targets) of some batches.
Answers = list[tuple[Tensor, Tensor]]
#: Fewest samples to tell a trained model by: an untrained one gives four of ten answers by luck.
_FEWEST = 5
#: Most entries of predictions in memory, about 128 MiB: dense predictions of 1024 images would not fit.
MAX_ENTRIES = 2**25


def assert_trained(task: PreparedTask, samples: int = 1024, permutations: int = 20) -> None:
    """Check that the dense model is better than chance on the search split.

    Its predictions are scored against the true targets and against shuffled targets. A model that has learned what the
    metric measures exceeds the mean of the shuffled scores by three of their standard deviations. If all targets are
    the same, or `evaluate` replaces the metrics, nothing is checked.

    Args:
        task: The task.
        samples: Most samples that are scored.
        permutations: Number of shuffles.

    Raises:
        ConfigurationError: The model is no better than chance, or too few samples tell whether it is.
    """
    pairs = _answers(task, samples)
    seen = sum(len(targets) for _, targets in pairs)
    if 0 < seen < _FEWEST:
        raise ConfigurationError(
            error_message(
                "the search split",
                f"hold {_FEWEST} samples or more, as fewer do not tell a trained model from any other",
                seen,
                "Give more; require_trained=False skips this.",
            )
        )
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


def _answers(task: PreparedTask, samples: int) -> Answers:
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


def _score(task: PreparedTask, answers: Answers) -> float:
    metric = task.new_metric(task.quality)
    for outputs, targets in answers:
        task.update(metric, outputs, targets)
    return float(metric.compute())
