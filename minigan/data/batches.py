"""Batches in an order that depends on the seed and the epoch alone.

In epoch e the images come in the order ``generator(seed, "data", e).permutation(N)``. A position
is therefore two numbers (epoch, cursor); a run can begin at any step without replaying the ones
before it, and nothing about threads or timing can change what a step sees.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

import numpy as np
import numpy.typing as npt

from minigan.backend import to_device
from minigan.errors import DataError, MiniganError, UsageError
from minigan.random import generator

from .dataset import Dataset

Indices = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Batch:
    """What one training step sees.

    images : float32 (B, C, H, W) in [-1, 1].
    labels : int64 (B,), or None.
    indices : int64 (B,), the numbers of the images in the dataset.
    """

    images: npt.NDArray[np.float32]
    labels: npt.NDArray[np.int64] | None
    indices: Indices

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: str) -> Batch:
        """The same batch with images and labels as arrays on `device`."""
        labels = None if self.labels is None else to_device(self.labels, device)
        return replace(self, images=to_device(self.images, device), labels=labels)


class Batches:
    """Endless batches of a dataset: by number (`batch`), or one after the other (`for`).

    Parameters
    ----------
    dataset : what to draw from.
    batch_size : images per batch.
    seed : of the order (and of the flips).
    drop_last : leave out the images at the end of an epoch that do not fill a batch; otherwise
        the last batch of an epoch is smaller.
    flip : mirror each image left to right with probability 1/2. Not for letters and digits.

    Raises
    ------
    DataError : the dataset is empty, or smaller than one batch.
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
        if batch_size < 1:
            raise UsageError(f"batch size {batch_size} is not positive")
        if len(dataset) < (batch_size if drop_last else 1):
            raise DataError(
                f"{dataset.name} has {len(dataset)} images, too few for a batch of {batch_size}",
                fix=f"use a batch size of at most {len(dataset)}" if len(dataset) else "",
            )
        self.dataset, self.batch_size, self.seed = dataset, batch_size, seed
        self.drop_last, self.flip = drop_last, flip
        self.step = 0  # of the batch that comes next
        self._order: tuple[int, Indices] | None = None  # the permutation of one epoch

    @property
    def per_epoch(self) -> int:
        """Batches in one epoch."""
        whole, rest = divmod(len(self.dataset), self.batch_size)
        return whole + (rest > 0 and not self.drop_last)

    def indices(self, step: int) -> Indices:
        """Return the numbers of the images of a step."""
        epoch, place = divmod(step, self.per_epoch)
        order = self._order
        if order is None or order[0] != epoch:
            rng = generator(self.seed, "data", epoch)
            order = epoch, rng.permutation(len(self.dataset))
            self._order = order  # one assignment: another thread sees the old pair or the new
        start = place * self.batch_size
        return order[1][start : start + self.batch_size]

    def batch(self, step: int) -> Batch:
        """Return the batch of a step; errors name the images."""
        indices = self.indices(step)
        try:
            images = self.dataset.batch(indices)
        except MemoryError:
            raise
        except Exception as error:
            raise _with_images(error, step, indices) from error
        if self.flip:
            mirrored = generator(self.seed, "augment", step).random(len(indices)) < 0.5
            images[mirrored] = images[mirrored][..., ::-1]
        labels = self.dataset.labels
        return Batch(images, None if labels is None else labels[indices], indices)

    def state(self) -> dict[str, int]:
        """Return the position: the epoch, and how many images of it have been seen."""
        epoch, place = divmod(self.step, self.per_epoch)
        return {"epoch": epoch, "cursor": place * self.batch_size}

    def set_state(self, state: dict[str, int]) -> None:
        """Go to a position that `state` returned."""
        place, rest = divmod(state["cursor"], self.batch_size)
        if rest or not 0 <= place < self.per_epoch:
            raise UsageError(
                f"position {state['cursor']} is not the beginning of a batch of {self.batch_size}",
                fix="resume with the batch size and the dataset of before",
            )
        self.step = state["epoch"] * self.per_epoch + place

    def __iter__(self) -> Iterator[Batch]:
        return self

    def __next__(self) -> Batch:
        batch = self.batch(self.step)
        self.step += 1
        return batch


def _with_images(error: Exception, step: int, indices: Indices) -> MiniganError:
    """Return the error of a dataset with the numbers of the images that were being read."""
    where = f"batch of step {step}, images {', '.join(map(str, indices))}"
    if isinstance(error, MiniganError):
        full = type(error)(error.what, where=error.where, why=error.why, fix=error.fix)
        full.where = f"{error.where}; {where}" if error.where else where
        return full
    return DataError(f"reading a batch failed: {type(error).__name__}: {error}", where=where)
