"""What `minigan data check` finds where pictures come in twos, file by file.

Damaged files, files without a partner, partners of another size, label maps in colour, class
numbers that mean nothing (with pixel and value), grey pictures among pictures in colour, and
pictures side by side that have no halves. Nothing is changed.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minigan.errors import DataError

from .classmaps import Classes, read_classes, read_label_map
from .folder import Step
from .layouts import Sides, grey_ones, layout, part, sides, unmatched
from .picture import picture_size, read_numbers, read_picture


@dataclass(frozen=True)
class FileState:
    """One file of a set on this machine: `state` is "ok", "missing", "damaged" or "wrong"."""

    name: str
    state: str
    path: str = ""
    reason: str = ""


def check_layout(root: Path, step: Step | None = None) -> list[FileState]:
    """Look at every file of both splits; return those with something wrong."""
    states: list[FileState] = []
    parts = {}
    for split in ("train", "test"):  # a folder without splits is looked at once
        if split == "train" or part(root, split) != root or layout(root, split) == "two kinds":
            parts[split] = sides(root, split)
    classes = None
    if any(layout(root, split) == "labels" for split in parts):
        try:
            classes = read_classes(root / "classes.txt")
        except DataError as error:
            there = (root / "classes.txt").is_file()
            word = "wrong" if there else "missing"
            states.append(_state(word, error.what, root, root / "classes.txt"))
    total = sum(len(paths) for found in parts.values() for _, paths in found.values())
    done = 0
    for split, found in parts.items():
        broken: set[Path] = set()
        for side, (folder, paths) in found.items():
            for path in paths:
                done += 1
                try:
                    _read(folder / path, side, classes)
                except (DataError, OSError) as error:
                    broken.add(folder / path)
                    states.append(_state(*_verdict(error), root, folder / path))
                if step is not None:
                    step(done, total)
        states += _together(root, found, broken, layout(root, split))
    return states


def _read(file: Path, side: str, classes: Classes | None) -> None:
    if side == "label" and classes is not None:
        read_label_map(file, classes)
    elif side in ("label", "instance"):
        read_numbers(file)
    else:
        read_picture(file)


def _verdict(error: Exception) -> tuple[str, str]:
    """ "wrong" if the file can be read, but means nothing."""
    what = error.what if isinstance(error, DataError) else str(error)
    wrong = "is none of the" in what or "has no number" in what
    return ("wrong" if wrong else "damaged"), what


def _together(root: Path, found: Sides, broken: set[Path], how: str) -> list[FileState]:
    """What is wrong with files that can be read one by one."""
    states = []
    for side, (folder, paths) in found.items():
        whole = [path for path in paths if folder / path not in broken]
        if side not in ("label", "instance"):
            why = "grey, while others of this folder are in colour"
            states += [_state("wrong", why, root, folder / p) for p in grey_ones(folder, whole)]
    if how == "one folder":
        folder, paths = found["both"]
        for path in paths:
            if folder / path not in broken and (width := picture_size(folder / path)[1]) % 2:
                why = f"{width} pixels wide: no two halves"
                states.append(_state("wrong", why, root, folder / path))
    elif how != "two kinds":
        states += [_state("wrong", why, root, path) for path, why in unmatched(found)]
        states += _sizes(root, found, broken)
    return states


def _sizes(root: Path, found: Sides, broken: set[Path]) -> list[FileState]:
    (first, (folder, paths)), *others = found.items()
    states, sizes = [], {}
    for path in paths:
        if folder / path not in broken:
            sizes[path.with_suffix("")] = picture_size(folder / path)
    for _, (other, files) in others:
        for path in files:
            size = sizes.get(path.with_suffix(""))
            if size and other / path not in broken and (own := picture_size(other / path)) != size:
                why = f"{own[1]} x {own[0]}, but its {first} is {size[1]} x {size[0]}"
                states.append(_state("wrong", why, root, other / path))
    return states


def _state(state: str, reason: str, root: Path, file: Path) -> FileState:
    return FileState(file.relative_to(root).as_posix(), state, str(file), reason)
