"""PatchGAN: a discriminator that judges every patch of a picture by itself.

Isola, Zhu, Zhou, Efros: Image-to-Image Translation with Conditional Adversarial Networks (2016),
arXiv:1611.07004, section 3.2.2.

Its output is a map of logits (N,1,h,w). Each looks at one patch of the picture, as large as the
receptive field r. With n halvings

    convolutions 4x4: n of stride 2, two of stride 1     r = 9 * 2^n - 2:  16, 34, 70, 142, 286
    convolutions 1x1 (PixelGAN)                          r = 1

Going back through a convolution of kernel k and stride s, a field of r becomes s r + k - s.

Names of layers are those of the authors' PyTorch code: model.{i} (PixelGAN: net.{i}).
"""

from __future__ import annotations

from typing import Any

from minigan import nn
from minigan.errors import UsageError
from minigan.gans.checks import check_choice
from minigan.tensor import Tensor

_MOST_HALVINGS = 8


def norm_layer(norm: str, maps: int) -> list[nn.Module]:
    """The norm over `maps` feature maps: "batch", "instance" (without weights) or "none"."""
    check_choice("norm", norm, ("batch", "instance", "none"))
    if norm == "none":
        return []
    return [nn.BatchNorm2d(maps) if norm == "batch" else nn.InstanceNorm2d(maps)]


def has_bias(norm: str) -> bool:
    """Whether convolutions before the norm have biases: batch norm has shifts of its own."""
    return norm != "batch"


class PatchGAN(nn.Module):
    """Pictures (N,C,H,W) -> logits of patches (N,1,h,w).

    Parameters
    ----------
    channels : of the pictures, conditions included.
    width : maps after the first layer; each halving doubles them, up to 8 width.
    halvings : n; 3 gives patches of 70x70 pixels.
    norm : "batch", "instance" or "none"; the first and the last layer have none.
    """

    def __init__(
        self, channels: int, width: int = 64, halvings: int = 3, norm: str = "batch"
    ) -> None:
        layers: list[nn.Module] = [nn.Conv2d(channels, width, 4, 2, 1), nn.LeakyReLU(0.2)]
        maps = width
        for n in range(1, halvings + 1):
            before, maps = maps, width * min(2**n, 8)
            stride = 2 if n < halvings else 1
            layers += [
                nn.Conv2d(before, maps, 4, stride, 1, bias=has_bias(norm)),
                *norm_layer(norm, maps),
                nn.LeakyReLU(0.2),
            ]
        layers.append(nn.Conv2d(maps, 1, 4, 1, 1))
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class PixelGAN(nn.Module):
    """Pictures (N,C,H,W) -> a logit of each pixel (N,1,H,W): it judges colours alone."""

    def __init__(self, channels: int, width: int = 64, norm: str = "batch") -> None:
        self.net = nn.Sequential(
            nn.Conv2d(channels, width, 1),
            nn.LeakyReLU(0.2),
            nn.Conv2d(width, 2 * width, 1, bias=has_bias(norm)),
            *norm_layer(norm, 2 * width),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * width, 1, 1, bias=has_bias(norm)),
        )

    def forward(self, x: Tensor) -> Tensor:
        return self.net(x)


def discriminator(
    channels: int, width: int, patch: int, norm: str, sides: tuple[int, int]
) -> nn.Module:
    """The network whose logits look at patches of `patch` pixels.

    Parameters
    ----------
    patch : 1, 16, 34, 70, 142 ...; 0: the smallest one that covers the whole picture.
    sides : H, W of the pictures.
    """
    if patch == 1:
        return PixelGAN(channels, width, norm)
    fields = {9 * 2**n - 2: n for n in range(1, _MOST_HALVINGS + 1)}
    if patch == 0:
        patch = min((r for r in fields if r >= max(sides)), default=max(fields))
    if patch not in fields:
        raise UsageError(
            f"patch={patch}: no PatchGAN looks at patches of this size",
            why="it grows with the layers",
            fix=f"use one of 1, {', '.join(map(str, fields))}, or 0 for the whole picture",
        )
    n = fields[patch]
    if min(sides) >> n < 3:  # two layers of stride 1 take a pixel each, and a logit must be left
        raise UsageError(
            f"patch={patch}: pictures of {sides[0]}x{sides[1]} pixels are too small for it",
            why=f"{n} halvings leave less than 3 pixels",
            fix="use a smaller patch, or 1",
        )
    return PatchGAN(channels, width, n, norm)


def receptive_field(net: nn.Module) -> int:
    """The side, in pixels, of the patch that one output of a chain of convolutions looks at."""
    field = 1
    for layer in reversed([m for m in net.modules() if isinstance(m, nn.Conv2d)]):
        kernel, stride = _first(layer.kernel_size), _first(layer.stride)
        field = stride * field + (kernel - 1) * _first(layer.dilation) + 1 - stride
    return field


def _first(value: Any) -> int:
    return int(value if isinstance(value, int) else value[0])
