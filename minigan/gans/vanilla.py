"""The first GAN: two perceptrons, one that draws and one that judges.

Goodfellow, Pouget-Abadie, Mirza, Xu, Warde-Farley, Ozair, Courville, Bengio: Generative Adversarial
Networks (2014), arXiv:1406.2661.

The idea: to learn to draw, play against somebody who learns to tell drawings from real images.

    min over G, max over D of   E log p(x) + E log(1 - p(G(z))),     p = sigmoid(D)

    L_D = -E log p(x) - E log(1 - p(G(z)))
    L_G =  E log(1 - p(G(z)))         -o loss=minimax: the same number, which G lowers and D raises
    L_G = -E log p(G(z))              -o loss=ns: the paper's advice for early training, when D is
                                      sure and the first form has no gradient left

Algorithm 1 gives D k turns (-o d_steps=k), then one to G.

Two forms of the networks:
"practical" is what today's code has: G 100 -> w, 2w, 4w, 8w -> pixels with batch norm and leaky
    ReLU, D pixels -> 4w, 2w -> 1.
"maxout" is the paper's for MNIST: z ~ U(-sqrt 3, sqrt 3)^100, G with two ReLU layers of 5w units,
    D with two maxout layers of w units out of 5 pieces each and dropout; plain gradient descent
    with momentum that grows from 0.5 to 0.7 and a rate that falls by 1/1.000004 per step. w = 240.

Where this departs from the paper: images are in [-1, 1], so G ends in tanh(a / 2) = 2 sigmoid(a)
- 1, and D sees (x + 1) / 2; G's last bias starts at 0, not at the mean image; its code halves L_D,
which is half of lr_d here.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minigan.functional as F
from minigan import nn, optim
from minigan.backend import Array
from minigan.gans.checks import check_choice
from minigan.gans.game import Player
from minigan.gans.two_player import TwoPlayer
from minigan.nn import init
from minigan.tensor import Tensor

PIECES = 5  # of a maxout unit
DECAY, LEAST_RATE = 1 / 1.000004, 1e-6  # of the rate per step
LAST_MOMENTUM, GROWING = 0.7, 125_000  # after 250 epochs of 500 steps
Shape = tuple[int, int, int]


def generator(shape: Shape, nz: int, width: int) -> nn.Sequential:
    """z -> w -> 2w -> 4w -> 8w -> images."""
    layers: list[nn.Module] = [nn.Linear(nz, width), nn.LeakyReLU(0.2)]
    for units in (width, 2 * width, 4 * width):
        layers += [nn.Linear(units, 2 * units), nn.BatchNorm1d(2 * units), nn.LeakyReLU(0.2)]
    return nn.Sequential(
        *layers, nn.Linear(8 * width, math.prod(shape)), nn.Tanh(), nn.Unflatten(1, shape)
    )


def discriminator(shape: Shape, width: int) -> nn.Sequential:
    """Images -> 4w -> 2w -> logits (N, 1)."""
    return nn.Sequential(
        nn.Flatten(),
        nn.Linear(math.prod(shape), 4 * width),
        nn.LeakyReLU(0.2),
        nn.Linear(4 * width, 2 * width),
        nn.LeakyReLU(0.2),
        nn.Linear(2 * width, 1),
    )


class MaxoutGenerator(nn.Module):
    """z -> 5w -> 5w -> images, as tanh(a / 2) = 2 sigmoid(a) - 1."""

    def __init__(self, shape: Shape, nz: int, width: int) -> None:
        units = PIECES * width
        self.shape = shape
        self.main = nn.Sequential(
            nn.Linear(nz, units),
            nn.ReLU(),
            nn.Linear(units, units),
            nn.ReLU(),
            nn.Linear(units, math.prod(shape)),
        )

    def forward(self, z: Tensor) -> Tensor:
        return F.tanh(self.main(z) * 0.5).reshape(len(z), *self.shape)


class MaxoutDiscriminator(nn.Module):
    """Images -> maxout w -> maxout w -> logits (N, 1), with dropout in front of each layer."""

    def __init__(self, shape: Shape, width: int) -> None:
        self.main = nn.Sequential(
            nn.Dropout(0.2),
            nn.Linear(math.prod(shape), PIECES * width),
            nn.Maxout(PIECES),
            nn.Dropout(0.5),
            nn.Linear(width, PIECES * width),
            nn.Maxout(PIECES),
            nn.Dropout(0.5),
            nn.Linear(width, 1),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.main((x.reshape(len(x), -1) + 1.0) * 0.5)


class Vanilla(TwoPlayer):
    """Goodfellow's game between perceptrons.

    Parameters
    ----------
    size, channels : of the images.
    nz : length of the noise vector.
    width : w of the networks above.
    form : "practical" or "maxout".
    recipe : options of `TwoPlayer`; with optimizer "sgd", rate and momentum follow the paper.
    """

    name = "vanilla"

    def __init__(
        self,
        size: int = 28,
        channels: int = 1,
        nz: int = 100,
        width: int = 128,
        form: str = "practical",
        **recipe: Any,
    ) -> None:
        check_choice("form", form, ("practical", "maxout"))
        self.form = form
        shape = (channels, size, size)
        G: nn.Module
        D: nn.Module
        if form == "practical":
            G, D = generator(shape, nz, width), discriminator(shape, width)
        else:
            G, D = MaxoutGenerator(shape, nz, width), MaxoutDiscriminator(shape, width)
            init.goodfellow_(G, 0.05)
            init.goodfellow_(D, 0.005)
        super().__init__(G, D, shape, nz, **self.recipe | recipe)

    def noise(self, rng: np.random.Generator, n: int) -> Array:
        """z ~ N(0, 1), or for "maxout" uniform with variance 1."""
        if self.form == "practical":
            return super().noise(rng, n)
        uniform = 2 * rng.random((n, self.nz), dtype=np.float32) - 1
        return np.float32(math.sqrt(3)) * uniform

    def player(
        self, name: str, net: nn.Module, losses: Any, lr: float, beta1: float, repeats: int = 1
    ) -> Player:
        """With "sgd": lr falls with every step, momentum grows from beta1."""
        made = super().player(name, net, losses, lr, beta1, repeats)
        if isinstance(made.optimizer, optim.SGD) and beta1:
            made.optimizer.lr = lambda t: max(lr * DECAY**t, LEAST_RATE)
            grown = max(LAST_MOMENTUM - beta1, 0.0)
            made.optimizer.momentum = lambda t: beta1 + grown * min(1.0, t / GROWING)
        return made
