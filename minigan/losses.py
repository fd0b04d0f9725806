"""Adversarial losses in one normal form (and, from `minigan.reconstruction`, the other ones).

D gives logits t: any real numbers, one per image or a map of them per image (PatchGAN). Every
adversarial loss is three curves over logits, one for each kind of sample and player:

    L_D = d_scale (E f_real(D(x)) + E f_fake(D(G(z)))),   L_G = E f_g(D(G(z)))

with x real and z noise; E is the mean over everything, patches included. Both are minimised.
`adversarial(name)` makes one; a game feeds it what D said:

    loss = adversarial("hinge")
    loss.d(D(real), D(fake.detach()))     {"loss_d_real": ..., "loss_d_fake": ...}
    loss.g(D(fake))                       {"loss_g": ...}

The detach is the game's business: it keeps D's turn from computing gradients of G. Codes differ in
whether they halve L_D (PyTorch-GAN, pix2pix and CycleGAN in PyTorch do; DCGAN, SNGAN, SPADE and
StyleGAN do not): that is `d_scale`, 1 or 0.5. A gradient penalty and the loss must agree on it.
"""

from __future__ import annotations

import inspect
import warnings
from abc import ABC, abstractmethod
from typing import Any

import numpy as np

from minigan.backend import Array
from minigan.errors import ShapeError, UsageError, did_you_mean
from minigan.ops.activation import Sigmoid
from minigan.ops.loss import (
    binary_cross_entropy_with_logits,
    hinge_loss,
    mse_loss,
    softplus_loss,
)
from minigan.ops.reduce import Mean
from minigan.ops.shape import Index, Reshape, Transpose
from minigan.reconstruction import consistency, feature_matching, kl, l1, total_variation
from minigan.tensor import Tensor

__all__ = [
    "ADVERSARIAL", "AdversarialLoss", "Hinge", "LeastSquares", "Minimax", "NonSaturating",
    "Relativistic", "RelativisticAverage", "Wasserstein", "adversarial", "consistency",
    "feature_matching", "kl", "l1", "noisy_targets", "total_variation",
]  # fmt: skip

Losses = dict[str, Tensor]
Target = Tensor | float

PATIENCE = 20  # batches of nothing but numbers in [0, 1] before they are taken for probabilities


