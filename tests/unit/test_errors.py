from __future__ import annotations

import inspect
import json
import re

import pytest
import torch
from torch._utils import ExceptionWrapper

from autoprune import errors


def classes() -> list[type[Exception]]:
    found = [kind for _, kind in inspect.getmembers(errors, inspect.isclass) if issubclass(kind, Exception)]
    return [kind for kind in found if not issubclass(kind, Warning)]


def test_every_error_is_in_the_one_tree_and_listed() -> None:
    assert all(issubclass(kind, errors.AutopruneError) for kind in classes())
    assert {kind.__name__ for kind in classes()} <= set(errors.__all__)


def test_the_drawn_tree_is_the_real_one() -> None:
    """The drawing at the top of the file: each name hangs under the last one that is drawn further to the left."""
    stack: list[tuple[int, str]] = []
    drawn = {}
    for line in (errors.__doc__ or "").splitlines():
        found = re.match(r"([|` -]*)([A-Z]\w+Error)\b", line)
        if found is None:
            continue
        depth = len(found[1])
        stack = [entry for entry in stack if entry[0] < depth]
        drawn[found[2]] = stack[-1][1] if stack else "Exception"
        stack.append((depth, found[2]))
    assert drawn == {kind.__name__: kind.__bases__[0].__name__ for kind in classes()}


def test_wrong_input_is_a_value_error_too() -> None:
    assert issubclass(errors.TaskError, ValueError)
    assert not issubclass(errors.StorageError, ValueError)


def test_a_task_error_holds_its_faults() -> None:
    one = errors.TaskError(["a must be b, but got c."])
    assert str(one) == "a must be b, but got c."
    two = errors.TaskError(["first.", "second."])
    assert two.faults == ("first.", "second.")
    assert str(two) == "2 faults in the task:\n  - first.\n  - second."


def test_an_unknown_name_lists_the_known_sorted_and_guesses() -> None:
    assert (
        str(errors.UnknownNameError("a criterion", "tailor", ["taylor", "l1"]))
        == "a criterion must be one of l1, taylor, but got 'tailor'. Did you mean 'taylor'?"
    )
    assert "Did you mean" not in str(errors.UnknownNameError("a criterion", "xyz", ["taylor", "l1"]))
    assert "got None" in str(errors.UnknownNameError("a criterion", None, ["l1"]))


def test_fault_is_the_sentence_of_every_message() -> None:
    assert errors.error_message("x", "be > 0", -1) == "x must be > 0, but got -1."
    assert errors.error_message("x", "be > 0", -1, "Raise it.") == "x must be > 0, but got -1. Raise it."


def test_raise_all_raises_once_for_all_and_not_for_none() -> None:
    errors.raise_all("the plan", [])
    with pytest.raises(errors.ConfigurationError, match=r"^one\.$"):
        errors.raise_all("the plan", ["one."])
    with pytest.raises(errors.ConfigurationError, match=r"2 faults in the plan:\n  - one\.\n  - two\."):
        errors.raise_all("the plan", ["one.", "two."])


class UnreadableError(Exception):
    def __str__(self) -> str:
        raise SystemExit(0)


class Sly(str):
    """A text that answers nothing as a text should."""

    def __len__(self) -> int:
        raise ValueError

    def __getitem__(self, key: object) -> str:
        raise ValueError


class Nameless(type):
    @property
    def __name__(cls) -> str:
        raise ValueError


class NamelessError(Exception, metaclass=Nameless):
    pass


@pytest.mark.parametrize("limit", [0, 1, 5, 12, 40, 100])
@pytest.mark.parametrize("error", [ValueError("a" * 50), UnreadableError(), KeyError()])
def test_no_limit_is_exceeded(error: Exception, limit: int) -> None:
    assert len(errors.describe_exception(error, limit)) <= limit


