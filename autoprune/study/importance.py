"""Importance of the space's parameters: for the quality, and for the quality beyond what its cost explains.

A budget explains nearly all of the quality, and so hides what is asked: which choice is better at the same cost. The
second target is what is left of the quality after a monotone fit over the logarithm of the cost.

Every number comes with what chance gives: a copy of the parameter, shuffled over the trials, is measured beside it
(Kursa and Rudnicki 2010, there for random forests). With few trials such copies look important too, and more so
when many are summed. Later trials start from longer trained ancestors; that is not told apart from what they chose.
"""

from __future__ import annotations

import logging
from collections import defaultdict
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import BaseDistribution
from optuna.importance import PedAnovaImportanceEvaluator, get_param_importances
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import TrialState, create_trial

from autoprune.errors import StorageError, fault
from autoprune.front.front import Front
from autoprune.front.record import CandidateRecord
from autoprune.study.folder import RunFolder
from autoprune.study.storage import JOURNAL

TARGETS = ("quality", "beyond_cost")
#: Fewer trials than this say nothing.
FEWEST_TRIALS = 10
#: Origins whose parameters made the candidate. Polished ones would count one choice several times, the plan of an
#: enqueued one need not lie in the space, and nothing was chosen for dense.
ORIGINS = ("uniform", "solved", "sampled")
#: A parameter is important as far as its values differ between the better half of the trials and all of them. On
#: simulated studies of 48 trials a half told true effects from chance more often than a quarter or a tenth.
_BETTER = 0.5
#: Ends of the interval over resamples, one standard error to either side.
_INTERVAL = (0.16, 0.84)
#: The monotone fit is asked only at costs that it was not fitted to: each tenth is left out in turn.
_FOLDS = 10

#: (value, where it was drawn from) of each trial, None where a trial lacks the parameter.
Column = Sequence[tuple[object, BaseDistribution] | None]


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """One parameter and one target, as shares of the sum over all parameters.

    share: median over resamples of the trials. low, high: 16 % and 84 % of the resamples.
    chance: 84 % of the resamples of a shuffled copy.
    """

    share: float
    low: float
    high: float
    chance: float

    @property
    def is_noise(self) -> bool:
        """Whether the interval overlaps that of the shuffled copy."""
        return self.low <= self.chance


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportanceRow:
    """A parameter, or the sum over all of one kind.

    name: of the parameter, or "kind/*". members: parameters in it, 1 for a single one.
    shares: target of TARGETS -> Importance; a target that could not be assessed is missing.
    """

    name: str
    members: int
    shares: Mapping[str, Importance]


@dataclass(frozen=True, slots=True, kw_only=True)
class Importances:
    """What decided, as far as the trials tell.

    rows: parameters, the most important for "beyond_cost" first (for "quality" without it). kinds: sums over the
        parameters that share what stands before "/", such as "criterion/*".
    trials: how many were looked at. cost: what "beyond_cost" takes out. explained: share of the variance of the quality
        that the cost alone explains, in [0, 1]; None where it could not be assessed.
    left_out: parameter -> why it has no number. notes: why there are no numbers, or none of a target.
    """

    rows: tuple[ImportanceRow, ...]
    kinds: tuple[ImportanceRow, ...]
    trials: int
    cost: str
    explained: float | None
    left_out: Mapping[str, str]
    notes: tuple[str, ...]

    def table(self) -> pd.DataFrame:
        """One row for each kind and parameter, with share, low, high, chance and is_noise of each target."""
        rows = []
        for row in (*self.kinds, *self.rows):
            cells: dict[str, object] = {"parameter": row.name, "members": row.members}
            for target, found in row.shares.items():
                for part in ("share", "low", "high", "chance"):
                    cells[f"{target}_{part}"] = getattr(found, part)
                cells[f"{target}_is_noise"] = found.is_noise
            rows.append(cells)
        return pd.DataFrame(rows)


