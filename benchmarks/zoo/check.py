"""One model: find its structure, cut it at random, and compare each cut with what the decoder makes of it."""

from __future__ import annotations

import copy
import math
import random
import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field

import torch
from torch import Tensor, nn

from autoprune.measure.cost import count_multiply_adds, count_parameters
from autoprune.plan.kept import KeptChannels
from autoprune.proof.discover import discover_structure
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.task.data import Inputs, call
from autoprune.trace.values import clone_inputs, map_tensors, outputs_in
from benchmarks.zoo.absent import InDouble, WithoutAbsent, plain
from benchmarks.zoo.decoder import DecodeError, check_values, decode, removed

#: Cuts of each model: half of every group and half of the blocks; any channels; any channels and blocks.
DRAWS = ("half", "any", "any with blocks")
#: Not compared but run and counted: layers without which a model computes what nothing else does.
LAYERS = "layers"
#: Outputs are equal up to that share of their size, in float64.
ROUNDING = 1e-7


@dataclass(slots=True)
class Found:
    """What one model gave; plain values, for a line of JSON.

    left: share of the multiply-adds with every group halved. whole: share of the multiply-adds in layers whose outputs
    stay, output layers left out. worst: largest difference of any draw. effect: smallest change that one made.
    blocks, layers: that can go; blocks are exact, and layers are not. wrong, unchecked: of the draws, in words.
    reasons: of what stays, the largest first.
    """

    parameters: int = 0
    multiply_adds: int = 0
    groups: int = 0
    blocks: int = 0
    layers: int = 0
    left: float = 1.0
    whole: float = 1.0
    seconds: float = 0.0
    draws: int = 0
    worst: float = 0.0
    effect: float = math.inf
    wrong: list[str] = field(default_factory=list)
    unchecked: list[str] = field(default_factory=list)
    reasons: list[str] = field(default_factory=list)


