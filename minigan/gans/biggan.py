"""BigGAN: what makes a conditional GAN better when it grows, and what keeps it from breaking.

Brock, Donahue, Simonyan: Large Scale GAN Training for High Fidelity Natural Image Synthesis
(2018), arXiv:1809.11096. Here at a size for two cores.

    z = (z_0, z_1, ..., z_B)         one part for the first layer and one for each block
    G: linear(z_0) -> block_1( . ; c_1) -> ... -> block_B( . ; c_B) -> BN, ReLU, conv -> tanh
       c_b = (s_y, z_b)              s one table of classes that all blocks share
       norms in block b: x^ (1 + gain(c_b)) + shift(c_b), gain and shift linear
    D: f(x, y) = psi(phi(x)) + E_y . phi(x), its blocks as wide inside as at their end

    L_D = E relu(1 - f(x, y)) + E relu(1 + f(G(z, y~), y~))
    L_G = -E f(G(z, y~), y~) + beta/2 sum over W of |W W^T o (1 - I)|^2

The last term (orthogonal regularisation, without any pull on the lengths of rows) makes G smooth
enough for *truncation*: numbers of z beyond a threshold are drawn again, which gives up variety
for quality. It is for sampling alone and never in training.

Samples come from the average of G's weights, which no batch statistics belong to. So they are
taken anew from 16 batches before sampling ("standing statistics").

Where this departs from the paper: sizes, batch, learning rates and the length of the average; one
process, no gradient accumulation; the widths at 64 and 256 pixels are those of SAGAN's rule. At
128 pixels with width 96 the networks are the authors'; at 32 with width 256 D is.
"""

from __future__ import annotations

from functools import partial
from typing import Any, ClassVar

import numpy as np

from minigan import nn
from minigan.backend import Array
from minigan.errors import UsageError
from minigan.gans import resnet
from minigan.gans.dcgan import pyramid
from minigan.gans.two_player import Losses, TwoPlayer
from minigan.nn import init
from minigan.nn.blocks import VectorBatchNorm2d
from minigan.ops.shape import concat, split
from minigan.regularizers import orthogonal
from minigan.tensor import Tensor


class Generator(resnet.Generator):
    """z (N, nz) and labels (N,) -> images in [-1, 1]; z goes in at every resolution.

    Parameters
    ----------
    shared : length of the vector of a class that all blocks share.
    others : see `resnet.Generator`. nz must be a multiple of the number of blocks + 1.
    """

    def __init__(
        self,
        size: int = 128,
        channels: int = 3,
        nz: int = 120,
        width: int = 96,
        classes: int = 1000,
        shared: int = 128,
        attention: int = 0,
    ) -> None:
        parts = pyramid(size)[1] + 1
        if nz % parts:
            raise UsageError(
                f"biggan: a z of {nz} numbers does not split into {parts} parts",
                why="one is for the first layer, and one for each block",
                fix=f"use nz={nz - nz % parts or parts}",
            )
        self.part = nz // parts
        norm = partial(VectorBatchNorm2d, condition_dim=shared + self.part)
        super().__init__(
            size,
            channels,
            self.part,
            width,
            classes,
            spectral_norm=True,
            attention=attention,
            norm=norm,
        )
        self.shared = nn.Embedding(classes, shared)

    def conditions(
        self, z: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """z_0, and c_b = (s_y, z_b) for each block."""
        s = self.shared(resnet.needed("generator", labels))
        first, *others = split(z, self.part, 1)
        return first, [(concat([s, part], 1),) for part in others]


class BigGAN(TwoPlayer):
    """The hinge loss, projection, spectral norm and orthogonal weights in both networks.

    Parameters
    ----------
    size, channels : of the images.
    classes : how many there are.
    nz : length of the noise vector; a multiple of the number of G's blocks + 1.
    width, width_d : maps of G and of D; see `resnet.Generator` and `resnet.Discriminator`.
    shared : length of the vector of a class that all blocks share.
    attention : resolution of the maps that self-attention works on; 0 for none.
    ortho : weight of the orthogonal regularisation of G.
    recipe : options of `TwoPlayer`.
    """

    name = "biggan"
    mode = "standing"
    recipe: ClassVar[dict[str, Any]] = {
        "loss": "hinge",
        "spectral": True,
        "lr": 4e-4,
        "lr_d": 8e-4,
        "beta1": 0.0,
        "previews": 100,
    }

    def __init__(
        self,
        size: int = 28,
        channels: int = 1,
        classes: int = 10,
        nz: int = 60,
        width: int = 32,
        width_d: int = 32,
        shared: int = 32,
        attention: int = 0,
        ortho: float = 1e-4,
        **recipe: Any,
    ) -> None:
        self.ortho = ortho
        G = Generator(size, channels, nz, width, classes, shared, attention)
        D = resnet.Discriminator(
            size, channels, width_d, classes, attention=attention, wide=True, spectral_norm=False
        )
        init.orthogonal_(G)
        init.orthogonal_(D)
        super().__init__(G, D, (channels, size, size), nz, classes, **self.recipe | recipe)

    def g_losses(self) -> Losses:
        """L_G and the orthogonal regularisation of all of G's weights but the table s."""
        losses = super().g_losses()
        return losses | orthogonal(self.G, self.ortho) if self.ortho else losses

    def truncated_noise(self, rng: np.random.Generator, n: int, threshold: float) -> Array:
        """z ~ N(0, 1), shape (n, nz); numbers beyond +-threshold are drawn again until none is."""
        if threshold <= 0:
            raise UsageError(f"biggan: truncation at {threshold} leaves nothing; it is above 0")
        z = self.noise(rng, n)
        while (far := np.abs(z) > threshold).any():
            z[far] = rng.standard_normal(int(far.sum()), dtype=np.float32)
        return z
