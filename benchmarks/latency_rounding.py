"""Whether widths rounded by the device profile are slower, or less accurate, than the widths they were rounded from.

    python -m benchmarks.latency_rounding [--network resnet14] [--pairs 10] [--images 1] [--steps 60]

For each network of benchmarks/against a device profile is made as a study makes it. Each pair has a model of any widths
and the one that a study proposes in its place: the same shape, rounded to the grain of the profile at the same number
of multiply-adds. Both are timed in turn with each other in ONNX Runtime, trained further for STEPS optimizer steps
from the same dense model with the same seed, and compared on the same search samples, whose standard error does not
contain the luck of the training. A few minutes a network.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import torch
import typer

import autoprune
from autoprune.measure.latency.comparer import LatencyComparer
from autoprune.profiling.make import ProfileRequest, make_profile
from autoprune.records.cost_table import CostTable
from autoprune.records.measurement import Latency
from autoprune.records.paired import difference_error
from autoprune.records.profile import LatencyProfile
from autoprune.report.device import show_profile
from autoprune.search.allocation.allowed_widths import AllowedWidths
from autoprune.search.allocation.cost_model import CostModel
from autoprune.search.allocation.rounding import round_to_budget
from autoprune.search.allocation.timing_design import timing_design
from benchmarks.against.__main__ import task
from benchmarks.against.networks import recovery
from benchmarks.reporting import print_machine, print_table, spread

#: Groups that have a grain, or are pruned beside those that have one.
_KINDS = ("channels", "heads")
#: Fewest multiply-adds of a pair, as a share of dense: a study proposes few below.
_LOWEST = 0.02
#: Standard errors of a difference in accuracy that is no luck, one-sided with 97.5 %.
_CLEAR = 1.96


@dataclass(frozen=True, slots=True, kw_only=True)
class Rounded:
    """A pair. work: multiply-adds of the rounded model over the other one's. gain: of accuracy, and its error."""

    work: float
    latency: Latency
    gain: float
    error: float


def main(
    network: list[str] = ["resnet14", "mobilenet", "plain", "vit"],  # noqa: B006  # typer's way to give several
    pairs: int = 10,
    images: int = 1,
    steps: int = 60,
) -> None:
    """Round and time the pairs of each network, and print the table."""
    torch.set_num_threads(1)
    print_machine()
    rows = []
    for name in network:
        found = list(_pairs(name, images, pairs, steps))
        if not found:
            rows.append([name, "0", *["every width is as fast as its neighbours: nothing to round"], *[""] * 5])
            continue
        slower = sum(one.latency.ratio_low > 1 for one in found)
        worse, better = (sum(sign * one.gain > _CLEAR * one.error for one in found) for sign in (-1, 1))
        rows.append(
            [
                name,
                str(len(found)),
                spread([one.work for one in found]),
                spread([one.latency.ratio for one in found]),
                str(slower),
                spread([100 * one.gain for one in found]),
                f"{100 * float(np.median([one.error for one in found])):.2f}",
                f"{worse} and {better}",
            ]
        )
    columns = (
        *("network", "pairs", "multiply-adds, rounded to unrounded", "time, rounded to unrounded"),
        *("slower beyond noise", "accuracy gained, points", "its standard error", "beyond it worse, and better"),
    )
    print_table(f"rounding by the device profile, {images} images, {steps} steps", columns, rows)


def _pairs(network: str, images: int, count: int, steps: int) -> Iterator[Rounded]:
    whole = task(network)
    assert isinstance(whole.example_inputs, torch.Tensor)
    context = autoprune.TrialContext.of(replace(whole, example_inputs=whole.example_inputs[:images]), kinds=_KINDS)
    dense, inputs, topology = context.task.dense, context.task.example_inputs, context.topology
    latency = LatencyProfile(name="default", backend="onnxruntime")
    profile = make_profile(ProfileRequest(dense=dense, inputs=inputs, topology=topology, profile=latency))
    show_profile(profile)
    if set(profile.grains.values()) == {1}:
        return
    table = CostTable.of(topology)
    cost = CostModel.of_table(table, "multiply_adds")
    allowed = AllowedWidths.of(table.least, [profile.grains[name] for name in table.names], table.channels)
    designs = (one.widths for one in timing_design(profile.layers, {}, seed=2))
    drawn = (np.array([widths[name] for name in table.names], dtype=np.float64) for widths in designs)
    for exact in itertools.islice((one for one in drawn if cost.share(one) >= _LOWEST), count):
        both = [exact, round_to_budget(cost, exact, cost.share(exact), allowed)]
        plans = [_plan(dict(zip(table.names, one.astype(int).tolist(), strict=True)), topology) for one in both]
        trained = [
            autoprune.evaluate(replace(plan, recovery=replace(recovery(network), steps=steps)), context)
            for plan in plans
        ]
        before, after = (one.measurement for one in trained)
        comparer = LatencyComparer(trained[0].model, inputs, latency)
        found = Rounded(
            work=after.multiply_adds / before.multiply_adds,
            latency=comparer.compare(trained[1].model),
            gain=after.quality - before.quality,
            error=difference_error(after, before),
        )
        comparer.close()
        print(
            f"{network}: {before.multiply_adds:,} multiply-adds, times {found.work:.3f} rounded; time "
            f"{found.latency.ratio:.3f} ({found.latency.ratio_low:.3f} to {found.latency.ratio_high:.3f}); accuracy "
            f"{before.quality:.4f}, {found.gain:+.4f} with an error of {found.error:.4f}; "
            f"{[int(one) for one in both[0]]} to {[int(one) for one in both[1]]}",
            flush=True,
        )
        yield found


def _plan(widths: dict[str, int], topology: autoprune.Topology) -> autoprune.PruningPlan:
    """The plan that keeps so many channels of each group."""
    groups = {
        name: autoprune.GroupPlan(count=topology.widths[name] - width, criterion="l2") for name, width in widths.items()
    }
    return autoprune.PruningPlan(groups=groups)


if __name__ == "__main__":
    typer.run(main)
