"""Up-sample, filter, down-sample, without ever multiplying an inserted zero."""

from __future__ import annotations

from functools import lru_cache
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu.resample import plane_map

Array = npt.NDArray[Any]
Pair = tuple[int, int]


def upfirdn2d(
    x: Array, f: Array, up: Pair, down: Pair, padding: tuple[Pair, Pair], flip: bool = False
) -> Array:
    """Insert zeros, pad or crop, convolve each channel with f, keep every down-th element.

    A filter of rank r is a sum of r outer products (its singular value decomposition; the usual
    binomial filters have rank 1). Each is a map along the columns after one along the rows.
    """
    taps = np.asarray(f if flip else f[::-1, ::-1])
    left, strengths, right = np.linalg.svd(taps.astype(np.float64), full_matrices=False)
    noise = 4 * np.finfo(taps.dtype).eps * strengths[0]
    rank = max(1, int((strengths > noise).sum()))
    rows = _polyphase(x.shape[2], taps.shape[0], up[0], down[0], padding[0])
    columns = _polyphase(x.shape[3], taps.shape[1], up[1], down[1], padding[1])
    y: Array | None = None
    for r in range(rank):
        vertical = (left[:, r] * strengths[r])[rows[1]]
        part = plane_map(x, rows[0], vertical, columns[0], right[r][columns[1]])
        y = part if y is None else y + part
    assert y is not None
    return y


@lru_cache(maxsize=256)
def _polyphase(n: int, k: int, up: int, down: int, padding: Pair) -> tuple[Array, Array]:
    """For each output the inputs that a filter of length k meets, and the taps that meet them.

    Output i covers places i down - padding[0] + 0, .., k - 1 of the up-sampled axis, of which only
    multiples of `up` hold an input. Both tables are (out, ceil(k / up)); -1 marks "no input".
    """
    out = (n * up + padding[0] + padding[1] - k) // down + 1
    start = np.arange(out) * down - padding[0]
    tap = (-start % up)[:, None] + up * np.arange(-(-k // up))
    source = (start[:, None] + tap) // up
    valid = (tap < k) & (source >= 0) & (source < n)
    return np.where(valid, source, -1).astype(np.int64), np.where(valid, tap, 0)
