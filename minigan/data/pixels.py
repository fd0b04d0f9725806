"""Pixels as bytes and as numbers in [-1, 1], and pictures of another size.

    float = byte / 127.5 - 1        byte = round((float + 1) * 127.5)

which takes every byte to a number and back to the same byte.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.errors import UsageError

Array = npt.NDArray[Any]
Bytes = npt.NDArray[np.uint8]

_PAD_UP_TO = 4 / 3  # a margin up to this factor; beyond it pictures are enlarged instead


def to_float(images: Bytes) -> npt.NDArray[np.float32]:
    """Return float32 in [-1, 1] for bytes 0 to 255, any shape."""
    values = images.astype(np.float32)
    values /= np.float32(127.5)
    values -= np.float32(1)
    return values


def to_uint8(values: Array) -> Bytes:
    """Return bytes for numbers in [-1, 1]; what lies outside is clipped, NaN becomes 0."""
    scaled = (np.nan_to_num(values, nan=-1.0, posinf=1.0, neginf=-1.0) + 1) * 127.5
    result: Bytes = np.rint(np.clip(scaled, 0, 255)).astype(np.uint8)
    return result


def size_pair(size: int | tuple[int, int]) -> tuple[int, int]:
    """Return (height, width) for `size`, one number meaning a square."""
    height, width = (size, size) if isinstance(size, int) else size
    if height < 1 or width < 1:
        raise UsageError(f"image size {height} x {width} is not positive")
    return height, width


def with_channels(images: Bytes, channels: int) -> Bytes:
    """Return (N, channels, H, W): grey repeated to colour, or colour weighted to grey.

    Grey is 0.299 R + 0.587 G + 0.114 B (ITU-R BT.601), as Pillow computes it.
    """
    have = images.shape[1]
    if have == channels:
        return images
    if channels == 3 and have == 1:
        return np.repeat(images, 3, axis=1)
    if channels == 1 and have == 3:
        weights = np.array([19595, 38470, 7471], np.uint32)[:, None, None]  # in 1 / 65536
        grey = (images * weights).sum(axis=1, keepdims=True, dtype=np.uint32)
        rounded: Bytes = ((grey + 0x8000) >> 16).astype(np.uint8)
        return rounded
    raise UsageError(f"cannot turn {have} channels into {channels}", fix="use channels=1 or 3")


def resized(images: Bytes, size: int | tuple[int, int]) -> Bytes:
    """Return small pictures (N, C, H, W) in another size.

    Up to 4/3 of the size a margin of zeros is added on all sides (28 to 32: two pixels each), so
    that every pixel stays what it was. Otherwise the picture is scaled (bicubic, with the support
    widened when it shrinks), without keeping its proportions.
    """
    from PIL import Image

    height, width = size_pair(size)
    count, channels, h, w = images.shape
    if (h, w) == (height, width):
        return images
    out = np.zeros((count, channels, height, width), np.uint8)
    if h <= height <= h * _PAD_UP_TO and w <= width <= w * _PAD_UP_TO:
        top, left = (height - h) // 2, (width - w) // 2
        out[:, :, top : top + h, left : left + w] = images
        return out
    for i in range(count):
        for c in range(channels):
            picture = Image.fromarray(images[i, c])
            out[i, c] = np.asarray(picture.resize((width, height), Image.Resampling.BICUBIC))
    return out
