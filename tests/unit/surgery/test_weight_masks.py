"""Masks of single weights: how many zeros, where, and what an exchange keeps."""

from __future__ import annotations

import itertools
import math
from dataclasses import replace

import pytest
import torch
from hypothesis import Phase, assume, given, settings
from hypothesis import strategies as st
from torch import Tensor, nn

from autoprune.errors import ConfigurationError, SurgeryError, UnknownNameError
from autoprune.plan.maskable import check_pattern, maskable, unmaskable, weights_for_pattern
from autoprune.plan.weights import PATTERNS, SPREADS, WeightPlan, block_pattern, group_pattern
from autoprune.structure.topology import Topology
from autoprune.surgery.weight_masks import apply_masks, layer_sparsities, masks, pattern_mask, regrow
from autoprune.trace.trace import trace
from tests.zoo.convolutional import TiedWeights
from tests.zoo.registry import build_any

QUICK = settings(
    max_examples=60, deadline=None, derandomize=True, phases=(Phase.explicit, Phase.generate, Phase.shrink)
)
#: What people ask for, and odd ones: more than one stays, blocks that fit nowhere, blocks of one entry.
ANY_PATTERN = (*PATTERNS, "1:3", "3:5", "7:8", "block-3x2", "block-1x1", "block-9x5")
SHAPES = st.one_of(
    st.tuples(st.integers(1, 9), st.integers(1, 19)),
    st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 3)),
    st.tuples(st.integers(1, 6), st.integers(1, 9), st.integers(1, 3), st.integers(1, 3)),
)
SHARES = st.floats(0.0, 0.999)


def drawn(shape: tuple[int, ...], seed: int, *, coarse: bool = False) -> Tensor:
    """Scores of that shape; coarse ones have many ties."""
    values = torch.rand(shape, generator=torch.Generator().manual_seed(seed))
    return (values * 4).floor() if coarse else values


def zeros(mask: Tensor) -> int:
    return int((~mask).sum())


def groups(tensor: Tensor, of: int) -> list[list[float]]:
    """Neighbours along dim 1, entry by entry, without what is left of a row after its last whole group."""
    rows, columns, *kernel = tensor.shape
    return [
        [float(tensor[(row, first + place, *position)]) for place in range(of)]
        for row in range(rows)
        for position in itertools.product(*(range(size) for size in kernel))
        for first in range(0, columns - of + 1, of)
    ]


def blocks(tensor: Tensor, rows: int, columns: int) -> list[list[float]]:
    """The entries of each block of the matrix [rows, kernel positions * columns], entry by entry."""
    outputs, inputs, *kernel = tensor.shape
    width = inputs * math.prod(kernel)

    def entry(row: int, place: int) -> float:
        position, column = divmod(place, inputs)
        return float(tensor.flatten(2)[row, column, position] if kernel else tensor[row, column])

    return [
        [
            entry(row, place)
            for row in range(top, min(top + rows, outputs))
            for place in range(left, min(left + columns, width))
        ]
        for top in range(0, outputs, rows)
        for left in range(0, width, columns)
    ]


def holds(mask: Tensor, pattern: str) -> bool:
    """Whether a mask has its pattern, however many of its entries stay in all."""
    grouped, block = group_pattern(pattern), block_pattern(pattern)
    if grouped is not None:
        inside = groups(mask, grouped[1])
        left = mask.shape[1] // grouped[1] * grouped[1]
        return all(sum(group) == grouped[0] for group in inside) and bool(mask[:, left:].all())
    if block is not None:
        return all(len(set(entries)) == 1 for entries in blocks(mask, *block))
    return True


# ---- which weights


class Mixed(nn.Module):
    """Embedding, recurrent, convolution, transposed convolution, norm, linear, and one that nothing reads."""

    def __init__(self) -> None:
        super().__init__()
        self.table = nn.Embedding(11, 8)
        self.recurrent = nn.LSTM(8, 6, batch_first=True)
        self.wide = nn.Conv1d(6, 10, 3, padding=1)
        self.norm = nn.BatchNorm1d(10)
        self.up = nn.ConvTranspose1d(10, 4, 2, 2)
        self.turned = nn.Parameter(torch.randn(4, 7))
        self.head = nn.Linear(7, 3)
        self.unread = nn.Linear(5, 5)

    def forward(self, words: Tensor) -> Tensor:
        x = self.recurrent(self.table(words))[0].transpose(1, 2)
        out: Tensor = self.head(self.up(self.norm(self.wide(x))).mean(2) @ self.turned)
        return out


