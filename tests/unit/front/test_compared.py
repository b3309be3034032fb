"""Candidates side by side, as data."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from dataclasses import replace

import pytest

from autoprune.errors import NotFoundError
from autoprune.front.compared import compare
from autoprune.plan.allocation import GroupPlan, RankingPlan
from autoprune.plan.plan import PruningPlan
from autoprune.plan.weights import WeightPlan
from autoprune.records.cost_table import AxisLength
from autoprune.records.layer_table import LayerTable, LayerWork
from autoprune.records.manifest import GroupRow
from tests.unit.front.answers import answers, candidate
from tests.unit.front.builders import front_of

ROWS = (GroupRow(name="a", channels=8, layers=("conv1",)), GroupRow(name="b", channels=4))
WHOLE = {"a": tuple(range(8)), "b": tuple(range(4))}
DENSE = replace(candidate(0, answers(range(12)), 1000, "dense"), kept=WHOLE, plan=PruningPlan())
PLAN = PruningPlan(groups={"a": GroupPlan(ratio=0.5, criterion="taylor"), "b": GroupPlan(ratio=0.0)})
HALF = replace(
    candidate(1, answers(range(3, 15)), 700),
    kept={**WHOLE, "a": (0, 1, 2, 3)},
    plan=PLAN,
    parent=0,
    rungs=((0.25, 0.7), (0.5, 0.8)),
)
RANKED = PruningPlan(ranking=RankingPlan(ratio=0.5, criterion="l1"), weights=WeightPlan(pattern="2:4", criterion="l1"))
THIRD = replace(
    candidate(2, answers(range(30)), 400),
    kept={"a": (0, 1), "b": (0,)},
    plan=RANKED,
    parent=1,
    dropped=("block",),
)
FRONT = front_of([DENSE, HALF, THIRD])
#: A layer of a x 3 positions, one of a x b in a grid, one in the block, and a product of activations.
TABLE = LayerTable(
    names=("a", "b"),
    channels=(8, 4),
    least=(1, 1),
    kinds=("channels", "channels"),
    lengths=(AxisLength(whole=24.0, single=((0, 24.0),)), AxisLength(whole=34.0, grids=((32.0, (0, 1)),))),
    work=(
        LayerWork(layer="first.weight", kind="convolution", unit="multiply_adds", count=10.0, lengths=(0,)),
        LayerWork(layer="first.weight", kind="convolution", unit="calls", count=1.0),
        LayerWork(layer="second.weight", kind="linear", unit="multiply_adds", count=1.0, lengths=(0, 1)),
        LayerWork(layer="in.weight", kind="linear", unit="multiply_adds", count=7.0),
    ),
    blocks={"block": (3,)},
)


def test_widths_criteria_and_masks() -> None:
    found = compare(FRONT, [1, 2], ROWS)
    assert found.numbers == (0, 1, 2)
    first, second = found.groups
    assert (first.widths, first.criteria, first.layers) == ((8, 4, 2), ("", "taylor", "l1"), ("conv1",))
    assert (second.widths, second.criteria) == ((4, 4, 1), ("", "", "l1"))
    assert found.masks == ("", "", "2:4, 50% zero")
    assert (found.layers, found.predicts_latency) == ((), False)


def test_lineages_and_learning_curves() -> None:
    found = compare(FRONT, [2, 1, 2], ROWS)
    assert found.numbers == (0, 2, 1), "in the order in which they were named, each once"
    assert found.lineages == ((), (1, 0), (0,))
    assert found.curves == ((), ((1.0, 0.925),), ((0.25, 0.7), (0.5, 0.8), (1.0, 0.97)))


def test_differences_in_quality_have_the_noise_of_the_difference() -> None:
    found = compare(FRONT, [1, 2], ROWS)
    against, third = found.against_dense[1:]
    assert found.against_dense[0] is None
    assert against is not None
    assert third is not None
    assert (against.gain, against.is_certain) == (0.0, False)
    assert against.noise == pytest.approx(1.2816 * math.sqrt(7) / 400, rel=1e-3)
    assert (third.is_certain, third.gain) == (True, pytest.approx(-0.045))
    ((one, other, gap),) = found.pairs
    assert (one, other, gap.gain) == (1, 2, pytest.approx(0.045))


def test_layers_of_cut_models() -> None:
    """The second layer has 34 positions, 32 of them a grid of 8 x 4: cut to 4 x 4 and 2 x 1."""

    def times(widths: Mapping[str, int], dropped: Sequence[str]) -> Mapping[str, float]:
        assert set(widths) == {"a", "b"}
        return {"first.weight": 0.5 * widths["a"], "in.weight": 0.0 if dropped else 1.0}

    found = compare(FRONT, [1, 2], ROWS, TABLE, times)
    adds = {layer.name: layer.multiply_adds for layer in found.layers}
    assert adds["first.weight"] == (240.0, 120.0, 60.0)
    assert adds["second.weight"] == (24.0 * 34, 12.0 * 18, 6.0 * 4)
    assert adds["in.weight"] == (7.0, 7.0, 0.0)
    assert found.predicts_latency
    first = found.layers[0]
    assert (first.kind, first.latency_ms[:2]) == ("convolution", (4.0, 2.0))
    assert math.isnan(first.latency_ms[2]), "nothing predicts the latency of masks"


def test_only_candidates_that_are_there() -> None:
    with pytest.raises(NotFoundError, match="must be a finished trial"):
        compare(FRONT, [9], ROWS)


def test_before_dense_was_measured() -> None:
    found = compare(front_of([replace(HALF, parent=None)]), [1], ROWS)
    assert (found.numbers, found.against_dense) == ((1,), (None,))
