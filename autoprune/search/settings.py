"""Settings of a study."""

from __future__ import annotations

import itertools
import math
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from types import NoneType, UnionType
from typing import Annotated, get_args, get_origin

from autoprune.codec import Format, from_plain, stored, to_plain_object
from autoprune.display import without_password
from autoprune.errors import ConfigurationError, UnknownNameError, error_message
from autoprune.plan.rules import (
    NAME,
    NON_NEGATIVE,
    POSITIVE,
    SWITCH,
    Rule,
    at_least,
    check_fields,
    each,
    instance_of,
    one_of,
    or_none,
)
from autoprune.plan.validation import FieldCheck
from autoprune.records.artifacts import URL_WANTED, is_plain_url
from autoprune.records.limits import Limits
from autoprune.records.measurement import DEFAULT_PROFILE
from autoprune.records.objectives import ENERGY, QUALITY, find_cost
from autoprune.records.problem import DEFAULT_OBJECTIVES
from autoprune.records.profile import AUTO_BACKEND, MOST_THREADS, LatencyProfile
from autoprune.search.early_stopping import RULES
from autoprune.search.samplers.registry import SAMPLERS
from autoprune.search.space.earlier_settings import MOVED, grouped, tell_moved_fields
from autoprune.search.space.setting_groups import AUTO, DEVICE, LATENCY_COST
from autoprune.search.space.settings import SpaceSettings, field_types

#: Measure the latency of what would reach the front, and predict that of the rest.
ON_FRONT = "front"
#: Predict latencies while workers train, and measure what reaches the front when they are done.
AT_END = "end"
#: Measure latencies in trials of workers, each while no other trial of the host runs.
QUIET = "quiet"
#: Points of the uniform sweep where it is requested by name.
UNIFORM_POINTS = 8
#: A text, whose value is checked where it can be shown without a password.
_URL = Rule(holds=lambda value: isinstance(value, str), wants=URL_WANTED)
#: Fields whose values are no plain texts -> the option of the command line that gives them.
OWN_OPTIONS: Mapping[str, str] = {
    "limits": "--limit max_drop=0.01",
    "measure.profiles": "--latency-profile b32=onnxruntime,batch=32",
}


