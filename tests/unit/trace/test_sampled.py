"""Values that are read at places which the model computes."""

from __future__ import annotations

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from autoprune.proof.discover import discover_structure
from tests.unit.surgery.helpers import assert_cut_is_mask, stirred
from tests.unit.trace.test_trace import reasons
from tests.zoo.vision_local import DeformableDetr


@pytest.mark.parametrize(
    ("points", "groups"),
    [
        (3, {"cross_attn.value_proj": 4, "cross_attn.value_proj#2": 6, "cross_attn.sampling_offsets": 3}),
        (4, {"cross_attn.value_proj": 4, "cross_attn.value_proj#2": 6}),  # heads and points have one number each
    ],
)
def test_heads_and_points_of_sampled_attention(points: int, groups: dict[str, int]) -> None:
    torch.manual_seed(0)
    model, inputs = stirred(DeformableDetr(points=points)), torch.randn(2, 3, 16, 16)
    topology = discover_structure(model, inputs)
    attention = {"cross_attn.value_proj", "cross_attn.value_proj#2", "cross_attn.sampling_offsets"}
    assert {name: width for name, width in topology.widths.items() if name in attention} == groups
    heads = topology.group("cross_attn.value_proj")
    made = {member.tensor for member in heads.members if member.role == "out"}
    assert made == {f"cross_attn.{name}.weight" for name in ("value_proj", "sampling_offsets", "attention_weights")}
    assert_cut_is_mask(model, topology, inputs, draws=2)


class Warped(nn.Module):
    """Channels are moved in space by a field that is computed from them."""

    def __init__(self) -> None:
        super().__init__()
        self.a, self.field, self.b = nn.Conv2d(2, 8, 1), nn.Conv2d(8, 2, 1), nn.Conv2d(8, 3, 1)

    def forward(self, x: Tensor) -> Tensor:
        x = torch.tanh(self.a(x))
        return self.b(F.grid_sample(x, torch.tanh(self.field(x)).permute(0, 2, 3, 1), align_corners=False))


def test_channels_go_and_the_coordinates_stay() -> None:
    model, inputs = stirred(Warped()), torch.randn(2, 2, 5, 5)
    topology = discover_structure(model, inputs)
    assert topology.widths == {"a": 8}
    assert reasons(topology, "field").startswith(
        "is resampled, packed or moved as a place in time or space (grid_sample"
    )
    assert_cut_is_mask(model, topology, inputs)
