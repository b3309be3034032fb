"""What a first user broke: numbers that only look like widths, inputs and weights that hide, models of odd kinds."""

from __future__ import annotations

import copy
from collections import namedtuple
from collections.abc import Callable
from types import SimpleNamespace

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import SurgeryError, TraceError
from autoprune.plan.kept import KeptChannels
from autoprune.proof.discover import discover_structure
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.surgery.mask import mask

Pair = namedtuple("Pair", "left right")


class Free(nn.Module):
    """Layers and a forward of the test's own."""

    def __init__(self, run: Callable[..., object], **layers: nn.Module) -> None:
        super().__init__()
        self.run = run
        for name, layer in layers.items():
            setattr(self, name, layer)

    def forward(self, *args: object) -> object:
        return self.run(self, *args)


def halves(topology: Topology) -> KeptChannels:
    return KeptChannels(groups={g.name: tuple(range(0, g.channels, 2)) for g in topology.groups})


def reason(topology: Topology, module: str) -> str:
    return "; ".join(entry.reason for entry in topology.unprunable if entry.module == module)


class Attention(nn.Module):
    """nanoGPT's, whose longest input is as long as it is wide."""

    def __init__(self) -> None:
        super().__init__()
        self.n_head, self.n_embd, self.block_size, self.limit = 4, 32, 32, 8
        self.c_attn, self.c_proj = nn.Linear(32, 96), nn.Linear(32, 32)

    def forward(self, x: Tensor) -> Tensor:
        b, t, c = x.shape
        assert t <= self.block_size
        q, k, v = (
            part.view(b, t, self.n_head, c // self.n_head).transpose(1, 2)
            for part in self.c_attn(x).split(self.n_embd, dim=2)
        )
        y = F.scaled_dot_product_attention(q, k, v, is_causal=t <= self.limit)
        return self.c_proj(y.transpose(1, 2).reshape(b, t, c))


def test_numbers_that_only_look_like_a_width_stay() -> None:
    torch.manual_seed(0)
    wte, attention, head = nn.Embedding(40, 32), Attention(), nn.Linear(32, 40)
    model = Free(lambda m, ids: m.head(m.wte(ids) + m.attn(m.wte(ids))), wte=wte, attn=attention, head=head)
    topology = discover_structure(model, torch.randint(40, (2, 6)))
    assert any(group.kind == "heads" for group in topology.groups)
    kept = halves(topology)
    smaller = cut(model, topology, kept).attn
    assert isinstance(smaller, Attention)
    assert (smaller.block_size, smaller.limit) == (32, 8)
    assert smaller.n_embd < 32
    long, double = torch.randint(40, (3, 32)), model.double().eval()
    torch.testing.assert_close(cut(double, topology, kept)(long), mask(double, topology, kept)(long))


def by_width() -> nn.Module:
    return Free(lambda m, x: m.b(m.a(x) / m.a(x).shape[1]), a=nn.Linear(5, 12), b=nn.Linear(12, 3))


def test_inputs_of_zeros_do_not_hide_a_wrong_group() -> None:
    assert discover_structure(by_width(), torch.zeros(2, 5)).groups == ()


def test_a_branch_scaled_by_zero_does_not_hide_a_wrong_group() -> None:
    model = Free(
        lambda m, x: m.out(x + m.gamma(m.f(x))), f=by_width(), gamma=nn.Linear(3, 5, bias=False), out=nn.Linear(5, 2)
    )
    nn.init.zeros_(model.gamma.weight)
    assert "f.a" not in discover_structure(model, torch.randn(4, 5)).widths


def test_scores_masked_with_a_large_number_hide_nothing() -> None:
    model = Free(lambda m, x: F.pad(m.f(x), (0, 4), value=-1e9), f=by_width())
    assert discover_structure(model, torch.randn(4, 5)).groups == ()


@pytest.mark.parametrize("wrap", [lambda y, z: SimpleNamespace(y=y, z=z), Pair, lambda y, z: {"y": [y, {"z": z}]}])
def test_outputs_of_odd_kinds_are_still_the_output(wrap: Callable[[Tensor, Tensor], object]) -> None:
    model = Free(
        lambda m, x: wrap(m.b(m.a(x)), m.c(m.a(x))), a=nn.Linear(5, 12), b=nn.Linear(12, 3), c=nn.Linear(12, 4)
    )
    topology = discover_structure(model, torch.randn(2, 5))
    assert topology.widths == {"a": 12}
    assert reason(topology, "b") == reason(topology, "c") == "is part of the model's output"


@pytest.mark.parametrize("give", [lambda y: y.detach().numpy(), lambda _: 3.0, lambda y: y[:0]])
def test_outputs_without_a_tensor_are_refused(give: Callable[[Tensor], object]) -> None:
    with pytest.raises(TraceError, match="the model must give tensors with values in them"):
        discover_structure(Free(lambda m, x: give(m.a(x)), a=nn.Linear(5, 12)), torch.randn(2, 5))


def test_inputs_in_a_named_tuple() -> None:
    model = Free(lambda m, p: m.b(m.a(p.left) + p.right.sum()), a=nn.Linear(5, 12), b=nn.Linear(12, 3))
    assert discover_structure(model, (Pair(torch.randn(2, 5), torch.randn(3)),)).widths == {"a": 12}


def test_inputs_that_are_changed_in_place_stay_as_they_were() -> None:
    model = Free(lambda m, x: m.b(m.a(x.sub_(0.5).div_(0.25))), a=nn.Linear(5, 12), b=nn.Linear(12, 3))
    inputs = torch.randn(2, 5)
    before = inputs.clone()
    assert discover_structure(model, inputs).widths == {"a": 12}
    assert torch.equal(inputs, before)


def test_a_model_that_does_not_copy_itself_is_refused_and_left_alone() -> None:
    model = nn.Sequential(nn.Linear(5, 12), nn.Linear(12, 3))
    model.__class__ = type("Single", (nn.Sequential,), {"__deepcopy__": lambda self, memo: self})
    with pytest.raises(TraceError, match=r"must copy its weights in copy\.deepcopy"):
        discover_structure(model, torch.randn(2, 5))
    assert model[0].weight.dtype == torch.float32


def test_lazy_and_meta_weights_are_named() -> None:
    with pytest.raises(TraceError, match="call it once first"):
        discover_structure(nn.Sequential(nn.LazyLinear(4), nn.Linear(4, 2)), torch.randn(2, 5))
    with pytest.raises(TraceError, match="meta device"):
        discover_structure(nn.Linear(5, 4, device="meta"), torch.randn(2, 5))


@pytest.mark.filterwarnings("ignore:.*torch.jit:DeprecationWarning")
def test_a_scripted_part_costs_no_more_than_itself() -> None:
    model = nn.Sequential(nn.Linear(5, 12), torch.jit.script(nn.ReLU()), nn.Linear(12, 3))
    assert discover_structure(model, torch.randn(2, 5)).widths == {"0": 12}


def test_values_that_decide_on_the_path_cost_coverage_not_the_survey() -> None:
    """An ordinary top-1 mixture of experts with a norm before it."""

    def route(m: nn.Module, x: Tensor) -> Tensor:
        h = m.norm(m.a(x))
        choice = m.gate(h).argmax(-1)
        out = torch.zeros_like(h)
        for number, expert in enumerate((m.one, m.two)):
            rows = (choice == number).nonzero().squeeze(-1)
            if rows.numel():
                out = out.index_add(0, rows, expert(h[rows]))
        return m.out(h + out)

    layers = {"a": nn.Linear(5, 12), "norm": nn.LayerNorm(12), "gate": nn.Linear(12, 2), "out": nn.Linear(12, 3)}
    torch.manual_seed(0)
    for tokens in (1, 2, 4, 64):
        model = Free(route, **copy.deepcopy(layers), one=nn.Linear(12, 12), two=nn.Linear(12, 12))
        topology = discover_structure(model, torch.randn(tokens, 5))
        assert {entry.module for entry in topology.unprunable} | topology.widths.keys()


def test_a_group_that_is_squeezed_keeps_two() -> None:
    model = Free(lambda m, x: m.b(F.adaptive_avg_pool2d(m.a(x), 1).squeeze()), a=nn.Conv2d(3, 8, 3), b=nn.Linear(8, 3))
    topology = discover_structure(model, torch.randn(4, 3, 6, 6))
    assert topology.group("a").min_channels == 2
    with pytest.raises(SurgeryError, match="kept channels of a must be 2 or more, but got 1"):
        cut(model, topology, KeptChannels(groups={"a": (3,)}))


def test_what_only_training_reads_is_not_broken() -> None:
    """An auxiliary head, as in GoogLeNet."""

    def forward(m: nn.Module, x: Tensor) -> object:
        h = m.a(x)
        return (m.b(h), m.aux(h)) if m.training else m.b(m.c(h))

    model = Free(forward, a=nn.Linear(5, 12), c=nn.Linear(12, 12), b=nn.Linear(12, 3), aux=nn.Linear(12, 2))
    topology = discover_structure(model.eval(), torch.randn(4, 5))
    smaller = cut(model, topology, halves(topology)).train()
    smaller(torch.randn(4, 5))
    assert not model.training


def test_a_block_behind_positive_inputs_is_no_identity() -> None:
    class Block(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.f = nn.Linear(6, 6)

        def forward(self, x: Tensor) -> Tensor:
            return torch.relu(x + self.f(x))

    model = nn.Sequential(Block(), Block(), nn.Linear(6, 2))
    blocks = discover_structure(model, torch.rand(4, 6)).blocks
    assert [(block.name, block.is_branch) for block in blocks] == [("0.f", True), ("1", False)]


def test_the_generator_of_the_caller_stays_as_it_is() -> None:
    model = Free(lambda m, x: m.b(F.dropout(m.a(x), 0.5)), a=nn.Linear(5, 12), b=nn.Linear(12, 3))
    before = torch.get_rng_state()
    discover_structure(model, torch.randn(2, 5, generator=torch.Generator().manual_seed(1)))
    assert torch.equal(torch.get_rng_state(), before)


@pytest.mark.filterwarnings("ignore:LSTM with projections:UserWarning")
def test_hidden_units_stay_more_than_what_they_are_projected_to() -> None:
    model = Free(lambda m, x: m.out(m.rnn(x)[0]), rnn=nn.LSTM(5, 8, proj_size=4, batch_first=True), out=nn.Linear(4, 3))
    topology = discover_structure(model, torch.randn(2, 6, 5))
    assert {group.name: group.min_channels for group in topology.groups} == {"rnn": 5, "rnn#2": 1}
    cut(model, topology, KeptChannels(groups={"rnn": tuple(range(5)), "rnn#2": (0,)}))(torch.randn(3, 4, 5))


# ---- what changes nothing is not believed


def test_a_cut_that_changes_nothing_is_not_offered() -> None:
    """A branch behind a gate that is closed: right or wrong, no output tells."""

    def gated(m: nn.Module, x: Tensor) -> Tensor:
        return m.b(torch.relu(m.a(x))) + m.gate * m.d(torch.relu(m.c(x)))

    model = Free(gated, a=nn.Linear(5, 12), b=nn.Linear(12, 3), c=nn.Linear(5, 12), d=nn.Linear(12, 3))
    model.register_buffer("gate", torch.zeros(1))
    topology = discover_structure(model, torch.randn(4, 5))
    assert topology.widths == {"a": 12}
    assert "changes nothing in the outputs" in reason(topology, "c")
    model.gate.fill_(1)
    assert discover_structure(model, torch.randn(4, 5)).widths == {"a": 12, "c": 12}


def test_a_block_whose_loss_changes_nothing_is_not_offered() -> None:
    class Block(nn.Module):
        def __init__(self, gate: float) -> None:
            super().__init__()
            self.f, self.gate = nn.Linear(6, 6), gate

        def forward(self, x: Tensor) -> Tensor:
            return x + self.gate * self.f(x)

    model = nn.Sequential(Block(1.0), Block(0.0), nn.Linear(6, 2))
    assert [block.name for block in discover_structure(model, torch.randn(4, 6)).blocks] == ["0"]


def test_a_model_without_gradients_is_still_proved() -> None:
    def detached(m: nn.Module, x: Tensor) -> Tensor:
        return m.b(torch.relu(m.a(x))).detach()

    model = Free(detached, a=nn.Linear(5, 12), b=nn.Linear(12, 3))
    assert discover_structure(model, torch.randn(4, 5)).widths == {"a": 12}


def test_outputs_that_no_weight_changes_are_refused() -> None:
    """As of a model that answers for another one."""
    other = nn.Linear(5, 3)
    model = Free(lambda m, x: other(x) + 0 * m.b(torch.relu(m.a(x))), a=nn.Linear(5, 12), b=nn.Linear(12, 3))
    with pytest.raises(TraceError, match="the same outputs with other weights"):
        discover_structure(model, torch.randn(4, 5))


def test_outputs_that_are_normalised_are_outputs() -> None:
    layers = {"a": nn.Linear(5, 12, bias=False), "b": nn.Linear(12, 3, bias=False)}
    model = Free(lambda m, x: F.normalize(m.b(torch.relu(m.a(x)))), **layers)
    assert discover_structure(model, torch.randn(4, 5)).widths == {"a": 12}


@pytest.mark.parametrize("way", ["/", "div_", "reciprocal", "rsqrt"])
def test_a_weight_divided_by_its_own_scale_is_cut(way: str) -> None:
    """As where quantisation is trained: weight and scale are silenced together, and one is divided by the other."""

    def quantised(m: nn.Module, x: Tensor) -> Tensor:
        scaled = {
            "/": lambda: m.a.weight / m.scale,
            "div_": lambda: (m.a.weight * 1).div_(m.scale),
            "reciprocal": lambda: m.a.weight * m.scale.reciprocal(),
            "rsqrt": lambda: m.a.weight * m.scale.rsqrt(),
        }[way]()
        return m.b(torch.relu(F.linear(x, scaled * m.scale, m.a.bias)))

    model = Free(quantised, a=nn.Linear(5, 12), b=nn.Linear(12, 3))
    model.scale = nn.Parameter(torch.rand(12, 1) + 0.5)
    topology = discover_structure(model, torch.randn(4, 5))
    assert topology.widths == {"a": 12}
    kept = halves(topology)
    torch.testing.assert_close(
        cut(model, topology, kept)(torch.ones(2, 5)), mask(model, topology, kept)(torch.ones(2, 5))
    )
