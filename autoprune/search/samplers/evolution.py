"""A steady-state evolutionary sampler: each trial is a variation of a current member of the front.

Populations and generations suit thousands of cheap trials. With forty to two hundred expensive ones every finished
trial has to count at once, so there are none. Parents are the members of the front, those beside gaps first (crowding:
Deb et al., "A fast and elitist multiobjective genetic algorithm: NSGA-II", 2002). Of many children, the one with the
largest predicted hypervolume gain is proposed (surrogate-assisted selection: Jin, "Surrogate-assisted evolutionary
computation", 2011). The step size follows the share of recent trials that reached the front (the 1/5 rule: Rechenberg,
"Evolutionsstrategie", 1973).
"""

from __future__ import annotations

import zlib
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import moocore
import numpy as np
from optuna import Study
from optuna.distributions import BaseDistribution
from optuna.samplers import BaseSampler
from optuna.search_space import IntersectionSearchSpace
from optuna.trial import FrozenTrial, TrialState

from autoprune.errors import ConfigurationError, error_message
from autoprune.search.samplers.losses import finite, losses_of, violations_of
from autoprune.search.samplers.surrogate import Surrogate, fit
from autoprune.search.samplers.variation import REDRAW_PROBABILITY, VARIATIONS, ParentPool
from autoprune.search.samplers.vectors import Coordinates, OptunaValue

#: Prefixes of the parameters that share one budget among groups.
ALLOCATION_PREFIXES = ("ratio/", "residual/", "multiplier/")
#: Children that are screened for each trial, and random ones beside them without an allocation block; share of trials
#: that are random; share of trials that are not screened.
_CHILD_COUNT, _RANDOM_CHILD_COUNT, _RANDOM_TRIAL_SHARE, _UNSCREENED_SHARE = 128, 32, 0.03, 0.05
#: Noise on the proposed allocation block, as a share of the distance to the nearer bound.
_JITTER = 0.04
#: Step size at the target success rate, in units of a parameter's range; the target; latest trials that count.
_STEP, _TARGET_SUCCESS_RATE, _SUCCESS_WINDOW = 0.1, 0.2, 20
#: Step size before the first feasible trial, and for a parameter that only some trials have.
_INITIAL_STEP = 0.15
#: Most points that the surrogate is fitted on, most members of the front in the hypervolume, fewest parents.
_MAX_FITTED, _MAX_FRONT, _MIN_PARENTS = 200, 60, 5
#: Reference point of the hypervolume; the worst known loss is 1.
_REFERENCE = 1.1


@dataclass(frozen=True, slots=True, kw_only=True, eq=False)
class _Archive:
    """Finished trials as arrays, in the order of their numbers.

    Attributes:
        key: Identity of the Optuna study.
        coordinates: Map between parameters and vectors.
        numbers: Numbers of the trials, int [n].
        vectors: Float [n, entries].
        losses: Float [n, objectives], all minimised.
        violations: Sums of the violated constraints, float [n]; 0 is feasible.
        whole: Whether the trial has no other parameters, so that its vector describes it fully, bool [n].
    """

    key: object
    coordinates: Coordinates
    numbers: np.ndarray
    vectors: np.ndarray
    losses: np.ndarray
    violations: np.ndarray
    whole: np.ndarray

    @classmethod
    def empty(cls, key: object, coordinates: Coordinates, objectives: int) -> _Archive:
        """Return an archive without trials."""
        return cls(
            key=key,
            coordinates=coordinates,
            numbers=np.empty(0, dtype=np.int64),
            vectors=np.empty((0, len(coordinates.space))),
            losses=np.empty((0, objectives)),
            violations=np.empty(0),
            whole=np.empty(0, dtype=bool),
        )

    def extended(self, trials: Sequence[FrozenTrial], losses: np.ndarray) -> _Archive:
        """Return the archive with more trials [n] and their losses [n, objectives]."""
        space = self.coordinates.space
        numbers = np.concatenate([self.numbers, [trial.number for trial in trials]])
        # Workers finish out of order; proposals must not depend on the time of reading.
        order = np.argsort(numbers)
        return replace(
            self,
            numbers=numbers[order],
            vectors=np.concatenate([self.vectors, self.coordinates.encode(trials)])[order],
            losses=np.concatenate([self.losses, losses])[order],
            violations=np.concatenate([self.violations, violations_of(trials)])[order],
            whole=np.concatenate([self.whole, [_is_whole(trial, space) for trial in trials]])[order],
        )


