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
|-- UserCodeError               the user's model, loss, metric or data failed during a run; chained from their error
`-- StorageError                a file cannot be read, does not fit, or cannot be written; the command line exits with 2
"""

from __future__ import annotations

import difflib
import re
import sysconfig
import traceback
from collections.abc import Iterable, Iterator, Sequence
from contextlib import contextmanager
from pathlib import Path

__all__ = [
    "AutopruneError",
    "AutopruneWarning",
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
    "UserCodeError",
    "describe_exception",
    "error_message",
    "plain_text",
    "raise_all",
    "user_code",
]

#: Colours, cursor moves and titles of a terminal, as whole sequences (ECMA-48); what remains of others is spelled out.
ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)|\x1b[ -/]*[0-~]"
)
#: A line of a traceback: file, line, function.
WORKER_FRAMES = re.compile(r'File "([^"\n]+)", line (\d+), in (\S+)')


class AutopruneError(Exception):
    """Root of every error that autoprune raises on purpose."""


class AutopruneWarning(UserWarning):
    """Something that a user should know of a run that goes on."""


class ConfigurationError(AutopruneError, ValueError):
    """What the user gave cannot work; says what was expected, what came and what to do."""


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
        close = difflib.get_close_matches(str(name)[:100], names, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else ""
        super().__init__(error_message(kind, f"be one of {', '.join(names)}", repr(name), hint))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self._made_of


class StudyConflictError(ConfigurationError):
    """The output folder belongs to another study."""


class NotFoundError(ConfigurationError):
    """Something that was named is not there."""


class SelectionError(ConfigurationError):
    """No candidate satisfies what was asked of it."""


class TraceError(AutopruneError):
    """The model cannot be run on its example inputs for tracing."""


class SurgeryError(AutopruneError):
    """A kept set does not fit the model it is applied to."""


class RecoveryError(AutopruneError):
    """The fine-tune of one candidate diverged."""


class UserCodeError(AutopruneError):
    """The user's model, loss, metric, predict or data failed during a run."""


class StorageError(AutopruneError):
    """A file of a run cannot be read."""


def error_message(what: str, expected: str, got: object, remedy: str = "") -> str:
    """The sentence that every message follows: what, what was expected, what came, what to do.

    Names and values in it are the user's: they become plain text of limited length.
    """
    sentence = f"{plain_text(what)} must {plain_text(expected, 10_000)}, but got {plain_text(str(got))}."
    return f"{sentence} {remedy}" if remedy else sentence


def plain_text(text: str, limit: int = 2000) -> str:
    """Clean a text that comes from outside so that it can be printed, stored and compared.

    Terminal escapes are left out, other characters that do not print (control characters, surrogates, marks that turn
    the direction of writing) are spelled out as in `repr`, and what is longer than the limit is cut in its middle.
    Characters that mean something in markup, HTML or CSV stay: whoever writes such a format escapes them.

    Args:
        text: Any text, of any length.
        limit: The most characters to return.

    """
    # Cut first: cleaning 10 MB of which 2,000 characters are shown takes seconds.
    length, most = str.__len__(text), 4 * limit
    if length <= most:
        whole = _printable(str.__getitem__(text, slice(None)))
        if len(whole) <= limit:
            return whole
        start = end = whole
    else:
        start, end = (_printable(str.__getitem__(text, part)) for part in (slice(most), slice(-most, None)))
    note = f" ... ({length:,} characters in all) ... "
    # What matters most is said first, but the last line of an error that holds a traceback matters too.
    last = max(0, limit - len(note)) // 4
    return start[: max(0, limit - len(note) - last)] + note[:limit] + end[len(end) - last :]


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    text = ESCAPES.sub("", text).replace("\r\n", "\n")
    return "".join(
        character if character.isprintable() or character in "\n\t" else ascii(character)[1:-1] for character in text
    )


def describe_exception(error: BaseException, limit: int = 2000) -> str:
    r"""Describe any exception in plain text, as `Type: message`; never fails.

    Args:
        error: The exception; its own `__str__` may fail, which is said then.
        limit: The most characters to return.

    Example:
        >>> describe_exception(ValueError("no \x1b[31mred\x1b[0m"))
        'ValueError: no red'

    """
    name = plain_text(_name_of(error), limit // 2)
    try:
        message = plain_text(str(error), max(0, limit - len(name) - 2))
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # the error is of the user's code: its __str__ may raise anything
        message = f"(its message cannot be read: its __str__ raised {plain_text(_name_of(failure), 100)})"
    return f"{name}: {message}"[:limit] if message.strip() else name


def _name_of(error: BaseException) -> str:
    # A metaclass may have a __name__ of its own, which may fail.
    return str(type.__dict__["__name__"].__get__(type(error)))


#: What follows from an error of the user's code, where nothing else is said.
RESUME_ADVICE = "What is finished is kept: once the code is mended, the same call goes on from there."


@contextmanager
def user_code(stage: str, advice: str = RESUME_ADVICE) -> Iterator[None]:
    """Turn whatever the user's code raises in a stage of a run into one UserCodeError that says where it was raised.

    An interrupt stays one, errors of autoprune pass as they are, and SystemExit is an error: no code of the user's ends
    a run as if all were well.

    Args:
        stage: What was being done, as the subject of a sentence, such as "The sensitivity scan".
        advice: What to do, in a sentence. For want of memory there is another one.

    Example:
        >>> with user_code("The sensitivity scan"):
        ...     model(inputs)

    """
    try:
        yield
    except (AutopruneError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # the user's code may raise anything
        described = describe_exception(error)
        if isinstance(error, MemoryError) or "OutOfMemory" in described or "allocate memory" in described:
            advice = f"Lower batch_size or calibration_samples of the Task. {advice}"
        place, is_users = _raised_at(error, described)
        reason = "since your code raised" if is_users else "with"
        raise UserCodeError(f"{stage} stopped {reason} {described} ({place}). {advice}") from error


def _raised_at(error: BaseException, described: str) -> tuple[str, bool]:
    """The innermost line of the user's code, else of any, and whether it is the user's."""
    frames = list(traceback.extract_tb(error.__traceback__))
    # A DataLoader's worker is another process: the traceback from there is in the message.
    theirs = WORKER_FRAMES.findall(described) if "DataLoader worker" in described else []
    frames += [traceback.FrameSummary(file, int(line), name) for file, line, name in theirs]
    libraries = [*map(sysconfig.get_path, ("stdlib", "purelib", "platlib")), str(Path(__file__).parent)]
    users = [
        frame
        for frame in frames
        if Path(frame.filename).is_absolute() and not any(Path(frame.filename).is_relative_to(p) for p in libraries)
    ]
    frame = (users or frames)[-1]
    return plain_text(f"{frame.name} in {frame.filename}:{frame.lineno}", 500), bool(users)


def raise_all(subject: str, faults: Sequence[str]) -> None:
    """Raise one ConfigurationError that lists every fault; do nothing when there is none."""
    if faults:
        raise ConfigurationError(_bullets(subject, faults))


def _bullets(subject: str, faults: Sequence[str]) -> str:
    if len(faults) == 1:
        return faults[0]
    return "\n".join([f"{len(faults)} faults in {subject}:", *(f"  - {line}" for line in faults)])
