"""The graph and its traversal: Function, Fused, backward, grad, no_grad.

An operation is one class. Its instance is a node of the graph: it holds what `backward` needs and
points at the nodes of its inputs (never at the input tensors, so nothing is kept alive that
backward does not read). Nodes are numbered as they are made; walking them in falling order is
walking the graph backward.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextvars import ContextVar
from operator import attrgetter
from typing import Any

import numpy as np

from minigan import errors, holders
from minigan.backend import CPU, Array, Backend, as_array, backend_of
from minigan.errors import MiniganError, UsageError
from minigan.tensor import SEQUENCE, Leaf, Tensor

HOOKS: list[Any] = []  # objects with forward(node, inputs, out) and backward(node, g, grads)
_RECORDING: ContextVar[bool] = ContextVar("recording", default=True)
RECOMPUTING: ContextVar[bool] = ContextVar("recomputing", default=False)
_by_sequence = attrgetter("seq")
_ndarray = np.ndarray
_new = object.__new__
_BOTH = (0, 1)
LARGE = 1 << 16  # numbers from which kernels add arrays faster than NumPy


class Function:
    """One differentiable operation; its instance is the graph node of one result.

    `forward` takes raw arrays (None where an optional input is absent). `backward` takes the
    gradient at the output and the values that `saves` names, and returns one gradient per input
    (None where `self.needs` is False). The very same `backward` runs on raw arrays normally and on
    Tensors under create_graph: write it with operators and `OtherFunction.on`. What is kept on
    `self` is a constant to higher derivatives: shapes, masks, indices and options only.
    """

    saves: tuple[str, ...] = ()  # inputs of forward that backward reads, or "out"
    is_view = False  # the result may share memory with the first input
    needs: tuple[bool, ...] = (True,)  # which inputs want a gradient
    seq: int
    parents: tuple[Any, ...] | None = None  # None: freed
    saved: tuple[Any, ...] = ()
    versions: tuple[int, ...] = ()
    out: Array
    out_version: list[int]
    backend: Backend = CPU
    _keep: tuple[int, ...] = ()
    _keeps_out = False

    def __init_subclass__(cls) -> None:
        names = cls._input_names()
        unknown = [name for name in cls.saves if name not in (*names, "out")]
        if unknown:
            raise UsageError(f"{cls.__name__}.saves names {unknown}, not inputs of forward {names}")
        cls._keep = tuple(names.index(name) for name in cls.saves if name != "out")
        cls._keeps_out = "out" in cls.saves

    forward: Callable[..., Array]
    backward: Callable[..., Any]

    @classmethod
    def _input_names(cls) -> tuple[str, ...]:
        if not hasattr(cls, "forward"):
            return ()
        code = cls.forward.__code__
        return code.co_varnames[1 : code.co_argcount]

    @property
    def kernels(self) -> Any:
        """The kernels of the device that the inputs live on."""
        return self.backend.kernels

    @property
    def xp(self) -> Any:
        """The array module of the device that the inputs live on."""
        return self.backend.xp

    @classmethod
    def apply(cls, *inputs: Any, **attributes: Any) -> Tensor:
        """Run the operation on Tensors (None: absent) and record it if it may need a gradient."""
        node = _new(cls)
        if attributes:
            node.__dict__.update(attributes)
        count = len(inputs)
        try:
            if (
                count == 1
            ):  # one and two inputs are spelled out: they are most calls, and twice as fast
                (x,) = inputs
                array = x._data
                arrays: tuple[Any, ...] = (array,)
                parents: tuple[Any, ...] = (x.node,)
                recorded = x.node is not None
            elif count == 2 and inputs[1] is not None:
                x, y = inputs
                arrays = array, other = x._data, y._data
                parents = x.node, y.node
                needs = node.needs = x.node is not None, y.node is not None
                recorded = needs[0] or needs[1]
                if array.dtype is not other.dtype:
                    errors.check_dtypes(node, arrays)
            else:
                arrays = tuple([None if t is None else t._data for t in inputs])
                parents = tuple([None if t is None else t.node for t in inputs])
                node.needs = tuple([p is not None for p in parents])
                recorded = True in node.needs
                array = arrays[0]
                errors.check_dtypes(node, arrays)
        except AttributeError:
            raise errors.not_tensors(node, inputs) from None
        if type(array) is not _ndarray:
            node.backend = backend_of(array)
            _check_devices(node, arrays)
        try:
            out = node.forward(*arrays)
        except Exception as error:
            _check_devices(node, arrays)
            _check_kernels(node, arrays, error)
            errors.explain(error, node, arrays)
            holders.note(error)
            raise
        if type(out) is not _ndarray and node.backend is CPU:
            out = np.asarray(out)  # NumPy turns results without axes into scalars
        if HOOKS:
            for hook in HOOKS:
                hook.forward(node, inputs, out)
        version = inputs[0].version if cls.is_view else [0]
        if not (recorded and _RECORDING.get()):
            return Tensor(out, None, version)
        node.seq = next(SEQUENCE)
        node.parents = parents
        if cls._keep:
            if count == 1:
                node.saved = inputs
                node.versions = (x.version[0],)
            elif count == 2 and cls._keep == _BOTH and inputs[1] is not None:
                node.saved = inputs
                node.versions = x.version[0], y.version[0]
            else:
                node.saved = tuple([inputs[i] for i in cls._keep])
                node.versions = tuple([0 if t is None else t.version[0] for t in node.saved])
        if cls._keeps_out:  # the bare array: keeping the Tensor would be a reference cycle
            node.out = out
            node.out_version = version
        return Tensor(out, node, version)

    @classmethod
    def on(cls, *inputs: Any, **attributes: Any) -> Any:
        """The operation inside a backward: on Tensors if any input is one, else on raw arrays."""
        for x in inputs:
            if isinstance(x, Tensor):
                return cls.apply(
                    *[t if t is None or isinstance(t, Tensor) else Tensor(t) for t in inputs],
                    **attributes,
                )
        node = _new(cls)
        if attributes:
            node.__dict__.update(attributes)
        if type(inputs[0]) is not _ndarray:
            node.backend = backend_of(inputs[0])
        return node.forward(*inputs)

    def saved_values(self, as_tensors: bool) -> list[Any]:
        """What `saves` names, in that order, after checking that nothing changed since."""
        values: list[Any] = []
        if self.saved:
            for t, version in zip(self.saved, self.versions):  # noqa: B905
                if t is None:
                    values.append(None)
                    continue
                if t.version[0] != version:
                    raise errors.changed_after_save(
                        getattr(t, "name", "") or f"an input {t!r}", self
                    )
                values.append(t if as_tensors else t._data)
        if self._keeps_out:
            if self.out_version[0]:
                raise errors.changed_after_save("its result", self)
            values.append(Tensor(self.out, self, self.out_version) if as_tensors else self.out)
        return values

    def __repr__(self) -> str:
        return type(self).__name__


class Fused(Function):
    """An operation with a hand-written gradient kernel and a reference of primitive operations.

    `backward_kernel` serves the normal pass, on raw arrays. Under create_graph `reference` is
    run on the saved inputs and differentiated instead, which makes every order exact: statistics
    kept on `self` are constants to a kernel, but not to mathematics.
    """

    _kernel_reads: tuple[int, ...] = ()

    def __init_subclass__(cls) -> None:
        super().__init_subclass__()
        cls._kernel_reads = cls._keep
        cls._keep = tuple(range(len(cls._input_names())))  # the reference needs every input

    backward_kernel: Callable[..., Any]
    reference: Callable[..., Tensor]

    def backward(self, g: Any, *saved: Any) -> Any:
        if isinstance(g, Tensor):
            return self._differentiate_reference(g, saved)
        reads = [saved[i] for i in self._kernel_reads]
        return self.backward_kernel(g, *reads, *saved[len(self._keep) :])

    def _differentiate_reference(self, g: Tensor, saved: Sequence[Any]) -> tuple[Any, ...]:
        assert self.parents is not None
        floor = next(SEQUENCE)
        y = self.reference(*saved[: len(self._keep)])
        targets = {p: None for p, need in zip(self.parents, self.needs, strict=True) if need}
        grads = {} if y.node is None else traverse([(y.node, g)], targets, True, True, floor)
        # An input that occurs twice has one node: its whole gradient goes to the first place.
        return tuple([grads.pop(p, None) if p is not None else None for p in self.parents])


@contextlib.contextmanager
def no_grad() -> Iterator[None]:
    """Inside it (a `with` block or a decorated function) operations are not recorded."""
    token = _RECORDING.set(False)
    try:
        yield
    finally:
        _RECORDING.reset(token)


@contextlib.contextmanager
def enable_grad() -> Iterator[None]:
    """Inside it operations are recorded again, even within `no_grad`."""
    token = _RECORDING.set(True)
    try:
        yield
    finally:
        _RECORDING.reset(token)


def is_recording() -> bool:
    """Whether operations are recorded at this point."""
    return _RECORDING.get()


def is_recomputing() -> bool:
    """Whether a checkpoint runs its function again: side effects must not happen twice."""
    return RECOMPUTING.get()


def backward(loss: Tensor, retain_graph: bool = False) -> None:
    """Add d(loss)/d(leaf) to `.grad` of every leaf that `loss` depends on.

    The graph is freed on the way unless `retain_graph`, also by a pass that fails half-way;
    `.grad` never carries a graph (use `grad` with create_graph=True to differentiate a gradient).
    """
    roots = _roots([loss], None, False)
    traverse(roots, None, False, retain_graph, 0)


def grad(
    outputs: Tensor | Sequence[Tensor],
    inputs: Tensor | Sequence[Tensor],
    grad_outputs: Tensor | Array | Sequence[Tensor | Array] | None = None,
    create_graph: bool = False,
    retain_graph: bool | None = None,
) -> list[Tensor | None]:
    """Return d<outputs, grad_outputs>/d(input) for each input; None where there is no path.

    Touches no `.grad` and visits only nodes on a path to `inputs`.

    Parameters
    ----------
    outputs : tensors to differentiate.
    inputs : leaves or intermediate tensors.
    grad_outputs : cotangents shaped like the outputs; ones by default, for scalars only.
    create_graph : record the computation of the gradients, so that they can be differentiated.
    retain_graph : keep the graph for another pass; equals `create_graph` by default.
    """
    outputs = [outputs] if isinstance(outputs, Tensor) else list(outputs)
    inputs = [inputs] if isinstance(inputs, Tensor) else list(inputs)
    if grad_outputs is not None and not isinstance(grad_outputs, list | tuple):
        grad_outputs = [grad_outputs]  # type: ignore[list-item]
    for i, x in enumerate(inputs):
        if x.node is None:
            raise errors.constant_input(i, x)
    roots = _roots(outputs, grad_outputs, create_graph)
    targets = {x.node: None for x in inputs if x.node is not None}
    retain = create_graph if retain_graph is None else retain_graph
    floor = min((node.seq for node in targets), default=0)
    found = traverse(roots, targets, create_graph, retain, floor)
    results: list[Tensor | None] = []
    for x in inputs:
        g = found.get(x.node)
        if g is not None and g.shape != x.shape:
            raise errors.wrong_gradient_shape(x.shape, g.shape)
        results.append(g if g is None or isinstance(g, Tensor) else Tensor(as_array(g)))
    return results


def _roots(
    outputs: Sequence[Tensor], cotangents: Sequence[Tensor | Array] | None, create_graph: bool
) -> list[tuple[Any, Any]]:
    """Pair each output's node with the gradient that enters there."""
    roots: list[tuple[Any, Any]] = []
    for i, y in enumerate(outputs):
        if y.node is None:
            raise errors.constant_output(y)
        g = None if cotangents is None else cotangents[i]
        if g is None:
            if y.size != 1:
                raise errors.not_scalar(y.shape)
            g = np.ones_like(y._data)
        if g.shape != y.shape or g.dtype != y.dtype:
            raise errors.wrong_cotangent(g, y)
        if isinstance(g, Tensor):
            roots.append((y.node, g if create_graph else g._data))
        else:
            roots.append((y.node, Tensor(g) if create_graph else g))
    return roots


