"""Optimizers for games. Where descent circles around an equilibrium, these walk into it.

In min_x max_y xy the players' gradients are (y, -x): always at right angles to the way to (0, 0).
Gradient descent spirals outward. What helps is to look at where the game is going: by the last
gradient (optimism), by a trial step (extrapolation), by standing back (lookahead), or by second
derivatives (`consensus_gradients`, `symplectic_gradients` in gradients.py).
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any

import numpy as np

from minigan.backend import Array
from minigan.errors import UsageError
from minigan.nn.module import Parameter
from minigan.optim.adam import Adam
from minigan.optim.base import Gradients, Optimizer, Rate


class OptimisticAdam(Adam):
    """p <- p - 2 lr u_t + lr u_(t-1),   u_t the direction of `Adam`, u_0 = 0.

    The gradient to come is guessed from the change of the last two: u_t + (u_t - u_(t-1)).

    Daskalakis et al.: Training GANs with Optimism (2017), arXiv:1711.00141.
    Parameters as for `Adam`, without amsgrad.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
        self._remember("last_direction")

    def update(self, chosen: list[int], grads: list[Array], lr: float) -> None:
        directions = self.directions(chosen, grads)
        for p, u, last in zip(
            self._arrays(chosen), directions, self._recall("last_direction", chosen), strict=True
        ):
            p -= lr * (2 * u - last)
            last[...] = u

    def directions(self, chosen: list[int], grads: list[Array]) -> list[Array]:
        """u = m^ / (sqrt(v^) + eps), by a step of Adam with lr = -1 that starts at 0."""
        p = self._arrays(chosen)
        if self.weight_decay:
            grads = [g + self.weight_decay * w for g, w in zip(grads, p, strict=True)]
        u = [np.zeros_like(w) for w in p]
        self._adam(u, chosen, grads, -1.0, 0.0)
        return u


class ExtraAdam(OptimisticAdam):
    """Try a step, then step from where it began with the gradient of where it led.

        p' = p - lr u(g(p)),   p <- p - lr u(g(p'))

    where u is the direction of `Adam`, whose averages take in both gradients.

        opt.extrapolate(mg.grad(loss(), opt.params))
        opt.step(mg.grad(loss(), opt.params))

    In a game all players extrapolate before the first steps. Without a trial `step` is Adam's.

    Gidel et al.: A Variational Inequality Perspective on GANs (2018), arXiv:1802.10551.
    Parameters as for `OptimisticAdam`.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay)
        self.memory["start"] = self.memory.pop("last_direction")
        self.trial = np.zeros((), np.int64)  # 1 between extrapolate and step
