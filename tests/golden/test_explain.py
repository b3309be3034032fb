"""What `explain` prints for small networks, as texts that a person has read and found right."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from pathlib import Path

import pytest
import torch
from torch import nn

from autoprune.explaining.explain import explain_topology
from autoprune.explaining.explanation import show
from autoprune.proof.discover import discover_structure
from autoprune.search.space.settings import SpaceSettings
from autoprune.task.data import Inputs
from tests.settings import space_of
from tests.slow import slow
from tests.zoo.convolutional import PaddedShortcut, ResNet
from tests.zoo.registry import build_any

TEXTS = Path(__file__).parent
IMAGE = torch.zeros(1, 1, 16, 16)


#: Name of a text -> what makes the model and its inputs.
MODELS: Mapping[str, Callable[[], tuple[nn.Module, Inputs]]] = {
    "explain_resnet": lambda: (ResNet(widths=(8, 16, 32), depth=2), IMAGE),
    # Some channels of it have to stay, so that the last table but one is more than the head.
    "explain_padded_shortcut": lambda: (PaddedShortcut(), IMAGE),
    # Heads and head width, tied weights.
    "explain_gpt2": lambda: build_any("hf_gpt2"),
    # Two head widths, and groups that the proof has withdrawn.
    "explain_levit": lambda: build_any("levit"),
}


@pytest.mark.parametrize("name", [*list(MODELS)[:-1], slow("explain_levit")])
def test_what_explain_prints(name: str, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> None:
    for variable in ("FORCE_COLOR", "TTY_COMPATIBLE", "COLUMNS"):
        monkeypatch.delenv(variable, raising=False)
    model, inputs = MODELS[name]()
    show(explain_topology(discover_structure(model.eval(), inputs), SpaceSettings()))
    printed = "\n".join(line.rstrip() for line in capsys.readouterr().out.splitlines()) + "\n"
    printed = re.sub(r"(\.py):\d+", r"\1:N", printed)  # code of the zoo may move
    assert printed == (TEXTS / f"{name}.txt").read_text(encoding="utf-8")


def test_explain_says_which_patterns_leave_weights_whole(capsys: pytest.CaptureFixture[str]) -> None:
    topology = discover_structure(ResNet(widths=(8, 16, 32), depth=2).eval(), IMAGE)
    patterns = ("none", "unstructured", "2:4", "1:16", "block-99x999")
    show(explain_topology(topology, space_of(kinds=("channels", "weights"), patterns=patterns)))
    printed = capsys.readouterr().out
    assert "2:4 masks something of 15 of these 16 tensors: N:M needs M inputs." in printed
    assert "block-99x999 masks something of 0 of these 16 tensors: one block of each always stays." in printed
    assert "unstructured masks something" not in printed
