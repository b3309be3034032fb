"""What the package offers is the same to type checkers, to `dir` and at run time."""

from __future__ import annotations

import ast
from pathlib import Path

import pytest

import autoprune
from autoprune import _WHERE


def for_type_checkers() -> dict[str, str]:
    """Name -> module, as the package imports them under TYPE_CHECKING."""
    tree = ast.parse(Path(autoprune.__file__).read_text())
    (guarded,) = (node for node in tree.body if isinstance(node, ast.If))
    return {
        alias.asname or alias.name: str(node.module)
        for node in guarded.body
        if isinstance(node, ast.ImportFrom)
        for alias in node.names
    }


def test_the_three_lists_are_one() -> None:
    assert for_type_checkers() == _WHERE
    assert set(autoprune.__all__) == {"__version__", *_WHERE}
    assert set(dir(autoprune)) == set(autoprune.__all__)


@pytest.mark.parametrize("name", autoprune.__all__)
def test_every_name_is_there(name: str) -> None:
    assert getattr(autoprune, name) is not None


def test_a_plan_can_be_written_from_the_package_alone() -> None:
    plan = autoprune.PruningPlan(
        groups={"stem": autoprune.GroupPlan(ratio=0.5)},
        ranking=autoprune.RankingPlan(ratio=0.3),
        blocks=autoprune.BlockPlan(count=1),
        weights=autoprune.WeightPlan(sparsity=0.8),
        recovery=autoprune.RecoveryPlan(schedule=autoprune.SchedulePlan(name="cubic")),
    )
    assert autoprune.PruningPlan.from_json(plan.to_json()) == plan