def reachable(start: Iterable[Any], floor: int) -> list[Any]:
    """All nodes below `start` in rising order; nodes older than `floor` are not entered."""
    nodes = set(start)
    stack = list(nodes)
    while stack:
        node = stack.pop()
        if node.seq < floor:
            continue
        if node.parents is None:
            raise errors.freed_graph(node)
        for parent in node.parents:
            if parent is not None and parent not in nodes:
                nodes.add(parent)
                stack.append(parent)
    return sorted(nodes, key=_by_sequence)


def _leading_to(targets: Iterable[Any], order: list[Any], floor: int) -> set[Any]:
    """The nodes of `order` that are computed from `targets`, and these."""
    live = set(targets)
    for node in order:
        if node.seq >= floor and not live.isdisjoint(node.parents):
            live.add(node)
    return live


def _check_devices(node: Function, arrays: tuple[Any, ...]) -> None:
    """Raise if the inputs of an operation lie on different devices."""
    names = [None if a is None else backend_of(a).name for a in arrays]
    if len({name for name in names if name is not None}) > 1:
        raise errors.mixed_devices(node, names, arrays)


def _check_kernels(node: Function, arrays: tuple[Any, ...], error: Exception) -> None:
    """Raise if the kernels of a GPU were asked for a dtype that they do not know."""
    if isinstance(error, KeyError) and node.backend is not CPU:
        odd = [a for a in arrays if a is not None and a.dtype not in (np.float32, np.float64)]
        if odd:
            raise errors.no_kernel(node, odd, node.backend.name) from error


