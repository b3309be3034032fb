"""Outputs that are no numbers are alike in a right cut and in a wrong one, and prove nothing."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor, nn

from autoprune.errors import TraceError
from autoprune.proof.discover import discover_structure
from autoprune.structure.reasons import NO_EFFECT


class Narrowing(nn.Module):
    """A model whose outputs depend on how many channels it has, so that no cut of them is right."""

    def __init__(self) -> None:
        super().__init__()
        self.inp, self.out = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> Tensor:
        hidden = torch.relu(self.inp(x))
        made: Tensor = self.out(hidden) * hidden.shape[-1]
        return made


class Broken(Narrowing):
    """The same, and what it makes is no number, beside something that is."""

    def __init__(self) -> None:
        super().__init__()
        self.beside, self.last = nn.Linear(6, 8), nn.Linear(8, 3)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:  # type: ignore[override]  # one more
        wrong = super().forward(x)
        return self.last(torch.relu(self.beside(x))), (wrong - wrong) / 0


def test_a_model_that_gives_nothing_finite_is_refused() -> None:
    assert discover_structure(Narrowing().eval(), torch.randn(3, 6)).widths == {}
    with pytest.raises(TraceError, match=r"give finite values, but got ValueError: outputs that are not finite"):
        discover_structure(Narrowing().eval(), torch.full((3, 6), torch.nan))


def test_a_sample_that_is_not_finite_leaves_the_proof_to_the_others() -> None:
    inputs = torch.randn(3, 6)
    inputs[1] = torch.nan
    assert discover_structure(Narrowing().eval(), inputs).widths == {}
    model = nn.Sequential(nn.Linear(6, 8), nn.ReLU(), nn.Linear(8, 3)).eval()
    assert discover_structure(model, inputs).widths == {"0": 8}


def test_channels_behind_outputs_that_are_not_finite_stay() -> None:
    topology = discover_structure(Broken().eval(), torch.randn(3, 6))
    assert topology.widths == {"beside": 8}
    (left,) = [left for left in topology.unprunable if left.group == "inp"]
    assert left.why.kind == NO_EFFECT
