"""Operator rules: one file for each family, each operator in one of them, and places of reasons."""

from __future__ import annotations

import re
from collections import Counter
from pathlib import Path

import pytest
import torch
from torch import nn

from autoprune.trace import rules
from autoprune.trace.rules.registry import FAMILIES, RULES
from autoprune.trace.watch import run

#: Files of `rules/` that are no family.
NO_FAMILIES = {"__init__", "registry", "rule"}


def families() -> set[str]:
    return {path.stem for path in Path(rules.__file__).parent.glob("*.py")} - NO_FAMILIES


def test_no_operator_is_in_two_families() -> None:
    counted = Counter(name for family in FAMILIES for name in family)
    assert [name for name, count in counted.items() if count > 1] == []
    assert counted.keys() == RULES.keys()


def test_every_file_of_rules_is_a_family_of_the_registry() -> None:
    made = [{rule.__module__.rpartition(".")[2] for rule in family.values()} for family in FAMILIES]
    assert sorted(made, key=str) == sorted([{name} for name in families()], key=str)


@pytest.mark.parametrize("in_training", [False, True])
def test_after_a_trace_no_module_and_no_operator_is_left_running(in_training: bool) -> None:
    graph, _ = run(
        nn.Sequential(nn.Linear(4, 6), nn.ReLU(), nn.Linear(6, 2)), torch.randn(3, 4), in_training=in_training
    )
    assert (graph.module, graph.operator, graph.inputs, graph.made) == ("", "", [], [])


def test_contributing_names_every_family() -> None:
    text = (Path(__file__).parents[3] / "CONTRIBUTING.md").read_text()
    listed = text.partition("`autoprune/trace/rules/` (")[2].partition(")")[0]
    assert set(re.findall(r"`(\w+)`", listed)) == families()
