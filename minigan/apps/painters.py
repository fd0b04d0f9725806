"""Who paints for `minigan paint`: a generator that was trained, or the procedure of the scenes."""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Mapping
from functools import cached_property
from typing import TYPE_CHECKING, Any

import numpy as np

from minigan import random
from minigan.backend import Array
from minigan.data import scenes
from minigan.data.pixels import Bytes
from minigan.errors import UsageError
from minigan.gans.gaugan import GauGAN

if TYPE_CHECKING:
    from minigan.gans.labels import LabelGame

_EXAMPLES = {"lake": 4, "bay": 10, "river": 37, "mountain": 20, "dunes": 0, "sea": 27}  # of seed 0
_STYLES = {
    "morning": ("morning", "spring"),
    "noon": ("noon", "summer"),
    "sunset": ("sunset", "autumn"),
    "dusk": ("dusk", "summer"),
    "night": ("night", "summer"),
    "winter": ("morning", "winter"),
}
_SHOWN = 4  # the landscape that shows the styles


class Painter(ABC):
    """Turns label maps into pictures: the same map, seed, style and mix give the same picture.

    Attributes
    ----------
    title, note : what paints, for the page.
    names, colours : of the classes; uint8 (classes, 3).
    size : (H, W) of the maps.
    seeded : whether the seed changes the picture.
    takes_styles : whether `encode` can take the style of a picture.
    """

    title: str
    note: str
    names: tuple[str, ...]
    colours: Bytes
    size: tuple[int, int]
    seeded = True
    takes_styles = False

    @abstractmethod
    def render(self, labels: Bytes, seed: int, style: Array | None, mix: float) -> Bytes:
        """A picture (H, W, 3) of a map (H, W).

        style : a code that `encode` gave, or None.
        mix : 0 is the style of the seed, 1 that of the code.
        """

    def encode(self, photo: Bytes) -> Array:
        """The code of the style of a picture (H, W, 3)."""
        raise UsageError(f"{self.title} takes no style from pictures", fix="choose a seed")

    @cached_property
    def examples(self) -> Mapping[str, Bytes]:
        """Maps (H, W) to begin with."""
        return {}

    @cached_property
    def gallery(self) -> Mapping[str, Bytes]:
        """Pictures (H, W, 3) whose styles are offered."""
        return {}


class Generator(Painter):
    """The generator of a run, SPADE, GauGAN or pix2pixHD.

    With the style z_s of a picture and the noise z of the seed, both of about N(0, 1), the mix m
    paints with ((1 - m) z + m z_s) / sqrt((1 - m)^2 + m^2), which is as long as they are.

    Parameters
    ----------
    game : with its weights.
    names, colours : of its classes.
    net : "ema" or "raw".
    size : of the maps; None is that of the training.
    """

    def __init__(
        self,
        game: LabelGame,
        names: tuple[str, ...],
        colours: Bytes,
        note: str = "",
        net: str = "ema",
        size: int | None = None,
    ) -> None:
        if not len(names) == len(colours) == game.classes:
            raise UsageError(f"{len(names)} names of {game.classes} classes")
        self.game, self.names, self.colours, self.net = game, names, colours, net
        self.size = (size, size) if size else game.image_shape[1:]
        self.title, self.note = game.name, note
        self.seeded = bool(getattr(game, "nz", 0))
        self.takes_styles = isinstance(game, GauGAN) and game.image_shape[0] == 3

    def render(self, labels: Bytes, seed: int, style: Array | None, mix: float) -> Bytes:
        z = self.game.noise(random.generator(seed, "paint", 0), 1)[0]
        if style is not None:
            z = ((1 - mix) * z + mix * style) / np.hypot(1 - mix, mix)
        picture = self.game.render(labels.astype(np.int64), z=z.astype(np.float32), net=self.net)
        return np.broadcast_to(picture, (*picture.shape[:2], 3))

    def encode(self, photo: Bytes) -> Array:
        return (
            self.game.encode(photo, net=self.net)[0] if self.takes_styles else super().encode(photo)
        )

    @cached_property
    def examples(self) -> Mapping[str, Bytes]:
        return example_scenes(self.size) if self.names == scenes.CLASSES else {}

    @cached_property
    def gallery(self) -> Mapping[str, Bytes]:
        known = self.takes_styles and self.names == scenes.CLASSES
        return example_styles(self.size) if known else {}


class Procedure(Painter):
    """No network: the procedure that makes the pictures of `scenes` paints the map.

    A style is the five numbers of `scenes.Style`. That of a picture is the one, out of 12 hours in
    4 seasons, in which a landscape has the most similar mean colours above and below.
    """

    title, note = "scenes", "painted by the procedure that makes this data, not by a network"
    names, colours = scenes.CLASSES, scenes.COLOURS
    takes_styles = True

    def __init__(self, size: int = 96) -> None:
        self.size = (size, size)

    def render(self, labels: Bytes, seed: int, style: Array | None, mix: float) -> Bytes:
        numbers = _numbers(scenes.drawn_styles(np.array([seed]), 0))
        if style is not None:
            change = style - numbers
            change[0] = (change[0] + 12) % 24 - 12  # the shorter way around the clock
            numbers = numbers + mix * change
        hour, season, haze, light, texture = numbers
        fields = {"haze": haze, "light": light, "texture": round(texture)}
        looks = scenes.style(hour % 24, season, **fields)
        return scenes.render(labels[None], looks)[0].transpose(1, 2, 0)

    def encode(self, photo: Bytes) -> Array:
        means = _means(photo.transpose(2, 0, 1)[None])
        styles, known = self._table
        nearest = int(((known - means) ** 2).sum(1).argmin())
        return _numbers(styles[nearest : nearest + 1])

    @cached_property
    def _table(self) -> tuple[scenes.Style, Array]:
        hours, seasons = (a.ravel() for a in np.meshgrid(np.arange(0, 24, 2), np.arange(4)))
        one = scenes.style(count=len(hours))
        styles = scenes.Style(
            hours.astype(np.float32), seasons.astype(np.float32), one.haze, one.light, one.texture
        )
        land = scenes.make(1, start=_SHOWN, size=32).maps.repeat(len(hours), 0)
        return styles, _means(scenes.render(land, styles))

    @cached_property
    def examples(self) -> Mapping[str, Bytes]:
        return example_scenes(self.size)

    @cached_property
    def gallery(self) -> Mapping[str, Bytes]:
        return example_styles(self.size)


def example_scenes(size: tuple[int, int]) -> dict[str, Bytes]:
    """Landscapes with a bit of everything."""
    return {name: scenes.make(1, start=i, size=size).maps[0] for name, i in _EXAMPLES.items()}


def example_styles(size: tuple[int, int]) -> dict[str, Bytes]:
    """One landscape at several hours."""
    land = scenes.make(1, start=_SHOWN, size=size).maps
    return {
        name: scenes.render(land, scenes.style(time, season))[0].transpose(1, 2, 0)
        for name, (time, season) in _STYLES.items()
    }


def _numbers(style: scenes.Style) -> Array:
    fields: list[Any] = [style.hour, style.season, style.haze, style.light, style.texture]
    return np.array([field[0] for field in fields], np.float64)


def _means(photos: Bytes) -> Array:
    """Mean colours of the upper and the lower third, (N, 6)."""
    third = max(1, photos.shape[2] // 3)
    return np.concatenate(
        [photos[:, :, :third].mean((2, 3)), photos[:, :, -third:].mean((2, 3))], 1
    )
