"""Numbers and scales that follow a width: which, where, and for one layer only."""

from __future__ import annotations

import functools
import json
from dataclasses import replace

import numpy as np
import pytest
import torch
from torch import Tensor, nn

from autoprune.codec import to_plain
from autoprune.errors import SurgeryError
from autoprune.plan.kept import KeptChannels
from autoprune.proof.discover import discover_structure
from autoprune.proof.repairs import ScaleCorrection, candidate_repairs
from autoprune.structure.groups import ChannelGroup, Member
from autoprune.structure.stored import Structure
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.surgery.mask import mask
from autoprune.task.data import Inputs
from tests.zoo.registry import build_any


@functools.cache
def surveyed(name: str) -> tuple[nn.Module, Inputs, Topology]:
    model, inputs = build_any(name)
    return model, inputs, discover_structure(model, inputs)


def positions(group: ChannelGroup) -> dict[str, list[int]]:
    return {rescale.tensor: sorted(rescale.index.tolist()) for rescale in group.rescaled}


def test_a_config_that_layers_share_is_one_layers_own_once_that_loses_heads() -> None:
    model, tokens, topology = surveyed("counts_in_a_config")
    kept = KeptChannels(groups={"layers.0.qkv_proj": (1,)})
    text = json.dumps(to_plain(topology.describe()))
    read = Topology.of(Structure.from_json(text, "here"), "here")
    assert isinstance(tokens, Tensor)
    for known in (topology, read):
        smaller = cut(model, known, kept)
        layers = smaller.get_submodule("layers")
        assert [(layer.config.heads, layer.config.kv_heads) for layer in layers] == [(2, 1), (4, 2)]
        assert smaller.config.heads == 4
        assert torch.allclose(smaller(tokens), mask(model, topology, kept)(tokens), atol=1e-5)
    assert model.config.heads == 4


def test_a_scale_is_kept_where_it_is_worked_out_and_nowhere_else() -> None:
    """Four attentions on one residual width, two of which keep their scale as a number."""
    *_, topology = surveyed("one_scale_is_fixed")
    (width,) = (group for group in topology.groups if group.kind == "head_width")
    queries = list(range(16))
    assert positions(width) == {
        f"layers.{number}.qkv.{kind}": queries for number in (0, 3) for kind in ("weight", "bias")
    }


def test_the_bias_of_the_queries_is_rescaled_and_that_of_the_values_is_not() -> None:
    *_, topology = surveyed("biases_beside_qkv")
    (width,) = (group for group in topology.groups if group.kind == "head_width")
    assert positions(width) == {"layers.0.qkv.weight": list(range(16)), "layers.0.q_bias": list(range(16))}


def test_queries_that_share_keys_are_more_than_a_third_of_a_projection() -> None:
    *_, topology = surveyed("counts_in_a_config")
    (first, _) = (group for group in topology.groups if group.kind == "head_width")
    assert positions(first) == {"layers.0.qkv_proj.weight": list(range(24))}  # of 48


def fused(rows: int) -> ChannelGroup:
    """Two channels in every row of a projection, and its bias."""
    index = np.arange(2 * rows).reshape(rows, 2).T
    weight = Member(tensor="a.qkv.weight", axis=0, index=index, role="out")
    bias = Member(tensor="a.qkv.bias", axis=0, index=index, role="shift", beside=("a.qkv.weight", 0))
    return ChannelGroup(name="a", channels=2, members=(weight, bias), reshaped=("a",))


@pytest.mark.parametrize(
    ("scale", "rows"),
    [
        (ScaleCorrection(module="qkv"), range(12)),
        (ScaleCorrection(module="qkv", first=1, of=3), range(4)),
        (ScaleCorrection(module="qkv", first=1, of=3, alternating=True), (0, 3, 6, 9)),
        (ScaleCorrection(module="qkv", first=2, of=4), range(6)),
        (ScaleCorrection(module="qkv", first=4, of=6, alternating=True), (0, 1, 2, 3, 6, 7, 8, 9)),
        (ScaleCorrection(module="other"), ()),
    ],
)
def test_positions_of_the_queries(scale: ScaleCorrection, rows: range | tuple[int, ...]) -> None:
    found = {rescale.tensor: sorted(rescale.index.tolist()) for rescale in scale.of_group(fused(12))}
    wanted = sorted(2 * row + column for row in rows for column in range(2))
    assert found == ({"a.qkv.weight": wanted, "a.qkv.bias": wanted} if wanted else {})


