"""Definition of upfirdn2d: up-sample, filter, down-sample."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]
Pair = tuple[int, int]


def upfirdn2d(
    x: Array, f: Array, up: Pair, down: Pair, padding: tuple[Pair, Pair], flip: bool = False
) -> Array:
    """Insert zeros, pad or crop, convolve each channel with a filter, keep every down-th element.

    Parameters
    ----------
    x : (N, C, H, W)
    f : (kh, kw)
    up, down : (rows, columns); up - 1 zeros follow every element.
    padding : ((top, bottom), (left, right)) zeros, after the insertion; negative widths crop.
    flip : False convolves (the filter runs backward), True correlates.

    Source: Karras et al., "Analyzing and Improving the Image Quality of StyleGAN" (2020), and the
    polyphase identities of Vaidyanathan's "Multirate Systems and Filter Banks" (1993).
    """
    (n, c, h, w), (kh, kw) = x.shape, f.shape
    wide = np.zeros((n, c, h * up[0], w * up[1]), x.dtype)
    wide[:, :, :: up[0], :: up[1]] = x
    added = [(0, 0), (0, 0), *[(max(a, 0), max(b, 0)) for a, b in padding]]
    wide = np.pad(wide, added)
    (top, bottom), (left, right) = [(max(-a, 0), max(-b, 0)) for a, b in padding]
    wide = wide[:, :, top : wide.shape[2] - bottom, left : wide.shape[3] - right]
    taps = (f if flip else f[::-1, ::-1]).astype(x.dtype)
    full = np.zeros((n, c, wide.shape[2] - kh + 1, wide.shape[3] - kw + 1), x.dtype)
    for i in range(kh):
        for j in range(kw):
            full += taps[i, j] * wide[:, :, i : i + full.shape[2], j : j + full.shape[3]]
    return full[:, :, :: down[0], :: down[1]]
