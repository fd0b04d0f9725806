"""What the command `minigan data` offers: list, info, get, check."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from .fetch import Progress, is_intact
from .folder import Step, damaged_pictures, find_pictures
from .inspect import FileState, check_layout
from .layouts import layout
from .picture_sets import PICTURE_SETS, PictureSet, find_set, not_here
from .places import (
    cache_folder,
    download,
    existing_folder,
    find,
    find_all,
    named_set,
    not_to_be_had,
    offline,
    search,
)
from .sets import NAMED_SETS


@dataclass(frozen=True)
class SetInfo:
    """A named set, and where it is on this machine ("" if it is not)."""

    name: str
    title: str
    counts: dict[str, int]
    image_shape: tuple[int, int, int]
    classes: tuple[str, ...]
    licence: str
    source: str
    download_bytes: int
    mirrors: tuple[str, ...]
    place: str


def list_sets(root: str | Path | None = None) -> list[SetInfo]:
    """Return what is known about each named set."""
    return [info(name, root) for name in (*NAMED_SETS, *PICTURE_SETS)]


def info(name: str, root: str | Path | None = None) -> SetInfo:
    """Return what is known about a named set."""
    if name in PICTURE_SETS:
        return _picture_set_info(PICTURE_SETS[name], root)
    known = named_set(name)
    places = [str(p) for p in search(known.name, root) if find_all(known.all_files, p)]
    return SetInfo(
        name=name,
        title=known.title,
        counts=known.counts,
        image_shape=(1, 28, 28),
        classes=known.classes,
        licence=known.licence,
        source=known.source,
        download_bytes=sum(file.size for file in known.all_files),
        mirrors=known.mirrors,
        place=next(iter(places), "") if known.files else "made when needed",
    )


def _picture_set_info(known: PictureSet, root: str | Path | None) -> SetInfo:
    place = find_set(known, root) if known.layout else "made when needed"
    return SetInfo(
        name=known.name,
        title=known.title,
        counts=known.counts,
        image_shape=known.image_shape,
        classes=known.classes,
        licence=known.licence,
        source=known.source,
        download_bytes=0,
        mirrors=(),
        place=str(place or ""),
    )


def get(name: str, progress: Progress | None = None) -> Path:
    """Fetch a named set into the cache, replacing damaged files; return its folder.

    progress : called as progress(file name, bytes so far, bytes in all).
    """
    if name in PICTURE_SETS:
        found = PICTURE_SETS[name]
        place = find_set(found) if found.layout else cache_folder() / name
        if place is None:
            raise not_here(found)
        return place
    known = named_set(name)
    if known.files:
        if offline():
            raise not_to_be_had(known, ["downloading: switched off by MINIGAN_OFFLINE"])
        failures = download(known, known.all_files, progress)
        if failures:
            raise not_to_be_had(known, failures)
    return cache_folder() / name


def check(
    name_or_dir: str | Path,
    root: str | Path | None = None,
    step: Step | None = None,
    *,
    pairs: bool = False,
) -> list[FileState]:
    """Verify a set: the SHA-256 of each file of a named set, or each picture of a folder.

    A named set is checked where `load` would take it from. Of a folder only the files with
    something wrong are returned; see `inspect` for what is looked at where pictures come in twos.

    pairs : take a folder without such a layout for pictures side by side.
    step : called as step(pictures done, pictures in all).
    """
    if isinstance(name_or_dir, str) and name_or_dir in PICTURE_SETS:
        known_set = PICTURE_SETS[name_or_dir]
        if not known_set.layout:
            return []
        found = find_set(known_set, root)
        if found is None:
            return [FileState(part, "missing") for part in known_set.layout]
        return check_layout(found, step)
    if not (isinstance(name_or_dir, str) and name_or_dir in NAMED_SETS):
        folder = existing_folder(name_or_dir)
        if pairs or any(layout(folder, split) != "one folder" for split in ("train", "test")):
            return check_layout(folder, step)
        damaged = damaged_pictures(folder, find_pictures(folder), thorough=True, step=step)
        return [
            FileState(p.as_posix(), "damaged", str(folder / p), why) for p, why in damaged.items()
        ]
    known = named_set(name_or_dir)
    states = []
    for file in known.all_files:
        path = next((p for place in search(known.name, root) if (p := find(file, place))), None)
        if path is None:
            states.append(FileState(file.name, "missing"))
        elif path.suffix != ".gz":  # decompressed by hand: there is no checksum for it
            states.append(FileState(path.name, "ok", str(path), "not compressed, so not verified"))
        elif is_intact(path, file):
            states.append(FileState(file.name, "ok", str(path)))
        else:
            why = f"not the published file; delete it and run: minigan data get {known.name}"
            states.append(FileState(file.name, "damaged", str(path), why))
    return states
