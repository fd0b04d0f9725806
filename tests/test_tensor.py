"""What a Tensor holds, how it is made, and how its operators treat scalars, dtypes and ranks."""

from __future__ import annotations

import operator
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opspec import leaf
from strategies import broadcast_shapes, rngs, values

import minigan as mg
import minigan.functional as F
from minigan.errors import DtypeError, GraphError, MiniganError, ShapeError, UsageError
from minigan.tensor import Tensor


@pytest.mark.parametrize(
    ("data", "dtype"),
    [
        (1.5, np.float32),
        ([1.0, 2.0], np.float32),
        ([[1, 2], [3, 4]], np.int64),
        (True, np.bool_),
        (np.float64(1.5), np.float64),
        (np.arange(3, dtype=np.float64), np.float64),
        (np.arange(3, dtype=np.uint8), np.uint8),
    ],
)
def test_default_dtypes(data: Any, dtype: Any) -> None:
    """Python floats are float32, Python ints int64, arrays keep what they are."""
    assert mg.tensor(data).dtype == dtype
    assert mg.tensor(data, dtype=np.float64).dtype == np.float64


def test_tensor_copies_its_data() -> None:
    array = np.zeros(3)
    x = mg.tensor(array)
    array[:] = 1
    assert not x.data.any()
    assert not np.shares_memory(mg.tensor(x).data, x.data)


@pytest.mark.parametrize("data", ["text", [1.0, None], np.array([1j]), {"a": 1}])
def test_what_a_tensor_cannot_hold(data: Any) -> None:
    with pytest.raises((MiniganError, ValueError, TypeError)):
        mg.tensor(data)


def test_numpy_is_a_read_only_view() -> None:
    x = mg.tensor([1.0, 2.0])
    view = x.numpy()
    assert np.shares_memory(view, x.data) and not view.flags.writeable
    x.data[0] = 5  # still writeable on the inside
    assert view[0] == 5


@pytest.mark.parametrize("shape", [(), (1,), (1, 1)])
def test_item(shape: tuple[int, ...]) -> None:
    x = mg.tensor(np.full(shape, 2.5))
    assert x.item() == 2.5 and isinstance(x.item(), float) and float(x) == 2.5
    with pytest.raises(ShapeError, match="2 elements"):
        mg.tensor([1.0, 2.0]).item()


def test_integers_have_no_gradient() -> None:
    with pytest.raises(DtypeError, match="int64"):
        mg.tensor([1, 2], requires_grad=True)
    x = mg.tensor([1, 2])
    with pytest.raises(DtypeError):
        x.requires_grad = True
    assert not (x * 3).requires_grad


def test_requires_grad_belongs_to_leaves() -> None:
    x = mg.tensor([1.0], requires_grad=True)
    y = x * 2
    with pytest.raises(GraphError, match="result of an operation"):
        y.requires_grad = False
    with pytest.raises(GraphError):
        y.grad = np.ones(1)
    assert y.requires_grad and y.grad is None
    d = y.detach()
    assert not d.requires_grad and np.shares_memory(d.data, y.data)
    x.requires_grad = False
    assert not (x * 2).requires_grad


# Scalars are weak, dtypes are strict ------------------------------------------------------------

OPERATORS = [operator.add, operator.sub, operator.mul, operator.truediv, operator.pow]
SCALARS = [
    2,
    1.5,
    True,
    np.float64(1.5),
    np.float32(1.5),
    np.int64(2),
    np.float64(0.1),
    np.array(2.0),
]


@pytest.mark.parametrize("op", OPERATORS)
@pytest.mark.parametrize("scalar", SCALARS, ids=lambda s: f"{type(s).__name__}-{s}")
@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_scalars_are_weak(op: Any, scalar: Any, dtype: Any) -> None:
    """A scalar of any kind takes the tensor's dtype, on either side, in gradients too."""
    array = np.array([0.5, 1.25, 2.0], dtype)
    for swap in (False, True):
        x = leaf(array)
        y = op(scalar, x) if swap else op(x, scalar)
        number = dtype(scalar)
        expected = op(number, array) if swap else op(array, number)
        assert y.dtype == dtype
        np.testing.assert_allclose(y.data, expected, rtol=4 * np.finfo(dtype).eps)
        (g,) = mg.grad(y.sum(), x)
        assert g is not None and g.dtype == dtype