class AdversarialLoss(ABC):
    """Base of the adversarial losses: what D minimises in its turn, and G in its own.

    Parameters
    ----------
    d_scale : factor of L_D: 1, or 0.5 where a code halves the sum of both terms.

    Attributes
    ----------
    needs_real : whether `g` wants the logits of real images too.
    """

    name: str
    needs_real = False
    zero_is_doubt = False  # whether logits fall on both sides of 0
    between = 0  # batches in a row with all logits in [0, 1]

    def __init__(self, d_scale: float = 1.0) -> None:
        self.d_scale = float(d_scale)

    def d(self, real: Tensor, fake: Tensor, targets: tuple[Target, Target] | None = None) -> Losses:
        """The terms of L_D from the logits of real images and of fakes; minimise their sum.

        Parameters
        ----------
        real, fake : D(x) and D(G(z)), of shape (N,), (N,1,h,w) or any other.
        targets : for real and for fake, instead of the loss's own: numbers, or Tensors shaped like
            the logits. Only losses with targets take them ("ns", "minimax", "lsgan").

        Raises
        ------
        UsageError
            when a sigmoid made the logits.

        Warns
        -----
        UserWarning
            once, when all of them lay in [0, 1] for 20 batches (looked at on the CPU only).
        """
        self._refuse_sigmoid(real, fake)
        self._watch(real, fake)
        if targets is None:
            terms = self.d_terms(real, fake)
        else:
            terms = self.d_against(real, fake, targets)
        return terms if self.d_scale == 1 else {k: v * self.d_scale for k, v in terms.items()}

    def g(self, fake: Tensor, real: Tensor | None = None) -> Losses:
        """L_G from the logits of fakes; relativistic losses compare them with the real ones."""
        if self.needs_real and real is None:
            raise UsageError(
                f"{type(self).__name__}: g needs the logits of real images too",
                why="a relativistic generator is judged against the real batch",
                fix="call loss.g(D(fake), D(real)); loss.needs_real says when",
            )
        self._refuse_sigmoid(fake)
        return {"loss_g": self.g_term(fake, real)}

    @abstractmethod
    def d_terms(self, real: Tensor, fake: Tensor) -> Losses:
        """E f_real(real) and E f_fake(fake), not yet times d_scale."""

    def d_against(self, real: Tensor, fake: Tensor, targets: tuple[Target, Target]) -> Losses:
        """The same with other targets."""
        raise UsageError(
            f"{type(self).__name__}: this loss has no targets",
            fix="targets go with the losses 'ns', 'minimax' and 'lsgan'",
        )

    @abstractmethod
    def g_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        """E f_g(fake)."""

    def _refuse_sigmoid(self, *logits: Tensor) -> None:
        if any(map(made_by_sigmoid, logits)):
            raise UsageError(
                f"{type(self).__name__}: D ends with a sigmoid",
                why="adversarial losses take logits, which are any real numbers; behind a sigmoid "
                "D can never be sure of anything, and its gradients fade",
                fix="let D return what its last linear or convolution layer gives",
            )

    def _watch(self, real: Tensor, fake: Tensor) -> None:
        """Warn once of numbers that never leave [0, 1]: they look like probabilities.

        A few such batches are normal at the beginning, before D tells real from fake. Numbers of
        a device are not looked at: that would mean to wait for them.
        """
        on_cpu = isinstance(real.data, np.ndarray) and isinstance(fake.data, np.ndarray)
        if self.between >= PATIENCE or not (self.zero_is_doubt and on_cpu):
            return
        inside = all(t.data.min() >= 0 and t.data.max() <= 1 for t in (real, fake) if t.size)
        self.between = self.between + 1 if inside else 0
        if self.between == PATIENCE:  # and never again
            warnings.warn(
                f"{type(self).__name__}: for {PATIENCE} batches all that D said of real images "
                "and of fakes lay in [0, 1], as probabilities do; losses take logits, which are "
                "negative for fakes: leave out the sigmoid at the end of D",
                stacklevel=3,
            )


class NonSaturating(AdversarialLoss):
    """The loss of nearly every GAN: cross-entropy for D, and for G with the labels swapped.

    L_D = E sp(-D(x)) + E sp(D(G(z))) = -E log p(x) - E log(1 - p(G(z))),   p = sigmoid(D)
    L_G = E sp(-D(G(z))) = -E log p(G(z))                                   sp = softplus

    Not halved. dL_G/dt = -sigmoid(-t), which is largest when D is sure that the fakes are fake.
    "Swap the labels when training G" means this L_G; doing it here again would undo it.

    Goodfellow et al. (2014), section 3; the "logistic loss" of StyleGAN.

    Parameters
    ----------
    smoothing : s moves the target of real images from 1 to 1 - s: one-sided label smoothing
        (Salimans et al. 2016, s = 0.1). Fakes keep 0, and G keeps 1: a smoothed target there
        would reward G for staying near its present fakes.
    d_scale : see `AdversarialLoss`.
    """

    name = "ns"
    zero_is_doubt = True

    def __init__(self, smoothing: float = 0.0, d_scale: float = 1.0) -> None:
        super().__init__(d_scale)
        self.smoothing = _checked(smoothing)

    def d_terms(self, real: Tensor, fake: Tensor) -> Losses:
        if self.smoothing:
            loss_real = binary_cross_entropy_with_logits(real, 1.0 - self.smoothing)
        else:
            loss_real = softplus_loss(real, True)
        return {"loss_d_real": loss_real, "loss_d_fake": softplus_loss(fake, False)}

    def d_against(self, real: Tensor, fake: Tensor, targets: tuple[Target, Target]) -> Losses:
        return {
            "loss_d_real": binary_cross_entropy_with_logits(real, targets[0]),
            "loss_d_fake": binary_cross_entropy_with_logits(fake, targets[1]),
        }

    def g_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return softplus_loss(fake, True)


class Minimax(NonSaturating):
    """The game as the first paper defines it: G maximises what D minimises.

    L_D as in `NonSaturating`,   L_G = -E sp(D(G(z))) = E log(1 - p(G(z)))

    Not halved. It saturates: dL_G/dt = -sigmoid(t) vanishes when D is sure (at D = -8 it is 1/2981
    of the non-saturating one). Goodfellow et al. (2014), equation 1. Parameters as there.
    """

    name = "minimax"

    def g_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return -softplus_loss(fake, False)


