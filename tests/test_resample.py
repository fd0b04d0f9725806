"""Conventions, layouts and messages of resizing, borders and upfirdn."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from minigan_kernels import cpu, reference
from opspec import LAYOUTS, Array, close, laid_out, leaf

import minigan as mg
import minigan.functional as F
from minigan.errors import DtypeError, ShapeError, UsageError
from minigan.ops.resample import Table, interpolation_table
from minigan.tensor import Tensor


def line(*values: float) -> Tensor:
    """One row of pixels, (1, 1, n)."""
    return Tensor(np.array(values, np.float64).reshape(1, 1, -1))


def row(x: Tensor) -> list[float]:
    return [round(float(v), 10) for v in x.data.ravel()]


# Interpolation ---------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("n", "out", "taken"),
    [(4, 2, [0, 2]), (3, 2, [0, 1]), (2, 5, [0, 0, 0, 1, 1]), (5, 3, [0, 1, 3]), (1, 3, [0, 0, 0])],
)
def test_nearest_takes_floor_of_i_in_over_out(n: int, out: int, taken: list[int]) -> None:
    """Label maps of SPADE hang on this: PIL's nearest (pixel centres) differs by one pixel."""
    assert row(F.interpolate(line(*range(n)), size=out)) == taken


def test_nearest_exact_takes_pixel_centres() -> None:
    assert row(F.interpolate(line(0, 1, 2, 3), size=2, mode="nearest-exact")) == [1, 3]


def test_linear_places_pixels_by_their_centres_or_their_corners() -> None:
    x = line(0, 1)
    assert row(F.interpolate(x, size=4, mode="linear")) == [0, 0.25, 0.75, 1]
    corners = F.interpolate(x, size=4, mode="linear", align_corners=True)
    assert row(corners) == pytest.approx([0, 1 / 3, 2 / 3, 1])
    assert row(F.interpolate(line(0, 1, 5), size=1, mode="linear")) == [1]
    assert row(F.interpolate(line(0, 1, 5), size=1, mode="linear", align_corners=True)) == [0]


def test_cubic_is_the_one_with_slope_075() -> None:
    """In the middle between two pixels: (-3, 19, 19, -3) / 32. (Other libraries take 0.5.)"""
    x = np.zeros((1, 1, 1, 5))
    x[..., 2] = 32
    y = F.interpolate(Tensor(x), (1, 9), mode="bicubic", align_corners=True)
    assert row(y)[1::2] == [-3, 19, 19, -3]


def test_shrinking_has_no_low_pass_filter() -> None:
    x = line(9, 0, 0, 0, 0, 0, 0, 9)
    assert row(F.interpolate(x, size=2, mode="linear")) == [0, 0]
    assert row(F.interpolate(x, size=2, mode="area")) == [2.25, 2.25]


def test_a_given_scale_counts_and_lengths_round_down() -> None:
    x = line(0, 1, 2, 3, 4)
    assert F.interpolate(x, scale_factor=1.5).shape == (1, 1, 7)
    by_scale = F.interpolate(x, scale_factor=1.5, mode="linear")
    by_size = F.interpolate(x, size=7, mode="linear")
    assert row(by_scale)[1] == pytest.approx(0.5)  # (1 + 1/2) / 1.5 - 1/2
    assert row(by_size)[1] == pytest.approx(1.5 * 5 / 7 - 0.5)


@pytest.mark.parametrize("mode", ["nearest", "bilinear", "bicubic", "area"])
@pytest.mark.parametrize("size", [(1, 1), (7, 2), (3, 4)])
def test_constants_stay(mode: str, size: tuple[int, int]) -> None:
    y = F.interpolate(Tensor(np.full((2, 1, 3, 4), 5.0)), size, mode=mode)
    close(y.data, np.full((2, 1, *size), 5.0), 1e-14, mode)


def test_labels_keep_their_dtype() -> None:
    labels = mg.tensor(np.arange(16).reshape(1, 1, 4, 4))
    y = F.interpolate(labels, size=2)
    assert y.dtype == np.int64
    assert y.data.tolist() == [[[[0, 2], [8, 10]]]]
    with pytest.raises(DtypeError, match="nearest"):
        F.interpolate(labels, size=2, mode="bilinear")


def test_gradient_of_doubling_sums_blocks() -> None:
    x = leaf(np.zeros((1, 1, 2, 2)))
    g = np.arange(16.0).reshape(1, 1, 4, 4)
    (dx,) = mg.grad(F.interpolate(x, scale_factor=2), x, g)
    assert dx.data.tolist() == [[[[10.0, 18.0], [42.0, 50.0]]]]


