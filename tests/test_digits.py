"""The procedural digits: repeatable, controllable, and drawn where they should be."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from minigan.data import digits, pen
from minigan.data.glyphs import GLYPHS
from minigan.errors import ShapeError, UsageError

ALL = np.arange(10)


def moments(images: np.ndarray) -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """Centre of mass (x, y) and slant (tangent, positive to the right) of each image."""
    ink = images[:, 0].astype(float)
    y, x = np.mgrid[:28, :28]
    total = ink.sum(axis=(1, 2))
    cx, cy = (ink * x).sum(axis=(1, 2)) / total, (ink * y).sum(axis=(1, 2)) / total
    dx, dy = x - cx[:, None, None], y - cy[:, None, None]
    slant = -(ink * dx * dy).sum(axis=(1, 2)) / (ink * dy * dy).sum(axis=(1, 2))
    return cx, cy, slant


def extent(image: np.ndarray) -> tuple[int, int]:
    """Width and height of what is clearly inked."""
    inked = image[0] > 127
    columns, rows = np.flatnonzero(inked.any(axis=0)), np.flatnonzero(inked.any(axis=1))
    return int(np.ptp(columns)) + 1, int(np.ptp(rows)) + 1


# ---- the pen ----


@pytest.mark.parametrize("digit", range(10))
def test_curves_pass_through_the_points_of_every_glyph(digit: int) -> None:
    for glyph in GLYPHS[digit]:
        size = sum(map(len, glyph.strokes))
        path = pen.trace(glyph, size + 3)
        assert path.index.shape == path.weight.shape == (pen.PLACES, 4)
        np.testing.assert_allclose(path.weight.sum(axis=1), 1, atol=1e-6)
        curve = (path.control[path.index] * path.weight[..., None]).sum(axis=1)
        points = np.array([point for stroke in glyph.strokes for point in stroke])
        nearest = np.hypot(*(curve[:, None] - points).transpose(2, 0, 1)).min(axis=0)
        assert nearest.max() < 0.05, glyph.name
        assert (np.diff(path.progress) >= 0).all()
        assert path.progress[0] == 0
        assert abs(path.progress[-1] - 1) < 1e-6


def test_closed_strokes_are_smooth_at_the_seam() -> None:
    ring = next(g for g in GLYPHS[0] if g.strokes[0][0] == g.strokes[0][-1])
    path = pen.trace(ring, 20)
    curve = (path.control[path.index] * path.weight[..., None]).sum(axis=1)
    np.testing.assert_allclose(curve[0], curve[-1], atol=1e-6)
    before, after = curve[-1] - curve[-2], curve[1] - curve[0]
    cosine = before @ after / np.hypot(*before) / np.hypot(*after)
    assert cosine > 0.97


def test_a_straight_line_has_the_area_it_should() -> None:
    x = np.linspace(6, 20, pen.PLACES)
    places = np.stack([x, np.full_like(x, 13.5)], axis=1)[None].astype(np.float32)
    for width in (1.5, 2.5, 4.0):
        half = np.full((1, pen.PLACES), width / 2, np.float32)
        ink = pen.draw(places, half, np.ones(1, np.float32)).sum() / 255
        expected = 14 * width + np.pi * width**2 / 4  # a bar with round ends
        assert abs(ink - expected) < 0.06 * expected


def test_glyphs_are_about_one_unit_high() -> None:
    for digit in GLYPHS:
        for glyph in digit:
            points = np.array([point for stroke in glyph.strokes for point in stroke])
            assert points.min() >= 0
            assert 0.85 <= np.ptp(points[:, 1]) <= 1
            assert points[:, 0].max() <= 0.95
            assert glyph.share > 0


# ---- the set ----


@settings(max_examples=10)
@given(seed=st.integers(0, 2**63 - 1), start=st.integers(0, 10_000), count=st.integers(1, 30))
def test_a_sample_depends_on_seed_and_number_alone(seed: int, start: int, count: int) -> None:
    block = start // digits.BLOCK * digits.BLOCK
    images, labels, attributes = digits.make(start - block + count, seed, block)
    part = digits.make(count, seed, start)
    np.testing.assert_array_equal(part[0], images[-count:])
    np.testing.assert_array_equal(part[1], labels[-count:])
    np.testing.assert_array_equal(part[2].wobble, attributes.wobble[-count:])


def test_more_samples_and_other_portions_change_nothing() -> None:
    images, labels, attributes = digits.make(450, seed=5)
    few = digits.make(137, seed=5)
    np.testing.assert_array_equal(few[0], images[:137])
    one = np.concatenate([digits.make(1, 5, i)[0] for i in (0, 199, 200, 449)])
    np.testing.assert_array_equal(one, images[[0, 199, 200, 449]])
    order = np.random.default_rng(0).permutation(450)
    shuffled = digits.render(labels[order], attributes[order])
    np.testing.assert_array_equal(shuffled, images[order])


def test_seeds_differ() -> None:
    a, b = digits.make(200, 0)[0], digits.make(200, 1)[0]
    assert not (a == b).all(axis=(1, 2, 3)).any()


def test_every_block_is_balanced() -> None:
    images, labels, attributes = digits.make(3 * digits.BLOCK, 7)
    assert images.dtype == np.uint8
    assert images.shape == (600, 1, 28, 28)
    assert labels.dtype == np.int64
    assert len(attributes) == 600
    for block in np.split(labels, 3):
        assert np.bincount(block).tolist() == [20] * 10


def test_statistics_resemble_mnist() -> None:
    """MNIST: mean 33.3, 19 % of the pixels inked, 13 % above half, line width 2.5 pixels."""
    images, labels, _ = digits.make(2000, 0)
    assert 30 < images.mean() < 36
    assert 0.16 < (images > 0).mean() < 0.22
    assert 0.11 < (images > 127).mean() < 0.15
    assert (images.max(axis=(1, 2, 3)) > 200).mean() > 0.97
    edge = np.concatenate([images[..., 0, :], images[..., -1, :], images[..., 0], images[..., -1]])
    assert (edge > 0).mean() < 0.01
    per_class = [images[labels == digit].mean() for digit in ALL]
    assert np.argmin(per_class) == 1
    cx, cy, slant = moments(images)
    assert np.abs(cx - 13.5).max() < 2.5
    assert np.abs(cy - 13.5).max() < 2.5
    assert abs(np.mean(cx) - 13.5) < 0.2
    assert 0.05 < slant.mean() < 0.3
    sizes = np.array([max(extent(image)) for image in images[:300]])
    assert 17 < sizes.mean() < 20.5
    assert sizes.max() <= 22


def test_classes_can_be_told_apart() -> None:
    """A nearest neighbour among 4,000 other samples finds the class of nearly all."""
    train, labels, _ = digits.make(4000, 0)
    test, truth, _ = digits.make(400, 1)
    a, b = (x.reshape(len(x), -1).astype(np.float32) for x in (train, test))
    a, b = (x / np.linalg.norm(x, axis=1, keepdims=True) for x in (a, b))
    found = labels[(b @ a.T).argmax(axis=1)]
    assert (found == truth).mean() > 0.9


def test_writing_varies_within_a_class() -> None:
    images, labels, attributes = digits.make(2000, 0)
    for digit in ALL:
        here = labels == digit
        assert set(attributes.glyph[here]) == set(range(len(GLYPHS[digit])))
        assert images[here].astype(float).std(axis=0).max() > 80


# ---- control ----


def test_slant_is_what_was_asked_for() -> None:
    slants = np.linspace(-0.5, 0.5, 5)
    ones = digits.render(np.ones(5, int), digits.neutral(5, slant=slants))
    np.testing.assert_allclose(moments(ones)[2], slants, atol=0.06)


def test_thickness_is_what_was_asked_for() -> None:
    widths = np.array([1.5, 2.5, 3.5, 5.0])
    ones = digits.render(np.ones(4, int), digits.neutral(4, thickness=widths))
    middle = ones[:, 0, 13].sum(axis=1) / 255
    np.testing.assert_allclose(middle, widths, rtol=0.1)


def test_scale_aspect_shift_rotation_and_ink() -> None:
    plain = digits.render(ALL, digits.neutral(10))
    assert all(19 <= max(extent(image)) <= 20 for image in plain)
    half = digits.render(ALL, digits.neutral(10, scale=0.5))
    assert all(9 <= max(extent(image)) <= 11 for image in half)
    cx, cy, _ = moments(plain)
    np.testing.assert_allclose(cx, 13.5, atol=0.6)
    np.testing.assert_allclose(cy, 13.5, atol=0.6)
    moved = moments(digits.render(ALL, digits.neutral(10, shift=[1.5, -2])))
    np.testing.assert_allclose(moved[0] - cx, 1.5, atol=0.1)
    np.testing.assert_allclose(moved[1] - cy, -2, atol=0.1)
    zeros = digits.render([0, 0], digits.neutral(2, aspect=[0.6, 1.2]))
    assert extent(zeros[0])[0] + 5 < extent(zeros[1])[0]
    lying = digits.render([1], digits.neutral(1, rotation=90))
    assert extent(lying[0])[0] >= 18
    assert extent(lying[0])[1] <= 4
    clockwise = digits.render([1], digits.neutral(1, rotation=20))
    np.testing.assert_allclose(moments(clockwise)[2], np.tan(np.deg2rad(20)), atol=0.06)
    assert digits.render([3], digits.neutral(1, ink=0.5)).max() == 128


def test_glyph_numbers_wrap_around() -> None:
    ways = len(GLYPHS[4])
    images = digits.render(np.full(2 * ways, 4), digits.neutral(2 * ways, glyph=range(2 * ways)))
    np.testing.assert_array_equal(images[:ways], images[ways:])
    assert len(np.unique(images[:ways].reshape(ways, -1), axis=0)) == ways


def test_empty_and_wrong_input() -> None:
    images, labels, attributes = digits.make(0)
    assert images.shape == (0, 1, 28, 28)
    assert len(labels) == len(attributes) == 0
    with pytest.raises(UsageError, match="cannot make -1 digits"):
        digits.make(-1)
    with pytest.raises(UsageError, match="labels must be 0 to 9"):
        digits.render([10], digits.neutral(1))
    with pytest.raises(ShapeError, match="labels"):
        digits.render([1, 2], digits.neutral(1))
    with pytest.raises(UsageError, match="no attribute 'colour'"):
        digits.neutral(1, colour=3)
