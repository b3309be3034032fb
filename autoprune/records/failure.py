"""Failure: a trial that crashed, with its traceback."""

from __future__ import annotations

from dataclasses import dataclass

#: Beginning of a line of a traceback that names a place in the code.
_PLACE = "  File "
#: Blanks around lines; others are part of a message.
_SPACE = " \t\r\n"


@dataclass(frozen=True, slots=True, kw_only=True)
class Failure:
    r"""A trial that crashed.

    Attributes:
        number: Number of the trial.
        text: Its traceback, or a sentence.

    Example:
        >>> Failure(number=3, text="Traceback:\n  File 'a.py', line 1\n    f()\nValueError: no").message
        'ValueError: no'
    """

    number: int
    text: str

    @property
    def message(self) -> str:
        """Error of the traceback without the places in the code, as one line."""
        lines = self.text.strip(_SPACE).split("\n")
        places = [place for place, line in enumerate(lines) if line.startswith(_PLACE)]
        last = lines[places[-1] + 1 :] if places else lines
        error = [place for place, line in enumerate(last) if line and not line.startswith(" ")]
        return " ".join(line.strip(_SPACE) for line in last[error[0] :]) if error else ""
