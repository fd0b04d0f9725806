"""When checkpoints and reports are made, and what happens when the disk refuses them."""

from __future__ import annotations

import time
from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from minigan.errors import CheckpointError
from minigan.training.rundir import RunFolder

_MOST_SECONDS = 180.0  # between two checkpoints, for models whose steps are slow
_FAILURES = 3
_REPORT_SHARE = 0.02  # of the time may go into rebuilding the report


class Saver:
    """Makes checkpoints of a run.

    Parameters
    ----------
    every : steps between checkpoints.
    say : prints a warning.

    Attributes
    ----------
    saved_step : step of the last checkpoint made, or None.
    """

    def __init__(self, run: RunFolder, every: int, say: Callable[[str], None]) -> None:
        self.run, self.every, self.say = run, every, say
        self.saved_step: int | None = None
        self._failures = 0
        self._last_try = time.monotonic()

    def due(self, step: int) -> bool:
        """Whether a checkpoint belongs to this step."""
        return step % self.every == 0 or time.monotonic() - self._last_try > _MOST_SECONDS

    def save(
        self,
        arrays: Mapping[str, npt.NDArray[Any]],
        state: Mapping[str, Any],
        score: float | None,
        final: bool = False,
    ) -> None:
        """Save; a failure is a warning, the third in a row or the final one an error.

        Whatever happens, the checkpoints made before stay.
        """
        self._last_try = time.monotonic()
        try:
            self.run.checkpoints.save(arrays, state, score)
        except OSError as error:
            self._failures += 1
            what = f"the checkpoint of step {state['step']} could not be written: {error.strerror}"
            if final or self._failures >= _FAILURES:
                raise CheckpointError(
                    what if final else f"{what}, the third time in a row",
                    where=str(self.run.checkpoints.folder),
                    fix="free space and resume: the checkpoints made before are intact",
                ) from error
            self.say(f"WARNING: {what} ({self._failures} of {_FAILURES} before the run stops)")
        else:
            self._failures = 0
            self.saved_step = int(state["step"])


class Reporter:
    """Rebuilds report.html; a failure never stops the training."""

    def __init__(self, run: RunFolder, say: Callable[[str], None]) -> None:
        self.run, self.say = run, say
        self._next = 0.0

    def build_now_and_then(self) -> None:
        """Build it, unless that would take more than a fiftieth of the time."""
        if time.monotonic() >= self._next:
            self.build()

    def build(self) -> None:
        """Build it."""
        from minigan.training.report import report

        started = time.monotonic()
        try:
            report([self.run.path])
        except Exception as error:
            self.say(f"warning: no report: {type(error).__name__}: {error}")
        took = time.monotonic() - started
        self._next = time.monotonic() + took / _REPORT_SHARE
