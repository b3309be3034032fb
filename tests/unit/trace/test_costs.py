"""Costs of products of two activations: those of the model that is cut, whatever the widths."""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.proof.discover import discover_structure
from autoprune.search.allocation.cost_model import CostModel
from autoprune.structure.cost import STRUCTURE_COSTS
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.trace.trace import trace
from tests.slow import quick
from tests.unit.surgery.attentions import LAYOUTS, MIXES, Attention, Model, by_default
from tests.unit.surgery.helpers import stirred
from tests.unit.trace.test_cost import real_cost
from tests.zoo.registry import random_kept

SHAPES = ((2, 5, 10), (1, 7, 10), (4, 6, 10))


def assert_costs(model: nn.Module, inputs: Tensor, groups: set[int], *, least: int = 1) -> Topology:
    """Dense and cut, as the topology and as the model of every axis says.

    groups: the widths that have to be found. least: the smallest width that is tried.
    """
    topology = discover_structure(stirred(model), inputs)
    assert groups <= set(topology.widths.values())
    assert topology.cost({}) == real_cost(model, inputs)
    models = {axis: CostModel(topology, axis) for axis in STRUCTURE_COSTS}
    draws = [random_kept(topology, seed) for seed in range(8)]
    for kept in [draw for draw in draws if min(draw.widths.values()) >= least]:
        cost = topology.cost(kept.widths)
        assert cost == real_cost(cut(model, topology, kept), inputs)
        for axis, found in models.items():
            assert found.cost(found.as_array(kept.widths)) == pytest.approx(getattr(cost, axis), rel=1e-12)
            assert found.dense == pytest.approx(getattr(topology.cost({}), axis), rel=1e-12)
    return topology


@pytest.mark.parametrize("shape", quick(SHAPES, SHAPES[:1]), ids=str)
@pytest.mark.parametrize("layout", LAYOUTS)
def test_attention_by_hand(layout: str, shape: tuple[int, ...]) -> None:
    for mix in ("stored", "default"):
        assert_costs(Model(Attention(layout, MIXES[mix])), torch.randn(shape), {20, 4, 6})


class Torchs(nn.Module):
    def __init__(self, **calls: bool) -> None:
        super().__init__()
        self.attn, self.calls = nn.MultiheadAttention(24, 4, batch_first=True), calls

    def forward(self, x: Tensor) -> Tensor:
        return self.attn(x, x, x, **self.calls)[0]


@pytest.mark.parametrize("shape", SHAPES, ids=str)
@pytest.mark.parametrize("need_weights", [True, False])
def test_torchs_attention(need_weights: bool, shape: tuple[int, ...]) -> None:
    assert_costs(Model(Torchs(need_weights=need_weights), 24), torch.randn(shape), {24, 6})


def test_torchs_encoder() -> None:
    layer = nn.TransformerEncoderLayer(24, 4, 20, batch_first=True, norm_first=True)
    encoder = nn.TransformerEncoder(layer, 2, enable_nested_tensor=False)
    assert_costs(nn.Sequential(nn.Linear(10, 24), encoder, nn.Linear(24, 3)), torch.randn(2, 5, 10), {24, 4, 6, 20})


class Shared(nn.Module):
    """Four heads of queries for two of keys and values."""

    def __init__(self) -> None:
        super().__init__()
        self.num_heads, self.num_kv, self.head_dim = 4, 2, 6
        self.q, self.k, self.v = nn.Linear(20, 24), nn.Linear(20, 12), nn.Linear(20, 12)
        self.proj = nn.Linear(24, 20)

    def forward(self, x: Tensor) -> Tensor:
        q, k, v = (y.unflatten(-1, (-1, self.head_dim)).transpose(1, 2) for y in (self.q(x), self.k(x), self.v(x)))
        repeats = self.num_heads // self.num_kv
        y = F.scaled_dot_product_attention(q, k.repeat_interleave(repeats, 1), v.repeat_interleave(repeats, 1))
        return self.proj(y.transpose(1, 2).flatten(2))


