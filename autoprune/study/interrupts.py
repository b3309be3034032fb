"""Ctrl-C while trials run: once lets them finish, twice ends them."""

from __future__ import annotations

import signal
import threading
from collections.abc import Callable
from types import FrameType, TracebackType


class Interrupts:
    """Counts Ctrl-C inside a block: the first one is noted, the second one raises KeyboardInterrupt.

    Outside the main thread, and where the program handles Ctrl-C in its own way, nothing is changed.

    Args:
        tell: Called at the first one.

    Example:
        >>> with Interrupts(lambda: None) as interrupts:
        ...     interrupts.stopping
        False
    """

    def __init__(self, tell: Callable[[], None]) -> None:
        self._tell = tell
        self._before: object = None
        self.stopping = False

    def __enter__(self) -> Interrupts:
        """Begin to count."""
        in_main = threading.current_thread() is threading.main_thread()
        if in_main and signal.getsignal(signal.SIGINT) is signal.default_int_handler:
            self._before = signal.signal(signal.SIGINT, self._note)
        return self

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        """Handle Ctrl-C as before."""
        if self._before is not None:
            signal.signal(signal.SIGINT, signal.default_int_handler)

    def _note(self, number: int, frame: FrameType | None) -> None:
        del number, frame
        if self.stopping:
            raise KeyboardInterrupt
        self.stopping = True
        self._tell()
