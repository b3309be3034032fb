"""Optuna samplers by name."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Mapping

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import BaseSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler

#: seed -> sampler.
Factory = Callable[[int], BaseSampler]


def _tpe(seed: int) -> BaseSampler:
    """Multivariate: the multi-objective default looks at one parameter at a time (design.md section 5)."""
    return TPESampler(seed=seed, multivariate=True, n_startup_trials=8)


def _nsga2(seed: int) -> BaseSampler:
    """A population that leaves room for several generations; the default of 50 is 50 random trials.

    It does not depend on the number of trials, so that going on with more of them is the same search.
    """
    return NSGAIISampler(seed=seed, population_size=10)


def _random(seed: int) -> BaseSampler:
    return RandomSampler(seed=seed)


def _qmc(seed: int) -> BaseSampler:
    with warnings.catch_warnings():
        # The class is marked experimental since Optuna 3.0; nothing that a user of ours could act on.
        warnings.simplefilter("ignore", ExperimentalWarning)
        return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)


SAMPLERS: Mapping[str, Factory] = {"tpe": _tpe, "nsga2": _nsga2, "random": _random, "qmc": _qmc}


def build_sampler(name: str, seed: int, asked: int) -> BaseSampler:
    """The sampler for one ask.

    A sampler's state is its random numbers and the storage. Seeding it anew from (seed, number of asks so
    far) makes a resumed study ask what an uninterrupted one asks. QMC counts in the storage and needs one
    seed throughout.
    """
    return SAMPLERS[name](seed if name == "qmc" else (seed * 1_000_003 + asked) % 2**31)
