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

from typing import Any, ClassVar

from minigan import nn
from minigan.errors import UsageError
from minigan.gans.checks import check_choice
from minigan.gans.two_player import TwoPlayer
from minigan.nn import init
from minigan.tensor import Tensor


def pyramid(size: int) -> tuple[int, int]:
    """Return (start, doublings) with start * 2^doublings = size: 64 = 4 * 2^4, 28 = 7 * 2^2."""
    for start in (4, 7, 5, 6):
        doublings = (size // start).bit_length() - 1
        if doublings >= 1 and start << doublings == size:
            return start, doublings
    raise UsageError(
        f"no pyramid of doublings ends at {size} pixels",
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

    def __init__(
        self, size: int = 64, channels: int = 3, width: int = 64, norm: str = "batch"
    ) -> None:
        start, doublings = pyramid(size)
        layers: list[nn.Module] = [
            nn.Conv2d(channels, width, 4, stride=2, padding=1, bias=False),
            nn.LeakyReLU(0.2),
        ]
        maps, side = width, size // 2
        for _ in range(doublings - 1):
            maps, side = 2 * maps, side // 2
            layers += [
                nn.Conv2d(maps // 2, maps, 4, stride=2, padding=1, bias=norm == "none"),
                *norm_layer(norm, maps, side),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(maps, 1, start, bias=False))
        self.main = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.main(x).reshape(x.shape[0])


def norm_layer(norm: str, maps: int, side: int) -> list[nn.Module]:
    """The norm of D over `maps` feature maps of side x side pixels, if there is to be one."""
    check_choice("norm", norm, ("batch", "layer", "instance", "none"))
    if norm == "batch":
        return [nn.BatchNorm2d(maps)]
    if norm == "layer":
        return [nn.LayerNorm((maps, side, side))]
    return [nn.InstanceNorm2d(maps, affine=True)] if norm == "instance" else []


class DCGAN(TwoPlayer):
    """The two players and the recipe of section 4 of the paper, which are TwoPlayer's defaults.

    Parameters
    ----------
    size, channels : of the images.
    nz : length of the noise vector.
    width : feature maps next to the image; the deepest layer has width * 2^(doublings - 1).
    recipe : options of `TwoPlayer`, and `norm` of D: "batch", "layer", "instance" or "none". D
        needs another than "batch" when a penalty holds for single images. The paper has
        lr = lr_d = 2e-4. With few maps D can win before G has drawn anything; half the rate for D
        prevents that.
    """

    name = "dcgan"
    recipe: ClassVar[dict[str, Any]] = {"norm": "batch"}

    def __init__(
        self,
        size: int = 28,
        channels: int = 1,
        nz: int = 100,
        width: int = 64,
        **recipe: Any,
    ) -> None:
        chosen = self.recipe | recipe
        norm = chosen.pop("norm")
        G = Generator(size, channels, nz, width)
        D = Discriminator(size, channels, width, norm)
        init.dcgan_(G)
        init.dcgan_(D)
        super().__init__(G, D, (channels, size, size), nz, **chosen)
