"""Device profiles as a device would give them that is described by a function."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping, Sequence

from autoprune.records.device_profile import Device, DeviceProfile, Staircase, TimedModel, structure_of
from autoprune.records.layer_table import LayerTable
from autoprune.records.measurement import DEFAULT_PROFILE
from autoprune.records.profile import LatencyProfile
from autoprune.search.allocation.timing_design import timing_design
from autoprune.structure.topology import Topology

#: (widths, dropped blocks) -> latency as a share of dense.
Clock = Callable[[Mapping[str, int], Sequence[str]], float]


def profile_of(topology: Topology, clock: Clock, *, grain: int = 1, models: int = 30) -> DeviceProfile:
    """The profile of a device without noise, all of whose groups have one grain."""
    table = LayerTable.of(topology)
    cuts = itertools.islice(timing_design(table, dict.fromkeys(table.names, grain)), models)
    stairs = Staircase(
        layers="convolution",
        groups=table.names,
        anchors=table.channels,
        lost=(0, 1),
        ratios=(1.0, 1.0),
        half_widths=(0.01, 0.01),
        grain=grain,
    )
    return DeviceProfile(
        structure=structure_of(topology),
        device=Device(processor="a processor", cores=2, system="a system", backend="onnxruntime", versions={}),
        latency_profile=LatencyProfile(name=DEFAULT_PROFILE),
        layers=table,
        dense_ms=2.0,
        staircases=(stairs,) if grain > 1 else (),
        models=tuple(
            TimedModel(widths=cut.widths, dropped=cut.dropped, ratio=clock(cut.widths, cut.dropped), half_width=0.01)
            for cut in cuts
        ),
        error=0.01,
        rank=1.0,
    )


def half_for_nothing(topology: Topology) -> Clock:
    """A clock that takes half of the time whatever is cut, and half for the multiply-adds."""
    return lambda widths, dropped: 0.5 + 0.5 * topology.share(widths, dropped)
