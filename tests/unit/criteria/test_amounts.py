"""From what a plan says to how many channels go: by ratio, count, threshold, one ranking, blocks by number."""

from __future__ import annotations

import math
from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from autoprune.criteria.gathering import gather_signals
from autoprune.criteria.registry import score
from autoprune.criteria.resolve import resolve_allocation, select_channels, signals_to_resolve
from autoprune.criteria.signals import Signals
from autoprune.errors import ConfigurationError, UnknownNameError
from autoprune.plan.allocation import BlockPlan, GroupPlan, RankingPlan
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.plan.widths import planned_widths, width_of
from autoprune.structure.cost import STRUCTURE_COSTS
from autoprune.structure.topology import Topology
from autoprune.trace.trace import trace
from tests.unit.criteria.lines import TURN, TWICE, Add, line, on, residual
from tests.unit.criteria.small import total
from tests.zoo.registry import specimen

X = torch.ones(1, 1)


def one_to_five() -> tuple[Topology, Signals]:
    model = line()
    return trace(model, X), on(model, [X], ())


def two_groups() -> tuple[Topology, Signals]:
    """By l1 the channels of the first are worth 1, 2, 3, 4 and those of the second 10, 20, 30."""
    model = nn.Sequential(nn.Linear(1, 4, bias=False), nn.Linear(4, 3, bias=False), nn.Linear(3, 1)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[3.0], [-1.0], [4.0], [2.0]]))
        model[1].weight.copy_(torch.tensor([20.0, 10.0, -30.0]).unsqueeze(1).expand(3, 4) / 4)
    return trace(model, X), on(model, [X], ())


def counts(plan: PruningPlan) -> dict[str, int | None]:
    return {name: group.count for name, group in plan.groups.items()}


def ranked(**said: object) -> dict[str, int | None]:
    """How many go of the two groups."""
    ranking = RankingPlan(criterion="l1", **{"scale": "none", **said})  # type: ignore[arg-type]
    return counts(resolve_allocation(PruningPlan(ranking=ranking), *two_groups()))


# One group


@pytest.mark.parametrize(("threshold", "gone"), [(0.0, 0), (1.0, 0), (2.0, 1), (2.5, 2), (5.0, 4), (9.0, 4)])
def test_one_to_five_under_a_threshold(threshold: float, gone: int) -> None:
    """What lies under 2 is the 1. Never more than the group can spare."""
    topology, signals = one_to_five()
    plan = PruningPlan(groups={"0": GroupPlan(threshold=threshold, criterion="l1")})
    resolved = resolve_allocation(plan, topology, signals)
    assert resolved.groups == {"0": GroupPlan(count=gone, criterion="l1")}
    assert select_channels(ResolvedPlan.of(resolved, topology), topology, signals).groups["0"] == tuple(range(gone, 5))


def test_one_to_five_by_count_and_by_ratio() -> None:
    topology, signals = one_to_five()
    for group in (GroupPlan(count=2, criterion="l1"), GroupPlan(ratio=0.4, criterion="l1")):
        plan = PruningPlan(groups={"0": group})
        assert resolve_allocation(plan, topology, signals) is plan, "nothing to resolve"
        assert planned_widths(plan, topology) == {"0": 3}
        assert select_channels(ResolvedPlan.of(plan, topology), topology, signals).groups["0"] == (2, 3, 4)


def test_a_group_keeps_what_it_needs() -> None:
    topology, signals = one_to_five()
    needy = replace(topology, groups=(replace(topology.groups[0], min_channels=3),))
    assert width_of(needy.groups[0], 0.9) == 3
    plan = PruningPlan(groups={"0": GroupPlan(threshold=9.0, criterion="l1")})
    assert counts(resolve_allocation(plan, needy, signals)) == {"0": 2}
    with pytest.raises(ConfigurationError, match="the count of group '0' must be at most 2, as 3 of its 5 channels"):
        planned_widths(PruningPlan(groups={"0": GroupPlan(count=3)}), needy)


def test_a_threshold_is_on_the_scores_of_its_own_criterion() -> None:
    """linf and l1 are the same here, lamp goes to 1."""
    topology, signals = one_to_five()
    plan = PruningPlan(groups={"0": GroupPlan(threshold=0.2, criterion="lamp")})
    # 1/55, 4/54 and 9/50 lie under 0.2; 16/41 and 1 do not.
    assert counts(resolve_allocation(plan, topology, signals)) == {"0": 3}


