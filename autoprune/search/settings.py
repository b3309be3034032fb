"""Settings of a study."""

from __future__ import annotations

import itertools
from collections.abc import Mapping
from dataclasses import dataclass, field

from autoprune.codec import Format, from_plain, stored, to_plain_object
from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.plan.validation import FieldCheck, is_count, is_finite, is_share, validate
from autoprune.records.limits import Limits
from autoprune.records.objectives import COSTS, QUALITY
from autoprune.records.problem import DEFAULT_OBJECTIVES
from autoprune.search.early_stopping import RULES
from autoprune.search.samplers.registry import AUTO, SAMPLERS
from autoprune.search.space.settings import SpaceSettings

#: Points of the uniform sweep where it is requested by name.
UNIFORM_POINTS = 8
#: Fields of the space that old studies did not store, and the behaviour they had then.
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
    """Settings of a study. The choices of the search space are in `space`.

    Attributes:
        trials: Finished candidates to reach, including warm starts, >= 1.
        seconds: Time after which no new trial starts, in seconds, > 0; None has no limit.
        samples: Number of samples, trained or only passed forward, after which no new trial starts, > 0; None has no
            limit. Counts the scan and the search split. The scan takes a quarter at most.
        limits: Limits of the search: the sampler is told that candidates beyond them are infeasible.
        space: Settings of the search space.
        objectives: "quality", one or more costs of `autoprune.records.objectives.COSTS`, and further metrics of the
            task.
        sampler: Name of a sampler; "auto" is "tpe" for up to 99 scanned groups, else "evolution".
        seed: Seed of the sampler, the data order and every other choice, >= 0.
        solved_points: Solved allocations, from wide to narrow, after the dense model, >= 0. Each trains from the one
            before. Without a scan they are uniform. A study with fewer trials has fewer, over the same range of costs.
        uniform_points: Points of a uniform sweep as baseline, >= 0, trained from the dense model and each other alone.
            `--baseline uniform` of the command line asks for UNIFORM_POINTS.
        lineage: Start from recovered ancestors; False always starts from the dense model.
        lineage_slack: Share of its multiply-adds that a proposal may lose to fit into an ancestor that nearly contains
            it, in [0, 1); 0 leaves proposals unchanged.
        polish: Share of the trials after the warm starts that train a member of the front further at its widths, in [0,
            1); needs lineage.
        latency_rounds: Pairs of calls per latency measurement, >= 0; 0 measures no latency.
        latency_backend: Name of the backend that runs the model.
        early_stopping: Name of the rule that ends the training of hopeless candidates.
        rungs: Fractions of a fine-tune's steps at which the rule is asked, rising, each in [0, 1); 0 is before the
            first step.
        rung_samples: Samples of the search split that are evaluated at a rung, >= 1.
        checkpoint_epochs: Passes over the train split between two stored checkpoints of a trial, >= 0; 0 stores none.
        collect_garbage: Delete the weights of candidates that are dominated, have no descendants and are no baseline.
        threads: Torch threads of the process, >= 1.

    Raises:
        ConfigurationError: A value is out of its range.
        UnknownNameError: A name is in no registry.

    Example:
        >>> StudySettings(trials=60, objectives=("quality", "multiply_adds")).warm_starts
        9
    """

    trials: int = 40
    seconds: float | None = None
    samples: int | None = None
    limits: Limits = field(default_factory=Limits)
    space: SpaceSettings = field(default_factory=SpaceSettings)
    objectives: tuple[str, ...] = DEFAULT_OBJECTIVES
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
        registries = (
            ("the sampler", self.sampler, (AUTO, *SAMPLERS)),
            ("the rule of early stopping", self.early_stopping, tuple(RULES)),
        )
        for what, name, known in registries:
            if name not in known:
                raise UnknownNameError(what, name, known)
        validate("the settings", (*_counts(self), *_checks(self)))

    @property
    def scanned(self) -> tuple[str, ...]:
        """Return the criteria that the sensitivity scan uses; none without a scan."""
        space = self.space
        return (space.scan_criterion,) if space.scan and space.kind != "direct" else ()

    @property
    def warm_starts(self) -> int:
        """Return the most trials before the sampler's first proposal: dense, solved and uniform points."""
        return 1 + self.solved_points + self.uniform_points

    @property
    def scan_samples(self) -> int | None:
        """Return the most samples that the scan may see, at most a quarter of all; None has no limit."""
        limits = [self.space.scan_samples, None if self.samples is None else self.samples // 4]
        return min((limit for limit in limits if limit is not None), default=None)

    def to_dict(self) -> dict[str, object]:
        """Convert the settings for JSON.

        Returns:
            Nested dicts and lists.
        """
        return to_plain_object(self)

    @classmethod
    def from_dict(cls, data: object, where: str = "stored settings") -> StudySettings:
        """Read the data of `to_dict`, of any version.

        Args:
            data: Parsed JSON.
            where: Name of the source, for messages.

        Returns:
            The settings; fields that an old version did not store keep the behaviour of that version.

        Raises:
            ConfigurationError: The data is malformed or a value out of its range.
        """
        return from_plain(cls, _completed(data), where, ConfigurationError)


def _completed(data: object) -> object:
    """Fill in the behaviour of old versions for fields that they did not store."""
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
    different = len(set(objectives)) == len(objectives) >= 2 and QUALITY in objectives
    timed = [name for name in objectives if name in COSTS and COSTS[name].is_timed]
    measured = not timed or settings.latency_rounds != 0
    return [
        (seconds is None or (is_finite(seconds) and seconds > 0), "seconds", "be > 0", seconds),
        (samples is None or (is_count(samples) and samples > 0), "samples", "be an integer > 0 or None", samples),
        (isinstance(limits, Limits), "limits", "be an autoprune.Limits", type(limits).__name__),
        (different, "objectives", "be 'quality' and one or more different others", objectives),
        (is_share(settings.lineage_slack), "lineage_slack", "lie in [0, 1)", settings.lineage_slack),
        (is_share(settings.polish), "polish", "lie in [0, 1)", settings.polish),
        (_is_rising(settings.rungs), "rungs", "be shares in [0, 1), each above the one before", settings.rungs),
        (measured, "latency_rounds", f"be >= 1 when {', '.join(timed)} is an objective", settings.latency_rounds),
    ]


def _is_rising(rungs: object) -> bool:
    if not isinstance(rungs, tuple) or any(isinstance(share, bool) for share in rungs):
        return False
    numbers = [share for share in rungs if isinstance(share, int | float) and 0 <= share < 1]
    return len(numbers) == len(rungs) and all(a < b for a, b in itertools.pairwise(numbers))