def test_queries_that_share_keys() -> None:
    assert_costs(Model(Shared()), torch.randn(2, 5, 10), {20, 2, 6})


class Products(nn.Module):
    """Activations times activations, as `run` says."""

    def __init__(self, run: Callable[[Products, Tensor, Tensor, Tensor], Tensor], out: int) -> None:
        super().__init__()
        self.run = run
        self.a, self.b, self.c, self.out = nn.Linear(10, 12), nn.Linear(10, 12), nn.Linear(10, 14), nn.Linear(out, 3)

    def forward(self, x: Tensor) -> Tensor:
        return self.out(self.run(self, self.a(x), self.b(x), self.c(x)))


PRODUCTS: Mapping[str, tuple[Callable[[Products, Tensor, Tensor, Tensor], Tensor], int, set[int]]] = {
    "rows with rows": (lambda m, a, b, c: a @ b.transpose(1, 2) @ c, 14, {12, 14}),
    "channels with channels": (
        lambda m, a, b, c: (c.transpose(1, 2) @ a @ b.transpose(1, 2)).transpose(1, 2),
        14,
        {12, 14},
    ),
    "linear attention": (lambda m, a, b, c: a.softmax(-1) @ (b.softmax(1).transpose(1, 2) @ c), 14, {12, 14}),
    "einsum": (lambda m, a, b, c: torch.einsum("nid,njd,njc->nic", a, b, c), 14, {12, 14}),
    "baddbmm": (lambda m, a, b, c: torch.baddbmm(c, a @ b.transpose(1, 2), c), 14, {12, 14}),
    "matrix product": (lambda m, a, b, c: (a[0] @ b[0].t() @ c[0])[None], 14, {12, 14}),
    "concatenated": (lambda m, a, b, c: torch.cat([a, c], 2) @ torch.cat([b, c], 2).transpose(1, 2) @ c, 14, {12, 14}),
}


@pytest.mark.parametrize(("run", "out", "groups"), PRODUCTS.values(), ids=PRODUCTS)
@pytest.mark.parametrize("shape", SHAPES[:2], ids=str)
def test_products_of_activations(
    run: Callable[[Products, Tensor, Tensor, Tensor], Tensor], out: int, groups: set[int], shape: tuple[int, ...]
) -> None:
    # torch's einsum multiplies element by element, uncounted, where it sums over one channel.
    assert_costs(Products(run, out), torch.randn(shape), groups, least=2)


def test_bilinear_layers() -> None:
    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.two, self.out = (
                nn.Linear(10, 12),
                nn.Linear(10, 14),
                nn.Bilinear(12, 14, 9),
                nn.Linear(9, 3),
            )

        def forward(self, x: Tensor) -> Tensor:
            return self.out(self.two(self.a(x), self.b(x)))

    assert_costs(Two(), torch.randn(4, 10), {12, 14, 9})


def test_by_hand() -> None:
    topology = trace(Model(Attention("separate", by_default)), torch.randn(2, 5, 10))
    for heads, width, model in ((4, 6, 20), (3, 6, 20), (4, 1, 20), (2, 5, 7)):
        widths = {"inp": model, "attn.q": heads, "attn.q#2": width}
        layers = 2 * 5 * (10 * model + 4 * model * heads * width + model * 3)
        assert topology.cost(widths).multiply_adds == layers + 2 * 2 * heads * 5 * 5 * width


def test_fractional_widths_lie_between() -> None:
    topology = trace(Model(Attention("thirds", by_default)), torch.randn(2, 5, 10))
    quick = CostModel(topology, "multiply_adds")
    low, high = (quick.cost(np.array(widths, dtype=float)) for widths in ((10, 2, 3), (20, 4, 6)))
    assert low < quick.cost(np.array([12.5, 2.5, 3.5])) < high
    assert math.isclose(quick.share(quick.channels), 1.0)
    assert quick.share(np.ones_like(quick.channels)) == pytest.approx(
        topology.cost(dict.fromkeys(topology.widths, 1)).multiply_adds / topology.cost({}).multiply_adds
    )
