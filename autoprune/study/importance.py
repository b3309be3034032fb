"""Which parameters of the space mattered: for each objective, and for the quality at equal cost.

The budget decides nearly all of the quality, and so hides what is asked: which choice is better at the same cost. The
last target is therefore the quality less what trials of about the same cost have.

An importance is the share of a target's variance that one parameter explains alone: the correlation ratio, less what
as many groups explain by chance (Kelley, An unbiased correlation ratio measure, 1935). It is taken over ranks (Conover
and Iman, Rank transformations as a bridge between parametric and nonparametric statistics, 1981), since a few
candidates that failed would otherwise be all of the variance. With the tens of trials that a study has, it tells what
mattered from what did not better than Optuna's PED-ANOVA does, which asks only who is in the better half
(`pytest tests/unit/study/test_importance.py -k optuna`). What two parameters do together is in neither.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import asdict, dataclass, field

import numpy as np
import optuna
import pandas as pd
from optuna.distributions import CategoricalDistribution
from optuna.storages import JournalStorage
from optuna.storages.journal import JournalFileBackend
from optuna.trial import FrozenTrial, TrialState

from autoprune.errors import StorageError, error_message
from autoprune.study.folder import RunFolder
from autoprune.study.ledger import origin_of
from autoprune.study.storage import JOURNAL

#: Fewer trials than this say nothing.
MIN_TRIALS_FOR_IMPORTANCE = 20
#: Attributes of trials that say nothing of their own: answered from another, stopped early.
_UNINFORMATIVE = {"duplicate_of", "fidelity"}
#: Values that fewer trials have are looked at as one.
_MIN_TRIALS_PER_VALUE = 3
#: A range is divided into so many parts with equally many trials.
_BINS = 3
#: Trials of about the same cost: this share of all, and no fewer than so many.
_NEIGHBOUR_SHARE, _MIN_NEIGHBOURS = 0.2, 6
#: Random halves of the trials, and random orders of them.
_HALVES, _ORDERS = 100, 2000
#: Orders that are looked at in one go.
_ORDERS_PER_BATCH = 100
#: How likely it is that chance alone makes one or more knobs of a target pass for important.
_FALSE_POSITIVE_RATE = 0.05


@dataclass(frozen=True, slots=True, kw_only=True)
class Importance:
    """One parameter, or one kind, and one target.

    share: of the variance of the target's ranks that it explains, in [0, 1]. low, high: 68 % interval, over random
    halves of the trials (Shao and Wu, A general theory for jackknife variance estimation, 1989). chance: what is
    reached when trials and values are paired at random: all rows of one target stay below it in 95 of 100 studies.
    """

    share: float
    low: float
    high: float
    chance: float

    @property
    def is_noise(self) -> bool:
        """Whether chance gives as much."""
        return self.share <= self.chance

    def __str__(self) -> str:
        """For people: the share and its interval, in brackets where it is noise."""
        text = f"{self.share:.0%}, {self.low:.0%} to {self.high:.0%}"
        return f"({text})" if self.is_noise else text


@dataclass(frozen=True, slots=True, kw_only=True)
class ImportanceRow:
    """A parameter, or the sum over all of one kind.

    name: of the parameter, or of the kind, such as "criterion/*". members: parameters in it, 1 for a single one.
    targets: target -> Importance.
    """

    name: str
    members: int
    targets: Mapping[str, Importance]


@dataclass(frozen=True, slots=True, kw_only=True)
class Importances:
    """What mattered, as far as the trials tell.

    trials: how many were looked at. targets: the objectives, and "quality at equal" the first cost among them.
    knobs: the parameters, those that share what stands before "/" as one; what matters most for the last target first.
    members: those parameters one by one. left_out: parameter -> why it has no number.
    notes: what could not be assessed, and why.
    """

    trials: int
    targets: tuple[str, ...] = ()
    parameters: tuple[ImportanceRow, ...] = ()
    members: tuple[ImportanceRow, ...] = ()
    left_out: Mapping[str, str] = field(default_factory=dict)
    notes: tuple[str, ...] = ()

    def table(self) -> pd.DataFrame:
        """A row for each knob and member, with share, low, high, chance and is_noise of each target."""
        rows = []
        for row in (*self.parameters, *self.members):
            cells: dict[str, object] = {"parameter": row.name, "members": row.members}
            for target, found in row.targets.items():
                for part in ("share", "low", "high", "chance", "is_noise"):
                    cells[f"{target} {part}"] = getattr(found, part)
            rows.append(cells)
        return pd.DataFrame(rows)

    def to_dict(self) -> dict[str, object]:
        """JSON-ready data: the numbers for each knob and member by target, and what there is to say."""
        knobs, members = (
            {
                row.name: {t: {**asdict(found), "is_noise": found.is_noise} for t, found in row.targets.items()}
                for row in rows
            }
            for rows in (self.parameters, self.members)
        )
        return {
            "trials": self.trials,
            "targets": list(self.targets),
            "knobs": knobs,
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


def importances(study: optuna.Study, *, seed: int = 0) -> Importances:
    """Importances over the finished trials that the sampler chose.

    Warm starts hold nearly every parameter at its first choice, polished trials and duplicates repeat what was
    measured: none tells a choice from what came with it. Trials that were stopped early have the quality of another
    time of the fine-tune, and are left out with them. That later trials start from longer trained ancestors is not told
    apart from their choices. A parameter that only some trials have counts as one value more for the others.

    study: its "objectives" attribute names its values, "quality" among them. seed: >= 0.
    """
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    trials = [
        trial for trial in finished if origin_of(trial) == "sampled" and not _UNINFORMATIVE & trial.user_attrs.keys()
    ]
    if len(trials) < MIN_TRIALS_FOR_IMPORTANCE:
        note = (
            f"Importances need {MIN_TRIALS_FOR_IMPORTANCE} trials that the sampler chose and that were trained to the "
            f"end; there are {len(trials)}."
        )
        return Importances(trials=len(trials), notes=(note,))
    groups, left_out = _groups(trials)
    targets = _targets(study, trials)
    same = [name for name, values in targets.items() if np.ptp(values) == 0]
    found = {name: values for name, values in targets.items() if name not in same}
    notes = [f"{name} is the same in every trial." for name in same]
    if not groups:
        notes.append("No parameter has two values.")
    draws = {target: _draws(groups, values, seed) for target, values in found.items()} if groups else {}
    return Importances(
        trials=len(trials),
        targets=tuple(draws),
        parameters=_rows(_merge_kinds(groups), groups, draws),
        members=_rows({name: [name] for name in groups if "/" in name}, groups, draws),
        left_out=left_out,
        notes=tuple(notes),
    )


def read_importances(folder: RunFolder) -> Importances | None:
    """Importances of a run folder, whose journal is only read; None while there is no journal of trials.

    Raises StorageError for a journal that cannot be read.
    """
    path = folder.path / JOURNAL
    if not path.is_file():
        return None
    try:
        storage = JournalStorage(JournalFileBackend(str(path)))
        names = optuna.get_all_study_names(storage)
        return importances(optuna.load_study(study_name=names[0], storage=storage)) if names else None
    except Exception as error:  # Optuna replays whatever a journal holds, and fails in as many ways
        remedy = "The candidates need no journal; the next run repairs it."
        got = f"{type(error).__name__}: {error}"[:200]
        raise StorageError(error_message(str(path), "be a journal of trials", got, remedy)) from error


def at_equal_cost(quality: np.ndarray, costs: np.ndarray) -> np.ndarray:
    """The quality [n] less what the trials nearest in cost [n] lead to expect: a line through them, without the trial.

    Local linear regression (Cleveland, Robust locally weighted regression, 1979), unweighted.
    """
    near = max(_MIN_NEIGHBOURS, round(_NEIGHBOUR_SHARE * len(costs)))
    rest = np.empty(len(costs))
    for position, cost in enumerate(costs):
        far = np.abs(costs - cost)
        far[position] = np.inf
        chosen = np.argsort(far, kind="stable")[:near]
        x, y = costs[chosen] - cost, quality[chosen]
        spread = x - x.mean()
        slope = spread @ y / (spread @ spread) if spread.any() else 0.0
        rest[position] = quality[position] - (y.mean() - slope * x.mean())
    return rest


def explained_variance(groups: np.ndarray, values: np.ndarray) -> np.ndarray:
    """[rows, parameters]: share of the variance of the values [rows, n] between the groups of each parameter.

    groups: integers >= 0 [n, parameters]. Less what is expected by chance, 1 - (1 - between / total) (n - 1) /
    (n - groups): 1 where they explain all, 0 on average where they explain nothing, and then often below it. 0 where
    there is nothing to explain, or a group for each value.
    """
    samples, parameters = groups.shape
    most = int(groups.max(initial=0)) + 1
    inside = np.zeros((samples, parameters, most))
    np.put_along_axis(inside, groups[:, :, None], 1.0, axis=2)
    counts = inside.sum(0)
    away = values - values.mean(1, keepdims=True)
    sums = (away @ inside.reshape(samples, -1)).reshape(len(values), parameters, most)
    total = (away**2).sum(1)[:, None]
    between = (sums**2 / np.maximum(counts, 1)).sum(2) / np.where(total > 0, total, 1.0)
    freedom = samples - (counts > 0).sum(1)
    found = 1.0 - (1.0 - between) * (samples - 1) / np.maximum(freedom, 1)
    return np.where((total > 0) & (freedom > 0), found, 0.0)


def _targets(study: optuna.Study, trials: Sequence[FrozenTrial]) -> dict[str, np.ndarray]:
    """Name -> ranks [trials]; at equal cost only where the quality changes at all."""
    columns = np.array([trial.values for trial in trials]).T
    found = {name: _ranks(v) for name, v in zip(study.user_attrs["objectives"], columns, strict=True)}
    cost = next(name for name in found if name != "quality")
    if np.ptp(found["quality"]) == 0:
        return found
    return {**found, f"quality at equal {cost}": _ranks(at_equal_cost(found["quality"], found[cost]))}


def _ranks(values: np.ndarray) -> np.ndarray:
    """From 1, the mean of their ranks where values are equal."""
    return pd.Series(values).rank().to_numpy()


def _groups(trials: Sequence[FrozenTrial]) -> tuple[dict[str, np.ndarray], dict[str, str]]:
    """Parameter -> the number of the group that each trial is in; parameter -> why it is left out."""
    groups: dict[str, np.ndarray] = {}
    left_out = {}
    for name in dict.fromkeys(name for trial in trials for name in trial.params):
        found = _pooled(_labels(name, trials))
        if len(np.unique(found)) > 1:
            groups[name] = found
        else:
            values = [trial.params[name] for trial in trials if name in trial.params]
            common = max(values, key=values.count)
            left_out[name] = (
                f"in {len(values)} of {len(trials)} trials only"
                if len(values) < _MIN_TRIALS_PER_VALUE
                else f"{common!r} in {values.count(common)} of {len(trials)} trials"
            )
    return groups, left_out


def _labels(name: str, trials: Sequence[FrozenTrial]) -> np.ndarray:
    """One number for each choice, or for each part of a range; another for trials without the parameter."""
    there = np.array([name in trial.params for trial in trials])
    values = [trial.params[name] for trial in trials if name in trial.params]
    drawn = next(trial.distributions[name] for trial in trials if name in trial.params)
    labels = np.zeros(len(trials), dtype=np.int64)
    if isinstance(drawn, CategoricalDistribution) or len(set(values)) <= _BINS:
        known = list(dict.fromkeys(values))
        labels[there] = [1 + known.index(value) for value in values]
    else:
        edges = np.quantile(values, np.arange(1, _BINS) / _BINS)
        labels[there] = 1 + np.searchsorted(edges, values)
    return labels


def _pooled(labels: np.ndarray) -> np.ndarray:
    """The labels with rare ones as one; with the most frequent one where there are too few of them for that."""
    counts = np.bincount(labels)
    rare = (counts > 0) & (counts < _MIN_TRIALS_PER_VALUE)
    few = counts[rare].sum() < _MIN_TRIALS_PER_VALUE
    return np.where(rare[labels], counts.argmax() if few else len(counts), labels)


def _merge_kinds(names: Mapping[str, np.ndarray]) -> dict[str, list[str]]:
    """Knob -> its parameters; parameters such as "criterion/a" and "criterion/b" are one, "criterion/*"."""
    knobs: dict[str, list[str]] = defaultdict(list)
    for name in names:
        kind, slash, _ = name.partition("/")
        knobs[f"{kind}/*" if slash else name].append(name)
    return knobs


def _draws(groups: Mapping[str, np.ndarray], values: np.ndarray, seed: int) -> _Draws:
    random = np.random.default_rng(seed)
    matrix = np.stack(list(groups.values()), axis=1)
    chosen = [random.permutation(len(values))[: len(values) // 2] for _ in range(_HALVES)]
    orders = (
        random.permuted(np.tile(values, (_ORDERS_PER_BATCH, 1)), axis=1) for _ in range(_ORDERS // _ORDERS_PER_BATCH)
    )
    return _Draws(
        own=explained_variance(matrix, values[None]),
        halves=np.concatenate([explained_variance(matrix[half], values[None, half]) for half in chosen]),
        chance=np.concatenate([explained_variance(matrix, order) for order in orders]),
    )


def _rows(
    knobs: Mapping[str, Sequence[str]], names: Iterable[str], draws: Mapping[str, _Draws]
) -> tuple[ImportanceRow, ...]:
    """A row for each knob, the sum over its parameters, in the order of the last target."""
    if not knobs or not draws:
        return ()
    members = np.array([[name in inside for inside in knobs.values()] for name in names], dtype=float)
    found = {target: _importances(drawn, members) for target, drawn in draws.items()}
    rows = [
        ImportanceRow(name=name, members=len(inside), targets={target: found[target][place] for target in found})
        for place, (name, inside) in enumerate(knobs.items())
    ]
    last = tuple(found)[-1]
    return tuple(sorted(rows, key=lambda row: -row.targets[last].share))


def _importances(drawn: _Draws, members: np.ndarray) -> list[Importance]:
    """One for each column of members [parameters, knobs], 1 where a parameter is of the knob."""
    low, high = np.quantile(drawn.halves @ members, (0.16, 0.84), axis=0)
    # Each row may pass with its part of the error, so that the whole table has all of it (Bonferroni).
    chance = np.quantile(drawn.chance @ members, 1 - _FALSE_POSITIVE_RATE / members.shape[1], axis=0)
    rows = np.clip(np.array([(drawn.own @ members)[0], low, high, chance]), 0.0, 1.0).T.tolist()
    return [Importance(share=share, low=down, high=up, chance=passed) for share, down, up, passed in rows]
