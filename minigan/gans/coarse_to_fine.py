"""The networks of pix2pixHD: a global generator, enhancers around it, an encoder of features.

Wang et al.: High-Resolution Image Synthesis and Semantic Manipulation with Conditional GANs (2017),
arXiv:1711.11585, sections 3.2 and 3.4. Layers have the numbers of the authors' code (`model.1`,
`model1_2.0.conv_block.1`). Any size of map will do: it is continued to a multiple and cut.
"""

from __future__ import annotations

import minigan.functional as F
from minigan import autograd, nn
from minigan.gans.label_maps import crop_to, pad_to_multiple
from minigan.gans.multiscale import half
from minigan.tensor import Tensor

Layers = list[nn.Module]


def conv7(before: int, after: int) -> Layers:
    """A 7x7 convolution on mirrored borders."""
    return [nn.ReflectionPad2d(3), nn.Conv2d(before, after, 7)]


def down(before: int, after: int) -> Layers:
    """Half the height and width."""
    return [nn.Conv2d(before, after, 3, 2, 1), nn.InstanceNorm2d(after), nn.ReLU()]


def up(before: int, after: int) -> Layers:
    """Twice the height and width."""
    conv = nn.ConvTranspose2d(before, after, 3, 2, 1, output_padding=1)
    return [conv, nn.InstanceNorm2d(after), nn.ReLU()]


class ResidualBlock(nn.Module):
    """y = x + IN(c1(ReLU(IN(c0(x))))), with 3x3 convolutions on mirrored borders."""

    def __init__(self, maps: int) -> None:
        layers: Layers = []
        for last in (False, True):
            layers += [nn.ReflectionPad2d(1), nn.Conv2d(maps, maps, 3), nn.InstanceNorm2d(maps)]
            layers += [] if last else [nn.ReLU()]
        self.conv_block = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)


class GlobalGenerator(nn.Module):
    """7x7, `downs` halvings, `blocks` residual blocks, as many doublings, 7x7, tanh.

    Parameters
    ----------
    in_channels, channels : of the map (with features, if there are any) and of the image.
    width : maps next to the image; each halving doubles them.
    """

    def __init__(
        self, in_channels: int, channels: int = 3, width: int = 64, downs: int = 4, blocks: int = 9
    ) -> None:
        self.multiple = 2**downs
        layers = [*conv7(in_channels, width), nn.InstanceNorm2d(width), nn.ReLU()]
        for i in range(downs):
            layers += down(width * 2**i, width * 2 ** (i + 1))
        layers += [ResidualBlock(width * 2**downs) for _ in range(blocks)]
        for i in reversed(range(downs)):
            layers += up(width * 2 ** (i + 1), width * 2**i)
        self.model = nn.Sequential(*layers, *conv7(width, channels), nn.Tanh())

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        return crop_to(self.model(pad_to_multiple(x, self.multiple)), x.shape[2:])


class LocalEnhancer(nn.Module):
    """A global generator at a small size, and enhancers that double the size, each around it.

        y_0 = features of the global generator for the smallest x
        y_n = up_n(down_n(x at twice the size) + y_(n-1)),   the last up_n ends with the image

    Parameters
    ----------
    in_channels, channels : of the map and of the image.
    width : maps next to the image in full size; the global generator has width * 2^enhancers.
    downs, blocks : of the global generator.
    enhancers : how often the size is doubled.
    local_blocks : residual blocks of an enhancer.

    Attributes
    ----------
    model : the global generator without its last layers.
    """

    def __init__(
        self,
        in_channels: int,
        channels: int = 3,
        width: int = 32,
        downs: int = 4,
        blocks: int = 9,
        enhancers: int = 1,
        local_blocks: int = 3,
    ) -> None:
        self.enhancers, self.multiple = enhancers, 2 ** (downs + enhancers)
        whole = GlobalGenerator(in_channels, channels, width * 2**enhancers, downs, blocks)
        self.model = whole.model[:-3]
        for n in range(1, enhancers + 1):
            maps = width * 2 ** (enhancers - n)
            first = [*conv7(in_channels, maps), nn.InstanceNorm2d(maps), nn.ReLU()]
            layers: Layers = [ResidualBlock(2 * maps) for _ in range(local_blocks)]
            layers += up(2 * maps, maps)
            if n == enhancers:
                layers += [*conv7(maps, channels), nn.Tanh()]
            setattr(self, f"model{n}_1", nn.Sequential(*first, *down(maps, 2 * maps)))
            setattr(self, f"model{n}_2", nn.Sequential(*layers))

    def forward(self, x: Tensor, frozen: bool = False) -> Tensor:
        """Images in full size; with `frozen`, gradients do not reach the global generator."""
        sizes = [pad_to_multiple(x, self.multiple)]
        for _ in range(self.enhancers):
            sizes.append(half(sizes[-1]))
        if frozen:
            with autograd.no_grad():
                y = self.model(sizes[-1])
        else:
            y = self.model(sizes[-1])
        for n in range(1, self.enhancers + 1):
            before, after = getattr(self, f"model{n}_1"), getattr(self, f"model{n}_2")
            y = after(before(sizes[self.enhancers - n]) + y)
        return crop_to(y, x.shape[2:])

    def small(self, x: Tensor) -> Tensor:
        """x in the size of the global generator."""
        x = pad_to_multiple(x, self.multiple)
        for _ in range(self.enhancers):
            x = half(x)
        return x


class Head(nn.Module):
    """The last layers of the global generator, which only it needs while it learns alone."""

    def __init__(self, width: int, channels: int) -> None:
        self.model = nn.Sequential(*conv7(width, channels), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return self.model(x)


class FeatureEncoder(nn.Module):
    """Photos (N,channels,H,W) -> features (N,features,H,W) in [-1, 1], not yet pooled.

    Parameters
    ----------
    channels, features : of a photo, and of what it becomes.
    width : maps next to the photo.
    downs : halvings, and then doublings.
    """

    def __init__(
        self, channels: int = 3, features: int = 3, width: int = 16, downs: int = 4
    ) -> None:
        self.multiple = 2**downs
        layers = [*conv7(channels, width), nn.InstanceNorm2d(width), nn.ReLU()]
        for i in range(downs):
            layers += down(width * 2**i, width * 2 ** (i + 1))
        for i in reversed(range(downs)):
            layers += up(width * 2 ** (i + 1), width * 2**i)
        self.model = nn.Sequential(*layers, *conv7(width, features), nn.Tanh())

    def forward(self, x: Tensor) -> Tensor:
        return crop_to(self.model(pad_to_multiple(x, self.multiple)), x.shape[2:])


def shrunk(x: Tensor, times: int, multiple: int) -> Tensor:
    """Photos continued to a multiple, then 2^times smaller by means of pixels."""
    x = pad_to_multiple(x, multiple)
    return F.avg_pool2d(x, 2**times) if times else x
