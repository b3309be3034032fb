"""Study scripts: the task, settings and sampler that a user's file defines."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from types import ModuleType
from typing import TYPE_CHECKING

from autoprune.errors import AutopruneError, ConfigurationError, NotFoundError, describe_exception, error_message
from autoprune.search.settings import StudySettings, with_fields

if TYPE_CHECKING:  # torch and optuna are there once a script has been imported
    from optuna.samplers import BaseSampler

    from autoprune.task.task import Task

#: Name under which a study script is imported; its main() does nothing then.
SCRIPT_MODULE = "autoprune_study_script"
#: Seed of a study -> sampler of its trials.
MakeSampler = Callable[[int], "BaseSampler"]


@dataclass(frozen=True, slots=True, kw_only=True)
class ScriptPlace:
    """Where a study script is, for processes that import it again.

    Attributes:
        path: Absolute path of the script.
        start: Working directory in which it was imported first; it may have changed it.
    """

    path: Path
    start: Path


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
