"""Untried proposals: find new models where a sampler proposes known ones."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from itertools import islice

import numpy as np
from optuna.trial import FrozenTrial, TrialState

from autoprune.search import duplicates
from autoprune.search.adjustment import scale_steps, shrink_to_limits
from autoprune.search.samplers.vectors import Coordinates
from autoprune.search.sources.polish import DUPLICATES_IN_A_ROW
from autoprune.search.space.parameter import Parameters
from autoprune.search.space.setting_groups import SCORED_MODES
from autoprune.search.space.space import Space
from autoprune.search.state import SearchState

#: User attribute of trials queued here: they are not shrunk to fit an ancestor.
UNTRIED = "untried"
#: Draws after which the space counts as exhausted.
_DRAWS = 1000
#: The same where each draw has to be scored, or cut and measured, to know its widths.
_EXPENSIVE_DRAWS = 50
#: Smallest and largest step around a trial, as a share of each parameter's range; log-uniform.
_STEPS = (0.005, 0.3)


def enqueue_untried(state: SearchState) -> bool:
    """Queue a proposal that gives a new model, where the sampler repeats known ones and nothing can be polished.

    Args:
        state: State of the search.

    Returns:
        Whether a point was found.
    """
    ledger, settings, topology = state.ledger, state.settings, state.model.topology
    if ledger.duplicates_in_a_row != DUPLICATES_IN_A_ROW:
        return False
    seed = state.seed(ledger.next_number)
    expensive = bool(
        {*settings.structure.modes} & {*SCORED_MODES} or settings.limits.given or settings.structure.block_criteria
    )

    def is_untried(point: Parameters) -> bool:
        try:
            plan = state.model.resolved(state.space.decode(point, seed=seed))[0]
            plan = scale_steps(state, shrink_to_limits(state, plan))
        except (KeyboardInterrupt, GeneratorExit):
            raise
        except BaseException:  # the user's loss runs here; skip points that cannot be scored
            return False
        return not state.known.is_tried(duplicates.key(plan, topology))

    finished = ledger.trials(TrialState.COMPLETE)
    draws = _EXPENSIVE_DRAWS if expensive else _DRAWS
    for point in islice(_drawn(state.space, finished, np.random.default_rng(seed)), draws):
        if is_untried(point):
            ledger.enqueue(point, {UNTRIED: True})
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
