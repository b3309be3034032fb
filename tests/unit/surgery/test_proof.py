"""What the proof withdraws, what its remedies recover, and that it always ends and leaves nothing behind."""

from __future__ import annotations

import copy
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.errors import TraceError
from autoprune.plan.kept import KeptChannels
from autoprune.proof.comparison import EquivalenceCheck
from autoprune.proof.discover import discover_structure, prove
from autoprune.surgery.cut import cut
from autoprune.surgery.mask import mask
from autoprune.trace.trace import trace
from tests.slow import diagonal, slow
from tests.unit.surgery.attentions import LAYOUTS, MIXES, Attention, Model, stored
from tests.unit.surgery.helpers import assert_cut_is_mask, stirred
from tests.unit.trace.test_trace import Free, reasons, two_layers
from tests.zoo.registry import random_kept

# Wrong groups beside sound ones


class Branches(nn.Module):
    """Layers beside each other, what each of them goes through, and a head."""

    def __init__(self, *between: Callable[[Tensor], Tensor]) -> None:
        super().__init__()
        self.between = between
        self.first = nn.ModuleList(nn.Linear(20, 8 + number) for number in range(len(between)))
        self.last = nn.ModuleList(nn.Linear(8 + number, 5) for number in range(len(between)))

    def forward(self, x: Tensor) -> Tensor:
        return sum(b(run(torch.relu(a(x)))) for a, run, b in zip(self.first, self.between, self.last, strict=True))


def plain(x: Tensor) -> Tensor:
    return x


BREAKS = {
    "a fixed shape": (lambda x: x.view(3, -1, 1).view(3, 8), "the model does not run once it is cut (RuntimeError: "),
    "its own width": (lambda x: x / x.shape[1], "cutting it changes the outputs by "),
    "an assert": (lambda x: checked(x, 8), "the model does not run once it is cut (AssertionError: 8 wanted"),
    "an infinity": (
        lambda x: x / (x.shape[1] - 8 + 1e-30 if x.shape[1] < 8 else 1),
        "cutting it changes the outputs by ",
    ),
}


def checked(x: Tensor, width: int) -> Tensor:
    assert x.shape[1] == width, f"{width} wanted"
    return x


@pytest.mark.parametrize(("run", "reason"), BREAKS.values(), ids=BREAKS)
def test_a_wrong_group_is_withdrawn_alone(run: Callable[[Tensor], Tensor], reason: str) -> None:
    model, inputs = stirred(Branches(run, *[plain] * 6)), torch.randn(3, 20)
    assert "first.0" in trace(model, inputs).widths
    topology = discover_structure(model, inputs)
    assert topology.widths == {f"first.{number}": 8 + number for number in range(1, 7)}
    assert reasons(topology, "first.0").startswith(reason)
    assert_cut_is_mask(model, topology, inputs)


@pytest.mark.parametrize("wrong", [(0, 6), (2, 3), (1, 3, 5), (0, 1, 2, 3, 4, 5, 6)])
def test_several_wrong_groups_are_found(wrong: tuple[int, ...]) -> None:
    between = [(lambda x: x * x.shape[1]) if number in wrong else plain for number in range(7)]
    model, inputs = stirred(Branches(*between)), torch.randn(3, 20)
    topology = discover_structure(model, inputs)
    assert topology.widths == {f"first.{number}": 8 + number for number in range(7) if number not in wrong}
    for number in wrong:
        assert reasons(topology, f"first.{number}").startswith("cutting it changes the outputs by ")
        assert "together" not in reasons(topology, f"first.{number}"), "found where it is alone"


def test_groups_that_are_right_alone_and_wrong_together() -> None:
    class Together(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.a, self.b, self.c = nn.Linear(20, 8), nn.Linear(20, 12), nn.Linear(20, 16)
            self.out = nn.ModuleList(nn.Linear(width, 5) for width in (8, 12, 16))

        def forward(self, x: Tensor) -> Tensor:
            y = [a(x) for a in (self.a, self.b, self.c)]
            both = y[0].shape[1] < 8 and y[1].shape[1] < 12
            return sum(out(part) for out, part in zip(self.out, y, strict=True)) * (2 if both else 1)

    model, inputs = stirred(Together()), torch.randn(3, 20)
    topology = discover_structure(model, inputs)
    assert topology.widths in ({"a": 8, "c": 16}, {"b": 12, "c": 16})
    gone = {"a", "b"} - topology.widths.keys()
    assert "together with other groups" in reasons(topology, gone.pop())
    assert_cut_is_mask(model, topology, inputs)


# Remedies


class Counting(Attention):
    """Multiplies by numbers of its own that happen to be as large as a width."""

    def __init__(self, **numbers: int) -> None:
        super().__init__("separate", stored)
        self.__dict__.update(numbers)
        self.names = tuple(numbers)

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x) * sum(getattr(self, name) for name in self.names)


