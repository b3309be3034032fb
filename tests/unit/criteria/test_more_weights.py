"""linf, l0, fpgm and lamp against numbers worked out by hand."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from torch import nn

from autoprune.criteria import magnitude
from autoprune.criteria.registry import score
from autoprune.errors import ConfigurationError
from autoprune.plan.criteria import CRITERIA
from autoprune.plan.kept import KeptChannels
from autoprune.surgery.cut import cut
from autoprune.trace.trace import trace
from tests.unit.criteria.lines import ONE_TO_FIVE, first_group, line, on
from tests.unit.criteria.small import signals_of, small, topology_of
from tests.zoo.registry import build

X = torch.ones(2, 1)


def scored(name: str, model: nn.Module, x: torch.Tensor = X) -> torch.Tensor:
    return score(name, first_group(model, x), on(model, [x], ()))


def test_one_to_five() -> None:
    model = line(ONE_TO_FIVE * torch.tensor([1, -1, 1, -1, 1]))
    assert scored("linf", model).tolist() == [1, 2, 3, 4, 5]
    # Distances on a line: signs make it 1, -2, 3, -4, 5.
    assert scored("fpgm", model).tolist() == pytest.approx([3 + 2 + 5 + 4, 3 + 5 + 2 + 7, 2 + 5 + 7 + 2, 23, 22])
    assert scored("lamp", model).tolist() == pytest.approx([1 / 55, 4 / 54, 9 / 50, 16 / 41, 1])
    assert scored("l0", model).tolist() == pytest.approx([1.1, 1.2, 1.3, 1.4, 1.5])


def test_linf_is_the_largest_of_all_filters() -> None:
    model = small()
    assert magnitude.linf(topology_of(model).groups[0], signals_of(model)).tolist() == [2, 3, 0.5]


def test_l0_counts_what_is_not_nearly_zero_whatever_the_scale() -> None:
    model = nn.Sequential(nn.Linear(4, 3, bias=False), nn.Linear(3, 1)).eval()
    weight = torch.tensor([[8.0, 0.0, 0.009, 0.0], [0.001, -0.007, 0.008, 0.0], [-0.1, 0.1, 0.0, 0.1]])
    for scale in (1.0, 1e-6, 1e6):
        with torch.no_grad():
            model[0].weight.copy_(weight * scale)
        found = scored("l0", model, torch.randn(2, 4))
        # 8 and 0.009 stand above 0.008; 0.008 itself does not.
        tie = [0.5 * (1 + 0.009 / 8) / 2, 0, 0.5 * 0.1 / 8]
        torch.testing.assert_close(found, torch.tensor([2.0, 0.0, 3.0]) + torch.tensor(tie))


def test_l0_more_entries_always_win() -> None:
    model = nn.Sequential(nn.Linear(2, 2, bias=False), nn.Linear(2, 1)).eval()
    with torch.no_grad():
        model[0].weight.copy_(torch.tensor([[9.0, 0.0], [0.01, 0.01]]))
    few, many = scored("l0", model, torch.randn(2, 2)).tolist()
    assert few < many


def test_weights_that_are_all_zero_are_worth_nothing() -> None:
    model = line(torch.zeros(5))
    for name in ("linf", "l0", "fpgm", "lamp"):
        assert scored(name, model).tolist() == [0] * 5
        function, group, signals = CRITERIA[name].load(), first_group(model, X), on(model, [X], ())
        assert function(group, signals).tolist() == [0] * 5, "no number, which counts as 0 later"


def test_fpgm_tells_near_neighbours_apart() -> None:
    """Through products of long vectors, float32 would see no distance at all between them."""
    model = nn.Sequential(nn.Linear(40, 30, bias=False), nn.Linear(30, 1)).eval()
    with torch.no_grad():
        model[0].weight.fill_(100.0)
        model[0].weight[:, 0] += torch.arange(30) * 0.01
    found = scored("fpgm", model, torch.randn(2, 40))
    wanted = torch.tensor([sum(abs(a - b) * 0.01 for b in range(30)) for a in range(30)])
    torch.testing.assert_close(found, wanted, rtol=0.01, atol=0)


def test_fpgm_looks_at_channels_alive_alone() -> None:
    model = line()
    topology = trace(model, X)
    kept = KeptChannels(groups={"0": (0, 1, 4)})
    signals = on(cut(model, topology, kept), [X], (), parent=(topology, kept))
    assert score("fpgm", topology.groups[0], signals).tolist() == pytest.approx([1 + 4, 1 + 3, 4 + 3])
    assert score("lamp", topology.groups[0], signals).tolist() == pytest.approx([1 / 30, 4 / 29, 1])


def test_lamp_counts_equal_norms_in_full() -> None:
    found = scored("lamp", line(torch.tensor([1.0, -1.0, 2.0, 2.0, 1.0])))
    assert found.tolist() == pytest.approx([1 / 11, 1 / 11, 4 / 8, 4 / 8, 1 / 11])


def test_every_layer_that_makes_the_channels_counts() -> None:
    model, inputs = build("resnet")
    topology = trace(model, inputs)
    group, signals = topology.group("stem.0"), on(model, [inputs], ())
    first, second = (w.detach().flatten(1) for w in (model.stem[0].weight, model.blocks[0].conv2.weight))
    both = torch.cat([first, second], 1)
    torch.testing.assert_close(score("linf", group, signals), both.abs().amax(1))
    pairs = (both.unsqueeze(0) - both.unsqueeze(1)).norm(dim=2)
    torch.testing.assert_close(score("fpgm", group, signals), pairs.sum(1))
    squared = both.square().sum(1)
    wanted = [float(s / squared[squared >= s].sum()) for s in squared]
    torch.testing.assert_close(score("lamp", group, signals), torch.tensor(wanted))
    shares = torch.cat([first / first.abs().max(), second / second.abs().max()], 1).abs()
    assert score("l0", group, signals).long().tolist() == (shares > 1e-3).sum(1).tolist()


def test_a_channel_of_several_positions_is_all_of_them() -> None:
    """A head: its filters side by side."""
    model, inputs = build("head_gate")
    topology = trace(model, inputs)
    group, signals = topology.group("gate"), on(model, [inputs], ())
    filters = torch.cat([model.features.weight.detach().reshape(4, -1), model.gate.weight.detach()], 1)
    torch.testing.assert_close(score("linf", group, signals), filters.abs().amax(1))
    torch.testing.assert_close(
        score("fpgm", group, signals), (filters.unsqueeze(0) - filters.unsqueeze(1)).norm(dim=2).sum(1)
    )


@pytest.mark.parametrize("name", ["l1", "l2", "linf", "l0", "fpgm", "lamp"])
def test_a_group_that_no_weight_makes_is_a_configuration_error(name: str) -> None:
    model = line()
    group = first_group(model, X)
    bare = replace(group, members=tuple(member for member in group.members if member.role != "out"))
    with pytest.raises(ConfigurationError, match=f"criterion '{name}' must be used on groups that weights make"):
        score(name, bare, on(model, [X], ()))
