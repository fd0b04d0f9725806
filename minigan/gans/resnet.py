"""Residual networks for GANs: the generator and discriminator of SN-GAN, cGAN with projection
discriminator, and SAGAN. The GANs differ in what they switch on.

Miyato et al.: Spectral Normalization for Generative Adversarial Networks (2018), arXiv:1802.05957.
Miyato, Koyama: cGANs with Projection Discriminator (2018), arXiv:1802.05637.
Zhang et al.: Self-Attention Generative Adversarial Networks (2018), arXiv:1805.08318.

    G: z -> linear -> maps at 4x4 -> [residual block, x2] ... -> BN, ReLU, conv -> tanh
    D: image -> [residual block, /2] ... -> ReLU -> phi = sum over positions
       f(x, y) = w . phi(x) + b + E_y . phi(x)          without classes: f(x) = w . phi(x) + b

Where this departs from the papers: enlarging and pooling are exchanged with the 1x1 convolutions
of the shortcuts, which computes the same with a quarter of the products; images of 28 pixels
start from 7x7 maps.
"""

from __future__ import annotations

from functools import partial
from itertools import pairwise

from minigan import nn
from minigan.errors import UsageError
from minigan.gans.dcgan import pyramid
from minigan.nn.blocks import DownBlock, Norm, SelfAttention, UpBlock, convolution
from minigan.nn.linear import Weighted
from minigan.ops.activation import relu
from minigan.tensor import Tensor

_SMALL = 32  # pixels: up to here all layers have the same number of maps


def maps_up(size: int, width: int) -> list[int]:
    """Numbers of maps in G, before the first block and after each: 16, 8, 4, 2, 1 x width at 64.

    From 256 pixels on there are more than 4 doublings; the first ones keep 16 x width.
    """
    _, doublings = pyramid(size)
    if size <= _SMALL:
        return [width] * (doublings + 1)
    return [width * min(16, 1 << k) for k in reversed(range(doublings + 1))]


def maps_down(size: int, width: int) -> list[int]:
    """Numbers of maps in D after each block: 1, 2, 4, 8, 16 x width at 64 pixels."""
    _, doublings = pyramid(size)
    if size <= _SMALL:
        return [width] * 4
    return [width * min(16, 1 << k) for k in range(doublings + 1)]


def place_of_attention(wanted: int, resolutions: list[int]) -> int | None:
    """Number of the block after which the maps are wanted x wanted; None for 0."""
    if not wanted:
        return None
    if wanted not in resolutions:
        raise UsageError(
            f"attention: there are no maps of {wanted}x{wanted} in this network",
            fix=f"use one of {', '.join(map(str, sorted(set(resolutions))))}, or 0 for none",
        )
    return resolutions.index(wanted)


def needed(who: str, labels: Tensor | None) -> Tensor:
    """The labels, which a network with classes cannot do without."""
    if labels is None:
        raise UsageError(
            f"this {who} has classes and was called without labels",
            fix="pass the class of each image, integers (N,)",
        )
    return labels


def spectral(layer: Weighted, wanted: bool) -> Weighted:
    """The layer, with spectral norm if wanted."""
    return nn.spectral_norm(layer) if wanted else layer


