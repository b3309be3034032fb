"""The digits study, as its page shows it."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from autoprune.explaining.explain import explain_topology
from autoprune.proof.discover import discover_structure
from studies.digits import study

PAGE = Path(study.__file__).parent / "README.md"


def test_the_page_shows_what_explain_says() -> None:
    """Weights do not matter to it."""
    (shown,) = re.findall(r"^```text\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    topology = discover_structure(study.DigitNet().eval(), torch.randn(3, 1, 8, 8))
    text = explain_topology(topology, study.settings).text()
    for part in shown.split("...\n"):
        assert part in text