@pytest.mark.parametrize("op", [*OPERATORS, operator.matmul])
def test_mixed_float_dtypes_raise(op: Any) -> None:
    a, b = mg.tensor(np.eye(2, dtype=np.float32)), mg.tensor(np.eye(2))
    for left, right in ((a, b), (b, a), (a, b.data), (b.data, a)):
        with pytest.raises(DtypeError, match=r"float(32|64).*float(32|64)"):
            op(left, right)


@pytest.mark.parametrize("op", OPERATORS)
def test_arrays_of_the_same_dtype_are_constants(op: Any) -> None:
    array = np.array([0.5, 1.5])
    x = leaf(np.array([2.0, 3.0]))
    np.testing.assert_allclose(op(x, array).data, op(x.data, array))
    np.testing.assert_allclose(op(array, x).data, op(array, x.data))


@pytest.mark.parametrize("value", [None, "1", [1.0], 1j, object()], ids=lambda v: type(v).__name__)
@pytest.mark.parametrize("op", [operator.add, operator.mul, operator.truediv])
def test_what_operators_refuse(op: Any, value: Any) -> None:
    with pytest.raises(TypeError):
        op(mg.tensor([1.0]), value)


def test_float_with_integer_tensor_raises() -> None:
    with pytest.raises(DtypeError, match="astype"):
        mg.tensor([1, 2]) * 0.5
    assert (mg.tensor([1, 2]) * 2 + 1).data.tolist() == [3, 5]


# Broadcasting -----------------------------------------------------------------------------------


@pytest.mark.parametrize("op", OPERATORS[:4])
@pytest.mark.parametrize(("a", "b"), [((3,), (3, 1)), ((2, 3), (3,)), ((1,), (2, 2, 2))])
def test_broadcasting_that_changes_rank_raises(op: Any, a: Any, b: Any) -> None:
    with pytest.raises(ShapeError, match="numbers of axes"):
        op(mg.tensor(np.ones(a)), mg.tensor(np.ones(b)))
    with pytest.raises(ShapeError, match="numbers of axes"):
        op(mg.tensor(np.ones(a)), np.ones(b))


@given(shapes=broadcast_shapes(2, 1), rng=rngs(), op=st.sampled_from(OPERATORS[:4]))
def test_broadcasting_within_a_rank(shapes: Any, rng: np.random.Generator, op: Any) -> None:
    a, b = (values(rng, s, 0.5, 2.0) for s in shapes)
    y = op(leaf(a), leaf(b))
    np.testing.assert_allclose(y.data, op(a, b))


def test_shapes_that_do_not_fit_raise() -> None:
    with pytest.raises(ShapeError, match=r"\(2, 3\) and \(2, 4\)"):
        mg.tensor(np.ones((2, 3))) + mg.tensor(np.ones((2, 4)))


# What operators return --------------------------------------------------------------------------


def test_zero_dimensional_results_are_arrays() -> None:
    """NumPy returns scalars from 0-d arithmetic; a Tensor always holds an array."""
    x = leaf(np.array(3.0))
    for y in (x + 1, x * x, -x, x**2, x.exp(), x.sum(), x.mean(), leaf(np.ones(3))[0], x.max()):
        assert type(y.data) is np.ndarray and y.shape == ()
        (g,) = mg.grad(y, x) if y.size and y.node is not None else (None,)
        assert g is None or type(g.data) is np.ndarray


@pytest.mark.parametrize("op", [operator.gt, operator.ge, operator.lt, operator.le,
                                operator.eq, operator.ne])  # fmt: skip
