"""A dataset: numbered images, with labels if there are any."""

from __future__ import annotations

import hashlib
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.errors import DataError

from .pixels import Bytes, to_float

Indices = npt.ArrayLike


class Dataset:
    """Images in memory, and what is known about them.

    Parameters
    ----------
    name : what messages call the set.
    images : uint8 (N, C, H, W).
    labels : int64 (N,), class numbers from 0, or None.
    classes : the name of each class.
    split : "train" or "test".
    source : where it came from: a folder, or how it was made.
    """

    def __init__(
        self,
        name: str,
        images: Bytes,
        labels: npt.NDArray[np.int64] | None = None,
        classes: tuple[str, ...] = (),
        *,
        split: str = "train",
        source: str = "",
    ) -> None:
        if images.dtype != np.uint8 or images.ndim != 4:
            raise DataError(f"{name}: images must be uint8 (N, C, H, W), not {_kind(images)}")
        if labels is not None:
            labels = checked_labels(name, np.asarray(labels), len(images), classes)
        self.name, self.split, self.source = name, split, source
        self._images, self.labels, self.classes = images, labels, classes

    @property
    def images(self) -> Bytes:
        """All images, uint8 (N, C, H, W)."""
        return self._images

    @property
    def image_shape(self) -> tuple[int, int, int]:
        """C, H, W."""
        channels, height, width = self._images.shape[1:]
        return channels, height, width

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over images and labels: equal data, equal fingerprint."""
        digest = hashlib.sha256(str(self._images.shape).encode())
        digest.update(np.ascontiguousarray(self._images).data)
        if self.labels is not None:
            digest.update(self.labels.astype("<i8").data)
        return digest.hexdigest()

    def raw(self, indices: Indices) -> Bytes:
        """Return some images as bytes, uint8 (B, C, H, W)."""
        return self._images[np.asarray(indices, np.intp)]

    def batch(self, indices: Indices) -> npt.NDArray[np.float32]:
        """Return some images as float32 (B, C, H, W) in [-1, 1]."""
        return to_float(self.raw(indices))

    def __len__(self) -> int:
        return len(self._images)

    def __repr__(self) -> str:
        shape = "x".join(map(str, self.image_shape))
        classes = f", {len(self.classes)} classes" if self.classes else ""
        return f"<{type(self).__name__} {self.name} ({self.split}): {len(self)} x {shape}{classes}>"


def checked_labels(
    name: str, labels: npt.NDArray[Any], count: int, classes: tuple[str, ...]
) -> npt.NDArray[np.int64]:
    """Return labels as int64 after checking their number and range; DataError otherwise."""
    if labels.shape != (count,):
        raise DataError(
            f"{name}: {len(labels)} labels for {count} images",
            why="every image needs one label",
        )
    labels = labels.astype(np.int64)
    if classes and count and not (labels.min() >= 0 and labels.max() < len(classes)):
        bad = int(np.flatnonzero((labels < 0) | (labels >= len(classes)))[0])
        raise DataError(
            f"{name}: label {labels[bad]} of image {bad} is out of range",
            why=f"there are {len(classes)} classes, 0 to {len(classes) - 1}",
        )
    return labels


def _kind(array: npt.NDArray[Any]) -> str:
    return f"{array.dtype} {array.shape}"
