"""Optimizers for games. Where descent circles around an equilibrium, these walk into it.

In min_x max_y xy the players' gradients are (y, -x): always at right angles to the way to (0, 0),
and gradient descent spirals outward. What helps is to look at where the game is going: by the last
gradient (optimism), by a trial step (extrapolation), by standing back (lookahead), or by second
derivatives (second_order.py).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np

from minigan.backend import Array
from minigan.errors import UsageError
from minigan.optim.adam import Adam
from minigan.optim.base import Gradients, Optimizer, Rate


class OptimisticAdam(Adam):
    """p <- p - 2 lr u_t + lr u_(t-1),   u_t the direction of `Adam`, u_0 = 0.

    The direction to come is guessed from the last two: u_t + (u_t - u_(t-1)).

    Daskalakis et al.: Training GANs with Optimism (2017), arXiv:1711.00141.
    Parameters as for `Adam`.
    """

    records = False
    remembers = (*Adam.remembers, "last_direction")

    def update(self, chosen: list[int], grads: list[Array], lr: float) -> None:
        directions = self.directions(chosen, grads)
        for i, u in zip(chosen, directions, strict=True):
            last = self.memory["last_direction"][i]
            p = self.params[i].data
            p -= lr * (2 * u - last)
            last[...] = u


class ExtraAdam(Adam):
    """Try a step, then step from where it began with the gradient of where it led.

        p' = p - lr u(g(p)),   p <- p - lr u(g(p'))

    where u is the direction of `Adam`, whose averages take in both gradients:

        opt.extrapolate(mg.grad(loss(), opt.params))
        opt.step(mg.grad(loss(), opt.params))

    In a game all players extrapolate before the first one steps. Without a trial, `step` is
    Adam's.

    Gidel et al.: A Variational Inequality Perspective on GANs (2018), arXiv:1802.10551.
    Parameters as for `Adam`.
    """

    records = False
    remembers = (*Adam.remembers, "start")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        self.memory["trials"] = [np.zeros(len(self.params), np.int64)]

    def extrapolate(self, grads: Gradients | None = None) -> None:
        """Go to p' for the time being. Gradients as for `step`."""
        if self.trials.any():
            raise UsageError("ExtraAdam: extrapolate was called twice", fix="call step in between")
        chosen, arrays = self._gradients(grads)
        self.counts[chosen] += 1
        self.trials[chosen] = 1
        rate = self.rate
        for i, u in zip(chosen, self.directions(chosen, arrays), strict=True):
            p = self.params[i].data
            self.memory["start"][i][...] = p
            p -= rate * u
            self.params[i].bump()

    def step(self, grads: Gradients | None = None) -> None:
        self._gradients(grads)  # a mistake shows before anything moves
        for i in np.flatnonzero(self.trials):
            self.params[i].data[...] = self.memory["start"][i]
            self.params[i].bump()
        self.trials[:] = 0
        super().step(grads)

    @property
    def trials(self) -> Array:
        """1 for each parameter that is at its p'."""
        return self.memory["trials"][0]


class Lookahead(Optimizer):
    """Every k steps of another optimizer go back a part of the way.

        slow <- slow + alpha (p - slow),   p <- slow

    Zhang et al.: Lookahead Optimizer (2019), arXiv:1907.08610; for games Chavdarova et al.: Taming
    GANs with Lookahead-Minmax (2020), arXiv:2006.14567. There all players go back at the same
    moment: the last one to step leads, the others follow.

        d = Lookahead(Adam(D.parameters()), k=None)
        g = Lookahead(Adam(G.parameters()), k=5, followers=[d])

    Parameters
    ----------
    optimizer : makes the steps; it keeps its memory when p goes back.
    k : steps between; None goes back only when a leader says so.
    alpha : share of the way that is kept, in (0, 1].
    followers : Lookahead optimizers that go back together with this one.
    """

    records = False

    def __init__(
        self,
        optimizer: Optimizer,
        k: int | None = 5,
        alpha: float = 0.5,
        followers: Sequence[Lookahead] = (),
    ) -> None:
        if (k is not None and k < 1) or not 0 < alpha <= 1:
            raise UsageError(f"Lookahead: k={k}, alpha={alpha}", fix="use k >= 1, 0 < alpha <= 1")
        self.inner = optimizer
        super().__init__(optimizer.params, optimizer.lr)
        self.k, self.alpha, self.followers = k, alpha, list(followers)
        self.memory["slow"] = [p.data.copy(order="K") for p in self.params]

    @property
    def lr(self) -> Rate:
        """The learning rate of the inner optimizer."""
        return self.inner.lr

    @lr.setter
    def lr(self, value: Rate) -> None:
        self.inner.lr = value

    def step(self, grads: Gradients | None = None) -> None:
        self.inner.step(grads)
        self.steps += 1
        if self.k is not None and self.steps % self.k == 0:
            for optimizer in (*self.followers, self):
                optimizer.go_back()

    def go_back(self) -> None:
        """slow <- slow + alpha (p - slow), p <- slow, now."""
        self._kernels.lerp_step(self.memory["slow"], [p.data for p in self.params], self.alpha)
        for p, slow in zip(self.params, self.memory["slow"], strict=True):
            p.data[...] = slow
            p.bump()

    def _state(self) -> dict[str, Array]:
        inner = {f"inner.{name}": array for name, array in self.inner._state().items()}
        return super()._state() | inner

    def _load(self, arrays: Mapping[str, Array]) -> None:
        super()._load(arrays)
        self.inner._load(
            {
                name.removeprefix("inner."): array
                for name, array in arrays.items()
                if name.startswith("inner.")
            }
        )
