"""Folders of pictures that come in twos, and how they are laid out.

photo + label   SPLIT/photo/NAME.jpg, SPLIT/label/NAME.png, classes.txt,
                perhaps SPLIT/instance/NAME.png
two folders     A/NAME.jpg, B/NAME.png below the folder or SPLIT: pairs by name
two kinds       trainA, trainB, testA, testB: of any number; pairs where the names are equal
side by side    SPLIT/NAME.jpg with A in the left half and B in the right
"""

from __future__ import annotations

import warnings
from collections.abc import Iterable
from functools import cached_property
from pathlib import Path

from minigan.errors import DataError

from .classmaps import InstanceMaps, LabelMaps, read_classes, read_label_map
from .dataset import Dataset
from .folder import FolderDataset, damaged_pictures, find_pictures
from .frame import Frame, enlarged, padded_size
from .picture import picture_mode, picture_size, read_picture
from .pixels import Bytes
from .views import LabelDataset, PairDataset, UnpairedDataset

_SPLIT_NAMES = {"train": ("train",), "test": ("test", "val")}
_NAMED = 8  # files that a message names
Sides = dict[str, tuple[Path, list[Path]]]  # "A" -> its folder, the files in it


def part(root: Path, split: str) -> Path:
    """FOLDER/train, FOLDER/test or FOLDER/val; the folder itself if there is none."""
    return next((root / n for n in _SPLIT_NAMES[split] if (root / n).is_dir()), root)


def layout(root: Path, split: str = "train") -> str:
    """Which of the layouts a folder has: "labels", "two kinds", "two folders" or "one folder"."""
    inside = part(root, split)
    if (inside / "photo").is_dir() and (inside / "label").is_dir():
        return "labels"
    if (root / f"{split}A").is_dir() and (root / f"{split}B").is_dir():
        return "two kinds"
    if (inside / "A").is_dir() and (inside / "B").is_dir():
        return "two folders"
    return "one folder"


def sides(root: Path, split: str) -> Sides:
    """The folders of a layout and the pictures in each."""
    inside, found = part(root, split), layout(root, split)
    if found == "labels":
        names = ["photo", "label"] + ["instance"] * (inside / "instance").is_dir()
        folders = {name: inside / name for name in names}
    elif found == "one folder":
        folders = {"both": inside}
    else:
        folders = {s: root / f"{split}{s}" if found == "two kinds" else inside / s for s in "AB"}
    return {name: (folder, find_pictures(folder)) for name, folder in folders.items()}


def matched(found: Sides) -> Sides:
    """The same with files sorted by name; DataError naming those that have no partner."""
    stems = {side: _by_stem(folder, paths) for side, (folder, paths) in found.items()}
    alone = unmatched(found)
    if alone:
        raise DataError(
            f"{len(alone)} files have no partner of the same name",
            where="\n    ".join([str(path) for path, _ in alone[:_NAMED]]),
            why=f"{' and '.join(found)} belong together by the names of the files",
            fix="add or remove files; `minigan data check` lists all of them",
        )
    order = sorted(next(iter(stems.values())))
    return {side: (found[side][0], [stems[side][s] for s in order]) for side in found}


def unmatched(found: Sides) -> list[tuple[Path, str]]:
    """Files without a partner, and which side it is missing from."""
    stems = {side: _by_stem(folder, paths) for side, (folder, paths) in found.items()}
    return [
        (found[side][0] / path, f"{other} has no file of that name")
        for side, files in stems.items()
        for other in stems
        if other != side
        for stem, path in sorted(files.items())
        if stem not in stems[other]
    ]


def _by_stem(folder: Path, paths: Iterable[Path]) -> dict[str, Path]:
    files: dict[str, Path] = {}
    for path in paths:
        stem = path.with_suffix("").as_posix()
        if stem in files:
            raise DataError(
                f"two files are called {stem}", where=f"{folder}: {files[stem]}, {path}"
            )
        files[stem] = path
    return files


