"""The reduced space: a budget, an exponent and eight multipliers."""

from __future__ import annotations

import functools

import numpy as np
import pytest
import torch
from optuna.distributions import FloatDistribution

from autoprune.plan.widths import planned_widths
from autoprune.records.sensitivity import Sensitivity
from autoprune.search.space.reduced import MULTIPLIERS
from autoprune.search.space.settings import SpaceSettings
from autoprune.search.space.space import Space, build_space
from autoprune.sensitivity.scan import KEEP_SHARES
from autoprune.structure.topology import Topology
from autoprune.trace.trace import trace
from tests.settings import space_of
from tests.zoo.convolutional import ResNet


@functools.cache
def resnet() -> Topology:
    return trace(ResNet(widths=(16, 32, 64), depth=4).eval(), torch.randn(2, 1, 8, 8))


def names() -> list[str]:
    return list(resnet().widths)


@functools.cache
def scan() -> Sensitivity:
    return Sensitivity(
        keep_shares=KEEP_SHARES,
        added_loss={
            name: tuple(float(-(0.1 if number % 2 else 1.0) * np.log(share)) for share in KEEP_SHARES)
            for number, name in enumerate(names())
        },
        criterion="l2",
        samples_forward=0,
        samples_trained=0,
    )


def space(scanned: bool = True) -> Space:
    return build_space(space_of(space="reduced", max_ratio=0.95), resnet(), scan() if scanned else None)


def shares(found: Space, changes: dict[str, float], budget: float = 0.3) -> np.ndarray:
    widths = planned_widths(found.decode(found.uniform(budget) | changes, seed=0), resnet())
    return np.array([widths[name] / resnet().widths[name] for name in names()])


def multipliers(found: Space) -> list[str]:
    return [name for name in found.distributions if name.startswith("multiplier/")]


def test_distributions() -> None:
    found = space().distributions
    assert found["exponent"] == FloatDistribution(0.0, 2.0)
    assert space(scanned=False).distributions["exponent"] == FloatDistribution(-0.5, 0.5)
    assert len(multipliers(space())) == MULTIPLIERS
    assert {found[name] for name in multipliers(space())} == {FloatDistribution(-1.0, 1.0)}
    assert multipliers(space())[0] == f"multiplier/{names()[0]}"
    assert not [name for name in found if name.startswith("residual/")]


def test_an_exponent_of_one_is_the_solved_allocation_of_the_guided_space() -> None:
    guided = build_space(SpaceSettings(), resnet(), scan())
    for budget in (0.6, 0.3, 0.1):
        solved, other = space().solved(budget), guided.solved(budget)
        assert solved is not None
        assert other is not None
        assert solved["exponent"] == 1.0
        assert space().decode(solved, seed=0) == guided.decode(other, seed=0)


def test_the_exponent_says_how_far_the_scan_is_followed() -> None:
    apart = []
    for exponent in (0.0, 0.5, 1.0, 2.0):
        found = shares(space(), {"exponent": exponent})
        apart.append(found[0::2].mean() - found[1::2].mean())
    assert apart[0] == pytest.approx(0.0, abs=0.05)
    assert apart == sorted(apart)
    assert apart[2] > 0.1


def test_without_a_scan_it_says_how_much_more_dear_groups_give() -> None:
    dense = resnet().cost({}).multiply_adds
    halves = [dense - resnet().cost({name: resnet().widths[name] // 2}).multiply_adds for name in names()]
    dear = np.argsort(halves)[-4:]
    thin, even, wide = (
        shares(space(scanned=False), {"exponent": exponent})[dear].mean() for exponent in (0.5, 0.0, -0.5)
    )
    assert thin < even < wide
    assert space(scanned=False).solved(0.3) is None


def test_a_multiplier_widens_its_stretch_and_no_other() -> None:
    found = space(scanned=False)
    starts = [names().index(name.removeprefix("multiplier/")) for name in multipliers(found)] + [len(names())]
    assert starts == sorted(starts)
    plain = shares(found, {})
    for number, name in enumerate(multipliers(found)):
        wider = shares(found, {name: 1.0})
        inside = np.zeros(len(names()), dtype=bool)
        inside[starts[number] : starts[number + 1]] = True
        assert (wider[inside] > plain[inside]).all()
        assert wider[~inside].mean() < plain[~inside].mean()


def test_few_groups_have_no_more_multipliers_than_they_are() -> None:
    small = trace(ResNet(widths=(8, 12), depth=1).eval(), torch.randn(2, 1, 8, 8))
    assert len(small.groups) < MULTIPLIERS
    found = build_space(space_of(space="reduced"), small, None)
    assert multipliers(found) == [f"multiplier/{name}" for name in small.widths]


def test_blocks_alone_have_no_budget() -> None:
    alone = resnet().only(("blocks",))
    found = build_space(space_of(space="reduced", kinds=("blocks",)), alone, None)
    assert not [name for name in found.distributions if name in ("budget", "exponent")]
    assert found.decode(found.uniform(1.0), seed=0).groups == {}
