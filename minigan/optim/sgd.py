"""Gradient descent, with momentum if wanted."""

from __future__ import annotations

import math
from collections.abc import Iterable

from minigan.backend import Array
from minigan.errors import UsageError
from minigan.nn.module import Parameter
from minigan.optim.base import Optimizer, Rate


class SGD(Optimizer):
    """g <- g + weight_decay p,   b <- momentum b + (1 - dampening) g  (b = g at first),

    p <- p - lr b;   Nesterov: p <- p - lr (g + momentum b).

    Parameters
    ----------
    params, lr : see `Optimizer`.
    momentum : share of b that stays; 0 is plain gradient descent. A function of the number of
        steps made so far is a schedule, as the first GAN has one from 0.5 to 0.7.
    dampening : reduces what a new gradient adds to b.
    weight_decay : adds weight_decay * p to g.
    nesterov : look ahead by one step of momentum; needs momentum and no dampening.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: Rate = 1e-3,
        momentum: Rate = 0.0,
        dampening: float = 0.0,
        weight_decay: float = 0.0,
        nesterov: bool = False,
    ) -> None:
        super().__init__(params, lr)
        self.momentum, self.dampening = momentum, dampening
        self.weight_decay, self.nesterov = weight_decay, nesterov
        self._check(weight_decay=(weight_decay, 0, math.inf))
        if not callable(momentum):
            self._check(momentum=(momentum, 0, 1))
        if nesterov and (not momentum or dampening):
            raise UsageError("SGD: nesterov needs momentum > 0 and dampening = 0")
        if momentum:
            self._remember("momentum_buffer")

    def update(self, chosen: list[int], grads: list[Array], lr: float) -> None:
        momentum = self.momentum(self.steps - 1) if callable(self.momentum) else self.momentum
        self._kernels.sgd_step(
            self._arrays(chosen),
            grads,
            self._recall("momentum_buffer", chosen),
            self.counts[chosen].tolist(),
            lr,
            momentum,
            self.dampening,
            self.nesterov,
            self.weight_decay,
        )
