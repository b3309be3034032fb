"""The state of the machine while latency is measured: the reasons for doubt."""

from __future__ import annotations

import math
import os
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from pathlib import Path

from filelock import FileLock, Timeout

#: Share of the time in which the process waited for a processor, from which on a measurement is doubtful.
WAITING = 0.1
#: Involuntary switches of context per second of calls, from which on a measurement is doubtful.
_SWITCHES = 100.0
#: Seconds to wait for the measurement of another process.
_PATIENCE = 120.0


@dataclass(frozen=True, slots=True, kw_only=True)
class Counters:
    """Counts of the operating system so far; 0 where it does not tell.

    Attributes:
        switches: Times that the calling thread had to give way to others.
        stalled: Seconds in which some task of the machine waited for a processor.
        throttled: Times that the processor was slowed down or the container was stopped.
        running: Tasks of the machine that run or want to, at the moment.
        busy: Processor seconds of all processes of the machine.
        own: Processor seconds of this process.
    """

    switches: int = 0
    stalled: float = 0.0
    throttled: int = 0
    running: int = 0
    busy: float = 0.0
    own: float = 0.0


def read_counters() -> Counters:
    """Read the counters of Linux.

    Returns:
        The counters; 0 for what cannot be read.
    """
    return Counters(
        switches=_switches(),
        stalled=_stalled_seconds(),
        throttled=_throttlings(),
        running=_running_tasks(),
        busy=_busy_seconds(),
        own=time.process_time(),
    )


@dataclass(frozen=True, slots=True, kw_only=True)
class Host:
    """Clocks and counters of the machine; a test gives its own.

    Attributes:
        wall: Seconds of the wall clock.
        thread: Processor seconds of the calling thread.
        sleep: Waits for a number of seconds.
        counters: Reads the counters.
        processors: Number of processors.
    """

    wall: Callable[[], float] = time.perf_counter
    thread: Callable[[], float] = time.thread_time
    sleep: Callable[[float], None] = time.sleep
    counters: Callable[[], Counters] = read_counters
    processors: int = os.cpu_count() or 1


@dataclass(slots=True)
class HostWatch:
    """Counts of the operating system during the bursts of a measurement.

    Attributes:
        host: The machine.
        counts_all: Whether the work of other processes is measured, too, also on other processors.
        seconds: Wall seconds of the bursts.
        switches: Times that the thread had to give way.
        stalled: Seconds in which some task waited for a processor.
        throttled: Times that the processor was throttled.
        crowded: Bursts that began with more running tasks than processors.
        bursts: Number of bursts.
        busy: Processor seconds of all processes.
        own: Processor seconds of this process.
    """

    host: Host
    counts_all: bool = False
    seconds: float = 0.0
    switches: int = 0
    stalled: float = 0.0
    throttled: int = 0
    crowded: int = 0
    bursts: int = 0
    busy: float = 0.0
    own: float = 0.0

    @contextmanager
    def burst(self) -> Iterator[None]:
        """Watch one burst.

        Yields:
            Nothing.
        """
        before, start = self.host.counters(), self.host.wall()
        self.bursts += 1
        self.crowded += before.running > self.host.processors
        try:
            yield
        finally:
            after = self.host.counters()
            self.seconds += self.host.wall() - start
            self.switches += after.switches - before.switches
            self.stalled += after.stalled - before.stalled
            self.throttled += after.throttled - before.throttled
            self.busy += after.busy - before.busy
            self.own += after.own - before.own

    def is_hopeless(self, waiting: float | None, seconds: float) -> bool:
        """Tell whether a measurement stays doubtful, even if the machine is quiet from now on.

        Args:
            waiting: Share of the wall time in which the thread did not run; None where that is not known.
            seconds: Further seconds of bursts.

        Returns:
            Whether there are doubts after so much quiet time.
        """
        longer = replace(self, seconds=self.seconds + seconds)
        share = self.seconds / max(longer.seconds, 1e-9)
        longer.bursts = math.ceil(self.bursts / max(share, 1e-9))
        longer.own, longer.busy = self.own / max(share, 1e-9), self.busy + self.own * (1 / max(share, 1e-9) - 1)
        return any(longer.doubts(None if waiting is None else waiting * share))

    def doubts(self, waiting: float | None) -> Iterator[str]:
        """List reasons against a measurement.

        Args:
            waiting: Share of the wall time in which the thread did not run; None where that is not known.

        Yields:
            Reasons, in sentences.
        """
        seconds = max(self.seconds, 1e-9)
        stalled = self.stalled / seconds
        if waiting is not None and waiting > WAITING:
            yield f"Calls waited {waiting:.0%} of the time for a processor: other work ran on the machine."
        elif waiting is None and (stalled > WAITING or 2 * self.crowded > self.bursts):
            yield f"Tasks waited {min(stalled, 1.0):.0%} of the time for a processor: other work ran on the machine."
        elif self.switches / seconds > _SWITCHES:
            yield f"Calls were interrupted {self.switches / seconds:.0f} times a second: other work ran on the machine."
        others = self.busy - self.own
        if self.counts_all and others > WAITING * self.own:
            share = f"{others / max(self.own, 1e-9):.0%}"
            yield f"Other processes took {share} of this one's processor time, and what they used is counted, too."
        if self.throttled > 0:
            yield f"The processor was throttled {self.throttled} times."


