"""The confidence of comparisons, apart from numpy: the command line names it."""

from __future__ import annotations

#: Confidence with which a difference is told from luck, one-sided.
CONFIDENCE = 0.9
#: Confidence that takes numbers as measured, whatever their noise and doubts.
AS_MEASURED = 0.5
