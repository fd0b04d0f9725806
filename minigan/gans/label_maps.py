"""Label maps: the number of a class at every pixel. What is done to them, and with them."""

from __future__ import annotations

from typing import Any, NamedTuple

import numpy as np

import minigan.functional as F
from minigan.backend import Array
from minigan.errors import ShapeError, UsageError
from minigan.tensor import Tensor

UNKNOWN = 255  # the label of pixels that nobody has classified


class Maps(NamedTuple):
    """Label maps (N,H,W), and what may be known beside them."""

    labels: Array
    edges: Array | None  # (N,1,H,W)
    instances: Array | None  # (N,H,W)
    photos: Array | None  # (N,C,H,W)

    def part(self, which: slice) -> Maps:
        """Some of them."""
        return Maps(*(None if field is None else field[which] for field in self))  # type: ignore


def maps_of(batch: Any) -> Maps:
    """The maps and photos of a batch."""
    fields: Any = [getattr(batch, name, None) for name in Maps._fields]
    return Maps(*fields)


def check_maps(maps: Array, classes: int, unknown: bool, name: str) -> None:
    """Refuse maps with labels that are no class; only those on the host are looked at."""
    if maps.dtype.kind not in "iu" or maps.ndim != 3:
        raise ShapeError(
            f"{name}: label maps are {maps.dtype} of shape {maps.shape}",
            fix="give whole numbers of shape (N,H,W)",
        )
    if not isinstance(maps, np.ndarray) or not maps.size:
        return
    wrong = (maps < 0) | (maps >= classes)
    if unknown:
        wrong &= maps != UNKNOWN
    if wrong.any():
        image, row, column = (int(i) for i in np.argwhere(wrong)[0])
        label = int(maps[image, row, column])
        hint = ", or -o unknown=true if 255 means unknown" if label == UNKNOWN else ""
        raise UsageError(
            f"{name}: label {label} is none of the {classes} classes",
            where=f"map {image} of the batch, row {row}, column {column}",
            why=f"labels run from 0 to {classes - 1}",
            fix=f"mend the map, or -o classes=N with all classes of the data{hint}",
        )


def edges_of(ids: Tensor, dtype: Any) -> Tensor:
    """1 where the number differs from that above, below, left or right: (N,H,W) -> (N,1,H,W)."""
    n, height, width = ids.shape
    ids = ids.reshape(n, 1, height, width)
    down = (ids[:, :, 1:] != ids[:, :, :-1]).astype(dtype)
    right = (ids[:, :, :, 1:] != ids[:, :, :, :-1]).astype(dtype)
    vertical = F.maximum(F.pad(down, (0, 0, 0, 1)), F.pad(down, (0, 0, 1, 0)))
    horizontal = F.maximum(F.pad(right, (0, 1)), F.pad(right, (1, 0)))
    return F.maximum(vertical, horizontal)


def pad_to_multiple(x: Tensor, multiple: int) -> Tensor:
    """Repeat the last rows and columns until H and W are multiples."""
    height, width = x.shape[2:]
    below, beside = -height % multiple, -width % multiple
    return F.pad(x, (0, beside, 0, below), mode="replicate") if below or beside else x


def crop_to(x: Tensor, size: tuple[int, ...]) -> Tensor:
    """The upper left part."""
    height, width = size
    return x if x.shape[2:] == (height, width) else x[:, :, :height, :width]


def coloured(maps: Array, colours: Array) -> Array:
    """Label maps (N,H,W) as images (N,3,H,W) in [-1, 1]; what has no colour is black."""
    table = np.zeros((256, 3), np.uint8)
    table[: len(colours)] = colours[:256]
    return table[maps].transpose(0, 3, 1, 2).astype(np.float32) / 127.5 - 1
