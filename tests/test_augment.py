"""Augmentations: what they do to an image, how often, their derivatives, and how ADA adapts."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opspec import Array
from test_devices import NAME

import minigan as mg
import minigan.functional as F
from minigan import backend, random
from minigan.augment import ADA, Augment, DiffAugment, augment, diffaugment, draws, warp
from minigan.augment.ada import mixed
from minigan.backend import to_numpy
from minigan.errors import CheckpointError, DtypeError, ShapeError, UsageError
from minigan.tensor import Tensor

KINDS = ["diffaugment", "diffaugment:color", "diffaugment:translation,cutout", "ada:0.5", "ada:1"]
SHAPES = st.tuples(st.integers(1, 3), st.integers(1, 4), st.integers(2, 7), st.integers(2, 7))


def repeated(name: str) -> Callable[[Tensor], Tensor]:
    """An augmentation that draws the same each time."""
    transform = augment(name)

    def same(x: Tensor) -> Tensor:
        mg.manual_seed(11)
        return transform(x)

    return same


# Names and messages ----------------------------------------------------------------------------


def test_names() -> None:
    assert type(augment("none")) is Augment
    assert isinstance(augment("diffaugment"), DiffAugment)
    assert augment("diffaugment:cutout, color").policy == ("color", "cutout")  # type: ignore[attr-defined]
    adaptive, fixed = augment("ada", kimg=50.0), augment("ada:0.2")
    assert isinstance(adaptive, ADA) and (adaptive.p, adaptive.target) == (0.0, 0.6)
    assert isinstance(fixed, ADA) and (fixed.p, fixed.target) == (0.2, None)


@pytest.mark.parametrize(
    ("name", "text"),
    [
        ("adda", "did you mean 'ada'"),
        ("none:1", "unknown augmentation"),
        ("ada:", "unknown augmentation"),
        ("ada:often", "no probability"),
        ("ada:1.5", "no probability|not a probability"),
        ("diffaugment:colour", "did you mean 'color'"),
    ],
)
def test_wrong_names(name: str, text: str) -> None:
    with pytest.raises(UsageError, match=text):
        augment(name)


def test_wrong_options_and_images() -> None:
    with pytest.raises(UsageError, match="has no option 'p'"):
        augment("none", p=1)
    with pytest.raises(UsageError, match="r_t lies between"):
        ADA(target=1.0)
    for name in ("ada", "diffaugment"):
        with pytest.raises(ShapeError, match="are no images"):
            augment(name)(Tensor(np.zeros((2, 3))))
        with pytest.raises(DtypeError, match="int64"):
            augment(name)(Tensor(np.zeros((2, 3, 4, 4), np.int64)))
    with pytest.raises(ShapeError, match="at least 2"):
        ADA()(Tensor(np.zeros((1, 1, 1, 5))))


# Every kind ------------------------------------------------------------------------------------


@given(SHAPES, st.sampled_from(KINDS), st.sampled_from(["float32", "float64"]))
def test_any_images_keep_shape_and_dtype(shape: Any, name: str, dtype: str) -> None:
    x = np.random.default_rng(0).normal(size=shape).astype(dtype)
    y = augment(name)(Tensor(x))
    assert y.shape == shape and y.dtype == dtype and np.isfinite(y.data).all()


@given(SHAPES, st.sampled_from(KINDS))
def test_gradients_are_adjoint(shape: Any, name: str) -> None:
    """All are affine in x: without the offset, <T x, y> = <x, T' y>."""
    transform = repeated(name)
    offset = transform(Tensor(np.zeros(shape)))
    x = np.random.default_rng(1).normal(size=shape)
    mg.check.adjoint(lambda x: transform(x) - offset, x, rtol=1e-11)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("shape", [(2, 1, 4, 3), (1, 3, 3, 3)])
def test_derivatives_of_a_penalty(name: str, shape: Any, rng: np.random.Generator) -> None:
    """R1 through an augmentation: its own gradient takes second derivatives of T and critic."""
    transform = repeated(name)
    mg.check.gradcheck(lambda x: transform(x).tanh(), [rng.normal(size=shape)], order=3)


@pytest.mark.parametrize("name", KINDS)
def test_each_image_and_each_call_differs(name: str) -> None:
    x = Tensor(np.broadcast_to(np.random.default_rng(2).normal(size=(3, 8, 8)), (8, 3, 8, 8)))
    transform = augment(name)
    first, second = transform(x).data, transform(x).data
    assert len({image.tobytes() for image in [*first, *second]}) >= 14
    mg.manual_seed(0)
    assert np.array_equal(transform(x).data, first)


