"""The verdict on a run in a word and a reason, from its figures alone.

ok          nothing below
D winning   D(x) > 0.98 and D(G(z)) < 0.02 for 50 ticks: G learns nothing from such a sure D
collapse?   the pictures of the fixed noise differ by less than a quarter of what real ones do
diverging   a loss or gradient norm is a hundred times its median
NaN         a figure is not a number
"""

from __future__ import annotations

import math
import statistics
from collections import deque
from collections.abc import Mapping
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

WINNING_TICKS = 50
COLLAPSE_SHARE, COLLAPSE_FROM_STEP = 0.25, 200  # untrained generators all make one grey
DIVERGING_FACTOR, DIVERGING_FLOOR = 100.0, 10.0  # the floor: a hundred times nearly zero is small
_MEDIAN_FROM, _MEDIAN_OVER = 20, 1000  # ticks


class Verdict(NamedTuple):
    """A word, why, and what to try."""

    word: str
    reason: str = ""
    advice: str = ""


OK = Verdict("ok", "no sign of trouble in the figures")


class Health:
    """Follows the lines of stats.jsonl; `verdict` is a function of the lines seen so far."""

    def __init__(self) -> None:
        self.verdict = OK
        self._sure = 0  # ticks in a row in which D was sure of both
        self._history: dict[str, deque[float]] = {}

    def see(self, line: Mapping[str, Any]) -> Verdict:
        """Take the next line and return the verdict."""
        sure = line.get("d_real", 0.0) or 0.0, line.get("d_fake", 1.0)
        self._sure = self._sure + 1 if sure[0] > 0.98 and (sure[1] or 0.0) < 0.02 else 0
        self.verdict = (
            self._not_a_number(line)
            or self._diverging(line)
            or self._collapse(line)
            or self._winning()
            or OK
        )
        return self.verdict

    def _not_a_number(self, line: Mapping[str, Any]) -> Verdict | None:
        for name, value in line.items():
            if value is None or (isinstance(value, float) and not math.isfinite(value)):
                return Verdict(
                    "NaN",
                    f"{name} is not a number at step {line.get('step')}",
                    "lower the learning rate; look into crash/ for the first bad operation",
                )
        return None

    def _diverging(self, line: Mapping[str, Any]) -> Verdict | None:
        found = None
        for name, value in line.items():
            if not name.startswith(("loss_", "gnorm_")) or not isinstance(value, int | float):
                continue
            past = self._history.setdefault(name, deque(maxlen=_MEDIAN_OVER))
            if len(past) >= _MEDIAN_FROM and abs(value) > DIVERGING_FLOOR:
                usual = statistics.median(past)
                if abs(value) > DIVERGING_FACTOR * usual:
                    found = Verdict(
                        "diverging",
                        f"{name} is {value:.3g}, usually {usual:.3g}",
                        "lower the learning rate, or add a gradient penalty or spectral norm",
                    )
            past.append(abs(value))
        return found

    def _collapse(self, line: Mapping[str, Any]) -> Verdict | None:
        share = line.get("diversity")
        if share is None or share >= COLLAPSE_SHARE or line.get("step", 0) < COLLAPSE_FROM_STEP:
            return None
        return Verdict(
            "collapse?",
            f"samples differ from each other by {share:.0%} of what real images do",
            "look at the samples: if they are all alike, lower G's learning rate, or let D see "
            "more variety (minibatch deviation, packing, a gradient penalty)",
        )

    def _winning(self) -> Verdict | None:
        if self._sure < WINNING_TICKS:
            return None
        return Verdict(
            "D winning",
            f"D(x) > 0.98 and D(G(z)) < 0.02 for {self._sure} ticks",
            "lower D's learning rate, smooth its labels, add noise to its inputs, or use a loss "
            "that does not saturate (least squares, hinge, Wasserstein)",
        )


def pairwise_distance(images: npt.NDArray[Any], most: int = 64) -> float:
    """Mean Euclidean distance between the (first `most`) images: |a-b|^2 = |a|^2+|b|^2-2ab."""
    flat = np.asarray(images[:most], dtype=np.float64).reshape(min(len(images), most), -1)
    if len(flat) < 2:
        return 0.0
    squares = (flat**2).sum(axis=1)
    distances = np.sqrt(np.maximum(squares[:, None] + squares - 2 * flat @ flat.T, 0.0))
    return float(distances.sum() / (len(flat) * (len(flat) - 1)))
