"""Optuna samplers by name."""

from __future__ import annotations

from collections.abc import Callable, Mapping

from optuna.samplers import BaseSampler, NSGAIISampler, QMCSampler, RandomSampler, TPESampler

#: (seed, trials planned) -> sampler.
Factory = Callable[[int, int], BaseSampler]


def _tpe(seed: int, trials: int) -> BaseSampler:
    """Multivariate: the multi-objective default looks at one parameter at a time (design.md section 5)."""
    del trials
    return TPESampler(seed=seed, multivariate=True, n_startup_trials=8)


def _nsga2(seed: int, trials: int) -> BaseSampler:
    """A population that leaves room for several generations; the default of 50 is 50 random trials."""
    return NSGAIISampler(seed=seed, population_size=max(4, min(50, trials // 4)))


def _random(seed: int, trials: int) -> BaseSampler:
    del trials
    return RandomSampler(seed=seed)


def _qmc(seed: int, trials: int) -> BaseSampler:
    del trials
    return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)


SAMPLERS: Mapping[str, Factory] = {"tpe": _tpe, "nsga2": _nsga2, "random": _random, "qmc": _qmc}


def build_sampler(name: str, seed: int, trials: int, asked: int) -> BaseSampler:
    """The sampler for one ask.

    A sampler's state is its random numbers and the storage. Seeding it anew from (seed, number of asks so
    far) makes a resumed study ask what an uninterrupted one asks. QMC counts in the storage and needs one
    seed throughout.
    """
    return SAMPLERS[name](seed if name == "qmc" else (seed * 1_000_003 + asked) % 2**31, trials)
