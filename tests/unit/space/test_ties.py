"""Groups that share one width: which ones, under whose name, and what that does to a space."""

from __future__ import annotations

import functools
from dataclasses import replace

import pytest
import torch

from autoprune.errors import UnknownNameError
from autoprune.plan.allocation import GroupPlan
from autoprune.plan.plan import PruningPlan
from autoprune.plan.widths import planned_widths
from autoprune.records.sensitivity import Sensitivity
from autoprune.search.space.context import SpaceContext
from autoprune.search.space.space import build_space
from autoprune.search.space.ties import leaders
from autoprune.structure.topology import Topology
from autoprune.trace.trace import trace
from tests.settings import space_of
from tests.zoo.convolutional import ResNet, vgg


@functools.cache
def resnet() -> Topology:
    return trace(ResNet(widths=(8, 12, 16), depth=2).eval(), torch.randn(2, 1, 8, 8))


def ties(tie: str, **changes: object) -> dict[str, tuple[str, ...]]:
    return dict(SpaceContext(settings=space_of(tie=tie, **changes), topology=resnet()).ties)  # type: ignore[arg-type]


def test_by_stage_and_by_shape() -> None:
    """A stage has its stream and the inner widths of its blocks; the first convolution of a stage reads another one."""
    names = list(resnet().widths)
    assert ties("none") == {name: (name,) for name in names}
    assert ties("stage") == {
        "stem.0": ("stem.0", "blocks.0.conv1", "blocks.1.conv1"),
        "blocks.2.conv1": ("blocks.2.conv1", "blocks.2.conv2", "blocks.3.conv1"),
        "blocks.4.conv1": ("blocks.4.conv1", "blocks.4.conv2", "blocks.5.conv1"),
    }
    by_shape = ties("shape")
    assert by_shape["blocks.0.conv1"] == ("blocks.0.conv1", "blocks.1.conv1")
    assert by_shape["blocks.2.conv1"] == ("blocks.2.conv1",), "it reads 8 channels, blocks.3.conv1 reads 12"
    assert by_shape["stem.0"] == ("stem.0",), "a stream of other tensors"
    assert sorted(name for tie in by_shape.values() for name in tie) == sorted(names)


def test_a_stage_ends_where_the_resolution_changes() -> None:
    """Two convolutions of as many channels before and after a pooling."""
    model = torch.nn.Sequential(
        torch.nn.Conv2d(1, 8, 3, padding=1), torch.nn.ReLU(), torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.ReLU(),
        torch.nn.MaxPool2d(2), torch.nn.Conv2d(8, 8, 3, padding=1), torch.nn.Flatten(), torch.nn.Linear(128, 4),
    )  # fmt: skip
    topology = trace(model.eval(), torch.randn(2, 1, 8, 8))
    assert leaders(topology, "stage") == (0, 0, 2)


def test_groups_that_need_more_are_not_tied_to_those_that_do_not() -> None:
    needy = replace(resnet().groups[1], min_channels=3)
    topology = replace(resnet(), groups=(resnet().groups[0], needy, *resnet().groups[2:]))
    assert leaders(resnet(), "stage")[1] == 0
    assert leaders(topology, "stage")[1] == 1


def test_groups_that_other_criteria_fit_are_not_tied() -> None:
    """vgg ends in hidden units without a norm: bn_scale is no choice there."""
    topology = trace(vgg().eval(), torch.randn(2, 1, 8, 8))
    groups = tuple(replace(group, channels=8, kind="channels") for group in topology.groups)
    alike = replace(topology, groups=groups, products=())
    assert len({*leaders(alike, "stage")}) == 1
    assert leaders(alike, "stage", ("bn_scale", "l2"))[-1] == len(groups) - 1


@pytest.mark.parametrize(
    ("kind", "prefix"), list({"guided": "residual/", "direct": "ratio/", "reduced": "multiplier/"}.items())
)
def test_one_parameter_for_each_tie_under_the_name_of_its_first_group(kind: str, prefix: str) -> None:
    chosen = space_of(space=kind, tie="stage", criteria=("l2", "l1"), criterion_per_group=True)
    found = build_space(chosen, resnet(), None).distributions
    for start in (prefix, "criterion/"):
        named = [name.removeprefix(start) for name in found if name.startswith(start)]
        assert sorted(named) == sorted(ties("stage"))


def test_what_is_tied_moves_together() -> None:
    space = build_space(space_of(tie="stage", criterion_per_group=True, criteria=("l2", "l1")), resnet(), None)
    point = space.uniform(0.3) | {"residual/blocks.2.conv1": 1.0, "criterion/blocks.2.conv1": "l1"}
    plan = space.decode(point, seed=0)
    widths = planned_widths(plan, resnet())
    tie = ties("stage")["blocks.2.conv1"]
    assert len({widths[name] for name in tie}) == 1
    assert {name for name, group in plan.groups.items() if group.criterion == "l1"} == set(tie)
    assert list(plan.groups) == list(resnet().widths)


def test_a_plan_that_does_not_keep_a_tie_alike_is_moved_to_the_middle() -> None:
    space = build_space(space_of(space="direct", tie="stage"), resnet(), None)
    given = PruningPlan(groups={"stem.0": GroupPlan(ratio=0.5), "blocks.0.conv1": GroupPlan(ratio=0.25)})
    point = space.encode(given)
    assert point["ratio/stem.0"] == pytest.approx(0.25), "of 4, 6 and 8 channels"
    assert planned_widths(space.decode(point, seed=0), resnet())["blocks.1.conv1"] == 6


def test_the_scan_of_a_tie_is_what_its_groups_add_together() -> None:
    """One group of a stage that matters keeps its whole stage wide."""
    losses = dict.fromkeys(resnet().widths, (0.1, 0.2)) | {"blocks.3.conv1": (5.0, 10.0)}
    scan = Sensitivity(keep_shares=(0.5, 0.25), added_loss=losses, criterion="l2", samples_forward=0, samples_trained=0)
    space = build_space(space_of(tie="stage"), resnet(), scan)
    solved = space.solved(0.4)
    assert solved is not None
    widths = planned_widths(space.decode(solved, seed=0), resnet())
    shares = {name: widths[name] / resnet().widths[name] for name in widths}
    assert min(shares[name] for name in ties("stage")["blocks.2.conv1"]) > max(
        shares[name] for name in ties("stage")["stem.0"]
    )


def test_unknown_ties_list_the_known() -> None:
    with pytest.raises(UnknownNameError, match=r"structure\.tie must be one of none, shape, stage"):
        space_of(tie="layer")
