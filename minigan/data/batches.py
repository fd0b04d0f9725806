"""Batches of single images; see `ordered` for the order in which they come."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from minigan.random import generator

from .dataset import Dataset
from .ordered import Indices, Ordered, Shown


@dataclass(frozen=True)
class Batch(Shown):
    """What one training step sees.

    images : float32 (B, C, H, W) in [-1, 1].
    labels : int64 (B,), or None.
    indices : int64 (B,), the numbers of the images in the dataset.
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64] | None
    indices: Indices


class Batches(Ordered[Batch]):
    """Endless batches of a dataset; see `Ordered`.

    flip : mirror each image left to right with probability 1/2. Not for letters and digits.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int = 0,
        *,
        drop_last: bool = True,
        flip: bool = False,
    ) -> None:
        super().__init__(dataset, batch_size, seed, drop_last=drop_last)
        self.flip = flip

    def made(self, step: int, indices: Indices) -> Batch:
        images = self.dataset.batch(indices)
        if self.flip:
            mirrored = generator(self.seed, "augment", step).random(len(indices)) < 0.5
            images[mirrored] = images[mirrored][..., ::-1]
        labels = self.dataset.labels
        return Batch(images, None if labels is None else labels[indices], indices)
