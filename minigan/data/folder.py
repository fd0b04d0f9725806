"""A folder of pictures as a dataset.

    FOLDER/a.png FOLDER/b.jpg ...             no labels
    FOLDER/cat/1.png FOLDER/dog/1.png ...     one class per sub-folder, in alphabetical order

Files are taken in the order of their paths, so that number i is the same picture everywhere.
Hidden files and symbolic links that lead out of the folder are left out; linked folders are not
entered. Pictures are decoded when they are first needed.
"""

from __future__ import annotations

import hashlib
import os
import threading
import warnings
from collections import Counter
from collections.abc import Callable, Iterable
from functools import cached_property
from pathlib import Path

import numpy as np
import numpy.typing as npt

from minigan.errors import DataError

from .dataset import Dataset, Indices
from .picture import SUFFIXES, looks_complete, picture_size, read_picture
from .pixels import Bytes

CACHE_BYTES = 1 << 30
MOST_DAMAGED = 0.01  # of the files; more is an error
_MOST_NAMED = 10

Step = Callable[[int, int], None]


class FolderDataset(Dataset):
    """Pictures that are decoded, scaled and cut on first use, then kept while there is room.

    Parameters
    ----------
    root : the folder; `paths` are relative to it, in order.
    size : (H, W) of the result.
    cache_bytes : how much memory decoded pictures may take; the rest is decoded each time.
    """

    dtype: type[np.generic] = np.uint8

    def __init__(
        self,
        name: str,
        root: Path,
        paths: list[Path],
        size: tuple[int, int],
        channels: int,
        labels: npt.NDArray[np.int64] | None = None,
        classes: tuple[str, ...] = (),
        *,
        split: str = "train",
        cache_bytes: int = CACHE_BYTES,
    ) -> None:
        empty = np.empty((0, channels, *size), np.uint8)
        super().__init__(name, empty, None, classes, split=split, source=str(root))
        self.root, self.paths, self.labels = root, paths, labels
        self._room = cache_bytes // (channels * size[0] * size[1])
        self._kept: dict[int, Bytes] = {}
        self._lock = threading.Lock()

    @property
    def images(self) -> Bytes:
        """All images, uint8 (N, C, H, W): mind the memory."""
        return self.raw(range(len(self)))

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 over the names and contents of the files, and the shape."""
        digest = hashlib.sha256(str(self.image_shape).encode())
        for path in self.paths:
            digest.update(f"\0{path.as_posix()}\0".encode())
            with open(self.root / path, "rb") as file:
                digest.update(hashlib.file_digest(file, "sha256").digest())
        return digest.hexdigest()

    def raw(self, indices: Indices) -> Bytes:
        wanted = np.asarray(indices, np.intp)
        out = np.empty((len(wanted), *self.image_shape), self.dtype)
        for row, index in enumerate(wanted):
            out[row] = self._picture(int(index))
        return out

    def read(self, path: Path) -> Bytes:
        """Decode one file: uint8 (C, H, W)."""
        channels, height, width = self.image_shape
        return read_picture(path, (height, width), channels)

    def _picture(self, index: int) -> Bytes:
        kept = self._kept.get(index)
        if kept is None:
            kept = self.read(self.root / self.paths[index])
            with self._lock:  # a prefetching thread may be here too
                if len(self._kept) < self._room:
                    self._kept[index] = kept
        return kept

    def __len__(self) -> int:
        return len(self.paths)


def load_folder(
    root: Path,
    *,
    split: str = "train",
    size: tuple[int, int] | None = None,
    channels: int | None = None,
    labels: bool | None = None,
    limit: int | None = None,
    most_damaged: float = MOST_DAMAGED,
    cache_bytes: int = CACHE_BYTES,
) -> FolderDataset:
    """Load a folder of PNG and JPEG pictures; see `minigan.data.load`."""
    name, root = root.resolve().name, _split_folder(root, split)
    paths = find_pictures(root)
    classes, numbers = _classes(root, paths, labels)
    damaged = damaged_pictures(root, paths)
    if damaged:
        _report(root, damaged, len(paths), most_damaged)
        good = [i for i, path in enumerate(paths) if path not in damaged]
        paths = [paths[i] for i in good]
        numbers = None if numbers is None else numbers[good]
    if limit is not None:
        paths, numbers = paths[:limit], None if numbers is None else numbers[:limit]
    size = size or _common_size(root, paths)
    return FolderDataset(
        name,
        root,
        paths,
        size,
        channels or 3,
        numbers,
        classes,
        split=split,
        cache_bytes=cache_bytes,
    )


def find_pictures(root: Path) -> list[Path]:
    """Return the pictures below `root`, relative to it, in the order of their paths."""
    real_root = root.resolve()
    found, others = [], Counter[str]()
    for folder, _, names in os.walk(root, followlinks=False):
        for name in names:
            path = Path(folder, name)
            inside = path.relative_to(root)
            if any(part.startswith(".") for part in inside.parts):
                continue
            if path.suffix.lower() not in SUFFIXES:
                others[path.suffix.lower() or name] += 1
            elif not path.is_symlink() or path.resolve().is_relative_to(real_root):
                found.append(inside)
    if not found:
        kinds = ", ".join(f"{n} {kind}" for kind, n in others.most_common(5)) or "no files at all"
        raise DataError(
            f"no PNG or JPEG pictures in {root.name or root}",
            where=str(root),
            why=f"found {kinds}",
            fix="give a folder of .png, .jpg or .jpeg files, or convert the pictures",
        )
    return sorted(found, key=lambda path: path.parts)


def damaged_pictures(
    root: Path, paths: Iterable[Path], *, thorough: bool = False, step: Step | None = None
) -> dict[Path, str]:
    """Return the pictures that cannot be used, and why.

    thorough : decode every picture. Otherwise headers and ends of files are looked at, which
        finds truncated files, and only the suspicious ones are decoded.
    step : called with the number of pictures looked at and of all.
    """
    paths = list(paths)
    damaged = {}
    for number, path in enumerate(paths, 1):
        try:
            picture_size(root / path)
            if thorough or not looks_complete(root / path):
                read_picture(root / path)
        except (DataError, OSError) as error:
            damaged[path] = error.what if isinstance(error, DataError) else str(error)
        if step is not None:
            step(number, len(paths))
    return damaged


def _split_folder(root: Path, split: str) -> Path:
    """Return FOLDER/train or FOLDER/test if there is one; else the folder itself is the set."""
    if not root.is_dir():
        raise DataError(f"{root} is no folder", fix="give the path of a folder of pictures")
    if (root / split).is_dir():
        return root / split
    if split != "train":
        raise DataError(
            f"{root.name} has no part '{split}'",
            where=str(root),
            why=f"a part of a folder of pictures is a sub-folder of that name: {root / split}",
        )
    return root


def _classes(
    root: Path, paths: list[Path], labels: bool | None
) -> tuple[tuple[str, ...], npt.NDArray[np.int64] | None]:
    """Return the class names and the class number of each picture, if sub-folders are classes."""
    loose = sum(len(path.parts) == 1 for path in paths)
    names = sorted({path.parts[0] for path in paths if len(path.parts) > 1})
    if labels is None:
        if loose and names:
            raise DataError(
                f"are the sub-folders of {root.name} classes or not?",
                where=str(root),
                why=f"{loose} pictures lie beside {len(names)} sub-folders with pictures",
                fix="pass labels=False to take all pictures without labels, or move them",
            )
        labels = len(names) > 1
    if not labels:
        return (), None
    if loose:
        raise DataError(
            f"{loose} pictures of {root.name} have no class",
            where=str(root),
            why="with labels each picture lies in the sub-folder of its class",
        )
    return tuple(names), np.array([names.index(path.parts[0]) for path in paths], np.int64)


def _report(root: Path, damaged: dict[Path, str], count: int, most: float) -> None:
    """Warn of damaged pictures, or refuse if they are too many."""
    lines = [f"{path.as_posix()}: {why}" for path, why in list(damaged.items())[:_MOST_NAMED]]
    if len(damaged) > _MOST_NAMED:
        lines.append(f"and {len(damaged) - _MOST_NAMED} more")
    listed = "\n    ".join(lines)
    if len(damaged) > most * count:
        raise DataError(
            f"{len(damaged)} of {count} pictures in {root.name} cannot be used",
            where=f"{root}\n    {listed}",
            why=f"up to {most:.0%} would be left out",
            fix="replace or remove them",
        )
    warnings.warn(
        f"{len(damaged)} of {count} pictures in {root} are left out:\n    {listed}", stacklevel=4
    )


def _common_size(root: Path, paths: list[Path]) -> tuple[int, int]:
    """Return the size that all pictures have."""
    first = picture_size(root / paths[0])
    for path in paths[1:]:
        size = picture_size(root / path)
        if size != first:
            raise DataError(
                f"the pictures in {root.name} differ in size",
                where=f"{paths[0]} is {first[1]} x {first[0]}, {path} is {size[1]} x {size[0]}",
                fix="pass size=64, for example, to scale and cut all of them",
            )
    return first
