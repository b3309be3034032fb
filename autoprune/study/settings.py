"""StudySettings: how a study searches."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

from autoprune.codec import Format, from_plain, stored, to_plain_object
from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.front.dominance import check_objectives
from autoprune.front.limits import Limits
from autoprune.measure.latency import LATENCY_BACKENDS
from autoprune.plan.validation import FieldCheck, is_count, is_finite, is_share, validate
from autoprune.space.settings import SpaceSettings
from autoprune.study.early_stopping import RULES
from autoprune.study.samplers import AUTO, SAMPLERS

#: Points of the uniform sweep where it is asked for by name.
UNIFORM_POINTS = 8
#: Fields of the space whose default was another when a study could still be stored without them, and what it did then.
_OLD_DEFAULTS: Mapping[str, object] = {
    "scan_samples": None,
    "length_exponent": 0.0,
    "schedulers": ["one_cycle"],
    "averaging": [0.0],
    "reconstruction": [0],
}


@stored(Format(what="settings of a study", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class StudySettings:
    """How a study searches; what it chooses from is in `space`.

    trials: finished candidates to reach, warm starts included, >= 1.
    seconds: stop asking for new trials after that long, None for no limit.
    samples: ask for no new trial once that many samples have been processed, trained or only passed forward, the scan's
        and the search split's included; None for no limit. The scan takes a quarter of them at most.
    limits: what the search concentrates on: candidates that exceed one are told to the sampler as infeasible.
    space: SpaceSettings.
    objectives: "quality" and one or more of parameters, multiply_adds, size_bytes, latency_ms.
    sampler: name of a sampler; "auto" is "tpe" for up to 99 groups that are scanned, and "evolution" for others.
    seed: >= 0; drives the sampler, data order and every other choice.
    solved_points: points of the chain with which a study begins, after the dense model, >= 0: solved allocations from
        wide to narrow, each trained from the one before it. Where the space has no scan to solve with they are uniform.
        A study of fewer trials has fewer of them, over the same range of costs.
    uniform_points: points of a uniform sweep that follows as a baseline, >= 0; `--baseline uniform` of the command line
        asks for UNIFORM_POINTS. It starts from the dense model, and from points of its own alone.
    lineage: start from recovered ancestors; False always starts from the dense model.
    lineage_slack: share of its multiply-adds that a proposal may lose to fit into an ancestor that nearly contains it,
        in [0, 1); 0 leaves proposals as they are.
    polish: share of the trials after the warm starts that train a member of the front further at the widths
        it has, in place of a new plan, in [0, 1); needs lineage.
    latency_rounds: pairs of calls for each latency measurement, 0 leaves latency out.
    latency_backend: name of what runs the model.
    early_stopping: name of the rule that ends the training of candidates not worth it.
    rungs: shares of a fine-tune's steps at which it looks, each in [0, 1), rising; 0 is before the first step.
    rung_samples: part of the search split that it looks at there, >= 1.
    checkpoint_epochs: passes over the train split between two checkpoints that a trial stores of its model on its way,
        >= 0; 0 stores none.
    collect_garbage: remove the weights of candidates that are dominated, without descendants and no baseline.
    threads: torch threads of the process, >= 1.
    """

    trials: int = 40
    seconds: float | None = None
    samples: int | None = None
    limits: Limits = field(default_factory=Limits)
    space: SpaceSettings = field(default_factory=SpaceSettings)
    objectives: tuple[str, ...] = ("quality", "size_bytes", "latency_ms")
    sampler: str = AUTO
    seed: int = 0
    solved_points: int = 8
    uniform_points: int = 0
    lineage: bool = True
    lineage_slack: float = 0.2
    polish: float = 0.5
    latency_rounds: int = 30
    latency_backend: str = "torch"
    early_stopping: str = "front"
    rungs: tuple[float, ...] = (0.0, 0.5)
    rung_samples: int = 512
    checkpoint_epochs: int = 0
    collect_garbage: bool = True
    threads: int = 1

    def __post_init__(self) -> None:
        check_objectives(self.objectives)
        registries = (
            ("the sampler", self.sampler, (AUTO, *SAMPLERS)),
            ("the rule of early stopping", self.early_stopping, tuple(RULES)),
            ("the latency backend", self.latency_backend, tuple(LATENCY_BACKENDS)),
        )
        for what, name, known in registries:
            if name not in known:
                raise UnknownNameError(what, name, known)
        validate("the settings", (*_counts(self), *_checks(self)))

    @property
    def scanned(self) -> tuple[str, ...]:
        """Criteria that the sensitivity scan uses; none without a scan."""
        space = self.space
        return (space.scan_criterion,) if space.scan and space.kind != "direct" else ()

    @property
    def warm_starts(self) -> int:
        """Most trials that come before the sampler proposes any: dense, the chain and the baseline."""
        return 1 + self.solved_points + self.uniform_points

    @property
    def scan_samples(self) -> int | None:
        """Most samples that the scan may see, None for no limit; a quarter of all at most where those are limited."""
        limits = [self.space.scan_samples, None if self.samples is None else self.samples // 4]
        return min((limit for limit in limits if limit is not None), default=None)

    def to_dict(self) -> dict[str, object]:
        """JSON-ready data."""
        return to_plain_object(self)

    @classmethod
    def from_dict(cls, data: object, where: str = "stored settings") -> StudySettings:
        """Read what `to_dict` gave, of any version.

        where: what holds it, for the message. Raises ConfigurationError for the rest.
        """
        return from_plain(cls, _completed(data), where, ConfigurationError)


def _completed(data: object) -> object:
    """Stored settings with what was done before there were some of the fields."""
    if not isinstance(data, Mapping):
        return data
    space = data.get("space", {})
    return {**data, "space": {**_OLD_DEFAULTS, **space}} if isinstance(space, Mapping) else data


def _counts(settings: StudySettings) -> list[FieldCheck]:
    least = {
        "trials": 1,
        "seed": 0,
        "uniform_points": 0,
        "solved_points": 0,
        "latency_rounds": 0,
        "rung_samples": 1,
        "checkpoint_epochs": 0,
        "threads": 1,
    }
    values = {name: getattr(settings, name) for name in least}
    return [
        (is_count(value) and value >= least[name], name, f"be an integer >= {least[name]}", value)
        for name, value in values.items()
    ]


def _checks(settings: StudySettings) -> list[FieldCheck]:
    objectives, seconds, samples, limits = settings.objectives, settings.seconds, settings.samples, settings.limits
    different = len(set(objectives)) == len(objectives) >= 2 and "quality" in objectives
    measured = "latency_ms" not in objectives or settings.latency_rounds != 0
    return [
        (seconds is None or (is_finite(seconds) and seconds > 0), "seconds", "be > 0", seconds),
        (samples is None or (is_count(samples) and samples > 0), "samples", "be an integer > 0 or None", samples),
        (isinstance(limits, Limits), "limits", "be an autoprune.Limits", type(limits).__name__),
        (different, "objectives", "be 'quality' and one or more different costs", objectives),
        (is_share(settings.lineage_slack), "lineage_slack", "lie in [0, 1)", settings.lineage_slack),
        (is_share(settings.polish), "polish", "lie in [0, 1)", settings.polish),
        (_is_rising(settings.rungs), "rungs", "be shares in [0, 1), each above the one before", settings.rungs),
        (measured, "latency_rounds", "be >= 1 when latency_ms is an objective", settings.latency_rounds),
    ]


def _is_rising(rungs: object) -> bool:
    if not isinstance(rungs, tuple) or any(isinstance(share, bool) for share in rungs):
        return False
    numbers = [share for share in rungs if isinstance(share, int | float) and 0 <= share < 1]
    return len(numbers) == len(rungs) and all(a < b for a, b in itertools.pairwise(numbers))