def _switches() -> int:
    """Count how often the calling thread had to give way to others; 0 where that cannot be read."""
    try:
        lines = Path("/proc/thread-self/status").read_text().splitlines()
    except OSError:
        return 0
    return next((int(line.split()[1]) for line in lines if line.startswith("nonvoluntary_ctxt_switches:")), 0)


def _stalled_seconds() -> float:
    """Read for how long some task has waited for a processor (pressure stall information)."""
    try:
        some = Path("/proc/pressure/cpu").read_text().splitlines()[0].split()
        return int(some[-1].removeprefix("total=")) / 1e6
    except (OSError, ValueError, IndexError):
        return 0.0


def _busy_seconds() -> float:
    """Read for how long processors have worked, for whatever process; 0 where that cannot be read."""
    try:
        user, nice, system, _, _, *rest = map(int, Path("/proc/stat").read_text().splitlines()[0].split()[1:])
        return (user + nice + system + sum(rest[:2])) / os.sysconf("SC_CLK_TCK")  # and interrupts of both kinds
    except (OSError, ValueError, IndexError):
        return 0.0


def _throttlings() -> int:
    """Count how often cores were too hot or too hungry, and how often a quota stopped the container."""
    counted = 0
    for path in Path("/sys/devices/system/cpu").glob("cpu[0-9]*/thermal_throttle/core_throttle_count"):
        with suppress(OSError, ValueError):
            counted += int(path.read_text())
    with suppress(OSError, ValueError, KeyError):
        stat = dict(line.split() for line in Path("/sys/fs/cgroup/cpu.stat").read_text().splitlines())
        counted += int(stat["nr_throttled"])
    return counted


def _running_tasks() -> int:
    """Count the tasks of the machine that run or want to; 0 where that cannot be read."""
    try:
        return int(Path("/proc/loadavg").read_text().split()[3].partition("/")[0])
    except (OSError, ValueError, IndexError):
        return 0


def lock_path() -> Path:
    """Return the file that processes of one user lock while they measure.

    Returns:
        A path in the folder of temporary files.
    """
    user = os.getuid() if hasattr(os, "getuid") else "user"
    return Path(tempfile.gettempdir()) / f"autoprune-latency-{user}.lock"


@contextmanager
def host_lock() -> Iterator[bool]:
    """Keep other processes of the same user from measuring at the same time. The lock of a dead process is free.

    Yields:
        Whether the lock is held: not where the folder cannot be written to, or another process holds it for minutes.
    """
    lock = FileLock(lock_path())
    try:
        lock.acquire(timeout=_PATIENCE)
    except (Timeout, OSError):
        yield False
        return
    try:
        yield True
    finally:
        lock.release()
