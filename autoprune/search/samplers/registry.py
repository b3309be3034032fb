"""Registry of samplers, which propose trials. Optuna is imported when a sampler is built."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING

from autoprune.errors import ConfigurationError, UnknownNameError, error_message

if TYPE_CHECKING:
    from optuna.samplers import BaseSampler

#: Function from the seed and the number of random trials at the start to a sampler.
SamplerFactory = Callable[[int, int], "BaseSampler"]
#: Default number of random trials before a model-based sampler uses its model; warm starts count.
STARTUP = 8
#: Name that stands for the sampler that suits the study, see `default_sampler`.
AUTO = "auto"
#: Number of groups from which on TPE has too many residuals.
_MANY_GROUPS = 100
#: Members of a generation. Forty to two hundred trials are four to twenty generations; Optuna's default of 50 would
#: be that many random trials. It does not depend on the number of trials, so a longer run continues the same search.
_POPULATION = 10


@contextlib.contextmanager
def _unmarked() -> Iterator[None]:
    """Silence Optuna's warning about experimental features, on which users cannot act."""
    from optuna.exceptions import ExperimentalWarning

    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ExperimentalWarning)
        yield


def _tpe(seed: int, n_startup: int) -> BaseSampler:
    """Build TPE. Multivariate: the default looks at one parameter at a time; group: at conditional ones, too."""
    from autoprune.search.samplers.bounded_tpe import BoundedTPESampler

    with _unmarked():
        return BoundedTPESampler(seed=seed, multivariate=True, group=True, n_startup_trials=n_startup)


def _nsga2(seed: int, n_startup: int) -> BaseSampler:
    from optuna.samplers import NSGAIISampler

    del n_startup  # the first generation is random
    return NSGAIISampler(seed=seed, population_size=_POPULATION)


def _nsga3(seed: int, n_startup: int) -> BaseSampler:
    """Build NSGA-III. Three divisions make 4 reference points for two objectives and 10 for three, which 10 members
    hold.
    """
    from optuna.samplers import NSGAIIISampler

    del n_startup
    with _unmarked():
        return NSGAIIISampler(seed=seed, population_size=_POPULATION, dividing_parameter=3)


def _gp(seed: int, n_startup: int) -> BaseSampler:
    from optuna.samplers import GPSampler

    return GPSampler(seed=seed, n_startup_trials=n_startup, warn_independent_sampling=False)


def _random(seed: int, n_startup: int) -> BaseSampler:
    from optuna.samplers import RandomSampler

    del n_startup
    return RandomSampler(seed=seed)


def _qmc(seed: int, n_startup: int) -> BaseSampler:
    """Build scrambled Sobol points. Conditional parameters are drawn independently, without a warning."""
    from optuna.samplers import QMCSampler

    del n_startup
    with _unmarked():
        return QMCSampler(seed=seed, scramble=True, warn_independent_sampling=False)


def _evolution(seed: int, n_startup: int) -> BaseSampler:
    from autoprune.search.samplers.evolution import EvolutionSampler

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
    """Build a sampler by name. An Optuna sampler is returned unchanged and keeps its own seed.

    Args:
        name_or_object: Name in SAMPLERS, or an Optuna sampler.
        seed: Seed, >= 0.
        n_startup: Random trials before a model-based sampler uses its model, >= 1.

    Raises:
        UnknownNameError: The name is not registered.
        ConfigurationError: The value is neither a name nor a sampler.
    """
    from optuna.samplers import BaseSampler

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
    """Return the sampler that suits a study: "tpe" for up to 99 scanned groups, else "evolution".

    Args:
        groups: Number of groups.
        scanned: Whether the study has a scan.
    """
    return "tpe" if scanned and groups < _MANY_GROUPS else "evolution"


def named_sampler(name: str, groups: int, scanned: bool) -> str:
    """Return the name, with AUTO replaced by the sampler that suits the study.

    Args:
        name: Name in SAMPLERS, or AUTO.
        groups: Number of groups.
        scanned: Whether the study has a scan.
    """
    return default_sampler(groups, scanned) if name == AUTO else name


def build_sampler(name: str | BaseSampler, seed: int, asked: int, before: BaseSampler | None = None) -> BaseSampler:
    """Build the sampler for one ask.

    The state of a sampler is its random numbers and the storage. A new seed from (seed, number of asks) makes a resumed
    study ask the same as an uninterrupted one. QMC counts in the storage and evolution draws by the trial's number:
    they need one seed throughout. A sampler object keeps its own state.

    Args:
        name: Name in SAMPLERS but not AUTO, or an Optuna sampler.
        seed: Seed of the study, >= 0.
        asked: Number of asks so far.
        before: Sampler of the last ask; samplers that cache what they read are used again.
    """
    from autoprune.search.samplers.evolution import EvolutionSampler

    if name == "evolution" and isinstance(before, EvolutionSampler):
        return before
    fixed = name in ("qmc", "evolution")
    fresh = sampler(name, seed if fixed else (seed * 1_000_003 + asked) % 2**31)
    _keep_space(fresh, before)
    return fresh


def _keep_space(fresh: BaseSampler, before: BaseSampler | None) -> None:
    """Let a sampler go on with what the one of the last ask read of the trials, so that only new ones are read.

    For TPE that are their losses, for a genetic sampler the parameters that all of them had.
    """
    from optuna.samplers import NSGAIIISampler, NSGAIISampler

    from autoprune.search.samplers.bounded_tpe import BoundedTPESampler

    if fresh is not before and isinstance(fresh, BoundedTPESampler) and isinstance(before, BoundedTPESampler):
        fresh.go_on(before)
    for kind in (NSGAIISampler, NSGAIIISampler):
        if fresh is not before and isinstance(fresh, kind) and isinstance(before, kind):
            fresh._search_space = before._search_space
