"""Importance of each parameter of the space: for each objective, and for the quality at equal cost.

The budget decides nearly all of the quality, which hides the useful question: which choice is better at equal cost? The
last target is therefore the quality minus the quality of trials at about the same cost.

An importance is the share of a target's variance that one parameter explains alone: the correlation ratio, minus the
share that as many groups explain by chance (Kelley, An unbiased correlation ratio measure, 1935). It is taken over
ranks (Conover and Iman, Rank transformations as a bridge between parametric and nonparametric statistics, 1981), since
a few failed candidates would otherwise dominate the variance. With tens of trials it separates important parameters
from others better than Optuna's PED-ANOVA, which only compares the better half (`pytest
tests/unit/study/test_importance_and_optuna.py`). Interactions of parameters are in neither.
"""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field
from typing import TYPE_CHECKING

import numpy as np

from autoprune.front.dominance import mean_ranks
from autoprune.front.front import Front
from autoprune.records.candidate import CandidateRecord
from autoprune.records.objectives import QUALITY

if TYPE_CHECKING:
    import pandas as pd

#: Fewest trials for importances.
MIN_TRIALS_FOR_IMPORTANCE = 20
#: Values with fewer trials are merged, and numbers with fewer trials per value are compared by parts of their range.
_MIN_TRIALS_PER_VALUE = 3
#: Number of parts of a range, with equally many trials each.
_BINS = 3
#: Trials of about the same cost: share of all trials, and their smallest number.
_NEIGHBOUR_SHARE, _MIN_NEIGHBOURS = 0.2, 6
#: Number of random halves and of random orders of the trials.
_HALVES, _ORDERS = 100, 2000
#: Orders per batch, to bound memory.
_ORDERS_PER_BATCH = 100
#: Probability that chance alone makes any parameter of a target look important.
_FALSE_POSITIVE_RATE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """Importance of a parameter, or of a kind of parameters, for one target.

    Attributes:
        share: Share of the variance of the target's ranks that it explains, in [0, 1].
        low: Lower end of the 68 % interval over random halves of the trials (Shao and Wu, A general theory for
            jackknife variance estimation, 1989).
        high: Upper end of that interval.
        chance: Share that random pairings of trials and values reach: in 95 of 100 studies without any effect, all rows
            of a target stay below it.
    """

    share: float
    low: float
    high: float
    chance: float

    @property
    def is_noise(self) -> bool:
        """Return whether chance reaches the share, too."""
        return self.share <= self.chance

    def __str__(self) -> str:
        """Return the share and its interval, in brackets if it is noise."""
        text = f"{self.share:.0%}, {self.low:.0%} to {self.high:.0%}"
        return f"({text})" if self.is_noise else text


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportanceRow:
    """A parameter, or the sum over all parameters of one kind.

    Attributes:
        name: Name of the parameter, or of the kind, such as "criterion/*".
        members: Number of parameters; 1 for a single one.
        targets: Target -> importance.
    """

    name: str
    members: int
    targets: Mapping[str, Importance]


@dataclass(frozen=True, slots=True, kw_only=True)
class Importances:
    """Importances of all parameters.

    Attributes:
        trials: Number of trials.
        targets: The objectives, and "quality at equal" the first cost among them.
        parameters: Parameters, with those of one kind (equal names before "/") summed; the most important for the last
            target first.
        members: The single parameters of the summed kinds.
        left_out: Parameter -> why it has no importance.
        notes: Targets that could not be assessed, and why.
    """

    trials: int
    targets: tuple[str, ...] = ()
    parameters: tuple[ImportanceRow, ...] = ()
    members: tuple[ImportanceRow, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """Return one row per parameter and member, with share, low, high, chance and is_noise of each target."""
        import pandas as pd

        rows = []
        for row in (*self.parameters, *self.members):
            cells: dict[str, object] = {"parameter": row.name, "members": row.members}
            for target, found in row.targets.items():
                for part in ("share", "low", "high", "chance", "is_noise"):
                    cells[f"{target} {part}"] = getattr(found, part)
            rows.append(cells)
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, object]:
        """Return JSON-ready data."""
        parameters, members = (
            {
                row.name: {t: {**asdict(found), "is_noise": found.is_noise} for t, found in row.targets.items()}
                for row in rows
            }
            for rows in (self.parameters, self.members)
        )
        return {
            "trials": self.trials,
            "targets": list(self.targets),
            "parameters": parameters,
            "members": members,
            "left_out": dict(self.left_out),
            "notes": list(self.notes),
        }


@dataclass(frozen=True, slots=True, kw_only=True)
class _Draws:
    """Shares of the parameters for one target. own: [1, p]; halves, chance: [draws, p] of random halves and orders."""

    own: np.ndarray
    halves: np.ndarray
    chance: np.ndarray


