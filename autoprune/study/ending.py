"""Ending: why a run ended, stored so that the report and the front can say it."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.codec import Format, stored
from autoprune.errors import UnknownNameError

#: Reason -> the sentence after how many trials there are. "trials" is the end that was asked for.
_WHY: Mapping[str, str] = {
    "trials": "",
    "seconds": "the time of {detail} is used up. The same command goes on from here",
    "samples": "{detail} samples were to be processed, and they are. A larger number of samples goes on from here",
    "exhausted": (
        "{detail}, so there is nothing left to propose. A wider space (SpaceSettings: more criteria, a smaller "
        "round_to or min_budget, steps to choose from) has more"
    ),
    "error": "{detail}",
}


@stored(Format(what="why a run ended", version=1))
@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Why a run ended.

    Attributes:
        reason: "trials" where the number asked for is reached; "seconds", "samples" or "exhausted" where a limit or the
            space ended it before; "error" where it stopped.
        done: Finished candidates.
        target: Candidates asked for.
        detail: What the reason refers to, for the sentence.

    """

    reason: str
    done: int
    target: int
    detail: str = ""

    def __post_init__(self) -> None:
        if self.reason not in _WHY:
            raise UnknownNameError("the reason of an ending", self.reason, _WHY)

    @property
    def early(self) -> bool:
        """Whether the run ended before its number of trials."""
        return self.reason != "trials"

    @property
    def sentence(self) -> str:
        """Why the run ended before its number of trials; "" where it did not."""
        if not self.early:
            return ""
        why = _WHY[self.reason].format(detail=self.detail)
        return f"The run ended with {self.done} of {self.target} trials: {why.rstrip('.')}."
