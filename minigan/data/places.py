"""Where the files of named sets may lie on this machine.

A set is looked for in the folder given as `root`, in $MINIGAN_DATA/NAME, then in the user's cache
($MINIGAN_CACHE, or the place that the system has for caches).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from minigan.errors import DataError, UsageError, did_you_mean

from .fetch import Progress, fetch
from .sets import NAMED_SETS, PICTURE_SET_NAMES, NamedSet, SetFile


def cache_folder() -> Path:
    """Return the folder of downloaded sets: $MINIGAN_CACHE or the system's place for caches."""
    import platformdirs

    chosen = os.environ.get("MINIGAN_CACHE")
    base = Path(chosen) if chosen else platformdirs.user_cache_path("minigan", appauthor=False)
    return base / "data"


def search(name: str, root: str | Path | None) -> list[Path]:
    """Return the folders where the set of a name may lie, in the order of search."""
    places = [Path(root) / name, Path(root)] if root is not None else []
    if os.environ.get("MINIGAN_DATA"):
        places.append(Path(os.environ["MINIGAN_DATA"]) / name)
    return [*places, cache_folder() / name]


def find(file: SetFile, place: Path) -> Path | None:
    """Return a file of a set in a folder, as published or already decompressed."""
    for path in (place / file.name, place / file.name.removesuffix(".gz")):
        if path.is_file():
            return path
    return None


def find_all(files: Sequence[SetFile], place: Path) -> bool:
    """Whether a folder has all of the files."""
    return all(find(file, place) for file in files)


def has_idx(folder: Path, split: str) -> bool:
    """Whether a folder holds images of a split in idx format, under MNIST's names."""
    return find(NAMED_SETS["mnist"].files[split][0], folder) is not None


def offline() -> bool:
    """Whether MINIGAN_OFFLINE forbids downloads."""
    return os.environ.get("MINIGAN_OFFLINE", "0").lower() not in ("", "0", "false", "no")


def download(known: NamedSet, files: Sequence[SetFile], progress: Progress | None) -> list[str]:
    """Fetch files into the cache, one after the other; return why the first that failed did."""
    for file in files:
        failures = fetch(file, known.mirrors, cache_folder() / known.name, progress=progress)
        if failures:
            return failures
    return []


def not_to_be_had(known: NamedSet, tried: Sequence[str]) -> DataError:
    """Return the error that says what was tried, and how to place the files by hand."""
    names = ", ".join(file.name for file in known.all_files)
    return DataError(
        f"{known.name} is not on this machine and could not be fetched",
        why="tried\n    " + "\n    ".join(tried),
        fix=f"put {names} into {cache_folder() / known.name}, or into DIR/{known.name} and set "
        f"MINIGAN_DATA=DIR; they are published at {' and '.join(known.mirrors)}",
    )


def named_set(name: str) -> NamedSet:
    """Return a named set; UsageError if there is none of that name."""
    if name not in NAMED_SETS:
        names = *NAMED_SETS, *PICTURE_SET_NAMES
        raise UsageError(
            f"there is no dataset '{name}'{did_you_mean(name, names)}",
            why=f"the named sets are {', '.join(names)}; anything else must be a folder",
        )
    return NAMED_SETS[name]


def existing_folder(name_or_dir: str | Path) -> Path:
    """Return the path of a folder; if there is none, complain of the name or of the path."""
    folder = Path(name_or_dir).expanduser()
    if folder.is_dir():
        return folder
    text = str(name_or_dir)
    if isinstance(name_or_dir, str) and not {"/", os.sep} & set(text):
        named_set(text)
    raise DataError(f"{text} is no folder", fix="give the path of a folder of pictures")