# One ranking of all


@pytest.mark.parametrize(
    ("said", "first", "second"),
    [
        ({"count": 3}, 3, 0),
        ({"count": 4}, 3, 1),
        ({"count": 0}, 0, 0),
        ({"ratio": 2 / 7}, 2, 0),
        ({"ratio": 0.0}, 0, 0),
        ({"threshold": 3.0}, 2, 0),
        ({"threshold": 20.5}, 3, 2),
        # Means are 2.5 and 20: 0.4 | 0.5 | 0.8 | 1 | 1.2 | 1.5 and 1.6.
        ({"count": 2, "scale": "mean"}, 1, 1),
        ({"count": 4, "scale": "mean"}, 2, 2),
        ({"threshold": 0.9, "scale": "mean"}, 2, 1),
        # Over the largest: 1/4, 1/3, 1/2, 2/3, 3/4 and both 1.
        ({"count": 1, "scale": "max"}, 1, 0),
        ({"count": 5, "scale": "max"}, 3, 2),
        ({"threshold": 0.5, "scale": "max"}, 1, 1),
        # What the first may not give is taken from the second.
        ({"count": 3, "cap": 0.5}, 2, 1),
        ({"threshold": 100.0, "cap": 0.5}, 2, 1),
        # A quarter of 3 channels is one.
        ({"count": 4, "floor": 0.25}, 3, 1),
        ({"count": 2, "floor": 0.25}, 1, 1),
        ({"count": 0, "floor": 0.25}, 1, 1),
        ({"threshold": 0.0, "floor": 0.5, "cap": 0.7}, 2, 2),
        ({"count": 0, "floor": 0.5, "cap": 0.5}, 2, 1),
    ],
)
def test_the_lowest_of_all_groups_go(said: dict[str, object], first: int, second: int) -> None:
    assert ranked(**said) == {"0": first, "1": second}


def test_groups_with_a_plan_of_their_own_are_not_ranked() -> None:
    topology, signals = two_groups()
    ranking = RankingPlan(ratio=2 / 3, criterion="l1", scale="none")
    plan = PruningPlan(groups={"0": GroupPlan(ratio=0.25)}, ranking=ranking)
    resolved = resolve_allocation(plan, topology, signals)
    assert resolved.groups == {"0": GroupPlan(ratio=0.25), "1": GroupPlan(count=2, criterion="l1")}
    assert not resolved.needs_scores
    both = replace(plan, groups={"0": GroupPlan(), "1": GroupPlan(threshold=25.0, criterion="l1")})
    assert resolve_allocation(both, topology, signals).groups == {
        "0": GroupPlan(),
        "1": GroupPlan(count=2, criterion="l1"),
    }


def test_all_scores_of_zero_are_not_divided_by() -> None:
    topology, signals = two_groups()
    nothing = {name: tensor * (0 if name == "0.weight" else 1) for name, tensor in signals.weights.items()}
    for scale in ("mean", "max"):
        plan = PruningPlan(ranking=RankingPlan(count=3, criterion="l1", scale=scale))
        assert counts(resolve_allocation(plan, topology, replace(signals, weights=nothing))) == {"0": 3, "1": 0}


@pytest.mark.parametrize("cost", STRUCTURE_COSTS)
@pytest.mark.parametrize("budget", [0.8, 0.4, 0.1])
def test_a_budget_takes_as_few_as_it_can(cost: str, budget: float) -> None:
    case = specimen("resnet")
    signals = gather_signals(case.model, (), (case.topology, KeptChannels.whole(case.topology)), [], total, 0)
    ranking = RankingPlan(budget=budget, cost=cost, criterion="l1")
    resolved = resolve_allocation(PruningPlan(ranking=ranking), case.topology, signals)
    gone = sum(count or 0 for count in counts(resolved).values())
    dense = getattr(case.topology.cost({}), cost)

    def costs(plan: PruningPlan) -> float:
        return float(getattr(case.topology.cost(planned_widths(plan, case.topology)), cost) / dense)

    assert costs(resolved) <= budget
    one_less = RankingPlan(count=gone - 1, criterion="l1")
    assert costs(resolve_allocation(PruningPlan(ranking=one_less), case.topology, signals)) > budget


