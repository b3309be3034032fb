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
    `-- LaterVersionError       a file that a later version of autoprune wrote
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
    "LaterVersionError",
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
    "is_out_of_memory",
    "plain_text",
    "raise_all",
    "user_code",
]

#: Whole terminal sequences: colours, cursor moves, titles (ECMA-48). Remains of other sequences are spelled out.
ESCAPES = re.compile(
    r"(?:\x1b\[|\x9b)[0-?]*[ -/]*[@-~]|(?:\x1b\]|\x9d)[^\x07\x1b\x9c]*(?:\x07|\x1b\\|\x9c)|\x1b[ -/]*[0-~]"
)
#: A line of a traceback: file, line, function.
WORKER_FRAMES = re.compile(r'File "([^"\n]+)", line (\d+), in (\S+)')


class AutopruneError(Exception):
    """Root of every error that autoprune raises on purpose."""


class AutopruneWarning(UserWarning):
    """Warning about a run that continues."""


class ConfigurationError(AutopruneError, ValueError):
    """Input of the user that cannot work; the message says what was expected, what came and what to do."""


class TaskError(ConfigurationError):
    """Faults of a Task.

    Attributes:
        faults: One sentence for each fault.
    """

    def __init__(self, faults: Sequence[str]) -> None:
        self.faults = tuple(faults)
        super().__init__(_bullets("the task", self.faults))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), (self.faults,)


class UnknownNameError(ConfigurationError):
    """Name that no registry holds; the message lists the known names."""

    def __init__(self, kind: str, name: object, known: Iterable[str]) -> None:
        names = sorted(known)
        self._made_of = (kind, name, names)
        close = difflib.get_close_matches(str(name)[:100], names, n=1)
        hint = f"Did you mean {close[0]!r}?" if close else ""
        super().__init__(error_message(kind, f"be one of {', '.join(names)}", repr(name), hint))

    def __reduce__(self) -> tuple[object, ...]:
        return type(self), self._made_of


class StudyConflictError(ConfigurationError):
    """Output folder that belongs to another study."""


class NotFoundError(ConfigurationError):
    """Named run folder, candidate or file that does not exist."""


class SelectionError(ConfigurationError):
    """Choice that no candidate satisfies."""


class TraceError(AutopruneError):
    """Model that cannot be run on its example inputs for tracing."""


class SurgeryError(AutopruneError):
    """Kept set that does not fit the model."""


class RecoveryError(AutopruneError):
    """Fine-tune of one candidate that diverged."""


class UserCodeError(AutopruneError):
    """Failure of the user's model, loss, metric, predict or data during a run."""


class StorageError(AutopruneError):
    """File of a run that cannot be read or written."""


class LaterVersionError(StorageError):
    """File of a run that a later version of autoprune wrote: it is whole, and nothing may take it for broken."""


def error_message(what: str, expected: str, got: object, remedy: str = "") -> str:
    """Build the sentence that messages about values follow: "<what> must <expected>, but got <got>. <remedy>".

    Names and values come from users: they become plain text of limited length.

    Args:
        what: Name of the value.
        expected: What the value must do or be, such as "be >= 0".
        got: The value, or words for it.
        remedy: What to do about it, as a sentence; "" for nothing.

    Returns:
        One or two sentences.

    Example:
        >>> error_message("a budget", "lie in (0, 1]", 2.0)
        'a budget must lie in (0, 1], but got 2.0.'
    """
    came = plain_text(str(got)).removesuffix(".")
    end = "" if came.endswith(("?", "!")) else "."
    sentence = f"{plain_text(what)} must {plain_text(expected, 10_000)}, but got {came}{end}"
    return f"{sentence} {remedy}" if remedy else sentence


def plain_text(text: str, limit: int = 2000) -> str:
    """Clean a text from outside so that it can be printed, stored and compared.

    Terminal escapes are removed, other characters that do not print (control characters, surrogates, marks that change
    the direction of writing) are spelled out as in `repr`, and the middle of a text beyond the limit is cut. Characters
    that mean something in markup, HTML or CSV stay: the writer of such a format escapes them.

    Args:
        text: Any text, of any length.
        limit: Largest number of characters to return.

    Returns:
        Printable text of at most `limit` characters.
    """
    # Cut first: cleaning 10 MB to show 2,000 characters takes seconds.
    length, most = str.__len__(text), 4 * limit
    if length <= most:
        whole = _printable(str.__getitem__(text, slice(None)))
        if len(whole) <= limit:
            return whole
        start = end = whole
    else:
        start, end = (_printable(str.__getitem__(text, part)) for part in (slice(most), slice(-most, None)))
    note = f" ... ({length:,} characters in all) ... "
    # The beginning matters most, but so does the last line of an error that holds a traceback.
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
        error: The exception. Where its `__str__` fails, the text says so.
        limit: Largest number of characters to return.

    Returns:
        Printable text.

    Example:
        >>> describe_exception(ValueError("no \x1b[31mred\x1b[0m"))
        'ValueError: no red'
    """
    name = plain_text(_name_of(error), limit // 2)
    try:
        message = plain_text(str(error), max(0, limit - len(name) - 2))
    except KeyboardInterrupt:
        raise
    except BaseException as failure:  # the __str__ of a user's error may raise anything
        message = f"(its message cannot be read: its __str__ raised {plain_text(_name_of(failure), 100)})"
    return f"{name}: {message}"[:limit] if message.strip() else name


def _name_of(error: BaseException) -> str:
    # A metaclass may define a __name__ that raises.
    return str(type.__dict__["__name__"].__get__(type(error)))


#: Advice after an error of the user's code, where no other is given.
RESUME_ADVICE = "Finished trials are kept: fix the code, and the same call continues from there."


@contextmanager
def user_code(stage: str, advice: str = RESUME_ADVICE) -> Iterator[None]:
    """Turn any exception of the user's code in a stage of a run into one UserCodeError that says where it was raised.

    Interrupts and errors of autoprune pass unchanged. SystemExit becomes an error: user code must not end a run as if
    all were well.

    Args:
        stage: What was being done, as the subject of a sentence, such as "The sensitivity scan".
        advice: What to do, in a sentence. Extended for errors of memory.

    Yields:
        Nothing; the user's code runs inside the block.

    Raises:
        UserCodeError: For any other exception; the cause is chained.

    Example:
        >>> with user_code("The sensitivity scan"):
        ...     outputs = [1.0]
    """
    try:
        yield
    except (AutopruneError, KeyboardInterrupt, GeneratorExit):
        raise
    except BaseException as error:  # the user's code may raise anything
        described = describe_exception(error)
        if is_out_of_memory(error):
            advice = f"Lower batch_size or calibration_samples of the Task. {advice}"
        place, is_users = _raised_at(error, described)
        reason = "since your code raised" if is_users else "with"
        raise UserCodeError(f"{stage} stopped {reason} {described} ({place}). {advice}") from error


def is_out_of_memory(error: BaseException) -> bool:
    """Tell whether memory ran out, of the machine or of a GPU.

    Args:
        error: Any exception.

    Returns:
        Whether it, or what it was raised from, is such an error of Python or torch.

    Example:
        >>> is_out_of_memory(RuntimeError("DefaultCPUAllocator: can't allocate memory")), is_out_of_memory(ValueError())
        (True, False)
    """
    described = describe_exception(error)
    if isinstance(error, MemoryError) or "OutOfMemory" in described or "allocate memory" in described:
        return True
    return error.__cause__ is not None and is_out_of_memory(error.__cause__)


def _raised_at(error: BaseException, described: str) -> tuple[str, bool]:
    """Find the innermost line of the user's code, else of any code, and tell whether it is the user's."""
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
    """Raise one ConfigurationError that lists every fault; return when there is none.

    Args:
        subject: Name of the object at fault, for the message.
        faults: One sentence for each fault.

    Raises:
        ConfigurationError: When there is a fault.
    """
    if faults:
        raise ConfigurationError(_bullets(subject, faults))


def _bullets(subject: str, faults: Sequence[str]) -> str:
    if len(faults) == 1:
        return faults[0]
    return "\n".join([f"{len(faults)} faults in {subject}:", *(f"  - {line}" for line in faults)])
