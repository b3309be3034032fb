"""The reduced space: a budget, an exponent and eight multipliers."""

from __future__ import annotations

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
from autoprune.trace.trace import trace
from tests.zoo.convolutional import ResNet

TOPOLOGY = trace(ResNet(widths=(16, 32, 64), depth=4).eval(), torch.randn(2, 1, 8, 8))
NAMES = list(TOPOLOGY.widths)
SCAN = Sensitivity(
    keep_shares=KEEP_SHARES,
    added_loss={
        name: tuple(float(-(0.1 if number % 2 else 1.0) * np.log(share)) for share in KEEP_SHARES)
        for number, name in enumerate(NAMES)
    },
    criterion="l2",
    samples_forward=0,
    samples_trained=0,
)


def space(scan: Sensitivity | None = SCAN) -> Space:
    return build_space(SpaceSettings(kind="reduced", max_ratio=0.95), TOPOLOGY, scan)


def shares(found: Space, changes: dict[str, float], budget: float = 0.3) -> np.ndarray:
    widths = planned_widths(found.decode(found.uniform(budget) | changes, seed=0), TOPOLOGY)
    return np.array([widths[name] / TOPOLOGY.widths[name] for name in NAMES])


def multipliers(found: Space) -> list[str]:
    return [name for name in found.distributions if name.startswith("multiplier/")]


def test_distributions() -> None:
    found = space().distributions
    assert found["exponent"] == FloatDistribution(0.0, 2.0)
    assert space(None).distributions["exponent"] == FloatDistribution(-0.5, 0.5)
    assert len(multipliers(space())) == MULTIPLIERS
    assert {found[name] for name in multipliers(space())} == {FloatDistribution(-1.0, 1.0)}
    assert multipliers(space())[0] == f"multiplier/{NAMES[0]}"
    assert not [name for name in found if name.startswith("residual/")]


def test_an_exponent_of_one_is_the_solved_allocation_of_the_guided_space() -> None:
    guided = build_space(SpaceSettings(), TOPOLOGY, SCAN)
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
    dense = TOPOLOGY.cost({}).multiply_adds
    halves = [dense - TOPOLOGY.cost({name: TOPOLOGY.widths[name] // 2}).multiply_adds for name in NAMES]
    dear = np.argsort(halves)[-4:]
    thin, even, wide = (shares(space(None), {"exponent": exponent})[dear].mean() for exponent in (0.5, 0.0, -0.5))
    assert thin < even < wide
    assert space(None).solved(0.3) is None


def test_a_multiplier_widens_its_stretch_and_no_other() -> None:
    found = space(None)
    starts = [NAMES.index(name.removeprefix("multiplier/")) for name in multipliers(found)] + [len(NAMES)]
    assert starts == sorted(starts)
    plain = shares(found, {})
    for number, name in enumerate(multipliers(found)):
        wider = shares(found, {name: 1.0})
        inside = np.zeros(len(NAMES), dtype=bool)
        inside[starts[number] : starts[number + 1]] = True
        assert (wider[inside] > plain[inside]).all()
        assert wider[~inside].mean() < plain[~inside].mean()


def test_few_groups_have_no_more_multipliers_than_they_are() -> None:
    small = trace(ResNet(widths=(8, 12), depth=1).eval(), torch.randn(2, 1, 8, 8))
    assert len(small.groups) < MULTIPLIERS
    found = build_space(SpaceSettings(kind="reduced"), small, None)
    assert multipliers(found) == [f"multiplier/{name}" for name in small.widths]


def test_blocks_alone_have_no_budget() -> None:
    alone = TOPOLOGY.only(("blocks",))
    found = build_space(SpaceSettings(kind="reduced", kinds=("blocks",)), alone, None)
    assert not [name for name in found.distributions if name in ("budget", "exponent")]
    assert found.decode(found.uniform(1.0), seed=0).groups == {}
