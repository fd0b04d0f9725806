"""The figures of a run: averages over the steps of a tick, one line per tick."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any


class Figures:
    """Sums figures over steps; `tick` returns their means and starts anew.

    Figures that a step does not report do not count in its mean. `state` goes into checkpoints,
    so that a tick that a checkpoint cuts in two comes out the same after a resume.
    """

    def __init__(self) -> None:
        self._sums: dict[str, float] = {}
        self._counts: dict[str, int] = {}

    def add(self, figures: Mapping[str, float]) -> None:
        """Count the figures of one step."""
        for name, value in figures.items():
            self._sums[name] = self._sums.get(name, 0.0) + float(value)
            self._counts[name] = self._counts.get(name, 0) + 1

    def tick(self) -> dict[str, float]:
        """Return the means since the last tick."""
        means = {name: total / self._counts[name] for name, total in self._sums.items()}
        self._sums, self._counts = {}, {}
        return means

    def state(self) -> dict[str, Any]:
        """What is summed so far, as JSON (Python writes and reads floats exactly)."""
        return {"sums": self._sums, "counts": self._counts}

    def load_state(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state` returned."""
        self._sums, self._counts = dict(state["sums"]), dict(state["counts"])
