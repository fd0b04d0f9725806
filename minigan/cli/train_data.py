"""The data of a training run: what the game wants, in the size of its images."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from minigan.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    from minigan.data import Dataset
    from minigan.data.ordered import Ordered
    from minigan.gans import Game

_COUPLED = ("direction", "jitter", "flip")  # options of data that comes in twos


def data_name(text: str) -> str:
    """Folders as absolute paths, so that a resume finds them from anywhere."""
    from minigan.data.picture_sets import PICTURE_SETS
    from minigan.data.places import existing_folder
    from minigan.data.sets import NAMED_SETS

    named = text in NAMED_SETS or text in PICTURE_SETS
    return text if named else str(existing_folder(text).absolute())


def described(given: dict[str, Any], game: type[Game], name: str) -> dict[str, Any]:
    """What config.json says about the data before it is loaded."""
    chosen = {option: given[option] for option in _COUPLED if given.get(option) is not None}
    if game.data == "images":
        if chosen:
            raise UsageError(
                f"--{next(iter(chosen))} is for games that learn from two pictures at a time",
                fix="leave it away",
            )
        return {"name": name}
    usual = {"direction": "AtoB", "jitter": game.jitter, "flip": True}
    return {"name": name, "kind": game.data, **usual, **chosen}


def classes_option(
    game: type[Game], options: dict[str, Any], changed: dict[str, Any], name: str, root: str | None
) -> dict[str, Any]:
    """The option `classes` of a game that learns label maps: as many as the data has."""
    from minigan.data.picture_sets import class_names

    if game.data != "labels" or "classes" not in options or "classes" in changed:
        return {}
    return {"classes": len(class_names(name, root))}


def load_data(config: dict[str, Any], game: Game, root: str | None) -> Dataset:
    """Load what config["data"] names in the size of the game's images."""
    from minigan import data

    known = config["data"]
    channels, height, width = game.image_shape
    how = {name: known[name] for name in ("jitter", "direction") if name in known}
    dataset = data.load(
        known["name"], kind=game.data, size=(height, width), channels=channels, root=root, **how
    )
    now = {"images": len(dataset), "fingerprint": dataset.fingerprint}
    if known.get("fingerprint", now["fingerprint"]) != now["fingerprint"]:
        raise CheckpointError(
            f"the data in {known['name']} is not what the run was started with",
            why=f"{known['images']} images then, {now['images']} now, or other content",
            fix="bring the data back, or start a new run",
        )
    known |= now
    if isinstance(dataset, data.LabelDataset):
        known |= {"classes": list(dataset.classes), "colours": dataset.colours.tolist()}
        game.class_colours = dataset.colours
    return dataset


def make_batches(dataset: Dataset, config: dict[str, Any], game: Game) -> Ordered[Any]:
    """The batches that the game plays on."""
    from minigan import data

    size = config["batch"] * game.batches_per_step
    return data.batches(dataset, size, config["seed"], flip=config["data"].get("flip", True))
