"""Gradients made smaller, weights kept small, and gradients of several batches added up."""

from __future__ import annotations

import math
from collections.abc import Iterable, Sequence

import numpy as np

from minigan.backend import Array
from minigan.errors import UsageError
from minigan.nn.module import Parameter
from minigan.tensor import Tensor

Gradients = Sequence[Tensor | Array | None]


def clip_grad_norm(grads: Gradients, max_norm: float) -> tuple[list[Array | None], float]:
    """Return grads * min(1, max_norm / (norm + 1e-6)) and norm, the length of all together.

    The norm before clipping is what to log. NaN and infinity stay what they are.
    """
    if not max_norm > 0:
        raise UsageError(f"clip_grad_norm: max_norm must be positive, not {max_norm}")
    arrays = _arrays(grads)
    squares = (float(np.vdot(wide, wide)) for wide in map(_wide, arrays) if wide is not None)
    norm = math.sqrt(sum(squares))
    factor = max_norm / (norm + 1e-6)
    if factor >= 1:
        return arrays, norm
    return [None if g is None else g * factor for g in arrays], norm


def clip_grad_value(grads: Gradients, limit: float) -> list[Array | None]:
    """Return the gradients with every number brought into [-limit, limit]."""
    if not limit > 0:
        raise UsageError(f"clip_grad_value: limit must be positive, not {limit}")
    return [None if g is None else np.clip(g, -limit, limit) for g in _arrays(grads)]


def clip_weights(params: Iterable[Parameter], limit: float) -> None:
    """Bring every weight into [-limit, limit], in place: the critic of the first WGAN."""
    for p in params:
        np.clip(p.data, -limit, limit, out=p.data)
        p.bump()


class GradientAccumulator:
    """The mean of gradients over several batches, for a batch that memory cannot hold.

        for part in parts:
            accumulator.add(mg.grad(loss(part), opt.params), weight=len(part))
        opt.step(accumulator.mean())

    Attributes
    ----------
    weight : sum of the weights added since the last `mean`.
    """

    def __init__(self) -> None:
        self.weight = 0.0
        self._sums: list[Array | None] = []

    def add(self, grads: Gradients, weight: float = 1.0) -> None:
        """Add gradients, times `weight`. None counts as zero."""
        arrays = _arrays(grads)
        if not self._sums:
            self._sums = [None] * len(arrays)
        if len(arrays) != len(self._sums):
            raise UsageError(f"add: {len(arrays)} gradients after {len(self._sums)} before")
        self.weight += weight
        for i, g in enumerate(arrays):
            if g is None:
                continue
            total = self._sums[i]
            if total is None:
                self._sums[i] = g * weight
            else:
                total += g * weight

    def mean(self) -> list[Array | None]:
        """Return the weighted mean, and start anew."""
        if not self.weight > 0:
            raise UsageError("mean: nothing was added since the last mean")
        weight, sums = self.weight, self._sums
        self.weight, self._sums = 0.0, []
        return [None if total is None else total / weight for total in sums]


def _arrays(grads: Gradients) -> list[Array | None]:
    return [g.data if isinstance(g, Tensor) else g for g in grads]


def _wide(g: Array | None) -> Array | None:
    """float64, so that squares of large float32 numbers do not overflow."""
    return None if g is None else g.astype(np.float64, copy=False)
