"""InfoGAN: codes that G must leave readable in its images come to mean something.

Chen, Duan, Houthooft, Schulman, Sutskever, Abbeel: InfoGAN (2016), arXiv:1606.03657.

A part of G's noise is a code c, and the information that G's images carry about it is to be large.
A network Q that guesses c from the image gives a lower bound of this mutual information (section 5
of the paper):

    L_I = E log Q(c | G(z, c)) + H(c)  <=  I(c; G(z, c))         in nats

    c = one of `categories`, and `codes` numbers U(-1, 1)
    H(c) = log(categories) + codes log 2
    log Q = log softmax(a)[category] + sum over codes of log N(c; mu, sigma)     (a, mu, sigma of x)

    L_D = BCE(D(x), 1) + BCE(D(G(z, c)), 0) - L_I
    L_G = BCE(D(G(z, c)), 1) - L_I

with the weight lambda_cat in front of the category's part of -L_I and lambda_code in front of the
numbers'. D and Q share a trunk, so all but one small layer comes for free. Nobody tells what the
codes shall mean: on digits the category mostly finds the ten digits, the numbers slant and width.

The noise that `sample` takes is z, the one-hot category and the numbers, one after another.

Where this departs from the paper: the networks are DCGAN's; Q has no layer of its own between the
trunk and its outputs. As in the paper G learns five times as fast as D: at equal rates it writes
the codes into strokes that mean nothing, which Q reads just as well.
"""

from __future__ import annotations

import math
from typing import Any, ClassVar

import numpy as np

import minigan.functional as F
from minigan import nn, random
from minigan.backend import Array
from minigan.gans import dcgan
from minigan.gans.acgan import trunk
from minigan.gans.checks import check_classes
from minigan.gans.two_player import Losses, TwoPlayer
from minigan.nn import init
from minigan.tensor import Tensor


class Discriminator(nn.Module):
    """Images -> logits (N,) of D and (a, mu, log sigma) of Q: (N, categories), twice (N, codes)."""

    def __init__(self, size: int, channels: int, width: int, categories: int, codes: int) -> None:
        self.trunk, features = trunk(size, channels, width)
        self.real = nn.Linear(features, 1)
        self.Q = nn.Linear(features, categories + 2 * codes)
        self.sizes = [categories, codes, codes]

    def forward(self, x: Tensor) -> tuple[Tensor, list[Tensor]]:
        h = self.trunk(x)
        return self.real(h).reshape(x.shape[0]), F.split(self.Q(h), self.sizes, axis=1)