def _add_to_leaf(leaf: Leaf, g: Array, owned: bool) -> None:
    """`.grad` belongs to the user, who may change it: it is never an alias."""
    if leaf.grad is not None:
        leaf.grad = as_array(leaf.grad + g)
    else:
        leaf.grad = as_array(g) if owned else as_array(g).copy(order="K")


def _sum(a: Any, b: Any) -> Any:
    """a + b, of arrays or Tensors."""
    if type(a) is not _ndarray or a.size < LARGE:
        return a + b
    return backend_of(a).kernels.add(a, b)


def traverse(
    roots: list[tuple[Any, Any]],
    targets: dict[Any, Any] | None,
    create_graph: bool,
    retain_graph: bool,
    floor: int,
) -> dict[Any, Any]:
    """Walk the graph backward from `roots`; return the gradients that reach `targets`.

    With `targets` None every leaf is one, and its gradient is added to `.grad`. Gradients are
    values that may be shared: the first contribution to a node is borrowed, the second makes a
    new array, and only from the third on is that array (which nobody else knows) added to.
    """
    order = reachable([node for node, _ in roots], floor)
    live: Any = None if targets is None else _leading_to(targets, order, floor)
    grads: dict[Any, Any] = {}
    owned: set[Any] = set()
    found: dict[Any, Any] = {}
    for node, g in roots:
        grads[node] = g if node not in grads else grads[node] + g
    token = _RECORDING.set(create_graph)
    try:
        while order:
            node = order.pop()
            g = grads.pop(node, None)
            if g is None:
                continue
            if targets is None:
                if type(node) is Leaf:
                    _add_to_leaf(node, g, node in owned)
                    continue
                parents = node.parents
            else:
                if node in targets:
                    found[node] = g
                parents = node.parents
                if node.seq < floor or live.isdisjoint(parents):
                    continue
                needs, node.needs = node.needs, tuple([p in live for p in parents])
            if node.saved or node._keeps_out:
                parts = node.backward(g, *node.saved_values(create_graph))
            else:
                parts = node.backward(g)
            if type(parts) is not tuple:
                parts = (parts,)
            if HOOKS:
                for hook in HOOKS:
                    hook.backward(node, g, parts)
            if len(parts) != len(parents):
                raise errors.wrong_gradient_count(node, len(parts), len(parents))
            for parent, part in zip(parents, parts):  # noqa: B905 (strict costs 6% of a pass)
                if part is None or parent is None or (live is not None and parent not in live):
                    continue
                present = grads.get(parent)
                if present is None:
                    grads[parent] = part
                elif create_graph or parent not in owned:
                    grads[parent] = _sum(present, part)
                    owned.add(parent)
                elif present.size < LARGE:
                    present += part
                    grads[parent] = present
                else:
                    backend_of(present).kernels.add_to(present, part)
            if retain_graph:
                if targets is not None:
                    node.needs = needs  # the next pass may want other inputs
            else:
                seq = node.seq
                node.__dict__.clear()  # what it saved and its edges go now, not at the end
                node.seq = seq
    except Exception as error:
        if not isinstance(error, MiniganError):
            error.add_note(f"in the backward of {node!r}, gradient {g.dtype} {tuple(g.shape)}")
            holders.note(error)
        raise
    finally:
        _RECORDING.reset(token)
    return found


@contextlib.contextmanager
def hook(observer: Any) -> Iterator[Any]:
    """Let `observer` see every forward and backward inside a `with` block."""
    HOOKS.append(observer)
    try:
        yield observer
    finally:
        HOOKS.remove(observer)