@pytest.fixture(scope="module")
def mixed() -> Topology:
    return trace(Mixed().eval(), torch.arange(10).view(2, 5))


def test_what_a_product_sums_over_can_be_masked(mixed: Topology) -> None:
    weights = ("recurrent.weight_ih_l0", "recurrent.weight_hh_l0", "wide.weight", "up.weight", "turned", "head.weight")
    assert sorted(maskable(mixed)) == sorted(weights)
    assert maskable(mixed)[2:] == weights[2:], "in the order of the forward"


def test_every_other_parameter_has_a_reason(mixed: Topology) -> None:
    left = unmaskable(mixed)
    assert {*left, *maskable(mixed)} == dict(Mixed().named_parameters()).keys()
    assert not {*left} & {*maskable(mixed)}
    assert {name for name, reason in left.items() if "in no known product" in reason} == {
        "table.weight",
        "unread.weight",
    }
    flat = {reason for name, reason in left.items() if "bias" in name}
    assert flat == {"has one dimension, like a bias"}


def test_neither_vectors_nor_buffers_can_be_masked(mixed: Topology) -> None:
    read = replace(mixed, input_axes={"norm.weight": 0, "norm.running_mean": 0, "head.weight": 1})
    assert maskable(read) == ("head.weight",)


def test_the_columns_of_a_weight_are_what_it_reads(mixed: Topology) -> None:
    axes = {name: mixed.input_axes[name] for name in maskable(mixed)}
    assert axes == dict.fromkeys(axes, 1) | {"up.weight": 0, "turned": 0}


def test_tied_weights_can_be_masked_once() -> None:
    model = TiedWeights().eval()
    found = maskable(trace(model, torch.zeros(2, 1, 8, 8)))
    assert len(found) == len(set(found))
    assert set(found) <= dict(model.named_parameters()).keys()
    assert found


@pytest.mark.parametrize("name", ["perceiver", "lstm_two_layers", "vit_registers", "translator", "res_mlp"])
def test_all_but_tables_positions_and_norms_can_be_masked(name: str) -> None:
    model, inputs = build_any(name)
    left = [name for name, reason in unmaskable(trace(model.eval(), inputs)).items() if "no product" in reason]
    others = ("embed", "pos", "token", "latents", "alpha", "beta", "gamma", "layer_scale")
    assert all(any(word in name for word in others) for name in left), left


# ---- patterns


@QUICK
@given(shape=SHAPES, sparsity=SHARES, seed=st.integers(0, 99), coarse=st.booleans())
def test_exactly_as_many_go_as_asked_and_they_are_the_lowest(
    shape: tuple[int, ...], sparsity: float, seed: int, coarse: bool
) -> None:
    scores = drawn(shape, seed, coarse=coarse)
    mask = pattern_mask(scores, "unstructured", sparsity)
    assert mask.dtype == torch.bool
    assert mask.shape == scores.shape
    assert zeros(mask) == min(round(sparsity * scores.numel()), scores.numel() - 1)
    if 0 < zeros(mask) < scores.numel():
        assert scores[~mask].max() <= scores[mask].min()


@QUICK
@given(shape=SHAPES, pattern=st.sampled_from(["2:4", "4:8", "1:3", "3:5", "1:2"]), seed=st.integers(0, 99))
def test_of_every_group_the_highest_stay(shape: tuple[int, ...], pattern: str, seed: int) -> None:
    scores = drawn(shape, seed)
    mask = pattern_mask(scores, pattern, 0.5)
    assert holds(mask, pattern)
    stay, of = map(int, pattern.split(":"))
    for kept, score in zip(groups(mask, of), groups(scores, of), strict=True):
        assert sorted(s for s, k in zip(score, kept, strict=True) if k) == sorted(score)[of - stay :]


