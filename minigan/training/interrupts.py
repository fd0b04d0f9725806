"""Ctrl-C and SIGTERM: the first asks for a clean stop, the second stops at once.

Stopping at once is safe: files are replaced whole or not at all (minigan/weights/atomic.py).
"""

from __future__ import annotations

import os
import signal
import sys
import threading
from types import FrameType, TracebackType
from typing import Any


class Interrupts:
    """A `with` block in which `signal` is the number of the first SIGINT or SIGTERM, or None."""

    def __init__(self) -> None:
        self.signal: int | None = None
        self._before: dict[int, Any] = {}

    def __enter__(self) -> Interrupts:
        if threading.current_thread() is threading.main_thread():  # elsewhere Python forbids it
            for number in (signal.SIGINT, signal.SIGTERM):
                self._before[number] = signal.signal(number, self._handle)
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        for number, handler in self._before.items():
            signal.signal(number, handler)

    def _handle(self, number: int, frame: FrameType | None) -> None:
        # os.write, because the signal may have come in the middle of a print.
        if self.signal is not None:
            show_cursor = b"\x1b[?25h" if sys.stderr.isatty() else b""
            os.write(2, show_cursor + b"\nstopped at once\n")
            os._exit(128 + number)
        self.signal = number
        os.write(2, b"\nfinishing this step and saving (once more: stop at once)\n")
