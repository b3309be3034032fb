"""How near the predicted latency is to the measured one.

    python -m benchmarks.latency_model [--network resnet14] [--held-out 40]

For each network the device profile is made as a study makes it. Then models that it has not seen are timed in ONNX
Runtime and compared with the prediction. A few minutes a network. Weights are random: latency does not depend on them.
"""

from __future__ import annotations

import itertools
from collections.abc import Callable, Mapping
from dataclasses import dataclass

import numpy as np
import torch
import typer
from scipy.stats import spearmanr
from torch import Tensor, nn

from autoprune.measure.latency.comparer import LatencyComparer
from autoprune.measure.latency.timing import Timing
from autoprune.plan.kept import KeptChannels
from autoprune.profiling.make import ProfileRequest, make_profile
from autoprune.proof.discover import discover_structure
from autoprune.records.device_profile import DeviceProfile
from autoprune.records.measurement import Latency
from autoprune.records.profile import LatencyProfile
from autoprune.report.device import show_profile
from autoprune.search.allocation.latency_model import latency_model_of
from autoprune.search.allocation.timing_design import Cut, timing_design
from autoprune.surgery.cut import cut
from benchmarks.against.networks import MobileNet, VisionTransformer
from benchmarks.reporting import print_machine
from studies.fashion_mnist.model import ResNet14

#: What is timed: channels, heads and whole blocks.
KINDS = ("channels", "heads", "head_width", "blocks")
#: Longest time of a measurement, in seconds.
SECONDS = 2.0


def image(build: Callable[[], nn.Module]) -> tuple[nn.Module, Tensor]:
    """A network and one image."""
    return build().eval(), torch.randn(1, 1, 28, 28)


def encoder() -> tuple[nn.Module, Tensor]:
    """MiniLM and a sentence of 32 tokens."""
    from studies.minilm.study import Embeddings, packaged

    return Embeddings(packaged()).eval(), torch.randint(1, 1000, (1, 32))


NETWORKS: Mapping[str, Callable[[], tuple[nn.Module, Tensor]]] = {
    "resnet14": lambda: image(ResNet14),
    "mobilenet": lambda: image(MobileNet),
    "vit": lambda: image(VisionTransformer),
    "minilm": encoder,
}


@dataclass(frozen=True, slots=True, kw_only=True)
class Bench:
    """A network with its device profile, and the function that times its cuts."""

    request: ProfileRequest
    profile: DeviceProfile
    comparer: LatencyComparer

    @classmethod
    def of(cls, name: str) -> Bench:
        """Make the device profile of a network."""
        torch.manual_seed(0)
        dense, inputs = NETWORKS[name]()
        topology = discover_structure(dense, inputs).only(KINDS)
        latency = LatencyProfile(name="default")
        request = ProfileRequest(dense=dense, inputs=inputs, topology=topology, profile=latency)
        comparer = LatencyComparer(dense, inputs, latency, Timing(seconds=SECONDS))
        return cls(request=request, profile=make_profile(request), comparer=comparer)

    def kept(self, one: Cut) -> KeptChannels:
        """The channels of a cut."""
        groups = {name: tuple(range(width)) for name, width in one.widths.items()}
        blocks = tuple(block.name for block in self.request.topology.dropped(one.dropped))
        return KeptChannels(groups=groups, dropped=blocks)

    def time(self, one: Cut) -> Latency:
        """The latency of a cut."""
        return self.comparer.compare(cut(self.request.dense, self.request.topology, self.kept(one)))


def check_predictions(bench: Bench, count: int) -> None:
    """Print the error of predictions for models that the profile has not seen."""
    if not count:
        return
    model, grains = latency_model_of(bench.profile), bench.profile.grains
    rounded = itertools.islice(timing_design(bench.profile.layers, grains, seed=1), count)
    any_widths = itertools.islice(timing_design(bench.profile.layers, {}, seed=3), count // 2)
    cuts = [*rounded, *any_widths]
    found = [bench.time(one) for one in cuts]
    measured = np.array([one.ratio for one in found])
    predicted = np.array([model.ratio((kept := bench.kept(one)).widths, kept.dropped) for one in cuts])
    noise = np.median([(one.ratio_high - one.ratio_low) / 2 / one.ratio for one in found])
    print(f"each known to within {noise:.1%}; {sum(bool(one.doubts) for one in found)} doubtful")
    narrow = np.array([any(width < grains[name] for name, width in one.widths.items()) for one in cuts])
    designed = np.arange(len(cuts)) < count
    kinds = {
        "rounded to the grain, as proposed": designed,
        "of these with a width below one grain": designed & narrow,
        "with any widths": ~designed,
        "all": designed | True,
    }
    for kind, which in kinds.items():
        if not which.any():
            continue
        errors = np.abs(predicted / measured - 1.0)[which]
        rank = spearmanr(predicted[which], measured[which])[0] if which.sum() > 1 else float("nan")
        print(
            f"{which.sum()} held-out models {kind}, ratio {measured[which].min():.2f} to {measured[which].max():.2f}: "
            f"median error {np.median(errors):.1%}, 90 % below {np.quantile(errors, 0.9):.1%}, bias "
            f"{np.median(predicted[which] / measured[which]) - 1:+.1%}, rank correlation {rank:.3f}",
            flush=True,
        )


def main(network: list[str] = list(NETWORKS), held_out: int = 40) -> None:  # noqa: B006
    """Make the profile of each network, and check its predictions."""
    torch.set_num_threads(1)
    print_machine()
    for name in network:
        print(f"\n{name}", flush=True)
        bench = Bench.of(name)
        show_profile(bench.profile)
        check_predictions(bench, held_out)


if __name__ == "__main__":
    typer.run(main)
