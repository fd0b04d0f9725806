"""Convolutions that are matrix products as they stand.

With channels-last memory nothing has to be gathered where each number of the input is met once:

- kernels as large as the input, so that the output is 1x1: the last layer of a discriminator, and
  the other way around, from 1x1 to a map, the first layer of a generator;
- kernels of one pixel, moved by one pixel: a linear layer at every place.

Seen as matrices, with a row for each output pixel and K = KH KW C,

    Y = X W^T,    dX = G W,    dW = G^T X       X (rows, K), W (O, K), Y and G (rows, O)

Where only a few numbers are summed for each result, writing it takes all the time: `thin` does that
without packing anything.
"""

from __future__ import annotations

from typing import Any

import numpy.typing as npt

from minigan_kernels.cpu import thin
from minigan_kernels.cpu.matmul import product_into
from minigan_kernels.cpu.thin import THIN

Array = npt.NDArray[Any]
Pair = tuple[int, int]


def takes(size: Pair, kernel_size: Pair, stride: Pair, padding: Pair) -> bool:
    """Whether these kernels are for a convolution of images of this size (H, W).

    If its input may be larger than its output needs, the caller looks at the output as well: it
    is 1x1, or as large as the input.
    """
    pixel = kernel_size == stride == (1, 1)
    return padding == (0, 0) and (pixel or size == kernel_size)


def forward(x: Array, weight: Array, y: Array, stride: Pair, padding: Pair, dilation: Pair) -> None:
    """y = conv(x, weight).   x (N,H,W,C), weight (O,KH,KW,C), y (N,Ho,Wo,O)."""
    w = _rows(weight, weight.size // weight.shape[0])
    if w.shape[1] <= THIN:
        thin.forward(x, weight, y, stride, padding, dilation)
    else:
        product_into(_rows(x, w.shape[1]), w.T, _rows(y, y.shape[3]))


def transpose(
    g: Array, weight: Array, x: Array, stride: Pair, padding: Pair, dilation: Pair
) -> None:
    """x = conv_transpose(g, weight), the input gradient of `forward`."""
    w = _rows(weight, weight.size // weight.shape[0])
    if w.shape[0] <= THIN and weight.shape[1:3] == (1, 1):
        thin.transpose(g, weight, x, stride, padding, dilation)
    else:
        product_into(_rows(g, w.shape[0]), w, _rows(x, w.shape[1]))


def weight_grad(x: Array, g: Array, dw: Array, stride: Pair, padding: Pair, dilation: Pair) -> None:
    """dw[o,kh,kw,c] = sum over n, i, j of g[n,i,j,o] x[n, i + kh, j + kw, c]."""
    w = _rows(dw, dw.size // dw.shape[0])
    product_into(_rows(g, w.shape[0]).T, _rows(x, w.shape[1]), w)


def _rows(x: Array, width: int) -> Array:
    return x.reshape(-1, width)