class EvolutionSampler(BaseSampler):
    """Steady-state multi-objective evolution over any Optuna search space, for tens to hundreds of trials.

    It learns from COMPLETE trials alone. Constraints are those of `Trial.set_constraint`: parents are feasible if any
    trial is, else the trials with the smallest violation.

    Args:
        seed: Proposals are a function of the seed, the trial's number and the finished trials; None draws a seed.
        allocation_prefixes: Prefixes of the parameters that share one budget among groups, in the order of the layers.
        n_startup: Random trials at the start, >= 1; none after an enqueued trial.

    Raises:
        ConfigurationError: n_startup < 1.
    """

    def __init__(
        self, *, seed: int | None = None, allocation_prefixes: Sequence[str] = ALLOCATION_PREFIXES, n_startup: int = 8
    ) -> None:
        if n_startup < 1:
            raise ConfigurationError(error_message("n_startup", "be an integer >= 1", n_startup))
        self._seed = _entropy() if seed is None else seed
        self._allocation_prefixes = tuple(allocation_prefixes)
        self._n_startup = n_startup
        self._key: object = None
        self._space = IntersectionSearchSpace()
        self._archive: _Archive | None = None

    def reseed_rng(self) -> None:
        """Draw a new seed."""
        self._seed = _entropy()

    def infer_relative_search_space(self, study: Study, trial: FrozenTrial) -> dict[str, BaseDistribution]:
        """Return the parameters that every finished trial has, in the order of the first trial.

        Args:
            study: Optuna study.
            trial: Trial to sample for.
        """
        del trial
        finished = _finished(study)
        if not finished:
            return {}
        key = _key(study, finished)
        if key != self._key:
            self._key, self._space = key, IntersectionSearchSpace()
        shared = self._space.calculate(study)
        order = {name: position for position, name in enumerate(finished[0].params)}
        names = sorted(shared, key=lambda name: order.get(name, len(order)))
        return {name: shared[name] for name in names if not shared[name].single()}

    def sample_relative(
        self, study: Study, trial: FrozenTrial, search_space: dict[str, BaseDistribution]
    ) -> dict[str, OptunaValue]:
        """Return a child of the front; random parameters at the start.

        Args:
            study: Optuna study.
            trial: Trial to sample for.
            search_space: Parameters that every finished trial has.
        """
        finished = _finished(study)
        if not search_space or not finished:
            return {}
        archive = self._read_new_trials(study, finished, search_space)
        rng = np.random.default_rng([self._seed, trial.number])
        started = 1 if any("fixed_params" in t.system_attrs for t in finished[: self._n_startup]) else self._n_startup
        if len(archive.numbers) < started or rng.random() < _RANDOM_TRIAL_SHARE:
            return archive.coordinates.decode(archive.coordinates.random(rng))
        return archive.coordinates.decode(_propose(archive, rng))

    def sample_independent(
        self, study: Study, trial: FrozenTrial, param_name: str, param_distribution: BaseDistribution
    ) -> OptunaValue:
        """Sample a parameter that not every trial has: mostly a small change of a good trial's value.

        Args:
            study: Optuna study.
            trial: Trial to sample for.
            param_name: Name of the parameter.
            param_distribution: Its distribution.
        """
        rng = np.random.default_rng([self._seed, trial.number, zlib.crc32(param_name.encode())])
        having = [t for t in _finished(study) if t.distributions.get(param_name) == param_distribution]
        alone = Coordinates(space={param_name: param_distribution}, allocation_prefixes=("\0",))
        if len(having) < self._n_startup or rng.random() < 2 * REDRAW_PROBABILITY:
            return alone.decode(alone.random(rng))[param_name]
        losses, violations = losses_of(study, having), violations_of(having)
        best = having[int(rng.choice(_best_trials(losses, violations, 1)))]
        vector = alone.encode([best])[0]
        if not alone.choices:
            vector = alone.reflected(vector + _INITIAL_STEP * rng.random() * rng.normal())
        return alone.decode(vector)[param_name]

    def _read_new_trials(
        self, study: Study, finished: Sequence[FrozenTrial], space: Mapping[str, BaseDistribution]
    ) -> _Archive:
        """Return the archive of all finished trials; only new ones are read."""
        key, archive = _key(study, finished), self._archive
        if archive is None or archive.key != key or archive.coordinates.space != space:
            coordinates = Coordinates(space=dict(space), allocation_prefixes=self._allocation_prefixes)
            archive = _Archive.empty(key, coordinates, len(study.directions))
        seen = set(archive.numbers.tolist())
        fresh = [t for t in finished if t.number not in seen and _fits(t, space)]
        self._archive = archive.extended(fresh, losses_of(study, fresh)) if fresh else archive
        return self._archive


