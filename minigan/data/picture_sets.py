"""The named sets of pictures that come in twos: two with label maps, one unpaired, one procedural.

Those with photos may not be passed on, so there is nothing to download: who has the files puts them
where `places` looks.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from minigan.errors import DataError

from . import scenes
from .classmaps import read_classes
from .places import cache_folder, existing_folder, search
from .sets import PICTURE_SET_NAMES


@dataclass(frozen=True)
class PictureSet:
    """A set of pictures that `load` knows by name.

    kind : what it is by nature: "labels" or "unpaired".
    layout : the folders that it must have.
    """

    name: str
    title: str
    kind: str
    layout: tuple[str, ...]
    counts: dict[str, int]
    image_shape: tuple[int, int, int]
    licence: str
    source: str
    classes: tuple[str, ...] = ()


_MAPS = ("train/photo", "train/label")
_PAIR_SETS = (
    PictureSet(
        "facades",
        "fronts of buildings with label maps of 12 classes",
        "labels",
        _MAPS,
        {"train": 400, "test": 100},
        (3, 256, 256),
        "none stated; research only",
        "Tylecek, Sara: Spatial Pattern Templates for Recognition of Objects with Regular "
        "Structure, GCPR 2013",
        ("background", "facade", "window", "door", "cornice", "sill", "balcony", "blind", "deco",
         "molding", "pillar", "shop"),
    ),
    PictureSet(
        "camvid",
        "street scenes with label maps of 12 classes",
        "labels",
        _MAPS,
        {"train": 367, "test": 101},
        (3, 192, 256),
        "non-commercial research only",
        "Brostow, Fauqueur, Cipolla: Semantic object classes in video, PRL 30(2), 2009",
        ("Sky", "Building", "Pole", "Road", "Pavement", "Tree", "SignSymbol", "Fence", "Car",
         "Pedestrian", "Bicyclist", "Unlabelled"),
    ),
    PictureSet(
        "summer2winter",
        "landscapes in summer (A) and in winter (B), unpaired",
        "unpaired",
        ("trainA", "trainB"),
        {"train": 481 + 486, "test": 118 + 114},
        (3, 128, 128),
        "none; research only",
        "Zhu, Park, Isola, Efros: Unpaired Image-to-Image Translation, ICCV 2017",
    ),
    PictureSet(
        "scenes",
        "procedural landscapes with label maps of 12 classes, made by this program",
        "labels",
        (),
        {"train": 4000, "test": 500},
        (3, 64, 64),
        "none needed",
        "minigan.data.scenes",
        scenes.CLASSES,
    ),
)  # fmt: skip

PICTURE_SETS = {name: one for name, one in zip(PICTURE_SET_NAMES, _PAIR_SETS, strict=True)}


def find_set(known: PictureSet, root: str | Path | None = None) -> Path | None:
    """The folder where a set lies on this machine."""
    places = search(known.name, root)
    return next((p for p in places if all((p / part).is_dir() for part in known.layout)), None)


def not_here(known: PictureSet, root: str | Path | None = None) -> DataError:
    """The error that says where a set was looked for."""
    return DataError(
        f"{known.name} is not on this machine",
        why=f"it cannot be downloaded (licence: {known.licence}); looked in\n    "
        + "\n    ".join(map(str, search(known.name, root))),
        fix=f"put {', '.join(known.layout)} into {cache_folder() / known.name}, or into "
        f"DIR/{known.name} and set MINIGAN_DATA=DIR",
    )


def class_names(name_or_dir: str, root: str | Path | None = None) -> tuple[str, ...]:
    """The classes of photos with label maps, without reading the pictures."""
    known = PICTURE_SETS.get(name_or_dir)
    if known is not None:
        place = find_set(known, root) if known.layout else None
        if place is None or not (place / "classes.txt").is_file():
            return known.classes
        return read_classes(place / "classes.txt").names
    return read_classes(existing_folder(name_or_dir) / "classes.txt").names
