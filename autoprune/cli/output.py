"""Output of a command besides its result: errors, warnings and paths."""

from __future__ import annotations

import functools
import os
import sys
import warnings
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, ParamSpec, TypeVar

import typer

from autoprune.display import printable_lines
from autoprune.errors import AutopruneError, AutopruneWarning, ConfigurationError, StorageError

P = ParamSpec("P")
R = TypeVar("R")


def report_errors(command: Callable[P, R]) -> Callable[P, R]:
    """Turn errors of a command into one message and an exit code: 2 for wrong input and files, 1 for others.

    Args:
        command: Function of a command.

    Returns:
        The function, which raises typer.Exit in place of errors.
    """

    @functools.wraps(command)
    def wrapped(*args: P.args, **kwargs: P.kwargs) -> R:
        try:
            with warnings.catch_warnings():
                warnings.simplefilter("always", AutopruneWarning)
                warnings.showwarning = functools.partial(_show_warning, warnings.showwarning)
                return command(*args, **kwargs)
        except (ConfigurationError, StorageError) as error:
            fail(str(error), 2)
        except AutopruneError as error:
            fail(str(error), 1)
        except OSError as error:
            fail(f"A file or folder cannot be read or written: {error}. Name another path.", 2)
        except KeyboardInterrupt as error:
            kept = str(error) or "Finished trials are kept; the same command continues from here."
            fail(f"Interrupted. {kept}", 130)

    return wrapped


def _show_warning(others: Callable[..., None], message: Warning | str, category: type[Warning], *place: object) -> None:
    """Print a warning of autoprune as a line; pass others on."""
    if issubclass(category, AutopruneWarning):
        tell(message, fg=typer.colors.YELLOW, err=True)
    else:
        others(message, category, *place)


def tell(message: object, *, fg: str | None = None, err: bool = False) -> None:
    """Print a sentence.

    Args:
        message: Sentence, which may hold text from users.
        fg: Colour of the text; None for the terminal's.
        err: Print to standard error.
    """
    typer.secho(printable_lines(message), fg=fg, err=err)


def print_path(path: Path) -> None:
    """Print a path: as safe text for people, byte by byte for programs.

    Args:
        path: Path to print.
    """
    typer.echo(printable_lines(path) if sys.stdout.isatty() else os.fsencode(path))


def fail(message: str, code: int) -> NoReturn:
    """Print a message as an error and end the process.

    Args:
        message: Message for the user.
        code: Exit code.
    """
    tell(message, fg=typer.colors.RED, err=True)
    raise typer.Exit(code)
