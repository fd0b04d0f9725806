"""What can be said about options and labels before a game goes wrong."""

from __future__ import annotations

from collections.abc import Collection

from minigan.backend import Array
from minigan.errors import UsageError, did_you_mean
from minigan.optim.base import Rate
from minigan.optim.schedules import linear_to_zero


def falling(lr: float, decay_start: int, decay_end: int) -> Rate:
    """A rate that falls in a line to 0 between two steps; a constant if `decay_end` is 0."""
    if not decay_end:
        return lr
    if not 0 <= decay_start < decay_end:
        raise UsageError(
            f"decay_start={decay_start}, decay_end={decay_end}: no time to fall",
            fix="let decay_end be larger, or 0 for a constant rate",
        )
    return linear_to_zero(lr, decay_start, decay_end)


def check_choice(option: str, value: str, choices: Collection[str]) -> None:
    """Refuse a value that is not one of the choices."""
    if value not in choices:
        raise UsageError(
            f"{option}: there is no '{value}'{did_you_mean(value, choices)}",
            fix=f"use one of {', '.join(choices)}",
        )


def check_classes(labels: Array, classes: int, name: str) -> None:
    """Refuse labels that are not integers in [0, classes)."""
    if labels.dtype.kind not in "iu" or labels.ndim != 1:
        raise UsageError(
            f"{name}: labels are {labels.dtype} of shape {labels.shape}",
            fix="give one whole number for each image",
        )
    if len(labels) and not 0 <= labels.min() <= labels.max() < classes:
        wrong = labels.max() if labels.max() >= classes else labels.min()
        raise UsageError(
            f"{name}: class {wrong} is not in 0 ... {classes - 1}",
            fix=f"use other labels, or -o classes={labels.max() + 1}",
        )