def _propose(archive: _Archive, rng: np.random.Generator) -> np.ndarray:
    """Generate children and return the one with the largest predicted hypervolume gain (sometimes the first,
    unscreened).
    """
    coordinates = archive.coordinates
    losses, violations = finite(archive.losses), archive.violations
    leading = _best_trials(losses, violations, _MIN_PARENTS)
    fitted = _fitted_trials(len(losses), leading)
    columns = losses[fitted]
    if violations.any():
        columns = np.concatenate([columns, violations[fitted, None]], axis=1)
    vectors = archive.vectors[fitted]
    model = fit(coordinates.context_features(vectors), coordinates.allocation_features(vectors), columns)
    parents = leading[np.argsort(losses[leading, -1], kind="stable")]
    pool = ParentPool(
        coordinates=coordinates,
        vectors=archive.vectors[parents],
        losses=losses[parents],
        gaps=_crowding_distances(losses[parents]),
        model=model,
        step=_step_size(losses, violations),
        rng=rng,
    )
    children = _make_children(pool)
    taken = set(_fingerprints(archive.vectors[archive.whole]))
    unknown = [number for number, name in enumerate(_fingerprints(children)) if name not in taken]
    if not unknown:
        return coordinates.random(rng)
    children = children[unknown]
    if rng.random() < _UNSCREENED_SHARE:
        return np.asarray(children[0])
    expected = model.predict(coordinates.context_features(children), coordinates.allocation_features(children))
    chosen = children[_best_child(expected, model, losses[parents], violations)].copy()
    # The surrogate knows only tried directions, so each child also tries a little of every other one.
    allocation_block = coordinates.allocation_block
    room = 2.0 * np.minimum(chosen[allocation_block], 1.0 - chosen[allocation_block])
    chosen[allocation_block] += _JITTER * room * rng.normal(size=len(allocation_block))
    return np.asarray(chosen)


def _make_children(pool: ParentPool) -> np.ndarray:
    """Return children of the variation operators, float [children, entries], and random ones without an allocation
    block.

    Sometimes all children get the same redrawn choice: the worth of a choice shows only in trials, and the surrogate
    expects little of choices it has not seen.
    """
    coordinates, rng = pool.coordinates, pool.rng
    shares = np.array([share for _, share in VARIATIONS.values()])
    moves = [move for move, _ in VARIATIONS.values()]
    drawn = rng.choice(len(moves), size=_CHILD_COUNT, p=shares / shares.sum())
    children = coordinates.reflected(np.stack([moves[move](pool) for move in drawn]))
    if coordinates.choices and rng.random() < REDRAW_PROBABILITY:
        position = int(rng.choice(list(coordinates.choices)))
        children[:, position] = rng.integers(coordinates.choices[position])
    if len(coordinates.allocation_block):
        return children
    others = np.stack([coordinates.random(rng) for _ in range(_RANDOM_CHILD_COUNT)])
    return np.concatenate([children, coordinates.reflected(others)])


def _fingerprints(vectors: np.ndarray) -> list[bytes]:
    """Return equal bytes for vectors that agree to nine digits."""
    return [row.tobytes() for row in np.round(vectors, 9) + 0.0]  # -0 becomes 0


