"""What part of a stored picture a batch shows: cut, mirrored, padded; the same for all of a pair.

Jitter as in pix2pix: pictures are stored larger than wanted (286 for 256), and each epoch shows
another part of them, mirrored or not. The draws of a picture are row `index` of

    generator(seed, "jitter", epoch).random((N, 3))

so they depend on (seed, epoch, index) alone: a resumed run sees the same bits, and what belongs
together (photo, label map, instances) is cut alike.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.errors import UsageError
from minigan.random import generator

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Frame:
    """The size of what is shown.

    size : (H, W) that is cut out of the stored pictures.
    multiple : afterwards the last row and column are repeated until both sides are a multiple.
    """

    size: tuple[int, int]
    multiple: int = 1

    @property
    def shape(self) -> tuple[int, int]:
        """(H, W) of the result."""
        return padded_size(self.size, self.multiple)

    def cut(self, stored: Array, draws: Array | None = None, flip: bool = False) -> Array:
        """Cut pictures (B, C, H, W); with draws (B, 3) in [0, 1) at random, else in the centre."""
        height, width = self.size
        down, across = stored.shape[2] - height, stored.shape[3] - width
        if draws is None:
            centre = stored[:, :, down // 2 :, across // 2 :][:, :, :height, :width]
            return pad_to_multiple(centre, self.multiple)[0]
        out = np.empty((*stored.shape[:2], height, width), stored.dtype)
        for row, (u, v, mirrored) in enumerate(draws):
            top, left = int(u * (down + 1)), int(v * (across + 1))
            part = stored[row, :, top : top + height, left : left + width]
            out[row] = part[..., ::-1] if flip and mirrored < 0.5 else part
        return pad_to_multiple(out, self.multiple)[0]


def draws_of(seed: int, stream: str, epoch: int, count: int) -> Array:
    """The draws (count, 3) of all pictures in an epoch."""
    return generator(seed, stream, epoch).random((count, 3))


def enlarged(size: tuple[int, int], jitter: float) -> tuple[int, int]:
    """The size in which pictures are stored that are cut to `size`: `jitter` times as large."""
    if not 1 <= jitter <= 2:
        raise UsageError(
            f"jitter={jitter} is not from 1 to 2", fix="pix2pix takes 286 / 256 = 1.12"
        )
    return round(size[0] * jitter), round(size[1] * jitter)


def padded_size(size: tuple[int, int], multiple: int) -> tuple[int, int]:
    """The smallest (H, W) that contains `size` and divides by `multiple`."""
    if multiple < 1:
        raise UsageError(f"multiple={multiple} is not positive")
    height, width = (-(-side // multiple) * multiple for side in size)
    return height, width


def pad_to_multiple(images: Array, multiple: int) -> tuple[Array, tuple[int, int]]:
    """Repeat the last row and column of (..., H, W) until both sides divide by `multiple`.

    Returns
    -------
    the padded pictures, and (H, W) of before, to cut the result: ``result[..., :H, :W]``.
    """
    before = images.shape[-2], images.shape[-1]
    height, width = padded_size(before, multiple)
    if (height, width) == before:
        return images, before
    margin = [(0, 0)] * (images.ndim - 2) + [(0, height - before[0]), (0, width - before[1])]
    return np.pad(images, margin, mode="edge"), before