def importances(  # one argument for each thing that a study knows
    study: optuna.Study,
    records: Sequence[CandidateRecord],
    *,
    higher_is_better: bool,
    cost: str = "multiply_adds",
    resamples: int = 20,
    seed: int = 0,
) -> Importances:
    """Importances by PED-ANOVA (Watanabe, Bansal, Hutter 2023) on bootstrap resamples of the finished trials.

    study: the trials' parameters. records: what they became; those without a trial are passed over.
    cost: the axis that "beyond_cost" takes out, a cost of a Measurement. resamples: >= 1. seed: >= 0.
    Parameters with one value, or in fewer than FEWEST_TRIALS trials, are left out with the reason.
    """
    found = {record.number: record for record in records if record.origin in ORIGINS}
    chosen = [t for t in study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,)) if t.number in found]
    kept = [found[trial.number] for trial in chosen]
    sign = 1.0 if higher_is_better else -1.0
    quality = np.array([sign * record.search.quality for record in kept])
    costs = np.log(np.maximum([record.search.value(cost) for record in kept], 1.0)) if kept else np.empty(0)
    columns, left_out = _columns(chosen)
    targets, notes = _targets(quality, costs, len(columns), cost)
    samples = {target: _resampled(target, columns, quality, costs, resamples, seed) for target in targets}
    rows = [_row(name, (name,), samples) for name in columns] if targets else []
    kinds = [_row(name, members, samples) for name, members in _kinds(columns).items()] if targets else []
    last = targets[-1] if targets else ""
    return Importances(
        rows=tuple(sorted(rows, key=lambda row: -row.shares[last].share)),
        kinds=tuple(sorted(kinds, key=lambda row: -row.shares[last].share)),
        trials=len(chosen),
        cost=cost,
        explained=_explained(quality, costs) if "beyond_cost" in targets else None,
        left_out=left_out,
        notes=notes,
    )


def read_importances(folder: RunFolder, front: Front) -> Importances | None:
    """Importances of a run folder, whose journal is only read; None while there is no journal of trials.

    Raises StorageError for a journal that can not be read.
    """
    study = _read_journal(folder.path)
    if study is None:
        return None
    settings = folder.read_study().get("settings")
    space = settings.get("space") if isinstance(settings, Mapping) else None
    cost = str(space.get("cost", "multiply_adds")) if isinstance(space, Mapping) else "multiply_adds"
    return importances(study, front.everything, higher_is_better=front.higher_is_better, cost=cost)


