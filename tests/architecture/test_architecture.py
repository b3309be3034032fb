"""The walls of the house: layers, sizes, types and docstrings."""

from __future__ import annotations

import ast
import os
import re
import subprocess
import sys
import tomllib
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[2]
SOURCES = sorted((ROOT / "autoprune").rglob("*.py"))
#: Nodes that have a docstring.
Documented = ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef


@dataclass(frozen=True, slots=True)
class Source:
    """A file of the package, read and parsed once for all checks."""

    path: Path
    text: str
    module: ast.Module

    @classmethod
    def of(cls, path: Path) -> Source:
        text = path.read_text()
        return cls(path, text, ast.parse(text, filename=str(path)))


def test_there_is_something_to_look_at() -> None:
    assert len(SOURCES) > 40


def test_the_layers_hold() -> None:
    """import-linter's contracts of pyproject.toml, the order of the folders among them."""
    command = [str(Path(sys.executable).with_name("lint-imports")), "--no-cache"]
    result = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    assert result.returncode == 0, result.stdout + result.stderr
    assert "0 broken" in result.stdout


def public(body: list[ast.stmt]) -> Iterator[Documented]:
    """Public functions and classes, and what is public in those classes."""
    for node in body:
        if not isinstance(node, Documented) or node.name.startswith("_"):
            continue
        yield node
        if isinstance(node, ast.ClassDef):
            yield from public(node.body)


def longer_than_a_person_reads(source: Source) -> Iterator[str]:
    lines = len(source.text.splitlines())
    if lines > 400:
        yield f"{lines} lines, of at most 400"


def types_that_say_nothing(source: Source) -> Iterator[str]:
    """Any; `object` says that nothing is known."""
    for node in ast.walk(source.module):
        if (
            (isinstance(node, ast.Name) and node.id == "Any")
            or (isinstance(node, ast.Attribute) and node.attr == "Any")
            or (isinstance(node, ast.ImportFrom) and any(alias.name == "Any" for alias in node.names))
        ):
            yield f"Any in line {node.lineno}"


def without_a_docstring(source: Source) -> Iterator[str]:
    if not ast.get_docstring(source.module):
        yield "no docstring of the module"
    for node in public(source.module.body):
        if not ast.get_docstring(node):
            yield f"no docstring of {node.name} (line {node.lineno})"


def signatures_that_hide_arguments(source: Source) -> Iterator[str]:
    """**kwargs but where any module, or an executor of the standard library, is replaced; and mutable defaults."""
    for node in public(source.module.body):
        if isinstance(node, ast.ClassDef):
            continue
        if node.args.kwarg is not None and source.path.name != "skip.py" and node.name != "submit":
            yield f"**{node.args.kwarg.arg} of {node.name}"
        defaults = [*node.args.defaults, *(default for default in node.args.kw_defaults if default is not None)]
        if any(isinstance(default, ast.List | ast.Dict | ast.Set) for default in defaults):
            yield f"a mutable default of {node.name}"


CHECKS: tuple[Callable[[Source], Iterator[str]], ...] = (
    longer_than_a_person_reads,
    types_that_say_nothing,
    without_a_docstring,
    signatures_that_hide_arguments,
)


def test_every_file_keeps_to_the_rules() -> None:
    """One pass over the package: each file is read and parsed once."""
    faults = [
        f"{path.relative_to(ROOT)}: {fault}"
        for path in SOURCES
        for source in (Source.of(path),)
        for check in CHECKS
        for fault in check(source)
    ]
    assert not faults, "\n".join(faults)


@pytest.mark.parametrize(
    ("check", "text"),
    [
        (longer_than_a_person_reads, "x = 1\n" * 401),
        (types_that_say_nothing, "from typing import Any"),
        (types_that_say_nothing, "import typing\n\ndef f(x: typing.Any): pass"),
        (without_a_docstring, "x = 1"),
        (without_a_docstring, '"""Doc."""\n\nclass A:\n    """Doc."""\n\n    def f(self): pass'),
        (signatures_that_hide_arguments, "def f(**all): pass"),
        (signatures_that_hide_arguments, "def f(x=[]): pass"),
    ],
)
def test_the_rules_can_be_broken(check: Callable[[Source], Iterator[str]], text: str) -> None:
    """A check that finds nothing in a file that breaks its rule would be no check."""
    assert list(check(Source(Path("broken.py"), text, ast.parse(text))))


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
        ("from autoprune.report.sections.registry import *", {"torch", "optuna", "plotly"}),
        ("from autoprune import figure", {"torch", "optuna", "plotly"}),
        ("from autoprune import PruningSpace, SearchBackend, structure_of_costs", {"torch"}),
        ("import autoprune.dashboard.guard, autoprune.dashboard.downloads", {"torch", "optuna", "plotly"}),
    ],
    ids=["package", "plan", "front", "sections", "figure", "backend", "downloads"],
)
def test_what_is_light_stays_light(code: str, without: set[str]) -> None:
    assert not loaded_by(code) & without


#: Distribution -> the name it is imported by, where that is another one.
IMPORTED_AS = {"nvidia-ml-py": "pynvml", "scikit-learn": "sklearn"}
#: What torch imports when it exports to ONNX, and we do not.
FOR_TORCH = {"onnx", "onnxscript"}
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
        for node in ast.walk(ast.parse(source.read_text()))
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
        if name != "dev"
        and not {IMPORTED_AS.get(one, one).replace("-", "_") for one in distributions} <= imported | FOR_TORCH
    }
    assert not unused


def test_the_readme_names_no_extra_that_is_not_there() -> None:
    readme = (ROOT / "README.md").read_text()
    named = re.search(r"\(extras: (.*?)\)", readme, re.DOTALL)
    assert named is not None
    words = set(re.findall(r"`([a-z]+)`", named.group(1)))
    assert words
    assert words <= extras().keys()
