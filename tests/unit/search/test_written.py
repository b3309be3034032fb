"""Structures that are written by hand, or worked out from a cost function."""

from __future__ import annotations

import itertools
import random
from collections.abc import Mapping

import pytest

from autoprune.errors import ConfigurationError
from autoprune.structure.fitted import structure_of_costs
from autoprune.structure.stored import Structure
from autoprune.structure.topology import Topology
from autoprune.structure.written import Block, Group, Layer, structure_of_layers

NAN = float("nan")
GROUPS = [Group(name=f"g{number}", channels=8 * (1 + number % 3), least=1 + number % 2) for number in range(7)]


def costs(widths: Mapping[str, int], dropped: tuple[str, ...]) -> dict[str, float]:
    """A chain with biases, a residual stream, a product of three, and two blocks; bytes that are not 4 each."""
    w = [widths[f"g{number}"] for number in range(7)]
    parameters = 27 * w[0] + sum(9 * one * other for one, other in itertools.pairwise(w)) + 2 * sum(w)
    multiply_adds = 1024 * 27 * w[0] + 64 * sum(9 * one * other for one, other in itertools.pairwise(w))
    if "stream" not in dropped:
        parameters, multiply_adds = parameters + 5 * w[3] * w[3], multiply_adds + 80 * w[3] * w[3]
    if "heads" not in dropped:
        parameters, multiply_adds = parameters + w[4] * w[5] * w[6], multiply_adds + 7 * w[4] * w[5] * w[6] + 3
    return {"multiply_adds": multiply_adds, "parameters": parameters, "size_bytes": 4 * parameters + 100}


def test_a_cost_function_is_worked_out_exactly() -> None:
    text = structure_of_costs(GROUPS, costs, ("stream", "heads")).to_json()
    topology, luck = Topology.of(Structure.from_json(text)), random.Random(0)
    for _ in range(60):
        widths = {group.name: luck.randint(group.least, group.channels) for group in GROUPS}
        dropped = tuple(name for name in ("stream", "heads") if luck.random() < 0.5)
        found, wanted = topology.cost(widths, dropped), costs(widths, dropped)
        assert {name: getattr(found, name) for name in wanted} == wanted


@pytest.mark.parametrize(
    ("function", "blocks"),
    [
        (lambda w, _: {"multiply_adds": sum(-(-one // 8) * 8 for one in w.values()), "parameters": 1}, ()),
        (lambda w, _: {"multiply_adds": w["g0"] * w["g1"] / 3, "parameters": sum(w.values())}, ()),
        (lambda w, _: {"multiply_adds": sum(w.values()) ** 4, "parameters": 1}, ()),
        (lambda w, gone: {"multiply_adds": sum(w.values()) * (3 - len(gone)) ** 2, "parameters": 1}, ("p", "q")),
    ],
    ids=["rounded", "fractions", "fourth power", "blocks that depend on each other"],
)
def test_what_is_no_sum_of_products_is_refused(function: object, blocks: tuple[str, ...]) -> None:
    with pytest.raises(ConfigurationError, match="a cost function must be a sum of products"):
        structure_of_costs(GROUPS, function, blocks)  # type: ignore[arg-type]


@pytest.mark.parametrize(
    ("make", "message"),
    [
        (lambda: Group(name="a", channels=0), "the channels of group 'a' must be an integer >= 1"),
        (lambda: Group(name="a", channels=4, least=5), r"integer in \[1, 4\], but got 5"),
        (lambda: Group(name="a", channels=4, kind="filters"), "the kind of group 'a' must be one of channels"),
        (lambda: Layer(name="a", weights=0), "weights of layer 'a' must be an integer >= 1"),
        (lambda: structure_of_layers([Group(name="a", channels=4)] * 2, []), "'a' twice"),
        (lambda: structure_of_layers([Group(name="a", channels=4)], [Layer(name="x")]), "group 'a' must be in some"),
        (lambda: structure_of_layers([], [Layer(name="x", groups=("a",))]), "the groups of layer 'x'"),
        (lambda: structure_of_layers([], [Layer(name="x")], [Block(name="b", layers=("y",))]), "but got 'y'"),
        (lambda: structure_of_costs(GROUPS, lambda w, _: {"parameters": 1}), "return multiply_adds and parameters"),
        (lambda: structure_of_costs(GROUPS, lambda *_: None), "return multiply_adds and parameters"),
        (lambda: structure_of_costs(GROUPS, lambda *_: {"multiply_adds": NAN, "parameters": 1}), "numbers below"),
        (lambda: structure_of_costs(GROUPS, lambda *_: {"multiply_adds": 1e30, "parameters": 1}), "numbers below"),
        (
            lambda: structure_of_costs(GROUPS, lambda w, _: {"multiply_adds": 1, "parameters": w["g0"]}),
            "'g1' must change",
        ),
    ],
)
def test_faults_are_told(make: object, message: str) -> None:
    with pytest.raises(ConfigurationError, match=message):
        make()  # type: ignore[operator]
