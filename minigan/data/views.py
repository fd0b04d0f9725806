"""Datasets whose pictures come from elsewhere: from other datasets, or made on demand."""

from __future__ import annotations

import hashlib
from abc import abstractmethod
from functools import cached_property
from typing import Any, Self

import numpy as np
import numpy.typing as npt

from .dataset import Dataset, Indices
from .frame import Frame
from .pixels import Bytes

Maps = npt.NDArray[np.int64]


class View(Dataset):
    """A dataset that stores nothing: `raw` gets the pictures.

    Parameters
    ----------
    shape : C, H, W of the pictures.
    """

    def __init__(
        self,
        name: str,
        count: int,
        shape: tuple[int, int, int],
        classes: tuple[str, ...] = (),
        *,
        split: str = "train",
        source: str = "",
    ) -> None:
        empty = np.empty((0, *shape), np.uint8)
        super().__init__(name, empty, None, classes, split=split, source=source)
        self._count = count

    @property
    def images(self) -> Bytes:
        """All images, uint8 (N, C, H, W): mind the memory."""
        return self.raw(np.arange(len(self)))

    @abstractmethod
    def raw(self, indices: Indices) -> Bytes: ...

    def __len__(self) -> int:
        return self._count


def joint_fingerprint(*parts: Dataset | None, extra: Any = None) -> str:
    """The SHA-256 of the fingerprints of several datasets."""
    known = [part.fingerprint for part in parts if part is not None]
    return hashlib.sha256("\n".join([*known, repr(extra)]).encode()).hexdigest()


class TwoSided(View):
    """Pictures of two sides, `a` and `b`; `images` and `raw` are those of b, cut in the centre.

    frame : what is shown of them.
    """

    def __init__(self, name: str, a: Dataset, b: Dataset, frame: Frame, **known: Any) -> None:
        super().__init__(name, len(b), (b.image_shape[0], *frame.shape), **known)
        self.a, self.b, self.frame = a, b, frame

    @cached_property
    def fingerprint(self) -> str:
        return joint_fingerprint(self.a, self.b, extra=self.frame)

    def raw(self, indices: Indices) -> Bytes:
        return self.frame.cut(self.b.raw(indices))

    def turned(self) -> Self:
        """The same pictures with a and b exchanged."""
        known: dict[str, Any] = {"split": self.split, "source": self.source}
        return type(self)(self.name, self.b, self.a, self.frame, **known)


class PairDataset(TwoSided):
    """Pictures that belong together, number i of a and of b: `b` is what shall be made of `a`."""


class UnpairedDataset(TwoSided):
    """Pictures of two kinds, in any number."""


class LabelDataset(View):
    """Photos with a class for each pixel.

    Parameters
    ----------
    photos : the pictures. `images` and `raw` are those, cut in the centre.
    label_maps : pictures of one channel whose bytes are classes.
    colours : uint8 (classes, 3), in which to show them.
    instances : pictures of one channel whose numbers tell things of the same class apart.
    ignore : the class that means nothing and is not to be judged, if there is one.
    """

    def __init__(
        self,
        name: str,
        photos: Dataset,
        label_maps: Dataset,
        classes: tuple[str, ...],
        colours: Bytes,
        frame: Frame,
        *,
        instances: Dataset | None = None,
        ignore: int | None = None,
        **known: Any,
    ) -> None:
        shape = photos.image_shape[0], *frame.shape
        super().__init__(name, len(photos), shape, classes, **known)
        self.photos, self.label_maps, self.instances = photos, label_maps, instances
        self.colours, self.frame, self.ignore = colours, frame, ignore

    @cached_property
    def fingerprint(self) -> str:
        parts = self.photos, self.label_maps, self.instances
        return joint_fingerprint(*parts, extra=(self.frame, self.classes))

    def raw(self, indices: Indices) -> Bytes:
        return self.frame.cut(self.photos.raw(indices))

    def maps(self, indices: Indices) -> Maps:
        """The classes int64 (B, H, W) of some pictures, cut in the centre."""
        return self.frame.cut(self.label_maps.raw(indices))[:, 0].astype(np.int64)

    def as_pairs(self) -> PairDataset:
        """Pairs of a coloured label map and its photo."""
        a = _Coloured(self.label_maps, self.colours)
        known: dict[str, Any] = {"split": self.split, "source": self.source}
        return PairDataset(self.name, a, self.photos, self.frame, **known)


class ImagesOf(View):
    """The images alone of a dataset of any kind: photos, or the pictures of B."""

    def __init__(self, whole: Dataset) -> None:
        known: dict[str, Any] = {"split": whole.split, "source": whole.source}
        super().__init__(whole.name, len(whole), whole.image_shape, **known)
        self.whole = whole

    @cached_property
    def fingerprint(self) -> str:
        return joint_fingerprint(self.whole, extra="images")

    def raw(self, indices: Indices) -> Bytes:
        return self.whole.raw(indices)


class _Coloured(View):
    """Label maps as one sees them."""

    def __init__(self, maps: Dataset, colours: Bytes) -> None:
        super().__init__(maps.name, len(maps), (3, *maps.image_shape[1:]), source=maps.source)
        self.maps, self.colours = maps, colours

    @cached_property
    def fingerprint(self) -> str:
        return joint_fingerprint(self.maps, extra=self.colours.tolist())

    def raw(self, indices: Indices) -> Bytes:
        return colour_maps(self.maps.raw(indices)[:, 0], self.colours)


def colour_maps(maps: npt.NDArray[Any], colours: Bytes) -> Bytes:
    """Pictures uint8 (N, 3, H, W) of label maps (N, H, W), with colours (classes, 3)."""
    return np.ascontiguousarray(colours[maps].transpose(0, 3, 1, 2))
