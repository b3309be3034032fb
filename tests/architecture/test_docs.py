"""The docs say what the code says: tables against registries, commands and links against what there is."""

from __future__ import annotations

import ast
import importlib
import inspect
import logging
import re
from collections.abc import Callable, Iterator, Mapping
from dataclasses import fields
from pathlib import Path

import optuna
import pytest
import typer.main

import autoprune
from autoprune.cli.app import app
from autoprune.criteria.signals import SIGNALS
from autoprune.measure.latency.backends import LATENCY_BACKENDS
from autoprune.plan.criteria import BLOCK_CRITERIA, CRITERIA, WEIGHT_CRITERIA
from autoprune.plan.weights import PATTERNS, SPREADS
from autoprune.records.objectives import COSTS
from autoprune.records.profile import AUTO_BACKEND
from autoprune.recovery import schedules
from autoprune.recovery.learning_rate import SCHEDULERS
from autoprune.search.early_stopping import RULES
from autoprune.search.samplers.registry import SAMPLERS
from autoprune.search.samplers.variation import VARIATIONS
from autoprune.search.space.setting_groups import SPACES
from autoprune.structure.reasons import PAGE, REASON_KINDS
from autoprune.surgery.weight_masks import masks
from autoprune.task.metrics import METRICS, REGRESSION, Prediction, told_direction
from autoprune.task.task import Task
from tests.architecture import pages
from tests.tasks import image_task
from tests.unit.study.small import settings, space

ROOT = Path(__file__).parents[2]
PAGES = sorted([*ROOT.glob("*.md"), *(ROOT / "docs").glob("*.md"), *(ROOT / "studies").glob("*/README.md")])


