"""PacGAN: D sees several samples at once, so it notices if they are all alike.

Lin, Khetan, Fanti, Oh: PacGAN, The Power of Two Samples in Generative Adversarial Networks (2017),
arXiv:1712.04086.

A single sample from a generator that knows one digit only is as good as any other one; m samples
side by side give it away. So D judges packs:

    L_D = BCE(D(x_1, ..., x_m), 1) + BCE(D(G(z_1), ..., G(z_m)), 0)
    L_G = BCE(D(G(z_1), ..., G(z_m)), 1)

with all x and z independent. Images of a pack are further channels of D's input; nothing else
changes, neither G nor the loss nor the number of layers.

A pack consists of neighbours in the batch, so a batch of N images makes N / m logits. A gradient
penalty holds the length of the gradient with respect to each image, not to the pack.
"""

from __future__ import annotations

from typing import Any, ClassVar

from minigan.errors import UsageError
from minigan.gans import dcgan
from minigan.gans.two_player import TwoPlayer
from minigan.nn import init
from minigan.tensor import Tensor


def packed(x: Tensor, m: int) -> Tensor:
    """m neighbours become the channels of one: (N, C, ...) -> (N / m, m C, ...)."""
    n, channels, *spatial = x.shape
    if n % m:
        raise UsageError(
            f"pacgan: a batch of {n} images cannot be cut into packs of {m}",
            fix=f"use a batch size that {m} divides, such as {max(m, n - n % m)}",
        )
    return x.reshape(n // m, m * channels, *spatial)


class PacGAN(TwoPlayer):
    """DCGAN whose D looks at `pack` images at a time.

    Parameters
    ----------
    size, channels : of the images.
    nz : length of the noise vector.
    width : feature maps next to the image.
    pack : m, images per pack; 1 is DCGAN.
    options : see `TwoPlayer`.
    """

    name = "pacgan"
    recipe: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        size: int = 28,
        channels: int = 1,
        nz: int = 100,
        width: int = 32,
        pack: int = 2,
        **options: Any,
    ) -> None:
        if pack < 1:
            raise UsageError(f"pacgan: pack={pack} is less than one image")
        self.pack = pack
        G = dcgan.Generator(size, channels, nz, width)
        D = dcgan.Discriminator(size, pack * channels, width)
        init.dcgan_(G)
        init.dcgan_(D)
        super().__init__(G, D, (channels, size, size), nz, **self.recipe | options)

    def judge(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """D of packs: N / m logits."""
        return self.D(packed(x, self.pack))