class InfoGAN(TwoPlayer):
    """DCGAN with readable codes.

    Parameters
    ----------
    size, channels : of the images.
    nz : length of the noise that nobody has to read.
    categories : values of the categorical code.
    codes : how many continuous codes there are.
    width : feature maps next to the image.
    lambda_cat, lambda_code : weights of the two parts of L_I.
    options : see `TwoPlayer`.
    """

    name = "infogan"
    recipe: ClassVar[dict[str, Any]] = {"previews": 100, "lr": 1e-3}

    def __init__(
        self,
        size: int = 28,
        channels: int = 1,
        nz: int = 62,
        categories: int = 10,
        codes: int = 2,
        width: int = 32,
        lambda_cat: float = 1.0,
        lambda_code: float = 0.1,
        **options: Any,
    ) -> None:
        self.categories, self.codes = categories, codes
        self.lambda_cat, self.lambda_code = lambda_cat, lambda_code
        G = dcgan.Generator(size, channels, nz + categories + codes, width)
        D = Discriminator(size, channels, width, categories, codes)
        init.dcgan_(G)
        init.dcgan_(D)
        shape = (channels, size, size)
        super().__init__(G, D, shape, nz, **self.recipe | options)

    # Codes ---------------------------------------------------------------------------------------

    def noise(self, rng: np.random.Generator, n: int) -> Array:
        """z, a one-hot category and the numbers: (n, nz + categories + codes)."""
        z = rng.standard_normal((n, self.nz), dtype=np.float32)
        category = np.eye(self.categories, dtype=np.float32)[rng.integers(0, self.categories, n)]
        numbers = rng.uniform(-1, 1, (n, self.codes)).astype(np.float32)
        return np.concatenate([z, category, numbers], axis=1)

    def generate(self, z: Tensor, y: Tensor | None = None, net: nn.Module | None = None) -> Tensor:
        """G(z, c); c is remembered for Q's turn."""
        _, self.category, self.numbers = F.split(z, [self.nz, self.categories, self.codes], axis=1)
        return super().generate(z, y, net)

    # Losses --------------------------------------------------------------------------------------

    def judge(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """D(x). What Q reads in x goes into `read`, in the order of looking."""
        logits, guess = self.D(x)
        self.read.append(guess)
        return logits

    def d_losses(self) -> Losses:
        """L_D: the fakes are what D sees second, or the latter half if joint."""
        self.read: list[list[Tensor]] = []
        losses = super().d_losses()
        if self.joint:
            return losses | self.information([part[-len(self.category) :] for part in self.read[0]])
        return losses | self.information(self.read[1])

    def g_losses(self) -> Losses:
        """L_G: the fakes are what D sees first."""
        self.read = []
        losses = super().g_losses()
        return losses | self.information(self.read[0])

    def information(self, guess: list[Tensor]) -> Losses:
        """The parts of -L_I without H(c), weighted; logs L_I, and how often the category is read.

        -log N(c; mu, sigma) = ((c - mu) / sigma)^2 / 2 + log sigma + log(2 pi) / 2
        """
        a, mu, log_sigma = guess
        log_sigma = log_sigma.clamp(-3.0, 3.0)  # a sure and wrong Q would throw G about
        cat = -(self.category * F.log_softmax(a, 1)).sum(axis=1).mean()
        squares = ((self.numbers - mu) * (-log_sigma).exp()).square()
        code = (squares * 0.5 + log_sigma + 0.5 * math.log(2 * math.pi)).sum(axis=1).mean()
        entropy = math.log(self.categories) + self.codes * math.log(2)
        self.log["mutual_information"] = entropy - (cat + code).detach()
        return {"loss_cat": cat * self.lambda_cat, "loss_code": code * self.lambda_code}

    # Pictures ------------------------------------------------------------------------------------

    def fix_previews(self, count: int) -> None:
        """One noise in each row, one category in each column; and walks along the numbers."""
        rng = random.draw("preview")
        side = math.ceil(count**0.5)
        place = np.arange(count) % side
        rows = self.noise(rng, side).repeat(side, axis=0)[:count]
        self.fixed_noise = self.with_category(rows, place % self.categories)
        self.fixed_classes = None
        self.walks = {}
        for code in range(self.codes):  # one category in each row, from -2 to 2 along it
            line = self.noise(rng, 1).repeat(count, axis=0)
            line = self.with_category(line, np.arange(count) // side % self.categories)
            line[:, self.nz + self.categories + code] = np.linspace(-2, 2, side)[place]
            self.walks[f"code-{code + 1}"] = line

    def preview(self) -> dict[str, Array]:
        return super().preview() | {name: self.sample(z) for name, z in self.walks.items()}

    def sample(
        self, z: Array, *, net: str = "ema", labels: Array | None = None, mode: str | None = None
    ) -> Array:
        """Images for noise z, in which `labels` replace the category if they are given."""
        if labels is not None:
            labels = np.asarray(labels)
            check_classes(labels, self.categories, self.name)
            z = self.with_category(z, labels)
        return super().sample(z, net=net, mode=mode)

    def with_category(self, z: Array, labels: Array) -> Array:
        """The same noise with other categories."""
        z = z.copy()
        z[:, self.nz : self.nz + self.categories] = np.eye(self.categories)[labels]
        return z