def first_column(page: str, header: str) -> list[str]:
    """Names in backticks in the first column of the table whose header row starts with `header`."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {header}"))
    rows = []
    for line in lines[start + 2 :]:
        if not line.startswith("|"):
            break
        rows.append(re.findall(r"`([^`]+)`", line.split("|")[1])[0])
    return rows


def rows_of(page: str, header: str) -> list[list[str]]:
    """Cells of the table whose header row starts with `header`, row by row."""
    lines = (ROOT / "docs" / page).read_text().splitlines()
    start = next(number for number, line in enumerate(lines) if line.startswith(f"| {header}")) + 2
    length = next(number for number, line in enumerate(lines[start:]) if not line.startswith("|"))
    return [[cell.strip() for cell in line.strip("|").split("|")] for line in lines[start : start + length]]


def test_every_criterion_has_a_row_with_its_signals_and_file() -> None:
    registries = {"channels": CRITERIA, "weights": WEIGHT_CRITERIA, "blocks": BLOCK_CRITERIA}
    wanted = []
    for kind, registry in registries.items():
        for name, entry in registry.items():
            signals = ", ".join(entry.signals) or ("none" if name == "random" else "weights")
            wanted.append((f"`{name}`", kind, signals, f"`{entry.load().__module__.rpartition('.')[2]}.py`"))
    rows = rows_of("criteria.md", "name | for")
    assert [(name, kind, signals, file) for name, kind, _, signals, _, _, file in rows] == wanted
    assert all(all(row) for row in rows), "an empty cell"


def test_every_signal_has_a_row_and_a_file() -> None:
    rows = rows_of("criteria.md", "signal")
    assert sorted(name.strip("`") for name, *_ in rows) == sorted(SIGNALS)
    for _, _, _, file in rows:
        assert (ROOT / "autoprune" / "criteria" / file.strip("`")).is_file(), file


def test_the_years_of_the_papers_are_those_of_the_docstrings() -> None:
    registries = {"channels": CRITERIA, "weights": WEIGHT_CRITERIA, "blocks": BLOCK_CRITERIA}
    for name, kind, _, _, _, paper, _ in rows_of("criteria.md", "name | for"):
        text = registries[kind][name.strip("`")].load().__doc__ or ""
        for year in re.findall(r"\b(?:19|20)\d\d\b", paper):
            assert year in text, (name, kind)


def test_every_metric_has_a_row_with_its_direction() -> None:
    assert first_column("settings.md", "metric") == list(METRICS)
    said = {row[0].strip("`"): row[-1] for row in rows_of("settings.md", "metric")}
    for name, build in METRICS.items():
        kind = "regression" if name in REGRESSION else "multiclass"
        metric = build(Prediction(kind=kind, classes=3))
        assert said[name] == ("higher" if told_direction(metric) else "lower")


def test_every_field_of_a_task_is_in_the_docs() -> None:
    text = (ROOT / "docs" / "settings.md").read_text()
    for field in fields(Task):
        if field.init and field.name not in ("checkpoint", "search_share"):
            assert f"`{field.name}`" in text, field.name


def test_every_reason_has_a_section_of_what_to_do_and_every_section_a_reason() -> None:
    page = (ROOT / PAGE).read_text()
    sections = re.split(r"^## (.+)\n", page, flags=re.MULTILINE)[1:]
    assert sections[::2] == [kind.title for kind in REASON_KINDS.values()]
    for kind, text in zip(REASON_KINDS.values(), sections[1::2], strict=True):
        slug = re.sub(r"[^\w -]", "", kind.title.lower()).replace(" ", "-")  # as GitHub makes it
        assert kind.anchor == f"{PAGE}#{slug}"
        assert len(text.split()) > 5, kind.title
        words = re.split(r"[ ,;(=]*\{detail\}", kind.words)[0]
        assert kind.name == "other" or re.split(r"[,:;]", words)[0] in re.sub(r"\s+", " ", text), kind.title


@pytest.mark.parametrize("page", sorted({name for name, _ in pages.PARTS}))
def test_the_generated_parts_of_a_page_are_those_of_the_code(page: str) -> None:
    text = (ROOT / "docs" / page).read_text()
    assert text == pages.generated(page, text), "run `make docs`"


def test_every_sampler_and_space_has_a_row() -> None:
    assert first_column("samplers.md", "sampler") == list(SAMPLERS)
    assert first_column("samplers.md", "move") == list(VARIATIONS)
    assert first_column("search.md", "`search.space`") == list(SPACES)


def test_every_cost_has_a_row() -> None:
    assert first_column("search.md", "cost") == list(COSTS)


def test_every_latency_backend_has_a_row() -> None:
    assert first_column("latency.md", "name") == [AUTO_BACKEND, *LATENCY_BACKENDS]


def recipe(title: str) -> str:
    """The steps under an entry of CONTRIBUTING."""
    text = (ROOT / "CONTRIBUTING.md").read_text().partition(f"- **{title}**")[2]
    return text.partition("\n- **")[0]


RECIPES = (
    "A criterion",
    "A sampler",
    "A latency backend",
    "An export format",
    "A new cost",
    "A recovery step",
    "A new operator in the trace",
)


@pytest.mark.parametrize("title", RECIPES)
def test_the_files_of_a_recipe_exist(title: str) -> None:
    assert re.findall(r"^  (\d)\. ", recipe(title), flags=re.MULTILINE)[:2] == ["1", "2"]
    named = re.findall(r"`((?:autoprune|docs|tests)/[\w/.]*)`", recipe(title))
    assert len(named) >= 2
    assert [path for path in named if not (ROOT / path).exists()] == []


def test_every_rule_of_early_stopping_has_a_row() -> None:
    assert first_column("early_stopping.md", "`search.early_stopping`") == list(RULES)


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_commands_and_options_exist(page: Path) -> None:
    commands = typer.main.get_command(app).commands  # type: ignore[attr-defined]
    blocks = "\n".join(re.findall(r"^```\w*\n(.*?)^```", page.read_text(), flags=re.MULTILINE | re.DOTALL))
    for line in re.findall(r"^autoprune (.+)$", blocks, flags=re.MULTILINE):
        name, *words = line.split("#")[0].split()
        assert name in commands, f"{page.name}: autoprune {name}"
        known = {option for parameter in commands[name].params for option in parameter.opts}
        for word in words:
            if word.startswith("--"):
                assert word in known, f"{page.name}: autoprune {name} {word}"


@pytest.mark.parametrize("page", PAGES, ids=lambda page: str(page.relative_to(ROOT)))
def test_links_lead_somewhere(page: Path) -> None:
    for target in re.findall(r"\]\(([^)#]+)\)", page.read_text()):
        if not target.startswith("http"):
            assert (page.parent / target).exists(), f"{page.name}: {target}"


def test_every_benchmark_named_in_the_docs_exists() -> None:
    named = set(re.findall(r"python -m (benchmarks[.\w]*)", (ROOT / "docs" / "benchmarks.md").read_text()))
    assert named
    for module in named:
        path = ROOT / module.replace(".", "/")
        assert path.with_suffix(".py").is_file() or (path / "__main__.py").is_file(), module


def test_nothing_names_a_path_of_one_machine() -> None:
    for page in PAGES:
        assert not re.search(r"(/tmp/|/root/|/work/|/home/)", page.read_text()), page


@pytest.mark.parametrize(("header", "registry"), [("name", schedules.SCHEDULES), ("scheduler", SCHEDULERS)])
def test_every_schedule_and_scheduler_has_a_row_with_its_file(
    header: str, registry: Mapping[str, Callable[..., object]]
) -> None:
    assert first_column("schedules.md", header) == list(registry)
    lines = (ROOT / "docs" / "schedules.md").read_text().splitlines()
    start = lines.index(next(line for line in lines if line.startswith(f"| {header} "))) + 2
    for line, function in zip(lines[start : start + len(registry)], registry.values(), strict=True):
        assert line.endswith(f"| `{Path(inspect.getfile(function)).name}` |"), line


def test_the_numbers_of_the_schedules_page_are_those_of_the_schedules() -> None:
    rows = (ROOT / "docs" / "schedules.md").read_text().splitlines()
    start = rows.index("| t | 0 | 0.25 | 0.5 | 0.75 | 1 |") + 2
    seen = []
    for row in rows[start : start + 4]:
        names, *said = [cell.strip() for cell in row.strip("|").split("|")]
        for name in names.split(", "):
            seen.append(name)
            found = [schedules.SCHEDULES[name](quarter / 4, 0.8) for quarter in range(5)]
            assert [round(value, 4) for value in found] == [float(value) for value in said], name
    assert sorted(seen) == sorted(schedules.SCHEDULES)


def test_the_exchanges_of_the_schedules_page_are_those_of_the_timetable() -> None:
    (row,) = rows_of("schedules.md", "update | 1")
    plan = autoprune.SchedulePlan(name="cubic", updates=4, regrowth=0.4)
    found = [update.exchange for update in schedules.timetable(plan, 40, None)]
    assert [round(value, 4) for value in found] == [float(value) for value in row[1:]]


def test_the_plan_of_the_recovery_page_can_be_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    page = (ROOT / "docs" / "recovery.md").read_text().partition("## A plan of your own")[2]
    monkeypatch.chdir(tmp_path)
    kinds = ("channels", "blocks", "weights")
    found: dict[str, object] = {
        "autoprune": autoprune,
        "task": image_task,
        "settings": settings(trials=2, uniform_points=0, space=space(kinds=kinds, patterns=("unstructured",))),
    }
    for code in re.findall(r"^```python\n(.*?)^```", page, flags=re.MULTILINE | re.DOTALL):
        exec(code, found)
    study, plan = found["study"], found["plan"]
    assert isinstance(study, autoprune.Study)
    assert isinstance(plan, autoprune.PruningPlan)
    (own,) = [record for record in study.records if record.origin == "enqueued"]
    assert own.plan == plan
    assert own.dropped
    # Every part of a plan is shown.
    assert all(f"{part.name}=" in page for part in fields(autoprune.PruningPlan))


@pytest.fixture
def remarks() -> Iterator[list[logging.LogRecord]]:
    """What Optuna logs where its user wants to hear everything."""
    found: list[logging.LogRecord] = []
    before, logger, handler = optuna.logging.get_verbosity(), logging.getLogger("optuna"), logging.Handler()
    handler.emit = found.append  # type: ignore[method-assign]
    optuna.logging.set_verbosity(optuna.logging.INFO)
    logger.addHandler(handler)
    yield found
    logger.removeHandler(handler)
    optuna.logging.set_verbosity(before)


def python_of(page: str) -> list[str]:
    """The Python on a page of docs/."""
    return re.findall(r"^```python\n(.*?)^```", (ROOT / "docs" / page).read_text(), flags=re.MULTILINE | re.DOTALL)


def test_the_search_of_the_backend_page_can_be_run(
    remarks: list[logging.LogRecord], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    found: dict[str, object] = {}
    searched, several, _ = python_of("backend.md")
    exec(searched, found)
    run = found["run"]
    assert isinstance(run, autoprune.Run)
    assert len(run.records) == 20
    assert {record.origin for record in run.records} >= {"dense", "uniform", "sampled"}
    workers: dict[str, object] = {}
    exec(several, workers)
    backend = workers["backend"]
    assert isinstance(backend, autoprune.SearchBackend)
    assert backend.is_done
    assert len(backend.run.records) == 16
    assert not remarks, "Optuna says nothing of a study that is ours"


def test_the_own_study_of_the_backend_page_can_be_run() -> None:
    found: dict[str, object] = {}
    optuna.logging.set_verbosity(optuna.logging.WARNING)
    exec(python_of("backend.md")[2], found)
    assert isinstance(found["plan"], autoprune.PruningPlan)


@pytest.mark.parametrize("page", ["structure.md", "backend.md"])
def test_pages_for_users_show_what_the_package_exports(page: str) -> None:
    for tree in map(ast.parse, python_of(page)):
        for node in ast.walk(tree):
            deep = isinstance(node, ast.ImportFrom) and str(node.module).startswith("autoprune")
            assert not deep, ast.unparse(node)
            if isinstance(node, ast.Attribute) and isinstance(node.value, ast.Name) and node.value.id == "autoprune":
                assert node.attr in autoprune.__all__, node.attr
            names = {"discover", "cut", "KeptChannels", "SearchBackend", "PruningSpace", "apply", "evaluate"}
            assert not (isinstance(node, ast.Name) and node.id in names), f"{node.id} stands without its package"


@pytest.mark.parametrize(("header", "names"), [("pattern", PATTERNS), ("spread", SPREADS)])
def test_every_pattern_and_spread_of_masks_has_a_row(header: str, names: tuple[str, ...]) -> None:
    assert first_column("masks.md", header) == list(names)
    lines = [line for line in (ROOT / "docs" / "masks.md").read_text().splitlines() if line.startswith("| `")]
    for name in names:
        (row,) = (line for line in lines if line.startswith(f"| `{name}` |"))
        assert row.endswith(f"| `{Path(inspect.getfile(masks)).name}` |"), name


def test_every_term_of_the_glossary_leads_to_its_code() -> None:
    rows = rows_of("glossary.md", "term")
    assert [row[0] for row in rows] == sorted((row[0] for row in rows), key=str.lower)
    for term, meaning, code in rows:
        assert meaning, term
        path = code.strip("`")
        module, _, name = path.rpartition(".")
        try:
            found: object = importlib.import_module(path)
        except ModuleNotFoundError:
            found = getattr(importlib.import_module(module), name, None)
        assert found is not None, f"{term}: there is no {path}"
