"""Repeats: several runs of one study with different seeds, to tell results from luck."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from autoprune.errors import NotFoundError, error_message
from autoprune.front.convergence import Curve, convergence, hypervolume_band, worst_quality
from autoprune.front.front import Front
from autoprune.front.run import Run
from autoprune.records.limits import Limits
from autoprune.records.objectives import QUALITY
from autoprune.records.run_folder import RunFolder

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True, slots=True, kw_only=True)
class Repeats:
    """Runs that differ in their seed alone.

    Attributes:
        runs: One run per seed, in the order of the seeds.

    Example:
        >>> Repeats(runs=()).curves()
        []
    """

    runs: tuple[Run, ...]

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
        runs = tuple(Run.open(path) for path in paths if RunFolder(path).holds_study)
        if not runs:
            remedy = "Name the folder of a run with --seeds."
            raise NotFoundError(
                error_message("a folder of repeats", "hold seed-0, seed-1, ...", f"{out} without", remedy)
            )
        return cls(runs=runs)

    @property
    def fronts(self) -> tuple[Front, ...]:
        """Front of each run."""
        return tuple(run.front() for run in self.runs)

    def curves(self, cost: str = "multiply_adds") -> list[Curve]:
        """Work out how the hypervolume of each study grew.

        Args:
            cost: Cost beside the quality, one of the objectives.

        Returns:
            One curve per study, see `front.convergence`; all use the same reference point.
        """
        fronts = self.fronts
        reference = worst_quality(fronts)
        return [
            convergence(front, cost=cost, reference=reference, start=_scanned(run))
            for run, front in zip(self.runs, fronts, strict=True)
        ]

    def hypervolume_band(self, *, by: str = "samples", cost: str = "multiply_adds") -> pd.DataFrame:
        """Compare the hypervolumes of the studies along an axis.

        Args:
            by: Axis along which they are compared: "samples", "seconds" or "candidates".
            cost: Cost beside the quality, one of the objectives.

        Returns:
            Median, lowest and highest hypervolume at places along the axis.
        """
        import pandas as pd

        return pd.DataFrame(hypervolume_band(self.curves(cost), by=by))

    def table(self, cost: str = "multiply_adds") -> pd.DataFrame:
        """List the studies.

        Args:
            cost: Cost beside the quality, one of the objectives.

        Returns:
            One row per study: seed, candidates, front, samples, seconds, hypervolume, best quality and how much better
            than it is that looks.
        """
        import pandas as pd

        rows = []
        for run, front, curve in zip(self.runs, self.fronts, self.curves(cost), strict=True):
            last = {name: values[-1] if len(values) else 0 for name, values in curve.items()}
            qualities = [record.search.quality for record in front.members]
            optimism = front.optimism(Limits(), QUALITY)
            rows.append(
                {
                    "study": run.folder.path.name,
                    "candidates": len(front.records),
                    "on_front": len(front.members),
                    "samples": int(last["samples"]),
                    "seconds": float(last["seconds"]),
                    "hypervolume": float(last["hypervolume"]),
                    f"best_{front.metric}": front.problem.quality.best(qualities),
                    "optimism": np.nan if optimism is None else optimism,
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
        import pandas as pd

        table = self.table(cost).drop(columns="study").astype(float)
        low, high = median_interval(len(table))
        ordered = np.sort(table.to_numpy(), axis=0)
        return pd.DataFrame(
            {"median": table.median().to_numpy(), "low": ordered[low], "high": ordered[high]}, index=table.columns
        )


def _scanned(run: Run) -> tuple[int, float]:
    sensitivity = run.sensitivity()
    if sensitivity is None:
        return 0, 0.0
    work = sensitivity.work
    return work.total, sensitivity.seconds


def median_interval(count: int) -> tuple[int, int]:
    """Compute the places of the median's 95 % interval among sorted values.

    Args:
        count: Number of values.

    Returns:
        (lower place, upper place); the first and the last for fewer than six values.
    """
    if count < 6:
        return 0, count - 1
    # The normal approximation of the binomial, rounded outwards.
    half = 1.96 * np.sqrt(count) / 2
    low = max(int(np.floor(count / 2 - half)), 0)
    return low, count - 1 - low