@pytest.mark.parametrize(
    "numbers",
    [slow({"depth": 6}), slow({"depth": 4}), {"depth": 6, "ratio": 4}, {"depth": 24}, {"size": 6}, {"num_things": 4}],
    ids=str,
)
def test_numbers_that_only_look_like_a_width(numbers: dict[str, int]) -> None:
    model, inputs = stirred(Model(Counting(**numbers))), torch.randn(2, 5, 10)
    topology = discover_structure(model, inputs)
    assert topology.widths == {"inp": 20, "attn.q": 4, "attn.q#2": 6}
    assert_cut_is_mask(model, topology, inputs)
    smaller = cut(model, topology, KeptChannels(groups={"attn.q": (0, 2), "attn.q#2": (1, 4, 5)})).attn
    assert (smaller.num_heads, smaller.head_dim) == (2, 3)
    assert {name: getattr(smaller, name) for name in numbers} == numbers


#: Every layout and every mix, all pairs of them in `make test-slow`.
every_attention = pytest.mark.parametrize(("layout", "mix"), diagonal(LAYOUTS, MIXES))


@every_attention
def test_every_kind_of_attention(layout: str, mix: str) -> None:
    model, inputs = stirred(Model(Attention(layout, MIXES[mix]))), torch.randn(2, 5, 10)
    topology = discover_structure(model, inputs)
    made = "attn.q" if layout == "separate" else "attn.qkv"
    assert topology.widths == {"inp": 20, made: 4, f"{made}#2": 6}
    for only in ((made,), (f"{made}#2",), None):
        assert_cut_is_mask(model, topology, inputs, only=only, draws=4)
    if mix != "attribute":  # where the number serves the scale alone it stays, and so does the scale
        assert bool(topology.group(f"{made}#2").rescaled) == (mix != "stored")


@every_attention
def test_a_cut_of_a_cut_attention(layout: str, mix: str) -> None:
    model, inputs = stirred(Model(Attention(layout, MIXES[mix]))).double(), torch.randn(2, 5, 10).double()
    topology = discover_structure(model, inputs)
    for seed in range(4):
        first = random_kept(topology, seed)
        second = random_kept(topology, seed + 100, within=first)
        again = cut(cut(model, topology, first), topology, second, parent=first)
        direct = cut(model, topology, second)
        for name, tensor in direct.state_dict().items():
            torch.testing.assert_close(again.state_dict()[name], tensor, msg=name)
        torch.testing.assert_close(again(inputs), direct(inputs))


