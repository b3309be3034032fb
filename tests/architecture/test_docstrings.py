"""Docstrings of the names that users import: Google sections, and examples that run."""

from __future__ import annotations

import dataclasses
import doctest
import inspect
import re
from collections.abc import Iterator

import pytest

import autoprune

NAMES = sorted(set(autoprune.__all__) - {"__version__"})
_SECTION = re.compile(r"^(Args|Attributes|Returns|Raises|Yields|Example):$")


def sections(text: str) -> dict[str, list[str]]:
    """Map each section of a docstring to its lines, without their first level of indentation."""
    found: dict[str, list[str]] = {}
    lines: list[str] = []
    for line in inspect.cleandoc(text).splitlines():
        heading = _SECTION.match(line)
        if heading:
            lines = found.setdefault(heading[1], [])
        else:
            lines.append(line[4:])
    return found


def described(lines: list[str]) -> set[str]:
    """Names that a section describes: `name: ...`, `name (type): ...`, several with commas between them."""
    heads = [re.match(r"((?:\*{0,2}\w+(?: \([^)]*\))?(?:, )?)+):", line) for line in lines if not line.startswith(" ")]
    return {name for head in heads if head for name in re.findall(r"\w+", re.sub(r"\([^)]*\)", "", head[1]))}


def parameters(function: object) -> set[str]:
    """Names of the parameters that a caller gives."""
    return set(inspect.signature(function).parameters) - {"self", "cls"}  # type: ignore[arg-type]


def functions() -> Iterator[tuple[str, object]]:
    """Yield the public functions, and the public methods of the public classes."""
    for name in NAMES:
        value = getattr(autoprune, name)
        if not inspect.isclass(value):
            yield name, value
            continue
        for method, raw in vars(value).items():
            if not method.startswith("_") and isinstance(raw, classmethod | staticmethod) | inspect.isfunction(raw):
                yield f"{name}.{method}", getattr(value, method)


FUNCTIONS = dict(functions())
CLASSES = {name: getattr(autoprune, name) for name in NAMES if inspect.isclass(getattr(autoprune, name))}


@pytest.mark.parametrize("name", FUNCTIONS)
def test_arguments_and_results_are_described(name: str) -> None:
    function = FUNCTIONS[name]
    found = sections(inspect.getdoc(function) or "")
    missing = parameters(function) - described(found.get("Args", []))
    assert not missing, f"{name} does not describe {', '.join(sorted(missing))} under Args:"
    gives = inspect.signature(function).return_annotation  # type: ignore[arg-type]
    if gives not in ("None", None):
        assert found.get("Returns"), f"{name} has no Returns: section"


@pytest.mark.parametrize("name", CLASSES)
def test_fields_are_described(name: str) -> None:
    kind = CLASSES[name]
    if not dataclasses.is_dataclass(kind):
        return
    fields = {field.name for field in dataclasses.fields(kind) if not field.name.startswith("_")}
    # Inherited fields are described where they are declared.
    missing = fields.difference(*(described(sections(one.__doc__ or "").get("Attributes", [])) for one in kind.__mro__))
    assert not missing, f"{name} does not describe {', '.join(sorted(missing))} under Attributes:"


@pytest.mark.parametrize("name", NAMES)
def test_there_is_an_example_and_it_runs(name: str) -> None:
    value = getattr(autoprune, name)
    runner = doctest.DocTestRunner(optionflags=doctest.ELLIPSIS | doctest.NORMALIZE_WHITESPACE)
    own = [found for found in doctest.DocTestFinder().find(value, name) if found.examples]
    assert any(found.name == name for found in own), f"{name} has no example"
    for found in own:
        runner.run(found)
    assert runner.failures == 0


def test_sections_are_read() -> None:
    text = """Do.

    Args:
        a: One.
            Goes on: here.
        b (int), c: Two.

    Returns:
        A thing.

    """
    found = sections(text)
    assert described(found["Args"]) == {"a", "b", "c"}
    assert "".join(found["Returns"]).strip() == "A thing."
