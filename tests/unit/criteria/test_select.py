"""From a plan to the channels that stay."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from autoprune.criteria import magnitude
from autoprune.criteria.gathering import gather_signals
from autoprune.criteria.registry import score
from autoprune.criteria.resolve import select_channels
from autoprune.criteria.signals import Signals
from autoprune.errors import ConfigurationError, SurgeryError, UnknownNameError
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.criteria import CRITERIA, applicable_criteria, check_applicable
from autoprune.plan.kept import KeptChannels
from autoprune.plan.plan import PruningPlan
from autoprune.plan.resolved import ResolvedPlan
from autoprune.plan.widths import keep_count, planned_widths
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.surgery.positions import alive_positions
from tests.unit.criteria.small import total
from tests.zoo.registry import random_kept, specimen


def select(plan: PruningPlan, topology: Topology, signals: Signals) -> KeptChannels:
    return select_channels(ResolvedPlan.of(plan, topology), topology, signals)


def plan(**ratios: float) -> PruningPlan:
    return PruningPlan(groups={name.replace("_", "."): GroupPlan(ratio=ratio) for name, ratio in ratios.items()})


@pytest.mark.parametrize(
    ("channels", "ratio", "kept"),
    [(8, 0.5, 4), (8, 0.0, 8), (8, 0.99, 1), (10, 0.7, 3), (10, 0.26, 7), (10, 0.24, 8), (1, 0.9, 1), (3, 0.34, 2)],
)
def test_ratios_are_rounded_to_the_nearest_count(channels: int, ratio: float, kept: int) -> None:
    assert keep_count(channels, ratio) == kept


@settings(max_examples=200, deadline=None, derandomize=True)
@given(st.integers(1, 2000), st.floats(0, 1, exclude_max=True))
def test_at_least_one_stays_and_no_count_is_further_off_than_half(channels: int, ratio: float) -> None:
    kept = keep_count(channels, ratio)
    assert 1 <= kept <= channels
    assert kept == 1 or abs(kept - channels * (1 - ratio)) <= 0.5 + 1e-9


def test_the_best_channels_stay() -> None:
    case = specimen("mlp")
    whole = KeptChannels.whole(case.topology)
    signals = gather_signals(case.model, (), (case.topology, whole), [], total, 0)
    kept = select_channels(
        ResolvedPlan.of(PruningPlan(groups={"2": GroupPlan(ratio=0.75, criterion="l1")}), case.topology),
        case.topology,
        signals,
    )
    order = case.model[2].weight.detach().abs().sum(1).argsort(descending=True)
    assert kept.groups["2"] == tuple(sorted(order[:4].tolist()))
    assert kept.groups["0"] == tuple(range(32)), "a group that the plan does not name stays whole"


@pytest.mark.parametrize("seed", range(4))
def test_what_stays_is_among_the_parents(seed: int) -> None:
    case = specimen("resnet")
    parent = random_kept(case.topology, seed)
    smaller = cut(case.model, case.topology, parent)
    signals = gather_signals(smaller, (), (case.topology, parent), [], total, 0)
    # As wide as the parent in some groups, narrower in others.
    groups = {
        name: GroupPlan(ratio=1 - max(1, len(channels) // 2) / case.topology.widths[name])
        for name, channels in parent.groups.items()
    }
    kept = select(PruningPlan(groups=groups), case.topology, signals)
    for name, channels in kept.groups.items():
        assert set(channels) <= set(parent.groups[name])
        assert len(channels) == max(1, len(parent.groups[name]) // 2)


def test_a_parent_that_is_too_narrow_is_our_own_mistake() -> None:
    case = specimen("mlp")
    parent = KeptChannels(groups={"0": (0, 1)})
    smaller = cut(case.model, case.topology, parent)
    signals = gather_signals(smaller, (), (case.topology, parent), [], total, 0)
    with pytest.raises(AssertionError, match="16 channels planned, 2 alive"):
        select_channels(
            ResolvedPlan.of(PruningPlan(groups={"0": GroupPlan(ratio=0.5)}), case.topology), case.topology, signals
        )


def test_planned_widths() -> None:
    case = specimen("vgg")
    assert planned_widths(PruningPlan(groups={"1.0": GroupPlan(ratio=0.5)}), case.topology) == {
        "0.0": 8,
        "1.0": 6,
        "3.0": 16,
        "6": 24,
    }
    with pytest.raises(ConfigurationError, match="'nine'"):
        planned_widths(PruningPlan(groups={"nine": GroupPlan(ratio=0.5)}), case.topology)


def test_unknown_criteria_list_the_known() -> None:
    with pytest.raises(
        UnknownNameError, match=r"must be one of .*bn_scale, .*l1, l2, .*but got 'l22'. Did you mean 'l2'"
    ):
        CRITERIA.find("l22")
    with pytest.raises(UnknownNameError):
        CRITERIA.signals_for(["l2", "nonsense"])


def test_signals_for_joins_what_is_needed() -> None:
    assert CRITERIA.signals_for(["l2", "random"]) == ()
    assert CRITERIA.signals_for(["taylor", "mean_activation", "taylor"]) == ("activations", "gradients")


def test_a_criterion_on_norms_needs_norms_everywhere() -> None:
    check_applicable(["bn_scale", "l2"], specimen("resnet").topology)
    with pytest.raises(ConfigurationError, match=r"'bn_scale' must be used on groups with a norm.*group '0' without"):
        check_applicable(["l2", "bn_scale"], specimen("mlp").topology)


def test_scores_that_are_no_numbers_are_worth_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    broken = torch.tensor([float("nan"), float("inf"), 1.0])
    monkeypatch.setattr(magnitude, "l1", lambda group, signals: broken)
    case = specimen("mlp")
    signals = gather_signals(case.model, (), (case.topology, KeptChannels.whole(case.topology)), [], total, 0)
    found = score("l1", case.topology.groups[0], signals)
    assert torch.isfinite(found).all()
    assert found.argsort().tolist() == [0, 2, 1]


# KeptChannels


def test_kept_channels_are_sorted_and_without_repeats() -> None:
    kept = KeptChannels(groups={"a": (3, 1, 3)})
    assert kept.groups["a"] == (1, 3)
    assert kept.widths == {"a": 2}
    assert kept == KeptChannels(groups={"a": (1, 3)})
    assert kept.to_dict() == {"a": [1, 3]}
    with pytest.raises(TypeError):
        kept.groups["a"] = (1,)  # type: ignore[index]


@pytest.mark.parametrize("indices", [(), (-1, 2)])
def test_kept_channels_are_some_and_not_negative(indices: tuple[int, ...]) -> None:
    with pytest.raises(ConfigurationError, match="kept channels of a must be one or more indices >= 0"):
        KeptChannels(groups={"a": indices})


def test_check() -> None:
    topology = specimen("mlp").topology
    with pytest.raises(SurgeryError, match="must be < 32, but got 32"):
        KeptChannels(groups={"0": (0, 32)}).check(topology)


def test_alive_positions_of_a_grid_are_those_that_neither_side_removes() -> None:
    topology = specimen("head_gate").topology
    alive = alive_positions(topology, KeptChannels(groups={"gate": (1, 3), "features": (0, 2, 5)}))
    assert alive["features.weight", 0].tolist() == [6, 8, 11, 18, 20, 23]
    assert alive["gate.weight", 0].tolist() == [1, 3]
    assert alive_positions(topology, KeptChannels.whole(topology)) == {}


def test_a_group_that_no_layer_reads_is_refused_before_anything_runs() -> None:
    """The width of queries and keys, say."""
    topology = specimen("resnet").topology
    group = topology.groups[0]
    unread = replace(group, members=tuple(member for member in group.members if member.role != "in"))
    bare = replace(topology, groups=(unread,))
    assert applicable_criteria(("l2", "wanda", "taylor_activation", "taylor"), unread) == ("l2", "taylor")
    with pytest.raises(ConfigurationError, match="criterion 'wanda' must be used on groups with a layer that reads it"):
        check_applicable(("wanda",), bare)
    check_applicable(("l2", "wanda"), bare, per_group=True)
