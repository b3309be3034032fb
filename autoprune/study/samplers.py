"""Samplers by name: what proposes the next trial."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping

from optuna.exceptions import ExperimentalWarning
from optuna.samplers import (
    BaseSampler,
    GPSampler,
    NSGAIIISampler,
    NSGAIISampler,
    QMCSampler,
    RandomSampler,
    TPESampler,
)

from autoprune.errors import ConfigurationError, UnknownNameError, error_message
from autoprune.study.evolution import EvolutionSampler

#: (seed, random trials at the start) -> sampler.
SamplerFactory = Callable[[int, int], BaseSampler]
#: Random trials before a model-based sampler believes its model, where no other number is given; warm starts count.
STARTUP = 8
#: Name of the one that suits the study, by `default_sampler`.
AUTO = "auto"
#: From this many groups on a scan's residuals are too many for TPE.
_MANY_GROUPS = 100
#: Members of a generation. Forty to two hundred trials are four to twenty generations; Optuna's default of 50 would
#: be that many random trials. It does not depend on the number of trials, so that going on is the same search.
_POPULATION = 10


@contextlib.contextmanager
def _unmarked() -> Iterator[None]:
    """Without the warning that Optuna marks something experimental: nothing that a user of ours could act on."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _tpe(seed: int, n_startup: int) -> BaseSampler:
    """Multivariate: the multi-objective default looks at one parameter at a time; group: at conditional ones too."""
    with _unmarked():
        return TPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=n_startup)


def _nsga2(seed: int, n_startup: int) -> BaseSampler:
    del n_startup  # the first generation is random
    return NSGAIISampler(seed=seed, population_size=_POPULATION)


def _nsga3(seed: int, n_startup: int) -> BaseSampler:
    """Three divisions make 4 reference points for two objectives and 10 for three: a population of 10 can hold them."""
    del n_startup
    with _unmarked():
        return NSGAIIISampler(seed=seed, population_size=_POPULATION, dividing_parameter=3)


def _gp(seed: int, n_startup: int) -> BaseSampler:
    return GPSampler(seed=seed, n_startup_trials=n_startup, warn_independent_sampling=False)


def _random(seed: int, n_startup: int) -> BaseSampler:
    del n_startup
    return RandomSampler(seed=seed)


def _qmc(seed: int, n_startup: int) -> BaseSampler:
    """Scrambled Sobol points; what not every trial has is drawn by itself, and that is no news to warn of."""
    del n_startup
    with _unmarked():
        return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)


def _evolution(seed: int, n_startup: int) -> BaseSampler:
    return EvolutionSampler(seed=seed, n_startup=n_startup)


SAMPLERS: Mapping[str, SamplerFactory] = {
    "tpe": _tpe,
    "evolution": _evolution,
    "nsga2": _nsga2,
    "nsga3": _nsga3,
    "gp": _gp,
    "qmc": _qmc,
    "random": _random,
}


def sampler(name_or_object: str | BaseSampler, seed: int, n_startup: int = STARTUP) -> BaseSampler:
    """A sampler by name, or any Optuna sampler as it is; its own seed then holds.

    Raises UnknownNameError for a name that is not known, ConfigurationError for what is neither.
    """
    if isinstance(name_or_object, BaseSampler):
        return name_or_object
    if not isinstance(name_or_object, str):
        raise ConfigurationError(
            error_message("the sampler", f"be an Optuna sampler or one of {', '.join(SAMPLERS)}", repr(name_or_object))
        )
    if name_or_object not in SAMPLERS:
        raise UnknownNameError("the sampler", name_or_object, SAMPLERS)
    return SAMPLERS[name_or_object](seed, n_startup)


def default_sampler(groups: int, scanned: bool) -> str:
    """Name of the sampler that suits a study: TPE where a scan says how groups share a budget, for up to 99 of them."""
    return "tpe" if scanned and groups < _MANY_GROUPS else "evolution"


def named_sampler(name: str, groups: int, scanned: bool) -> str:
    """The name itself, or for AUTO that of the sampler that suits the study."""
    return default_sampler(groups, scanned) if name == AUTO else name


def build_sampler(name: str | BaseSampler, seed: int, asked: int, before: BaseSampler | None = None) -> BaseSampler:
    """The sampler for one ask. before: that of the last ask, for samplers that remember what they have read.

    name: not AUTO, for which `default_sampler` has the name.
    A sampler's state is its random numbers and the storage. Seeding it anew from (seed, number of asks so
    far) makes a resumed study ask what an uninterrupted one asks. QMC counts in the storage and evolution draws by
    the trial's number: they need one seed throughout. A sampler object keeps its own state.
    """
    if name == "evolution" and isinstance(before, EvolutionSampler):
        return before
    fixed = name in ("qmc", "evolution")
    return sampler(name, seed if fixed else (seed * 1_000_003 + asked) % 2**31)