class FromItsInput(nn.Module):
    """Takes the width to reshape to from its input."""

    def __init__(self, width: int, heads: int, fused: bool) -> None:
        super().__init__()
        self.num_heads, self.fused, self.scale = heads, fused, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x: Tensor) -> Tensor:
        B, N, C = x.shape  # noqa: N806  # as people write it
        q, k, v = self.qkv(x).reshape(B, N, 3, self.num_heads, C // self.num_heads).permute(2, 0, 3, 1, 4)
        y = F.scaled_dot_product_attention(q, k, v) if self.fused else ((q * self.scale) @ k.mT).softmax(-1) @ v
        return self.proj(y.transpose(1, 2).reshape(B, N, C))


@pytest.mark.parametrize(
    ("width", "heads", "fused"),
    [(24, 4, True), (16, 4, False), (24, 6, True), slow(24, 4, False), slow(16, 4, True), slow(24, 6, False)],
)
def test_attention_that_takes_its_width_from_its_input(width: int, heads: int, fused: bool) -> None:
    model, inputs = stirred(Model(FromItsInput(width, heads, fused), width)), torch.randn(4, 5, 10)
    topology = discover_structure(model, inputs)
    assert sorted(topology.widths.values()) == sorted([heads, width // heads])
    assert_cut_is_mask(model, topology, inputs)
    kept = KeptChannels(groups={name: (0, 2) for name, count in topology.widths.items() if count == heads})
    if kept.groups and heads != width // heads:
        assert cut(model, topology, kept).attn.num_heads == 2


# Time


def test_no_time_for_proving() -> None:
    model, inputs = stirred(Model(Attention("separate", stored))), torch.randn(2, 5, 10)
    assert trace(model, inputs).groups
    topology = discover_structure(model, inputs, seconds=0)
    assert topology.groups == ()
    assert topology.blocks == ()
    for module in ("inp", "attn.q"):
        assert "was not proved in the time that proving may take" in reasons(topology, module)


def test_a_trace_that_takes_too_long_leaves_what_comes_later_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = [0.0]
    monkeypatch.setattr("autoprune.trace.dispatch.time", SimpleNamespace(monotonic=lambda: clock[0]))

    def run(m: Free, x: Tensor) -> Tensor:
        x = torch.relu(m.b(torch.relu(m.a(x))))
        clock[0] += 3600
        return m.d(torch.relu(m.c(x)))

    layers = [nn.Linear(20, 16), nn.Linear(16, 12), nn.Linear(12, 8), nn.Linear(8, 5)]
    topology = trace(Free(run, **dict(zip("abcd", layers, strict=True))), torch.randn(3, 20))
    assert topology.widths == {"a": 16}
    for module in ("b", "c"):
        assert reasons(topology, module).startswith("comes after 60 seconds of tracing"), module


class Gpt2(nn.Module):
    """Layers of fused attention whose widths are kept as numbers beside the weights, as in GPT-2."""

    def __init__(self, depth: int) -> None:
        super().__init__()
        transformers = pytest.importorskip("transformers")
        config = transformers.GPT2Config(
            n_embd=24, n_layer=depth, n_head=3, vocab_size=11, n_positions=8, bos_token_id=0, eos_token_id=0
        )
        self.model = transformers.GPT2LMHeadModel(config)

    def forward(self, ids: Tensor) -> Tensor:
        logits: Tensor = self.model(input_ids=ids, use_cache=False).logits
        return logits


def comparisons(monkeypatch: pytest.MonkeyPatch, depth: int) -> int:
    """How often a proof of a GPT-2 of that depth compares a cut with a mask."""
    counted = 0
    compare = EquivalenceCheck.difference

    def counting(*args: Any, **kwargs: Any) -> str | None:
        nonlocal counted
        counted += 1
        return compare(*args, **kwargs)

    with monkeypatch.context() as patch:
        patch.setattr(EquivalenceCheck, "difference", counting)
        topology = discover_structure(Gpt2(depth).eval(), torch.randint(11, (2, 5)))
    # The residual stream, and heads, head width and hidden features of every layer.
    assert len(topology.groups) == 1 + 3 * depth
    return counted


def test_what_helps_one_layer_is_tried_first_on_its_likes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Halving finds that a layer is at fault; after the first one its likes cost no search of their own."""
    assert comparisons(monkeypatch, 8) < 1.6 * comparisons(monkeypatch, 2)


def test_a_proof_that_runs_out_of_time_compares_nothing_more(monkeypatch: pytest.MonkeyPatch) -> None:
    compare, clock, compared = EquivalenceCheck.difference, [0.0], list[float]()

    def slow(*args: Any, **kwargs: Any) -> str | None:
        clock[0] += 1.0
        reason = compare(*args, **kwargs)
        compared.append(clock[0])
        return reason

    for module in ("discover", "forwards"):
        monkeypatch.setattr(f"autoprune.proof.{module}.time", SimpleNamespace(process_time=lambda: clock[0]))
    monkeypatch.setattr(EquivalenceCheck, "difference", slow)
    topology = discover_structure(Gpt2(4).eval(), torch.randint(11, (2, 5)), seconds=5.5)
    assert compared
    assert max(compared) < 5.5 < clock[0]  # that which was under way was stopped
    assert "was not proved in the time that proving may take" in {entry.reason for entry in topology.unprunable}


# Precision


def casts(x: Tensor) -> Tensor:
    return torch.sigmoid(x.float()).to(x.dtype)


def test_a_cast_inside_is_proved_with_its_own_tolerance() -> None:
    model, inputs = two_layers(lambda x: F.layer_norm(casts(x).float(), x.shape[1:]).to(x.dtype)), torch.randn(3, 20)
    assert discover_structure(model, inputs).widths == {"a": 16}
    wrong = two_layers(lambda x: casts(x) * (1 + 1e-2 * x.shape[1]))
    assert "cutting it changes the outputs by" in reasons(discover_structure(wrong, inputs), "a")


def test_small_differences_count_in_float64() -> None:
    model, inputs = two_layers(lambda x: torch.sigmoid(x) * (1 + 1e-6 * x.shape[1])), torch.randn(3, 20)
    assert discover_structure(model, inputs).widths == {}


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_a_half_precision_model_is_cut_in_its_own(dtype: torch.dtype) -> None:
    model, inputs = stirred(Model(Attention("separate", MIXES["shape"]))).to(dtype), torch.randn(2, 5, 10, dtype=dtype)
    topology = discover_structure(model, inputs)
    assert topology.widths == {"inp": 20, "attn.q": 4, "attn.q#2": 6}
    kept = KeptChannels(groups={"inp": tuple(range(15)), "attn.q": (0, 3), "attn.q#2": (0, 1, 2, 4)})
    smaller = cut(model, topology, kept)
    assert {tensor.dtype for tensor in smaller.state_dict().values()} == {dtype}
    with torch.no_grad():
        torch.testing.assert_close(smaller(inputs), mask(model, topology, kept)(inputs), rtol=0.05, atol=0.05)


# What is left behind


@pytest.mark.parametrize("enabled", [True, False])
@pytest.mark.parametrize("what", ["runs", "raises", "raises later", "raises once cut"])
def test_torchs_flags_stay(enabled: bool, what: str, monkeypatch: pytest.MonkeyPatch) -> None:
    def run(m: Free, x: Tensor) -> Tensor:
        y, _ = m.rnn(m.a(x))
        calls.append(1)
        if what == "raises" or (what == "raises later" and len(calls) > 2):
            raise RuntimeError("no such luck")
        if what == "raises once cut" and y.shape[-1] < 12:
            raise RuntimeError("no such luck")
        return m.b(y)

    calls: list[int] = []
    model = Free(run, a=nn.Linear(20, 8), rnn=nn.GRU(8, 12, batch_first=True), b=nn.Linear(12, 3))
    before = torch.backends.mha.get_fastpath_enabled(), torch._C._get_mkldnn_enabled(), torch.is_grad_enabled()
    try:
        torch.backends.mha.set_fastpath_enabled(enabled)
        torch._C._set_mkldnn_enabled(enabled)
        if what in ("raises", "raises later"):
            with pytest.raises(Exception, match="no such luck"):
                discover_structure(model, torch.randn(2, 5, 20))
        else:
            discover_structure(model, torch.randn(2, 5, 20))
        assert torch.backends.mha.get_fastpath_enabled() == enabled
        assert torch._C._get_mkldnn_enabled() == enabled
        assert torch.is_grad_enabled()
        assert not torch.utils._python_dispatch._get_current_dispatch_mode_stack()
    finally:
        torch.backends.mha.set_fastpath_enabled(before[0])
        torch._C._set_mkldnn_enabled(before[1])


def test_a_model_that_only_runs_once_is_a_trace_error() -> None:
    calls: list[int] = []
    model = two_layers(lambda x: x if calls.append(1) or len(calls) < 2 else x @ x)  # type: ignore[func-returns-value]
    with pytest.raises(TraceError, match="must run on example_inputs"):
        discover_structure(model, torch.randn(3, 20))


def test_surveys_of_two_models_do_not_meet() -> None:
    makers = (lambda: Model(Attention("separate", stored)), lambda: Model(FromItsInput(24, 4, fused=True), 24))
    left, right = (stirred(make()) for make in makers)
    x = torch.randn(2, 5, 10)
    alone = [discover_structure(copy.deepcopy(model), x) for model in (left, right)]
    traced = [trace(left, x), trace(right, x)]
    proved = [prove(left, traced[0], x), prove(right, traced[1], x)]
    assert proved[0].fingerprint() == alone[0].fingerprint()
    assert [discover_structure(model, x).fingerprint() for model in (right, left)] == [
        found.fingerprint() for found in alone[::-1]
    ]
    kept = [random_kept(topology, 3) for topology in alone]
    masks = [mask(model, topology, own) for model, topology, own in zip((left, right), alone, kept, strict=True)]
    with torch.no_grad():
        first = [masked(x) for masked in masks]
        for masked, out in reversed(list(zip(masks, first, strict=True))):
            assert torch.equal(masked(x), out)


def test_a_survey_leaves_the_model_and_the_random_state_alone() -> None:
    model, x = stirred(Model(FromItsInput(24, 4, fused=False), 24)).train(), torch.randn(2, 5, 10)
    before, state = copy.deepcopy(model.state_dict()), torch.get_rng_state()
    numbers = [dict(vars(module)) for module in model.modules()]
    discover_structure(model, x)
    assert torch.equal(state, torch.get_rng_state())
    assert all(torch.equal(before[name], value) for name, value in model.state_dict().items())
    assert [dict(vars(module)) for module in model.modules()] == numbers
    assert all(parameter.grad is None for parameter in model.parameters())