@pytest.mark.parametrize(
    ("arguments", "error", "text"),
    [
        ({}, UsageError, "size or scale_factor"),
        ({"size": 2, "scale_factor": 2}, UsageError, "one of the two"),
        ({"size": 2, "mode": "bilinaer"}, UsageError, "did you mean 'bilinear'"),
        ({"size": 2, "mode": "linear"}, ShapeError, "linear takes 1 spatial axis"),
        ({"size": (2, 2, 2)}, ShapeError, "2 spatial axes"),
        ({"size": (2, 0)}, ShapeError, "at least 1"),
        ({"scale_factor": 0.1}, ShapeError, "at least 1"),
        ({"size": 2, "align_corners": True}, UsageError, "align_corners"),
    ],
)
def test_interpolate_messages(arguments: dict[str, Any], error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        F.interpolate(mg.tensor(np.zeros((1, 1, 3, 3))), **arguments)


# Tables ----------------------------------------------------------------------------------------


def as_matrix(table: Table) -> Array:
    matrix = np.zeros((len(table.index), table.length))
    for i, taps in enumerate(table.index):
        for k, j in enumerate(taps):
            if j >= 0:
                matrix[i, j] += table.weight[i, k]
    return matrix


@pytest.mark.parametrize("kind", ["nearest", "linear", "cubic"])
@pytest.mark.parametrize(("n", "out"), [(1, 1), (1, 4), (5, 2), (3, 8)])
def test_transposed_tables(kind: str, n: int, out: int) -> None:
    table = interpolation_table(n, out, None, kind, False)
    assert np.array_equal(as_matrix(table.transposed), as_matrix(table).T)
    assert np.array_equal(as_matrix(table.transposed.transposed), as_matrix(table))


def test_absent_taps_read_nothing() -> None:
    """An infinite pixel must not turn into NaN in outputs that do not look at it."""
    x = line(np.inf, 1, 2)
    y = F.avg_pool1d(x, 2, 2, 1)  # windows (pad, x0), (x1, x2)
    assert row(y) == [np.inf, 1.5]


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_axis_map_kernels_agree(layout: str, dtype: Any, rng: np.random.Generator) -> None:
    for shape in [(2, 3, 4, 5), (0, 3, 4, 5), (1, 1, 1, 1), (2, 3, 4), (2, 2, 3, 2, 3)]:
        x = laid_out(rng.normal(size=shape).astype(dtype), layout)
        for axis in range(1, x.ndim):
            index = rng.integers(-1, x.shape[axis], (6, 3))
            weight = rng.normal(size=(6, 3))
            y = cpu.axis_map(x, axis, index, weight)
            assert y.dtype == dtype
            expected = reference.axis_map(x, axis, index, weight)
            close(y, expected, 8 * np.finfo(dtype).eps, f"{layout} {shape} {axis}")


@pytest.mark.parametrize("channels_last", [False, True])
def test_results_keep_the_memory_layout(channels_last: bool) -> None:
    x = np.zeros((2, 3, 4, 6), np.float32)
    x = laid_out(x, "channels_last") if channels_last else x
    for fn in (
        lambda t: F.interpolate(t, scale_factor=2),
        lambda t: F.interpolate(t, size=(3, 5), mode="bilinear"),
        lambda t: F.avg_pool2d(t, 2),
        lambda t: F.pad(t, 1, "reflect"),
        lambda t: F.upfirdn2d(t, F.setup_filter([1, 3, 3, 1]), up=2, padding=2),
    ):
        y = fn(Tensor(x)).data
        dense = np.moveaxis(y, 1, -1) if channels_last else y
        assert dense.flags.c_contiguous


# Borders ---------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("mode", "expected"),
    [
        ("constant", [0, 0, 1, 2, 3, 0]),
        ("reflect", [3, 2, 1, 2, 3, 2]),
        ("replicate", [1, 1, 1, 2, 3, 3]),
        ("circular", [2, 3, 1, 2, 3, 1]),
    ],
)
def test_borders(mode: str, expected: list[float]) -> None:
    assert row(F.pad(line(1, 2, 3), (2, 1), mode)) == expected


def test_pad_counts_from_the_last_axis_and_crops() -> None:
    x = Tensor(np.arange(24.0).reshape(1, 2, 3, 4))
    assert F.pad(x, (1, 2, 3, 4)).shape == (1, 2, 10, 7)
    assert F.pad(x, 1).shape == (1, 2, 5, 6)
    assert F.pad(x, 1, "reflect").shape == (1, 2, 5, 6)
    y = F.pad(x, (-1, 0, 0, -2), value=7.0)
    assert np.array_equal(y.data, x.data[:, :, :1, 1:])
    y = F.pad(x, (-1, 2), value=7.0).data
    assert np.array_equal(y[..., :3], x.data[..., 1:]) and (y[..., 3:] == 7).all()
    assert F.pad(mg.tensor(np.zeros((1, 1, 2), np.int64)), (1, 1), value=9).data.max() == 9


