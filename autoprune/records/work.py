"""Work: computation counted in samples."""

from __future__ import annotations

from dataclasses import dataclass


@dataclass(frozen=True, slots=True, kw_only=True)
class Work:
    """Work done, counted in samples.

    Attributes:
        forward: Samples passed through a model without training, calibration and a teacher's batches included.
        trained: Samples passed forward and backward.
        shared: Samples of work that is done once for several candidates: a teacher's outputs for the whole train split.
            The same for each of them, whoever came first; a sum of work counts it once.
    """

    forward: int = 0
    trained: int = 0
    shared: int = 0

    @classmethod
    def of_counts(cls, counts: tuple[int, int, int]) -> Work:
        """Read what `counts` gave.

        Args:
            counts: The three numbers.
        """
        forward, trained, shared = counts
        return cls(forward=forward, trained=trained, shared=shared)

    @property
    def counts(self) -> tuple[int, int, int]:
        """The numbers in the order of the attributes, as files hold them."""
        return self.forward, self.trained, self.shared

    def __add__(self, other: Work) -> Work:
        return Work(
            forward=self.forward + other.forward,
            trained=self.trained + other.trained,
            shared=max(self.shared, other.shared),
        )

    @property
    def total(self) -> int:
        """All samples that were processed."""
        return self.forward + self.trained + self.shared
