"""RMSprop: gradients divided by their own recent size. The optimizer of WGAN."""

from __future__ import annotations

import math
from collections.abc import Iterable

from minigan.backend import Array
from minigan.nn.module import Parameter
from minigan.optim.base import Optimizer, Rate


class RMSprop(Optimizer):
    """s <- alpha s + (1 - alpha) g^2,   p <- p - lr g / (sqrt(s) + eps).

    Centred: a <- alpha a + (1 - alpha) g, and s - a^2 (the variance) under the root.
    With momentum: b <- momentum b + g / (...), p <- p - lr b.

    Hinton, lecture 6e of Neural Networks for Machine Learning (2012); centred: Graves (2013).
    TensorFlow's has alpha = 0.9 and eps = 1e-10 inside the root.

    Parameters
    ----------
    params, lr : see `Optimizer`.
    alpha : share of the averages that stays.
    eps : keeps the denominator from zero.
    weight_decay : adds weight_decay * p to g.
    momentum : share of b that stays.
    centered : divide by the standard deviation instead of the root mean square.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: Rate = 1e-2,
        alpha: float = 0.99,
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        momentum: float = 0.0,
        centered: bool = False,
    ) -> None:
        super().__init__(params, lr)
        self.alpha, self.eps, self.momentum = alpha, eps, momentum
        self.weight_decay = weight_decay
        self._check(alpha=(alpha, 0, 1), eps=(eps, 0, 1), momentum=(momentum, 0, 1))
        self._check(weight_decay=(weight_decay, 0, math.inf))
        self._remember("square_avg")
        if centered:
            self._remember("grad_avg")
        if momentum:
            self._remember("momentum_buffer")

    def update(self, chosen: list[int], grads: list[Array], lr: float) -> None:
        self._kernels.rmsprop_step(
            self._arrays(chosen),
            grads,
            self._recall("square_avg", chosen),
            self._recall("grad_avg", chosen),
            self._recall("momentum_buffer", chosen),
            lr,
            self.alpha,
            self.eps,
            self.momentum,
            self.weight_decay,
        )