def beyond(quality: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """What a monotone fit over the costs [n] leaves of the quality [n]; not a number at the lowest and highest cost.

    The fit never saw the costs it is asked at, since one that did would follow them. The ends have no neighbour on
    one side, and so nothing to compare with.
    """
    ranks = np.unique(costs, return_inverse=True)[1]
    rest = np.empty(len(costs))
    for fold in range(_FOLDS):
        out = ranks % _FOLDS == fold
        if out.all():
            rest[out] = np.nan
        elif out.any():
            levels, fitted = isotonic(costs[~out], quality[~out])
            rest[out] = quality[out] - np.interp(costs[out], levels, fitted, left=np.nan, right=np.nan)
    return rest


def isotonic(x: np.ndarray, y: np.ndarray) -> tuple[np.ndarray, np.ndarray]:
    """The non-decreasing function nearest to the points (x, y) [n] in least squares: (distinct x, its values there).

    Pool adjacent violators (Ayer et al. 1955).
    """
    levels, where, counts = np.unique(x, return_inverse=True, return_counts=True)
    means = np.bincount(where, weights=y) / counts
    pools: list[tuple[float, int, int]] = []  # mean, points, levels
    for mean, points in zip(means.tolist(), counts.tolist(), strict=True):
        pool = (mean, points, 1)
        while pools and pools[-1][0] >= pool[0]:
            before = pools.pop()
            points = before[1] + pool[1]
            pool = ((before[0] * before[1] + pool[0] * pool[1]) / points, points, before[2] + pool[2])
        pools.append(pool)
    return levels, np.repeat([pool[0] for pool in pools], [pool[2] for pool in pools])


def _targets(
    quality: np.ndarray, costs: np.ndarray, parameters: int, cost: str
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """What can be assessed, and why the rest can not."""
    if len(quality) < FEWEST_TRIALS:
        return (), (
            f"Importances need {FEWEST_TRIALS} finished trials that chose their own parameters (neither dense, "
            f"polished nor enqueued); there are {len(quality)}.",
        )
    if parameters == 0 or np.ptp(quality) == 0:
        return (), ("There is nothing to compare: all trials have the same quality or the same parameters.",)
    rest = beyond(quality, costs)
    if np.isfinite(rest).sum() < FEWEST_TRIALS or np.nanstd(rest) == 0:
        return ("quality",), (f"Too few different {cost} to say what is important beyond the cost.",)
    return TARGETS, ()


def _columns(trials: Sequence[optuna.trial.FrozenTrial]) -> tuple[dict[str, Column], dict[str, str]]:
    """Parameter -> its column; parameter -> why it is left out."""
    columns: dict[str, Column] = {}
    left_out = {}
    for name in dict.fromkeys(name for trial in trials for name in trial.params):
        column = [(t.params[name], t.distributions[name]) if name in t.params else None for t in trials]
        there = [cell[0] for cell in column if cell is not None]
        if len(there) < FEWEST_TRIALS:
            left_out[name] = f"in {len(there)} of {len(trials)} trials only"
        elif len(set(there)) < 2:
            left_out[name] = f"{there[0]!r} in every trial"
        else:
            columns[name] = column
    return columns, left_out


def _kinds(names: Mapping[str, Column]) -> dict[str, tuple[str, ...]]:
    """The name of a kind, such as "criterion/*" -> the parameters that it sums."""
    members: dict[str, list[str]] = defaultdict(list)
    for name in names:
        kind, slash, _ = name.partition("/")
        if slash:
            members[f"{kind}/*"].append(name)
    return {kind: tuple(found) for kind, found in members.items()}


def _resampled(
    target: str, columns: Mapping[str, Column], quality: np.ndarray, costs: np.ndarray, resamples: int, seed: int
) -> Sequence[Mapping[str, tuple[float, float]]]:
    """For each resample: parameter -> (its share, that of a shuffled copy)."""
    random = np.random.default_rng(seed)
    found = []
    for _ in range(resamples):
        drawn = random.integers(len(quality), size=len(quality))
        # Shuffled anew each time, and before the draw: a trial drawn twice has its copy's value twice too.
        shuffled = {name: random.permutation(len(quality)) for name in columns}
        values = quality[drawn] if target == "quality" else beyond(quality[drawn], costs[drawn])
        inside = np.isfinite(values)
        index = drawn[inside]
        places = {name: (index, shuffled[name][index]) for name in columns}
        found.append(_shares(columns, places, values[inside]))
    return found


def _shares(
    columns: Mapping[str, Column], places: Mapping[str, tuple[np.ndarray, np.ndarray]], values: np.ndarray
) -> Mapping[str, tuple[float, float]]:
    optuna.logging.set_verbosity(logging.WARNING)
    study = optuna.create_study(direction="maximize")
    for position, value in enumerate(values):
        cells = {}
        for name, column in columns.items():
            for prefix, place in zip(("own", "shuffled"), places[name], strict=True):
                cell = column[place[position]]
                if cell is not None:
                    cells[f"{prefix} {name}"] = cell
        study.add_trial(
            create_trial(
                params={name: cell[0] for name, cell in cells.items()},
                distributions={name: cell[1] for name, cell in cells.items()},
                value=float(value),
            )
        )
    raw = get_param_importances(study, evaluator=PedAnovaImportanceEvaluator(target_quantile=_BETTER))
    total = sum(raw.get(f"own {name}", 0.0) for name in columns) or 1.0
    return {name: (raw.get(f"own {name}", 0.0) / total, raw.get(f"shuffled {name}", 0.0) / total) for name in columns}


def _row(
    name: str, members: Sequence[str], samples: Mapping[str, Sequence[Mapping[str, tuple[float, float]]]]
) -> ImportanceRow:
    shares = {}
    for target, found in samples.items():
        own = [sum(resample[member][0] for member in members) for resample in found]
        chance = [sum(resample[member][1] for member in members) for resample in found]
        low, middle, high = np.quantile(own, (_INTERVAL[0], 0.5, _INTERVAL[1]))
        shares[target] = Importance(
            share=float(middle), low=float(low), high=float(high), chance=float(np.quantile(chance, _INTERVAL[1]))
        )
    return ImportanceRow(name=name, members=len(members), shares=shares)


def _explained(quality: np.ndarray, costs: np.ndarray) -> float:
    rest = beyond(quality, costs)
    inside = np.isfinite(rest)
    whole = np.var(quality[inside])
    return float(np.clip(1.0 - np.mean(rest[inside] ** 2) / whole, 0.0, 1.0)) if whole > 0 else 0.0


def _read_journal(folder: Path) -> optuna.Study | None:
    path = folder / JOURNAL
    if not path.is_file():
        return None
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        names = optuna.get_all_study_names(storage)
        return optuna.load_study(study_name=names[0], storage=storage) if names else None
    except (OSError, ValueError, KeyError) as error:
        raise StorageError(fault(str(path), "be a journal of trials", f"{type(error).__name__}: {error}")) from error
