"""Conventions and messages of pooling, pixel shuffle and the deviation over a minibatch."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from minigan_kernels import cpu, reference
from opspec import LAYOUTS, close, laid_out, leaf

import minigan as mg
import minigan.functional as F
from minigan.errors import DtypeError, ShapeError, UsageError
from minigan.tensor import Tensor


def line(*values: float) -> Tensor:
    return Tensor(np.array(values, np.float64).reshape(1, 1, -1))


def row(x: Tensor) -> list[float]:
    return [float(v) for v in x.data.ravel()]


def test_padding_counts_or_does_not() -> None:
    """AvgPool 3 s2 p1 without the padding is the image pyramid of pix2pixHD and SPADE."""
    x = line(3, 6, 9, 12)
    assert row(F.avg_pool1d(x, 3, 2, 1)) == [3.0, 9.0]
    assert row(F.avg_pool1d(x, 3, 2, 1, count_include_pad=False)) == [4.5, 9.0]
    corner = F.avg_pool2d(Tensor(np.ones((1, 1, 4, 4))), 3, 2, 1).data[0, 0, 0, 0]
    assert corner == pytest.approx(4 / 9)


def test_ceil_mode_lets_the_last_window_hang_over() -> None:
    x = line(2, 4, 6, 8, 10)
    assert row(F.avg_pool1d(x, 2)) == [3.0, 7.0]
    assert row(F.avg_pool1d(x, 2, ceil_mode=True)) == [3.0, 7.0, 10.0]
    assert row(F.max_pool1d(x, 2, ceil_mode=True)) == [4.0, 8.0, 10.0]
    assert F.avg_pool1d(line(1, 2, 3), 1, 2, ceil_mode=True).shape == (1, 1, 2)
    # A window that would start in the padding after the end is dropped.
    assert F.avg_pool1d(line(1, 2, 3), 2, 2, 1, ceil_mode=True).shape == (1, 1, 2)


def test_the_first_maximum_wins() -> None:
    x = leaf(np.array([1.0, 5, 5, 2, 5]).reshape(1, 1, 5))
    y = F.max_pool1d(x, 3, 1)
    (g,) = mg.grad(y, x, np.array([[[1.0, 10.0, 100.0]]]))
    assert g.data.ravel().tolist() == [0.0, 11.0, 100.0, 0.0, 0.0]


def test_padding_is_never_a_maximum() -> None:
    assert row(F.max_pool1d(line(-3, -2, -7), 3, 2, 1)) == [-2.0, -2.0]
    assert row(F.max_pool1d(line(-np.inf, -np.inf), 2)) == [-np.inf]


def test_nan_is_a_maximum() -> None:
    y = F.max_pool1d(line(1, np.nan, 3, 4, 5, 6), 3)
    assert np.isnan(y.data[0, 0, 0]) and y.data[0, 0, 1] == 6


def test_adaptive_windows_overlap() -> None:
    x = Tensor(np.arange(5.0).reshape(1, 1, 1, 5))
    assert row(F.adaptive_avg_pool2d(x, (1, 3))) == [0.5, 2.0, 3.5]
    assert F.adaptive_avg_pool2d(x, (None, 2)).shape == (1, 1, 1, 2)
    assert row(F.adaptive_avg_pool2d(x, 1)) == [2.0]


def test_empty_batches() -> None:
    x = Tensor(np.zeros((0, 3, 4, 4), np.float32))
    for fn in (
        lambda t: F.avg_pool2d(t, 2),
        lambda t: F.max_pool2d(t, 2),
        lambda t: F.interpolate(t, scale_factor=0.5),
        lambda t: F.adaptive_avg_pool2d(t, 2),
    ):
        assert fn(x).shape == (0, 3, 2, 2)
    assert F.minibatch_stddev(x).shape == (0, 4, 4, 4)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_max_pool_kernels_agree(layout: str, dtype: Any, rng: np.random.Generator) -> None:
    """Also on ties and NaN: the positions decide where gradients go."""
    for nd in (1, 2, 3):
        x = np.round(rng.normal(size=(2, 3, *[5, 4, 6][:nd]))).astype(dtype)
        x[0, 0].flat[2] = np.nan
        x = laid_out(x, layout)
        for options in ((2, 2, 0, 1, False), (3, 2, 1, 1, True), (2, 1, 1, 2, False)):
            *per_axis, ceil_mode = options
            arguments = [(v,) * nd for v in per_axis]
            y, index = cpu.max_pool(x, *arguments, ceil_mode)
            expected, positions = reference.max_pool(x, *arguments, ceil_mode)
            assert y.dtype == dtype
            np.testing.assert_array_equal(y, expected)
            np.testing.assert_array_equal(index, positions)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: F.avg_pool2d(x, 5), ShapeError, "length 5 do not fit axis 2 of length 4"),
        (lambda x: F.max_pool2d(x, 2, padding=2), UsageError, "more than half"),
        (lambda x: F.max_pool2d(x, (2, 2, 2)), UsageError, "kernel_size"),
        (lambda x: F.max_pool2d(x, 2, stride=0), UsageError, "stride 0"),
        (lambda x: F.avg_pool2d(x, 1.5), UsageError, "kernel_size 1.5"),
        (lambda x: F.avg_pool1d(x, 2), ShapeError, "3 axes"),
        (lambda x: F.max_pool2d(x[:, :, :1], (2, 1), 2, (1, 0), 2), ShapeError, "only padding"),
        (lambda x: F.adaptive_avg_pool2d(x, (0, 1)), ShapeError, "cannot average"),
        (lambda x: F.adaptive_avg_pool2d(x, (1, 1, 1)), ShapeError, "size"),
        (lambda x: F.pixel_shuffle(x, 2), ShapeError, "do not divide by 2"),
        (lambda x: F.pixel_unshuffle(x, 3), ShapeError, "do not divide by 3"),
        (lambda x: F.pixel_shuffle(x, 0), UsageError, "positive"),
        (lambda x: F.minibatch_stddev(x, 4, 2), UsageError, "divides the channels"),
    ],
)
def test_messages(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(mg.tensor(np.zeros((2, 3, 4, 4))))


def test_integers_have_no_average() -> None:
    with pytest.raises(DtypeError):
        F.avg_pool2d(mg.tensor(np.zeros((1, 1, 2, 2), np.int64)), 2)


# Shuffle and minibatch deviation ---------------------------------------------------------------


def test_pixel_shuffle_order() -> None:
    x = Tensor(np.arange(4.0).reshape(1, 4, 1, 1))
    assert F.pixel_shuffle(x, 2).data.tolist() == [[[[0, 1], [2, 3]]]]
    assert np.array_equal(F.pixel_unshuffle(F.pixel_shuffle(x, 2), 2).data, x.data)


def test_sample_n_belongs_to_group_n_mod_m() -> None:
    x = np.zeros((8, 1, 1, 1))
    x[1::2] = np.arange(4).reshape(4, 1, 1, 1)  # odd samples vary, even ones do not
    y = F.minibatch_stddev(Tensor(x), group_size=4, eps=0.0).data[:, 1, 0, 0]
    assert y[::2].tolist() == [0.0] * 4
    assert y[1::2] == pytest.approx(np.std(np.arange(4)))


@pytest.mark.parametrize(
    ("batch", "group"), [(1, 1), (2, 2), (3, 3), (4, 4), (5, 1), (6, 3), (7, 1), (8, 4)]
)
def test_groups_divide_the_batch(batch: int, group: int, rng: np.random.Generator) -> None:
    x = rng.normal(size=(batch, 2, 3, 3))
    y = F.minibatch_stddev(Tensor(x), group_size=4).data
    assert y.shape == (batch, 3, 3, 3)
    groups = x.reshape(group, batch // group, 2, 3, 3)
    expected = np.sqrt(groups.var(axis=0) + 1e-8).mean(axis=(1, 2, 3))
    close(y[:, 2, 0, 0], np.tile(expected, group), 1e-12, "deviation")


def test_equal_samples_have_a_finite_gradient() -> None:
    """A collapsed generator makes the variance 0, where sqrt alone has an infinite slope."""
    x = leaf(np.ones((4, 2, 2, 2), np.float32))
    y = F.minibatch_stddev(x)
    assert y.data[0, 2, 0, 0] == pytest.approx(1e-4)
    (g,) = mg.grad(y.sum(), x, create_graph=True)
    (gg,) = mg.grad(g.square().sum(), x)
    assert np.isfinite(g.data).all() and np.isfinite(gg.data).all()
