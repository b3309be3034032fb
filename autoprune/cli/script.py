"""Study scripts: the task and settings of a user's file, with the options of the command line."""

from __future__ import annotations

import importlib.util
import os
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from autoprune.errors import (
    AutopruneError,
    ConfigurationError,
    NotFoundError,
    UnknownNameError,
    describe_exception,
    error_message,
    raise_all,
)
from autoprune.records.limits import Limits
from autoprune.search.settings import UNIFORM_POINTS, StudySettings, with_fields

if TYPE_CHECKING:  # torch and optuna are there once a script has been imported
    from optuna.samplers import BaseSampler

    from autoprune.task.task import Task

#: Name under which a study script is imported; its main() does nothing then.
SCRIPT_MODULE = "autoprune_study_script"
#: Seed of a study -> sampler of its trials.
MakeSampler = Callable[[int], "BaseSampler"]


@dataclass(frozen=True, slots=True, kw_only=True)
class Script:
    """Definitions of a study script.

    Attributes:
        task: Result of its task().
        settings: Its `settings`, with the options of the command line.
        sampler: Its sampler(seed), which replaces the settings' sampler; None where there is none.
    """

    task: Task
    settings: StudySettings
    sampler: MakeSampler | None = None


def check_numbers(counts: Mapping[str, int | None], seconds: float | None, seed: int | None) -> None:
    """Check numbers of the command line before a script is imported, as a script may train a model.

    Args:
        counts: Option -> its value; None where it was not given.
        seconds: Value of `--seconds`.
        seed: Value of `--seed`.

    Raises:
        ConfigurationError: For a number that is too small.
    """
    faults = [
        error_message(name, "be >= 1", count) for name, count in counts.items() if count is not None and count <= 0
    ]
    if seconds is not None and seconds <= 0:
        faults.append(error_message("--seconds", "be > 0", seconds))
    if seed is not None and seed < 0:
        faults.append(error_message("--seed", "be >= 0", seed))
    raise_all("the command line", faults)


def check_out(folder: Path) -> None:
    """Check that a run folder can be written, before a script is imported.

    Args:
        folder: Run folder, which need not exist.

    Raises:
        ConfigurationError: When the folder cannot be written.
    """
    existing = next(path for path in (folder.absolute(), *folder.absolute().parents) if path.exists())
    if not os.access(existing, os.W_OK):
        raise ConfigurationError(
            error_message("--out", "be a folder that can be written", f"{folder} in {existing}, which cannot")
        )


def study_name(script: Path) -> str:
    """Name the study of a script: its folder for study.py, else its file name.

    Args:
        script: Path of the script.

    Returns:
        The name.
    """
    path = script.resolve()
    return path.parent.name if path.stem == "study" else path.stem


def read_limits(given: Sequence[str]) -> Limits:
    """Parse limits of the command line.

    Args:
        given: Texts NAME=NUMBER.

    Returns:
        The limits.

    Raises:
        UnknownNameError: For a name that is no limit of any task.
        ConfigurationError: For a text without a number, or a limit that is given twice.

    Example:
        >>> dict(read_limits(["max_drop=0.01"]).given)
        {'max_drop': 0.01}
    """
    found: dict[str, float] = {}
    for text in given:
        name, _, number = text.partition("=")
        if name in found:
            raise ConfigurationError(error_message(f"--limit {name}", "be given once", "twice"))
        try:
            found[name] = float(number)
        except ValueError:
            expected = "be a name and a number, such as max_drop=0.01"
            raise ConfigurationError(error_message("--limit", expected, repr(text))) from None
    return Limits(**found)


def read_baseline(name: str | None) -> int | None:
    """Parse the option --baseline.

    Args:
        name: "uniform", or None for no baseline.

    Returns:
        Number of points of the sweep; None for no baseline.

    Raises:
        UnknownNameError: For another name.
    """
    if name is None:
        return None
    if name != "uniform":
        raise UnknownNameError("--baseline", name, ("uniform",))
    return UNIFORM_POINTS


