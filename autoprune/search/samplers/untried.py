"""Untried proposals: find new models where a sampler proposes known ones."""

from __future__ import annotations

from collections.abc import Callable, Iterator, Sequence
from itertools import islice

import numpy as np
import optuna
from optuna.trial import FrozenTrial, TrialState

from autoprune.search.samplers.vectors import Coordinates
from autoprune.search.space.parameters import Parameters
from autoprune.search.space.space import Space

#: User attribute of trials queued here: they are not shrunk to fit an ancestor.
UNTRIED = "untried"
#: Draws after which the space counts as exhausted.
DRAWS = 1000
#: The same where each draw has to be scored, or cut and measured, to know its widths.
EXPENSIVE_DRAWS = 50
#: Smallest and largest step around a trial, as a share of each parameter's range; log-uniform.
_STEPS = (0.005, 0.3)


def enqueue(
    study: optuna.Study, space: Space, is_untried: Callable[[Parameters], bool], seed: int, draws: int = DRAWS
) -> bool:
    """Queue an untried point of the space.

    Args:
        study: Optuna study.
        space: Search space.
        is_untried: Whether parameters give a model that no finished candidate has.
        seed: Seed of the draws; the same seed and trials give the same point.
        draws: Most points to look at.

    Returns:
        Whether a point was found.
    """
    finished = study.get_trials(deepcopy=False, states=(TrialState.COMPLETE,))
    for point in islice(_drawn(space, finished, np.random.default_rng(seed)), draws):
        if is_untried(point):
            study.enqueue_trial(dict(point), user_attrs={UNTRIED: True})
            return True
    return False


def _drawn(space: Space, finished: Sequence[FrozenTrial], rng: np.random.Generator) -> Iterator[Parameters]:
    """Yield points near finished trials and from the whole space in turn."""
    coordinates = Coordinates(space=space.distributions, allocation_prefixes=())
    whole = [trial for trial in finished if trial.distributions == dict(space.distributions)]
    known = coordinates.encode(whole)
    while True:
        if len(known):
            yield _plain(coordinates, _moved(coordinates, known[rng.integers(len(known))], rng))
        yield _plain(coordinates, coordinates.random(rng))


def _moved(coordinates: Coordinates, vector: np.ndarray, rng: np.random.Generator) -> np.ndarray:
    """Return the vector with every number moved a little and some choices drawn again."""
    low, high = np.log(_STEPS)
    moved = vector.copy()
    step = float(np.exp(rng.uniform(low, high)))
    moved[coordinates.numbers] += rng.normal(0.0, step, len(coordinates.numbers))
    for position, count in coordinates.choices.items():
        if rng.random() < 0.5:
            moved[position] = rng.integers(count)
    return coordinates.reflected(moved)


def _plain(coordinates: Coordinates, vector: np.ndarray) -> Parameters:
    """Return the parameters of a vector; no distribution of a space holds None."""
    return {name: value for name, value in coordinates.decode(vector).items() if value is not None}
