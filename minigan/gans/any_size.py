"""Pictures of any size through a network that halves them: pad, compute, crop.

A network that halves a picture n times wants sides that are multiples of 2^n. Others are made
longer on both ends by repeating the border, and the result is cropped to the size that came in.
Sides that fit stay as they are. A border of 0 would be a colour that no picture has there.
"""

from __future__ import annotations

import minigan.functional as F
from minigan import nn
from minigan.tensor import Tensor


def padded(net: nn.Module, x: Tensor, multiple: int) -> Tensor:
    """net(x) for x (N,C,H,W) with any H and W; `net` gets multiples of `multiple`."""
    height, width = x.shape[2:]
    more_rows, more_columns = -height % multiple, -width % multiple
    if not (more_rows or more_columns):
        return net(x)
    top, left = more_rows // 2, more_columns // 2
    borders = (left, more_columns - left, top, more_rows - top)
    y: Tensor = net(F.pad(x, borders, "replicate"))
    return y[:, :, top : top + height, left : left + width]