@pytest.mark.parametrize("name", [k for k in KINDS if k != "ada:0.5"])
def test_what_is_fed_can_be_fed_again(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """A recorded step calls the same functions again: new numbers, same shapes and dtypes."""
    computes: list[Callable[[], Array]] = []

    def feed(compute: Callable[[], Array], device: str) -> Array:
        computes.append(compute)
        return compute()

    monkeypatch.setattr(backend, "feed", feed)
    augment(name)(Tensor(np.zeros((9, 3, 8, 8), np.float32)))
    assert computes
    for compute in computes:
        a, b = compute(), compute()
        assert (a.shape, a.dtype) == (b.shape, b.dtype) and not np.array_equal(a, b)


@pytest.mark.parametrize("name", KINDS)
@pytest.mark.parametrize("channels", [1, 3])
def test_a_gpu_does_the_same(name: str, channels: int, rng: np.random.Generator) -> None:
    x, g = rng.normal(size=(2, 2, channels, 5, 5)).astype(np.float32)
    found = []
    for device in ("cpu", NAME):
        leaf = Tensor(backend.to_device(x, device))
        leaf.requires_grad = True
        with mg.precision("fp32"):
            y = repeated(name)(leaf)
            (dx,) = mg.grad(y, [leaf], Tensor(backend.to_device(g, device)))
        found.append((to_numpy(y.data), to_numpy(dx.data)))
    for ours, theirs in zip(*found, strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=2e-4, atol=2e-5)


# DiffAugment -----------------------------------------------------------------------------------


def test_colours_by_hand(rng: np.random.Generator) -> None:
    x, drawn = rng.normal(size=(4, 3, 5, 6)), diffaugment.draw_colours(rng, 4)
    y = diffaugment.recoloured(Tensor(x), Tensor(drawn)).data
    for image, result, b, s, k in zip(x, y, *drawn.reshape(3, 4), strict=True):
        image = image + b
        image = (image - image.mean(0)) * s + image.mean(0)
        image = (image - image.mean()) * k + image.mean()
        np.testing.assert_allclose(result, image, rtol=1e-12, atol=1e-12)


def test_colours_have_the_published_ranges() -> None:
    drawn = diffaugment.draw_colours(np.random.default_rng(0), 20_000).reshape(3, -1)
    for values, low, high in zip(drawn, (-0.5, 0, 0.5), (0.5, 2, 1.5), strict=True):
        counts, _ = np.histogram(values, 20, (low, high))
        assert counts.sum() == 20_000 and chi_square(counts) < 50  # 19 degrees: p < 1e-4


def test_a_single_channel_has_no_saturation(rng: np.random.Generator) -> None:
    x, drawn = rng.normal(size=(2, 1, 3, 3)), diffaugment.draw_colours(rng, 2)
    drawn[[0, 2]] = np.array([0.0, 1.0]).reshape(2, 1, 1, 1, 1)
    np.testing.assert_allclose(diffaugment.recoloured(Tensor(x), Tensor(drawn)).data, x, 1e-12)


def test_translation_by_hand(rng: np.random.Generator) -> None:
    x = rng.normal(size=(6, 2, 9, 7))
    shifts = rng.integers(-3, 4, (6, 2))
    y = diffaugment.translated(Tensor(x), Tensor(shifts)).data
    for image, result, (down, right) in zip(x, y, shifts, strict=True):
        padded = np.pad(image, ((0, 0), (3, 3), (3, 3)))
        assert np.array_equal(result, np.roll(padded, (down, right), (1, 2))[:, 3:-3, 3:-3])


@pytest.mark.parametrize("size", [(8, 8), (7, 10), (1, 3)])
def test_cutout_by_hand(size: tuple[int, int]) -> None:
    """The published form: indices of a window, held at the border, set to zero."""
    height, width = size
    centres = np.array([(i, j) for i in range(height + 1) for j in range(width + 1)])
    centres = centres[(centres < [n + 1 - int(n / 2 + 0.5) % 2 for n in size]).all(1)]
    x = np.ones((len(centres), 1, height, width))
    y = diffaugment.cut_out(Tensor(x), Tensor(centres)).data
    for result, centre in zip(y[:, 0], centres, strict=True):
        expected = np.ones(size)
        lengths = [int(n / 2 + 0.5) for n in size]
        window = [
            np.clip(c - m // 2 + np.arange(m), 0, n - 1)
            for c, m, n in zip(centre, lengths, size, strict=True)
        ]
        expected[np.ix_(*window)] = 0
        assert np.array_equal(result, expected)


def test_places_are_drawn_evenly() -> None:
    rng = np.random.default_rng(1)
    shifts = diffaugment.draw_shifts(rng, 20_000, [28, 64])
    centres = diffaugment.draw_centres(rng, 20_000, [9, 8])  # windows of 5 and 4
    for values, low, high in (
        (shifts[:, 0], -4, 4),
        (shifts[:, 1], -8, 8),
        (centres[:, 0], 0, 8),
        (centres[:, 1], 0, 8),
    ):
        counts = np.bincount(values - low)
        assert len(counts) == high - low + 1 and chi_square(counts) < 50


def chi_square(counts: Array) -> float:
    """Against equal chances."""
    expected = counts.mean()
    return float(((counts - expected) ** 2).sum() / expected)


# ADA: the changes ------------------------------------------------------------------------------


@pytest.mark.parametrize("dtype", ["float32", "float64"])
@pytest.mark.parametrize("device", ["cpu", NAME])
def test_p_zero_keeps_every_bit(dtype: str, device: str, rng: np.random.Generator) -> None:
    x = rng.normal(size=(5, 3, 6, 6)).astype(dtype)
    x[0] = -0.0
    y = to_numpy(ADA()(Tensor(backend.to_device(x, device))).data)
    assert np.ascontiguousarray(y).tobytes() == x.tobytes()


def test_images_that_nothing_befalls_keep_every_bit(rng: np.random.Generator) -> None:
    x = rng.normal(size=(60, 1, 6, 6)).astype(np.float32)
    for device in ("cpu", NAME):
        y = to_numpy(augment("ada:0.1")(Tensor(backend.to_device(x, device))).data)
        same = [a.tobytes() == np.ascontiguousarray(b).tobytes() for a, b in zip(x, y, strict=True)]
        assert 5 < sum(same) < 50  # 21 of 60 on average


def test_blits_move_whole_pixels() -> None:
    rng = np.random.default_rng(3)
    n, size = 3000, 8
    image = rng.normal(size=(size, size))
    wide = np.pad(image, 2, mode="reflect")
    possible = {
        np.rot90(np.fliplr(window) if mirrored else window, k).tobytes()
        for k in range(4)
        for mirrored in (False, True)
        for window in (wide[i : i + size, j : j + size] for i in (1, 2, 3) for j in (1, 2, 3))
    }
    found = draws.blits(rng, n, (size, size), 1.0)
    index = found[:, :size, None] + found[:, None, size:]
    results = {image.reshape(-1)[one].tobytes() for one in index}
    assert len(possible) == 72 and results == possible


def test_a_blit_mirrors_then_turns_then_moves() -> None:
    """Against numpy's words for it, with one random number after the other held."""

    class Chosen:
        """A generator whose draws are given: mirrored, k = 1, moved by (1, -1)."""

        def random(self, n: int) -> Array:
            return np.zeros(n)

        def integers(self, low: int, high: int, n: int) -> Array:
            return np.ones(n, np.int64)

        def uniform(self, low: float, high: float, shape: Any) -> Array:
            return np.broadcast_to([0.125, -0.125], shape)

    x = np.arange(64.0).reshape(8, 8)
    found = draws.blits(Chosen(), 1, (8, 8), 1.0)[0]  # type: ignore[arg-type]
    turned = np.rot90(np.fliplr(x))
    expected = np.pad(turned, 1, mode="reflect")[0:8, 2:10]  # down by one, left by one
    assert np.array_equal(x.reshape(-1)[found[:8, None] + found[8:]], expected)


def test_images_that_are_no_squares_make_half_turns() -> None:
    found = draws.blits(np.random.default_rng(0), 50, (4, 6), 1.0)
    index = np.sort((found[:, :4, None] + found[:, None, 4:]).reshape(50, -1))
    assert (index.min(1) >= 0).all() and (index.max(1) < 24).all()


@pytest.mark.parametrize("size", [(12, 12), (13, 16), (2, 3)])
def test_warping_keeps_constants(size: tuple[int, int]) -> None:
    drawn = draws.geometry(np.random.default_rng(0), 4, size, 1.0)[:, 1:].reshape(4, 2, 3)
    x = np.full((4, 2, *size), 0.7)
    np.testing.assert_allclose(warp.warped(Tensor(x), Tensor(drawn)).data, 0.7, rtol=1e-10)


def test_warping_by_nothing_and_by_whole_pixels(rng: np.random.Generator) -> None:
    """The filter's two passes cancel, away from the borders, for the roughest image."""
    x = rng.normal(size=(1, 1, 24, 24))
    for right, down in ((0, 0), (2, -3)):
        theta = Tensor(np.array([[[1.0, 0.0, -right], [0.0, 1.0, -down]]]))
        y = warp.warped(Tensor(x), theta).data[0, 0]
        inside = slice(8, 16)
        expected = np.roll(x[0, 0], (down, right), (0, 1))
        np.testing.assert_allclose(y[inside, inside], expected[inside, inside], atol=1e-10)


def test_warping_turns_and_reflects() -> None:
    """A smooth picture, turned by 90 degrees, and moved far beyond its border."""
    at = np.arange(16.0)
    picture = np.cos(at[:, None] * 0.3) + np.sin(at * 0.4)
    quarter = Tensor(np.array([[[0.0, -1.0, 0.0], [1.0, 0.0, 0.0]]]))
    y = warp.warped(Tensor(picture[None, None]), quarter).data[0, 0]
    np.testing.assert_allclose(y, np.rot90(picture), atol=0.05)
    away = Tensor(np.array([[[1.0, 0.0, 30.0], [0.0, 1.0, 15.0]]]))  # 2 (n - 1) and n - 1 pixels
    y = warp.warped(Tensor(picture[None, None]), away).data[0, 0]
    np.testing.assert_allclose(y, picture[::-1], atol=0.05)


@pytest.mark.parametrize("p", [0.0, 0.3, 1.0])
def test_how_often_things_happen(p: float) -> None:
    n, rng = 20_000, np.random.default_rng(5)
    geometry = draws.geometry(rng, n, (32, 32), p)
    # scale, stretch, move, and one of the two turns with p
    assert geometry[:, 0].mean() == pytest.approx(1 - (1 - p) ** 4, abs=0.015)
    # brightness, contrast, hue, saturation with p, luma flip with p / 2
    coloured = draws.colours(rng, n, 3, p)[:, 0].mean()
    assert coloured == pytest.approx(1 - (1 - p) ** 4 * (1 - p / 2), abs=0.015)
    found = draws.blits(rng, n, (9, 9), p)
    still = (found == np.concatenate([np.arange(9) * 9, np.arange(9)])).all(1).mean()
    # with mirror 1/2, k = 0 1/4, no shift 1/9 where they happen (2/3 of U(-1.125, 1.125) is not 0)
    zero = ((0.5 / 1.125) ** 2) * p + 1 - p
    assert still == pytest.approx((1 - p / 2) * (1 - p * 3 / 4) * zero, abs=0.015)


def test_sizes_of_the_changes() -> None:
    rng, n = np.random.default_rng(6), 20_000
    m = draws.geometry(rng, n, (40, 20), 1.0)[:, 1:].reshape(n, 2, 3)
    areas = -np.log2(np.linalg.det(m[:, :, :2]))  # of the image: 2 N(0, .2^2)
    assert areas.mean() == pytest.approx(0, abs=0.02)
    assert areas.std() == pytest.approx(0.4, rel=0.03)
    moves = np.linalg.solve(m[:, :, :2], -m[:, :, 2:])[:, :, 0]  # of the image: x, y
    assert moves.std(0) == pytest.approx([2.5, 5.0], rel=0.03)
    angles = np.arctan2(m[:, 1, 0], m[:, 0, 0])
    counts, _ = np.histogram(angles, 16, (-np.pi, np.pi))
    assert chi_square(counts) < 60


def test_colours_about_the_axis_of_grey() -> None:
    n, rng = 20_000, np.random.default_rng(7)
    m = draws.colours(rng, n, 3, 1.0)[:, 1:].reshape(n, 3, 4)
    linear, offset = m[:, :, :3], m[:, :, 3]
    grey = linear @ np.ones(3)  # grey stays grey, scaled by contrast and flipped
    np.testing.assert_allclose(grey, grey[:, :1].repeat(3, 1), rtol=1e-9, atol=1e-9)
    assert np.log2(np.abs(grey[:, 0])).std() == pytest.approx(0.5, rel=0.03)
    assert (grey[:, 0] < 0).mean() == pytest.approx(0.5, abs=0.02)
    np.testing.assert_allclose(offset, offset[:, :1].repeat(3, 1), rtol=1e-9, atol=1e-9)
    assert (offset / grey).std() == pytest.approx(0.2, rel=0.03)
    # Across the axis: a rotation times contrast times saturation.
    u = np.array([1, -1, 0]) / np.sqrt(2)
    across = linear @ u
    stretch = np.log2(np.linalg.norm(across, axis=1) / np.abs(grey[:, 0]))
    assert stretch.std() == pytest.approx(1.0, rel=0.03)
    w = np.array([1, 1, -2]) / np.sqrt(6)
    counts, _ = np.histogram(np.arctan2(across @ w, across @ u), 16, (-np.pi, np.pi))
    assert chi_square(counts) < 60


@pytest.mark.parametrize("channels", [1, 2, 3])
def test_colours_are_applied(channels: int, rng: np.random.Generator) -> None:
    x, m = rng.normal(size=(4, channels, 3, 5)), rng.normal(size=(4, channels, channels + 1))
    expected = np.einsum("nij,njhw->nihw", m[:, :, :-1], x) + m[:, :, -1, None, None]
    np.testing.assert_allclose(mixed(Tensor(x), Tensor(m)).data, expected, rtol=1e-12)


def test_one_channel_has_the_part_of_luma() -> None:
    m = draws.colours(np.random.default_rng(8), 5000, 1, 1.0)[:, 1:]
    assert np.log2(np.abs(m[:, 0])).std() == pytest.approx(0.5, rel=0.05)
    assert (m[:, 0] < 0).mean() == pytest.approx(0.5, abs=0.03)
    assert (m[:, 1] / m[:, 0]).std() == pytest.approx(0.2, rel=0.05)


# ADA: how p adapts -----------------------------------------------------------------------------


def test_p_follows_the_signs() -> None:
    ada = ADA(kimg=0.5, interval=2)
    for logits in ([1.0, 2.0, 3.0, -1.0], [1.0, 1.0, 1.0, 1.0]):  # r = 6 / 8 > .6
        ada.observe(Tensor(np.array(logits)))
        ada.after_step()
    assert (ada.r, ada.p) == (0.75, 8 / 500)
    ada.observe(Tensor(np.array([[[1.0, -1.0]], [[-1.0, -1.0]]])))  # maps of two images: r = -1/2
    ada.after_step()
    assert ada.p == 8 / 500
    ada.after_step()
    assert (ada.r, ada.p) == (-0.5, 8 / 500 - 2 / 500)
    for _ in range(4):
        ada.observe(Tensor(-np.ones(4)))
        ada.after_step()
    assert ada.p == 0.0
    ada.observe(Tensor(np.ones(1000)))
    ada.after_step()
    ada.after_step()
    assert ada.p == 1.0


def test_a_fixed_p_stays() -> None:
    ada = augment("ada:0.3")
    for _ in range(8):
        ada.observe(Tensor(np.ones(1000)))
        ada.after_step()
    assert isinstance(ada, ADA) and ada.p == 0.3


def test_nobody_observes() -> None:
    ada = ADA(interval=1)
    with pytest.raises(UsageError, match="call observe in D's turn"):
        ada.after_step()


def test_nan_teaches_nothing() -> None:
    ada = ADA(interval=1, p=0.5)
    ada.observe(Tensor(np.array([np.nan, 1.0])))
    ada.after_step()
    assert ada.p == 0.5 and not to_numpy(ada.seen).any()


def test_a_resumed_run_goes_on_bit_for_bit(rng: np.random.Generator) -> None:
    x = Tensor(rng.normal(size=(8, 3, 6, 6)).astype(np.float32))

    def play(ada: ADA, steps: range) -> list[bytes]:
        seen = []
        for step in steps:
            y = ada(x)
            ada.observe(F.sum(y, axis=(1, 2, 3)) * 0.0 + (1.0 if step != 9 else -1.0))
            ada.after_step()
            seen.append(y.data.tobytes() + np.float64(ada.p).tobytes())
        return seen

    continuous = ADA(kimg=0.1)
    whole = play(continuous, range(14))
    assert continuous.p == pytest.approx(0.32)  # up, up, down
    mg.manual_seed(0)
    first = ADA(kimg=0.1)
    begin = play(first, range(6))  # between two adaptations
    saved, streams = first.state_dict(), random.state()
    play(first, range(3))
    second = ADA(kimg=0.1)
    second.load_state_dict(saved)
    random.set_state(streams)
    assert begin + play(second, range(6, 14)) == whole
    with pytest.raises(CheckpointError, match="ada: the checkpoint has"):
        second.load_state_dict({"p": np.zeros(())})


def test_the_signs_are_added_on_the_device() -> None:
    ada = ADA(kimg=0.5, interval=1).to(NAME)
    ada.observe(Tensor(backend.to_device(np.ones(4, np.float32), NAME)))
    assert not isinstance(ada.seen, np.ndarray) and to_numpy(ada.seen).tolist() == [4.0, 4.0]
    state = ada.state_dict()
    ada.after_step()
    assert ada.p == 4 / 500 and not to_numpy(ada.seen).any()
    ada.load_state_dict(state)
    assert to_numpy(ada.seen).tolist() == [4.0, 4.0] and ada.p == 0.0
