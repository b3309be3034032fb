"""A device profile of a device that a function describes: it says which widths are fast, and how long any cut takes."""

from __future__ import annotations

import functools
import itertools
import json
from dataclasses import replace
from pathlib import Path

import numpy as np
import pytest
import torch
from torch import nn

from autoprune.errors import StorageError
from autoprune.measure.latency.comparer import LatencyComparer
from autoprune.measure.latency.timing import Timing
from autoprune.plan.kept import KeptChannels
from autoprune.profiling import make
from autoprune.profiling.cache import cached_path, read_cached, write_cached
from autoprune.profiling.device import this_device
from autoprune.profiling.make import FEWEST_MODELS, ProfileRequest, make_profile
from autoprune.proof.discover import discover_structure
from autoprune.records.device_profile import DeviceProfile, structure_of
from autoprune.records.layer_table import LayerTable
from autoprune.records.measurement import Latency
from autoprune.records.profile import LatencyProfile
from autoprune.records.user_cache import CACHE_VARIABLE, cache_folder
from autoprune.search.allocation.latency_model import latency_model_of
from autoprune.search.allocation.staircases import GRAINS, LOST, find_grain, group_classes
from autoprune.search.allocation.timing_design import timing_design
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from tests.zoo.convolutional import ResNet, mobilenet

GRAIN = 4


def dense() -> nn.Module:
    torch.manual_seed(0)
    return ResNet(widths=(32, 48), depth=2).eval()


@functools.cache
def topology() -> Topology:
    return discover_structure(dense(), torch.randn(1, 1, 8, 8))


