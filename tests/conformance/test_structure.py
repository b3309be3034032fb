"""Every architecture of the whole zoo: nothing wrong, most of it pruned, the rest explained."""

from __future__ import annotations

import functools
import os
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from autoprune.measure.cost import count_multiply_adds, count_parameters
from autoprune.plan.kept import KeptChannels
from autoprune.proof.discover import discover_structure
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.surgery.mask import mask
from autoprune.task.data import Inputs, call
from autoprune.trace.rules.registry import RULES
from autoprune.trace.running import plain_operators
from autoprune.trace.values import map_tensors, tensors_in
from tests.zoo.cover import cover, features, models, shown, table
from tests.zoo.registry import WHOLE_ZOO, build_any

pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")

#: Choices of channels for each model, and half of the blocks that are dropped alone; more in `make test-slow`.
EXAMPLES = int(os.environ.get("AUTOPRUNE_EXAMPLES", "2"))
#: Models that cast to float32 inside, so that float64 does not help.
COARSE = {
    *("hf_llama", "hf_llama_eager", "hf_mistral", "hf_qwen2", "hf_qwen3", "hf_gemma2", "hf_t5", "hf_t5_gated"),
    *("hf_gpt_neox", "hf_phi", "hf_mamba", "hf_deberta_v2"),
    *("hf_mixtral", "hf_mixtral_batched", "hf_mixtral_loop", "hf_qwen2_moe"),
}
#: Models with operators that torch only has in float32 or coarser.
SINGLE = {"hf_mamba", "hf_mixtral", "hf_qwen2_moe"}
#: Share of multiply-adds that goes with every group halved, where that is less than 0.6, and why.
LESS: Mapping[str, tuple[float, str]] = {
    "padded_shortcut": (0.3, "the first shortcut pads its channels by a fixed number"),
    "grouped_decoder": (0.4, "depthwise and grouped: only one side of their weights shrinks"),
    "depthwise_multiplier": (0.5, "depthwise: only one side of its weights shrinks"),
    "one_number_mlp": (0.5, "one input and one output: only one side of two layers shrinks"),
    "head_gate": (0.5, "its gate has a fixed number of heads"),
    "tied_weights": (0.5, "an autoencoder: both of its layers have one side of fixed width"),
    "layer_norm_net": (0.55, "three small layers, two of them with one side of fixed width"),
    "gated_linear": (0.45, "three small layers, each with one side of fixed width"),
    "shufflenet_v2": (0.55, "small: a third of the work is a stem that reads three channels"),
    "shufflenet": (0.4, "groups and shuffles couple every channel of a block with every other"),
    "nonlocal": (0.55, "products of places do not shrink with channels on both sides"),
    "bisenet": (0.55, "small layers before outputs of fixed width"),
    "gfnet": (0.35, "Fourier transforms and complex weights are not followed"),
    "hf_bert_eager": (0.45, "the hidden states are the output"),
    "hf_mpnet": (0.45, "the hidden states are the output"),
    "hf_wav2vec2": (0.5, "the hidden states and features are the output"),
    "hf_wav2vec2_stable": (0.5, "the hidden states and features are the output"),
    "packed_lstm": (0.2, "hidden units of packed sequences are not followed"),
    "speaker_net": (0.55, "small, and its scores are weighed by a fixed number"),
    "mixture_density": (0.55, "three heads of fixed width on a small body"),
    "vae": (0.5, "its code is part of the output"),
    "multi_query": (0.5, "queries, keys and values of unequal width in one projection"),
    "dlrm": (0.55, "the interaction picks pairs by number"),
    "siamese": (0.55, "small, with fixed input and output"),
    "gcn": (0.55, "the products with the graph shrink on one side only"),
    "pointnet": (0.4, "the transforms reshape by numbers in the code"),
}


#: Rules that no model of the zoo uses: this torch computes them by others, or tests/unit/trace has them.
WITHOUT_A_MODEL = {"flip", "linear", "rms_norm"}
#: A set cover in the default run, the others in `make test-slow`.
every_model = pytest.mark.parametrize("name", models(WHOLE_ZOO))


@dataclass(frozen=True, slots=True)
class Surveyed:
    """A model of the zoo in eval mode, its inputs and its proved topology; not to be changed."""

    model: nn.Module
    inputs: Inputs
    topology: Topology


@functools.cache
def surveyed(name: str) -> Surveyed:
    model, inputs = build_any(name)
    return Surveyed(model, inputs, discover_structure(model, inputs))


@functools.cache
def doubled(name: str) -> tuple[nn.Module, Inputs]:
    model, inputs = build_any(name)
    return (model, inputs) if name in SINGLE else (model.double().eval(), map_tensors(inputs, in_double))


def in_double(tensor: Tensor) -> Tensor:
    return tensor.double() if tensor.is_floating_point() else tensor


def outputs(model: nn.Module, inputs: Inputs) -> list[Tensor]:
    with torch.no_grad(), plain_operators(model):
        return tensors_in(call(model, inputs))


