"""Reason why a run ended, stored for the report and the front."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass

from autoprune.codec import Format, stored
from autoprune.errors import UnknownNameError

#: Reason -> end of the sentence. "trials" is the requested end.
_WHY: Mapping[str, str] = {
    "trials": "",
    "seconds": "the time of {detail} is used up. The same command goes on from here",
    "samples": "the limit of {detail} samples is reached. A larger limit goes on from here",
    "exhausted": (
        "{detail}, so there is nothing left to propose. A wider space (SpaceSettings: more criteria, a smaller "
        "round_to or min_budget, steps to choose from) has more"
    ),
    "error": "{detail}",
}


@stored(Format(what="why a run ended", version=1, optional=("energy_lacks",)))
@dataclass(frozen=True, slots=True, kw_only=True)
class Ending:
    """Reason why a run ended.

    Attributes:
        reason: "trials" if the requested number is reached; "seconds", "samples" or "exhausted" if a limit or the space
            ended the run before; "error" if it failed.
        done: Finished candidates.
        target: Candidates to reach.
        detail: Value that completes the sentence of the reason.
        energy_lacks: Why the energy that was asked for could not be read, in sentences; "" where it could, or nobody
            asked.
    """

    reason: str
    done: int
    target: int
    detail: str = ""
    energy_lacks: str = ""

    def __post_init__(self) -> None:
        if self.reason not in _WHY:
            raise UnknownNameError("the reason of an ending", self.reason, _WHY)

    @property
    def early(self) -> bool:
        """Return whether the run ended before its number of trials."""
        return self.reason != "trials"

    @property
    def sentence(self) -> str:
        """Return why the run ended before its number of trials; "" if it did not."""
        if not self.early:
            return ""
        why = _WHY[self.reason].format(detail=self.detail)
        return f"The run ended with {self.done} of {self.target} trials: {why.rstrip('.')}."
