"""DCGAN: a generator of transposed convolutions against a discriminator of strided ones.

Radford, Metz, Chintala: Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks (2015), arXiv:1511.06434.

The idea: replace every pooling and every fully connected layer of a GAN by convolutions that learn
their own resampling, normalise with batch statistics, and training becomes stable.

    G: z ~ N(0, 1)^nz -> maps at 4x4 -> [x2, half the maps] ... -> image in [-1, 1]
    D: the mirror image of G; its output is one logit

    L_D = BCE(D(x), 1) + BCE(D(G(z)), 0)           x real
    L_G = BCE(D(G(z)), 1)                          the non-saturating form: -log sigma(D(G(z)))

Training order (as in the usual implementation): one step of D on x and G(z), held fixed; then one
step of G on the *same* z, seen by the updated D. Real and fake go through D separately, so that
batch normalisation sees statistics of one kind at a time.

Where this departs from the paper: kernels are 4x4 as in the usual implementations, not 5x5; z is
normal, not uniform; 28-pixel images start from 7x7 maps instead of 4x4. An exponential moving
average of G is kept for sampling; it does not take part in training.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import minigan.functional as F
from minigan import autograd, nn, optim, random
from minigan.backend import Array
from minigan.errors import UsageError
from minigan.gans.game import Game, Player
from minigan.nn import init
from minigan.tensor import Tensor


def pyramid(size: int) -> tuple[int, int]:
    """Return (start, doublings) with start * 2^doublings = size: 64 = 4 * 2^4, 28 = 7 * 2^2."""
    for start in (4, 7, 5, 6):
        doublings = (size // start).bit_length() - 1
        if doublings >= 1 and start << doublings == size:
            return start, doublings
    raise UsageError(
        f"dcgan: no pyramid of doublings ends at {size} pixels",
        why="sizes are 4, 5, 6 or 7 times a power of two",
        fix="use 28, 32, 64 or 128",
    )


class Generator(nn.Module):
    """z (N, nz) -> images (N, channels, size, size) in [-1, 1]."""

    def __init__(self, size: int = 64, channels: int = 3, nz: int = 100, width: int = 64) -> None:
        start, doublings = pyramid(size)
        maps = width << (doublings - 1)  # 64 px: 8 * width at 4x4; width 128 gives the paper's 1024
        layers = [
            nn.ConvTranspose2d(nz, maps, start, bias=False),
            nn.BatchNorm2d(maps),
            nn.ReLU(),
        ]
        for _ in range(doublings - 1):
            layers += [
                nn.ConvTranspose2d(maps, maps // 2, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(maps // 2),
                nn.ReLU(),
            ]
            maps //= 2
        layers += [
            nn.ConvTranspose2d(maps, channels, 4, stride=2, padding=1, bias=False),
            nn.Tanh(),
        ]
        self.main = nn.Sequential(*layers)

    def forward(self, z: Tensor) -> Tensor:
        return self.main(z.reshape(*z.shape, 1, 1))


class Discriminator(nn.Module):
    """Images (N, channels, size, size) -> logits (N,)."""

    def __init__(self, size: int = 64, channels: int = 3, width: int = 64) -> None:
        start, doublings = pyramid(size)
        layers = [
            nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=False),
            nn.LeakyReLU(0.2),
        ]
        maps = width
        for _ in range(doublings - 1):
            layers += [
                nn.Conv2d(maps, 2 * maps, 4, stride=2, padding=1, bias=False),
                nn.BatchNorm2d(2 * maps),
                nn.LeakyReLU(0.2),
            ]
            maps *= 2
        layers.append(nn.Conv2d(maps, 1, start, bias=False))
        self.main = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x).reshape(x.shape[0])


class DCGAN(Game):
    """The two players, their losses and the recipe of section 4 of the paper.

    Parameters
    ----------
    size, channels : of the images.
    nz : length of the noise vector.
    width : feature maps next to the image; the deepest layer has width * 2^(doublings - 1).
    lr, lr_d : learning rates of G and of D. The paper has 2e-4 for both. With few maps D can win
        before G has drawn anything; half the rate for D prevents that.
    beta1 : of Adam, for both players.
    ema : decay of the moving average of G.
    previews : images in a preview grid.
    """

    name = "dcgan"

    def __init__(
        self,
        size: int = 28,
        channels: int = 1,
        nz: int = 100,
        width: int = 64,
        lr: float = 2e-4,
        lr_d: float = 2e-4,
        beta1: float = 0.5,
        ema: float = 0.999,
        previews: int = 64,
    ) -> None:
        self.image_shape = (channels, size, size)
        self.nz = nz
        self.G = Generator(size, channels, nz, width)
        self.D = Discriminator(size, channels, width)
        init.dcgan_(self.G)
        init.dcgan_(self.D)
        self.networks = {"G": self.G, "D": self.D}
        self.ema = {"G": optim.EMA(self.G, ema)}
        self.players = [
            self.player("D", self.D, self.d_losses, lr_d, beta1),
            self.player("G", self.G, self.g_losses, lr, beta1),
        ]
        self.log = {}
        self.fixed_noise = self.noise(random.draw("preview"), previews)

    @staticmethod
    def player(name: str, net: nn.Module, losses: Any, lr: float, beta1: float) -> Player:
        parameters = list(net.parameters())
        return Player(name, parameters, optim.Adam(parameters, lr, (beta1, 0.999)), losses)

    def start(self, batch: Any) -> None:
        """x real, z new, G(z) once: both turns use the same fakes."""
        self.real = self.tensor(batch.images)
        z = self.feed(lambda: self.noise(random.draw("z"), len(batch.images)))
        self.fake = self.G(z)

    def d_losses(self) -> dict[str, Tensor]:
        """L_D = BCE(D(x), 1) + BCE(D(G(z)), 0); G is held fixed by detach."""
        real, fake = self.D(self.real), self.D(self.fake.detach())
        self.log["d_real"] = probability(real)
        self.log["d_fake"] = probability(fake)
        return {
            "loss_d_real": F.binary_cross_entropy_with_logits(real, 1.0),
            "loss_d_fake": F.binary_cross_entropy_with_logits(fake, 0.0),
        }

    def g_losses(self) -> dict[str, Tensor]:
        """L_G = BCE(D(G(z)), 1) with the D that has just moved."""
        fake = self.D(self.fake)
        self.log["d_fake_g"] = probability(fake)
        return {"loss_g": F.binary_cross_entropy_with_logits(fake, 1.0)}

    def noise(self, rng: np.random.Generator, n: int) -> Array:
        """z ~ N(0, 1), shape (n, nz)."""
        return rng.standard_normal((n, self.nz), dtype=np.float32)

    def preview(self) -> dict[str, Array]:
        return {
            "fakes": self.sample(self.fixed_noise, net="raw"),
            "fakes-ema": self.sample(self.fixed_noise, net="ema"),
        }

    @autograd.no_grad()
    def sample(self, z: Array, *, net: str = "ema", labels: Array | None = None) -> Array:
        """Images with the running statistics, so that each depends on its own z alone."""
        if labels is not None:
            raise UsageError("dcgan: this GAN has no classes", fix="leave the labels away")
        G = self.ema["G"].module if net == "ema" else self.G
        training = G.training
        G.eval()
        images = [G(self.tensor(z[i : i + 64])).numpy() for i in range(0, len(z), 64)]
        G.train(training)
        return np.concatenate(images)


def probability(logits: Tensor) -> Tensor:
    """Mean of sigmoid(logits): what D believes, for the log."""
    return F.sigmoid(logits.detach()).mean()