@pytest.mark.parametrize(
    ("pad", "mode", "error", "text"),
    [
        ((3, 0), "reflect", ShapeError, "only 2 elements"),
        ((4, 0), "circular", ShapeError, "only 3 elements"),
        ((1,), "constant", ShapeError, "pairs"),
        ((1,) * 10, "constant", ShapeError, "pairs"),
        ((-2, -2), "constant", ShapeError, "crop more"),
        ((1, 1), "mirror", UsageError, "unknown mode"),
    ],
)
def test_pad_messages(pad: Any, mode: str, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        F.pad(mg.tensor(np.zeros((1, 1, 3))), pad, mode)


# upfirdn ---------------------------------------------------------------------------------------


def test_setup_filter() -> None:
    f = F.setup_filter([1, 3, 3, 1])
    assert f.shape == (4, 4) and f.dtype == np.float32 and f.sum() == 1
    assert f[1, 1] == 9 / 64
    assert F.setup_filter(np.ones(8)).shape == (8,)  # long filters stay separable
    assert F.setup_filter([1, 2], normalize=False, flip_filter=True, separable=True).tolist() == [
        2,
        1,
    ]
    assert F.setup_filter([1, 1], gain=4).sum() == 4
    assert F.setup_filter([1, 1], gain=4, separable=True).sum() == 2  # squared when applied twice
    assert F.setup_filter(None).tolist() == [[1.0]]


def test_filters_run_backward_unless_flipped() -> None:
    impulse = np.zeros((1, 1, 5, 5))
    impulse[0, 0, 2, 2] = 1
    f = np.arange(9.0).reshape(3, 3)
    convolved = F.upfirdn2d(Tensor(impulse), f).data[0, 0]
    close(convolved, f, 1e-14, "convolved")
    correlated = F.upfirdn2d(Tensor(impulse), f, flip_filter=True).data[0, 0]
    close(correlated, f[::-1, ::-1], 1e-14, "correlated")


def test_zeros_follow_each_pixel() -> None:
    y = F.upfirdn2d(Tensor(np.ones((1, 1, 2, 2))), None, up=(3, 1), padding=(1, 0, 0, 0))
    assert y.data.tolist() == [[[[0, 1, 0, 0, 1, 0, 0], [0, 1, 0, 0, 1, 0, 0]]]]


@pytest.mark.parametrize("separable", [False, True])
@pytest.mark.parametrize("taps", [[1, 3, 3, 1], [1, 2, 1], [1, 1], [1, 4, 6, 4, 1]])
def test_sampling_keeps_constants_and_sizes(taps: list[float], separable: bool) -> None:
    f = F.setup_filter(taps, separable=separable)
    x = Tensor(np.ones((1, 2, 6, 8)))
    up, down, same = F.upsample2d(x, f), F.downsample2d(x, f), F.filter2d(x, f)
    assert up.shape == (1, 2, 12, 16) and down.shape == (1, 2, 3, 4) and same.shape == x.shape
    for y in (up, down, same):
        inside = y.data[:, :, 2:-2, 2:-2] if y is not down else y.data[:, :, 1:-1, 1:-1]
        if len(taps) != 3 or y is not up:  # odd taps give the two phases different weights
            close(inside, np.ones_like(inside), 1e-6, "inside")


def test_symmetric_filters_do_not_shift(rng: np.random.Generator) -> None:
    """Mirroring the image mirrors the result, so nothing moves by half a pixel."""
    x = rng.normal(size=(1, 1, 6, 8))
    even, odd = F.setup_filter([1, 3, 3, 1]), F.setup_filter([1, 2, 1])
    for fn in (
        lambda t: F.upsample2d(t, even),
        lambda t: F.downsample2d(t, even),
        lambda t: F.filter2d(t, odd),
    ):
        y, mirrored = fn(Tensor(x)).data, fn(Tensor(x[..., ::-1, ::-1])).data
        close(mirrored, y[..., ::-1, ::-1], 1e-12, "mirrored")


def test_separable_filters_equal_their_outer_product(rng: np.random.Generator) -> None:
    x, f = Tensor(rng.normal(size=(2, 2, 5, 4))), rng.normal(size=3)
    options: dict[str, Any] = {"up": (2, 1), "down": (1, 2), "padding": (1, 2, 0, 3), "gain": 3.0}
    one = F.upfirdn2d(x, f, **options)
    two = F.upfirdn2d(x, np.outer(f, f), **options)
    close(one.data, two.data, 1e-13, "separable")


@pytest.mark.parametrize("layout", LAYOUTS)
def test_upfirdn2d_kernels_agree(layout: str, rng: np.random.Generator) -> None:
    for shape in [(2, 3, 4, 5), (0, 2, 4, 5), (1, 1, 1, 2)]:
        x = laid_out(rng.normal(size=shape), layout)
        for f in (rng.normal(size=(3, 2)), np.outer([1.0, 2.0], [3.0, 1.0, 2.0]), np.zeros((2, 2))):
            for up, down, padding in [
                ((1, 1), (1, 1), ((2, 1), (1, 2))),
                ((2, 3), (3, 2), ((3, 2), (-1, 2))),
                ((3, 1), (1, 2), ((1, 0), (1, 1))),
            ]:
                for flip in (False, True):
                    options = up, down, padding, flip
                    y = cpu.upfirdn2d(x, f, *options)
                    close(y, reference.upfirdn2d(x, f, *options), 1e-12, f"{layout} {options}")


def test_upfirdn2d_messages() -> None:
    x = mg.tensor(np.zeros((1, 1, 3, 3)))
    with pytest.raises(ShapeError, match="filter of 4 rows does not fit 3 rows"):
        F.upfirdn2d(x, np.ones((4, 1)))
    with pytest.raises(UsageError, match="asks for a gradient"):
        F.upfirdn2d(x, leaf(np.ones((2, 2))))
    with pytest.raises(UsageError, match="up 0"):
        F.upfirdn2d(x, None, up=0)
    with pytest.raises(UsageError, match="padding"):
        F.upfirdn2d(x, None, padding=(1, 2, 3))
    with pytest.raises(ShapeError, match="N, C, H, W"):
        F.filter2d(mg.tensor(np.zeros((1, 3, 3))), None)
    with pytest.raises(ShapeError, match="one or two axes"):
        F.setup_filter(np.ones((2, 2, 2)))
    with pytest.raises(UsageError, match="not separable"):
        F.setup_filter(np.ones((2, 2)), separable=True)


# torch -----------------------------------------------------------------------------------------


@pytest.mark.torch
def test_nearest_equals_torch_for_all_lengths() -> None:
    torch = pytest.importorskip("torch")
    for n in range(1, 40):
        x = np.arange(n, dtype=np.float64).reshape(1, 1, n)
        for out in range(1, 60):
            expected = torch.nn.functional.interpolate(torch.from_numpy(x), size=out).numpy()
            assert np.array_equal(F.interpolate(Tensor(x), size=out).data, expected), (n, out)


@pytest.mark.torch
@pytest.mark.parametrize("mode", ["nearest", "nearest-exact", "bilinear", "bicubic"])
def test_scales_equal_torch(mode: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    for n in (3, 7, 10, 31):
        x = rng.normal(size=(1, 2, n, 4))
        for scale in (0.3, 0.5, 0.7, 1 / 3, 1.3, 1.5, 2.0, 2.6, 3.0):
            if int(n * scale) in (0, n):  # torch copies if no length changes
                continue
            for align in (None,) if mode[0] == "n" else (False, True):
                expected = torch.nn.functional.interpolate(
                    torch.from_numpy(x), scale_factor=(scale, 1), mode=mode, align_corners=align
                )
                y = F.interpolate(
                    Tensor(x), scale_factor=(scale, 1), mode=mode, align_corners=bool(align)
                )
                close(y.data, expected.numpy(), 1e-12, f"{mode} {n} {scale} {align}")


@pytest.mark.torch
def test_upsample_equals_a_transposed_convolution(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    x, f = rng.normal(size=(2, 3, 4, 5)), rng.normal(size=(4, 4))
    weight = torch.from_numpy(np.broadcast_to(f, (3, 1, 4, 4)).copy())
    expected = torch.nn.functional.conv_transpose2d(
        torch.from_numpy(x), weight * 4, stride=2, padding=1, groups=3
    )
    close(F.upsample2d(Tensor(x), f).data, expected.numpy(), 1e-12, "up")
    expected = torch.nn.functional.conv2d(
        torch.from_numpy(x), weight.flip(2, 3), stride=2, padding=1, groups=3
    )
    close(F.downsample2d(Tensor(x), f).data, expected.numpy(), 1e-12, "down")