def padded(width: int) -> int:
    return -(-width // GRAIN) * GRAIN


def cost(model: nn.Module) -> float:
    """A runtime that pads channels to multiples of 4, and takes half as long again off them."""
    total = 40_000.0
    for module in model.modules():
        if isinstance(module, nn.Conv2d | nn.Linear):
            out, into, *kernel = module.weight.shape
            slow = 1.5 if (out % GRAIN or into % GRAIN) and into > 1 and out > 10 else 1.0
            total += slow * padded(out) * padded(into) * float(np.prod(kernel))
    return total


def compare(model: nn.Module) -> Latency:
    ratio = cost(model) / cost(dense())
    return Latency(
        latency_ms=2 * ratio,
        low_ms=1.98 * ratio,
        high_ms=2.02 * ratio,
        dense_ms=2.0,
        ratio=ratio,
        ratio_low=0.99 * ratio,
        ratio_high=1.01 * ratio,
        backend="onnxruntime",
        rounds=5,
    )


def request_of(profile: str = "default") -> ProfileRequest:
    return ProfileRequest(
        dense=dense(), inputs=torch.randn(1, 1, 8, 8), topology=topology(), profile=LatencyProfile(name=profile)
    )


@functools.cache
def made() -> DeviceProfile:
    return make_profile(request_of(), compare=compare)


def test_the_grain_and_the_prices_of_a_device_are_found() -> None:
    profile = made()
    assert {staircase.grain for staircase in profile.staircases} == {GRAIN}
    assert set(profile.grains) == set(topology().widths)
    assert profile.error < 0.05
    assert profile.rank > 0.97
    model = latency_model_of(profile)
    assert model.dense_ms == profile.dense_ms == 2.0
    errors = []
    for one in itertools.islice(timing_design(profile.layers, profile.grains, seed=7), 10):
        kept = KeptChannels(
            groups={name: tuple(range(width)) for name, width in one.widths.items()},
            dropped=tuple(block.name for block in topology().dropped(one.dropped)),
        )
        real = compare(cut(dense(), topology(), kept)).ratio
        errors.append(abs(model.ratio(kept.widths, kept.dropped) / real - 1.0))
    assert np.median(errors) < 0.05


def test_progress_counts_to_the_end_and_says_what_is_left() -> None:
    told: list[tuple[int, int, float | None]] = []
    make_profile(request_of(), compare=compare, whole_models=3, on_timed=lambda *one: told.append(one))
    assert [done for done, _, _ in told] == list(range(1, len(told) + 1))
    assert {total for _, total, _ in told} == {len(told)}
    assert told[0][2] is None
    assert told[-1][2] == 0.0


def test_after_its_time_one_staircase_and_the_fewest_models_are_timed() -> None:
    torch.manual_seed(0)
    parts = (nn.Conv2d(1, 32, 3), nn.ReLU(), nn.Conv2d(32, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    mixed = nn.Sequential(*parts, nn.Linear(4, 32), nn.ReLU(), nn.Linear(32, 2)).eval()
    found, profile = discover_structure(mixed, torch.randn(1, 1, 8, 8)), LatencyProfile(name="default")
    request = ProfileRequest(dense=mixed, inputs=torch.randn(1, 1, 8, 8), topology=found, profile=profile)
    whole = make_profile(request, compare=compare, whole_models=FEWEST_MODELS)
    brief = make_profile(request, compare=compare, seconds=0.0)
    assert [one.layers for one in whole.staircases] == ["convolution", "linear"]
    assert [one.layers for one in brief.staircases] == ["convolution"]
    assert len(brief.models) == 1 + len(brief.staircases[0].lost) + FEWEST_MODELS
    assert brief.trusted
    assert not brief.doubts
    busy = make_profile(request, compare=lambda model: replace(compare(model), doubts=("Other work ran.",)), seconds=0)
    assert not busy.trusted
    assert "measurements are doubtful, such as: Other work ran." in busy.doubts[-1]


def test_few_widths_are_enough_where_there_are_no_more() -> None:
    torch.manual_seed(0)
    small = nn.Sequential(nn.Linear(4, 3), nn.ReLU(), nn.Linear(3, 2)).eval()
    found = discover_structure(small, torch.randn(2, 4))
    request = ProfileRequest(
        dense=small, inputs=torch.randn(2, 4), topology=found, profile=LatencyProfile(name="default")
    )
    profile = make_profile(request, compare=compare)
    assert profile.staircases == ()
    assert latency_model_of(profile).ratio({}) == pytest.approx(compare(small).ratio, rel=0.05)


def test_this_machine_has_a_profile() -> None:
    """The runtime itself: what it says depends on the machine, so that only the form is looked at."""
    profile = LatencyProfile(name="default", backend="onnxruntime")
    comparer = LatencyComparer(dense(), torch.randn(1, 1, 8, 8), profile, Timing(bursts=1, seconds=0.01))
    request = ProfileRequest(dense=dense(), inputs=torch.randn(1, 1, 8, 8), topology=topology(), profile=profile)
    found = make_profile(request, compare=comparer.compare, whole_models=6)
    assert found.device.backend == "onnxruntime"
    assert found.dense_ms > 0
    assert len(found.models) == 7 + sum(len(one.lost) for one in found.staircases)
    assert {one.grain for one in found.staircases} <= {*GRAINS}
    model = latency_model_of(found)
    assert (model.prices >= 0).all()
    assert (model.further >= 0).all()
    assert 0 < model.ratio(dict.fromkeys(topology().widths, 4)) <= model.ratio({}) * 1.001


def test_it_is_stored_whole(tmp_path: Path) -> None:
    made().write(tmp_path / "profile.json")
    assert DeviceProfile.read(tmp_path / "profile.json") == made()
    made().check(structure_of(topology()), "it")
    with pytest.raises(StorageError, match="it must be a device profile of this model, but got one of another model"):
        made().check(structure_of(topology().only(("channels",))), "it")
    data = json.loads(made().to_json())
    data["models"][0]["widths"] = {"nowhere": 3}
    (tmp_path / "profile.json").write_text(json.dumps(data))
    with pytest.raises(StorageError, match="a timed model has unknown groups"):
        DeviceProfile.read(tmp_path / "profile.json")
    data = json.loads(made().to_json())
    data["dense_ms"] = -1.0
    (tmp_path / "profile.json").write_text(json.dumps(data))
    with pytest.raises(StorageError, match="a latency is not above 0"):
        DeviceProfile.read(tmp_path / "profile.json")
    data = json.loads(made().to_json())
    data["layers"]["work"][0]["lengths"] = [999]
    (tmp_path / "profile.json").write_text(json.dumps(data))
    with pytest.raises(StorageError, match="terms refer to lengths beyond"):
        DeviceProfile.read(tmp_path / "profile.json")


def test_the_shape_of_the_inputs_is_part_of_the_structure() -> None:
    larger = discover_structure(dense(), torch.randn(1, 1, 12, 12))
    assert larger.fingerprint() == topology().fingerprint()
    assert structure_of(larger) != structure_of(topology())


def test_a_profile_is_found_again_by_model_device_and_latency_profile(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path))
    assert cache_folder() == tmp_path
    structure, device = structure_of(topology()), this_device("onnxruntime")
    assert read_cached(structure, device, LatencyProfile(name="default")) is None
    path = write_cached(made())
    assert path is not None
    assert read_cached(structure, device, LatencyProfile(name="another")) == made(), "its name does not matter"
    assert read_cached(structure, device, LatencyProfile(name="default", batch_size=8)) is None
    assert read_cached(structure, this_device("eager"), LatencyProfile(name="default")) is None
    path.write_text("{")
    assert read_cached(structure, device, LatencyProfile(name="default")) is None, "a damaged file is made anew"


def test_where_the_cache_lies(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.delenv(CACHE_VARIABLE, raising=False)
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    assert cache_folder() == tmp_path / "autoprune"
    monkeypatch.delenv("XDG_CACHE_HOME")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    assert cache_folder() == tmp_path / "home" / ".cache" / "autoprune"
    monkeypatch.setenv(CACHE_VARIABLE, "")
    assert cache_folder() is None
    assert cached_path("structure", this_device("eager"), LatencyProfile(name="a")) is None
    assert write_cached(made()) is None
    monkeypatch.setenv(CACHE_VARIABLE, str(tmp_path / "file"))
    (tmp_path / "file").write_text("")
    assert write_cached(made()) is None, "a cache that cannot be written is no fault"


def test_the_device_says_what_decides_on_latency() -> None:
    device = this_device("onnxruntime")
    assert device.processor
    assert device.cores >= 1
    assert device.versions["torch"] == torch.__version__
    assert set(device.versions) == {"torch", "onnxruntime"}


@pytest.mark.parametrize("grain", GRAINS)
@pytest.mark.parametrize("slow_path", [0.0, 0.1])
@pytest.mark.parametrize("noise", [0.0, 0.001])
def test_a_staircase_is_recognised(grain: int, slow_path: float, noise: float) -> None:
    gone, random = np.array(LOST), np.random.default_rng(grain)
    times = 1.0 - 0.02 * np.floor(gone / grain) * grain + slow_path * (gone % grain != 0)
    times *= np.exp(noise * random.normal(size=len(gone)))
    assert find_grain(LOST, times.tolist(), [2 * noise] * len(gone)) == grain


def test_where_nothing_is_faster_every_width_is_as_good() -> None:
    assert find_grain(LOST, [1.0] * len(LOST), [0.01] * len(LOST)) == 1


def test_no_grain_makes_rounding_up_slower() -> None:
    """Multiples of 4 explain the times but for one width, which is quicker: no grain says to round it up."""
    times = [1.0 - 0.05 * (lost // 4 * 4) + 0.1 * (lost % 4 != 0) for lost in LOST]
    assert find_grain(LOST, times, [0.01] * len(LOST)) == 4
    times[LOST.index(3)] = 0.9
    assert find_grain(LOST, times, [0.01] * len(LOST)) == 1


def test_a_multiple_that_is_slower_than_a_wider_one_is_no_step() -> None:
    """Only multiples of 16 are fast; those of 4 cost less than the rest, and more than what is wider. As measured."""
    times = [0.999, 2.185, 2.108, 2.058, 1.157, 1.805, 1.140, 1.129, 0.478]
    assert find_grain(LOST, times, [0.05] * len(LOST)) == 16
    # On a busy machine intervals are wide, and no difference of two widths is certain by itself.
    busy = [0.992, 2.046, 1.99, 2.01, 1.117, 1.766, 1.1, 1.1, 0.637]
    assert find_grain(LOST, busy, [0.091, 0.074, 0.058, 0.055, 0.048, 0.088, 0.069, 0.116, 0.105]) > 4
    level = [0.999, 2.185, 2.108, 2.058, 0.98, 1.805, 0.75, 0.70, 0.478]
    assert find_grain(LOST, level, [0.05] * len(LOST)) == 4


def test_groups_with_the_same_layers_share_a_staircase() -> None:
    classes = group_classes(LayerTable.of(topology()))
    assert sorted(name for one in classes for name in one.groups) == sorted(topology().widths)
    assert [one.layers for one in classes] == ["convolution"]
    for one in classes:
        assert one.lost == LOST
        assert all(anchor % GRAINS[-1] == 0 and anchor - LOST[-1] >= 1 for anchor in one.anchors.values())
        assert one.widths(3) == {name: anchor - 3 for name, anchor in one.anchors.items()}


def test_kinds_of_layers() -> None:
    """A convolution of one input channel is no depthwise one."""
    model = mobilenet().eval()
    found = discover_structure(model, torch.randn(1, 1, 8, 8))
    kinds = {one.layer: one.kind for one in LayerTable.of(found).work}
    convolutions = {name: module for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    assert any(module.groups > 1 for module in convolutions.values())
    for name, module in convolutions.items():
        kind = "depthwise" if module.groups > 1 else "pointwise" if module.kernel_size == (1, 1) else ""
        assert kinds[f"{name}.weight"] == f"{kind} convolution".strip()


def test_narrow_groups_lose_fewer_channels() -> None:
    narrow = discover_structure(ResNet(widths=(20, 20), depth=1).eval(), torch.randn(1, 1, 8, 8))
    (found,) = group_classes(LayerTable.of(narrow))
    assert set(found.anchors.values()) == {16}
    assert found.lost == LOST[:7]
    tiny = discover_structure(ResNet(widths=(8, 8), depth=1).eval(), torch.randn(1, 1, 8, 8))
    assert not any(one.anchors for one in group_classes(LayerTable.of(tiny)))


def test_a_design_covers_budgets_and_depths() -> None:
    table = LayerTable.of(topology())
    cuts = list(itertools.islice(timing_design(table, dict.fromkeys(table.names, 4)), make.WHOLE_MODELS))
    channels = topology().widths
    shares = [float(np.mean([width / channels[name] for name, width in one.widths.items()])) for one in cuts]
    assert min(shares) < 0.25
    assert max(shares) > 0.85
    allowed = {name: {1, 2, *range(4, whole + 1, 4), whole} for name, whole in channels.items()}
    beside = [sum(width not in allowed[name] for name, width in one.widths.items()) for one in cuts]
    assert {place % 5 for place, off in enumerate(beside) if off} == {4}, "every fifth model has any widths"
    narrow = [np.mean([width < 4 for width in one.widths.values()]) for one in cuts]
    assert 8 < sum(share > 0 for share in narrow) < 40, "in some models there are groups below one grain"
    assert max(narrow) == 1.0, "in some all groups are"
    assert 5 < sum(bool(one.dropped) for one in cuts) < 25
    assert make.WHOLE_MODELS >= FEWEST_MODELS
