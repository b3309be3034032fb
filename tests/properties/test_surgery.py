"""The property that carries the project: a cut model computes what the masked model computes."""

from __future__ import annotations

import copy

import pytest
import torch
from hypothesis import Phase, given, settings
from hypothesis import strategies as st
from torch import Tensor

from autoprune.plan.kept import KeptChannels
from autoprune.structure.topology import Topology
from autoprune.surgery.cut import cut
from autoprune.surgery.mask import mask
from tests.zoo.registry import ZOO, specimen

#: Explaining a failure takes far longer than finding it.
PHASES = (Phase.explicit, Phase.generate, Phase.shrink)
QUICK = settings(max_examples=8, deadline=None, derandomize=True, phases=PHASES)


def kept_sets(data: st.DataObject, topology: Topology, within: KeptChannels | None = None) -> KeptChannels:
    """Any non-empty subset of every group; some groups are not named at all, which keeps them whole."""
    groups: dict[str, tuple[int, ...]] = {}
    for group in topology.groups:
        channels = within.groups.get(group.name) if within is not None else None
        if channels is None and data.draw(st.integers(0, 7)) == 0:
            continue
        choice = st.sets(st.sampled_from(channels or range(group.channels)), min_size=1)
        groups[group.name] = tuple(data.draw(choice))
    return KeptChannels(groups=groups)


def difference(left: Tensor, right: Tensor) -> float:
    assert left.shape == right.shape
    return float((left - right).abs().max()) / max(float(right.abs().max()), 1e-12)


@pytest.mark.parametrize("name", ZOO)
@QUICK
@given(data=st.data())
@torch.no_grad()
def test_cut_computes_what_mask_computes(name: str, data: st.DataObject) -> None:
    case = specimen(name)
    kept = kept_sets(data, case.topology)
    smaller = cut(case.model, case.topology, kept)
    silenced = mask(case.model, case.topology, kept)
    assert difference(smaller(case.inputs), silenced(case.inputs)) < 1e-10
    wanted = case.topology.cost(kept.widths).parameters
    assert sum(parameter.numel() for parameter in smaller.parameters()) == wanted


@pytest.mark.parametrize("name", ZOO)
@QUICK
@given(data=st.data())
@torch.no_grad()
def test_a_cut_of_a_cut_is_the_direct_cut(name: str, data: st.DataObject) -> None:
    case = specimen(name)
    parent = kept_sets(data, case.topology)
    kept = kept_sets(data, case.topology, within=parent)
    wide = cut(case.model, case.topology, parent)
    twice = cut(wide, case.topology, kept, parent=parent)
    once = cut(case.model, case.topology, kept)
    for key, value in once.state_dict().items():
        assert torch.equal(twice.state_dict()[key], value), key
    # Also what is no tensor, such as the groups of a convolution, has to come out the same.
    assert torch.equal(twice(case.inputs), once(case.inputs))
    assert repr(twice) == repr(once)


@pytest.mark.parametrize("name", ["resnet", "vgg", "densenet"])
@torch.no_grad()
def test_cutting_is_not_the_same_as_doing_nothing(name: str) -> None:
    """Guards the tests above: on these inputs a lost channel does change the outputs."""
    case = specimen(name)
    dense = case.model(case.inputs)
    for group in case.topology.groups:
        kept = KeptChannels(groups={group.name: tuple(range(group.channels // 2))})
        assert difference(mask(case.model, case.topology, kept)(case.inputs), dense) > 1e-4, group.name


def test_the_shared_models_were_not_changed() -> None:
    case = specimen("resnet")
    before = copy.deepcopy(case.model.state_dict())
    mask(case.model, case.topology, KeptChannels(groups={"stem.0": (0,)}))
    cut(case.model, case.topology, KeptChannels(groups={"stem.0": (0,)}))
    assert all(torch.equal(before[key], value) for key, value in case.model.state_dict().items())
