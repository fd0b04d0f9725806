"""Load a dataset by its name or from a folder.

A named set that is not on this machine (see `places`) is downloaded, unless `download=False` or
MINIGAN_OFFLINE=1.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, Literal, overload

import numpy as np

from minigan.errors import DataError, UsageError, did_you_mean

from . import digits, places
from .dataset import Dataset
from .fetch import Progress
from .folder import CACHE_BYTES, MOST_DAMAGED, load_folder
from .idx import read_idx
from .landscapes import load_scenes
from .layouts import Loader, layout
from .picture_sets import PICTURE_SETS, find_set, not_here
from .pixels import resized, size_pair, with_channels
from .sets import NAMED_SETS, SPLITS, NamedSet
from .views import ImagesOf, LabelDataset, PairDataset, UnpairedDataset

KINDS = ("images", "pairs", "labels", "unpaired")
DIRECTIONS = ("AtoB", "BtoA")

_DIGITS_SEEDS = {"train": 0, "test": 1}


@overload
def load(name_or_dir: str | Path, *, kind: Literal["pairs"], **known: Any) -> PairDataset: ...
@overload
def load(name_or_dir: str | Path, *, kind: Literal["labels"], **known: Any) -> LabelDataset: ...
@overload
def load(
    name_or_dir: str | Path, *, kind: Literal["unpaired"], **known: Any
) -> UnpairedDataset: ...
@overload
def load(name_or_dir: str | Path, *, kind: str | None = None, **known: Any) -> Dataset: ...


def load(  # type: ignore[misc]  # the overloads name the result, not all parameters
    name_or_dir: str | Path,
    *,
    kind: str | None = None,
    split: str = "train",
    size: int | tuple[int, int] | None = None,
    channels: int | None = None,
    root: str | Path | None = None,
    download: bool = True,
    limit: int | None = None,
    labels: bool | None = None,
    max_damaged: float = MOST_DAMAGED,
    cache_bytes: int = CACHE_BYTES,
    progress: Progress | None = None,
    jitter: float = 1.0,
    multiple: int = 1,
    direction: str = "AtoB",
) -> Dataset:
    """Load a dataset by name or from a folder.

    Parameters
    ----------
    name_or_dir : "mnist", "fashion-mnist", "kmnist", "digits" (procedural, needs no file),
        "facades", "camvid", "summer2winter", "scenes" (procedural), or a folder: of PNG and JPEG
        pictures, with or without sub-folders that are classes, of idx files, or in a layout of
        `layouts`. A name of a set wins over a folder of that name; write "./mnist" for the folder.
    kind : "images", "pairs" (PairDataset), "labels" (photos with label maps: LabelDataset) or
        "unpaired" (UnpairedDataset). By default what the set is by nature: photos with label maps
        if it has them, unpaired if it has trainA and trainB, else images. The images of pictures
        that come in twos are the photos, or those of B.
    split : "train" or "test"; for a folder, the sub-folder of that name if there is one.
    size : side of the images, or (H, W). Small idx and procedural images get a margin of zeros up
        to 4/3 of their size (28 to 32) and are scaled beyond it; pictures from a folder are
        scaled until they cover `size`, and cut in the centre.
    channels : 1 or 3. By default as the files are, and 3 for a folder of pictures.
    root : where to look first: a folder that holds NAME/, or the files themselves.
    limit : take only that many images, the first ones.
    labels : for a folder: False takes the pictures of all sub-folders without labels, True
        insists on classes; by default two or more sub-folders are classes.
    max_damaged : for a folder: the share of unusable pictures that are left out with a warning.
    cache_bytes : for a folder: memory for decoded pictures.
    progress : called as progress(file name, bytes so far, bytes in all) while downloading.
    jitter : of pairs, labels and unpaired: pictures are stored so many times as large as `size`,
        and batches show another part in each epoch (pix2pix: 286 / 256). 1 for evaluation.
    multiple : of these: pictures are padded to a multiple of this, with a warning.
    direction : of pairs and unpaired: "BtoA" exchanges A and B. Of pictures side by side A is the
        left half, of photos with label maps the map.

    Raises
    ------
    DataError : not to be had (the message lists what was tried), or damaged.
    UsageError : no such name or split.
    """
    _check_options(split, channels, limit)
    _check_kind(kind, direction)
    pair = None if size is None else size_pair(size)
    own = isinstance(name_or_dir, str) and PICTURE_SETS.get(name_or_dir)
    if own or kind not in ("images", None) or _natural_kind(name_or_dir, split):
        return _load_coupled(
            name_or_dir, kind, split, pair, channels, root, limit, cache_bytes,
            jitter, multiple, direction,
        )  # fmt: skip
    if isinstance(name_or_dir, str) and name_or_dir in NAMED_SETS:
        known = NAMED_SETS[name_or_dir]
        dataset = _load_named(known, split, root, download, limit, progress)
    else:
        folder = places.existing_folder(name_or_dir)
        if not places.has_idx(folder, split):
            return load_folder(
                folder,
                split=split,
                size=pair,
                channels=channels,
                labels=labels,
                limit=limit,
                most_damaged=max_damaged,
                cache_bytes=cache_bytes,
            )
        dataset = _read_idx_pair(folder.name, folder, split, limit=limit)
    images = dataset.images
    if channels is not None:
        images = with_channels(images, channels)
    if pair is not None:
        images = resized(images, pair)
    return Dataset(
        dataset.name,
        images,
        dataset.labels,
        dataset.classes,
        split=split,
        source=dataset.source,
    )


def _load_coupled(
    name_or_dir: str | Path,
    kind: str | None,
    split: str,
    size: tuple[int, int] | None,
    channels: int | None,
    root: str | Path | None,
    limit: int | None,
    cache_bytes: int,
    jitter: float,
    multiple: int,
    direction: str,
) -> Dataset:
    """Pictures that come in twos, or the images alone of a set of such."""
    known = PICTURE_SETS.get(str(name_or_dir))
    kind = kind or (known.kind if known else _natural_kind(name_or_dir, split))
    how = split, size, channels, jitter, multiple, limit, cache_bytes
    if name_or_dir == "scenes":
        return _as_kind(load_scenes(*how), kind, direction)
    if name_or_dir in NAMED_SETS:
        raise UsageError(f"{name_or_dir} has images alone, no {kind}")
    folder = find_set(known, root) if known else places.existing_folder(name_or_dir)
    if folder is None:
        assert known is not None
        raise not_here(known, root)
    loader = Loader(folder, *how)
    natural = known.kind if known else _natural_kind(folder, split)
    which = natural if kind == "images" else kind
    if which == "pairs":
        return _as_kind(loader.pairs(), kind, direction)
    if which == "unpaired":
        return _as_kind(loader.unpaired(), kind, direction)
    return _as_kind(loader.labels(), kind, direction)


def _as_kind(dataset: Dataset, kind: str | None, direction: str) -> Dataset:
    """A dataset as what is wanted of it, in the wanted direction."""
    if kind == "images":
        return ImagesOf(dataset)
    if isinstance(dataset, LabelDataset) and kind in ("pairs", "unpaired"):
        pairs = dataset.as_pairs()
        known = {"split": pairs.split, "source": pairs.source}
        dataset = pairs
        if kind == "unpaired":
            dataset = UnpairedDataset(pairs.name, pairs.a, pairs.b, pairs.frame, **known)
    if direction == "BtoA" and isinstance(dataset, PairDataset | UnpairedDataset):
        return dataset.turned()
    return dataset


def _natural_kind(name_or_dir: str | Path, split: str) -> str | None:
    """What a folder is by its layout, if that is more than a folder of images."""
    folder = Path(name_or_dir).expanduser()
    if str(name_or_dir) in NAMED_SETS or not folder.is_dir():
        return None
    return {"labels": "labels", "two kinds": "unpaired"}.get(layout(folder, split))


def _load_named(
    known: NamedSet,
    split: str,
    root: str | Path | None,
    download: bool,
    limit: int | None,
    progress: Progress | None,
) -> Dataset:
    if not known.files:
        return _make_digits(split, limit)
    files = known.files[split]
    tried = []
    for place in places.search(known.name, root):
        if places.find_all(files, place):
            return _read_idx_pair(known.name, place, split, known, limit)
        missing = [file.name for file in files if not places.find(file, place)]
        there = (
            f"has no {' and no '.join(missing)}" if place.is_dir() else "there is no such folder"
        )
        tried.append(f"{place}: {there}")
    if not download or places.offline():
        tried.append("downloading: switched off")
    else:
        failures = places.download(known, files, progress)
        if not failures:
            folder = places.cache_folder() / known.name
            return _read_idx_pair(known.name, folder, split, known, limit)
        tried += failures
    raise places.not_to_be_had(known, tried)


def _make_digits(split: str, limit: int | None) -> Dataset:
    count = NAMED_SETS["digits"].counts[split]
    count = count if limit is None else min(limit, count)
    seed = _DIGITS_SEEDS[split]
    images, labels, _ = digits.make(count, seed)
    source = f"minigan.data.digits.make({count}, seed={seed})"
    return Dataset("digits", images, labels, digits.CLASSES, split=split, source=source)


def _read_idx_pair(
    name: str, folder: Path, split: str, known: NamedSet | None = None, limit: int | None = None
) -> Dataset:
    """Read the images and labels of a split and see that they belong together."""
    files = (known or NAMED_SETS["mnist"]).files[split]
    fix = f"delete it and fetch it again: minigan data get {name}" if known else ""
    found = [places.find(file, folder) or folder / file.name for file in files]
    sizes = [
        f.size if known and p.suffix == ".gz" else 0 for f, p in zip(files, found, strict=True)
    ]
    images = read_idx(found[0], 3, fix=fix, size=sizes[0])
    labels = read_idx(found[1], 1, fix=fix, size=sizes[1])
    if len(images) != len(labels):
        raise DataError(
            f"{name}: {len(images)} images but {len(labels)} labels",
            where=f"{found[0]}, {found[1]}",
            why="the two files do not belong together",
            fix=fix or "copy both anew",
        )
    numbers = labels.astype(np.int64)
    classes = known.classes if known else tuple(map(str, range(numbers.max(initial=-1) + 1)))
    images, numbers = images[:limit], numbers[:limit]
    return Dataset(name, images[:, None], numbers, classes, split=split, source=str(folder))


def _check_kind(kind: str | None, direction: str) -> None:
    if kind is not None and kind not in KINDS:
        raise UsageError(
            f"there is no kind of data '{kind}'{did_you_mean(kind, KINDS)}",
            fix=f"use one of {', '.join(KINDS)}",
        )
    if direction not in DIRECTIONS:
        raise UsageError(f"direction is '{direction}'", fix="use AtoB or BtoA")


def _check_options(split: str, channels: int | None, limit: int | None) -> None:
    if split not in SPLITS:
        raise UsageError(f"there is no split '{split}'{did_you_mean(split, SPLITS)}")
    if channels not in (None, 1, 3):
        raise UsageError(f"images of {channels} channels are not supported", fix="use 1 or 3")
    if limit is not None and limit < 1:
        raise UsageError(f"limit={limit} leaves no images")
