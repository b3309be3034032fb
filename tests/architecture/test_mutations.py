"""The mutations of `python -m benchmarks.mutations` still stand in the package, and their tests in the tree."""

import pytest

from benchmarks.mutations import MUTATIONS, PACKAGE, ROOT, Mutation


@pytest.fixture(scope="module")
def package() -> str:
    return "\n".join(path.read_text() for path in sorted((ROOT / PACKAGE).rglob("*.py")))


@pytest.mark.parametrize("mutation", MUTATIONS, ids=lambda mutation: mutation.name)
def test_it_breaks_one_line_and_names_tests_that_exist(mutation: Mutation, package: str) -> None:
    assert package.count(mutation.old) == 1
    assert mutation.new != mutation.old
    assert [name for name in mutation.tests if not (ROOT / name).exists()] == []
