"""EnergyOracle: the energy of models that are cut from one dense model, where the machine has a counter of it."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Hashable
from dataclasses import dataclass
from functools import cached_property

from torch import nn

from autoprune.errors import AutopruneWarning, UserCodeError
from autoprune.measure.energy.comparer import EnergyComparer
from autoprune.measure.energy.counters import counter_of, lacks_energy
from autoprune.measure.latency.preparation import Preparation
from autoprune.measure.latency.timing import Timing
from autoprune.records.energy import Energy
from autoprune.records.profile import LatencyProfile

#: Attempts to measure an energy before it counts as failed.
_ATTEMPTS = 3


@dataclass(frozen=True, slots=True, kw_only=True)
class EnergyUse:
    """How energy is measured, where it can be read.

    Attributes:
        timing: How long.
        decides: Whether it is an objective or limited: then it is measured of every candidate; else only where latency
            is measured and not predicted.
    """

    timing: Timing
    decides: bool = False


class EnergyOracle:
    """Energy of models against one dense model. One that can be trusted is measured once for each architecture.

    Args:
        use: How energy is measured.
        dense: The dense model.
        profile: Latency profile under which models are called.
        preparation: Returns the dense model as it was prepared for that profile.
    """

    def __init__(
        self, use: EnergyUse, dense: nn.Module, profile: LatencyProfile, preparation: Callable[[], Preparation]
    ) -> None:
        self.use, self._preparation = use, preparation
        self._counter = counter_of(dense, profile)
        self._known: dict[Hashable, Energy] = {}

    @cached_property
    def lacks(self) -> str:
        """Why energy cannot be read here and what to do, in sentences; "" where it can."""
        return lacks_energy(self._counter)

    @cached_property
    def _comparer(self) -> EnergyComparer:
        assert self._counter is not None, "a counter that lacks nothing is there"
        return EnergyComparer(self._preparation(), self._counter, self.use.timing)

    def refer_to(self, dense: Energy) -> None:
        """Take the millijoules of the dense model from an earlier measurement of the same study.

        Args:
            dense: Energy of the dense model.
        """
        if not self.lacks:
            self._comparer.refer_to(dense)

    def known(self, key: Hashable) -> Energy | None:
        """Return the energy of an architecture that was measured before.

        Args:
            key: The architecture.

        Returns:
            The energy; None where none was measured that can be trusted.
        """
        return self._known.get(key)

    def measure(self, model: nn.Module, key: Hashable) -> Energy | None:
        """Measure the energy of a model. A measurement that fails is made again, a few times.

        Args:
            model: The model.
            key: Its architecture.

        Returns:
            The energy; None where it cannot be measured, which is warned of, and it decides nothing.

        Raises:
            UserCodeError: It cannot be measured, and it decides.
        """
        for attempt in range(_ATTEMPTS):
            try:
                found = self._comparer.compare(model)
            except UserCodeError as error:
                if attempt + 1 < _ATTEMPTS:
                    continue
                if self.use.decides:
                    raise
                warnings.warn(f"Energy is left out of a candidate. {error}", AutopruneWarning, stacklevel=2)
                return None
            if found.trusted:
                self._known[key] = found
            return found
        return None