@stored(Format(what="the settings of measurements", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class MeasureSettings:
    """How latency is measured.

    Attributes:
        latency_rounds: Most bursts of calls per latency measurement; 0 measures no latency, which then is no objective.
        latency_backend: Name of the backend that runs the model (docs/latency.md); "auto" is ONNX Runtime where it is
            installed, else eager PyTorch.
        latency_width: Width of the 95 % interval of the ratio to dense at which a measurement ends, as a share.
        latency_seconds: Longest time of a measurement.
        latency_when: "always" measures the latency of every candidate. "front" predicts it by the device profile, which
            is made where there is none, and measures what would reach the front by the prediction; tables say which
            are predicted. Latencies in further profiles are always measured.
        energy: Measure the energy of a call where the machine has a counter that can be read (docs/energy.md), of the
            candidates whose latency is measured; else it is left out. As an objective or limit it is measured of every
            candidate, whatever is set here.
        threads: Torch threads of the process, and threads of the backend.
        profiles: Further circumstances in which latency is measured, each of which is a cost `latency_ms[NAME]`;
            `--latency-profile` of `run`. `latency_ms` is then measured only if it is an objective, limited or
            predicted.

    Example:
        >>> MeasureSettings(profiles=(LatencyProfile(name="batch32", batch_size=32),)).profile_names
        ('batch32',)
    """

    latency_rounds: Annotated[int, at_least(0)] = 30
    latency_backend: Annotated[str, NAME] = AUTO_BACKEND
    latency_width: Annotated[float, POSITIVE] = 0.02
    latency_seconds: Annotated[float, POSITIVE] = 5.0
    latency_when: Annotated[str, one_of(("always", ON_FRONT))] = "always"
    energy: Annotated[bool, SWITCH] = False
    threads: Annotated[int, at_least(1, MOST_THREADS)] = 1
    profiles: Annotated[tuple[LatencyProfile, ...], each(instance_of(LatencyProfile), least=0)] = ()

    def __post_init__(self) -> None:
        check_fields("the settings of measurements", self, "measure", more=self._checks())

    def _checks(self) -> Iterator[FieldCheck]:
        names = self.profile_names
        wants = f"have different names, other than {DEFAULT_PROFILE!r}"
        yield len({*names, DEFAULT_PROFILE}) == len(names) + 1, "measure.profiles", wants, names

    @property
    def predicts(self) -> bool:
        """Whether latency is predicted and measured only for what would reach the front."""
        return self.latency_when == ON_FRONT and self.latency_rounds > 0

    @property
    def timed_profiles(self) -> tuple[LatencyProfile, ...]:
        """Circumstances in which latency is measured, the default one first."""
        default = LatencyProfile(name=DEFAULT_PROFILE, backend=self.latency_backend, threads=self.threads)
        return (default, *self.profiles)

    @property
    def profile_names(self) -> tuple[str, ...]:
        """Names of the profiles beside the default one."""
        return tuple(profile.name for profile in self.profiles)


@stored(Format(what="the settings of storage", optional=None, refuses_unknown=True, apart=("artifacts",)))
@dataclass(frozen=True, slots=True, kw_only=True)
class StorageSettings:
    """Settings of the files that a run folder keeps.

    Attributes:
        collect_garbage: Delete the weights of candidates that are dominated, have no descendants and are no baseline.
        checkpoint_epochs: Passes over the train split between two checkpoints of a trial, which are stored under
            `checkpoints/` in the run folder: `Study.checkpoints(number)`, `Study.rebuild(number, epoch=...)`. A trial
            that was interrupted goes on from its latest one, bit for bit, when the run is started again. 0 stores none.
        artifacts: URL of a folder or bucket that weights are stored in, such as s3://bucket/folder, by any file system
            of fsspec; None for the one of earlier runs, or the run folder. `--artifacts` of `run`.

    Example:
        >>> StorageSettings(checkpoint_epochs=2).collect_garbage
        True
    """

    collect_garbage: Annotated[bool, SWITCH] = True
    checkpoint_epochs: Annotated[int, at_least(0)] = 0
    artifacts: Annotated[str | None, or_none(_URL)] = None

    def __post_init__(self) -> None:
        check_fields("the settings of storage", self, "storage", more=self._checks())

    def _checks(self) -> Iterator[FieldCheck]:
        plain = self.artifacts is None or is_plain_url(self.artifacts)
        yield plain, "storage.artifacts", URL_WANTED, without_password(str(self.artifacts))


@stored(Format(what="the settings of workers", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class WorkerSettings:
    """Where trials run. All of it may change from one run of a study to the next.

    Attributes:
        count: Trials that run at the same time (`--workers`). None runs them one after the other in this process, or
            with Ray as many as its cluster has room for.
        ray_address: Address of a Ray cluster whose workers run the trials (`--ray`): "auto" for the one that runs on
            this machine, "local" to start one here for the run. "" runs them in processes of this machine.
        cpus: Processors that Ray keeps for a trial.
        gpus: GPUs that Ray keeps for a trial; may be a share of one.
        resources: Further resources that Ray keeps for a trial, as NAME=AMOUNT.
        trial_timeout: Seconds after which a trial is ended and counts as failed (`--trial-timeout`); None takes 20
            times the median of the finished trials, a minute or more. Needs workers.
        task_timeout: Seconds in which a worker has to make the task, before its first trial; after that the run ends
            with a message. None waits for ever.
        latency: When workers measure latency: "end" predicts it while trials run, and measures what reaches the front
            at the end of the run; "quiet" measures in each trial, while no other trial of the host runs. With Ray, any
            other name is that of a resource: latencies are measured at the end, where the cluster has it.

    Example:
        >>> WorkerSettings(count=2).is_inline
        False
    """

    count: Annotated[int | None, or_none(at_least(1))] = None
    ray_address: Annotated[str, NAME] = ""
    cpus: Annotated[float, NON_NEGATIVE] = 1.0
    gpus: Annotated[float, NON_NEGATIVE] = 0.0
    resources: Annotated[tuple[str, ...], each(NAME, least=0)] = ()
    trial_timeout: Annotated[float | None, or_none(POSITIVE)] = None
    task_timeout: Annotated[float | None, or_none(POSITIVE)] = 1800.0
    latency: Annotated[str, NAME] = AT_END

    def __post_init__(self) -> None:
        check_fields("the settings of workers", self, "workers", more=self._checks())

    def _checks(self) -> Iterator[FieldCheck]:
        for text in self.resources:
            yield _is_amount(text), "workers.resources", "be NAME=AMOUNT, such as tpu=1", text

    @property
    def is_inline(self) -> bool:
        """Whether trials run one after the other in the process of the study."""
        return self.count is None and not self.ray_address

    @property
    def amounts(self) -> dict[str, float]:
        """Name of a further resource -> its amount."""
        pairs = (text.partition("=") for text in self.resources)
        return {name.strip(): float(amount) for name, _, amount in pairs}


def _is_amount(text: str) -> bool:
    name, _, amount = text.partition("=")
    try:
        return bool(name.strip()) and 0 < float(amount) < math.inf
    except ValueError:
        return False


@tell_moved_fields
@stored(Format(what="settings of a study", optional=None, refuses_unknown=True, lift=grouped))
@dataclass(frozen=True, slots=True, kw_only=True)
class StudySettings(SpaceSettings):
    """Settings of a study, in groups.

    Attributes:
        trials: Number of finished candidates. The first are warm starts: the dense model and the chain of
            search.solved_points; with nine or fewer trials there is only this chain.
        seconds: Start no new trial after this time.
        samples: Start no new trial once this many samples are processed, trained or passed forward; for comparisons at
            equal compute. The scan takes at most a quarter of them; the dense model is always measured.
        seed: Seed of the sampler, the data order and every other choice.
        objectives: "quality", one or more costs, such as "size_bytes" or "peak_memory_bytes" (docs/search.md lists
            them), and any other metrics of the task, such as "recall".
        limits: Limits of the search: a plan that exceeds a limit is shrunk before it is trained, or reported to the
            sampler as infeasible; `--limit` of `run`.
        structure: Structures to prune: channels, heads, blocks and layers.
        masks: Masks of single weights.
        schedule: When pruning happens during the fine-tune.
        recovery: The fine-tune and the recovery steps of a trial.
        search: How plans are proposed.
        measure: How latency is measured.
        storage: Files that a run folder keeps.
        workers: Where trials run.

    Raises:
        ConfigurationError: A value is out of its range.
        UnknownNameError: A name is in no registry.

    Example:
        >>> StudySettings(trials=60, objectives=("quality", "multiply_adds")).warm_starts
        9
    """

    trials: Annotated[int, at_least(1)] = 40
    seconds: Annotated[float | None, or_none(POSITIVE)] = None
    samples: Annotated[int | None, or_none(at_least(1))] = None
    seed: Annotated[int, at_least(0)] = 0
    objectives: Annotated[tuple[str, ...], each(NAME)] = DEFAULT_OBJECTIVES
    limits: Annotated[Limits, instance_of(Limits)] = field(default_factory=Limits)
    measure: Annotated[MeasureSettings, instance_of(MeasureSettings)] = field(default_factory=MeasureSettings)
    storage: Annotated[StorageSettings, instance_of(StorageSettings)] = field(default_factory=StorageSettings)
    workers: Annotated[WorkerSettings, instance_of(WorkerSettings)] = field(default_factory=WorkerSettings)

    def __post_init__(self) -> None:
        check_fields("the settings", self, more=(*self._checks_between_groups(), *_checks(self)))
        for what, name, known in (
            ("search.sampler", self.search.sampler, (AUTO, *SAMPLERS)),
            ("search.early_stopping", self.search.early_stopping, tuple(RULES)),
        ):
            if name not in known:
                raise UnknownNameError(what, name, known)

    @property
    def needs_device_profile(self) -> bool:
        """Return whether the search works on latencies or grains that a device profile predicts."""
        return self.structure.round_to == DEVICE or self.predicts_latency

    @property
    def predicts_latency(self) -> bool:
        """Return whether predicted latencies decide in the search."""
        return self.search.cost == LATENCY_COST or self.measure.predicts

    @property
    def deciding(self) -> frozenset[str]:
        """Return the names of objectives and of what is limited."""
        return frozenset((*self.objectives, *(limit.objective for limit in self.limits.each.values())))

    @property
    def energy_decides(self) -> bool:
        """Return whether energy is an objective or limited."""
        return ENERGY in self.deciding

    @property
    def warm_starts(self) -> int:
        """Return the most trials before the sampler's first proposal: dense, solved and uniform points."""
        return 1 + self.search.solved_points + self.search.uniform_points

    @property
    def scan_budget(self) -> int | None:
        """Return the most samples that the scan may see, at most a quarter of all; None has no limit."""
        limits = [self.search.scan_samples, None if self.samples is None else self.samples // 4]
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
        return from_plain(cls, data, where, ConfigurationError)


def with_fields(settings: StudySettings, assignments: Iterable[str]) -> StudySettings:
    """Change fields that are given as text.

    Args:
        settings: The settings to begin with.
        assignments: Texts "group.field=value", or "field=value" for a field outside the groups. Several values are
            joined by commas; "none" stands for None where the field may be None.

    Returns:
        The changed settings.

    Raises:
        ConfigurationError: A text is no assignment, or a value does not fit.
        UnknownNameError: There is no such field.

    Example:
        >>> with_fields(StudySettings(), ["recovery.steps=20", "recovery.distillation=0,0.9"]).recovery.distillation
        (0, 0.9)
    """
    kinds = field_types(type(settings))
    changes: dict[str, object] = {}
    for assignment in assignments:
        path, sign, text = assignment.partition("=")
        if not sign:
            example = "such as recovery.steps=60"
            raise ConfigurationError(error_message("a setting", f"be GROUP.FIELD=VALUE, {example}", repr(assignment)))
        if path not in kinds or path in OWN_OPTIONS:
            raise _unknown(path, kinds)
        changes[path] = _value(text.strip(), kinds[path])
    return settings.changed(changes)


def _unknown(path: str, known: Mapping[str, object]) -> ConfigurationError:
    if path in MOVED:
        return ConfigurationError(
            error_message("a setting", "have its group in front", repr(path), f"Set {MOVED[path]}.")
        )
    for name, option in OWN_OPTIONS.items():
        if path == name or path.startswith(f"{name}."):
            return ConfigurationError(f"{name} is given by an option of its own, such as {option}.")
    group = path.rpartition(".")[0]
    within = [name for name in known if name.startswith(f"{group}.")] if group else known
    return UnknownNameError("a setting", path, [name for name in within or known if name not in OWN_OPTIONS])


def _value(text: str, kind: object) -> object:
    """Read a value of a type from text; text that is none stays text, which the settings refuse."""
    if get_origin(kind) is tuple:
        return tuple(_value(one.strip(), get_args(kind)[0]) for one in text.split(",") if one.strip())
    if isinstance(kind, UnionType):
        return _of_union(text, get_args(kind))
    if kind is bool:
        return {"true": True, "false": False}.get(text.lower(), text)
    for read in (int, float) if kind in (int, float) else ():
        try:
            return read(text)
        except ValueError:
            continue
    return text


def _of_union(text: str, kinds: tuple[object, ...]) -> object:
    if NoneType in kinds and text.lower() in ("none", "null"):
        return None
    several = [kind for kind in kinds if get_origin(kind) is tuple]
    single = [kind for kind in kinds if kind not in (*several, NoneType)]
    return _value(text, several[0] if several and ("," in text or not single) else single[0])


def _checks(settings: StudySettings) -> Iterator[FieldCheck]:
    objectives, search = settings.objectives, settings.search
    different = len(set(objectives)) == len(objectives) >= 2 and QUALITY in objectives
    timed = [name for name in objectives if (cost := find_cost(name)) is not None and cost.is_latency]
    measured = not timed or settings.measure.latency_rounds != 0
    rising = all(a < b for a, b in itertools.pairwise(search.rungs))
    yield different, "objectives", "be 'quality' and one or more different others", objectives
    yield rising, "search.rungs", "be shares in [0, 1), each above the one before", search.rungs
    rounds = settings.measure.latency_rounds
    yield measured, "measure.latency_rounds", f"be >= 1 when {', '.join(timed)} is an objective", rounds
