"""TPE for studies of thousands of trials: it sees the best trials and the latest ones.

The time of Optuna's TPE grows with the trials: it divides them by their hypervolume, and weighs every candidate by the
distance to every trial. Old trials that are dominated tell it little beside the latest, which lie where it samples.
"""

from __future__ import annotations

from collections.abc import Container, Sequence

import moocore
import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import TPESampler
from optuna.trial import FrozenTrial, TrialState

from autoprune.search.samplers.losses import finite, losses_of, violations_of
from autoprune.search.samplers.vectors import OptunaValue

#: Finished trials that are seen, and the best among them.
SEEN, BEST = 250, 75


class BoundedTPESampler(TPESampler):
    """Optuna's TPE that sees all running trials and at most SEEN finished ones. Fewer trials change nothing.

    The BEST of them are the feasible ones of the first non-dominated layers, the later ones of equal layers first.
    """

    _excerpt: tuple[int, Study] | None = None
    _read: FinishedLosses | None = None

    def go_on(self, before: BoundedTPESampler) -> None:
        """Take over what an earlier sampler of the same study read of its trials.

        Args:
            before: Sampler of the last ask.
        """
        self._read = before._read

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters of the trials that are seen.

        Args:
            study: Optuna study.
            trial: Trial to sample for.
        """
        return super().infer_relative_search_space(self._seen(study, trial), trial)

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, OptunaValue]:
        """Sample all parameters together.

        Optuna's sampler also stores them a second time, for other processes that sample before the trial has them all.

        Args:
            study: Optuna study.
            trial: Trial to sample for.
            search_space: Parameters to sample.
        """
        seen, found = self._seen(study, trial), {}
        group = self._search_space_group
        for part in [search_space] if group is None else group.search_spaces:
            names = [name for name in sorted(part) if name in search_space]
            found.update(self._sample_relative(seen, trial, {name: search_space[name] for name in names}))
        return found

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> OptunaValue:
        """Sample a parameter alone.

        Args:
            study: Optuna study.
            trial: Trial to sample for.
            param_name: Name of the parameter.
            param_distribution: Its distribution.
        """
        value: OptunaValue = super().sample_independent(self._seen(study, trial), trial, param_name, param_distribution)
        return value

    def _seen(self, study: Study, trial: FrozenTrial) -> Study:
        """Return the study with the trials that are seen, the same one for all parameters of a trial."""
        if self._excerpt is None or self._excerpt[0] != trial.number:
            finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
            self._read = self._read or FinishedLosses(len(study.directions))
            seen = study if len(finished) <= SEEN else _Excerpt(study, _choose(study, finished, self._read))
            self._excerpt = trial.number, seen
        return self._excerpt[1]


class _Excerpt(Study):
    """A study that shows some of its finished trials, and all of the others."""

    def __init__(self, study: Study, finished: Sequence[FrozenTrial]) -> None:
        super().__init__(study.study_name, study._storage, study.sampler, study.pruner)
        others = study.get_trials(deepcopy=False, states=(TrialState.RUNNING, TrialState.WAITING, TrialState.PRUNED))
        self._shown = sorted([*finished, *others], key=lambda trial: trial.number)

    def _get_trials(
        self, deepcopy: bool = True, states: Container[TrialState] | None = None, use_cache: bool = False
    ) -> list[FrozenTrial]:
        del deepcopy, use_cache  # samplers change none
        return [trial for trial in self._shown if states is None or trial.state in states]


class FinishedLosses:
    """Losses and violated constraints of finished trials, each read once.

    Args:
        objectives: Number of objectives.
    """

    def __init__(self, objectives: int) -> None:
        self._trials: list[FrozenTrial | None] = []  # by number, as they were read
        self._rows = np.zeros((0, objectives + 1))

    def read(self, study: Study, trials: Sequence[FrozenTrial]) -> np.ndarray:
        """Return numbers of trials.

        Args:
            study: Their study.
            trials: Finished trials in the order of their numbers.

        Returns:
            The losses of each objective, minimised, and the violation, float [trials, objectives + 1].
        """
        more = trials[-1].number + 1 - len(self._trials) if trials else 0
        if more > 0:
            self._trials += [None] * more
            self._rows = np.concatenate([self._rows, np.zeros((more, self._rows.shape[1]))])
        new = [trial for trial in trials if self._trials[trial.number] is not trial]
        if new:
            numbers = [trial.number for trial in new]
            self._rows[numbers] = np.column_stack([losses_of(study, new), violations_of(new)])
            for trial in new:
                self._trials[trial.number] = trial
        return np.asarray(self._rows[[trial.number for trial in trials]])


def _choose(study: Study, finished: Sequence[FrozenTrial], known: FinishedLosses) -> list[FrozenTrial]:
    """Return the trials that are seen."""
    rows = known.read(study, finished)
    left, best = np.flatnonzero(rows[:, -1] <= 0), np.zeros(0, dtype=np.int64)
    losses = finite(rows[left, :-1])
    while len(left) and len(best) < BEST:
        layer = moocore.is_nondominated(losses, keep_weakly=True)
        best = np.append(best, left[layer][::-1][: BEST - len(best)])
        left, losses = left[~layer], losses[~layer]
    others = np.setdiff1d(np.arange(len(finished)), best, assume_unique=True)
    more = BEST - len(best)  # of the infeasible ones where too few are feasible
    best, others = np.append(best, others[len(others) - more :]), others[: len(others) - more]
    rest = others[-(SEEN - len(best)) :]
    return [finished[place] for place in np.sort(np.concatenate([best, rest])).tolist()]
