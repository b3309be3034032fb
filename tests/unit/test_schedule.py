"""Tests of a module share a worker, and with it what the module has made."""

from __future__ import annotations

import pytest

from tests.schedule import group_of

RAN: list[str] = []


@pytest.mark.parametrize("number", range(4))
def test_all_tests_of_a_module_run_in_one_worker(number: int, request: pytest.FixtureRequest) -> None:
    del number
    here = [item.name for item in request.session.items if item.path == request.node.path]
    RAN.append(request.node.name)
    assert here[: len(RAN)] == RAN, "another worker has run the ones before"


def test_a_group_is_a_module_a_folder_or_a_parameter() -> None:
    assert group_of("tests/unit/test_a.py::test_b[c]") == group_of("tests/unit/test_a.py::test_d")
    assert group_of("tests/unit/test_a.py::test_b") != group_of("tests/unit/test_c.py::test_b")
    assert group_of("tests/browser/test_a.py::test_b") == group_of("tests/browser/test_c.py::test_d")
    one, other, third = (f"tests/conformance/test_structure.py::{test}" for test in ("a[x]", "b[x]", "b[y]"))
    assert group_of(one) == group_of(other) != group_of(third)