def assert_equal(name: str, kept: KeptChannels) -> None:
    model, inputs = doubled(name)
    topology = surveyed(name).topology
    smaller = outputs(cut(model, topology, kept), inputs)
    silenced = outputs(mask(model, topology, kept), inputs)
    assert len(smaller) == len(silenced) > 0
    for got, expected in zip(smaller, silenced, strict=True):
        scale = max(float(expected.abs().max()), 1e-6) if expected.numel() else 1.0
        assert got.shape == expected.shape
        assert torch.isfinite(got.double()).all()
        assert torch.allclose(got / scale, expected / scale, rtol=0, atol=2e-4 if name in COARSE else 1e-9)


@every_model
@settings(max_examples=EXAMPLES, deadline=None, derandomize=True)
@given(data=st.data())
def test_a_cut_computes_what_a_mask_does(name: str, data: st.DataObject) -> None:
    """Any channels of any of the groups."""
    groups = {}
    for group in surveyed(name).topology.groups:
        if data.draw(st.booleans()):
            count = data.draw(st.integers(group.min_channels, group.channels))
            seed = data.draw(st.integers(0, 99))
            order = torch.randperm(group.channels, generator=torch.Generator().manual_seed(seed))
            groups[group.name] = tuple(order[:count].tolist())
    assert_equal(name, KeptChannels(groups=groups))


@every_model
def test_blocks_can_be_dropped_one_by_one_and_all(name: str) -> None:
    blocks = tuple(block.name for block in surveyed(name).topology.blocks if block.exact)
    for dropped in {(block,) for block in blocks[:: 1 + len(blocks) // (2 * EXAMPLES)]} | {blocks[-1:], blocks}:
        assert_equal(name, KeptChannels(groups={}, dropped=dropped))


@every_model
def test_the_cost_without_blocks_and_layers_is_known_before_the_cut(name: str) -> None:
    """Without all blocks that are exact, without all layers, and without every other one of all."""
    found = surveyed(name)
    exact = tuple(block.name for block in found.topology.blocks if block.exact)
    layers = tuple(block.name for block in found.topology.blocks if block.repeated)
    for dropped in {exact, layers, (*exact, *layers)[::2]} - {()}:
        smaller = cut(found.model, found.topology, KeptChannels(groups={}, dropped=dropped))
        cost = found.topology.cost({}, dropped)
        assert cost.parameters == count_parameters(smaller)
        assert cost.multiply_adds == count_multiply_adds(smaller, found.inputs)


@every_model
def test_half_of_every_group_is_most_of_the_work(name: str) -> None:
    topology = surveyed(name).topology
    dense = topology.cost({}).multiply_adds
    half = topology.cost(
        {group.name: max(group.min_channels, group.channels // 2) for group in topology.groups}
    ).multiply_adds
    least, why = LESS.get(name, (0.6, ""))
    assert 1 - half / dense >= least, why


@every_model
def test_the_table_of_features_holds_what_a_model_shows(name: str) -> None:
    """The models of the default run are chosen by it."""
    assert features(*build_any(name)) == table()[name].shows, "run `python -m tests.zoo.cover --write`"


def test_the_default_run_shows_what_the_whole_zoo_shows() -> None:
    assert set(table()) == set(WHOLE_ZOO), "run `python -m tests.zoo.cover --write`"
    assert set(cover()) <= set(WHOLE_ZOO)
    assert shown(cover()) == shown(WHOLE_ZOO)
    assert len(cover()) < len(WHOLE_ZOO) / 2


def test_every_rule_is_used_by_a_model_or_known_not_to_be() -> None:
    used = {RULES[name] for name in shown(cover()) if name in RULES}
    assert {rule.__name__ for rule in set(RULES.values()) - used} == WITHOUT_A_MODEL


def test_models_that_are_pruned_less_are_few() -> None:
    assert set(LESS) <= set(WHOLE_ZOO)
    assert len(LESS) < len(WHOLE_ZOO) / 6
    assert len(WHOLE_ZOO) > 150


@every_model
def test_every_layer_is_covered_or_explained(name: str) -> None:
    model, topology = surveyed(name).model, surveyed(name).topology
    members = {member.tensor for group in topology.groups for member in group.members}
    explained = {entry.module for entry in topology.unprunable}
    assert all(entry.reason for entry in topology.unprunable)
    for tensor, parameter in model.named_parameters():
        if parameter.ndim > 1 and max(parameter.shape) > 1:
            module = tensor.rpartition(".")[0] or tensor
            assert tensor in members or module in explained, tensor


@every_model
def test_the_cost_of_any_widths_is_known_before_the_cut(name: str) -> None:
    found = surveyed(name)
    for share in (1.0, 0.75, 0.5):
        widths = {group.name: max(group.min_channels, int(group.channels * share)) for group in found.topology.groups}
        kept = KeptChannels(groups={group: tuple(range(width)) for group, width in widths.items()})
        smaller = cut(found.model, found.topology, kept)
        cost = found.topology.cost(widths)
        assert cost.parameters == count_parameters(smaller)
        # A product over one channel is carried out as a scaling, which the counter leaves out.
        if min(widths.values(), default=2) > 1:
            assert cost.multiply_adds == count_multiply_adds(smaller, found.inputs)