@QUICK
@given(shape=SHAPES, sparsity=SHARES, rows=st.integers(1, 5), columns=st.integers(1, 5), seed=st.integers(0, 99))
def test_whole_blocks_of_the_lowest_means_go(
    shape: tuple[int, ...], sparsity: float, rows: int, columns: int, seed: int
) -> None:
    scores = drawn(shape, seed)
    mask = pattern_mask(scores, f"block-{rows}x{columns}", sparsity)
    assert holds(mask, f"block-{rows}x{columns}")
    stays = [block[0] for block in blocks(mask, rows, columns)]
    off = abs(zeros(mask) - sparsity * scores.numel())
    assert off <= rows * columns / 2 + 1e-6 or sum(stays) == 1, "but one block stays, whatever the sparsity"
    assert any(stays)
    means = [sum(block) / len(block) for block in blocks(scores, rows, columns)]
    gone = [mean for mean, stay in zip(means, stays, strict=True) if not stay]
    kept = [mean for mean, stay in zip(means, stays, strict=True) if stay]
    assert not gone or not kept or max(gone) <= min(kept) + 1e-6


def test_patterns_by_hand() -> None:
    scores = torch.tensor([[5.0, 1.0, 4.0, 2.0, 9.0, 0.0], [1.0, 2.0, 3.0, 4.0, 5.0, 6.0]])
    assert pattern_mask(scores, "unstructured", 0.5).int().tolist() == [[1, 0, 1, 0, 1, 0], [0, 0, 0, 1, 1, 1]]
    # The last two of each row are in no group of four.
    assert pattern_mask(scores, "2:4", 0.0).int().tolist() == [[1, 0, 1, 0, 1, 1], [0, 0, 1, 1, 1, 1]]
    assert pattern_mask(scores, "1:2", 0.0).int().tolist() == [[1, 0, 1, 0, 1, 0], [0, 1, 0, 1, 0, 1]]
    # Means of the blocks: 2.25, 3.25, 5.
    assert pattern_mask(scores, "block-2x2", 0.3).int().tolist() == [[0, 0, 1, 1, 1, 1]] * 2
    # Two blocks of 4 would be 8 of 12, one is 4: 5.9 is nearer to 4.
    assert zeros(pattern_mask(scores, "block-2x2", 0.49)) == 4
    assert zeros(pattern_mask(scores, "block-2x2", 0.51)) == 8


def test_blocks_lie_in_one_position_of_the_kernel_first() -> None:
    scores = torch.ones(2, 4, 3, 3)
    scores[:, :, 1, 2] = 0.0
    mask = pattern_mask(scores, "block-2x4", 1 / 9)
    assert not mask[:, :, 1, 2].any()
    assert zeros(mask) == 8


@pytest.mark.parametrize(("pattern", "left"), [("2:4", [4, 4, 3, 2, 2]), ("4:8", [8, 7, 6, 5, 4])])
def test_a_group_empties_along_the_way(pattern: str, left: list[int]) -> None:
    of = int(pattern[-1])
    scores = drawn((3, 2 * of), 1)
    found = [pattern_mask(scores, pattern, 0.0, share=quarter / 4) for quarter in range(5)]
    for mask, stay in zip(found, left, strict=True):
        # Python rounds 3.5 to 4 and 2.5 to 2.
        assert {sum(group) for group in groups(mask, of)} == {stay}
    assert all((later <= earlier).all() for earlier, later in itertools.pairwise(found))


@pytest.mark.parametrize("pattern", ANY_PATTERN)
def test_a_share_of_nothing_masks_nothing(pattern: str) -> None:
    assert pattern_mask(drawn((8, 16), 0), pattern, 0.9, share=0.0).all()


def test_the_first_of_equal_ones_goes() -> None:
    assert pattern_mask(torch.zeros(2, 4), "unstructured", 0.5).int().tolist() == [[0, 0, 0, 0], [1, 1, 1, 1]]
    assert pattern_mask(torch.zeros(1, 4), "2:4", 0.0).int().tolist() == [[0, 0, 1, 1]]
    assert pattern_mask(torch.zeros(1, 4), "block-1x2", 0.5).int().tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("pattern", ["unstructured", "2:4", "block-1x1"])
def test_what_is_not_a_number_stays(pattern: str) -> None:
    scores = torch.tensor([[1.0, math.nan, 3.0, math.nan]])
    assert pattern_mask(scores, pattern, 0.5).int().tolist() == [[0, 1, 0, 1]]


