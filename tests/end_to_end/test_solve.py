"""autoprune solve: a table or JSON of the widths for a budget."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import autoprune
from tests.end_to_end.script import command, write
from tests.folders import files


@pytest.fixture(scope="module")
def out(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("patterns")
    assert command("run", write(folder), "--out", folder / "out", "--trials", 1).code == 0
    return folder / "out"


def test_solve_prints_widths_and_writes_nothing(out: Path) -> None:
    before = files(out)
    answer = command("solve", out, "--budget", 0.3)
    assert answer.code == 0
    assert "Widths at 30.0% of the dense multiply-adds" in answer.out
    for group, dense in (("0", 8), ("3", 12), ("6", 16)):
        (row,) = re.findall(rf"^│ {group} +│ +(\d+) │ +(\d+) │ +(\d+)% │", answer.out, re.MULTILINE)
        assert int(row[0]) == dense >= int(row[1])
        assert int(row[2]) == round(100 * int(row[1]) / dense)
    (share,) = re.findall(r"Of dense: multiply-adds ([\d.]+)%", answer.sentence)
    assert float(share) == pytest.approx(30, rel=0.01)
    assert files(out) == before


def test_solve_for_another_cost_as_json(out: Path) -> None:
    answer = command("solve", out, "--budget", 0.5, "--cost", "size_bytes", "--json")
    found = json.loads(answer.out)
    assert found["cost"] == "size_bytes"
    assert found["allocation"]["exact"] is True
    assert found["shares"]["size_bytes"] == pytest.approx(0.5, rel=0.01)
    assert found["allocation"]["widths"].keys() == {"0", "3", "6"}
    smallest = json.loads(command("solve", out, "--budget", 0.0001, "--json").out)
    assert smallest["allocation"]["exact"] is False
    assert smallest["notes"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--budget", 2], "a budget must lie in (0, 1], as a share of the dense cost, but got 2.0."),
        (["--budget", 0.3, "--cost", "latency_ms"], "the cost latency_ms must have 8 different measured models"),
        (["--budget", 0.3, "--cost", "speed"], "--cost must be one of"),
    ],
)
def test_solve_for_what_can_not_be_had(out: Path, arguments: list[object], message: str) -> None:
    answer = command("solve", out, *arguments)
    assert answer.code == 2
    assert answer.out == ""
    assert message in answer.sentence


def test_the_widths_are_a_plan(out: Path) -> None:
    widths = json.loads(command("solve", out, "--budget", 0.3, "--json").out)
    channels, kept = widths["channels"], widths["allocation"]["widths"]
    plan = autoprune.PruningPlan.from_dict(
        {"version": 3, "groups": {name: {"count": channels[name] - kept[name]} for name in channels}}
    )
    assert plan.groups["0"].count == channels["0"] - kept["0"]
