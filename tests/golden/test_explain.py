"""What `explain` prints for a small network, as a text that a person has read and found right."""

from __future__ import annotations

from pathlib import Path

import pytest
import torch

from autoprune.space.settings import SpaceSettings
from autoprune.surgery.prove import prove
from autoprune.terminal import show_topology
from autoprune.trace.trace import trace
from tests.zoo.convolutional import PaddedShortcut, ResNet

TEXTS = Path(__file__).parent


@pytest.mark.parametrize(
    ("name", "model"),
    [
        ("explain_resnet", ResNet(widths=(8, 16, 32), depth=1)),
        # Some channels of it have to stay, so that the second table is more than the head.
        ("explain_padded_shortcut", PaddedShortcut()),
    ],
)
def test_what_explain_prints(
    name: str, model: torch.nn.Module, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(variable, raising=False)
    inputs = torch.zeros(1, 1, 16, 16)
    topology = prove(model.eval(), trace(model, inputs), inputs)
    show_topology(topology, SpaceSettings())
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines()) + "\n"
    assert printed == (TEXTS / f"{name}.txt").read_text(encoding="utf-8")
