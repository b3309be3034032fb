"""The data of a report, as it was recorded from `runs/v3`: `python -m tests.golden.test_report` writes it again."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from autoprune.front.run import Run
from autoprune.report.sections.registry import sections_of
from autoprune.report.sections.summary import summary

HERE = Path(__file__).parent
RECORDED = HERE / "report.json"


def data() -> dict[str, object]:
    """Summary and sections of the recorded run, as JSON gives them back."""
    run = Run.open(HERE / "runs" / "v3")
    front = run.front()
    found = {section.anchor: section.plain() for _, sections in sections_of(run, front) for section in sections}
    return dict(json.loads(json.dumps({"summary": summary(run, front).plain(), **found})))


def check(found: object, recorded: object, where: str = "") -> None:
    """Compare two values of JSON; numbers may differ by rounding."""
    if isinstance(recorded, dict):
        assert isinstance(found, dict), where
        assert list(found) == list(recorded), where
        for key, value in recorded.items():
            check(found[key], value, f"{where}/{key}")
    elif isinstance(recorded, list):
        assert isinstance(found, list), where
        assert len(found) == len(recorded), where
        for place, (one, other) in enumerate(zip(found, recorded, strict=True)):
            check(one, other, f"{where}/{place}")
    elif isinstance(recorded, float):
        assert found == pytest.approx(recorded, rel=1e-3), where
    else:
        assert found == recorded, where


def test_the_data_of_a_report_is_what_it_was() -> None:
    check(data(), json.loads(RECORDED.read_text(encoding="utf-8")))


if __name__ == "__main__":
    lines = ",\n".join(f"{json.dumps(name)}: {json.dumps(section)}" for name, section in data().items())
    RECORDED.write_text(f"{{\n{lines}\n}}\n", encoding="utf-8")
