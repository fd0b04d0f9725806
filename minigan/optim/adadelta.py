"""Adadelta: the size of recent steps over the size of recent gradients sets the size of a step."""

from __future__ import annotations

import math
from collections.abc import Iterable

from minigan.backend import Array
from minigan.nn.module import Parameter
from minigan.optim.base import Optimizer, Rate


class Adadelta(Optimizer):
    """s <- rho s + (1 - rho) g^2,   d = sqrt(a + eps) / sqrt(s + eps) g,

    a <- rho a + (1 - rho) d^2,   p <- p - lr d.

    Zeiler: ADADELTA (2012), arXiv:1212.5701.

    Parameters
    ----------
    params, lr : see `Optimizer`.
    rho : share of the averages that stays.
    eps : inside both roots; also what lets it start.
    weight_decay : adds weight_decay * p to g.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: Rate = 1.0,
        rho: float = 0.9,
        eps: float = 1e-6,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr)
        self.rho, self.eps, self.weight_decay = rho, eps, weight_decay
        self._check(rho=(rho, 0, 1), eps=(eps, 0, 1), weight_decay=(weight_decay, 0, math.inf))
        self._remember("square_avg")
        self._remember("acc_delta")

    def update(self, chosen: list[int], grads: list[Array], lr: float) -> None:
        self._kernels.adadelta_step(
            self._arrays(chosen),
            grads,
            self._recall("square_avg", chosen),
            self._recall("acc_delta", chosen),
            lr,
            self.rho,
            self.eps,
            self.weight_decay,
        )
