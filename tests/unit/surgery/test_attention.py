"""Attention whose heads and head width are free: the same as torch's own while nothing is cut, and a mask after."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from dataclasses import dataclass

import pytest
import torch
from torch import Tensor, nn

from autoprune.plan.kept import KeptChannels
from autoprune.proof.discover import discover_structure
from autoprune.surgery.attention import SlimMultiheadAttention
from autoprune.surgery.cut import cut, rebuild
from autoprune.surgery.mask import mask
from autoprune.trace.trace import trace
from tests.unit.surgery.helpers import assert_cut_is_mask, stirred

OPTIONS: Mapping[str, dict[str, object]] = {
    "plain": {},
    "no bias": {"bias": False},
    "bias_kv": {"add_bias_kv": True},
    "zero_attn": {"add_zero_attn": True},
    "bias_kv and zero_attn": {"add_bias_kv": True, "add_zero_attn": True},
    "kdim and vdim": {"kdim": 10, "vdim": 14},
    "kdim, no bias": {"kdim": 10, "bias": False},
}
BATCH, HEADS, QUERIES, KEYS = 3, 4, 5, 7

_rows = torch.arange(QUERIES)[:, None] < torch.arange(KEYS)[None] - 2
_each = torch.rand(BATCH * HEADS, QUERIES, KEYS, generator=torch.Generator().manual_seed(3)) > 0.6
_each[..., 0] = False
_padding = torch.arange(KEYS)[None] >= torch.tensor([7, 4, 2])[:, None]


def added(mask: Tensor) -> Tensor:
    """Finite values as well as minus infinity."""
    noise = torch.randn(mask.shape, generator=torch.Generator().manual_seed(4), dtype=torch.float64)
    return noise.masked_fill(mask, float("-inf"))


MASKS: Mapping[str, dict[str, Tensor]] = {
    "none": {},
    "bool 2-D": {"attn_mask": _rows},
    "float 2-D": {"attn_mask": added(_rows)},
    "bool 3-D": {"attn_mask": _each},
    "float 3-D": {"attn_mask": added(_each)},
    "bool padding": {"key_padding_mask": _padding},
    "float padding": {"key_padding_mask": added(_padding)},
    "bool both": {"attn_mask": _rows, "key_padding_mask": _padding},
    "float both, 3-D": {"attn_mask": added(_each), "key_padding_mask": added(_padding)},
    "bool and float": {"attn_mask": _each, "key_padding_mask": added(_padding)},
}


def pair(**options: object) -> tuple[nn.MultiheadAttention, nn.MultiheadAttention]:
    dense = stirred(nn.MultiheadAttention(16, HEADS, **options)).double()
    slim = copy.deepcopy(dense)
    SlimMultiheadAttention.adopt(slim)
    return dense, slim


def given(dense: nn.MultiheadAttention, *, batched: bool = True) -> list[Tensor]:
    lengths = (QUERIES, KEYS, KEYS)
    shapes = [(BATCH, length, width) for length, width in zip(lengths, (16, dense.kdim, dense.vdim), strict=True)]
    parts = [torch.randn(shape, dtype=torch.float64) for shape in shapes]
    if not batched:
        return [part[0] for part in parts]
    return parts if dense.batch_first else [part.transpose(0, 1) for part in parts]


def assert_same(dense: nn.Module, slim: nn.Module, inputs: list[Tensor], **masks: object) -> None:
    for wanted, averaged in ((True, True), (True, False), (False, True)):
        options = {**masks, "need_weights": wanted, "average_attn_weights": averaged}
        torch.testing.assert_close(slim(*inputs, **options), dense(*inputs, **options))


@pytest.mark.filterwarnings("ignore:Support for mismatched")
@pytest.mark.parametrize("masks", MASKS.values(), ids=MASKS)
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_same_as_torch(options: dict[str, object], masks: dict[str, Tensor]) -> None:
    for first in (True, False):
        dense, slim = pair(batch_first=first, **options)
        assert_same(dense, slim, given(dense), **masks)
        one = {
            name: value[:HEADS] if name == "attn_mask" and value.dim() == 3 else value for name, value in masks.items()
        }
        if "key_padding_mask" in one:
            one["key_padding_mask"] = one["key_padding_mask"][1]
        assert_same(dense, slim, given(dense, batched=False), **one)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore:Support for mismatched")
@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_a_script_of_it_computes_the_same(options: dict[str, object]) -> None:
    dense, slim = pair(batch_first=True, **options)
    scripted = torch.jit.script(slim)
    for name in ("none", "bool and float"):
        assert_same(dense, scripted, given(dense), **MASKS[name])


@pytest.mark.parametrize("masks", [MASKS[name] for name in ("none", "bool padding")], ids=["none", "padding"])
def test_same_as_torchs_fused_kernel(masks: dict[str, Tensor]) -> None:
    dense, slim = pair(batch_first=True)
    x = torch.randn(BATCH, KEYS, 16, dtype=torch.float64)
    with torch.no_grad():
        assert_same(dense, slim, [x, x, x], **masks)


@pytest.mark.parametrize("need_weights", [True, False])
def test_a_causal_hint(need_weights: bool) -> None:
    dense, slim = pair(batch_first=True)
    x = torch.randn(BATCH, KEYS, 16, dtype=torch.float64)
    causal = nn.Transformer.generate_square_subsequent_mask(KEYS, dtype=torch.float64)
    for padding in (None, added(_padding)):
        options = {"attn_mask": causal, "is_causal": True, "need_weights": need_weights, "key_padding_mask": padding}
        torch.testing.assert_close(slim(x, x, x, **options), dense(x, x, x, **options))
    for attention in (dense, slim):
        with pytest.raises(RuntimeError, match="Need attn_mask"):
            attention(x, x, x, is_causal=True, need_weights=need_weights)


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
@pytest.mark.parametrize("need_weights", [True, False])
def test_gradients_in_training(options: dict[str, object], need_weights: bool) -> None:
    dense, slim = pair(batch_first=True, dropout=0.0, **options)
    found = []
    for attention in (dense.train(), slim.train()):
        torch.manual_seed(1)
        inputs = [part.requires_grad_() for part in given(dense)]
        out, weights = attention(*inputs, attn_mask=added(_each), need_weights=need_weights)
        (out.square().sum() + (weights.square().sum() if need_weights else 0)).backward()
        found.append([*(part.grad for part in inputs), *(parameter.grad for parameter in attention.parameters())])
    torch.testing.assert_close(found[1], found[0])


def test_dropout_in_training_only() -> None:
    _, slim = pair(batch_first=True, dropout=0.5)
    x = given(slim)
    assert torch.equal(slim(*x)[0], slim(*x)[0])
    slim.train()
    for need_weights in (True, False):
        assert not torch.equal(slim(*x, need_weights=need_weights)[0], slim(*x, need_weights=need_weights)[0])


@pytest.mark.parametrize("options", OPTIONS.values(), ids=OPTIONS)
def test_state_dicts_go_both_ways(options: dict[str, object]) -> None:
    dense, slim = pair(**options)
    assert list(slim.state_dict()) == list(dense.state_dict())
    for parameter in dense.parameters():
        nn.init.normal_(parameter)
    slim.load_state_dict(dense.state_dict())
    inputs = given(dense)
    torch.testing.assert_close(slim(*inputs), dense(*inputs))
    dense.load_state_dict(slim.state_dict())


def test_adopting_is_for_torchs_own_forward() -> None:
    class Own(nn.MultiheadAttention):
        def forward(self, *args: Tensor, **kwargs: object) -> tuple[Tensor, None]:
            return args[0], None

    class Named(nn.MultiheadAttention):
        pass

    own, named, linear = Own(8, 2), Named(8, 2), nn.Linear(8, 8)
    for module in (own, named, linear):
        SlimMultiheadAttention.adopt(module)
    assert type(own) is Own
    assert own._qkv_same_embed_dim
    assert type(linear) is nn.Linear
    assert isinstance(named, SlimMultiheadAttention)
    assert isinstance(pair()[1], nn.MultiheadAttention)


def test_adopting_twice_keeps_the_scale() -> None:
    _, slim = pair()
    scale = slim.logit_scale
    slim.head_dim = 1
    SlimMultiheadAttention.adopt(slim)
    assert slim.logit_scale == scale


# Cut


class Residual(nn.Module):
    """norm, attention, sum; what is asked of the attention is its own business."""

    def __init__(
        self, width: int = 24, *, first: bool = True, calls: dict[str, object] | None = None, **o: object
    ) -> None:
        super().__init__()
        self.norm, self.calls = nn.LayerNorm(width), calls or {}
        self.attn = nn.MultiheadAttention(width, 4, batch_first=first, **o)

    def forward(self, x: Tensor) -> Tensor:
        y = self.norm(x)
        return x + self.attn(y, y, y, **self.calls)[0]


@dataclass(frozen=True)
class Found:
    """Width 24 is 4 heads of 6."""

    model: nn.Module
    inputs: Tensor

    @staticmethod
    def of(**options: object) -> Found:
        block = Residual(**options)  # type: ignore[arg-type]
        return Found(stirred(nn.Sequential(nn.Linear(10, 24), block, nn.Linear(24, 3))), torch.randn(3, KEYS, 10))


CAUSAL = torch.triu(torch.full((KEYS, KEYS), float("-inf"), dtype=torch.float64), 1)


@pytest.mark.parametrize(
    "options",
    [
        {},
        {"first": False},
        {"bias": False},
        {"add_bias_kv": True},
        {"calls": {"need_weights": False}},
        {"calls": {"average_attn_weights": False}},
        {"calls": {"attn_mask": CAUSAL.isinf()}},
        {"calls": {"attn_mask": CAUSAL, "is_causal": True, "need_weights": False}},
    ],
    ids=["plain", "time first", "no bias", "bias_kv", "no weights", "each head's weights", "mask", "causal"],
)
def test_heads_head_width_and_model_width(options: dict[str, object]) -> None:
    case = Found.of(**options)
    topology = discover_structure(case.model, case.inputs)
    assert topology.widths == {"0": 24, "1.attn": 4, "1.attn#2": 6}
    for only in (("0",), ("1.attn",), ("1.attn#2",), ("0", "1.attn", "1.attn#2")):
        assert_cut_is_mask(case.model, topology, case.inputs, only=only, draws=3)


@pytest.mark.parametrize("batch", [1, 2, 3, 4, 5])
def test_names_of_groups_do_not_depend_on_the_batch(batch: int) -> None:
    model = stirred(Encoder(layers=0))
    inputs = (torch.randn(batch, KEYS, 10), torch.zeros(batch, KEYS, dtype=torch.bool))
    assert trace(model, inputs).widths == {"inp": 24, "enc.self_attn": 4, "enc.self_attn#2": 6, "enc.linear1": 20}


def test_a_mask_runs_with_gradients() -> None:
    case = Found.of(calls={"need_weights": False})
    topology = discover_structure(case.model, case.inputs)
    mask(case.model, topology, KeptChannels(groups={"1.attn": (0, 3)}))(case.inputs).sum().backward()


def test_zeros_added_to_the_keys() -> None:
    case = Found.of(add_zero_attn=True)
    topology = discover_structure(case.model, case.inputs)
    assert {"0": 24}.items() <= topology.widths.items()
    assert 6 in topology.widths.values(), "the head width"
    assert_cut_is_mask(case.model, topology, case.inputs)


def test_every_weight_of_an_attention_is_seen() -> None:
    case = Found.of(add_bias_kv=True)
    topology = discover_structure(case.model, case.inputs)
    assert [entry.module for entry in topology.unprunable] == ["2"]


def test_numbers_and_shapes_of_a_cut_attention() -> None:
    case = Found.of()
    kept = KeptChannels(groups={"0": tuple(range(20)), "1.attn": (0, 2, 3), "1.attn#2": (1, 5)})
    attn = cut(case.model, discover_structure(case.model, case.inputs), kept)[1].attn
    assert isinstance(attn, SlimMultiheadAttention)
    assert (attn.embed_dim, attn.num_heads, attn.head_dim, attn.kdim, attn.vdim) == (20, 3, 2, 20, 20)
    assert attn.in_proj_weight.shape == (3 * 3 * 2, 20)
    assert attn.out_proj.weight.shape == (20, 3 * 2)
    assert attn.logit_scale == pytest.approx(6**-0.5), "of the attention that it was"
    assert type(case.model[1].attn) is nn.MultiheadAttention


def test_a_cut_of_a_cut_and_rebuilding() -> None:
    case = Found.of()
    topology = discover_structure(case.model, case.inputs)
    first = KeptChannels(groups={"0": tuple(range(3, 24)), "1.attn": (0, 1, 3), "1.attn#2": (0, 2, 3, 5)})
    second = KeptChannels(groups={"0": tuple(range(5, 24)), "1.attn": (0, 3), "1.attn#2": (2, 5)})
    direct = cut(case.model, topology, second)
    again = cut(cut(case.model, topology, first), topology, second, parent=first)
    built = rebuild(case.model, topology, second, direct.state_dict())
    for other in (again, built):
        torch.testing.assert_close(other(case.inputs), direct(case.inputs))
        assert other[1].attn.logit_scale == direct[1].attn.logit_scale
        assert other[1].attn.num_heads == 2


# torch's encoder, which has fused paths of its own


class Encoder(nn.Module):
    def __init__(self, *, layers: int, norm_first: bool = False, nested: bool = False) -> None:
        super().__init__()
        self.inp, self.out = nn.Linear(10, 24), nn.Linear(24, 3)
        layer = nn.TransformerEncoderLayer(24, 4, 20, batch_first=True, norm_first=norm_first, activation="gelu")
        self.enc = nn.TransformerEncoder(layer, layers, enable_nested_tensor=nested) if layers else layer

    def forward(self, x: Tensor, padding: Tensor) -> Tensor:
        return self.out(self.enc(self.inp(x), src_key_padding_mask=padding))


@pytest.mark.filterwarnings("ignore:The PyTorch API of nested tensors")
@pytest.mark.parametrize(
    ("layers", "norm_first", "nested"),
    [(0, False, False), (0, True, False), (2, False, False), (2, True, False), (2, False, True)],
    ids=["layer", "pre-norm layer", "encoder", "pre-norm encoder", "encoder of nested tensors"],
)
def test_torchs_fused_paths_after_a_cut(layers: int, norm_first: bool, nested: bool) -> None:
    model = stirred(Encoder(layers=layers, norm_first=norm_first, nested=nested))
    padding = torch.arange(KEYS)[None] >= torch.tensor([7, 4, 2])[:, None]
    inputs = (torch.randn(3, KEYS, 10), padding)
    topology = discover_structure(model, inputs)
    count = max(layers, 1)
    assert sorted(topology.widths.values()) == [4] * count + [6] * count + [20] * count + [24]
    model, inputs = model.double(), (inputs[0].double(), padding)
    for only in (["inp"], *([name] for name in topology.widths if "layers.1" not in name), list(topology.widths)):
        kept = KeptChannels(groups=dict.fromkeys(only, (0, 1, 3)))
        smaller = cut(model, topology, kept)
        with torch.no_grad():
            wanted = mask(model, topology, kept)(*inputs)[~padding]
        torch.testing.assert_close(smaller(*inputs)[~padding], wanted)
        for quick in (torch.no_grad(), torch.inference_mode()):
            with quick:
                torch.testing.assert_close(smaller(*inputs)[~padding], wanted)


def test_a_cut_encoder_trains() -> None:
    model = stirred(Encoder(layers=2))
    inputs = (torch.randn(3, KEYS, 10), torch.zeros(3, KEYS, dtype=torch.bool))
    topology = discover_structure(model, inputs)
    smaller = cut(model, topology, KeptChannels(groups=dict.fromkeys(topology.widths, (0, 1)))).train()
    smaller(*inputs).square().mean().backward()
    grads = [parameter.grad for parameter in smaller.parameters()]
    assert all(grad is not None and bool(grad.isfinite().all()) for grad in grads)
