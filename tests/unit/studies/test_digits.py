"""The digits study, as its page shows it."""

from __future__ import annotations

import re
from pathlib import Path

import torch

from autoprune.explaining.explained import explained
from autoprune.surgery.prove import survey
from studies.digits import study

PAGE = Path(study.__file__).parent / "README.md"


def test_the_page_shows_what_explain_says() -> None:
    """Weights do not matter to it."""
    (shown,) = re.findall(r"^```text\n(.*?)^```", PAGE.read_text(), flags=re.MULTILINE | re.DOTALL)
    topology = survey(study.DigitNet().eval(), torch.randn(3, 1, 8, 8))
    text = explained(topology, study.settings.space).text()
    for part in shown.split("...\n"):
        assert part in text