def test_scales_are_kept_first_where_one_is_worked_out() -> None:
    made = [Member(tensor=f"{name}.weight", axis=0, index=np.arange(4)[:, None], role="out") for name in "abcd"]
    inner = replace(made[0], tensor="block.attention.query.weight")
    group = ChannelGroup(
        name="a", channels=4, kind="channels", members=(*made, inner), reshaped=("",), scaling=("block.attention",)
    )
    tried = list(dict.fromkeys(scale for change in candidate_repairs(group, ()) for scale in change.scales))
    assert tried[0] == ScaleCorrection(module="query", computed=True)
    assert {scale.module for scale in tried[1:] if not scale.computed} == {"a", "b", "c", "d", "query"}
    assert [scale.module for scale in tried if scale.computed] == ["query"]


def test_a_number_that_the_model_does_not_keep_is_said() -> None:
    model, _, topology = surveyed("counts_in_a_config")
    other = cut(model, topology, KeptChannels(groups={}))
    del other.get_submodule("layers.0").config.heads
    with pytest.raises(SurgeryError, match=r"keep a whole number in layers\.0\.config\.heads"):
        cut(other, topology, KeptChannels(groups={"layers.0.qkv_proj": (1,)}))


class Scores(nn.Module):
    """Holds the number of heads, and not what is reshaped by it."""

    def __init__(self, heads: int) -> None:
        super().__init__()
        self.heads, self.temperature = heads, nn.Parameter(torch.ones(heads, 1, 1))

    def forward(self, q: Tensor, k: Tensor) -> Tensor:
        return (q @ k.transpose(-1, -2) * self.temperature).softmax(-1)


class Mixer(nn.Module):
    """Reshapes by numbers of the module inside of it, or of the one around it."""

    def __init__(self, *, around: nn.Module | None = None) -> None:
        super().__init__()
        self.scores = Scores(4)
        self.around = (around,)
        self.q, self.k, self.v, self.out = (nn.Linear(16, 16) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        batch, places, _ = x.shape
        count = self.scores.heads if self.around[0] is None else self.around[0].count
        q, k, v = (layer(x).view(batch, places, count, -1).transpose(1, 2) for layer in (self.q, self.k, self.v))
        return self.out((self.scores(q, k) @ v).transpose(1, 2).reshape(batch, places, -1))


class Around(nn.Module):
    def __init__(self, *, inside: bool) -> None:
        super().__init__()
        self.count = 4
        self.mixer = Mixer(around=None if inside else self)
        self.embed, self.head = nn.Linear(5, 16), nn.Linear(16, 3)

    def forward(self, x: Tensor) -> Tensor:
        x = self.embed(x)
        return self.head(x + self.mixer(x)).mean(1)


@pytest.mark.parametrize(("inside", "number"), [(True, ("mixer.scores", "heads")), (False, ("", "count"))])
def test_a_module_may_reshape_by_a_number_of_another_next_to_it(inside: bool, number: tuple[str, str]) -> None:
    torch.manual_seed(0)
    topology = discover_structure(Around(inside=inside).eval(), torch.randn(2, 6, 5))
    (heads,) = (group for group in topology.groups if group.kind == "heads")
    assert [(found.module, found.name) for found in heads.attributes] == [number]


def test_each_of_two_kinds_of_attention_that_share_a_width_keeps_its_scale() -> None:
    """The queries are a third of what one layer makes in windows, and all of what another one makes for all places."""
    model, _, topology = surveyed("twins")
    (group,) = [group for group in topology.groups if group.kind == "head_width"]
    shares = {
        weights.tensor: len(weights.index) / model.get_parameter(weights.tensor).shape[0] for weights in group.rescaled
    }
    assert shares == {
        "blocks.0.attn.qkv.weight": pytest.approx(1 / 3),
        "blocks.0.attn.qkv.bias": pytest.approx(1 / 3),
        "blocks.1.attn.q.weight": 1,
        "blocks.1.attn.q.bias": 1,
    }