@pytest.mark.parametrize("pattern", ["unstructured", "block-1x1"])
def test_as_many_go_where_too_few_are_numbers(pattern: str) -> None:
    scores = torch.tensor([[math.nan, 2.0, math.nan, math.nan]])
    assert pattern_mask(scores, pattern, 0.5).int().tolist() == [[0, 0, 1, 1]]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
@pytest.mark.parametrize("pattern", ANY_PATTERN)
def test_scores_of_any_float_type(pattern: str, dtype: torch.dtype) -> None:
    scores = torch.randperm(128, generator=torch.Generator().manual_seed(0)).view(8, 16)
    expected = pattern_mask(scores.float(), pattern, 0.5)
    assert torch.equal(pattern_mask(scores.to(dtype), pattern, 0.5), expected)


@pytest.mark.parametrize("pattern", ["2:4", "block-2x2", "unstructured"])
def test_a_depthwise_weight_has_one_column(pattern: str) -> None:
    mask = pattern_mask(drawn((8, 1, 3, 3), 0), pattern, 0.5)
    assert mask.shape == (8, 1, 3, 3)
    assert zeros(mask) == pytest.approx(0 if pattern == "2:4" else 36, abs=2)


def test_an_unknown_pattern() -> None:
    with pytest.raises(UnknownNameError, match=r"a pattern must be one of .*unstructured.*but got '4:2'"):
        pattern_mask(torch.ones(4, 4), "4:2", 0.5)
    with pytest.raises(UnknownNameError, match="but got 'rows'"):
        regrow(torch.ones(4, 4).bool(), torch.ones(4, 4), torch.ones(4, 4), 0.5, "rows")


# ---- spreads

WHOLE = torch.ones(1, 1, dtype=torch.bool)
FOUR = {"stem": (8, 1, 3, 3), "deep": (32, 16, 3, 3), "wide": (64, 32), "head": (10, 64)}


def four(seed: int = 0) -> dict[str, Tensor]:
    """Scores of four weights, some of which are much larger than others."""
    return {name: drawn(shape, seed + number) * (number + 1) for number, (name, shape) in enumerate(FOUR.items())}


def entries(names: dict[str, tuple[int, ...]]) -> int:
    return sum(math.prod(shape) for shape in names.values())


@QUICK
@given(target=SHARES, spread=st.sampled_from(SPREADS), seed=st.integers(0, 9))
def test_the_final_sparsity_is_the_target(target: float, spread: str, seed: int) -> None:
    plan = WeightPlan(sparsity=target, spread=spread)
    found = masks(four(seed), plan)
    gone = sum(zeros(mask) for mask in found.values())
    # One rounding in all for a ranking of all, else one for each weight; each of them keeps one entry.
    roundings = 1 if spread == "global" else len(FOUR)
    assert abs(gone - target * entries(FOUR)) <= 0.5 * roundings + (len(FOUR) if target > 0.98 else 0) + 1e-6
    if spread == "global":
        assert gone == min(round(target * entries(FOUR)), entries(FOUR) - len(FOUR))
    else:
        for name, share in layer_sparsities(FOUR, plan).items():
            size = math.prod(FOUR[name])
            assert zeros(found.get(name, WHOLE)) == min(round(share * size), size - 1), name


@pytest.mark.parametrize("spread", SPREADS)
def test_the_highest_target_leaves_one_entry_of_each(spread: str) -> None:
    found = masks(four(), WeightPlan(sparsity=0.9999, spread=spread))
    assert {name: int((mask != 0).sum()) for name, mask in found.items()} == dict.fromkeys(FOUR, 1)


def test_by_layer_each_has_the_target() -> None:
    for name, mask in masks(four(), WeightPlan(sparsity=0.7)).items():
        assert zeros(mask) == round(0.7 * math.prod(FOUR[name])), name


def test_a_global_ranking_compares_weights_of_all_layers() -> None:
    scores = four()
    found = masks(scores, WeightPlan(sparsity=0.6, spread="global"))
    assert list(found) == list(scores)
    # All of the stem is lower than what stays elsewhere: its best entry stays all the same.
    assert int(found["stem"].sum()) == 1
    assert scores["stem"][found["stem"]] == scores["stem"].max()
    gone = torch.cat([scores[name][~mask] for name, mask in found.items()])
    kept = torch.cat([scores[name][mask] for name, mask in found.items() if name != "stem"])
    assert gone.max() <= kept.min()
    shares = [zeros(mask) / mask.numel() for mask in found.values()]
    assert shares == sorted(shares, reverse=True), "the scores grow from weight to weight"
    assert shares[0] > 0.9
    assert shares[-1] < 0.6


