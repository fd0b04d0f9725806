"""A GAN that plays hundreds of steps a second: two small networks of linear layers, 8x8 images.

It has one of everything that a checkpoint must bring back: parameters, running statistics, two
optimizers, a moving average, and random draws in both turns.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import minigan.functional as F
from minigan import autograd, nn, optim, random
from minigan.data import Batches, Dataset
from minigan.gans.game import Game, Player
from minigan.tensor import Tensor

SIDE, NOISE = 8, 4


class Toy(Game):
    """G: z -> linear, batch norm, linear, tanh.  D: image -> linear, dropout, linear."""

    name = "toy"

    def __init__(self, lr: float = 1e-3, repeats: int = 1) -> None:
        self.image_shape = (1, SIDE, SIDE)
        self.options = {"lr": lr, "repeats": repeats}
        self.G = nn.Sequential(
            nn.Linear(NOISE, 16), nn.BatchNorm1d(16), nn.ReLU(), nn.Linear(16, SIDE * SIDE)
        )
        self.D = nn.Sequential(
            nn.Linear(SIDE * SIDE, 16), nn.LeakyReLU(0.2), nn.Dropout(0.1), nn.Linear(16, 1)
        )
        self.networks = {"G": self.G, "D": self.D}
        self.ema = {"G": optim.EMA(self.G, 0.9)}
        self.players = [
            self.player("D", self.D, self.d_losses, lr, repeats),
            self.player("G", self.G, self.g_losses, lr, 1),
        ]
        self.log = {}
        self.fixed_noise = self.noise(random.draw("preview"), 16)

    @staticmethod
    def player(name: str, net: nn.Module, losses: Any, lr: float, repeats: int) -> Player:
        parameters = list(net.parameters())
        return Player(name, parameters, optim.Adam(parameters, lr), losses, repeats)

    def start(self, batch: Any) -> None:
        self.real = Tensor(batch.images.reshape(len(batch.images), -1))

    def fake(self) -> Tensor:
        z = self.noise(random.draw("z"), len(self.real))
        return F.tanh(self.G(Tensor(z)))

    def d_losses(self) -> dict[str, Tensor]:
        real, fake = self.D(self.real), self.D(self.fake().detach())
        self.log["d_real"] = float((1 / (1 + np.exp(-real.data))).mean())
        self.log["d_fake"] = float((1 / (1 + np.exp(-fake.data))).mean())
        return {
            "loss_d_real": F.binary_cross_entropy_with_logits(real, 1.0),
            "loss_d_fake": F.binary_cross_entropy_with_logits(fake, 0.0),
        }

    def g_losses(self) -> dict[str, Tensor]:
        return {"loss_g": F.binary_cross_entropy_with_logits(self.D(self.fake()), 1.0)}

    def noise(self, rng: np.random.Generator, n: int) -> np.ndarray[Any, Any]:
        return rng.standard_normal((n, NOISE), dtype=np.float32)

    def preview(self) -> dict[str, np.ndarray[Any, Any]]:
        return {
            "fakes": self.sample(self.fixed_noise, net="raw"),
            "fakes-ema": self.sample(self.fixed_noise),
        }

    @autograd.no_grad()
    def sample(self, z: Any, *, net: str = "ema", labels: Any = None) -> np.ndarray[Any, Any]:
        network = self.ema["G"].module if net == "ema" else self.G
        training = network.training
        images = F.tanh(network.eval()(Tensor(z))).data.reshape(-1, *self.image_shape)
        network.train(training)
        return images


def pictures(count: int = 96) -> Dataset:
    """Bars at random places."""
    rng = np.random.default_rng(5)
    images = np.zeros((count, 1, SIDE, SIDE), np.uint8)
    for image, row in zip(images, rng.integers(0, SIDE, count), strict=True):
        image[0, row] = 255
    return Dataset("bars", images)


def batches(size: int = 16, seed: int = 3) -> Batches:
    """Batches of `pictures`."""
    return Batches(pictures(), size, seed)