@pytest.mark.parametrize(
    ("error", "described"),
    [
        (NamelessError("x"), "NamelessError: x"),
        (ValueError("size [/x] <b> =1+1"), "ValueError: size [/x] <b> =1+1"),
        (ValueError(), "ValueError"),
        (KeyError("a"), "KeyError: 'a'"),
        (OSError(2, "No such file", "a.png"), "FileNotFoundError: [Errno 2] No such file: 'a.png'"),
        (RuntimeError("two\r\nlines\tand é ✓"), "RuntimeError: two\nlines\tand é ✓"),
        (RuntimeError("\x1b[31mred\x1b[0m \x1b]0;title\x07\x9b2Jx \x1bc"), "RuntimeError: red x "),
        (RuntimeError("bell\x07 null\x00 back\x08 left\u202e"), r"RuntimeError: bell\x07 null\x00 back\x08 left\u202e"),
        (RuntimeError("name \udcff.png"), r"RuntimeError: name \udcff.png"),
        (RuntimeError("half \x1b[31"), "RuntimeError: half 31"),
        (UnreadableError(), "UnreadableError: (its message cannot be read: its __str__ raised SystemExit)"),
        (ValueError(Sly("sly")), "ValueError: sly"),
        (type("Od\x1bd" + "!" * 5000, (Exception,), {})(), None),
    ],
)
def test_any_exception_is_described_in_plain_text(error: Exception, described: str | None) -> None:
    text = errors.describe_exception(error)
    assert described in (None, text)
    assert len(text) <= 2000
    assert all(character.isprintable() or character in "\n\t" for character in text)
    text.encode()


def test_a_long_message_is_cut_in_its_middle_and_says_so() -> None:
    text = errors.describe_exception(ValueError("start" + "\x00" * 10_000_000 + "end"))
    assert len(text) <= 2000
    assert text.startswith(r"ValueError: start\x00")
    assert " ... (10,000,008 characters in all) ... " in text
    assert text.endswith(r"\x00end")
    assert len(errors.describe_exception(ValueError("a" * 100), limit=60)) <= 60
    assert len(errors.describe_exception(ValueError("\x00" * 1900))) <= 2000


def test_an_interrupt_while_an_error_is_described_stays_one() -> None:
    class StoppedError(Exception):
        def __str__(self) -> str:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        errors.describe_exception(StoppedError())


def test_an_error_of_the_users_code_says_stage_type_message_and_line() -> None:
    cause = FileNotFoundError(2, "No such file", "[/x]\x1b[31m.png")

    def load() -> None:
        raise cause

    with pytest.raises(errors.UserCodeError) as caught, errors.user_code("The scan"):
        load()
    line = load.__code__.co_firstlineno + 1
    assert str(caught.value) == (
        "The scan stopped since your code raised FileNotFoundError: [Errno 2] No such file: '[/x]\\x1b[31m.png' "
        f"(load in {__file__}:{line}). {errors.RESUME_ADVICE}"
    )
    assert caught.value.__cause__ is cause


def test_an_error_below_the_users_code_is_told_at_the_line_that_calls_it() -> None:
    def parse() -> object:
        return json.loads("{")

    said = r"your code raised JSONDecodeError: .* \(parse in "
    with pytest.raises(errors.UserCodeError, match=said), errors.user_code("The scan"):
        parse()


@pytest.mark.parametrize("raised", [SystemExit(0), SystemExit(), RecursionError("deep")])
def test_leaving_is_an_error_of_the_users_code_too(raised: BaseException) -> None:
    with pytest.raises(errors.UserCodeError, match=type(raised).__name__), errors.user_code("The scan", "Do that."):
        raise raised


@pytest.mark.parametrize("raised", [KeyboardInterrupt(), errors.ConfigurationError("wrong"), GeneratorExit()])
def test_an_interrupt_and_errors_of_ours_pass_through_the_users_code(raised: BaseException) -> None:
    with pytest.raises(type(raised)) as caught, errors.user_code("The scan"):
        raise raised
    assert caught.value is raised


@pytest.mark.parametrize(
    "raised",
    [
        MemoryError(),
        torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2 GiB"),
        RuntimeError("[enforce fail at alloc_cpu.cpp] DefaultCPUAllocator: can't allocate memory: you tried ..."),
    ],
)
def test_want_of_memory_says_what_makes_less_of_it_do(raised: BaseException) -> None:
    said = r"Lower batch_size or calibration_samples.* Do that\."
    with pytest.raises(errors.UserCodeError, match=said), errors.user_code("The scan", "Do that."):
        raise raised


def test_an_error_in_a_worker_is_told_at_the_users_line() -> None:
    def load() -> None:
        raise OSError("gone")

    wrapper = None
    try:
        load()
    except OSError:
        wrapper = ExceptionWrapper(where="in DataLoader worker process 3")
    line = load.__code__.co_firstlineno + 1
    said = rf"since your code raised OSError: Caught .*\(load in {re.escape(__file__)}:{line}\)"
    with pytest.raises(errors.UserCodeError, match=f"(?s){said}"), errors.user_code("The scan"):
        wrapper.reraise()
