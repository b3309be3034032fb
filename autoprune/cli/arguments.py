"""Numbers, paths and limits of the command line, checked before a study script is imported."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from pathlib import Path

from autoprune.errors import ConfigurationError, UnknownNameError, error_message, raise_all
from autoprune.records.limits import Limits
from autoprune.search.settings import UNIFORM_POINTS


def check_numbers(counts: Mapping[str, int | None], seconds: Mapping[str, float | None], seed: int | None) -> None:
    """Check numbers of the command line before a script is imported, as a script may train a model.

    Args:
        counts: Option -> its value; None where it was not given.
        seconds: Option -> its value in seconds; None where it was not given.
        seed: Value of `--seed`.

    Raises:
        ConfigurationError: For a number that is too small.
    """
    faults = [
        error_message(name, "be >= 1", count) for name, count in counts.items() if count is not None and count <= 0
    ]
    faults += [
        error_message(name, "be > 0", value) for name, value in seconds.items() if value is not None and value <= 0
    ]
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
