"""Penalties on D's gradient with respect to its input: what keeps D smooth.

    g(x) = d/dx sum over the batch of D(x)      row n is the gradient of D(x_n), as long as D
                                                treats every sample by itself
    |g|  = sqrt(sum over C,H,W of g^2 + eps)    one number per sample

    "gp"             weight E (|g(x^)| - 1)^2            x^ = a x + (1 - a) G(z), a ~ U(0, 1)
    "gp-one-sided"   weight E max(0, |g(x^)| - 1)^2      the same x^
    "dragan"         weight E (|g(x')| - 1)^2            x' = x + std(x) / 2 u, u ~ U(0, 1)
    "r1"             weight / 2 E |g(x)|^2               x real
    "r2"             weight / 2 E |g(G(z))|^2
    "zero-centred"   both of them
    "wgan-div"       weight / 2 E |g|^p, p = 6, at x and at G(z)
    "drift"          weight E D(x)^2                     no gradient in it

D is a function of images that gives logits: a closure for conditional ones. It is the logits that
are differentiated, before any softplus or sigmoid. The gradients are taken with create_graph, so
each penalty has gradients itself with respect to everything inside D.

    gp = penalty("gp")
    gp(D, real, fake, feed=self.feed)         {"loss_gp": ...}
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from dataclasses import dataclass, field
from typing import Any, NamedTuple

from minigan import random
from minigan.autograd import grad, reachable
from minigan.errors import GraphError, ShapeError, UsageError, did_you_mean
from minigan.ops.activation import relu
from minigan.ops.norm import Norm
from minigan.ops.reduce import norm
from minigan.regularizers import (
    EPS,
    Feed,
    Losses,
    PathLength,
    clip_weights,
    feed_beside,
    orthogonal,
)
from minigan.tensor import Tensor

__all__ = [
    "PENALTIES", "PathLength", "Penalty", "clip_weights", "orthogonal", "penalty",
]  # fmt: skip

Critic = Callable[[Tensor], Tensor]


# Gradients with respect to images ----------------------------------------------------------------


def input_gradient(critic: Critic, x: Tensor) -> Tensor:
    """d/dx sum D(x) at the points x, which are taken as constants; it can be differentiated."""
    point = x.detach()
    point.requires_grad = True
    logits = critic(point)
    if logits.node is None:
        g = None
    else:
        (g,) = grad(logits.sum(), point, create_graph=True)
    if g is None:
        raise GraphError(
            "penalty: what the critic returned does not depend on the images it was given",
            why="the penalty is about the gradient of its logits with respect to them",
            fix="check the critic for detach, no_grad, or another tensor than its argument",
        )
    return g


def lengths(g: Tensor) -> Tensor:
    """|g| of each sample, (N,), over all its other axes."""
    return norm(g, axis=tuple(range(1, g.ndim)), eps=EPS)


def squares(g: Tensor) -> Tensor:
    """|g|^2 of each sample, (N,)."""
    return g.square().sum(axis=tuple(range(1, g.ndim)))


def between(real: Tensor, fake: Tensor, feed: Feed) -> Tensor:
    """a x + (1 - a) G(z) with one a ~ U(0, 1) for each sample."""
    if real.shape != fake.shape:
        raise ShapeError(
            f"penalty 'gp': {real.shape} real images and {fake.shape} fakes",
            why="it looks at points between a real image and a fake",
            fix="use batches of one size",
        )
    shape, dtype = (real.shape[0], *[1] * (real.ndim - 1)), real.dtype
    a = feed(lambda: random.draw("penalty").random(shape, dtype))
    return real.detach() * a + fake.detach() * (1.0 - a)


def around(real: Tensor, feed: Feed) -> Tensor:
    """x + std(x) / 2 u with u ~ U(0, 1) for each pixel, std over the whole batch."""
    x, shape, dtype = real.detach(), real.shape, real.dtype
    u = feed(lambda: random.draw("penalty").random(shape, dtype))
    return x + u * (x.std(keepdims=True, correction=0) * 0.5)


class Critics(NamedTuple):
    """D as it judges real images, and as it judges fakes."""

    of_real: Critic
    of_fake: Critic


# The penalties, without weights ------------------------------------------------------------------


def gp(D: Critics, real: Tensor, fake: Tensor, feed: Feed) -> Losses:
    """E (|g(x^)| - 1)^2. Gulrajani et al. (2017), arXiv:1704.00028, equation 3; weight 10."""
    n = lengths(input_gradient(D.of_real, between(real, fake, feed)))
    return {"loss_gp": (n - 1.0).square().mean()}


def gp_one_sided(D: Critics, real: Tensor, fake: Tensor, feed: Feed) -> Losses:
    """E max(0, |g(x^)| - 1)^2: shorter gradients are fine. Section 4 there; weight 10."""
    n = lengths(input_gradient(D.of_real, between(real, fake, feed)))
    return {"loss_gp": relu(n - 1.0).square().mean()}


def dragan(D: Critics, real: Tensor, fake: Tensor, feed: Feed) -> Losses:
    """E (|g(x')| - 1)^2 around real images. Kodali et al. (2017), arXiv:1705.07215; weight 10."""
    n = lengths(input_gradient(D.of_real, around(real, feed)))
    return {"loss_dragan": (n - 1.0).square().mean()}


def r1(D: Critics, real: Tensor, fake: Tensor, feed: Feed) -> Losses:
    """1/2 E |g(x)|^2. Mescheder et al. (2018), arXiv:1801.04406, equation 9; gamma is the weight.

    StyleGAN has this half and gamma = 10. GAN_stability has reg = 10 without it: gamma = 20.
    """
    return {"loss_r1": squares(input_gradient(D.of_real, real)).mean() * 0.5}


def r2(D: Critics, real: Tensor, fake: Tensor, feed: Feed) -> Losses:
    """1/2 E |g(G(z))|^2, equation 10 there."""
    return {"loss_r2": squares(input_gradient(D.of_fake, fake)).mean() * 0.5}


def zero_centred(D: Critics, real: Tensor, fake: Tensor, feed: Feed) -> Losses:
    """R1 and R2."""
    return r1(D, real, fake, feed) | r2(D, real, fake, feed)


def wgan_div(D: Critics, real: Tensor, fake: Tensor, feed: Feed) -> Losses:
    """1/2 E |g(x)|^6 + 1/2 E |g(G(z))|^6. Wu et al. (2017), arXiv:1712.01026; weight k = 2."""
    at_real, at_fake = input_gradient(D.of_real, real), input_gradient(D.of_fake, fake)
    return {"loss_div": ((squares(at_real) ** 3).mean() + (squares(at_fake) ** 3).mean()) * 0.5}


def drift(D: Critics, real: Tensor, fake: Tensor, feed: Feed) -> Losses:
    """E D(x)^2: a Wasserstein loss alone lets D float away. ProGAN, appendix A.1; 0.001."""
    return {"loss_drift": D.of_real(real.detach()).square().mean()}


def none(D: Critics, real: Tensor, fake: Tensor, feed: Feed) -> Losses:
    """No penalty."""
    return {}


# name -> (function, weight where none is given)
PENALTIES: dict[str, tuple[Callable[[Critics, Tensor, Tensor, Feed], Losses], float]] = {
    "none": (none, 0.0),
    "gp": (gp, 10.0),
    "gp-one-sided": (gp_one_sided, 10.0),
    "dragan": (dragan, 10.0),
    "r1": (r1, 10.0),
    "r2": (r2, 10.0),
    "zero-centred": (zero_centred, 10.0),
    "wgan-div": (wgan_div, 2.0),
    "drift": (drift, 1e-3),
}


@dataclass
class Penalty:
    """A penalty with its weight; `penalty(name)` makes one.

    Attributes
    ----------
    name : a key of `PENALTIES`.
    weight : factor of the formula at the head of this file.
    every : lazy application: the penalty is due at every so many steps, and counts so many times
        as much then. `minigan.optim.adam.lazy` adapts the optimizer.
    feed : the game's `feed`: random numbers come through it, so that a recorded step draws new
        ones. Without it they come from the same stream.
    checked : whether D was looked at for batch norm.
    """

    name: str
    weight: float
    every: int = 1
    feed: Feed | None = None
    checked: bool = field(default=False, repr=False)

    def due(self, step: int) -> bool:
        """Whether step number `step` (from 0) has it; the game's `phase` must tell."""
        return self.name != "none" and step % self.every == 0

    def __call__(
        self,
        critic: Critic,
        real: Tensor,
        fake: Tensor,
        feed: Feed | None = None,
        *,
        of_fake: Critic | None = None,
    ) -> Losses:
        """The terms to add to L_D.

        Parameters
        ----------
        critic : images -> logits, one per image or a map, whose logits are summed.
        real, fake : images (N, ...). Only their values count: no gradient reaches G.
        feed : instead of the one from construction.
        of_fake : the critic of fakes, where that is another function: a D that is told the class
            of each image. `critic` is told those of the reals, at points between both too.

        Warns
        -----
        UserWarning
            once, when D normalises over the batch.
        """
        both = Critics(critic, of_fake or critic)
        if not self.checked:
            both = Critics(*map(self._look_for_batch_norm, both))
        terms = PENALTIES[self.name][0](both, real, fake, feed or self.feed or feed_beside(real))
        return {key: term * (self.weight * self.every) for key, term in terms.items()}

    def _look_for_batch_norm(self, critic: Critic) -> Critic:
        """The critic, looking once at what it consists of."""

        def look(x: Tensor) -> Tensor:
            logits = critic(x)
            if not self.checked:
                self.checked = True
                if couples_samples(x, logits):
                    warn_of_batch_norm(self.name)
            return logits

        return look


def penalty(
    name: str, weight: float | None = None, every: int = 1, feed: Feed | None = None
) -> Penalty:
    """Make the penalty of that name: a key of `PENALTIES`.

    Parameters
    ----------
    weight : its usual one by default: 10 for gradient penalties, and for gamma of R1 and R2.
    every, feed : see `Penalty`.
    """
    if name not in PENALTIES:
        raise UsageError(
            f"unknown penalty '{name}'{did_you_mean(name, PENALTIES)}",
            fix=f"use one of {', '.join(PENALTIES)}",
        )
    if every < 1:
        raise UsageError(f"penalty '{name}': every must be at least 1, not {every}")
    chosen = PENALTIES[name][1] if weight is None else float(weight)
    if chosen < 0:
        raise UsageError(f"penalty '{name}': weight must not be negative, not {weight}")
    return Penalty(name, chosen, every, feed)


def couples_samples(x: Tensor, logits: Tensor) -> bool:
    """Whether a norm on the way from x to the logits averages over the batch axis."""
    if x.node is None or logits.node is None:
        return False
    nodes: list[Any] = reachable([logits.node], x.node.seq)
    return any(isinstance(node, Norm) and 0 in node.axes for node in nodes)


def warn_of_batch_norm(name: str) -> None:
    warnings.warn(
        f"penalty '{name}': D has a batch norm, through which the logit of one sample depends on "
        "all others; what is penalised then is not the gradient of D at each sample. Use instance, "
        "layer or spectral norm in D, or none",
        stacklevel=6,
    )
