"""Running one study with several seeds."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from optuna.samplers import BaseSampler

from autoprune.errors import ConfigurationError, error_message
from autoprune.front.repeats import Repeats
from autoprune.plan.validation import is_count
from autoprune.search.settings import StudySettings
from autoprune.study.progress import OnProgress
from autoprune.study.study import Study
from autoprune.task.prepare import prepare
from autoprune.task.task import Task

#: Function from the number of the repeat and its study to a progress callback.
ProgressFactory = Callable[[int, Study], OnProgress]


def repeat(
    task: Task,
    settings: StudySettings,
    seeds: int,
    *,
    out: str | Path,
    follow: ProgressFactory | None = None,
    make_sampler: Callable[[int], BaseSampler | None] | None = None,
) -> Repeats:
    """Run one study per seed, with seeds that count up from the settings'; a further call continues them.

    Args:
        task: Model, data, loss and metrics; prepared once for all studies.
        settings: Settings of the studies.
        seeds: Number of studies, >= 1.
        out: Folder that gets one run folder per seed: seed-0, seed-1, ...
        follow: Called before each study; returns its progress callback.
        make_sampler: Seed -> Optuna sampler in place of the settings', or None for the settings'.

    Returns:
        The finished studies.

    Raises:
        ConfigurationError: seeds < 1.
        TaskError: The task has faults.

    Example:
        >>> import tempfile
        >>> import torch
        >>> from torch import nn
        >>> inputs = torch.randn(400, 4)
        >>> model = nn.Sequential(nn.Linear(4, 8), nn.ReLU(), nn.Linear(8, 2))
        >>> data = (inputs, model(inputs).argmax(1))
        >>> task = Task(
        ...     model=model,
        ...     example_inputs=inputs[:1],
        ...     train=data,
        ...     loss=nn.functional.cross_entropy,
        ...     metrics=("accuracy",),
        ...     quality="accuracy",
        ... )
        >>> settings = StudySettings(trials=1, objectives=("quality", "parameters"))
        >>> settings = settings.changed({"measure.latency_rounds": 0})
        >>> len(repeat(task, settings, 2, out=tempfile.mkdtemp()).fronts)
        2
    """
    if not is_count(seeds) or seeds < 1:
        raise ConfigurationError(error_message("seeds", "be an integer >= 1", repr(seeds)))
    prepared = prepare(task)
    for number in range(seeds):
        own = replace(settings, seed=settings.seed + number)
        study = Study.create(prepared, own, out=Path(out) / f"seed-{own.seed}", name=f"{Path(out).name} {own.seed}")
        study.run(
            trials=settings.trials,
            seconds=settings.seconds,
            sampler=None if make_sampler is None else make_sampler(own.seed),
            on_progress=None if follow is None else follow(number, study),
        )
    return Repeats.open(out)