@pytest.mark.parametrize("pattern", ["unstructured", "block-4x4", "block-1x8", "block-100x100", "block-8x8"])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("sparsity", [0.55, 0.9, 0.999])
def test_something_of_every_weight_stays(sparsity: float, spread: str, pattern: str) -> None:
    scores = {**four(), "one": drawn((1, 8, 1, 1), 9), "two": drawn((2, 1), 10), "equal": torch.zeros(4, 3)}
    found = masks(scores, WeightPlan(sparsity=sparsity, spread=spread, pattern=pattern))
    assert all(mask.any() for mask in found.values())
    for name, score in scores.items():
        if (means := score[found[name]] if name in found else score).numel() and pattern == "unstructured":
            assert means.max() == score.max(), name


def test_what_stays_of_a_weight_is_taken_from_others() -> None:
    low, high = torch.tensor([[1.0, 2.0, 3.0, 4.0]]), torch.tensor([[5.0, 6.0, 7.0, 8.0]])
    found = masks({"low": low, "high": high}, WeightPlan(sparsity=0.5, spread="global"))
    assert found["low"].int().tolist() == [[0, 0, 0, 1]]
    assert found["high"].int().tolist() == [[0, 1, 1, 1]]
    blocks = masks({"low": low, "high": high}, WeightPlan(sparsity=0.5, spread="global", pattern="block-1x2"))
    assert blocks["low"].int().tolist() == [[0, 0, 1, 1]]
    assert blocks["high"].int().tolist() == [[0, 0, 1, 1]]
    assert pattern_mask(torch.ones(1, 2), "unstructured", 0.9).int().tolist() == [[0, 1]], "of equal ones the first"
    assert pattern_mask(torch.tensor([[math.nan, math.nan]]), "block-1x1", 0.9).int().tolist() == [[0, 1]]


