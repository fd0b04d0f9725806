"""Two engines in turns: alternating blocks, medians, quartiles, ratios of neighbours.

Each side has a pool of threads, and a pool that has just worked keeps its core busy for a moment,
while one that has slept for long wakes up slowly (up to 8 ms). So a turn begins with tiny parallel
calls until its own pool is awake and the other one asleep, then one untimed call if it is short,
then the timed ones. What is compared are neighbours in time: the ratio of a pair of turns does not
feel a machine that is slower now than a second ago.
"""

from __future__ import annotations

import statistics
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

WAKE = 1e-3  # seconds of tiny calls before a turn
SHORT = 20e-3  # seconds: a call up to here is made once untimed first
TURN = 2e-3  # seconds of timed calls in a turn, at least one call
RACE, BEATEN = 3, 1.2  # after so many rounds a side that takes so much longer is left out


def nothing() -> None:
    """What needs no preparation."""


@dataclass
class Side:
    """One way to compute something.

    Attributes
    ----------
    name : "minigan", or "torch nchw" and so on.
    call : what is timed; takes what `prepare` returned.
    prepare : called untimed before every call, such as the forward pass of a timed backward pass.
    wake : a tiny parallel call of the same engine.
    """

    name: str
    call: Callable[[Any], Any]
    prepare: Callable[[], Any] = nothing
    wake: Callable[[], Any] = nothing


def alternate(
    sides: Sequence[Side], seconds: float, least: int = 3, most: int = 60
) -> dict[str, list[float]]:
    """Seconds per call of each side in each round; every side must have run once before.

    Goes on for `seconds`, but for `least` rounds at least and `most` at most. A side, other than
    the first, that is clearly slower than another one is left out after `RACE` rounds.
    """
    start = time.perf_counter()
    times: dict[str, list[float]] = {}
    lengths: dict[str, float] = {}
    for side in sides:
        lengths[side.name], times[side.name] = _first(side)
    running = list(sides)
    for done in range(most):
        if done >= least and time.perf_counter() - start > seconds:
            break
        if done == RACE:
            running = _faster(running, times)
        for side in running:
            if len(times[side.name]) <= done:
                times[side.name].append(_turn(side, lengths[side.name]))
    return times


def _first(side: Side) -> tuple[float, list[float]]:
    """About how long a call takes; a long one counts as the first round."""
    _wake(side)
    seconds = _timed(side)
    if seconds > 10 * SHORT:
        return seconds, [seconds]
    return min(seconds, _timed(side), _timed(side)), []


def _faster(sides: Sequence[Side], times: dict[str, list[float]]) -> list[Side]:
    """The first side, and of the others those that may be the fastest."""
    first, *others = sides
    best = min((min(times[side.name]) for side in others), default=0.0)
    return [first, *(side for side in others if min(times[side.name]) <= BEATEN * best)]


def _turn(side: Side, length: float) -> float:
    _wake(side)
    if length < SHORT:
        _timed(side)
    count = max(1, min(1000, int(TURN / length)))
    return sum(_timed(side) for _ in range(count)) / count


def _wake(side: Side) -> None:
    side.wake()
    start = time.perf_counter()
    while time.perf_counter() - start < WAKE:
        side.wake()


def _timed(side: Side) -> float:
    argument = side.prepare()
    start = time.perf_counter()
    side.call(argument)
    return time.perf_counter() - start


def quartiles(values: Sequence[float]) -> dict[str, float]:
    """Median, first and third quartile, and how many."""
    if len(values) < 2:
        low = high = middle = values[0]
    else:
        low, middle, high = statistics.quantiles(values, n=4, method="inclusive")
    return {"median": middle, "q1": low, "q3": high, "n": len(values)}


def geometric_mean(values: Sequence[float]) -> float:
    """The mean for ratios: 2 and 1/2 give 1."""
    return statistics.geometric_mean(values) if values else float("nan")


def versus(times: dict[str, list[float]]) -> dict[str, Any]:
    """What is reported of `alternate`: milliseconds, the faster PyTorch, the ratio to it.

    The first side is ours. ratio > 1: ours is faster than the best of the others.
    """
    ours, *others = times
    result: dict[str, Any] = {
        "ms": {name: quartiles([1e3 * t for t in values]) for name, values in times.items()}
    }
    if others:
        lasting = [name for name in others if len(times[name]) == len(times[ours])]
        best = min(lasting, key=lambda name: statistics.median(times[name]))
        pairs = zip(times[best], times[ours], strict=True)
        result["best"] = best
        result["ratio"] = quartiles([theirs / mine for theirs, mine in pairs])
    return result
