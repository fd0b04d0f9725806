"""What all kinds of batches have in common: a batch is a function of its step.

In epoch e the pictures come in the order ``generator(seed, "data", e).permutation(N)``. A position
is therefore two numbers (epoch, cursor); a run can begin at any step without replaying the ones
before it, and nothing about threads or timing can change what a step sees.
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Iterator
from dataclasses import fields, replace
from typing import Any, Generic, Self, TypeVar

import numpy as np
import numpy.typing as npt

from minigan.backend import to_device
from minigan.errors import DataError, MiniganError, UsageError
from minigan.random import generator

from .dataset import Dataset

Indices = npt.NDArray[np.int64]
B = TypeVar("B")


class Shown:
    """What one step sees: a dataclass of arrays (or None), `indices` among them."""

    indices: Indices

    def __len__(self) -> int:
        return len(self.indices)

    def to(self, device: str) -> Self:
        """The same batch with all arrays but the indices on `device`."""
        whole: Any = self
        known = ((field.name, getattr(self, field.name)) for field in fields(whole))
        arrays = {n: to_device(v, device) for n, v in known if v is not None and n != "indices"}
        return replace(whole, **arrays)


class Ordered(ABC, Generic[B]):
    """Endless batches of a dataset: by number (`batch`), or one after the other (`for`).

    Parameters
    ----------
    dataset : what to draw from.
    batch_size : images per batch.
    seed : of the order (and of what is changed at random).
    drop_last : leave out the images at the end of an epoch that do not fill a batch; otherwise
        the last batch of an epoch is smaller.

    Raises
    ------
    DataError : the dataset is empty, or smaller than one batch.
    """

    def __init__(
        self, dataset: Dataset, batch_size: int, seed: int = 0, *, drop_last: bool = True
    ) -> None:
        if batch_size < 1:
            raise UsageError(f"batch size {batch_size} is not positive")
        if len(dataset) < (batch_size if drop_last else 1):
            raise DataError(
                f"{dataset.name} has {len(dataset)} images, too few for a batch of {batch_size}",
                fix=f"use a batch size of at most {len(dataset)}" if len(dataset) else "",
            )
        self.dataset: Any = dataset
        self.batch_size, self.seed, self.drop_last = batch_size, seed, drop_last
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

    def batch(self, step: int) -> B:
        """Return the batch of a step; errors name the images."""
        indices = self.indices(step)
        try:
            return self.made(step, indices)
        except MemoryError:
            raise
        except Exception as error:
            raise _with_images(error, step, indices) from error

    @abstractmethod
    def made(self, step: int, indices: Indices) -> B:
        """Read the images of a step and make the batch of them."""

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

    def __iter__(self) -> Iterator[B]:
        return self

    def __next__(self) -> B:
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
