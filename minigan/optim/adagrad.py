"""Adagrad: each number's steps shrink with the squares of all its gradients so far."""

from __future__ import annotations

import math
from collections.abc import Iterable

from minigan.backend import Array
from minigan.nn.module import Parameter
from minigan.optim.base import Optimizer, Rate


class Adagrad(Optimizer):
    """s <- s + g^2,   p <- p - lr / (1 + (t - 1) lr_decay) g / (sqrt(s) + eps).

    Duchi, Hazan, Singer: Adaptive Subgradient Methods (2011).

    Parameters
    ----------
    params, lr : see `Optimizer`.
    lr_decay : slows down with the number of steps t.
    weight_decay : adds weight_decay * p to g.
    initial_accumulator_value : s to begin with.
    eps : keeps the denominator from zero.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: Rate = 1e-2,
        lr_decay: float = 0.0,
        weight_decay: float = 0.0,
        initial_accumulator_value: float = 0.0,
        eps: float = 1e-10,
    ) -> None:
        super().__init__(params, lr)
        self.lr_decay, self.weight_decay, self.eps = lr_decay, weight_decay, eps
        self._check(lr_decay=(lr_decay, 0, math.inf), weight_decay=(weight_decay, 0, math.inf))
        self._check(initial_accumulator_value=(initial_accumulator_value, 0, math.inf))
        self._check(eps=(eps, 0, 1))
        self._remember("sum", initial_accumulator_value)

    def update(self, chosen: list[int], grads: list[Array], lr: float) -> None:
        self._kernels.adagrad_step(
            self._arrays(chosen),
            grads,
            self._recall("sum", chosen),
            self.counts[chosen].tolist(),
            lr,
            self.lr_decay,
            self.eps,
            self.weight_decay,
        )
