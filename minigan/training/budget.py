"""How long a run may take: steps, images or minutes, whichever is reached first."""

from __future__ import annotations

import math
import statistics
import time
from collections import deque
from dataclasses import dataclass

from minigan.errors import UsageError

_MEDIAN_OVER = 20  # ticks


@dataclass(frozen=True)
class Budget:
    """The limits of a run; None is no limit.

    Attributes
    ----------
    steps : optimizer steps.
    kimg : thousands of real images seen.
    minutes : minutes of training, those before a resume included.
    """

    steps: int | None = None
    kimg: float | None = None
    minutes: float | None = None

    def __post_init__(self) -> None:
        for name in ("steps", "kimg", "minutes"):
            value = getattr(self, name)
            if value is not None and not value >= 0:
                raise UsageError(f"{name} must not be negative, got {value}")
        if self.steps is None and self.kimg is None and self.minutes is None:
            raise UsageError("no budget given", fix="say steps, kimg or minutes")

    def last_step(self, batch: int) -> int | None:
        """The number of steps that steps and kimg allow, if they do limit."""
        limits = [] if self.steps is None else [self.steps]
        if self.kimg is not None:
            limits.append(math.ceil(self.kimg * 1000 / batch))
        return min(limits, default=None)

    def __str__(self) -> str:
        named = (
            (self.steps, "steps"),
            (self.kimg, "thousand images"),
            (self.minutes, "minutes"),
        )
        return " or ".join(f"{value:,g} {unit}" for value, unit in named if value is not None)


class Clock:
    """Measures training time by the monotonic clock, which no one can set.

    Parameters
    ----------
    before : seconds that earlier sessions of the run took.
    """

    def __init__(self, before: float = 0.0) -> None:
        self._start = time.monotonic() - before
        self._last_tick = time.monotonic()
        self._step_times: deque[float] = deque(maxlen=_MEDIAN_OVER)

    def seconds(self) -> float:
        """Training time so far, earlier sessions included."""
        return time.monotonic() - self._start

    def tick(self, steps: int) -> float:
        """End a tick of `steps` steps; return the seconds that it took."""
        now = time.monotonic()
        took, self._last_tick = now - self._last_tick, now
        if steps:
            self._step_times.append(took / steps)
        return took

    def remaining(self, step: int, last: int | None, minutes: float | None) -> float | None:
        """Seconds to go, from the median of the last ticks; None if nothing is known yet."""
        estimates = []
        if last is not None and self._step_times:
            estimates.append((last - step) * statistics.median(self._step_times))
        if minutes is not None:
            estimates.append(60 * minutes - self.seconds())
        return max(min(estimates), 0.0) if estimates else None