class LeastSquares(AdversarialLoss):
    """LSGAN: squared distances to targets instead of cross-entropy.

    L_D = scale (E (D(x) - b)^2 + E (D(G(z)) - a)^2),   L_G = scale E (D(G(z)) - c)^2

    Halved as in the paper: scale = 1/2. pix2pix and CycleGAN have scale = 1 and d_scale = 1/2.
    D must not end with a sigmoid, which would bound it and kill its gradient.

    Mao et al. (2016), arXiv:1611.04076. With b - c = 1, b - a = 2 it minimises a Pearson chi^2
    divergence: targets (-1, 1, 0).

    Parameters
    ----------
    targets : a, b, c: for fakes, for real images, and for fakes when G plays.
    scale : factor of both losses.
    smoothing : takes that from b: 0.1 means 0.9 for real images.
    d_scale : see `AdversarialLoss`.
    """

    name = "lsgan"

    def __init__(
        self,
        targets: tuple[float, float, float] = (0.0, 1.0, 1.0),
        scale: float = 0.5,
        smoothing: float = 0.0,
        d_scale: float = 1.0,
    ) -> None:
        super().__init__(d_scale)
        self.a, self.b, self.c = (float(t) for t in targets)
        self.b -= _checked(smoothing)
        self.scale = float(scale)

    def d_terms(self, real: Tensor, fake: Tensor) -> Losses:
        return self.d_against(real, fake, (self.b, self.a))

    def d_against(self, real: Tensor, fake: Tensor, targets: tuple[Target, Target]) -> Losses:
        return {
            "loss_d_real": mse_loss(real, targets[0]) * self.scale,
            "loss_d_fake": mse_loss(fake, targets[1]) * self.scale,
        }

    def g_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return mse_loss(fake, self.c) * self.scale


class Wasserstein(AdversarialLoss):
    """WGAN: the critic estimates the distance between real and fake images, G shortens it.

    L_D = -E D(x) + E D(G(z)),   L_G = -E D(G(z))

    Not halved. -L_D is the estimate, E D(x) - E D(G(z)), as long as D is Lipschitz: needs weight
    clipping, a gradient penalty, or spectral norms. (The authors' code has both signs mirrored,
    which only turns the curves upside down.) Arjovsky et al. (2017), arXiv:1701.07875.
    """

    name = "wgan"

    def d_terms(self, real: Tensor, fake: Tensor) -> Losses:
        return {"loss_d_real": -real.mean(), "loss_d_fake": fake.mean()}

    def g_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return -fake.mean()


class Hinge(AdversarialLoss):
    """The hinge of support vector machines: D stops caring about samples beyond its margin.

    L_D = E max(0, 1 - D(x)) + E max(0, 1 + D(G(z))),   L_G = -E D(G(z))

    Not halved. There is no hinge in L_G: it would stop the gradient of G's good samples.
    Lim and Ye (2017), arXiv:1705.02894; SNGAN, SAGAN, BigGAN, SPADE.
    """

    name = "hinge"
    zero_is_doubt = True

    def d_terms(self, real: Tensor, fake: Tensor) -> Losses:
        return {"loss_d_real": hinge_loss(real, True), "loss_d_fake": hinge_loss(fake, False)}

    def g_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        return -fake.mean()


class Relativistic(AdversarialLoss):
    """D says how much more real x is than G(z); the i-th real image meets the i-th fake.

    L_D = E sp(-(D(x) - D(G(z)))),   L_G = E sp(D(x) - D(G(z)))

    Not halved. L_G depends on the real batch: an implementation that forgets it has silently
    become `NonSaturating`. Jolicoeur-Martineau (2018), arXiv:1807.00734, section 4.1.
    """

    name = "relativistic"
    needs_real = True

    def d_terms(self, real: Tensor, fake: Tensor) -> Losses:
        self._check_pairs(real, fake)
        return {"loss_d_pairs": softplus_loss(real - fake, True)}

    def g_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        assert real is not None
        self._check_pairs(real, fake)
        return softplus_loss(real - fake, False)

    def _check_pairs(self, real: Tensor, fake: Tensor) -> None:
        if real.shape != fake.shape:
            raise ShapeError(
                f"{type(self).__name__}: {real.shape} real logits and {fake.shape} fake ones",
                why="each real image is paired with one fake",
                fix="use batches of one size, or the loss 'relativistic-average'",
            )


