"""Copies of lines, concatenation and maxima of windows in float32: values, layouts, threads."""

from __future__ import annotations

import itertools
from functools import partial
from typing import Any

import numpy as np
import pytest
from minigan_kernels import cpu, reference
from minigan_kernels.cpu.copies import choose_lines
from opspec import Array, laid_out
from test_kernels_elementwise import by_one_thread

import minigan as mg
import minigan.functional as F
from minigan.ops.pad import border_table
from minigan.ops.resample import interpolation_table
from minigan.tensor import Tensor

SHAPES = [(2, 5, 23, 24), (1, 33, 17, 18), (3, 3, 40, 31), (1, 1, 70, 80)]


def choices(n: int) -> list[tuple[Array, Array]]:
    """Tables that only choose: borders, nearest neighbours, any order, zeros in the middle."""
    place = np.random.default_rng(n).integers(-1, n, n + 9)
    tables = [border_table(n, 3, 2, mode) for mode in ("reflect", "replicate", "circular")]
    tables.append(interpolation_table(n, 2 * n, None, "nearest", False))
    found = [(t.index, t.weight) for t in tables]
    outside = np.arange(-2, n + 1)
    outside[outside == n] = -1
    for index in (place, np.maximum(outside, -1)):
        found.append((index[:, None], np.where(index < 0, 0.0, 1.0)[:, None]))
    return found


@pytest.mark.parametrize("layout", ["plain", "channels_last", "transposed", "sliced"])
@pytest.mark.parametrize("shape", SHAPES)
def test_chosen_lines_are_exact(
    shape: tuple[int, ...],
    layout: str,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    x = rng.normal(size=shape).astype(np.float32)
    x[:, :, 3] = np.inf
    x[:, :, 4] = np.nan
    stored = x if layout == "plain" else laid_out(x, layout)
    for rows, columns in zip(choices(shape[2]), choices(shape[3])[::-1], strict=True):
        call = partial(cpu.plane_map, stored, *rows, *columns)
        found, again = call(), by_one_thread(monkeypatch, call)
        chosen = np.maximum(rows[0], 0), np.maximum(columns[0], 0)[:, 0]
        wanted = x[:, :, chosen[0], chosen[1]]
        wanted = np.where((rows[0] < 0) | (columns[0][:, 0] < 0), 0, wanted)
        assert np.array_equal(found, wanted, equal_nan=True)
        assert np.array_equal(found, again, equal_nan=True)
        for axis, table in ((2, rows), (3, columns)):
            wanted = np.moveaxis(x, axis, 0)[np.maximum(table[0][:, 0], 0)]
            wanted[table[0][:, 0] < 0] = 0
            found = cpu.axis_map(stored, axis, *table)
            assert np.array_equal(found, np.moveaxis(wanted, 0, axis), equal_nan=True)


def test_weights_and_several_taps_are_no_choice() -> None:
    x = np.ones((2, 30, 40, 8), np.float32)
    one, half = np.ones((30, 1)), np.full((30, 1), 0.5)
    index = np.arange(30)[:, None]
    assert choose_lines(x, (index, one), None) is not None
    assert choose_lines(x, (index, half), None) is None
    assert choose_lines(x, (np.hstack([index, index]), np.ones((30, 2))), None) is None


@pytest.mark.parametrize("layout", ["plain", "channels_last"])
@pytest.mark.parametrize("mode", ["constant", "reflect"])
def test_borders_and_their_gradients(mode: str, layout: str, rng: np.random.Generator) -> None:
    for shape, widths in itertools.product(SHAPES, [(1, 1, 1, 1), (0, 3, 2, 0), (5, 4)]):
        x = rng.normal(size=shape).astype(np.float32)
        x = x if layout == "plain" else laid_out(x, layout)
        narrow, wide = Tensor(x), Tensor(x.astype(np.float64))
        narrow.requires_grad = wide.requires_grad = True
        y, z = F.pad(narrow, widths, mode), F.pad(wide, widths, mode)
        assert np.array_equal(y.data, z.data) and y.dtype == np.float32
        g = rng.normal(size=y.shape)
        (a,) = mg.grad(y, [narrow], g.astype(np.float32))
        (b,) = mg.grad(z, [wide], g)
        assert a is not None and b is not None
        assert np.abs(a.data - b.data).max() < 2e-6


@pytest.mark.parametrize("layout", ["plain", "channels_last", "transposed"])
def test_concatenation(
    layout: str, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = (2, 19, 33, 40)
    for axis in range(4):
        for lengths in ((19, 3), (1, 2, 40), (7,), (5, 0, 30)):
            shapes = [(*base[:axis], n, *base[axis + 1 :]) for n in lengths]
            xs = [rng.normal(size=s).astype(np.float32) for s in shapes]
            stored = xs if layout == "plain" else [laid_out(x, layout) for x in xs]
            found = cpu.concat(stored, axis)
            assert np.array_equal(found, np.concatenate(xs, axis=axis))
            again = by_one_thread(monkeypatch, partial(cpu.concat, stored, axis))
            assert found.tobytes() == again.tobytes()
            if min(lengths) > 1:
                assert found.strides == np.concatenate(stored, axis=axis).strides
    mixed = [xs[0], np.asfortranarray(xs[0]), xs[0].astype(np.float64)]
    assert np.array_equal(cpu.concat(mixed, 1), np.concatenate(mixed, axis=1))


@pytest.mark.parametrize("layout", ["plain", "channels_last"])
@pytest.mark.parametrize("shape", [(2, 5, 9, 11), (1, 70, 8, 8), (3, 64, 7, 7), (2, 19, 5, 6, 7)])
def test_maxima_of_windows(
    shape: tuple[int, ...],
    layout: str,
    rng: np.random.Generator,
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    """Equal numbers, infinities and several NaN: values and places are those of the definition."""
    x = rng.integers(-3, 3, shape).astype(np.float32)
    x[rng.random(shape) < 0.1] = np.nan
    x[rng.random(shape) < 0.2] = -np.inf
    stored = x if layout == "plain" else np.moveaxis(np.moveaxis(x, 1, -1).copy(), -1, 1)
    for k, s, p, d in ((2, 2, 0, 1), (3, 2, 1, 1), (3, 1, 1, 2), (2, 3, 1, 1)):
        for ceil_mode in (False, True):
            options: list[Any] = [(n,) * (len(shape) - 2) for n in (k, s, p, d)]
            wanted = reference.max_pool(x.astype(np.float64), *options, ceil_mode)
            call = partial(cpu.max_pool, stored, *options, ceil_mode)
            for found in (call(), by_one_thread(monkeypatch, call)):
                assert found[0].dtype == np.float32 and found[1].dtype == np.int32
                assert np.array_equal(found[0], wanted[0], equal_nan=True)
                assert np.array_equal(found[1], wanted[1])