def test_comparisons_give_boolean_constants(op: Any) -> None:
    x = leaf(np.array([1.0, 2.0, 3.0]))
    for other in (2.0, mg.tensor(np.array([3.0, 2.0, 1.0])), np.array([1.0, 1.0, 3.0])):
        raw = other.data if isinstance(other, Tensor) else other
        y = op(x, other)
        assert y.dtype == np.bool_ and not y.requires_grad
        assert np.array_equal(y.data, op(x.data, raw))


def test_item_assignment_says_what_to_do() -> None:
    x = mg.tensor([1.0, 2.0])
    with pytest.raises(UsageError) as caught:
        x[0] = 5.0
    assert "index_put" in str(caught.value) and "where" in str(caught.value)
    assert x.data.tolist() == [1.0, 2.0]


def test_numpy_functions_refuse_tensors() -> None:
    """np.exp(x) would silently drop the graph."""
    with pytest.raises(TypeError):
        np.exp(mg.tensor([1.0]))


def test_augmented_assignment_makes_a_new_tensor() -> None:
    x = leaf(np.array([1.0, 2.0]))
    y = x
    y += 1.0
    assert y is not x and x.data.tolist() == [1.0, 2.0] and y.requires_grad


def test_iteration_and_truth() -> None:
    x = leaf(np.array([1.0, 2.0]))
    assert [float(part) for part in x] == [1.0, 2.0] and len(x) == 2
    assert bool(x[0] > 0) is True
    with pytest.raises(ShapeError):
        bool(x > 0)


@pytest.mark.parametrize("shape", [(0,), (0, 3), (2, 0, 4)])
def test_empty_tensors(shape: tuple[int, ...]) -> None:
    x = leaf(np.zeros(shape))
    y = ((x * 2 + 1).exp() * x).reshape(-1)
    assert y.shape == (0,)
    total = y.sum()
    assert total.item() == 0
    (g,) = mg.grad(total, x, create_graph=True)
    assert g is not None and g.shape == shape
    with pytest.raises(ShapeError, match="no elements"):
        x.mean()
    with pytest.raises(ShapeError, match="no elements"):
        x.max()


def test_data_setter_keeps_shape_and_dtype() -> None:
    x = mg.tensor([1.0, 2.0])
    version = x.version[0]
    x.data = np.array([3.0, 4.0], np.float32)
    assert x.version[0] == version + 1
    for wrong in (np.zeros(3, np.float32), np.zeros(2)):
        with pytest.raises((ShapeError, DtypeError)):
            x.data = wrong


def test_repr_shows_shape_dtype_and_origin() -> None:
    assert repr(mg.tensor(np.ones((2, 3)))) == "Tensor((2, 3), float64)"
    y = leaf(np.ones((2, 3))).tanh()
    assert "Tanh" in repr(y) and "3.5" in repr(mg.tensor(3.5))


def test_devices() -> None:
    x = mg.tensor([1.0])
    assert x.device == "cpu" and x.to("cpu") is x
    with pytest.raises(MiniganError, match="cuda"):
        mg.tensor([1.0], device="cuda:99")
    with pytest.raises(UsageError, match="tpu"):
        mg.tensor([1.0], device="tpu")


@pytest.mark.parametrize(
    "call",
    [
        lambda a: F.relu(a),
        lambda a: F.conv2d(a, mg.tensor(a)),
        lambda a: F.softmax(a, 1),
        lambda a: F.mse_loss(a, a),
        lambda a: F.cross_entropy(a, np.zeros(1, int)),
        lambda a: F.maximum(a, 1.0),
        lambda a: F.avg_pool2d(a, 2),
        lambda a: F.exp(2.0),
    ],
)
def test_arrays_where_tensors_belong(call: Any) -> None:
    with pytest.raises(DtypeError, match=r"takes Tensors, not \((ndarray|float)"):
        call(np.ones((1, 2, 2, 2)))
