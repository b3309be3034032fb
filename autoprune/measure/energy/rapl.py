"""RAPL: the counters of energy of Intel and AMD processors, as Linux shows them. Not tested on real counters."""

from __future__ import annotations

import re
import time
from collections.abc import Callable
from pathlib import Path

from autoprune.measure.energy.counter import CounterError, EnergyCounter

#: Folder of the counters.
POWERCAP = Path("/sys/class/powercap")
#: A zone at the top, such as intel-rapl:0. Its parts (intel-rapl:0:0) and the second way to the same counters
#: (intel-rapl-mmio:0) would count twice.
_TOP = re.compile(r"intel-rapl:\d+")
#: Name of a zone that is a processor, such as package-0 or package-1-die-0; psys holds the whole machine once more.
_PACKAGE = "package-"
#: Power that no processor package takes; and joules by which a counter may be late.
MOST_WATTS, _SLACK_JOULES = 5000.0, 5.0
_READABLE = "sudo chmod a+r /sys/class/powercap/intel-rapl:*/energy_uj lets others read them until the next start."


class RaplCounter(EnergyCounter):
    """Energy of all processor packages: cores, caches, memory controller and graphics on the chip, without the memory.

    The counters move about once a millisecond, start again at 0 behind `max_energy_range_uj`, and count whatever runs.
    A driver may set one back to 0, which looks like a new start behind the range: then the power is beyond any
    processor's, and the stretch gives no number.

    Args:
        root: Folder that the zones lie in; that of Linux by default.
        clock: Returns seconds.
    """

    name = "rapl"
    seconds = 0.2

    def __init__(self, root: Path | None = None, clock: Callable[[], float] = time.monotonic) -> None:
        self._root, self._clock = POWERCAP if root is None else root, clock
        self._last: dict[Path, tuple[int, float]] = {}
        self._microjoules = 0

    def lacks(self) -> str:
        """Say why it cannot be read here, and what to do.

        Returns:
            Sentences; "" where it can be read.
        """
        try:
            packages = self._packages()
            for package in packages:
                _number(package / "energy_uj")
                _number(package / "max_energy_range_uj")
        except PermissionError as error:
            return f"{error.filename} may be read by root only. {_READABLE}"
        except (OSError, ValueError) as error:
            return f"A counter of RAPL cannot be read: {error}."
        if packages:
            return ""
        return (
            f"{self._root} has no processor package: virtual machines have no such counter, and a Linux kernel may "
            "want `sudo modprobe intel_rapl_msr`."
        )

    def joules(self) -> float:
        """Read the energy since the first reading, over all packages and whenever a counter starts again.

        Returns:
            Joules.

        Raises:
            CounterError: A file cannot be read any more, or a counter jumped. The next reading goes on from there.
        """
        jumps = []
        try:
            for package in self._last or self._packages():
                now, time_now = _number(package / "energy_uj"), self._clock()
                before, time_before = self._last.get(package, (now, time_now))
                self._last[package] = now, time_now
                step, seconds = now - before, time_now - time_before
                step += _number(package / "max_energy_range_uj") if step < 0 else 0
                if step <= 1e6 * (MOST_WATTS * seconds + _SLACK_JOULES):
                    self._microjoules += step
                else:
                    jumps.append(f"{package.name} from {before} to {now} microjoules in {seconds:.3g} s")
        except (OSError, ValueError) as error:
            raise CounterError(f"a counter of RAPL cannot be read any more: {error}") from error
        if jumps:
            raise CounterError(f"a counter of RAPL jumped, as where a driver sets it back: {'; '.join(jumps)}")
        return self._microjoules / 1e6

    def _packages(self) -> list[Path]:
        return [
            zone
            for zone in sorted(self._root.glob("*"))
            if _TOP.fullmatch(zone.name) and (zone / "name").read_text(encoding="ascii").startswith(_PACKAGE)
        ]


def _number(file: Path) -> int:
    return int(file.read_text(encoding="ascii"))