def importances(front: Front, *, seed: int = 0) -> Importances:
    """Compute importances over the finished candidates that the sampler chose.

    Warm starts hold most parameters at their first choice, and polished candidates repeat the parameters of others, so
    they are left out. Early-stopped candidates are left out, because their quality belongs to another time of the
    fine-tune. The longer training of later candidates' ancestors is not separated from their choices. A parameter that
    only some candidates have has one more value for the others.

    Args:
        front: Front of a study.
        seed: Seed of the random halves and orders, >= 0.

    Returns:
        The importances; notes say why there are none.
    """
    sampled = [record for record in front.complete if record.origin == "sampled" and _is_finite(record, front)]
    trials = [record for record in sampled if record.parameters]
    notes = []
    if len(trials) < len(sampled):
        notes.append(
            f"{len(sampled) - len(trials)} of {len(sampled)} trials were stored without their parameters, by an "
            "earlier version."
        )
    if len(trials) < MIN_TRIALS_FOR_IMPORTANCE:
        notes.append(
            f"Importances need {MIN_TRIALS_FOR_IMPORTANCE} trials that the sampler chose and that were trained to the "
            f"end; there are {len(trials)}."
        )
        return Importances(trials=len(trials), notes=tuple(notes))
    groups, left_out = _groups(trials)
    targets = _targets(front, trials)
    same = [name for name, values in targets.items() if np.ptp(values) == 0]
    found = {name: values for name, values in targets.items() if name not in same}
    notes += [f"{name} is the same in every trial." for name in same]
    if not groups:
        notes.append("No parameter has two values.")
    draws = _draws(groups, found, seed) if groups and found else {}
    return Importances(
        trials=len(trials),
        targets=tuple(draws),
        parameters=_rows(_merge_kinds(groups), groups, draws),
        members=_rows({name: [name] for name in groups if "/" in name}, groups, draws),
        left_out=left_out,
        notes=tuple(notes),
    )


