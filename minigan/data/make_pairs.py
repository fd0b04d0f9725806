"""Two folders of pictures to one of pairs side by side: A left, B right."""

from __future__ import annotations

from pathlib import Path

import numpy as np

from minigan.errors import DataError, UsageError

from .folder import Step, find_pictures
from .grid import save_png
from .layouts import matched, sound, unequal
from .picture import read_picture


def make_pairs(
    a: str | Path,
    b: str | Path,
    out: str | Path,
    *,
    size: tuple[int, int] | None = None,
    step: Step | None = None,
) -> int:
    """Write OUT/NAME.png for each NAME that A and B have; return how many.

    Nothing is written unless every picture has a partner of the same name and can be read.

    size : (H, W) of each half; by default the partners must be of equal size.
    step : called as step(pairs done, pairs in all).
    """
    out = Path(out)
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        raise UsageError(f"{out} is not empty", fix="give a new folder, or empty this one")
    folders = {"A": Path(a), "B": Path(b)}
    for folder in folders.values():
        if not folder.is_dir():
            raise DataError(f"{folder} is no folder", fix="give the path of a folder of pictures")
    found = matched({side: (folder, find_pictures(folder)) for side, folder in folders.items()})
    for side, (folder, paths) in found.items():
        sound(side, folder, paths, channels=1)
    wrong = [] if size else unequal(found)
    if wrong:
        raise DataError(wrong[0][1], where=str(wrong[0][0]), fix="pass --size to scale both")
    count = len(found["A"][1])
    for number, files in enumerate(zip(found["A"][1], found["B"][1], strict=True), 1):
        halves = [
            read_picture(folders[side] / f, size) for side, f in zip("AB", files, strict=True)
        ]
        target = (out / files[0]).with_suffix(".png")
        target.parent.mkdir(parents=True, exist_ok=True)
        save_png(target, np.concatenate(halves, axis=2).transpose(1, 2, 0))
        if step is not None:
            step(number, count)
    return count
