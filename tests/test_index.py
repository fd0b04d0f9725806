"""Conventions and messages of embedding, one_hot, gather and dropout."""

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


def test_equal_rows_add_their_gradients() -> None:
    weight = leaf(np.zeros((3, 2)))
    y = F.embedding(mg.tensor([2, 0, 2, 2]), weight)
    (g,) = mg.grad(y, weight, np.array([[1.0, 10], [2, 20], [4, 40], [8, 80]]))
    assert g.data.tolist() == [[2, 20], [0, 0], [13, 130]]


def test_out_of_range_names_value_place_and_classes() -> None:
    weight = mg.tensor(np.zeros((3, 2)))
    with pytest.raises(ShapeError) as caught:
        F.embedding(mg.tensor([[0, 1], [3, 2]]), weight)
    assert str(caught.value) == (
        "embedding: index 3 at position (1, 0) is out of range\n"
        "  where: 3 classes, indices of shape (2, 2)\n"
        "  why: indices run from 0 to 2\n"
        "  fix: check the labels, or raise the number of classes"
    )
    with pytest.raises(ShapeError, match=r"index -1 at position \(0,\)"):
        F.one_hot(np.array([-1]), 4)
    with pytest.raises(ShapeError, match="gather: index 2"):
        F.gather(weight, 1, np.array([[2]]))


def test_indices_are_integers() -> None:
    for call in (
        lambda: F.embedding(mg.tensor([0.5]), mg.tensor(np.zeros((3, 2)))),
        lambda: F.one_hot(np.array([True]), 2),
    ):
        with pytest.raises(DtypeError, match="not integers"):
            call()
    small = F.embedding(np.array([1], np.uint8), mg.tensor(np.eye(3)))
    assert small.data.tolist() == [[0.0, 1.0, 0.0]]


def test_one_hot_axes_and_dtype() -> None:
    labels = np.array([[[0, 2], [1, 1]]])  # N,H,W
    y = F.one_hot(labels, 3, axis=1)
    assert y.shape == (1, 3, 2, 2) and y.dtype == np.float32 and not y.requires_grad
    assert y.data[0, :, 0, 1].tolist() == [0, 0, 1]
    assert np.array_equal(np.moveaxis(y.data, 1, -1), F.one_hot(labels, 3).data)
    assert F.one_hot(labels, 3, dtype=np.float64).dtype == np.float64
    with pytest.raises(ShapeError, match="axis 4"):
        F.one_hot(labels, 3, axis=4)


def test_gather_messages() -> None:
    x = mg.tensor(np.zeros((2, 3)))
    with pytest.raises(ShapeError, match="axis 2"):
        F.gather(x, 2, np.zeros((2, 3), int))
    with pytest.raises(ShapeError, match="does not fit"):
        F.gather(x, 1, np.zeros((3, 1), int))
    with pytest.raises(ShapeError, match="not \\(classes, features\\)"):
        F.embedding(np.array([0]), mg.tensor(np.zeros(3)))


@pytest.mark.parametrize("layout", LAYOUTS)
def test_kernels_agree(layout: str, rng: np.random.Generator) -> None:
    for index_shape in [(), (5,), (2, 3), (0,)]:
        index = rng.integers(0, 4, index_shape)
        weight = laid_out(rng.normal(size=(4, 3)), layout)
        g = laid_out(rng.normal(size=(*index_shape, 3)), layout)
        assert np.array_equal(cpu.take_rows(weight, index), reference.take_rows(weight, index))
        expected = reference.scatter_rows(g, index, 4)
        close(cpu.scatter_rows(g, index, 4), expected, 1e-14, "scatter_rows")
    for shape in [(2, 3, 4), (2, 3, 3, 2), (0, 3, 2, 2), (1, 2, 2, 2, 2)]:
        x = laid_out(rng.normal(size=shape), layout)
        for channels in (1, shape[1]):
            index = rng.integers(0, int(np.prod(shape[2:])), (shape[0], channels, 3, 5))
            y = cpu.gather_positions(x, index)
            assert np.array_equal(y, reference.gather_positions(x, index))
            g = laid_out(rng.normal(size=y.shape), layout)
            expected = reference.scatter_positions(g, index, shape[2:])
            close(cpu.scatter_positions(g, index, shape[2:]), expected, 1e-14, "scatter")


# Dropout ---------------------------------------------------------------------------------------


def test_dropout_keeps_the_mean_and_scales() -> None:
    x = mg.tensor(np.ones((100, 100), np.float32))
    y = F.dropout(x, 0.25).data
    assert y.dtype == np.float32
    assert set(np.unique(y)) == {np.float32(0), np.float32(1 / 0.75)}
    assert (y == 0).mean() == pytest.approx(0.25, abs=0.02)


def test_dropout_off_is_the_identity() -> None:
    x = mg.tensor([1.0, 2.0])
    assert F.dropout(x, 0.5, training=False) is x
    assert F.dropout(x, 0.0) is x
    assert not F.dropout(x, 1.0).data.any()


def test_dropout2d_drops_whole_channels() -> None:
    y = F.dropout2d(mg.tensor(np.ones((50, 40, 3, 2))), 0.5).data
    assert ((y == 0).all(axis=(2, 3)) | (y == 2).all(axis=(2, 3))).all()
    assert (y[:, :, 0, 0] == 0).mean() == pytest.approx(0.5, abs=0.05)


def test_dropout_draws_anew_and_repeats_by_seed() -> None:
    x = mg.tensor(np.ones(64))
    first, second = F.dropout(x).data, F.dropout(x).data
    assert not np.array_equal(first, second)
    mg.manual_seed(0)
    assert np.array_equal(F.dropout(x).data, first)
    wide = laid_out(np.ones((2, 3, 4, 4)), "channels_last")
    mg.manual_seed(0)
    plain = F.dropout(mg.tensor(np.ones((2, 3, 4, 4)))).data
    mg.manual_seed(0)
    assert np.array_equal(F.dropout(Tensor(wide)).data, plain)  # whatever the memory layout


def test_dropout_uses_its_own_stream() -> None:
    before = mg.random.state()
    F.dropout(mg.tensor(np.ones(3)))
    changed = {k: v for k, v in mg.random.state().items() if before.get(k) != v}
    assert changed == {"stream/dropout": 1}


def test_checkpoint_draws_the_same_mask() -> None:
    x = leaf(np.arange(1.0, 65.0))

    def layer(t: Tensor) -> Tensor:
        return F.dropout(t.square(), 0.5)

    (plain,) = mg.grad(layer(x).sum(), x)
    mg.manual_seed(0)
    (saved,) = mg.grad(mg.checkpoint(layer, x).sum(), x)
    assert np.array_equal(plain.data, saved.data)


@pytest.mark.parametrize(
    ("call", "error", "text"),
    [
        (lambda x: F.dropout(x, 1.5), UsageError, "not a probability"),
        (lambda x: F.dropout2d(x), ShapeError, "4 axes"),
        (lambda x: F.dropout(mg.tensor([1, 2])), DtypeError, "int64"),
    ],
)
def test_dropout_messages(call: Any, error: type[Exception], text: str) -> None:
    with pytest.raises(error, match=text):
        call(mg.tensor(np.ones((2, 3))))