def _best_child(expected: np.ndarray, model: Surrogate, front: np.ndarray, violations: np.ndarray) -> int:
    """Return the number of the child with the largest hypervolume gain; the one nearest to the front if none gains.

    expected: scaled losses [children, objectives], followed by the violation if there are constraints.
    """
    objectives = front.shape[1]
    low, span = model.low[:objectives], model.span[:objectives]
    front, losses = (front - low) / span, expected[:, :objectives]
    excess = np.zeros(len(losses))
    if violations.any():
        violated = expected[:, objectives] * model.span[objectives] + model.low[objectives]
        feasible = violated <= 0.05 * violations.max()
        if not feasible.any() or not (violations == 0).any():
            return int(np.argmin(violated))
        excess = np.where(feasible, 0.0, np.inf)
    front = front[np.argsort(-_crowding_distances(front), kind="stable")[:_MAX_FRONT]]
    reference = [_REFERENCE] * objectives
    held = moocore.hypervolume(front, ref=reference)
    gains = np.where(excess > 0, -1.0, 0.0)
    behind = np.any(np.all(front[None] <= losses[:, None], axis=2), axis=1)
    for number in np.flatnonzero((excess == 0) & ~behind):
        gains[number] = moocore.hypervolume(np.vstack([front, losses[number]]), ref=reference) - held
    if gains.max() > 1e-12:
        return int(np.argmax(gains))
    apart = np.maximum(losses[:, None] - front[None], 0.0).sum(axis=2).min(axis=1)
    return int(np.argmin(apart + excess))


def _best_trials(losses: np.ndarray, violations: np.ndarray, least: int) -> np.ndarray:
    """Return the positions of the feasible front, at least `least` trials; later fronts fill up.

    Without a feasible trial, return the trials with the smallest violation.
    """
    losses = finite(losses)
    feasible = np.flatnonzero(violations <= 0)
    if not len(feasible):
        return np.argsort(violations, kind="stable")[: max(least, 1)]
    front = feasible[moocore.is_nondominated(losses[feasible], keep_weakly=False)]
    if len(front) >= least or len(front) == len(feasible):
        return np.asarray(front)
    ranks = moocore.pareto_rank(losses[feasible])
    return np.asarray(feasible[np.argsort(ranks, kind="stable")[:least]])


def _crowding_distances(losses: np.ndarray) -> np.ndarray:
    """Return the distances to both neighbours, summed over scaled objectives; ends count their neighbour twice."""
    found = np.zeros(len(losses))
    if len(losses) < 2:
        return found
    for column in losses.T:
        order = np.argsort(column, kind="stable")
        steps = np.diff(column[order]) / max(float(np.ptp(column)), 1e-12)
        found[order] += np.concatenate([steps[:1], steps]) + np.concatenate([steps, steps[-1:]])
    return found


def _step_size(losses: np.ndarray, violations: np.ndarray) -> float:
    """Return the step size: it grows while more than one in five recent trials reach the front."""
    if (violations > 0).all():
        return _INITIAL_STEP  # far from the feasible region
    recent = np.arange(len(losses)) >= len(losses) - _SUCCESS_WINDOW
    reached = np.isin(np.flatnonzero(recent), _best_trials(losses, violations, 1)).mean()
    return float(_STEP * np.exp(np.clip(2.0 * (reached - _TARGET_SUCCESS_RATE), -0.5, 0.5)))


def _fitted_trials(count: int, leading: np.ndarray) -> np.ndarray:
    """Return the positions of the trials to fit on: the front and the latest."""
    if count <= _MAX_FITTED:
        return np.arange(count)
    front = leading[-_MAX_FITTED // 2 :]
    rest = np.setdiff1d(np.arange(count), front)
    return np.sort(np.concatenate([front, rest[len(front) - _MAX_FITTED :]]))


def _finished(study: Study) -> list[FrozenTrial]:
    return study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))


def _key(study: Study, finished: Sequence[FrozenTrial]) -> object:
    """Return a key that tells studies apart, also two of one name in two storages."""
    return study.study_name, finished[0].number, finished[0].datetime_start


def _fits(trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> bool:
    return all(trial.distributions.get(name) == distribution for name, distribution in space.items())


def _is_whole(trial: FrozenTrial, space: Mapping[str, BaseDistribution]) -> bool:
    return all(name in space or distribution.single() for name, distribution in trial.distributions.items())


def _entropy() -> int:
    return int(np.random.SeedSequence().entropy) % 2**32  # type: ignore[arg-type]  # an integer, since no entropy was given