def load_script(script: Path, given: Mapping[str, object] | None = None, assignments: Sequence[str] = ()) -> Script:
    """Import a study script and make its task.

    Args:
        script: Path of the script.
        given: "group.field" of StudySettings, or "field" -> value that replaces the script's.
        assignments: Texts GROUP.FIELD=VALUE, which replace the script's values, too.

    Returns:
        Task, settings and sampler of the script.

    Raises:
        ConfigurationError: For a script that does not run or defines objects of other types.
        NotFoundError: For a missing script.
    """
    module = _import(script)
    settings = getattr(module, "settings", None)
    settings = StudySettings() if settings is None else settings
    if not isinstance(settings, StudySettings):
        raise ConfigurationError(
            error_message(f"settings in {script}", "be an autoprune.StudySettings", type(settings).__name__)
        )
    settings = with_fields(settings, assignments).changed(given or {})
    sampler = getattr(module, "sampler", None)
    if sampler is not None and (not callable(sampler) or isinstance(sampler, type)):
        expected = "be a function sampler(seed) that returns an Optuna sampler"
        raise ConfigurationError(error_message(f"sampler in {script}", expected, repr(sampler)))
    return Script(task=_made(script, module), settings=settings, sampler=sampler)


def make_sampler(script: Path, make: MakeSampler | None, seed: int) -> BaseSampler | None:
    """Make the sampler of a script for a seed.

    Args:
        script: Path of the script, for the message.
        make: Function of the script that makes a sampler; None where there is none.
        seed: Seed of the study.

    Returns:
        The sampler; None where the script has none.

    Raises:
        ConfigurationError: When the function fails or returns another object.
    """
    if make is None:
        return None
    from optuna.samplers import BaseSampler

    try:
        found = make(seed)
    except (Exception, SystemExit) as error:  # the user's code runs here
        raise ConfigurationError(
            error_message(f"sampler({seed}) in {script}", "run", describe_exception(error))
        ) from error
    if not isinstance(found, BaseSampler):
        raise ConfigurationError(
            error_message(f"sampler({seed}) in {script}", "return an Optuna sampler", type(found).__name__)
        )
    return found


def _made(script: Path, module: ModuleType) -> Task:
    from autoprune.task.task import Task

    make = getattr(module, "task", None)
    if not callable(make):
        expected, advice = "define task() -> autoprune.Task", "See studies/digits/study.py."
        raise ConfigurationError(error_message(f"the study script {script}", expected, "no function task", advice))
    try:
        task = make()
    except AutopruneError:
        raise
    except (Exception, SystemExit) as error:  # the user's code runs here
        raise ConfigurationError(error_message(f"task() in {script}", "run", describe_exception(error))) from error
    if not isinstance(task, Task):
        raise ConfigurationError(error_message(f"task() in {script}", "return an autoprune.Task", type(task).__name__))
    return task


def _import(script: Path) -> ModuleType:
    if not script.is_file():
        inside = script / "study.py"
        remedy = f"Did you mean {inside}?" if inside.is_file() else ""
        raise NotFoundError(error_message("a study script", "be a Python file", str(script), remedy))
    known = sys.modules.get(SCRIPT_MODULE)
    if known is not None and Path(str(known.__file__)).resolve() == script.resolve():
        return known
    spec = importlib.util.spec_from_file_location(SCRIPT_MODULE, script)
    if spec is None or spec.loader is None:
        raise ConfigurationError(error_message("a study script", "be a Python file that ends in .py", str(script)))
    module = importlib.util.module_from_spec(spec)
    sys.modules[SCRIPT_MODULE] = module
    sys.path.insert(0, str(script.parent.resolve()))
    try:
        spec.loader.exec_module(module)
    except AutopruneError:
        raise
    except (Exception, SystemExit) as error:  # the user's script runs here
        raise ConfigurationError(
            error_message(f"the study script {script}", "import", describe_exception(error))
        ) from error
    return module
