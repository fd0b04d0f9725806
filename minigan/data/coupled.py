"""Batches of two pictures each: pairs, photos with label maps, and pictures of two kinds."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.errors import DataError
from minigan.random import generator

from .batches import Batches
from .dataset import Dataset
from .frame import draws_of
from .ordered import B, Indices, Ordered, Shown
from .pixels import to_float
from .views import LabelDataset, PairDataset, UnpairedDataset

Floats = npt.NDArray[np.float32]
Maps = npt.NDArray[np.int64]


@dataclass(frozen=True)
class PairBatch(Shown):
    """a is given, b is wanted: float32 (B, C, H, W) in [-1, 1]; indices int64 (B,)."""

    a: Floats
    b: Floats
    indices: Indices

    @property
    def images(self) -> Floats:
        """What the generator shall make."""
        return self.b


@dataclass(frozen=True)
class LabelBatch(Shown):
    """Photos with the class of each pixel.

    photos : float32 (B, C, H, W) in [-1, 1].
    labels : int64 (B, H, W), classes.
    instances : int64 (B, H, W), equal within one thing, or None.
    edges : float32 (B, 1, H, W), 1 where a thing ends, or None.
    indices : int64 (B,).
    """

    photos: Floats
    labels: Maps
    instances: Maps | None
    edges: Floats | None
    indices: Indices

    @property
    def images(self) -> Floats:
        """What the generator shall make."""
        return self.photos


@dataclass(frozen=True)
class UnpairedBatch(Shown):
    """a and b: float32 (B, C, H, W) in [-1, 1], independent of one another.

    indices : int64 (B, 2), the numbers in A and in B.
    """

    a: Floats
    b: Floats
    indices: Indices

    @property
    def images(self) -> Floats:
        """The pictures of kind B."""
        return self.b


class _Jittered(Ordered[B]):
    """Batches whose pictures are cut and mirrored at random; see `frame`.

    flip : mirror each picture left to right with probability 1/2.
    """

    def __init__(
        self,
        dataset: Dataset,
        batch_size: int,
        seed: int = 0,
        *,
        drop_last: bool = True,
        flip: bool = True,
    ) -> None:
        super().__init__(dataset, batch_size, seed, drop_last=drop_last)
        self.flip = flip
        self._draws: tuple[int, npt.NDArray[Any]] | None = None

    def cut(self, of: Dataset, step: int, indices: Indices) -> npt.NDArray[Any]:
        """Pictures of a part of the dataset as this step shows them."""
        epoch, known = step // self.per_epoch, self._draws
        if known is None or known[0] != epoch:
            known = epoch, draws_of(self.seed, "jitter", epoch, len(self.dataset))
            self._draws = known
        return self.dataset.frame.cut(of.raw(indices), known[1][indices], self.flip)


class PairBatches(_Jittered[PairBatch]):
    """Endless batches of a PairDataset, jitter shared by the pair; see `Ordered`, `frame`."""

    def made(self, step: int, indices: Indices) -> PairBatch:
        pairs: PairDataset = self.dataset
        a, b = (to_float(self.cut(side, step, indices)) for side in (pairs.a, pairs.b))
        return PairBatch(a, b, indices)


class LabelBatches(_Jittered[LabelBatch]):
    """Endless batches of a LabelDataset, jitter shared by photo and maps; see `frame`."""

    def made(self, step: int, indices: Indices) -> LabelBatch:
        data: LabelDataset = self.dataset
        photos = to_float(self.cut(data.photos, step, indices))
        labels = self.cut(data.label_maps, step, indices)[:, 0].astype(np.int64)
        if data.instances is None:
            return LabelBatch(photos, labels, None, None, indices)
        instances = self.cut(data.instances, step, indices)[:, 0].astype(np.int64)
        return LabelBatch(photos, labels, instances, instance_edges(instances), indices)


class UnpairedBatches(Ordered[UnpairedBatch]):
    """Endless batches of an UnpairedDataset: A and B each in an order of their own.

    Picture number k of A is ``permutation_e[k % N]`` in its epoch e = k // N, and the same with B;
    neither waits for the other, and none is left out. An epoch of the batches is one of the larger
    kind.
    """

    def __init__(
        self, dataset: UnpairedDataset, batch_size: int, seed: int = 0, *, flip: bool = True
    ) -> None:
        for side, part in (("A", dataset.a), ("B", dataset.b)):
            if not len(part):
                raise DataError(f"{dataset.name} has no pictures of kind {side}")
        super().__init__(dataset, batch_size, seed, drop_last=False)
        self.flip = flip
        self._known: dict[tuple[str, int], npt.NDArray[Any]] = {}

    @property
    def per_epoch(self) -> int:
        """Batches in which each picture of the larger kind is seen."""
        return -(-max(len(self.dataset.a), len(self.dataset.b)) // self.batch_size)

    def indices(self, step: int) -> Indices:
        """Return the numbers (B, 2) of the pictures of a step, in A and in B."""
        return np.stack([self._places("a", step)[1], self._places("b", step)[1]], 1)

    def made(self, step: int, indices: Indices) -> UnpairedBatch:
        sides = [to_float(self._pictures(side, step)) for side in ("a", "b")]
        return UnpairedBatch(sides[0], sides[1], indices)

    def _places(self, side: str, step: int) -> tuple[Indices, Indices]:
        """The epochs and the numbers of the pictures of one kind."""
        count = len(getattr(self.dataset, side))
        epochs, rest = np.divmod(np.arange(self.batch_size) + step * self.batch_size, count)
        orders = {e: self._of_epoch("data", side, int(e)) for e in np.unique(epochs)}
        return epochs, np.array([orders[e][r] for e, r in zip(epochs, rest, strict=True)], np.int64)

    def _pictures(self, side: str, step: int) -> npt.NDArray[Any]:
        epochs, numbers = self._places(side, step)
        draws = [self._of_epoch("jitter", side, int(e))[i]
                 for e, i in zip(epochs, numbers, strict=True)]  # fmt: skip
        raw = getattr(self.dataset, side).raw(numbers)
        return self.dataset.frame.cut(raw, np.stack(draws), self.flip)

    def _of_epoch(self, what: str, side: str, epoch: int) -> npt.NDArray[Any]:
        """The order or the draws of one kind in one of its epochs."""
        stream, count = f"{what}-{side}", len(getattr(self.dataset, side))
        found = self._known.get((stream, epoch))
        if found is None:
            if what == "data":
                found = generator(self.seed, stream, epoch).permutation(count)
            else:
                found = draws_of(self.seed, stream, epoch, count)
            if len(self._known) > 16:
                self._known = {}
            self._known[stream, epoch] = found
        return found


def instance_edges(instances: npt.NDArray[Any]) -> Floats:
    """1 where a pixel differs from one of its four neighbours (pix2pixHD): float32 (B, 1, H, W)."""
    edges = np.zeros(instances.shape, bool)
    beside = instances[:, :, 1:] != instances[:, :, :-1]
    below = instances[:, 1:] != instances[:, :-1]
    edges[:, :, 1:] |= beside
    edges[:, :, :-1] |= beside
    edges[:, 1:] |= below
    edges[:, :-1] |= below
    return edges[:, None].astype(np.float32)


def batches(dataset: Dataset, batch_size: int, seed: int = 0, *, flip: bool = True) -> Ordered[Any]:
    """The batches that fit a dataset; single images are never mirrored."""
    if isinstance(dataset, PairDataset):
        return PairBatches(dataset, batch_size, seed, flip=flip)
    if isinstance(dataset, LabelDataset):
        return LabelBatches(dataset, batch_size, seed, flip=flip)
    if isinstance(dataset, UnpairedDataset):
        return UnpairedBatches(dataset, batch_size, seed, flip=flip)
    return Batches(dataset, batch_size, seed)