class RelativisticAverage(Relativistic):
    """D says how much more real an image is than the average of the other kind.

    r(x) = D(x) - E D(G(z)),   r(G(z)) = D(G(z)) - E D(x)
    L_D = E sp(-r(x)) + E sp(r(G(z))),   L_G = E sp(r(x)) + E sp(-r(G(z)))

    Not halved (ESRGAN halves both). Averages run over everything, patches included, and carry
    gradients. Jolicoeur-Martineau (2018), arXiv:1807.00734, section 4.2.
    """

    name = "relativistic-average"

    def d_terms(self, real: Tensor, fake: Tensor) -> Losses:
        r_real, r_fake = real - _average(fake, real), fake - _average(real, fake)
        return {
            "loss_d_real": softplus_loss(r_real, True),
            "loss_d_fake": softplus_loss(r_fake, False),
        }

    def g_term(self, fake: Tensor, real: Tensor | None) -> Tensor:
        assert real is not None
        r_real, r_fake = real - _average(fake, real), fake - _average(real, fake)
        return softplus_loss(r_real, False) + softplus_loss(r_fake, True)


ADVERSARIAL: dict[str, type[AdversarialLoss]] = {
    loss.name: loss
    for loss in (
        Minimax, NonSaturating, LeastSquares, Wasserstein, Hinge, Relativistic, RelativisticAverage,
    )
}  # fmt: skip


def adversarial(name: str, **options: Any) -> AdversarialLoss:
    """Make the adversarial loss of that name: a key of `ADVERSARIAL`.

    Parameters
    ----------
    options : of the class: `d_scale` for all, `smoothing` for "ns", "minimax" and "lsgan",
        `targets` and `scale` for "lsgan".
    """
    if name not in ADVERSARIAL:
        raise UsageError(
            f"unknown adversarial loss '{name}'{did_you_mean(name, ADVERSARIAL)}",
            fix=f"use one of {', '.join(ADVERSARIAL)}",
        )
    known = list(inspect.signature(ADVERSARIAL[name]).parameters)
    for key in options:
        if key not in known:
            raise UsageError(
                f"loss '{name}' has no option '{key}'{did_you_mean(key, known)}",
                fix=f"options are {', '.join(known)}",
            )
    return ADVERSARIAL[name](**options)


def noisy_targets(
    rng: np.random.Generator,
    shape: tuple[int, ...],
    low: float,
    high: float,
    flip: float = 0.0,
    dtype: Any = np.float32,
) -> Array:
    """Targets U(low, high) for D's turn, of which the share `flip` becomes 1 - target.

    A folk remedy against a D that wins too soon: U(0.7, 1.2) for real images and flip = 0.05, 0 for
    fakes; never for G. Above 1, cross-entropy has no minimum, so that D grows without bound.

        y = self.feed(lambda: noisy_targets(random.draw("targets"), shape, 0.7, 1.0, 0.05))
        loss.d(real, fake, targets=(y, 0.0))
    """
    y = rng.uniform(low, high, shape)
    return np.where(rng.random(shape) < flip, 1 - y, y).astype(dtype)


def made_by_sigmoid(t: Tensor) -> bool:
    """Whether a sigmoid is the last thing that was done to t, up to its shape and a mean."""
    node: Any = t.node
    while isinstance(node, Reshape | Transpose | Index | Mean) and node.parents:
        node = node.parents[0]
    return isinstance(node, Sigmoid) or getattr(node, "activation", "") == "sigmoid"


def _checked(smoothing: float) -> float:
    if not 0 <= smoothing < 0.5:
        raise UsageError(
            f"smoothing {smoothing} is not in [0, 0.5)",
            fix="0.1 moves the target of real images from 1 to 0.9",
        )
    return float(smoothing)


def _average(t: Tensor, like: Tensor) -> Tensor:
    """The mean over everything, with as many axes as `like`."""
    return t.mean().reshape((1,) * like.ndim)
