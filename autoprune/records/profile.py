"""LatencyProfile: the circumstances in which latency is measured, as plain data without torch."""

from __future__ import annotations

import re
import shlex
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import Annotated

from autoprune.codec import Format, stored
from autoprune.display import shorten
from autoprune.errors import ConfigurationError, UnknownNameError, error_message
from autoprune.plan.rules import NAME, Rule, at_least, check_fields, each, one_of, or_none
from autoprune.plan.validation import FieldCheck, is_count, is_finite

#: Backend that stands for ONNX Runtime where it is installed, else for eager PyTorch.
AUTO_BACKEND = "auto"
#: Name of a backend in earlier settings -> its name of today.
_FORMER_BACKENDS = {"torch": "eager"}
#: Threads that a process can be asked for: more are a slip, and no machine runs them at once.
MOST_THREADS = 1024
#: Most digits of an integer in the text form.
_DIGITS = 18
#: Number types that a model can be timed in.
DTYPES = ("float64", "float32", "float16", "bfloat16")

_PLAIN = Rule(
    holds=lambda value: isinstance(value, str) and re.fullmatch(r"[A-Za-z0-9][A-Za-z0-9._-]*", value) is not None,
    wants="be made of letters, digits, dots, dashes and underscores, and begin with a letter or digit",
)
_WEIGHTED_SIZE = Rule(
    holds=lambda value: (
        isinstance(value, tuple)
        and len(value) == 2
        and is_count(value[0])
        and value[0] >= 1
        and is_finite(value[1])
        and value[1] > 0
    ),
    wants="be a pair (size >= 1, weight > 0)",
)


@stored(Format(what="a latency profile", optional=None, refuses_unknown=True))
@dataclass(frozen=True, slots=True, kw_only=True)
class LatencyProfile:
    """Circumstances in which latency is measured: runtime, threads, and the inputs of a call.

    Attributes:
        name: Name of the profile, as in `latency_ms[NAME]`.
        backend: Name of the runtime (docs/latency.md lists them); "auto" is ONNX Runtime where it is installed, else
            eager PyTorch.
        threads: Threads of the runtime.
        batch_size: Samples of a call; None for as many as the example inputs hold.
        dtype: Number type of weights and inputs; None for that of the model.
        sizes: Sizes of the inputs in use with their weights, such as sequence lengths or image sizes; the latency is
            the weighted mean. Empty for the size of the example inputs.
        axes: Axes of the inputs that have such a size: (1,) for sequences [N, length, ...], (2, 3) for images
            [N, channels, height, width]. Axis 0 holds the samples.
        command: For the backend "remote": a command line that runs the model elsewhere, or `module:function`.

    Raises:
        ConfigurationError: A value is out of its range.

    Example:
        >>> LatencyProfile(name="long", backend="onnxruntime", sizes=((64, 0.9), (512, 0.1))).threads
        1
    """

    name: Annotated[str, _PLAIN]
    backend: Annotated[str, NAME] = AUTO_BACKEND
    threads: Annotated[int, at_least(1, MOST_THREADS)] = 1
    batch_size: Annotated[int | None, or_none(at_least(1))] = None
    dtype: Annotated[str | None, or_none(one_of(DTYPES))] = None
    sizes: Annotated[tuple[tuple[int, float], ...], each(_WEIGHTED_SIZE, least=0)] = ()
    axes: Annotated[tuple[int, ...], each(at_least(1))] = (1,)
    command: Annotated[str, NAME] = ""

    def __post_init__(self) -> None:
        object.__setattr__(self, "backend", _FORMER_BACKENDS.get(self.backend, self.backend))
        check_fields("a latency profile", self, more=_checks(self))


