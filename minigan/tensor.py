"""Tensor: an array, the graph node that made it, and the operators that call operations."""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence
from typing import TYPE_CHECKING, Any, Self

import numpy as np

from minigan.backend import CPU, Array, as_array, backend_of, find, to_device, to_numpy
from minigan.errors import DtypeError, GraphError, ShapeError, UsageError

if TYPE_CHECKING:
    from minigan import ops
    from minigan.autograd import Function
else:
    ops = None  # minigan/ops binds itself here: operators are sugar for operations, which need us

SEQUENCE = itertools.count()  # every node takes the next number, so parents come before children

Scalar = int | float | np.number[Any] | np.bool_
Axis = int | Sequence[int] | None
_KINDS = {"U": "str", "S": "bytes", "O": "object", "c": "complex"}


class Leaf:
    """The graph node of a tensor that asked for a gradient; owns `.grad`."""

    __slots__ = ("__weakref__", "grad", "seq")
    parents: tuple[Any, ...] = ()

    def __init__(self) -> None:
        self.grad: Array | None = None
        self.seq = next(SEQUENCE)


class Tensor:
    """An n-dimensional array that remembers how it was computed.

    Attributes
    ----------
    node : the operation that made it, a `Leaf` if it asked for a gradient, or None (a constant).
    version : a one-element list that counts in-place changes. Views of the same memory share the
        list, so a change through one is seen through all of them.
    """

    __slots__ = ("__weakref__", "_data", "node", "version")
    __array_ufunc__ = None  # ndarray + Tensor calls Tensor.__radd__

    def __init__(
        self,
        data: Array,
        node: Function | Leaf | None = None,
        version: list[int] | None = None,
    ) -> None:
        self._data = data
        self.node = node
        self.version = [0] if version is None else version

    # What it holds -----------------------------------------------------------------------------

    @property
    def data(self) -> Array:
        """The raw array. After writing into it, call `bump`; assigning a new array does so."""
        return self._data

    @data.setter
    def data(self, array: Array) -> None:
        if array.shape != self._data.shape or array.dtype != self._data.dtype:
            raise ShapeError(
                f"data: cannot replace {self._data.dtype} {self._data.shape} "
                f"by {array.dtype} {array.shape}",
                fix="keep shape and dtype, or make a new tensor",
            )
        self._data = array
        self.bump()

    def bump(self) -> None:
        """Say that the data changed in place, so that a stale backward pass is refused."""
        self.version[0] += 1

    @property
    def shape(self) -> tuple[int, ...]:
        return self._data.shape

    @property
    def ndim(self) -> int:
        return self._data.ndim

    @property
    def size(self) -> int:
        return self._data.size

    @property
    def dtype(self) -> np.dtype[Any]:
        return self._data.dtype

    @property
    def device(self) -> str:
        return backend_of(self._data).name

    # Gradients ---------------------------------------------------------------------------------

    @property
    def requires_grad(self) -> bool:
        return self.node is not None

    @requires_grad.setter
    def requires_grad(self, wanted: bool) -> None:
        if self.node is not None and not isinstance(self.node, Leaf):
            raise GraphError(
                "requires_grad: this tensor is the result of an operation",
                where=repr(self),
                fix="detach() it first, or set requires_grad on the tensors it was made from",
            )
        if wanted and self._data.dtype.kind != "f":
            raise DtypeError(
                f"requires_grad: {self._data.dtype} tensors have no gradient",
                fix="convert with astype('float32')",
            )
        if wanted and self.node is None:
            self.node = Leaf()
        elif not wanted:
            self.node = None

    @property
    def grad(self) -> Array | None:
        """The gradient that `backward` accumulated here, a plain array; never part of a graph."""
        return self.node.grad if isinstance(self.node, Leaf) else None

    @grad.setter
    def grad(self, value: Array | None) -> None:
        if not isinstance(self.node, Leaf):
            raise GraphError("grad: only tensors with requires_grad=True hold a gradient")
        self.node.grad = value

    def backward(self, retain_graph: bool = False) -> None:
        """Add d(self)/d(leaf) to `.grad` of every leaf below, freeing the graph on the way."""
        ops.backward(self, retain_graph)

    def detach(self) -> Tensor:
        """Return the same data as a constant: no gradient flows through it."""
        return Tensor(self._data, None, self.version)

    # Operators ---------------------------------------------------------------------------------

    def __add__(self, other: Any) -> Tensor:
        return ops.Add.apply(self, other) if isinstance(other, Tensor) else ops.shift(self, other)

    __radd__ = __add__

    def __sub__(self, other: Any) -> Tensor:
        return ops.Sub.apply(self, other) if isinstance(other, Tensor) else ops.shift(self, -other)

    def __rsub__(self, other: Any) -> Tensor:
        return ops.reverse_sub(self, other)

    def __mul__(self, other: Any) -> Tensor:
        return ops.Mul.apply(self, other) if isinstance(other, Tensor) else ops.scale(self, other)

    __rmul__ = __mul__

    def __truediv__(self, other: Any) -> Tensor:
        return ops.Div.apply(self, ops.constant(other, self))

    def __rtruediv__(self, other: Any) -> Tensor:
        return ops.Div.apply(ops.constant(other, self), self)

    def __pow__(self, other: Any) -> Tensor:
        return ops.pow(self, other)

    def __rpow__(self, other: Any) -> Tensor:
        return ops.pow(ops.constant(other, self), self)

    def __neg__(self) -> Tensor:
        return ops.Neg.apply(self)

    def __matmul__(self, other: Any) -> Tensor:
        return ops.matmul(self, ops.constant(other, self))

    def __rmatmul__(self, other: Any) -> Tensor:
        return ops.matmul(ops.constant(other, self), self)

    def __abs__(self) -> Tensor:
        return ops.Abs.apply(self)

    def __getitem__(self, key: Any) -> Tensor:
        return ops.index(self, key)

    def __setitem__(self, key: Any, value: Any) -> None:
        raise UsageError(
            "x[i] = v: tensors cannot be assigned to, because their history must stay true",
            fix="build a new tensor with F.where, F.concat or F.index_put(x, i, v)",
        )

    def __gt__(self, other: Any) -> Tensor:
        return Tensor(as_array(self._data > _raw(other)))

    def __ge__(self, other: Any) -> Tensor:
        return Tensor(as_array(self._data >= _raw(other)))

    def __lt__(self, other: Any) -> Tensor:
        return Tensor(as_array(self._data < _raw(other)))

    def __le__(self, other: Any) -> Tensor:
        return Tensor(as_array(self._data <= _raw(other)))

    def __eq__(self, other: Any) -> Tensor:  # type: ignore[override]
        return Tensor(as_array(self._data == _raw(other)))

    def __ne__(self, other: Any) -> Tensor:  # type: ignore[override]
        return Tensor(as_array(self._data != _raw(other)))

    __hash__ = object.__hash__

    # Conversions -------------------------------------------------------------------------------

    def item(self) -> float | int | bool:
        """Return the only element as a Python number."""
        if self._data.size != 1:
            raise ShapeError(
                f"item: the tensor has {self._data.size} elements, not one",
                where=f"shape {self.shape}",
                fix="reduce it first (sum, mean), or index one element",
            )
        value: float | int | bool = to_numpy(self._data).item()
        return value

    def numpy(self) -> Array:
        """Return the data as a read-only NumPy array (copy it to change it).

        On the CPU it is a view of the same memory; from another device the numbers are copied.
        """
        view = to_numpy(self._data).view()
        view.flags.writeable = False
        return view

    def to(self, device: str) -> Tensor:
        """Return this tensor on `device`; itself when it is there already."""
        if device == self.device:
            return self
        return Tensor(to_device(self._data, device))

    def __len__(self) -> int:
        if not self.shape:
            raise ShapeError("a tensor without axes has no length")
        return self.shape[0]

    def __iter__(self) -> Iterator[Tensor]:
        return (self[i] for i in range(len(self)))

    def __bool__(self) -> bool:
        return bool(self.item())

    def __float__(self) -> float:
        return float(self.item())

    def __int__(self) -> int:
        return int(self.item())

    def __repr__(self) -> str:
        origin = "" if self.node is None else f", {type(self.node).__name__}"
        value = f" {self._data.item():.6g}" if self._data.size == 1 and not self._data.ndim else ""
        return f"Tensor({self.shape}, {self.dtype}{origin}){value}"

    # Methods -----------------------------------------------------------------------------------

    def astype(self, dtype: Any) -> Tensor:
        return ops.cast(self, dtype)

    def sum(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.sum(self, axis, keepdims)

    def mean(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.mean(self, axis, keepdims)

    def var(self, axis: Axis = None, keepdims: bool = False, correction: int = 1) -> Tensor:
        return ops.var(self, axis, keepdims, correction)

    def std(self, axis: Axis = None, keepdims: bool = False, correction: int = 1) -> Tensor:
        return ops.std(self, axis, keepdims, correction)

    def max(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.max(self, axis, keepdims)

    def min(self, axis: Axis = None, keepdims: bool = False) -> Tensor:
        return ops.min(self, axis, keepdims)

    def argmax(self, axis: int | None = None) -> Tensor:
        return ops.argmax(self, axis)

    def reshape(self, *shape: Any) -> Tensor:
        return ops.reshape(self, shape[0] if len(shape) == 1 else shape)

    def flatten(self, start: int = 0, end: int = -1) -> Tensor:
        return ops.flatten(self, start, end)

    def transpose(self, *axes: Any) -> Tensor:
        return ops.transpose(self, axes[0] if len(axes) == 1 else axes or None)

    @property
    def T(self) -> Tensor:
        return ops.transpose(self, None)

    def abs(self) -> Tensor:
        return ops.Abs.apply(self)

    def exp(self) -> Tensor:
        return ops.Exp.apply(self)

    def log(self) -> Tensor:
        return ops.Log.apply(self)

    def sqrt(self) -> Tensor:
        return ops.Sqrt.apply(self)

    def square(self) -> Tensor:
        return ops.Square.apply(self)

    def tanh(self) -> Tensor:
        return ops.Tanh.apply(self)

    def clamp(self, low: float | None = None, high: float | None = None) -> Tensor:
        return ops.clamp(self, low, high)

    def copy(self) -> Self:
        raise UsageError(
            "copy: tensors are values and need no copy",
            fix="use detach() for a constant, or mg.tensor(x.numpy().copy()) for new memory",
        )


def tensor(
    data: Any,
    dtype: Any = None,
    device: str | None = None,
    requires_grad: bool = False,
) -> Tensor:
    """Make a tensor from numbers, nested lists or an array (copied).

    Python floats become float32, Python ints int64; arrays keep their dtype.

    Parameters
    ----------
    data : numbers, sequences of numbers, an array, or a Tensor (its values).
    dtype : wanted dtype.
    device : that of `data` by default, "cpu" for numbers.
    requires_grad : whether gradients shall be computed for it.
    """
    if isinstance(data, Tensor):
        data = data.data
    elsewhere = hasattr(data, "get") and hasattr(data, "dtype")  # an array of another device
    if device is None:
        device = backend_of(data).name if elsewhere else "cpu"
    backend = find(device)
    if elsewhere:
        data = to_numpy(data)
    array = np.array(data, dtype=dtype)
    if dtype is None and not isinstance(data, np.ndarray | np.generic) and array.dtype.kind == "f":
        array = array.astype(np.float32)
    if array.dtype.kind not in "fiub":
        raise DtypeError(
            f"tensor: cannot hold {_KINDS.get(array.dtype.kind, array.dtype)} values",
            why="tensors hold floats, integers and booleans",
            fix="convert the data to numbers; nested lists must have equal lengths",
        )
    result = Tensor(array if backend is CPU else backend.upload(array))
    if requires_grad:
        result.requires_grad = True
    return result


def _raw(value: Any) -> Any:
    return value.data if isinstance(value, Tensor) else value