@pytest.mark.parametrize(
    ("pattern", "fits"),
    [
        ("unstructured", {"stem.weight", "head.weight"}),
        ("2:4", {"head.weight"}),
        ("1:8", {"head.weight"}),
        ("1:9", set()),
        ("block-4x9", {"head.weight"}),
        ("block-4x8", {"stem.weight", "head.weight"}),
        ("block-8x9", set()),
    ],
)
def test_which_weights_a_pattern_fits(pattern: str, fits: set[str]) -> None:
    """Weights [4, 1, 3, 3] and [5, 8]."""

    class Two(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.head = nn.Conv2d(1, 4, 3), nn.Linear(8, 5)

        def forward(self, x: Tensor) -> Tensor:
            out: Tensor = self.head(self.stem(x).flatten(1).unflatten(1, (-1, 8)))
            return out

    topology = trace(Two().eval(), torch.randn(2, 1, 6, 6))
    shapes = {name: topology.tensors[name].shape for name in maskable(topology)}
    assert set(weights_for_pattern(pattern, topology)) == fits
    plan = WeightPlan(pattern=pattern, sparsity=None if ":" in pattern else 0.9)
    made = {name: pattern_mask(drawn(shape, 0), pattern, 0.9) for name, shape in shapes.items()}
    assert {name for name, mask in made.items() if zeros(mask)} == fits
    if fits:
        check_pattern(plan, topology)
        if "stem.weight" not in fits:
            only = replace(plan, layers={"head.weight": 0.0})
            with pytest.raises(ConfigurationError, match="weights of at most 1 inputs"):
                check_pattern(only, topology)
    else:
        with pytest.raises(ConfigurationError, match=f"the pattern '{pattern}' must fit a weight.*at most 8 inputs"):
            check_pattern(plan, topology)
    check_pattern(replace(plan, layers=dict.fromkeys(shapes, 0.0)), topology)


def test_a_global_ranking_of_blocks() -> None:
    found = masks(four(), WeightPlan(sparsity=0.6, spread="global", pattern="block-4x4"))
    assert all(holds(mask, "block-4x4") for mask in found.values())
    assert abs(sum(zeros(mask) for mask in found.values()) - 0.6 * entries(FOUR)) <= 8


def test_erdos_renyi_by_hand() -> None:
    # Densities are as (10 + 10) / 100 to (40 + 10) / 400, 8 to 5; 250 of 500 entries stay: 100 * 8 e + 400 * 5 e = 250.
    found = layer_sparsities({"a": (10, 10), "b": (40, 10)}, WeightPlan(sparsity=0.5, spread="erk"))
    assert found == pytest.approx({"a": 1 - 8 * 2.5 / 28, "b": 1 - 5 * 2.5 / 28})
    # A kernel's dims count: (4 + 4 + 3 + 3) / 144 against (4 + 36) / 144.
    found = layer_sparsities({"a": (4, 4, 3, 3), "b": (4, 36)}, WeightPlan(sparsity=0.8, spread="erk"))
    assert (1 - found["b"]) / (1 - found["a"]) == pytest.approx(40 / 14)


def test_erdos_renyi_leaves_small_weights_dense() -> None:
    plan = WeightPlan(sparsity=0.5, spread="erk")
    found = layer_sparsities(FOUR, plan)
    assert found["stem"] == 0.0
    assert "stem" not in masks(four(), plan)
    total = sum(found[name] * math.prod(shape) for name, shape in FOUR.items())
    assert total == pytest.approx(0.5 * entries(FOUR)), "the others make up for it"
    assert all(0 <= share < 1 for share in found.values())


@QUICK
@given(target=SHARES, shapes=st.dictionaries(st.sampled_from("abcdef"), SHAPES, min_size=1))
def test_erdos_renyi_meets_the_target_within_bounds(target: float, shapes: dict[str, tuple[int, ...]]) -> None:
    found = layer_sparsities(shapes, WeightPlan(sparsity=target, spread="erk"))
    assert all(-1e-9 <= share <= 1 for share in found.values())
    total = sum(found[name] * math.prod(shape) for name, shape in shapes.items())
    assert total == pytest.approx(target * entries(shapes), abs=1e-6)


@pytest.mark.parametrize("spread", SPREADS)
def test_a_weight_with_its_own_sparsity(spread: str) -> None:
    plan = WeightPlan(sparsity=0.5, spread=spread, layers={"head": 0.9, "deep": 0.0})
    found = masks(four(), plan)
    assert "deep" not in found
    assert zeros(found["head"]) == round(0.9 * 640)
    others = sum(zeros(mask) for name, mask in found.items() if name != "head")
    assert abs(others - 0.5 * (72 + 2048)) <= 1


@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("pattern", ["2:4", "4:8"])
def test_groups_are_the_same_in_every_layer(pattern: str, spread: str) -> None:
    found = masks(four(), WeightPlan(pattern=pattern, spread=spread, layers={"head": 0.0}))
    assert set(found) == {"stem", "deep", "wide"}
    assert all(holds(mask, pattern) for mask in found.values())
    assert found["wide"].float().mean() == found["deep"].float().mean() == 0.5


@pytest.mark.parametrize("pattern", ["unstructured", "block-2x4"])
@pytest.mark.parametrize("spread", SPREADS)
def test_half_of_the_way(spread: str, pattern: str) -> None:
    plan = WeightPlan(sparsity=0.8, spread=spread, pattern=pattern)
    half = masks(four(), plan, share=0.5)
    assert sum(zeros(mask) for mask in half.values()) == pytest.approx(0.4 * entries(FOUR), abs=16)
    done = masks(four(), plan)
    assert all((done[name] <= mask).all() for name, mask in half.items()), "what is gone stays gone"


def test_no_sparsity_is_no_mask() -> None:
    for spread in SPREADS:
        assert masks(four(), WeightPlan(sparsity=0.0, spread=spread)) == {}


def test_names_that_are_not_there() -> None:
    plan = WeightPlan(sparsity=0.5, layers={"haed": 0.5})
    for call in (lambda: masks(four(), plan), lambda: layer_sparsities(FOUR, plan)):
        with pytest.raises(UnknownNameError, match="Did you mean 'head'"):
            call()
    with pytest.raises(ConfigurationError, match="be layer or erk, but got 'global'"):
        layer_sparsities(FOUR, WeightPlan(sparsity=0.5, spread="global"))


@pytest.mark.parametrize("pattern", ["2:4", "block-2x4"])
@pytest.mark.parametrize("spread", SPREADS)
def test_columns_along_another_dim(spread: str, pattern: str) -> None:
    plan = WeightPlan(sparsity=None if ":" in pattern else 0.5, pattern=pattern, spread=spread)
    turned = {name: score.transpose(0, 1).contiguous() for name, score in four().items()}
    found, straight = masks(turned, plan, axes=dict.fromkeys(turned, 0)), masks(four(), plan)
    for name, mask in found.items():
        assert mask.is_contiguous()
        assert mask.shape == turned[name].shape
        assert torch.equal(mask.transpose(0, 1), straight[name]), name
    experts = drawn((3, 8, 12), 0)
    mask = masks({"w": experts}, WeightPlan(pattern="2:4"), axes={"w": 2})["w"]
    assert (mask.view(3, 8, 3, 4).sum(3) == 2).all()


# ---- a model under its masks


def test_what_is_masked_is_zero_and_the_rest_keeps_its_bits() -> None:
    model = nn.Sequential(nn.Linear(6, 4), nn.ReLU(), nn.Linear(4, 4, bias=False))
    with torch.no_grad():
        model[0].weight[0, :3] = torch.tensor([-1.0, math.nan, -0.0])
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    mask = pattern_mask(drawn((4, 6), 0), "unstructured", 0.5)
    mask[0, :3] = False
    apply_masks(model, {"0.weight": mask})
    weight = model[0].weight.detach()
    assert (weight[~mask].view(torch.int32) == 0).all(), "neither minus zero nor what was not a number"
    assert torch.equal(weight[mask], before["0.weight"][mask])
    assert all(torch.equal(model.get_parameter(name), before[name]) for name in ("0.bias", "2.weight"))


def test_tied_weights_are_masked_under_either_name() -> None:
    model = nn.ModuleDict({"a": nn.Linear(4, 4), "b": nn.Linear(4, 4)})
    model["b"].weight = model["a"].weight
    apply_masks(model, {"b.weight": torch.zeros(4, 4, dtype=torch.bool)})
    assert not model["a"].weight.any()


def test_a_mask_that_fits_nothing() -> None:
    model = nn.Linear(6, 4)
    with pytest.raises(SurgeryError, match=r"the mask of w must fit a parameter of shape \(2, 2\), but got no such"):
        apply_masks(model, {"w": torch.ones(2, 2).bool()})
    with pytest.raises(SurgeryError, match=r"but got shape \(4, 6\)"):
        apply_masks(model, {"weight": torch.ones(6, 4).bool()})


# ---- regrowth


@QUICK
@given(
    shape=SHAPES,
    pattern=st.sampled_from(ANY_PATTERN),
    sparsity=SHARES,
    exchange=st.floats(0.0, 0.99),
    seed=st.integers(0, 99),
)
def test_an_exchange_keeps_the_number_of_zeros_and_the_pattern(
    shape: tuple[int, ...], pattern: str, sparsity: float, exchange: float, seed: int
) -> None:
    before = pattern_mask(drawn(shape, seed), pattern, sparsity)
    weight, gradient = drawn(shape, seed + 1) - 0.5, drawn(shape, seed + 2) - 0.5
    after = regrow(before, weight, gradient, exchange, pattern)
    assert after.dtype == torch.bool
    assert after.shape == before.shape
    assert zeros(after) == zeros(before)
    assert holds(after, pattern)


@QUICK
@given(shape=SHAPES, sparsity=SHARES, exchange=st.floats(0.0, 0.99), seed=st.integers(0, 99))
def test_the_smallest_weights_make_room_for_the_steepest(
    shape: tuple[int, ...], sparsity: float, exchange: float, seed: int
) -> None:
    before = pattern_mask(drawn(shape, seed), "unstructured", sparsity)
    weight, gradient = drawn(shape, seed + 1) - 0.5, drawn(shape, seed + 2) - 0.5
    after = regrow(before, weight, gradient, exchange)
    dropped, grown = before & ~after, after & ~before
    expected = min(round(exchange * int(before.sum())), zeros(before))
    assert int(dropped.sum()) == int(grown.sum()) == expected
    assume(expected > 0)
    stayed, left = before & after, ~before & ~after
    if stayed.any():
        assert weight.abs()[dropped].max() <= weight.abs()[stayed].min()
    if left.any():
        assert gradient.abs()[grown].min() >= gradient.abs()[left].max()


def test_an_exchange_by_hand() -> None:
    mask = torch.tensor([[True, True, False, False], [True, True, False, False]])
    weight = torch.tensor([[0.1, -5.0, 0.0, 0.0], [0.2, 0.3, 0.0, 0.0]])
    gradient = torch.tensor([[9.0, 9.0, 1.0, -2.0], [9.0, 9.0, 7.0, 0.0]])
    # One of four: the smallest of all for the steepest of all, in whatever row.
    assert regrow(mask, weight, gradient, 0.25).int().tolist() == [[0, 1, 0, 0], [1, 1, 1, 0]]
    # Within a group: its own steepest.
    assert regrow(mask, weight, gradient, 0.25, "2:4").int().tolist() == [[0, 1, 0, 1], [1, 1, 0, 0]]
    assert regrow(mask, weight, gradient, 0.75, "2:4").int().tolist() == [[0, 1, 0, 1], [0, 0, 1, 1]]
    # Blocks of two: the second row's, 0.25 against 2.55, for the same row's, 3.5 against 1.5.
    assert regrow(mask, weight, gradient, 0.5, "block-1x2").int().tolist() == [[1, 1, 0, 0], [0, 0, 1, 1]]


def test_blocks_are_exchanged_for_blocks_of_their_size() -> None:
    """The last column of blocks is one wide: it is the steepest, but cannot take the place of a whole one."""
    mask = torch.tensor([[True, True, True, True, False, False, False]] * 2)
    weight = torch.tensor([[1.0, 1.0, 2.0, 2.0, 0.0, 0.0, 5.0]] * 2)
    gradient = torch.tensor([[0.0, 0.0, 0.0, 0.0, 1.0, 1.0, 9.0]] * 2)
    after = regrow(mask, weight, gradient, 0.5, "block-2x2")
    assert after.int().tolist() == [[0, 0, 1, 1, 1, 1, 0]] * 2


def test_blocks_at_the_edges_are_exchanged_too() -> None:
    top, bottom = [[True, True, True]] * 2, [[False, False, False]] * 2
    after = regrow(torch.tensor(top + bottom), torch.ones(4, 3), torch.ones(4, 3), 0.9, "block-2x2")
    assert after.tolist() == bottom + top


@pytest.mark.parametrize("pattern", ["1:4", "2:4", "3:4", "7:8", "5:8"])
@pytest.mark.parametrize("exchange", [0.1, 0.5, 0.99])
def test_a_group_exchanges_no_more_than_it_has(pattern: str, exchange: float) -> None:
    stay, of = map(int, pattern.split(":"))
    before = pattern_mask(drawn((6, 4 * of), 0), pattern, 0.0)
    after = regrow(before, drawn((6, 4 * of), 1), drawn((6, 4 * of), 2), exchange, pattern)
    assert holds(after, pattern)
    expected = min(round(exchange * 24 * stay), 24 * min(stay, of - stay))
    assert int((before & ~after).sum()) == int((after & ~before).sum()) == expected


def test_a_gradient_that_is_not_a_number_brings_nothing_back() -> None:
    mask = torch.tensor([[True, True, False, False]])
    gradient = torch.tensor([[0.0, 0.0, math.nan, 0.1]])
    for pattern in ("unstructured", "2:4", "block-1x1"):
        assert regrow(mask, torch.tensor([[1.0, 2.0, 0.0, 0.0]]), gradient, 0.5, pattern).tolist() == [
            [False, True, False, True]
        ], pattern


@pytest.mark.parametrize("pattern", ["2:4", "block-2x4"])
def test_an_exchange_along_another_dim(pattern: str) -> None:
    before, weight, gradient = pattern_mask(drawn((8, 12), 0), pattern, 0.5), drawn((8, 12), 1), drawn((8, 12), 2)
    straight = regrow(before, weight, gradient, 0.5, pattern)
    turned = regrow(before.T, weight.T, gradient.T, 0.5, pattern, 0)
    assert torch.equal(turned.T, straight)
    assert not torch.equal(straight, before)
    assert turned.is_contiguous()