def test_the_axes_of_a_budget_differ() -> None:
    case = specimen("resnet")
    signals = gather_signals(case.model, (), (case.topology, KeptChannels.whole(case.topology)), [], total, 0)
    found = [
        resolve_allocation(
            PruningPlan(ranking=RankingPlan(budget=0.5, cost=cost, criterion="l1")), case.topology, signals
        )
        for cost in ("multiply_adds", "parameters")
    ]
    assert counts(found[0]) != counts(found[1])


def test_a_budget_out_of_reach_takes_what_the_cap_allows() -> None:
    assert ranked(budget=0.01, cap=0.5) == {"0": 2, "1": 1}
    assert ranked(budget=1.0) == {"0": 0, "1": 0}


@settings(max_examples=150, deadline=None, derandomize=True)
@given(
    shares=st.tuples(st.floats(0, 0.999), st.floats(0, 0.999)).map(sorted),
    how=st.sampled_from(["ratio", "count", "threshold", "budget"]),
    amount=st.floats(0, 0.99),
    scale=st.sampled_from(["none", "mean", "max"]),
    seed=st.integers(0, 5),
)
def test_floor_and_cap_are_never_exceeded(shares: list[float], how: str, amount: float, scale: str, seed: int) -> None:
    case = specimen("resnet")
    floor, cap = shares
    channels = sum(case.topology.widths.values())
    said = {"count": int(amount * channels), "budget": max(amount, 0.01)}.get(how, amount)
    ranking = RankingPlan(criterion="random", scale=scale, floor=floor, cap=cap, **{how: said})  # type: ignore[arg-type]
    signals = gather_signals(case.model, (), (case.topology, KeptChannels.whole(case.topology)), [], total, seed)
    most = {name: min(math.floor(width * cap + 1e-9), width - 1) for name, width in case.topology.widths.items()}
    fewest = {name: min(math.ceil(width * floor - 1e-9), most[name]) for name, width in case.topology.widths.items()}
    wanted = {"ratio": round(channels * amount), "count": said}.get(how)
    plan = PruningPlan(ranking=ranking)
    if wanted is not None and wanted > sum(most.values()):
        with pytest.raises(ConfigurationError, match="a ranking must take at most"):
            resolve_allocation(plan, case.topology, signals)
        return
    gone = {name: count or 0 for name, count in counts(resolve_allocation(plan, case.topology, signals)).items()}
    assert all(fewest[name] <= count <= most[name] for name, count in gone.items())
    if wanted is not None:
        assert sum(gone.values()) == max(wanted, sum(fewest.values()))


@settings(max_examples=60, deadline=None, derandomize=True)
@given(count=st.integers(0, 40), seed=st.integers(0, 5))
def test_nothing_that_goes_is_worth_more_than_what_stays(count: int, seed: int) -> None:
    """But for the last of each group."""
    case = specimen("resnet")
    signals = gather_signals(case.model, (), (case.topology, KeptChannels.whole(case.topology)), [], total, seed)
    ranking = RankingPlan(count=count, criterion="random", scale="none", cap=0.99)
    kept = select_channels(
        ResolvedPlan.of(resolve_allocation(PruningPlan(ranking=ranking), case.topology, signals), case.topology),
        case.topology,
        signals,
    )
    gone, stays = [], [math.inf]
    for group in case.topology.groups:
        scores = score("random", group, signals).tolist()
        alive = kept.groups[group.name]
        gone += [scores[channel] for channel in range(group.channels) if channel not in alive]
        stays += [scores[channel] for channel in alive] if len(alive) > 1 else []
    assert len(gone) == count
    assert max(gone, default=0.0) <= min(stays)


# Blocks