def at_equal_cost(quality: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """Return the quality minus its prediction from the trials nearest in cost, float [n].

    The prediction is a line through the neighbours, without the trial: local linear regression (Cleveland, Robust
    locally weighted regression, 1979), unweighted.

    Args:
        quality: Float [n].
        costs: Float [n].
    """
    near = max(_MIN_NEIGHBOURS, round(_NEIGHBOUR_SHARE * len(costs)))
    rest = np.empty(len(costs))
    for position, cost in enumerate(costs):
        far = np.abs(costs - cost)
        far[position] = np.inf
        within = np.flatnonzero(far <= np.partition(far, near - 1)[near - 1])
        chosen = within[np.argsort(far[within], kind="stable")[:near]]
        x, y = costs[chosen] - cost, quality[chosen]
        spread = x - x.mean()
        slope = spread @ y / (spread @ spread) if spread.any() else 0.0
        rest[position] = quality[position] - (y.mean() - slope * x.mean())
    return rest


def memberships(groups: np.ndarray) -> np.ndarray:
    """Return 1 where a trial is in a group of a parameter, and 0 elsewhere, float [n, parameters, groups].

    Args:
        groups: Group of each trial, integers >= 0, [n, parameters].
    """
    inside = np.zeros((*groups.shape, int(groups.max(initial=0)) + 1))
    np.put_along_axis(inside, groups[:, :, None], 1.0, axis=2)
    return inside


def explained_variance(inside: np.ndarray, values: np.ndarray) -> np.ndarray:
    """Return the share of variance that each parameter explains, less chance, float [rows, parameters].

    The share is 1 - (1 - between / total) (n - 1) / (n - groups): 1 if the groups explain everything, 0 on average if
    they explain nothing, and then often negative. It is 0 if the values are constant or each has a group for itself.

    Args:
        inside: Groups of the trials, see `memberships`.
        values: Values of the targets, float [rows, n].
    """
    samples, parameters, most = inside.shape
    counts = inside.sum(0)
    away = values - values.mean(1, keepdims=True)
    sums = (away @ inside.reshape(samples, -1)).reshape(len(values), parameters, most)
    total = (away**2).sum(1)[:, None]
    between = (sums**2 / np.maximum(counts, 1)).sum(2) / np.where(total > 0, total, 1.0)
    freedom = samples - (counts > 0).sum(1)
    found = 1.0 - (1.0 - between) * (samples - 1) / np.maximum(freedom, 1)
    return np.where((total > 0) & (freedom > 0), found, 0.0)


def _is_finite(record: CandidateRecord, front: Front) -> bool:
    return all(math.isfinite(row.told(record)) for row in front.problem.rows)


def _targets(front: Front, trials: Sequence[CandidateRecord]) -> dict[str, np.ndarray]:
    """Return name -> ranks [trials]; quality at equal cost only if the quality varies."""
    found = {row.name: np.array([row.told(record) for record in trials]) for row in front.problem.rows}
    ranks = {name: mean_ranks(values) for name, values in found.items()}
    cost = next(row.name for row in front.problem.rows if row.is_cost)
    if np.ptp(ranks[QUALITY]) == 0:
        return ranks
    return {**ranks, f"quality at equal {cost}": mean_ranks(at_equal_cost(ranks[QUALITY], ranks[cost]))}


def _groups(trials: Sequence[CandidateRecord]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Return parameter -> group of each trial, and parameter -> why it is left out."""
    groups: dict[str, np.ndarray] = {}
    left_out = {}
    for name in dict.fromkeys(name for trial in trials for name in trial.parameters):
        found = _pooled(_labels(name, trials))
        if len(np.unique(found)) > 1:
            groups[name] = found
        else:
            values = [trial.parameters[name] for trial in trials if name in trial.parameters]
            common = max(values, key=values.count)
            left_out[name] = (
                f"in {len(values)} of {len(trials)} trials only"
                if len(values) < _MIN_TRIALS_PER_VALUE
                else f"{common!r} in {values.count(common)} of {len(trials)} trials"
            )
    return groups, left_out


def _labels(name: str, trials: Sequence[CandidateRecord]) -> np.ndarray:
    """Return one number per value, or per part of a range; another for trials without the parameter."""
    there = np.array([name in trial.parameters for trial in trials])
    values = [trial.parameters[name] for trial in trials if name in trial.parameters]
    labels = np.zeros(len(trials), dtype=np.int64)
    known = list(dict.fromkeys(values))
    numbers = [value for value in values if isinstance(value, int | float) and not isinstance(value, bool)]
    few = max(_BINS, len(values) // _MIN_TRIALS_PER_VALUE)
    if len(numbers) < len(values) or len(known) <= few:
        labels[there] = [1 + known.index(value) for value in values]
    else:
        edges = np.quantile(numbers, np.arange(1, _BINS) / _BINS)
        labels[there] = 1 + np.searchsorted(edges, numbers)
    return labels


def _pooled(labels: np.ndarray) -> np.ndarray:
    """Return the labels with rare ones merged; merged into the most frequent one if they are too few."""
    counts = np.bincount(labels)
    rare = (counts > 0) & (counts < _MIN_TRIALS_PER_VALUE)
    few = counts[rare].sum() < _MIN_TRIALS_PER_VALUE
    return np.where(rare[labels], counts.argmax() if few else len(counts), labels)


def _merge_kinds(names: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Return kind -> its parameters: "criterion/a" and "criterion/b" become "criterion/*"."""
    kinds: dict[str, list[str]] = defaultdict(list)
    for name in names:
        kind, slash, _ = name.partition("/")
        kinds[f"{kind}/*" if slash else name].append(name)
    return kinds


def _draws(groups: Mapping[str, np.ndarray], targets: Mapping[str, np.ndarray], seed: int) -> dict[str, _Draws]:
    """Draw halves and orders of the trials, the same for each target."""
    random = np.random.default_rng(seed)
    inside, values = memberships(np.stack(list(groups.values()), axis=1)), np.stack(list(targets.values()))
    count = values.shape[1]
    halves = [random.permutation(count)[: count // 2] for _ in range(_HALVES)]
    of_halves = np.stack([explained_variance(inside[half], values[:, half]) for half in halves], axis=1)
    batches = []
    for _ in range(_ORDERS // _ORDERS_PER_BATCH):
        orders = random.permuted(np.tile(np.arange(count), (_ORDERS_PER_BATCH, 1)), axis=1)
        drawn = np.take(values, orders, axis=1).reshape(-1, count)
        batches.append(explained_variance(inside, drawn).reshape(len(values), len(orders), -1))
    chance, own = np.concatenate(batches, axis=1), explained_variance(inside, values)
    return {
        target: _Draws(own=own[[place]], halves=of_halves[place], chance=chance[place])
        for place, target in enumerate(targets)
    }


def _rows(
    kinds: Mapping[str, Sequence[str]], names: Iterable[str], draws: Mapping[str, _Draws]
) -> tuple[ImportanceRow, ...]:
    """Return a row for each kind, the sum over its parameters, in the order of the last target."""
    if not kinds or not draws:
        return ()
    members = np.array([[name in inside for inside in kinds.values()] for name in names], dtype=float)
    found = {target: _importances(drawn, members) for target, drawn in draws.items()}
    rows = [
        ImportanceRow(name=name, members=len(inside), targets={target: found[target][place] for target in found})
        for place, (name, inside) in enumerate(kinds.items())
    ]
    last = tuple(found)[-1]
    return tuple(sorted(rows, key=lambda row: -row.targets[last].share))


def _importances(drawn: _Draws, members: np.ndarray) -> list[Importance]:
    """Return an importance for each column of members [parameters, kinds], 1 where a parameter is of the kind."""
    low, high = np.quantile(drawn.halves @ members, (0.16, 0.84), axis=0)
    # Each row gets its part of the error, so that the whole table has all of it (Bonferroni).
    chance = np.quantile(drawn.chance @ members, 1 - _FALSE_POSITIVE_RATE / members.shape[1], axis=0)
    rows = np.clip(np.array([(drawn.own @ members)[0], low, high, chance]), 0.0, 1.0).T.tolist()
    return [Importance(share=share, low=down, high=up, chance=passed) for share, down, up, passed in rows]
