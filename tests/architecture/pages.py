"""Parts of the docs that are generated from the code. `python -m tests.architecture.pages` writes them."""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable, Mapping
from dataclasses import fields
from pathlib import Path

from autoprune.plan.rules import Rule, rules_of
from autoprune.records.limits import Limits
from autoprune.search.settings import StudySettings
from autoprune.search.space.parameters import PARAMETERS

ROOT = Path(__file__).parents[2]


def table(header: tuple[str, ...], rows: list[tuple[str, ...]]) -> str:
    """A table in Markdown."""
    head, *body = [f"| {' | '.join(line)} |" for line in (header, *rows)]
    return "\n".join([head, f"|{'---|' * len(header)}", *body])


def parameters() -> str:
    """The parameters of a trial other than widths."""
    rows = [
        (f"`{row.name}`", f"`{row.setting}`", f"`{row.field}`" if row.field else "", row.when)
        for row in PARAMETERS.values()
    ]
    return table(("parameter", "choices in the settings", "field of the plan", "when it has an effect"), rows)


#: Group of settings -> pages that say more.
SEE: Mapping[str, str] = {
    "structure": "[structure.md](structure.md), [criteria.md](criteria.md), [search.md](search.md#ties)",
    "masks": "[masks.md](masks.md), [criteria.md](criteria.md)",
    "schedule": "[schedules.md](schedules.md)",
    "recovery": "[recovery.md](recovery.md), [schedules.md](schedules.md), [benchmarks.md](benchmarks.md)",
    "search": "[search.md](search.md), [samplers.md](samplers.md), [early_stopping.md](early_stopping.md)",
    "measure": "[search.md](search.md#the-front)",
    "workers": "[workers.md](workers.md)",
    "storage": "[search.md](search.md#disk)",
}
#: Longest rule that a table shows; a longer one lists the names of a registry.
LONGEST_RULE = 90


def settings() -> str:
    """Every field of the settings, by group."""
    outside = [one for one in fields(StudySettings) if one.name not in SEE]
    parts = [_settings_table("", StudySettings, [one.name for one in outside])]
    for group, pages in SEE.items():
        kind = type(getattr(StudySettings(), group))
        title = f"### {group}: `{kind.__name__}`\n\n{_summary(kind)} More: {pages}."
        parts.append(f"{title}\n\n{_settings_table(group, kind, [one.name for one in fields(kind)])}")
    return "\n\n".join(parts)


def _settings_table(group: str, kind: type, names: list[str]) -> str:
    meanings, rules, whole = _meanings(kind), dict(rules_of(kind)), kind()
    rows = [
        (
            f"`{group}.{name}`" if group else f"`{name}`",
            _shown(getattr(whole, name)),
            _values(rules.get(name)),
            meanings[name],
        )
        for name in names
    ]
    return table(("field", "default", "must", "meaning"), rows)


def _shown(value: object) -> str:
    """A default, as one writes it after --set."""
    if isinstance(value, Limits):
        return "none"
    if isinstance(value, tuple):
        return ", ".join(_shown(one) for one in value) or "nothing"
    return f"`{str(value).lower()}`" if value is None or isinstance(value, bool) else f"`{value}`"


def _values(rule: Rule | None) -> str:
    """What a value, or each of a tuple of values, must do."""
    if rule is None:
        return ""
    words = re.sub(
        r"be a tuple(, such as \(x,\),)? (of at least one value, )?in which each must", "each must", rule.wants
    )
    words = words.replace("be a Limits", "be an `autoprune.Limits`")
    return words if len(words) <= LONGEST_RULE or rule.known is None else "be names of a registry"


def _summary(kind: type) -> str:
    return (inspect.getdoc(kind) or "").splitlines()[0]


def _meanings(kind: type) -> dict[str, str]:
    """Attribute -> what its docstring says."""
    text = (inspect.getdoc(kind) or "").partition("Attributes:\n")[2]
    text = re.split(r"\n\n(?=\S)", text)[0]
    found = re.findall(r"^ {4}(\w+): (.*?)(?=^ {4}\w|\Z)", text, flags=re.MULTILINE | re.DOTALL)
    return {name: " ".join(words.split()).replace("|", "\\|") for name, words in found}


#: Page and name of the part -> what makes it.
PARTS: Mapping[tuple[str, str], Callable[[], str]] = {
    ("search.md", "parameters"): parameters,
    ("settings.md", "settings"): settings,
}


def generated(page: str, text: str) -> str:
    """The text of a page with all its generated parts made anew."""
    for (name, part), make in PARTS.items():
        if name == page:
            begin, end = f"<!-- {part}: generated, see CONTRIBUTING.md -->", f"<!-- end of {part} -->"
            assert begin in text, f"{page} has no place for {part}"
            before, _, rest = text.partition(begin)
            text = f"{before}{begin}\n\n{make()}\n\n{end}{rest.partition(end)[2]}"
    return text


if __name__ == "__main__":
    for page in {name for name, _ in PARTS}:
        path = ROOT / "docs" / page
        path.write_text(generated(page, path.read_text()))
