"""Repeats of one study with several seeds, to tell results from luck."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, replace
from pathlib import Path

import numpy as np
import pandas as pd
from optuna.samplers import BaseSampler

from autoprune.errors import ConfigurationError, NotFoundError, error_message
from autoprune.front.convergence import convergence, hypervolume_band, worst_quality
from autoprune.front.front import Front
from autoprune.plan.validation import is_count
from autoprune.records.run_folder import RunFolder
from autoprune.search.settings import StudySettings
from autoprune.study.progress import OnProgress
from autoprune.study.study import Study
from autoprune.task.task import Task

#: Function from the number of the repeat and its study to a progress callback.
ProgressFactory = Callable[[int, Study], OnProgress]


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """Studies that differ in their seed alone.

    Attributes:
        folders: One run folder per seed, in the order of the seeds.
        fronts: Front of each study.

    Example:
        >>> Repeats(folders=(), fronts=()).curves()
        []
    """

    folders: tuple[RunFolder, ...]
    fronts: tuple[Front, ...]

    @classmethod
    def open(cls, out: str | Path) -> Repeats:
        """Open the studies that `repeat` left in a folder.

        Args:
            out: Folder with seed-0, seed-1, ...

        Returns:
            The studies in the order of their seeds.

        Raises:
            NotFoundError: The folder holds no repeats.
        """
        paths = sorted(Path(out).glob("seed-*"), key=lambda path: (len(path.name), path.name))
        studies = [Study.open(path) for path in paths if RunFolder(path).holds_study]
        if not studies:
            remedy = "Name the folder of a run with --seeds."
            raise NotFoundError(
                error_message("a folder of repeats", "hold seed-0, seed-1, ...", f"{out} without", remedy)
            )
        return cls(folders=tuple(study.folder for study in studies), fronts=tuple(study.front() for study in studies))

    def curves(self, cost: str = "multiply_adds") -> list[pd.DataFrame]:
        """Work out how the hypervolume of each study grew.

        Args:
            cost: Cost beside the quality, one of the objectives.

        Returns:
            One table per study, see `front.convergence`; all use the same reference point.
        """
        reference = worst_quality(self.fronts)
        return [
            convergence(front, cost=cost, reference=reference, start=_scanned(folder))
            for folder, front in zip(self.folders, self.fronts, strict=True)
        ]

    def hypervolume_band(self, *, by: str = "samples", cost: str = "multiply_adds") -> pd.DataFrame:
        """Compare the hypervolumes of the studies along an axis.

        Args:
            by: Axis along which they are compared: "samples", "seconds" or "candidates".
            cost: Cost beside the quality, one of the objectives.

        Returns:
            Median, lowest and highest hypervolume at places along the axis.
        """
        return hypervolume_band(self.curves(cost), by=by)

    def table(self, cost: str = "multiply_adds") -> pd.DataFrame:
        """List the studies.

        Args:
            cost: Cost beside the quality, one of the objectives.

        Returns:
            One row per study: seed, candidates, front, samples, seconds, hypervolume, best quality.
        """
        rows = []
        for folder, front, curve in zip(self.folders, self.fronts, self.curves(cost), strict=True):
            last = curve.iloc[-1] if len(curve) else pd.Series({"samples": 0, "seconds": 0.0, "hypervolume": 0.0})
            qualities = [record.search.quality for record in front.members]
            best = max(qualities, default=float("nan"), key=lambda q: q if front.higher_is_better else -q)
            rows.append(
                {
                    "study": folder.path.name,
                    "candidates": len(front.records),
                    "on_front": len(front.members),
                    "samples": int(last["samples"]),
                    "seconds": float(last["seconds"]),
                    "hypervolume": float(last["hypervolume"]),
                    f"best_{front.quality_name}": best,
                }
            )
        return pd.DataFrame(rows)

    def summary(self, cost: str = "multiply_adds") -> pd.DataFrame:
        """Summarize `table` over the studies.

        low and high are the 95 % interval of the median by order statistics (Conover, Practical Nonparametric
        Statistics, 1999); with fewer than six studies they are the lowest and the highest value.

        Args:
            cost: Cost beside the quality, one of the objectives.

        Returns:
            Median, low and high of each number.
        """
        table = self.table(cost).drop(columns="study").astype(float)
        low, high = _ranks(len(table))
        ordered = np.sort(table.to_numpy(), axis=0)
        return pd.DataFrame(
            {"median": table.median().to_numpy(), "low": ordered[low], "high": ordered[high]}, index=table.columns
        )


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
        task: Model, data, loss and metrics.
        settings: Settings of the studies.
        seeds: Number of studies, >= 1.
        out: Folder that gets one run folder per seed: seed-0, seed-1, ...
        follow: Called before each study; returns its progress callback.
        make_sampler: Seed -> Optuna sampler in place of the settings', or None for the settings'.

    Returns:
        The finished studies.

    Raises:
        ConfigurationError: seeds < 1.

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
        >>> settings = StudySettings(trials=1, latency_rounds=0, objectives=("quality", "parameters"))
        >>> len(repeat(task, settings, 2, out=tempfile.mkdtemp()).fronts)
        2
    """
    if not is_count(seeds) or seeds < 1:
        raise ConfigurationError(error_message("seeds", "be an integer >= 1", repr(seeds)))
    for number in range(seeds):
        own = replace(settings, seed=settings.seed + number)
        study = Study.create(task, own, out=Path(out) / f"seed-{own.seed}", name=f"{Path(out).name} {own.seed}")
        study.run(
            trials=settings.trials,
            seconds=settings.seconds,
            sampler=None if make_sampler is None else make_sampler(own.seed),
            on_progress=None if follow is None else follow(number, study),
        )
    return Repeats.open(out)


def _scanned(folder: RunFolder) -> tuple[int, float]:
    sensitivity = folder.read_sensitivity()
    if sensitivity is None:
        return 0, 0.0
    work = sensitivity.work
    return work.total, sensitivity.seconds


def _ranks(count: int) -> tuple[int, int]:
    """Return the positions of the median's 95 % interval among sorted values; first and last for fewer than six."""
    if count < 6:
        return 0, count - 1
    # The normal approximation of the binomial, rounded outwards.
    half = 1.96 * np.sqrt(count) / 2
    low = max(int(np.floor(count / 2 - half)), 0)
    return low, count - 1 - low
