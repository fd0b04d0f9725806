"""GauGAN: SPADE with styles. An encoder turns a photo into the code that its picture starts from.

Park, Liu, Wang, Zhu: Semantic Image Synthesis with Spatially-Adaptive Normalization (2019),
arXiv:1903.07291, section 3 and appendix A.

The map says what is where, and the code z says what it looks like: the hour, the season, the
weather. E and G together are a variational autoencoder beside the GAN of spade.py:

    (mu, logvar) = E(x),   z = mu + e^(logvar / 2) eps,   eps ~ N(0, 1),   x~ = G(m, z)
    L_G = that of SPADE + 0.05 sum over batch and code of KL(N(mu, e^logvar) | N(0, 1))

After training, z ~ N(0, 1) draws a style, and z = mu(photo) takes it from a picture.

The authors' encoder has instance norm, as here by default. It takes away how bright a photo is, and
its colours, but for what borders give away; it is the argument of spade.py once more.
`norm_e="none"` keeps them. Their encoder works for images of 256 pixels and fails below. Here it
halves photos until the smallest maps have 4 to 7 pixels a side, at most six times; at 256 pixels
that is the authors'.
"""

from __future__ import annotations

import math
from typing import Any

import numpy as np

import minigan.functional as F
from minigan import autograd, nn, random
from minigan.backend import Array
from minigan.errors import ShapeError
from minigan.gans.checks import check_choice
from minigan.gans.labels import Losses
from minigan.gans.multiscale import SpectralInstance
from minigan.gans.sampling import Standing, sampling
from minigan.gans.spade import Spade
from minigan.tensor import Tensor

LARGEST = 256  # pixels; larger photos are made smaller


class Encoder(nn.Module):
    """Photos (N, channels, H, W) -> mu and logvar, each (N, nz).

    Parameters
    ----------
    size : side that photos are resized to, 256 at most.
    channels : of a photo.
    width : maps of the first layer; the deepest have 8 times as many.
    nz : length of a code.
    norm : "instance" or "none"; the convolutions have spectral norm anyway.
    """

    def __init__(
        self,
        size: int = 256,
        channels: int = 3,
        width: int = 64,
        nz: int = 256,
        norm: str = "instance",
    ) -> None:
        check_choice("norm_e", norm, ("instance", "none"))
        self.size = min(size, LARGEST)
        self.count = max(1, int(math.log2(self.size / 4)))
        before, side = channels, self.size
        for i in range(self.count):
            after, side = width * min(2**i, 8), -(-side // 2)
            layer: nn.Module = SpectralInstance(before, after, 3, 2, 1)
            if norm == "none":
                conv = nn.Conv2d(before, after, 3, 2, 1)
                layer = nn.Sequential(nn.spectral_norm(conv))
            setattr(self, f"layer{i + 1}", layer)
            before = after
        self.fc_mu = nn.Linear(before * side * side, nz)
        self.fc_var = nn.Linear(before * side * side, nz)

    def forward(self, x: Tensor) -> tuple[Tensor, Tensor]:
        if x.shape[2:] != (self.size, self.size):
            x = F.interpolate(x, (self.size, self.size), mode="bilinear")
        for i in range(self.count):
            x = getattr(self, f"layer{i + 1}")(F.leaky_relu(x, 0.2) if i else x)
        x = F.leaky_relu(x, 0.2).flatten(1)
        return self.fc_mu(x), self.fc_var(x)


class GauGAN(Spade):
    """SPADE that starts from a code, and the encoder that belongs to it.

    Parameters
    ----------
    kl : weight of the divergence, which is summed over the batch as in the authors' code.
    norm_e : norm of the encoder, "instance" or "none".
    recipe : options of `Spade`; `start` is always "noise".
    """

    name = "gaugan"

    def __init__(self, *, kl: float = 0.05, norm_e: str = "instance", **recipe: Any) -> None:
        self.kl, self.norm_e = kl, norm_e
        super().__init__(**recipe | {"start": "noise"})

    def more_networks(self, width: int, nz: int) -> dict[str, nn.Module]:
        channels, size, _ = self.image_shape
        self.E = Encoder(size, channels, width, nz, self.norm_e)
        return {"E": self.E}

    def generate(self) -> tuple[Tensor, Losses]:
        """x~ = G(m, z) with the style of the photo, and how far its code is from N(0, 1)."""
        mu, logvar = self.E(self.real)
        eps = self.feed(lambda: self.noise(random.draw("z"), len(mu))).astype(self.dtype)
        z = mu + (logvar * 0.5).exp() * eps
        return self.G(self.m, z), {"loss_kl": F.kl_normal(mu, logvar) * self.kl}

    @autograd.no_grad()
    def encode(self, photo: Array, net: str = "ema") -> Array:
        """mu of photos: uint8 (H,W,C) or (N,C,H,W), or floats in [-1, 1] (N,C,H,W)."""
        if photo.ndim == 3:
            photo = photo.transpose(2, 0, 1)[None]
        if photo.ndim != 4 or photo.shape[1] != self.image_shape[0]:
            raise ShapeError(
                f"{self.name}: photos of shape {photo.shape}",
                fix=f"give (H,W,C) or (N,C,H,W) with C = {self.image_shape[0]}",
            )
        if photo.dtype == np.uint8:
            photo = photo.astype(np.float32) / 127.5 - 1
        E = self.ema["E"].module if net == "ema" and self.ema else self.E
        with sampling(E, "eval", Standing(lambda net, k: None)):
            return E(self.tensor(photo).astype(self.dtype))[0].numpy()
