"""The multi-scale discriminator of pix2pixHD and SPADE: PatchGANs on an image pyramid.

Wang et al.: High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs (2017),
arXiv:1711.11585, section 3.2; Park et al. (2019), arXiv:1903.07291.

Several networks of the same form look at the image, at half its size, at a quarter ... So one of
them sees fine texture and another one sees whole objects, each with few layers. Every layer's
output is returned: the last is the map of logits, the others are the features that G matches.

    D_s(x) = [f_1(x_s), ..., f_L(x_s), logits(x_s)],     x_0 = x,  x_s = half of x_(s-1)
"""

from __future__ import annotations

from typing import Any

import minigan.functional as F
from minigan import nn
from minigan.losses import AdversarialLoss
from minigan.tensor import Tensor

Scale = list[Tensor]  # features layer by layer; the last are logits (N,1,h,w)
MOST = 512  # maps in a layer


def half(x: Tensor) -> Tensor:
    """Means of 3x3 pixels, two apart; at the border, of those pixels that exist."""
    return F.avg_pool2d(x, 3, 2, 1, count_include_pad=False)


class SpectralInstance(nn.Sequential):
    """A convolution with spectral norm and without bias, then instance norm.

    Instance norm takes any bias away again.
    """

    def __init__(self, in_channels: int, out_channels: int, kernel: int, stride: int, padding: int):
        conv = nn.Conv2d(in_channels, out_channels, kernel, stride, padding, bias=False)
        super().__init__(nn.spectral_norm(conv), nn.InstanceNorm2d(out_channels))


def patch_layers(
    in_channels: int, width: int, strided: int, flat: int, spectral: bool
) -> list[nn.Sequential]:
    """The layers of one PatchGAN: `strided` ones of stride 2, then `flat` ones, then logits.

    All kernels are 4x4, padded by 2. All but the first and the last have instance norm.
    """
    layers = [nn.Sequential(nn.Conv2d(in_channels, width, 4, 2, 2), nn.LeakyReLU(0.2))]
    maps = width
    for stride in [2] * (strided - 1) + [1] * flat:
        before, maps = maps, min(2 * maps, MOST)
        if spectral:
            block = SpectralInstance(before, maps, 4, stride, 2)
            layers.append(nn.Sequential(block, nn.LeakyReLU(0.2)))
        else:
            conv = nn.Conv2d(before, maps, 4, stride, 2)
            layers.append(nn.Sequential(conv, nn.InstanceNorm2d(maps), nn.LeakyReLU(0.2)))
    layers.append(nn.Sequential(nn.Conv2d(maps, 1, 4, 1, 2)))
    return layers


class Patches(nn.Module):
    """One PatchGAN; its layers are model0, model1 ... as in the code of SPADE."""

    def __init__(self, layers: list[nn.Sequential]) -> None:
        self.count = len(layers)
        for i, layer in enumerate(layers):
            setattr(self, f"model{i}", layer)

    def forward(self, x: Tensor) -> Scale:
        return through([getattr(self, f"model{i}") for i in range(self.count)], x)


class SpadeDiscriminator(nn.Module):
    """SPADE's: spectral norm, and discriminator_0 sees the image in full size.

    Parameters
    ----------
    in_channels : of the label map and the image together.
    width : maps of the first layer.
    layers : before the logits: all but the last one halve the size.
    scales : sizes of the pyramid.
    """

    def __init__(self, in_channels: int, width: int = 64, layers: int = 4, scales: int = 2) -> None:
        self.scales = scales
        for s in range(scales):
            one = Patches(patch_layers(in_channels, width, layers - 1, 1, spectral=True))
            setattr(self, f"discriminator_{s}", one)

    def forward(self, x: Tensor) -> list[Scale]:
        found = []
        for s in range(self.scales):
            x = half(x) if s else x
            found.append(getattr(self, f"discriminator_{s}")(x))
        return found


class HDDiscriminator(nn.Module):
    """pix2pixHD's: no spectral norm, and the *last* of scale0, scale1 ... sees the full size.

    Parameters
    ----------
    in_channels : of the label map and the image together.
    width : maps of the first layer.
    layers : that halve the size; one that does not and the logits follow.
    scales : sizes of the pyramid.
    """

    def __init__(self, in_channels: int, width: int = 64, layers: int = 3, scales: int = 2) -> None:
        self.scales, self.count = scales, layers + 2
        for s in range(scales):
            for i, layer in enumerate(patch_layers(in_channels, width, layers, 1, spectral=False)):
                setattr(self, f"scale{s}_layer{i}", layer)

    def forward(self, x: Tensor) -> list[Scale]:
        found = []
        for s in reversed(range(self.scales)):
            x = x if s == self.scales - 1 else half(x)
            layers = [getattr(self, f"scale{s}_layer{i}") for i in range(self.count)]
            found.append(through(layers, x))
        return found


def through(layers: list[Any], x: Tensor) -> Scale:
    """What each layer makes of what the one before it made."""
    found = []
    for layer in layers:
        x = layer(x)
        found.append(x)
    return found


def halves(scales: list[Scale]) -> tuple[list[Scale], list[Scale]]:
    """What D said of the first and of the second half of a joint batch."""
    pairs = [[F.chunk(f, 2) for f in scale] for scale in scales]
    return [[a for a, _ in scale] for scale in pairs], [[b for _, b in scale] for scale in pairs]


def logits(scales: list[Scale]) -> list[Tensor]:
    """The maps of logits, one for each scale."""
    return [scale[-1] for scale in scales]


def features(scales: list[Scale]) -> list[Scale]:
    """All but the logits."""
    return [scale[:-1] for scale in scales]


def d_losses(
    loss: AdversarialLoss, real: list[Scale], fake: list[Scale], factor: float
) -> dict[str, Tensor]:
    """L_D summed over the scales, times `factor`."""
    pairs = zip(logits(real), logits(fake), strict=True)
    return _summed([loss.d(r, f) for r, f in pairs], factor)


def g_losses(loss: AdversarialLoss, fake: list[Scale], factor: float) -> dict[str, Tensor]:
    """L_G summed over the scales, times `factor`."""
    return _summed([loss.g(f) for f in logits(fake)], factor)


def _summed(terms: list[dict[str, Tensor]], factor: float) -> dict[str, Tensor]:
    total = dict(terms[0])
    for term in terms[1:]:
        total = {name: value + term[name] for name, value in total.items()}
    return {name: value * factor for name, value in total.items()}
