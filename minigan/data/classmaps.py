"""Label maps as files: the class of each pixel, and what the classes are called.

A label map is a PNG, grey or with a palette, whose stored numbers are classes. `classes.txt` beside
the folders names them, one class per line, tab-separated: number, name, and if one likes the red,
green and blue in which to show it.

    0  sky  134  193  240
    1  grass

The numbers run from 0 without gaps. A class called unlabelled, unlabeled, void or ignore means
nothing and is not judged; it may have the number 255, and becomes the one after the last.
"""

from __future__ import annotations

import colorsys
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.errors import DataError

from .folder import FolderDataset
from .picture import cover_nearest, read_numbers
from .pixels import Bytes

_MEANS_NOTHING = ("unlabelled", "unlabeled", "void", "ignore")
_UNLABELLED = 255


@dataclass(frozen=True)
class Classes:
    """names, colours uint8 (classes, 3), the class to ignore, and whether files write it as 255."""

    names: tuple[str, ...]
    colours: Bytes
    ignore: int | None = None
    ignore_is_255: bool = False


def palette(count: int) -> Bytes:
    """Colours that can be told apart, uint8 (count, 3)."""
    hues = [colorsys.hsv_to_rgb(i * 0.618 % 1, 0.55 + 0.35 * (i % 2), 0.95 - 0.25 * (i % 3 == 2))
            for i in range(count)]  # fmt: skip
    return np.rint(np.array(hues).reshape(count, 3) * 255).astype(np.uint8)


def read_classes(path: Path) -> Classes:
    """Read classes.txt; errors name the line."""
    if not path.is_file():
        raise DataError(
            f"there is no {path.name} to say what the label maps mean",
            where=str(path),
            fix="write one line per class: its number, a tab, its name",
        )
    rows: dict[int, tuple[str, list[int]]] = {}
    text = path.read_text(encoding="utf-8", errors="replace")
    for number, line in enumerate(text.splitlines(), 1):
        if line.strip():
            label, name, colour = _class_line(line, f"{path}, line {number}")
            if label in rows:
                raise DataError(f"class {label} is named twice", where=f"{path}, line {number}")
            rows[label] = name, colour
    special = rows.pop(_UNLABELLED, None) if len(rows) <= _UNLABELLED else None
    if not rows or sorted(rows) != list(range(len(rows))):
        raise DataError(
            f"the classes of {path.name} do not run from 0 without gaps",
            where=str(path),
            why=f"it has {', '.join(map(str, sorted(rows))) or 'none'}",
        )
    if special is not None:
        rows[len(rows)] = special
    names = tuple(rows[i][0] for i in range(len(rows)))
    colours = palette(len(rows))
    for label, (_, colour) in rows.items():
        if colour:
            colours[label] = colour
    nothing = [i for i, name in enumerate(names) if name.lower() in _MEANS_NOTHING]
    ignore = len(rows) - 1 if special is not None else next(iter(nothing), None)
    return Classes(names, colours, ignore, special is not None)


def _class_line(line: str, where: str) -> tuple[int, str, list[int]]:
    fields = [field.strip() for field in line.rstrip().split("\t")]
    try:
        label, colour = int(fields[0]), [int(field) for field in fields[2:5]]
        sound = 0 <= label <= 255 and len(colour) in (0, 3) and all(0 <= c <= 255 for c in colour)
        if sound and len(fields) > 1 and fields[1]:
            return label, fields[1], colour
    except ValueError:
        pass
    raise DataError(
        f"'{line.strip()}' is no class",
        where=where,
        why="a line is a number, a name and perhaps red, green and blue, with tabs between",
    )


def read_label_map(path: Path, classes: Classes) -> npt.NDArray[Any]:
    """Read one label map as it is, int (H, W); DataError names file, pixel and value if a number
    is no class."""
    numbers = read_numbers(path)
    if classes.ignore_is_255:
        numbers[numbers == _UNLABELLED] = classes.ignore
    count = len(classes.names)
    bad = (numbers < 0) | (numbers >= count)
    if bad.any():
        y, x = (int(place[0]) for place in np.nonzero(bad))
        raise DataError(
            f"{path.name}: {int(numbers[y, x])} at pixel x={x}, y={y} is none of the {count} "
            "classes",
            where=str(path),
            why=f"classes.txt names 0 to {count - 1}; {int(bad.sum()):,} pixels of this file have "
            "another number",
            fix="mend the file, or name the class; a line '255, tab, unlabelled' admits 255",
        )
    return numbers


class LabelMaps(FolderDataset):
    """A folder of label maps: uint8 (N, 1, H, W) of classes, scaled without mixing them."""

    def __init__(self, *where: Any, meaning: Classes, **known: Any) -> None:
        super().__init__(*where, **known)
        self.meaning = meaning

    def read(self, path: Path) -> Bytes:
        numbers = read_label_map(path, self.meaning)
        return cover_nearest(numbers, self.image_shape[1:]).astype(np.uint8)[None]


class InstanceMaps(FolderDataset):
    """A folder of instance maps: int32 (N, 1, H, W), scaled without mixing them."""

    dtype = np.int32

    def read(self, path: Path) -> Any:
        return cover_nearest(read_numbers(path), self.image_shape[1:])[None]
