"""Schedules: plain functions from the number of steps made so far to a learning rate.

    opt = Adam(params, lr=warmup(linear_to_zero(2e-4, 50_000, 100_000), 1000))

A schedule keeps no state, so resuming needs only the step. Any function of one integer is one.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Mapping

from minigan.errors import UsageError

Schedule = Callable[[int], float]


def constant(value: float) -> Schedule:
    """Always `value`."""
    return lambda step: value


def linear(first: float, last: float, steps: int, start: int = 0) -> Schedule:
    """`first` up to step `start`, then on a straight line to `last`, reached `steps` later."""
    _positive(steps=steps)
    return lambda step: first + (last - first) * min(max(step - start, 0) / steps, 1.0)


def linear_to_zero(value: float, start: int, end: int) -> Schedule:
    """`value` up to step `start`, then on a straight line to 0 at step `end` (SNGAN, WGAN-GP)."""
    return linear(value, 0.0, end - start, start)


def step_decay(value: float, every: int, factor: float = 0.1) -> Schedule:
    """value * factor^floor(step / every)."""
    _positive(every=every)
    return lambda step: value * factor ** (step // every)


def exponential(value: float, factor: float, floor: float = 0.0) -> Schedule:
    """max(value * factor^step, floor); the first GAN has factor 1 / 1.000004, floor 1e-6."""
    return lambda step: max(value * factor**step, floor)


def cosine(value: float, steps: int, last: float = 0.0) -> Schedule:
    """Half a cosine from `value` at step 0 to `last` at `steps`, and `last` from there on."""
    _positive(steps=steps)

    def schedule(step: int) -> float:
        return last + (value - last) * (1 + math.cos(math.pi * min(step / steps, 1.0))) / 2

    return schedule


def piecewise(values: Mapping[int, float]) -> Schedule:
    """values[k] from step k on, until the next key: {0: 1e-3, 10_000: 1.5e-3}."""
    if 0 not in values:
        raise UsageError("piecewise: there is no value for step 0", fix="give one: {0: 1e-3, ...}")
    keys = sorted(values)
    return lambda step: values[max(k for k in keys if k <= step)]


def pix2pix_decay(
    value: float, constant_epochs: int, decay_epochs: int, steps_per_epoch: int
) -> Schedule:
    """PyTorch pix2pix and CycleGAN: in epoch e (from 0), with N constant and M decaying epochs,

    value * (1 - max(0, e + 1 - N) / (M + 1)). It never quite reaches 0.
    """
    _positive(steps_per_epoch=steps_per_epoch)

    def schedule(step: int) -> float:
        late = max(0, step // steps_per_epoch + 1 - constant_epochs)
        return value * max(0.0, 1 - late / (decay_epochs + 1))

    return schedule


def pix2pixhd_decay(
    value: float, constant_epochs: int, decay_epochs: int, steps_per_epoch: int
) -> Schedule:
    """pix2pixHD and SPADE, which subtract value / M after each epoch past the N-th:

    value * (1 - max(0, e - N) / M) in epoch e (from 0).
    """
    _positive(steps_per_epoch=steps_per_epoch, decay_epochs=decay_epochs)

    def schedule(step: int) -> float:
        late = max(0, step // steps_per_epoch - constant_epochs)
        return value * max(0.0, 1 - late / decay_epochs)

    return schedule


def warmup(schedule: Schedule | float, steps: int) -> Schedule:
    """`schedule` times min(1, (step + 1) / steps): rises in a line over the first `steps`."""
    _positive(steps=steps)
    inner = schedule if callable(schedule) else constant(schedule)
    return lambda step: inner(step) * min(1.0, (step + 1) / steps)


def scaled(schedule: Schedule | float, factor: float) -> Schedule:
    """`schedule` times `factor`: two time scales from one schedule."""
    inner = schedule if callable(schedule) else constant(schedule)
    return lambda step: inner(step) * factor


def chained(*parts: tuple[Schedule | float, int], last: Schedule | float) -> Schedule:
    """Each schedule for its number of steps, counted from its own start; then `last`."""

    def schedule(step: int) -> float:
        for part, steps in parts:
            if step < steps:
                return part(step) if callable(part) else part
            step -= steps
        return last(step) if callable(last) else last

    return schedule


def _positive(**numbers: int) -> None:
    for name, number in numbers.items():
        if number < 1:
            raise UsageError(f"schedule: {name} must be at least 1, not {number}")
