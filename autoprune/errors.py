"""The one exception tree of autoprune.

AutopruneError
|-- ConfigurationError          the user's input is wrong; the command line exits with 2, nothing was written
|   |-- TaskError               one or more faults of a Task, all of them in one message
|   |-- UnknownNameError        a criterion, metric, sampler ... that no registry holds; lists the known ones
|   |-- StudyConflictError      the output folder holds another study
|   |-- NotFoundError           a run folder, candidate or file that is not there
|   `-- SelectionError          no candidate satisfies the limits of a choice
|-- TraceError                  the model could not be traced at all
|-- SurgeryError                a kept set does not fit the model
|-- RecoveryError               training diverged (a loss that is not finite)
`-- StorageError                what is on disk can not be read
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Sequence

__all__ = [
    "AutopruneError",
    "ConfigurationError",
    "NotFoundError",
    "RecoveryError",
    "SelectionError",
    "StorageError",
    "StudyConflictError",
    "SurgeryError",
    "TaskError",
    "TraceError",
    "UnknownNameError",
    "describe_exception",
    "fault",
    "plain_text",
    "raise_all",
]

#: Colours, cursor moves and titles of a terminal, as whole sequences (ECMA-48); what remains of others is spelled out.
ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)|\x1b[ -/]*[0-~]"
)


class AutopruneError(Exception):
    """Root of every error that autoprune raises on purpose."""


class ConfigurationError(AutopruneError, ValueError):
    """What the user gave can not work; says what was expected, what came and what to do."""


class TaskError(ConfigurationError):
    """The faults of a Task; `faults` holds one sentence for each."""

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(_bullets("the task", self.faults))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.faults,)


class UnknownNameError(ConfigurationError):
    """A name that is in no registry."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        names = sorted(known)
        self._made_of = (kind, name, names)
        close = difflib.get_close_matches(str(name), names, n=1)
        hint = f" Did you mean {close[0]!r}?" if close else ""
        super().__init__(f"{kind} must be one of {', '.join(names)}, but got {name!r}.{hint}")

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self._made_of


class StudyConflictError(ConfigurationError):
    """The output folder belongs to another study."""


class NotFoundError(ConfigurationError):
    """Something that was named is not there."""


class SelectionError(ConfigurationError):
    """No candidate satisfies what was asked of it."""


class TraceError(AutopruneError):
    """The model can not be run on its example inputs for tracing."""


class SurgeryError(AutopruneError):
    """A kept set does not fit the model it is applied to."""


class RecoveryError(AutopruneError):
    """The fine-tune of one candidate diverged."""


class StorageError(AutopruneError):
    """A file of a run can not be read."""


def fault(what: str, expected: str, got: object, remedy: str = "") -> str:
    """The sentence that every message follows: what, what was expected, what came, what to do."""
    sentence = f"{what} must {expected}, but got {got}."
    return f"{sentence} {remedy}" if remedy else sentence


def plain_text(text: str, limit: int = 2000) -> str:
    """Clean a text that comes from outside so that it can be printed, stored and compared.

    Terminal escapes are left out, other characters that do not print (control characters, surrogates, marks that turn
    the direction of writing) are spelled out as in `repr`, and what is longer than the limit is cut. Characters that
    mean something in markup, HTML or CSV stay: whoever writes such a format escapes them.

    Args:
        text: Any text, of any length.
        limit: The most characters to return.

    """
    # Cut first: cleaning 10 MB of which 2,000 characters are shown takes seconds.
    length, text = str.__len__(text), str.__getitem__(text, slice(4 * limit))
    text = ESCAPES.sub("", text).replace("\r\n", "\n")
    text = "".join(
        character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1] for character in text
    )
    if len(text) <= limit and length <= 4 * limit:
        return text
    note = f" ... (cut, {length:,} characters in all)"
    return text[: max(0, limit - len(note))] + note[:limit]


def describe_exception(error: BaseException, limit: int = 2000) -> str:
    r"""Describe any exception in plain text, as `Type: message`; never fails.

    Args:
        error: The exception; its own `__str__` may fail, which is said then.
        limit: The most characters to return.

    Example:
        >>> describe_exception(ValueError("no \x1b[31mred\x1b[0m"))
        'ValueError: no red'

    """
    name = plain_text(type(error).__name__, limit // 2)
    try:
        message = plain_text(str(error), limit - len(name) - 2)
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # the error is of the user's code: its __str__ may raise anything
        message = f"(its message cannot be read: its __str__ raised {plain_text(type(failure).__name__, 100)})"
    return f"{name}: {message}" if message.strip() else name


def raise_all(subject: str, faults: Sequence[str]) -> None:
    """Raise one ConfigurationError that lists every fault; do nothing when there is none."""
    if faults:
        raise ConfigurationError(_bullets(subject, faults))


def _bullets(subject: str, faults: Sequence[str]) -> str:
    if len(faults) == 1:
        return faults[0]
    return "\n".join([f"{len(faults)} faults in {subject}:", *(f"  - {line}" for line in faults)])
