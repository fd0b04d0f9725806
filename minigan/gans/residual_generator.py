"""The generator of CycleGAN: halve twice, residual blocks, double twice.

Johnson, Alahi, Fei-Fei: Perceptual Losses for Real-Time Style Transfer (2016), arXiv:1603.08155;
Zhu, Park, Isola, Efros (2017), arXiv:1703.10593, section 7.1.

    7x7 width -> 3x3 stride 2, 2 width -> 3x3 stride 2, 4 width
    -> n times x + C(R(C(x))) -> transposed 3x3, 2 width -> transposed 3x3, width -> 7x7, tanh

Every convolution but the last is followed by a norm. Borders are mirrored before 7x7 kernels and in
the blocks, so that no frame of zeros shows in the picture.

Names of layers are those of the authors' PyTorch code: model.{i}, model.{i}.conv_block.{j}.
"""

from __future__ import annotations

from minigan import nn
from minigan.gans.any_size import padded
from minigan.gans.patches import has_bias, norm_layer
from minigan.tensor import Tensor


class ResNetGenerator(nn.Module):
    """Pictures (N,channels_in,H,W) -> (N,channels_out,H,W) in [-1, 1], of any size from 8 pixels.

    Sides are padded to a multiple of 4 by repeating the border, the result is cropped.

    Parameters
    ----------
    channels_in, channels_out : of the pictures.
    width : maps at full size; the blocks have 4 times as many.
    blocks : n; 9 for 256 pixels, 6 for 128 and less.
    norm : "instance", "batch" or "none".
    dropout : probability, within the blocks; 0: none.
    """

    multiple = 4

    def __init__(
        self,
        channels_in: int = 3,
        channels_out: int = 3,
        width: int = 64,
        blocks: int = 9,
        norm: str = "instance",
        dropout: float = 0.0,
    ) -> None:
        bias = has_bias(norm)
        layers: list[nn.Module] = [
            nn.ReflectionPad2d(3),
            nn.Conv2d(channels_in, width, 7, bias=bias),
            *norm_layer(norm, width),
            nn.ReLU(),
        ]
        for maps in (width, 2 * width):
            down = nn.Conv2d(maps, 2 * maps, 3, 2, 1, bias=bias)
            layers += [down, *norm_layer(norm, 2 * maps), nn.ReLU()]
        layers += [Residual(4 * width, norm, dropout) for _ in range(blocks)]
        for maps in (4 * width, 2 * width):
            up = nn.ConvTranspose2d(maps, maps // 2, 3, 2, 1, output_padding=1, bias=bias)
            layers += [up, *norm_layer(norm, maps // 2), nn.ReLU()]
        layers += [nn.ReflectionPad2d(3), nn.Conv2d(width, channels_out, 7), nn.Tanh()]
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        return padded(self.model, x, self.multiple)


class Residual(nn.Module):
    """x + C(R(C(x))), C 3x3 with a mirrored border and a norm."""

    def __init__(self, maps: int, norm: str, dropout: float = 0.0) -> None:
        bias = has_bias(norm)
        self.conv_block = nn.Sequential(
            nn.ReflectionPad2d(1),
            nn.Conv2d(maps, maps, 3, bias=bias),
            *norm_layer(norm, maps),
            nn.ReLU(),
            *([nn.Dropout(dropout)] if dropout else []),
            nn.ReflectionPad2d(1),
            nn.Conv2d(maps, maps, 3, bias=bias),
            *norm_layer(norm, maps),
        )

    def forward(self, x: Tensor) -> Tensor:
        return x + self.conv_block(x)
