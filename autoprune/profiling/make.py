"""Make a device profile: time cuts of the dense model, find the grains, and fit the latency model."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace

from torch import nn

from autoprune.measure.latency.backends import backend_of
from autoprune.measure.latency.comparer import LatencyComparer
from autoprune.measure.latency.timing import Timing
from autoprune.plan.kept import KeptChannels
from autoprune.profiling.device import this_device
from autoprune.records.device_profile import DeviceProfile, Staircase, TimedModel, structure_of
from autoprune.records.layer_table import LayerTable
from autoprune.records.measurement import Latency
from autoprune.records.profile import LatencyProfile
from autoprune.search.allocation.latency_model import latency_model_of
from autoprune.search.allocation.staircases import GroupClass, find_grain, group_classes
from autoprune.search.allocation.timing_design import timing_design
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import OnlyRun, cut
from autoprune.task.data import Inputs

#: Models that are timed beside those of the staircases, and fewest where the time is used up.
WHOLE_MODELS, FEWEST_MODELS = 48, 16
#: Seconds after which no further model is timed, beyond the fewest.
LONGEST = 300.0
#: How long each model is timed: a fit averages the noise of many, also of those in doubt.
_TIMING = Timing(width=0.03, seconds=0.8, patient=True)

#: (timed models, all models, seconds left or None) -> nothing.
OnTimed = Callable[[int, int, float | None], None]


@dataclass(frozen=True, slots=True, kw_only=True)
class ProfileRequest:
    """Model, inputs and latency profile that a device profile is made for.

    Attributes:
        dense: The dense model.
        inputs: Example inputs.
        topology: Groups and blocks as a study prunes them.
        profile: Runtime, threads and inputs.
    """

    dense: nn.Module
    inputs: Inputs
    topology: Topology
    profile: LatencyProfile


def make_profile(
    request: ProfileRequest,
    *,
    on_timed: OnTimed | None = None,
    compare: Callable[[nn.Module], Latency] | None = None,
    whole_models: int = WHOLE_MODELS,
    seconds: float = LONGEST,
) -> DeviceProfile:
    """Time cuts of a model on this device. Nothing is trained.

    First the staircases: all groups with the same kinds of layers lose 1, 2, 3, ... channels from a multiple of 16.
    Then models of many widths and depths, on and off the grains that were found, and below one grain.

    Args:
        request: Model, inputs and latency profile.
        on_timed: Called after each timed model.
        compare: Times a model against the dense one; None for the backend of the latency profile.
        whole_models: Models to time beside those of the staircases.
        seconds: Time after which no further model is timed, beyond FEWEST_MODELS.

    Returns:
        The profile.

    Raises:
        ConfigurationError: The dense model does not run under the latency profile.
    """
    maker = _Maker(request, compare, on_timed or (lambda *_: None), seconds)
    staircases = maker.staircases(whole_models)
    grains = {name: staircase.grain for staircase in staircases for name in staircase.groups}
    maker.whole_models(grains, whole_models)
    first = maker.latencies[0]
    profile = DeviceProfile(
        structure=structure_of(request.topology),
        device=this_device(backend_of(request.profile)),
        latency_profile=request.profile,
        layers=maker.table,
        dense_ms=first.dense_ms,
        staircases=tuple(staircases),
        models=tuple(maker.timed),
        error=0.0,
        rank=0.0,
        doubts=_doubts(maker.latencies),
        trusted=2 * len(_doubtful(maker.latencies)) <= len(maker.latencies),
        seconds=time.monotonic() - maker.start,
    )
    fit = latency_model_of(profile)
    return replace(profile, error=fit.error, rank=fit.rank)


def has_staircases(topology: Topology) -> bool:
    """Return whether some group is wide enough that a profile can find its grain.

    Args:
        topology: Groups and blocks as a study prunes them.
    """
    return any(found.anchors for found in group_classes(LayerTable.of(topology)))


class _Maker:
    """Times cuts of the dense model."""

    def __init__(
        self,
        request: ProfileRequest,
        compare: Callable[[nn.Module], Latency] | None,
        on_timed: OnTimed,
        seconds: float,
    ) -> None:
        self._request, self._on_timed, self._seconds = request, on_timed, seconds
        self._compare = compare or LatencyComparer(request.dense, request.inputs, request.profile, _TIMING).compare
        self.start = time.monotonic()
        self.table = LayerTable.of(request.topology)
        self.timed: list[TimedModel] = []
        self.latencies: list[Latency] = []
        self._total = 0

    def staircases(self, whole_models: int) -> list[Staircase]:
        """Time the staircases of classes of groups, those with the most work first, for half of the time."""
        classes = [found for found in group_classes(self.table) if found.anchors]
        self._total = 1 + sum(len(found.lost) for found in classes) + whole_models
        self._time({}, ())
        done: list[Staircase] = []
        for found in classes:
            if done and time.monotonic() - self.start > self._seconds / 2:
                break
            done.append(self._staircase(found))
        return done

    def _staircase(self, found: GroupClass) -> Staircase:
        models = [self._time(found.widths(lost), ()) for lost in found.lost]
        ratios, half_widths = [one.ratio for one in models], [one.half_width for one in models]
        return Staircase(
            layers=found.layers,
            groups=found.groups,
            anchors=tuple(found.anchors.get(name, 0) for name in found.groups),
            lost=found.lost,
            ratios=tuple(ratios),
            half_widths=tuple(half_widths),
            grain=find_grain(found.lost, ratios, half_widths),
        )

    def whole_models(self, grains: Mapping[str, int], count: int) -> None:
        """Time models of many widths and depths."""
        for number, one in enumerate(timing_design(self.table, grains)):
            late = number >= FEWEST_MODELS and time.monotonic() - self.start > self._seconds
            if number == count or late:
                break
            self._time(one.widths, one.dropped)

    def _time(self, widths: Mapping[str, int], dropped: Sequence[str]) -> TimedModel:
        topology = self._request.topology
        groups = {name: tuple(range(width)) for name, width in widths.items()}
        kept = KeptChannels(groups=groups, dropped=tuple(block.name for block in topology.dropped(dropped)))
        found = self._compare(cut(self._request.dense, topology, kept, only_run=OnlyRun()))
        model = TimedModel(
            widths=dict(widths),
            dropped=kept.dropped,
            ratio=found.ratio,
            half_width=(found.ratio_high - found.ratio_low) / 2 / found.ratio,
        )
        self.timed.append(model)
        self.latencies.append(found)
        done = len(self.timed)
        left = (time.monotonic() - self.start) / done * (self._total - done)
        self._on_timed(done, self._total, left if done > 1 else None)
        return model


def _doubtful(latencies: Sequence[Latency]) -> list[Latency]:
    return [one for one in latencies if one.doubts]


def _doubts(latencies: Sequence[Latency]) -> tuple[str, ...]:
    """Say how many measurements cannot be trusted, and why the first of them cannot; why another backend was timed."""
    doubtful, told = _doubtful(latencies), []
    if latencies[0].fallback:
        told.append(latencies[0].fallback)
    if 2 * len(doubtful) > len(latencies):
        told.append(f"{len(doubtful)} of {len(latencies)} measurements are doubtful, such as: {doubtful[0].doubts[0]}")
    return tuple(told)
