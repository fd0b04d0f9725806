"""Channels into space and back: pixel shuffle; the standard deviation over a minibatch."""

from __future__ import annotations

from minigan.errors import ShapeError, UsageError
from minigan.ops.elementwise import sqrt
from minigan.ops.shape import broadcast_to, concat
from minigan.tensor import Tensor


def pixel_shuffle(x: Tensor, upscale_factor: int) -> Tensor:
    """(N, C r^2, H, W) -> (N, C, H r, W r): channel c r^2 + i r + j goes to pixel (i, j) of r x r.

    Source: Shi et al., "Real-Time Single Image and Video Super-Resolution" (2016), equation 4.
    """
    r = _factor("pixel_shuffle", x, upscale_factor)
    n, c, h, w = x.shape
    if c % (r * r):
        raise ShapeError(
            f"pixel_shuffle: {c} channels do not divide by {r}^2",
            where=f"x {x.shape}, upscale_factor {r}",
        )
    blocks = x.reshape(n, c // (r * r), r, r, h, w)
    return blocks.transpose(0, 1, 4, 2, 5, 3).reshape(n, c // (r * r), h * r, w * r)


def pixel_unshuffle(x: Tensor, downscale_factor: int) -> Tensor:
    """(N, C, H r, W r) -> (N, C r^2, H, W), the inverse of `pixel_shuffle`."""
    r = _factor("pixel_unshuffle", x, downscale_factor)
    n, c, h, w = x.shape
    if h % r or w % r:
        raise ShapeError(
            f"pixel_unshuffle: {h} x {w} pixels do not divide by {r}",
            where=f"x {x.shape}, downscale_factor {r}",
        )
    blocks = x.reshape(n, c, h // r, r, w // r, r)
    return blocks.transpose(0, 1, 3, 5, 2, 4).reshape(n, c * r * r, h // r, w // r)


def _factor(name: str, x: Tensor, factor: int) -> int:
    if x.ndim != 4:
        raise ShapeError(f"{name}: x {x.shape} is not (N, C, H, W)")
    if int(factor) != factor or factor < 1:
        raise UsageError(f"{name}: factor {factor} is not a positive integer")
    return int(factor)


def minibatch_stddev(
    x: Tensor, group_size: int = 4, num_channels: int = 1, eps: float = 1e-8
) -> Tensor:
    """Append to x (N,C,H,W) how much each group of samples varies.

    With M = N / G groups of G samples (sample n belongs to group n mod M) and C cut into F parts:
    s[m, f] = mean over c, h, w of sqrt(variance over the group of x[:, f, c, h, w] + eps),
    repeated over the map and over the samples of the group. A group of one sample gives sqrt(eps).

    Parameters
    ----------
    group_size : G becomes the largest divisor of N that is not above it; N of 5 with a
        group_size of 4 gives groups of one.
    num_channels : F, how many statistics per group; it divides C.
    eps : added to the biased variance.

    Returns
    -------
    (N, C + F, H, W)

    Source: Karras et al., "Progressive Growing of GANs" (2018), section 3.
    """
    if x.ndim != 4:
        raise ShapeError(f"minibatch_stddev: x {x.shape} is not (N, C, H, W)")
    n, c, h, w = x.shape
    if group_size < 1 or num_channels < 1 or c % num_channels:
        raise UsageError(
            f"minibatch_stddev: group_size {group_size}, num_channels {num_channels}",
            where=f"x {x.shape}",
            why="both are positive, and num_channels divides the channels",
        )
    if n == 0:
        return concat([x, x[:, :num_channels]], 1)
    size = max(g for g in range(1, min(group_size, n) + 1) if n % g == 0)
    groups = x.reshape(size, n // size, num_channels, c // num_channels, h, w)  # G,M,F,c,H,W
    centred = groups - groups.mean(0, keepdims=True)
    deviation = sqrt((centred * centred).mean(0) + eps).mean((2, 3, 4))  # M,F
    one_each = deviation.reshape(1, n // size, num_channels, 1, 1)
    spread = broadcast_to(one_each, (size, n // size, num_channels, h, w))
    return concat([x, spread.reshape(n, num_channels, h, w)], 1)
