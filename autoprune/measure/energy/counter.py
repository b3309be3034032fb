"""Interface of a counter of energy."""

from __future__ import annotations

from abc import ABC, abstractmethod


class CounterError(Exception):
    """A counter that cannot be read any more. The message is the reason, in one line."""


class EnergyCounter(ABC):
    """A counter of energy that the machine has. Nothing is estimated from its momentary power.

    Attributes:
        name: Name in records.
        seconds: Shortest stretch of calls over which it tells: some hundred of its updates, or as many as are bearable.
    """

    name: str
    seconds: float

    @abstractmethod
    def lacks(self) -> str:
        """Say why it cannot be read here, and what to do.

        Returns:
            Sentences; "" where it can be read.
        """

    @abstractmethod
    def joules(self) -> float:
        """Read the energy since the first reading, which never becomes less.

        Returns:
            Joules.

        Raises:
            CounterError: It cannot be read any more.
        """

    def others(self) -> str:
        """Say whether the counter also counts another process that works on the device now.

        Returns:
            A sentence; "" where it does not, or where that is seen by the processor times of the machine.
        """
        return ""