class Loader:
    """Reads the datasets of one folder; all of its pictures are looked at first.

    size : (H, W) of what is shown, by default that of the pictures.
    jitter : pictures are stored so many times as large and cut at random.
    multiple : what is shown is padded to a multiple of this.
    limit : take only that many pictures, the first ones.
    """

    def __init__(
        self,
        root: Path,
        split: str,
        size: tuple[int, int] | None,
        channels: int | None,
        jitter: float,
        multiple: int,
        limit: int | None,
        cache_bytes: int,
    ) -> None:
        self.root, self.split, self.size, self.channels = root, split, size, channels or 3
        self.jitter, self.multiple, self.limit = jitter, multiple, limit
        self.cache_bytes = cache_bytes // 2
        self.name, self.known = root.resolve().name, {"split": split, "source": str(root)}

    def labels(self) -> LabelDataset:
        """Photos with label maps."""
        if layout(self.root, self.split) != "labels":
            raise _other_layout(self.root, "photos with label maps", "SPLIT/photo and SPLIT/label")
        classes = read_classes(self.root / "classes.txt")
        found = self._limited(matched(sides(self.root, self.split)))
        sound("photo", *found["photo"], self.channels)
        frame, stored = self._frame(found)
        for path in found["label"][1]:
            read_label_map(found["label"][0] / path, classes)
        maps = LabelMaps(f"{self.name} label", *found["label"], stored, 1,
                         meaning=classes, cache_bytes=self.cache_bytes)  # fmt: skip
        instances = None
        if "instance" in found:
            instances = InstanceMaps(f"{self.name} instance", *found["instance"], stored, 1)
        return LabelDataset(
            self.name, self._pictures("photo", found, stored), maps, classes.names,
            classes.colours, frame, instances=instances, ignore=classes.ignore, **self.known,
        )  # fmt: skip

    def pairs(self) -> PairDataset:
        """Pairs A, B; of photos with label maps the coloured map is A."""
        found = layout(self.root, self.split)
        if found == "labels":
            return self.labels().as_pairs()
        files = self._limited(matched(sides(self.root, self.split)))
        halves = found == "one folder"
        for side, (folder, paths) in files.items():
            sound(side, folder, paths, self.channels)
        frame, stored = self._frame(files, halves)
        a, b = (self._pictures("both", files, stored, half) for half in (0, 1)) if halves else (
            self._pictures(side, files, stored) for side in "AB")  # fmt: skip
        return PairDataset(self.name, a, b, frame, **self.known)

    def unpaired(self) -> UnpairedDataset:
        """Pictures of two kinds."""
        if layout(self.root, self.split) == "labels":
            pairs = self.labels().as_pairs()
            return UnpairedDataset(self.name, pairs.a, pairs.b, pairs.frame, **self.known)
        found = self._limited(sides(self.root, self.split))
        if "both" in found:
            raise _other_layout(self.root, "pictures of two kinds", "trainA and trainB, or A and B")
        for side, (folder, paths) in found.items():
            sound(side, folder, paths, self.channels)
        if self.size is None:
            self.size = _one_size(found, halves=False)
        frame, stored = self._frame(found)
        a, b = (self._pictures(side, found, stored) for side in "AB")
        return UnpairedDataset(self.name, a, b, frame, **self.known)

    def _limited(self, found: Sides) -> Sides:
        return {side: (folder, paths[: self.limit]) for side, (folder, paths) in found.items()}

    def _frame(self, found: Sides, halves: bool = False) -> tuple[Frame, tuple[int, int]]:
        """What is shown, and the size in which pictures are stored."""
        wrong = unequal(found, halves) if "B" not in found or self.size is None else []
        if wrong:
            raise DataError(wrong[0][1], where=str(wrong[0][0]), fix="make both the same size")
        size = self.size or _one_size(found, halves)
        shown = padded_size(size, self.multiple)
        if shown != size:
            warnings.warn(
                f"{self.name}: pictures of {size[1]} x {size[0]} are padded to {shown[1]} x "
                f"{shown[0]}, a multiple of {self.multiple}",
                stacklevel=5,
            )
        return Frame(size, self.multiple), enlarged(size, self.jitter)

    def _pictures(
        self, side: str, found: Sides, stored: tuple[int, int], half: int | None = None
    ) -> Dataset:
        name = f"{self.name} {side}" if half is None else f"{self.name} {'AB'[half]}"
        kind = FolderDataset if half is None else Halves
        made = kind(name, *found[side], stored, self.channels, cache_bytes=self.cache_bytes)
        if isinstance(made, Halves):
            made.half = half or 0
        return made


