"""checkpoint: trade a second forward pass for the memory of the graph."""

from __future__ import annotations

import threading
from collections.abc import Callable
from typing import Any

from minigan import random
from minigan.autograd import (
    RECOMPUTING,
    Function,
    enable_grad,
    hook,
    is_recording,
    reachable,
    traverse,
)
from minigan.backend import Array, again
from minigan.errors import UsageError, changed_after_save
from minigan.tensor import SEQUENCE, Tensor


def checkpoint(fn: Callable[..., Tensor], *inputs: Tensor) -> Tensor:
    """Return fn(*inputs), keeping nothing of its graph: backward runs `fn` again.

    Trades one more forward pass for memory. Random draws repeat themselves, running statistics
    are not updated twice, tensors that `fn` reads from outside get their gradients too, and the
    result can be differentiated to any order.

    Parameters
    ----------
    fn : function of tensors that returns one Tensor.
    inputs : its arguments.
    """
    if not is_recording():
        return fn(*inputs)
    rng: dict[str, int] = {}
    again(lambda: _refill(rng, random.state()))
    floor = next(SEQUENCE)
    with hook(_Reads()) as reads:
        result = fn(*inputs)
    if not isinstance(result, Tensor):
        raise UsageError(
            f"checkpoint: the function returned a {type(result).__name__}, not one Tensor",
            fix="concatenate its results, or checkpoint each part by itself",
        )
    if result.node is None or result.node.seq < floor:
        return result
    inner = [node for node in reachable([result.node], floor) if node.seq > floor]
    outer = {p: None for node in inner for p in node.parents if p is not None and p.seq < floor}
    node = Checkpoint()
    node.fn, node.inputs, node.rng, node.reads = fn, inputs, rng, reads
    node.seq, node.parents, node.needs = next(SEQUENCE), tuple(outer), (True,) * len(outer)
    return Tensor(result._data, node)


class _Reads:
    """Remembers the version of every tensor that operations read, without keeping the tensor."""

    def __init__(self) -> None:
        self.cells: dict[int, tuple[list[int], int, str]] = {}
        self.thread = threading.get_ident()  # hooks see the operations of all threads

    def forward(self, node: Function, inputs: tuple[Tensor | None, ...], out: Array) -> None:
        if threading.get_ident() != self.thread:
            return
        for t in inputs:
            if t is not None and id(t.version) not in self.cells:
                self.cells[id(t.version)] = t.version, t.version[0], getattr(t, "name", "")

    def backward(self, node: Function, g: Any, grads: tuple[Any, ...]) -> None:
        """Gradients taken inside the function read nothing new."""

    def check(self, node: Function) -> None:
        for cell, version, name in self.cells.values():
            if cell[0] != version:
                raise changed_after_save(name or "a tensor that the function read", node)


class Checkpoint(Function):
    """y = fn(inputs), recomputed when its gradient is wanted. Its parents are all nodes that the
    function read, among them parameters that it reached through a closure."""

    fn: Callable[..., Tensor]
    inputs: tuple[Tensor, ...]
    rng: dict[str, int]
    reads: _Reads

    def forward(self, *arrays: Array) -> Array:
        raise UsageError("call minigan.checkpoint(fn, *tensors)")

    def backward(self, g: Any, *saved: Any) -> tuple[Any, ...]:
        assert self.parents is not None
        self.reads.check(self)
        create_graph = isinstance(g, Tensor)
        rng: dict[str, int] = {}
        again(lambda: _refill(rng, random.state()))
        drawn = self.rng  # not self: the node is emptied when it is done, the action stays
        again(lambda: random.set_state(drawn))
        floor = next(SEQUENCE)
        token = RECOMPUTING.set(True)
        try:
            with enable_grad():
                y = self.fn(*self.inputs)
        finally:
            RECOMPUTING.reset(token)
            again(lambda: random.set_state(rng))
        targets = {p: None for p, need in zip(self.parents, self.needs, strict=True) if need}
        grads = traverse([(y.node, g)], targets, create_graph, create_graph, floor)
        return tuple([grads.get(p) for p in self.parents])


def _refill(kept: dict[str, int], state: dict[str, int]) -> None:
    """Put the state of the random streams into a dictionary that others refer to."""
    kept.clear()
    kept |= state