class Generator(nn.Module):
    """z (N, nz), and labels (N,) if there are classes -> images in [-1, 1].

    Parameters
    ----------
    size, channels : of the images.
    nz : length of z.
    width : maps next to the image, and everywhere up to 32 pixels (the papers have 256 there).
    classes : 0 for a GAN without labels; otherwise all norms in blocks have tables of classes.
    spectral_norm : whether all layers have it (SAGAN).
    attention : resolution of the maps that self-attention works on; 0 for none.
    mode : how blocks enlarge, "nearest" or "bilinear".
    norm : of the blocks, instead of batch norm with or without tables.
    """

    def __init__(
        self,
        size: int = 32,
        channels: int = 3,
        nz: int = 128,
        width: int = 256,
        classes: int = 0,
        *,
        spectral_norm: bool = False,
        attention: int = 0,
        mode: str = "nearest",
        norm: Norm | None = None,
    ) -> None:
        self.classes = classes
        self.start, doublings = pyramid(size)
        maps = maps_up(size, width)
        if norm is None and classes:
            norm = partial(nn.ConditionalBatchNorm2d, num_classes=classes)
        self.l1 = spectral(nn.Linear(nz, maps[0] * self.start**2), spectral_norm)
        self.blocks = nn.ModuleList(
            UpBlock(a, b, norm or nn.BatchNorm2d, spectral=spectral_norm, mode=mode)
            for a, b in pairwise(maps)
        )
        places = [self.start << k + 1 for k in range(doublings)]
        self.attention_after = place_of_attention(attention, places)
        if self.attention_after is not None:
            self.attn_block = SelfAttention(maps[self.attention_after + 1], spectral=spectral_norm)
        self.bn = nn.BatchNorm2d(maps[-1])
        self.conv = convolution(maps[-1], channels, 3, spectral_norm)

    def conditions(
        self, z: Tensor, labels: Tensor | None
    ) -> tuple[Tensor, list[tuple[Tensor, ...]]]:
        """What the first layer reads, and what steers the norms of each block."""
        condition = (needed("generator", labels),) if self.classes else ()
        return z, [condition] * len(self.blocks)

    def forward(self, z: Tensor, labels: Tensor | None = None) -> Tensor:
        first, conditions = self.conditions(z, labels)
        h = self.l1(first).reshape(len(z), -1, self.start, self.start)
        for i, (block, condition) in enumerate(zip(self.blocks, conditions, strict=True)):
            h = block(h, *condition)
            if i == self.attention_after:
                h = self.attn_block(h)
        return self.conv(self.bn(h, activation="relu")).tanh()


class Discriminator(nn.Module):
    """Images, and labels (N,) if there are classes -> logits (N,).

    Parameters
    ----------
    size, channels : of the images.
    width : maps next to the image, and everywhere up to 32 pixels (SN-GAN has 128 there).
    classes : 0 for no projection of labels.
    attention : resolution of the maps that self-attention works on; 0 for none.
    wide : blocks are as wide inside as at their end (BigGAN), not as at their beginning.
    spectral_norm : whether all layers have it, the table of classes too.
    relu_shortcut : see `DownBlock`; for weights of the library mimicry.
    """

    def __init__(
        self,
        size: int = 32,
        channels: int = 3,
        width: int = 128,
        classes: int = 0,
        *,
        attention: int = 0,
        wide: bool = False,
        spectral_norm: bool = True,
        relu_shortcut: bool = False,
    ) -> None:
        maps = maps_down(size, width)
        halvings = 2 if size <= _SMALL else len(maps) - 1
        self.blocks = nn.ModuleList(
            DownBlock(
                a,
                b,
                b if wide else None,
                spectral=spectral_norm,
                downsample=i < halvings,
                first=i == 0,
                relu_shortcut=relu_shortcut and i > 0,
            )
            for i, (a, b) in enumerate(zip([channels, *maps], maps, strict=False))
        )
        places = [size >> min(i + 1, halvings) for i in range(len(maps))]
        self.attention_after = place_of_attention(attention, places)
        if self.attention_after is not None:
            self.attn_block = SelfAttention(maps[self.attention_after], spectral=spectral_norm)
        self.linear = spectral(nn.Linear(maps[-1], 1), spectral_norm)
        self.embed = spectral(nn.Embedding(classes, maps[-1]), spectral_norm) if classes else None

    def features(self, x: Tensor) -> Tensor:
        """phi(x), (N, maps): the sum over all positions after the last block."""
        for i, block in enumerate(self.blocks):
            x = block(x)
            if i == self.attention_after:
                x = self.attn_block(x)
        return relu(x).sum(axis=(2, 3))

    def forward(self, x: Tensor, labels: Tensor | None = None) -> Tensor:
        phi = self.features(x)
        logits = self.linear(phi).reshape(len(x))
        if self.embed is None:
            return logits
        return logits + (self.embed(needed("discriminator", labels)) * phi).sum(axis=1)
