"""The walls of the house: layers, sizes, types and docstrings."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "autoprune").rglob("*.py"))
#: Nodes that have a docstring.
Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


def tree(source: Path) -> ast.Module:
    return ast.parse(source.read_text(), filename=str(source))


def named(source: Path) -> str:
    return str(source.relative_to(ROOT))


def test_there_is_something_to_look_at() -> None:
    assert len(SOURCES) > 40


def test_the_layers_hold() -> None:
    """import-linter's contracts of pyproject.toml, the order of the folders among them."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


@pytest.mark.parametrize("source", SOURCES, ids=named)
def test_no_file_is_longer_than_a_person_reads(source: Path) -> None:
    assert len(source.read_text().splitlines()) <= 400


@pytest.mark.parametrize("source", SOURCES, ids=named)
def test_no_any(source: Path) -> None:
    """A type that says nothing; `object` says that nothing is known."""
    names = [
        node.lineno
        for node in ast.walk(tree(source))
        if (isinstance(node, ast.Name) and node.id == "Any")
        or (isinstance(node, ast.Attribute) and node.attr == "Any")
        or (isinstance(node, ast.ImportFrom) and any(alias.name == "Any" for alias in node.names))
    ]
    assert not names, f"Any in lines {names}"


def public(body: list[ast.stmt]) -> Iterator[Documented]:
    """Public functions and classes, and what is public in those classes."""
    for node in body:
        if not isinstance(node, Documented) or node.name.startswith("_"):
            continue
        yield node
        if isinstance(node, ast.ClassDef):
            yield from public(node.body)


@pytest.mark.parametrize("source", SOURCES, ids=named)
def test_what_is_public_says_what_it_is(source: Path) -> None:
    module = tree(source)
    assert ast.get_docstring(module), "the module itself"
    bare = [f"{node.name} (line {node.lineno})" for node in public(module.body) if not ast.get_docstring(node)]
    assert not bare


@pytest.mark.parametrize("source", SOURCES, ids=named)
def test_public_signatures_name_their_arguments(source: Path) -> None:
    """No **kwargs but where the place of any module is taken, no mutable defaults."""
    for node in public(tree(source).body):
        if isinstance(node, ast.ClassDef):
            continue
        assert node.args.kwarg is None or source.name == "skip.py", f"**{node.name}"
        defaults = [*node.args.defaults, *(default for default in node.args.kw_defaults if default is not None)]
        assert not any(isinstance(default, ast.List | ast.Dict | ast.Set) for default in defaults), node.name


def test_names_of_the_package_are_all_there() -> None:
    """`autoprune.X` for every X that it promises; they are looked up only when they are used."""
    import autoprune

    for name in autoprune.__all__:
        assert getattr(autoprune, name) is not None
    assert set(autoprune.__all__) <= set(dir(autoprune))
    with pytest.raises(AttributeError, match="has no attribute 'nothing'"):
        _ = autoprune.nothing


def loaded_by(code: str) -> set[str]:
    """Top-level modules that a fresh interpreter has after `code`."""
    script = f"{code}\nimport sys\nprint('\\n'.join({{name.split('.')[0] for name in sys.modules}}))"
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    result = subprocess.run(
        [sys.executable, "-c", script], capture_output=True, text=True, check=True, env=environment, cwd=ROOT
    )
    return set(result.stdout.split())


@pytest.mark.parametrize(
    ("code", "without"),
    [
        ("import autoprune", {"torch", "optuna", "numpy", "pandas", "plotly"}),
        ("from autoprune.plan.plan import PruningPlan", {"torch", "optuna", "numpy"}),
        ("from autoprune.front.front import Front", {"torch", "optuna", "plotly"}),
        ("from autoprune.report.figures import *", {"torch"}),
    ],
    ids=["package", "plan", "front", "figures"],
)
def test_what_is_light_stays_light(code: str, without: set[str]) -> None:
    assert not loaded_by(code) & without


#: Distribution -> the name it is imported by, where that is another one.
IMPORTED_AS = {"scikit-learn": "sklearn"}
#: Extra -> folders, one of which imports each of its distributions. `dev` also holds tools, which are commands.
USERS = ("autoprune", "studies", "tests", "benchmarks")


def extras() -> dict[str, list[str]]:
    """Extra -> distributions that it installs, extras of our own left out."""
    declared = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    return {
        name: [found for text in texts if (found := re.split(r"[<>=\[ ]", text)[0]) != "autoprune"]
        for name, texts in declared.items()
    }


def test_every_extra_is_used() -> None:
    """An extra that nothing imports promises a feature that is not there."""
    imported = {
        name.split(".")[0]
        for folder in USERS
        for source in (ROOT / folder).rglob("*.py")
        for node in ast.walk(tree(source))
        for name in (
            [alias.name for alias in node.names]
            if isinstance(node, ast.Import)
            else [str(node.module)]
            if isinstance(node, ast.ImportFrom)
            else []
        )
    }
    unused = {
        name: distributions
        for name, distributions in extras().items()
        if name != "dev" and not {IMPORTED_AS.get(one, one).replace("-", "_") for one in distributions} <= imported
    }
    assert not unused


def test_the_readme_names_no_extra_that_is_not_there() -> None:
    readme = (ROOT / "README.md").read_text()
    named = re.search(r"\(extras: (.*?)\)", readme, re.DOTALL)
    assert named is not None
    words = set(re.findall(r"`([a-z]+)`", named.group(1)))
    assert words
    assert words <= extras().keys()