def check(model: nn.Module, inputs: Inputs) -> Found:
    """Survey a model in eval mode and check every draw of it; the model itself never runs.

    Raises TraceError.
    """
    start = time.process_time()
    topology = discover_structure(model, inputs)
    found = Found(seconds=time.process_time() - start, parameters=count_parameters(model))
    dense = topology.cost({}).multiply_adds
    halves = {group.name: max(group.min_channels, group.channels // 2) for group in topology.groups}
    found.multiply_adds, found.left = dense, topology.share(halves)
    found.groups = len(topology.groups)
    found.blocks = sum(block.exact for block in topology.blocks)
    found.layers = len(topology.blocks) - found.blocks
    staying = stays(model, topology)
    found.whole = sum(share for share, _, _ in staying)
    found.reasons = [f"{name}: {share:.1%}, {reason}" for share, name, reason in sorted(staying, reverse=True)]
    for number, draw in enumerate(DRAWS):
        kept = drawn(topology, draw, number)
        if kept.groups or kept.dropped:
            _check_draw(model, inputs, topology, kept, found)
    if found.layers:
        found.draws += 1
        fault = layers_fault(model, inputs, topology)
        found.wrong += [f"{LAYERS}: {fault}"] if fault is not None else []
    return found


def _check_draw(model: nn.Module, inputs: Inputs, topology: Topology, kept: KeptChannels, found: Found) -> None:
    found.draws += 1
    name = DRAWS[found.draws - 1]
    result = compare(model, inputs, topology, kept)
    fault = None if result.fault else cost_fault(model, inputs, topology, kept)
    if fault is not None:
        found.wrong.append(f"{name}: {fault}")
    found.worst, found.effect = max(found.worst, result.difference), min(found.effect, result.effect)
    if result.fault:
        (found.unchecked if result.unknown else found.wrong).append(f"{name}: {result.fault}")


def drawn(topology: Topology, draw: str, seed: int) -> KeptChannels:
    """Channels and exact blocks that stay, at random; two or more of a group: a product over one is no longer one."""
    choose = random.Random(seed)
    groups = {}
    for group in topology.groups:
        least = min(group.channels, max(2, group.min_channels))
        count = max(least, group.channels // 2) if draw == "half" else choose.randint(least, group.channels)
        groups[group.name] = tuple(choose.sample(range(group.channels), count))
    blocks = [block.name for block in topology.blocks if block.exact]
    dropped = choose.sample(blocks, len(blocks) // 2) if draw != "any" else []
    return KeptChannels(groups=groups, dropped=tuple(dropped))


@dataclass(frozen=True, slots=True)
class Compared:
    """difference: the largest, of a value's size. effect: what the cut changed. fault: what is wrong, "" for nothing.

    unknown: operators that the dense model with absent elements cannot express.
    """

    difference: float
    effect: float
    fault: str = ""
    unknown: tuple[str, ...] = ()


def compare(model: nn.Module, inputs: Inputs, topology: Topology, kept: KeptChannels) -> Compared:
    """Compare a cut of a model in float64 with the dense model without what the decoder says was removed."""
    double = copy.deepcopy(model).double().eval()
    given = map_tensors(inputs, lambda tensor: tensor.double() if tensor.is_floating_point() else tensor)
    try:
        decoded = decode(double, lambda dense: cut(dense, topology, kept))
        smaller = cut(double, topology, kept)
        check_values(double, smaller, decoded)
    except DecodeError as error:
        return Compared(float("inf"), 0.0, str(error))
    rest = removed(double, decoded)
    absent = WithoutAbsent()
    try:
        with plain(), absent:
            expected = _numbers(call(rest, clone_inputs(given)))
    except Exception as error:  # the library's code runs in here
        return Compared(float("inf"), 0.0, f"the dense model does not run without it ({error})", ("an error",))
    try:
        with plain(), InDouble():  # type: ignore[no-untyped-call]  # torch leaves it untyped
            got = _numbers(call(smaller, clone_inputs(given)))
    except Exception as error:  # the library's code runs in here
        return Compared(float("inf"), 0.0, f"the cut model does not run ({error})")
    with plain(), InDouble():  # type: ignore[no-untyped-call]  # torch leaves it untyped
        whole = _numbers(call(double, clone_inputs(given)))
    difference, effect = distance(got, expected), distance(got, whole)
    fault = "" if difference <= ROUNDING else f"the outputs differ by {difference:.2g} of their size"
    if fault and absent.unknown:
        fault += f", after {', '.join(absent.unknown)} of what is absent"
    return Compared(difference, effect, fault, tuple(absent.unknown))


def cost_fault(model: nn.Module, inputs: Inputs, topology: Topology, kept: KeptChannels) -> str | None:
    """Say where the cost of a cut is another than the topology said beforehand."""
    smaller = cut(model, topology, kept)
    known = topology.cost(kept.widths, kept.dropped)
    parameters, multiply_adds = count_parameters(smaller), count_multiply_adds(smaller, clone_inputs(inputs))
    if known.parameters != parameters:
        return f"{parameters} parameters are left where {known.parameters} were foretold"
    if known.multiply_adds != multiply_adds:
        return f"{multiply_adds} multiply-adds are left where {known.multiply_adds} were foretold"
    return None


def layers_fault(model: nn.Module, inputs: Inputs, topology: Topology) -> str | None:
    """Say what is wrong without half of the layers that are not exact, and half of every group.

    The model has to run, give outputs of the shapes that it gives with them, and cost what was foretold.
    """
    layers = [block.name for block in topology.blocks if not block.exact]
    half = drawn(topology, DRAWS[0], 0).groups
    kept = KeptChannels(groups=half, dropped=tuple(random.Random(0).sample(layers, (len(layers) + 1) // 2)))
    try:
        with torch.no_grad():
            got = outputs_in(call(cut(model, topology, kept), clone_inputs(inputs)))
    except Exception as error:  # the library's code runs in here
        return f"the cut model does not run ({error})"
    with torch.no_grad():
        whole = outputs_in(call(copy.deepcopy(model), clone_inputs(inputs)))
    if [tensor.shape for tensor in got] != [tensor.shape for tensor in whole]:
        return "the outputs have other shapes"
    return cost_fault(model, inputs, topology, kept)


def stays(model: nn.Module, topology: Topology) -> list[tuple[float, str, str]]:
    """Share of the multiply-adds that makes channels in no group, module by module, and why they are in none.

    Left out: what makes the model's outputs, and what makes a single channel.
    """
    reached = _reached(topology)
    reasons = {entry.module: entry.reason for entry in topology.unprunable}
    dense = max(topology.cost({}).multiply_adds, 1)
    found: dict[str, float] = {}
    for product in topology.products:
        shape = topology.tensors[product.weight].shape
        axis = _making_axis(model, topology, product.weight)
        module = product.weight.rpartition(".")[0] or product.weight
        part = 1 - reached.get((product.weight, axis), 0) / shape[axis]
        if part > 0 and shape[axis] > 1 and not _is_output(reasons.get(module, "")):
            found[module] = found.get(module, 0.0) + part * product.positions * math.prod(shape) / dense
    return [(share, module, reasons.get(module, "is in no group")) for module, share in found.items()]


def _reached(topology: Topology) -> Mapping[tuple[str, int], int]:
    """(tensor, axis) -> positions that lie in a group."""
    positions: dict[tuple[str, int], set[int]] = {}
    for group in topology.groups:
        for member in group.members:
            positions.setdefault((member.tensor, member.axis), set()).update(member.index.flatten().tolist())
    return {key: len(found) for key, found in positions.items()}


def _making_axis(model: nn.Module, topology: Topology, weight: str) -> int:
    """The axis of a weight along which it makes channels."""
    parts = weight.split(".")
    for length in range(len(parts) - 1, 0, -1):  # a weight that is computed from others lies deeper
        module = model.get_submodule(".".join(parts[:length]))
        if isinstance(module, nn.modules.conv._ConvNd):
            return 1 if module.transposed else 0
        if isinstance(module, nn.Linear):
            return 0
    rank = len(topology.tensors[weight].shape)
    # The last two axes are a matrix; one before them tells experts apart.
    return max(2 * rank - 3 - topology.input_axes.get(weight, rank - 1), 0)


def _is_output(reason: str) -> bool:
    return "output" in reason


def _numbers(value: object) -> list[Tensor]:
    return [tensor.double() for tensor in outputs_in(value) if tensor.numel()]


def distance(outputs: Sequence[Tensor], expected: Sequence[Tensor]) -> float:
    """Largest difference of a value, of its own and the usual size; infinite where one is missing or not finite."""
    if [tensor.shape for tensor in outputs] != [tensor.shape for tensor in expected]:
        return float("inf")
    worst = 0.0
    for a, b in zip(outputs, expected, strict=True):
        differs = (a != b) | a.isnan()
        if not bool(differs.any()):
            continue
        finite = b[torch.isfinite(b)].abs()
        usual = float(finite.median()) if len(finite) else 0.0
        apart = ((a - b).abs() / (b.abs() + max(usual, 1e-12)))[differs].max()
        worst = max(worst, float(apart) if bool(torch.isfinite(apart)) else float("inf"))
    return worst