def test_the_lowest_blocks_go() -> None:
    """By l1 a turn is worth a half and twice is worth 1."""
    model, x = residual(TWICE, TURN, TWICE, TURN), torch.ones(1, 2)
    topology, signals = trace(model, x), on(model, [x], ())
    for count, names in enumerate([(), ("1",), ("1", "3"), ("0", "1", "3"), ("0", "1", "2", "3")]):
        resolved = resolve_allocation(PruningPlan(blocks=BlockPlan(count=count, criterion="l1")), topology, signals)
        assert tuple(sorted(resolved.dropped)) == names
        assert not resolved.needs_scores
    named = PruningPlan(dropped=("1",), blocks=BlockPlan(count=1, criterion="l1"))
    assert sorted(resolve_allocation(named, topology, signals).dropped) == ["1", "3"], (
        "beside those that the plan names"
    )
    with pytest.raises(ConfigurationError, match="the count of blocks must be at most 3, but got 4"):
        resolve_allocation(replace(named, blocks=BlockPlan(count=4, criterion="l1")), topology, signals)
    with pytest.raises(UnknownNameError, match="a criterion for blocks"):
        resolve_allocation(PruningPlan(blocks=BlockPlan(count=1, criterion="lamp")), topology, signals)


def test_what_goes_with_a_block_is_not_ranked() -> None:
    """Its channels are no share of what is left, and cutting them would bring nothing."""
    case = specimen("resnet")
    signals = gather_signals(case.model, (), (case.topology, KeptChannels.whole(case.topology)), [], total, 0)
    inner = {
        group.name
        for group in case.topology.groups
        if all(member.tensor.startswith("blocks.0.") for member in group.members)
    }
    assert inner == {"blocks.0.conv1"}
    plan = PruningPlan(dropped=("blocks.0",), ranking=RankingPlan(ratio=0.5, criterion="l1"))
    found = counts(resolve_allocation(plan, case.topology, signals))
    left = {name: width for name, width in case.topology.widths.items() if name not in inner}
    assert found.keys() == left.keys()
    assert sum(count or 0 for count in found.values()) == round(sum(left.values()) / 2)


def test_blocks_and_channels_in_one_plan() -> None:
    model = nn.Sequential(nn.Linear(1, 2, bias=False), Add(TURN), Add(TWICE), nn.Linear(2, 1)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[1.0], [9.0]]))
    topology, signals = trace(model, X), on(model, [X], ())
    plan = PruningPlan(blocks=BlockPlan(count=1, criterion="l1"), ranking=RankingPlan(count=1, criterion="l1", cap=0.5))
    resolved = resolve_allocation(plan, topology, signals)
    assert resolved.dropped == ("1",)
    assert counts(resolved) == {"0": 1}
    assert not resolved.needs_scores


# Errors, and what is needed


@pytest.mark.parametrize(
    "plan",
    [
        PruningPlan(groups={"0": GroupPlan(threshold=1.0)}),
        PruningPlan(ranking=RankingPlan(count=1)),
        PruningPlan(blocks=BlockPlan(count=1)),
    ],
)
def test_widths_of_a_plan_that_needs_scores_are_not_known(plan: PruningPlan) -> None:
    with pytest.raises(ConfigurationError, match=r"must say them, but got thresholds or a ranking. Resolve it first"):
        planned_widths(plan, one_to_five()[0])


def test_more_than_the_cap_allows() -> None:
    with pytest.raises(ConfigurationError, match=r"a ranking must take at most 3 of 7 channels, as cap=0.5.*got 4"):
        ranked(count=4, cap=0.5)
    with pytest.raises(ConfigurationError, match="a ranking must take at most 3 of 7 channels"):
        ranked(ratio=0.9, cap=0.5)


def test_names_that_there_are_not() -> None:
    topology, signals = one_to_five()
    with pytest.raises(ConfigurationError, match="'nine'"):
        resolve_allocation(PruningPlan(groups={"nine": GroupPlan(threshold=1.0)}), topology, signals)
    with pytest.raises(UnknownNameError, match="a criterion must be one of"):
        resolve_allocation(PruningPlan(ranking=RankingPlan(count=1, criterion="l3")), topology, signals)


def test_the_signals_that_a_plan_needs_to_be_resolved() -> None:
    plan = PruningPlan(
        groups={"a": GroupPlan(ratio=0.5, criterion="obd"), "b": GroupPlan(threshold=1.0, criterion="taylor")},
        ranking=RankingPlan(count=1, criterion="wanda"),
        blocks=BlockPlan(count=1),
    )
    assert signals_to_resolve(plan) == ("activations", "blocks", "gradients")
    assert signals_to_resolve(replace(plan, blocks=BlockPlan(count=0))) == ("activations", "gradients")
    assert signals_to_resolve(PruningPlan(groups={"a": GroupPlan(ratio=0.5, criterion="obd")})) == ()
