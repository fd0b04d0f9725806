"""The procedural landscapes: repeatable, the same at every size, and true to their label maps."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigan import data
from minigan.data import scenes
from minigan.data.scenes import light, words
from minigan.errors import ShapeError, UsageError


def test_a_landscape_depends_on_its_seed_and_number_alone() -> None:
    whole = scenes.make(5, seed=3, size=32)
    alone = scenes.make(1, seed=3, start=4, size=32)
    assert np.array_equal(whole.maps[4:], alone.maps)
    assert np.array_equal(whole.photos[4:], alone.photos)
    assert whole.captions[4] == alone.captions[0]
    other = scenes.make(5, seed=4, size=32)
    assert not np.array_equal(whole.maps, other.maps)


def test_shapes_and_classes() -> None:
    made = scenes.make(6, size=(32, 48))
    assert made.maps.shape == (6, 32, 48)
    assert made.photos.shape == (6, 3, 32, 48)
    assert made.maps.dtype == made.photos.dtype == np.uint8
    assert made.maps.max() < len(scenes.CLASSES) == len(scenes.COLOURS)
    np.testing.assert_allclose(made.shares.sum(1), 1)
    assert len(np.unique(scenes.COLOURS, axis=0)) == len(scenes.CLASSES)
    assert scenes.make(0).maps.shape == (0, 64, 64)


def test_every_class_occurs() -> None:
    shares = scenes.make(100, size=32).shares
    assert (shares.max(0) > 0.003).all()
    assert (shares.mean(0) < 0.5).all()


def test_the_same_landscape_at_every_size() -> None:
    small, large = (scenes.make(8, seed=1, size=side) for side in (32, 128))
    middle = large.maps[:, 2::4, 2::4]
    assert (small.maps == middle).mean() > 0.9
    shrunk = large.photos.reshape(8, 3, 32, 4, 32, 4).mean((3, 5))
    assert np.abs(shrunk - small.photos).mean() < 16


def test_the_style_is_independent_of_the_map() -> None:
    made = scenes.make(60, size=16)
    styles = made.styles
    for dice in (styles.hour, styles.season):
        assert np.abs(np.corrcoef(dice, made.shares[:, :9].T)[0, 1:]).max() < 0.5
    day, night = (
        scenes.render(made.maps, scenes.style(time, count=60)) for time in ("noon", "night")
    )
    assert day.mean() > night.mean() + 40
    moved = scenes.render(made.maps, replace(styles, season=styles.season + 2))
    green = np.isin(made.maps, [scenes.CLASSES.index(n) for n in ("grass", "tree", "hill")])
    assert (moved != made.photos).any(1)[green].mean() > 0.9
    assert (moved[~green[:, None].repeat(3, 1)] == made.photos[~green[:, None].repeat(3, 1)]).any()


def test_classes_have_their_colours_by_day() -> None:
    made = scenes.make(40, seed=2, size=48)
    photos = scenes.render(made.maps, scenes.style("noon", "summer", count=40)).astype(float)
    r, g, b = np.moveaxis(photos, 1, 0)
    where = {name: made.maps == i for i, name in enumerate(scenes.CLASSES)}
    assert (g > np.maximum(r, b))[where["grass"]].mean() > 0.9
    assert (g > np.maximum(r, b))[where["tree"]].mean() > 0.8
    assert (b > r)[where["sky"]].mean() > 0.8
    assert (r > b)[where["sand"]].mean() > 0.9
    brightness = {name: photos.mean(1)[mask].mean() for name, mask in where.items()}
    assert brightness["snow"] > brightness["mountain"] + 40
    assert brightness["tree"] < brightness["grass"] < brightness["sun"]


def test_water_mirrors_what_is_above() -> None:
    maps = np.full((1, 64, 64), scenes.CLASSES.index("sky"), np.uint8)
    maps[0, 20:32] = scenes.CLASSES.index("snow")
    maps[0, 20:32, 32:] = scenes.CLASSES.index("hill")
    maps[0, 32:] = scenes.CLASSES.index("water")
    photo = scenes.render(maps, scenes.style())[0].astype(float).mean(0)
    assert photo[34:42, 4:24].mean() > photo[34:42, 40:60].mean() + 15


@given(
    label=st.integers(0, len(scenes.CLASSES) - 1),
    hour=st.floats(0, 24),
    season=st.floats(-4, 8),
    texture=st.integers(0, 10**6),
)
def test_any_map_can_be_rendered(label: int, hour: float, season: float, texture: int) -> None:
    maps = np.full((1, 16, 24), label, np.uint8)
    style = scenes.style(hour, season, texture=texture)
    photo = scenes.render(maps, style)
    assert photo.shape == (1, 3, 16, 24)
    assert np.array_equal(photo, scenes.render(maps.astype(np.int64), style))


def test_bad_requests() -> None:
    with pytest.raises(UsageError, match="16 to 1024"):
        scenes.make(1, size=8)
    with pytest.raises(UsageError, match="cannot make -1"):
        scenes.make(-1)
    with pytest.raises(UsageError, match="did you mean 'sunset'"):
        scenes.style("sunst")
    with pytest.raises(UsageError, match="classes are 0 to 11"):
        scenes.render(np.full((1, 16, 16), 12), scenes.style())
    with pytest.raises(ShapeError, match="1 styles"):
        scenes.render(np.zeros((2, 16, 16), int), scenes.style())


def test_hours_and_seasons_close_their_circles() -> None:
    day = light.lights(np.array([0.0, 24.0, 23.999]))
    for colours in day.values():
        np.testing.assert_allclose(colours[1:], colours[[0, 0]], atol=1e-3)
    year = light.materials(np.array([0.0, 4.0, -4.0]), scenes.CLASSES)
    np.testing.assert_array_equal(year[0], year[1])
    np.testing.assert_array_equal(year[0], year[2])


def test_captions_say_what_is_there() -> None:
    shares = {"water": 0.2, "mountain": 0.1, "snow": 0.05, "tree": 0.1, "sun": 0.004}
    text = words.caption("lake", shares, 18.5, 2.4)
    assert text == "a lake below snowy mountains at sunset in autumn, with trees and the sun"
    assert words.caption("lake", {"grass": 1.0}, 2, 2.6) == "a meadow at night in winter"


def test_as_a_dataset() -> None:
    train = data.load("scenes", size=32, limit=20)
    made = scenes.make(20, size=32)
    assert isinstance(train, data.LabelDataset)
    assert np.array_equal(train.raw([7, 3]), made.photos[[7, 3]])
    assert np.array_equal(train.maps([7, 3]), made.maps[[7, 3]])
    assert train.classes == scenes.CLASSES
    test = data.load("scenes", size=32, limit=20, split="test")
    assert test.fingerprint != train.fingerprint
    assert data.load("scenes", size=32, limit=20).fingerprint == train.fingerprint
    alone = data.load("scenes", kind="images", size=32, limit=20)
    assert isinstance(data.batches(alone, 4).batch(0), data.Batch)
    assert np.array_equal(alone.images, made.photos)