def _checks(profile: LatencyProfile) -> Iterator[FieldCheck]:
    sizes = [size for size, _ in profile.sizes]
    yield len(set(sizes)) == len(sizes), "sizes", "name each size once", profile.sizes
    yield len(set(profile.axes)) == len(profile.axes), "axes", "name each axis once", profile.axes
    is_remote = profile.backend == "remote"
    wants = "be a command line or module:function for the backend remote, and empty for any other"
    yield bool(profile.command.strip()) == is_remote, "command", wants, repr(profile.command)
    words = _words(profile.command)
    yield words is not None, "command", "close each of its quotes", repr(profile.command)
    yield not words or bool(words[0].strip()), "command", "begin with the name of a program", repr(profile.command)


def _words(command: str) -> list[str] | None:
    try:
        return shlex.split(command)
    except ValueError:
        return None


def _integer(text: str) -> int:
    if not re.fullmatch(f"[0-9]{{1,{_DIGITS}}}", text):
        raise ValueError(f"be an integer of at most {_DIGITS} digits")
    return int(text)


def _sizes(text: str) -> tuple[tuple[int, float], ...]:
    pairs = [part.partition(":") for part in text.split("/")]
    try:
        return tuple((_integer(size), float(weight) if colon else 1.0) for size, colon, weight in pairs)
    except ValueError:
        raise ValueError("be sizes and their weights, such as 64:0.9/512:0.1") from None


def _axes(text: str) -> tuple[int, ...]:
    try:
        return tuple(_integer(part) for part in text.split("/"))
    except ValueError:
        raise ValueError("be axes, such as 1 or 2/3") from None


#: Key in the text form -> field, and function that reads its value; the function's ValueError says what it must be.
_KEYS: Mapping[str, tuple[str, Callable[[str], object]]] = {
    "threads": ("threads", _integer),
    "batch": ("batch_size", _integer),
    "dtype": ("dtype", str),
    "sizes": ("sizes", _sizes),
    "axes": ("axes", _axes),
    "command": ("command", str),
}


def parse_profile(text: str) -> LatencyProfile:
    """Read a profile from the text form of the command line, `NAME=BACKEND,key=value,...`.

    Keys are threads, batch, dtype, sizes (`64:0.9/512:0.1`, or `64/512` for equal weights), axes (`1`, or `2/3` for
    images) and command, which comes last, as it may hold commas. The backend may be left out.

    Args:
        text: The text.

    Returns:
        The profile.

    Raises:
        ConfigurationError: The text is no profile.
        UnknownNameError: A key is unknown.

    Example:
        >>> parse_profile("ort-b32=onnxruntime,batch=32,threads=2").batch_size
        32
    """
    name, _, rest = text.partition("=")
    rest, separator, command = _before_command(rest)
    parts = [part for part in rest.split(",") if part]
    backend = parts.pop(0) if parts and "=" not in parts[0] else AUTO_BACKEND
    given: dict[str, object] = {"command": command} if separator else {}
    for part in parts:
        key, equals, value = part.partition("=")
        if not equals:
            wants = "be NAME=BACKEND,key=value,..., such as ort-b32=onnxruntime,batch=32"
            raise ConfigurationError(error_message("a latency profile", wants, repr(shorten(text))))
        if key not in _KEYS:
            raise UnknownNameError("a key of a latency profile", key, _KEYS)
        field, read = _KEYS[key]
        if field in given:
            raise ConfigurationError(error_message("a latency profile", f"name {key} once", repr(shorten(text))))
        try:
            given[field] = read(value)
        except ValueError as error:
            raise ConfigurationError(
                error_message(f"{key} of a latency profile", str(error), repr(shorten(value)))
            ) from None
    return LatencyProfile(name=name, backend=backend, **given)  # type: ignore[arg-type]  # checked on construction


def _before_command(text: str) -> tuple[str, str, str]:
    """Split the text at the command, which begins the text or comes behind a comma."""
    found = re.search(r"(?:^|,)command=", text)
    return (text, "", "") if found is None else (text[: found.start()], "command=", text[found.end() :])
