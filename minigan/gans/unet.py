"""U-Net: the generator of pix2pix, an encoder and a decoder with shortcuts between equal sizes.

Ronneberger, Fischer, Brox: U-Net (2015), arXiv:1505.04597; Isola et al. (2016), arXiv:1611.07004.

    e_1 = C(x),  e_i = C(L e_{i-1})            C: 4x4, stride 2, halves a map;  L: leaky ReLU
    d_n = T(R e_n),  d_i = T(R [e_i, d_{i+1}])  T: its transpose, doubles it;    R: ReLU
    G(x) = tanh(d_1)

Level i has width * 2^(i-1) maps, 8 width at most. C and T are followed by a norm, except in the
first level and after the innermost C: its maps may be a single pixel, which a norm would set to 0.
A picture of 256 pixels and n = 8 levels ends in such a pixel. Dropout after some d_i is the only
noise that G has.

Names of layers are those of the authors' PyTorch code: model.model.1.model.3 ... .
"""

from __future__ import annotations

import minigan.functional as F
from minigan import nn
from minigan.errors import UsageError
from minigan.gans.any_size import padded
from minigan.gans.checks import check_choice
from minigan.gans.patches import has_bias, norm_layer
from minigan.tensor import Tensor

MOST_LEVELS = 8


def levels_for(sides: tuple[int, int]) -> int:
    """As many levels as halve the shorter side to one pixel, from 2 to 8: 128 has 7."""
    return max(2, min(MOST_LEVELS, min(sides).bit_length() - 1))


def dropped(place: str, levels: int) -> range:
    """The levels whose d_i are dropped out: levels count from 1, next to the picture."""
    check_choice("dropout_at", place, ("middle", "deepest"))
    return range(5, levels) if place == "middle" else range(max(2, levels - 2), levels + 1)


class UNet(nn.Module):
    """Pictures (N,channels_in,H,W) -> (N,channels_out,H,W) in [-1, 1], of any size.

    Sides are padded to a multiple of 2^levels by repeating the border, the result is cropped.

    Parameters
    ----------
    channels_in, channels_out : of the pictures.
    levels : n halvings; 8 for 256 pixels, 7 for 128.
    width : maps of the first level.
    norm : "batch", "instance" or "none".
    dropout : probability; 0: none.
    dropout_at : "middle": levels 5 ... n-1, as the authors' PyTorch code, which is none up to 5
        levels; "deepest": the three innermost, as their first code.
    """

    def __init__(
        self,
        channels_in: int = 3,
        channels_out: int = 3,
        levels: int = 8,
        width: int = 64,
        norm: str = "batch",
        dropout: float = 0.5,
        dropout_at: str = "middle",
    ) -> None:
        if not 2 <= levels <= 12:
            raise UsageError(f"U-Net: {levels} levels", why="it needs 2 and has at most 12")
        self.multiple = 2**levels
        noisy = dropped(dropout_at, levels) if dropout else range(0)
        maps = [channels_out, *(width * min(2**i, 8) for i in range(levels))]
        inside = None
        for i in range(levels, 1, -1):
            p = dropout if i in noisy else 0.0
            inside = Level(maps[i - 1], maps[i], inside, norm, p)
        self.model = Level(maps[0], maps[1], inside, norm, channels_in=channels_in)

    def forward(self, x: Tensor) -> Tensor:
        return padded(self.model, x, self.multiple)


class Level(nn.Module):
    """x -> [x, d(x)]: half the size, the levels `inside`, the size of before, beside the input.

    Parameters
    ----------
    outer, inner : maps outside (of x and of d), and inside.
    inside : None for the innermost level.
    norm, dropout : see `UNet`.
    channels_in : of the picture. Only the outermost level has it: its result is tanh(d) alone.
    """

    def __init__(
        self,
        outer: int,
        inner: int,
        inside: Level | None,
        norm: str,
        dropout: float = 0.0,
        channels_in: int = 0,
    ) -> None:
        self.is_outermost, bias = channels_in > 0, has_bias(norm)
        down = nn.Conv2d(channels_in or outer, inner, 4, 2, 1, bias=bias)
        come = inner if inside is None else 2 * inner
        up = nn.ConvTranspose2d(come, outer, 4, 2, 1, bias=bias or self.is_outermost)
        middle: list[nn.Module] = []
        if inside is not None:
            middle = [inside] if self.is_outermost else [*norm_layer(norm, inner), inside]
        if self.is_outermost:
            layers = [down, *middle, nn.ReLU(), up, nn.Tanh()]
        else:
            layers = [nn.LeakyReLU(0.2), down, *middle, nn.ReLU(), up, *norm_layer(norm, outer)]
            layers += [nn.Dropout(dropout)] if dropout else []
        self.model = nn.Sequential(*layers)

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.model(x)
        return y if self.is_outermost else F.concat([x, y], 1)