class Halves(FolderDataset):
    """The left (half = 0) or right (1) halves of the pictures of a folder."""

    half = 0

    @cached_property
    def fingerprint(self) -> str:
        return f"{super().fingerprint}/{self.half}"

    def read(self, path: Path) -> Bytes:
        channels, height, width = self.image_shape
        return read_picture(path, (height, width), channels, half=self.half)


def unequal(found: Sides, halves: bool = False) -> list[tuple[Path, str]]:
    """Files whose partner has another size, or which cannot be halved."""
    wrong = []
    folders = list(found.values())
    for paths in zip(*(paths for _, paths in folders), strict=True):
        files = [folder / path for (folder, _), path in zip(folders, paths, strict=True)]
        (height, width), *others = [picture_size(file) for file in files]
        if halves and width % 2:
            wrong.append((files[0], f"{files[0].name} is {width} pixels wide and has no halves"))
        for file, other in zip(files[1:], others, strict=True):
            if other != (height, width):
                wrong.append((file, f"{file.name} is {other[1]} x {other[0]}, but {files[0].name} "
                              f"is {width} x {height}"))  # fmt: skip
    return wrong


def sound(side: str, folder: Path, paths: list[Path], channels: int) -> None:
    """DataError if a picture cannot be used, or is grey among pictures in colour."""
    damaged = damaged_pictures(folder, paths)
    if damaged:
        raise DataError(
            f"{len(damaged)} of {len(paths)} pictures of {side} cannot be used",
            where="\n    ".join(f"{folder / p}: {w}" for p, w in list(damaged.items())[:_NAMED]),
            fix="replace them; `minigan data check` lists all of them",
        )
    greys = grey_ones(folder, paths) if channels == 3 else []
    if greys:
        raise DataError(
            f"{len(greys)} of {len(paths)} pictures of {side} are grey",
            where=", ".join(map(str, greys[:_NAMED])),
            why=f"{channels} channels are asked for, and the others are in colour",
            fix="replace them, or take all in grey with channels=1",
        )


def grey_ones(folder: Path, paths: list[Path]) -> list[Path]:
    """The grey pictures, if there are others in colour beside them."""
    greys = [p for p in paths if picture_mode(folder / p) in ("1", "L", "LA", "I", "I;16")]
    return greys if len(greys) < len(paths) else []


def _one_size(found: Sides, halves: bool) -> tuple[int, int]:
    """The size that all pictures have."""
    sizes = {picture_size(f / p): f / p for f, paths in found.values() for p in paths}
    if len(sizes) > 1:
        (one, first), (two, second) = list(sizes.items())[:2]
        raise DataError(
            "the pictures differ in size",
            where=f"{first} is {one[1]} x {one[0]}, {second} is {two[1]} x {two[0]}",
            fix="pass size=128, for example, to scale and cut all of them",
        )
    height, width = next(iter(sizes))
    return height, width // 2 if halves else width


def _other_layout(root: Path, wanted: str, where: str) -> DataError:
    return DataError(
        f"{root.name or root} holds no {wanted}",
        where=str(root),
        why=f"they lie in {where}; here is {_children(root)}",
    )


def _children(root: Path) -> str:
    names = sorted(path.name for path in root.iterdir() if path.is_dir())
    return ", ".join(names[:_NAMED]) or "no sub-folder"
