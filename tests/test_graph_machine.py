"""Random graphs: hypothesis grows them operation by operation and checks what always holds.

A *program* (a list of steps) records what was done, so that finite differences can replay it with
moved leaves, in plain NumPy. Values cut off by detach or no_grad replay as recorded.
"""

from __future__ import annotations

import gc
import os
import sys
import weakref
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, precondition, rule
from opspec import directional, inner, leaf, magnitude

import minigan as mg
import minigan.functional as F
from minigan.autograd import Fused
from minigan.errors import GraphError
from minigan.ops.shape import sum_to
from minigan.tensor import Tensor

Array = np.ndarray[Any, Any]


class Gate(Fused):
    """y = a tanh b, with the hyperbolic tangent kept for the kernel."""

    saves = ("a",)

    def forward(self, a: Array, b: Array) -> Array:
        self.t = np.tanh(b)
        return a * self.t

    def backward_kernel(self, g: Array, a: Array) -> tuple[Array, Array]:
        slope = 1 - self.t * self.t
        return sum_to(g * self.t, a.shape), sum_to(g * a * slope, self.t.shape)

    def reference(self, a: Tensor, b: Tensor) -> Tensor:
        return a * b.tanh()


@dataclass(frozen=True)
class Op:
    """One kind of step: on arrays, on tensors, and what the gradient of each operand reads
    (positions of operands, "out" for the result)."""

    arrays: Callable[..., Array]
    tensors: Callable[..., Tensor]
    reads: tuple[tuple[int | str, ...], ...]
    view: bool = False


def half(x: Any) -> Any:
    return x * 0.5


OPS = {
    "add": Op(np.add, F.add, ((), ())),
    "sub": Op(np.subtract, F.sub, ((), ())),
    "mul": Op(np.multiply, F.mul, ((1,), (0,))),
    "gate": Op(lambda a, b: a * np.tanh(b), Gate.apply, ((0, 1), (0, 1))),
    "checkpoint": Op(
        lambda a, b: np.sin(a * b),
        lambda a, b: mg.checkpoint(lambda a, b: F.sin(a * b), a, b),
        ((0, 1), (0, 1)),
    ),
    "twice": Op(lambda x: x + x, lambda x: F.add(x, x), ((),)),
    "half": Op(half, half, ((),)),
    "neg": Op(np.negative, F.neg, ((),)),
    "tanh": Op(np.tanh, F.tanh, (("out",),)),
    "sin": Op(np.sin, F.sin, ((0,),)),
    "square": Op(np.square, F.square, ((0,),)),
    "sum": Op(lambda x: x.sum(0, keepdims=True), lambda x: x.sum(0, keepdims=True), ((),)),
    "take": Op(lambda x: x[[0, -1, 0]], lambda x: x[np.array([0, -1, 0])], ((),)),
    "reshape": Op(lambda x: x.reshape(x.shape[::-1]), lambda x: x.reshape(x.shape[::-1]), ((),),
                  view=True),
    "transpose": Op(np.transpose, F.transpose, ((),), view=True),
}  # fmt: skip
UNARY = sorted(name for name, op in OPS.items() if len(op.reads) == 1)
BINARY = sorted(name for name, op in OPS.items() if len(op.reads) == 2)


@dataclass
class Step:
    """Result `out` = op(*operands); without op: the leaf, constant or mutation `constant`."""

    out: int
    op: Op | None
    operands: tuple[int, ...] = ()
    constant: Array | None = None
    frozen: bool = False  # cut off: replays as `constant`
    source: int | None = None  # a view shares its memory with this one


class RandomGraph(RuleBasedStateMachine):
    @initialize(seed=st.integers(0, 2**32 - 1))
    def start(self, seed: int) -> None:
        gc.collect()
        gc.disable()
        self.rng = np.random.default_rng(seed)
        self.tensors: list[Tensor] = []
        self.steps: list[Step] = []
        self.made: list[Step] = []  # the step that made each tensor
        self.leaves: list[int] = []
        self.nodes: list[Any] = []
        self.written: list[tuple[int, int]] = []  # (root of the memory, time of the change)
        self.born: list[int] = []
        self.freed: set[int] = set()
        self.unsure: set[int] = set()  # a refused pass may have freed some of these
        for name in ("mul", "tanh", "gate", "sin"):
            self.new_leaf(0)
            self.apply(OPS[name], (self.pick(0),) * len(OPS[name].reads))

    def teardown(self) -> None:
        try:
            if hasattr(self, "tensors") and sys.exc_info()[0] is None:
                self.tensors.clear()
                assert all(node() is None for node in self.nodes), "a cycle keeps nodes alive"
        finally:
            gc.enable()

    # Growing the graph --------------------------------------------------------------------------

    def add(self, tensor: Tensor, step: Step) -> None:
        assert type(tensor.data) is np.ndarray
        self.tensors.append(tensor)
        self.made.append(step)
        self.steps.append(step)
        self.born.append(len(self.steps))
        if tensor.node is not None:
            self.nodes.append(weakref.ref(tensor.node))

    def pick(self, k: int) -> int:
        """The k-th from the end: hypothesis likes small numbers, and graphs shall grow deep."""
        return len(self.tensors) - 1 - k % len(self.tensors)

    @precondition(lambda self: len(self.leaves) < 4)
    @rule(kind=st.integers(0, 3))
    def new_leaf(self, kind: int) -> None:
        array = self.rng.uniform(-1.5, 1.5, [(2, 3), (1, 3), (2, 1), (3, 2)][kind])
        self.leaves.append(len(self.tensors))
        self.add(leaf(array), Step(len(self.tensors), None, constant=array.copy()))

    def apply(self, op: Op, operands: tuple[int, ...], recorded: bool = True) -> None:
        args = [self.tensors[i] for i in operands]
        out = len(self.tensors)
        if recorded:
            y = op.tensors(*args)
        else:
            with mg.no_grad():
                y = op.tensors(*args)
            assert y.node is None
        assert (y.node is not None) == (recorded and any(t.node is not None for t in args))
        shared = operands[0] if op.view else None
        frozen = y.node is None
        self.add(y, Step(out, op, operands, y.data.copy() if frozen else None, frozen, shared))
        if np.abs(y.data).max() > 3:  # large values make steep functions: keep within bounds
            self.apply(OPS["tanh"], (out,), recorded)

    @rule(name=st.sampled_from([*UNARY, *["twice"] * 4]), k=st.integers(0, 5))
    def unary(self, name: str, k: int) -> None:
        self.apply(OPS[name], (self.pick(k),))

    @rule(name=st.sampled_from(BINARY), k=st.integers(0, 5), j=st.integers(0, 15))
    def binary(self, name: str, k: int, j: int) -> None:
        """Any two that fit; the same one twice is a diamond."""
        a = self.pick(k)
        fits = [i for i, t in enumerate(self.tensors) if fit(t.shape, self.tensors[a].shape)]
        self.apply(OPS[name], (a, fits[-1 - j % len(fits)]))

    @rule(name=st.sampled_from(["sin", "half", "square"]), k=st.integers(0, 5))
    def in_no_grad(self, name: str, k: int) -> None:
        self.apply(OPS[name], (self.pick(k),), recorded=False)

    @rule(k=st.integers(0, 5))
    def detach(self, k: int) -> None:
        i = self.pick(k)
        y = self.tensors[i].detach()
        op = Op(lambda x: x, Tensor.detach, ((),), view=True)
        step = Step(len(self.tensors), op, (i,), y.data.copy(), frozen=True, source=i)
        self.add(y, step)

    # Changing values in place -------------------------------------------------------------------

    def root(self, i: int) -> int:
        while (source := self.made[i].source) is not None:
            i = source
        return i

    @precondition(lambda self: len(self.written) < 3)
    @rule(k=st.integers(0, 5))
    def write(self, k: int) -> None:
        """Add to a tensor in place, as an optimizer does; its views change with it."""
        i = self.root(self.pick(k))
        t = self.tensors[i]
        change = self.rng.uniform(-0.2, 0.2, t.shape)
        t.data[...] += change
        t.bump()
        self.steps.append(Step(i, None, constant=change))
        for j in range(len(self.tensors)):
            if j != i and self.root(j) == i:
                old = self.made[j]
                now = self.tensors[j].data.copy() if old.frozen else None
                self.steps.append(Step(j, old.op, old.operands, now, old.frozen))
        self.written.append((i, len(self.steps)))

    def changed_since(self, i: int, time: int) -> bool:
        """Whether the memory of tensor i was written after `time`."""
        return any(root == self.root(i) and when > time for root, when in self.written)

    # What must hold -----------------------------------------------------------------------------

    def replay(self, moved: Sequence[Any], target: int) -> Any:
        """The value of `target` with other leaves: in NumPy alone if these are arrays."""
        leaves = dict(zip(self.leaves, moved, strict=True))
        as_tensors = isinstance(moved[0], Tensor)
        values: dict[int, Any] = {}
        for step in self.steps:
            if step.frozen:
                assert step.constant is not None
                values[step.out] = Tensor(step.constant) if as_tensors else step.constant
            elif step.op is not None:
                run = step.op.tensors if as_tensors else step.op.arrays
                values[step.out] = run(*[values[i] for i in step.operands])
            elif step.out in values:
                values[step.out] = values[step.out] + step.constant
            else:
                values[step.out] = leaves[step.out]
            if step is self.made[target]:
                break
        return values[target]

    def below(self, target: int) -> tuple[set[int], bool]:
        """The recorded results that `target` depends on, and whether freed ones are met."""
        seen: set[int] = set()
        stack, met_freed = [target], False
        while stack:
            i = stack.pop()
            if i in seen or self.tensors[i].node is None or i in self.leaves:
                continue
            seen.add(i)
            if i in self.freed:
                met_freed = True
                continue
            stack.extend(self.made[i].operands)
        return seen, met_freed

    def stale(self, nodes: set[int]) -> tuple[bool, bool]:
        """(some gradient needs a changed value, some operation reads a changed value)."""
        needed = touched = False
        for i in nodes:
            step, time = self.made[i], self.born[i]
            assert step.op is not None
            for operand, reads in zip(step.operands, step.op.reads, strict=True):
                for read in reads:
                    if self.changed_since(i if read == "out" else step.operands[int(read)], time):
                        touched = True
                        needed |= self.tensors[operand].node is not None
        return needed, touched

    def gradient(self, target: int, g: Array, retain: bool, create: bool = False) -> Any:
        """Gradients in all leaves as arrays, or None where the pass must be refused."""
        y, xs = self.tensors[target], [self.tensors[i] for i in self.leaves]
        nodes, met_freed = self.below(target)
        needed, touched = self.stale(nodes)
        try:
            found = mg.grad(y, xs, g, create_graph=create, retain_graph=retain)
        except GraphError as error:
            text = str(error)
            for reason, true in (("freed", met_freed or nodes & self.unsure), ("changed", touched)):
                assert reason not in text or true, f"refused without a reason: {error}"
            if not retain and "changed" in text:
                self.unsure |= nodes
            return None
        assert not met_freed, "a freed graph was used"
        assert not needed, "a value that the gradient needs had changed"
        if not retain:
            self.freed |= nodes
        return [
            np.zeros_like(x.data) if d is None else d.data for x, d in zip(xs, found, strict=True)
        ]

    def differentiable(self, k: int) -> int:
        """The k-th result from the end that has a gradient."""
        made = [i for i, t in enumerate(self.tensors) if t.node and i not in self.leaves]
        return made[-1 - k % len(made)]

    @rule(k=st.integers(0, 3), create=st.booleans())
    def gradients_equal_finite_differences(self, k: int, create: bool) -> None:
        target = self.differentiable(k)
        g = self.rng.uniform(-1, 1, self.tensors[target].shape)
        claimed = self.gradient(target, g, retain=True, create=create)
        again = self.gradient(target, g, retain=True, create=create)
        if claimed is None:
            assert again is None
            return
        assert all(a.tobytes() == b.tobytes() for a, b in zip(claimed, again, strict=True))
        at = self.initial()
        if not self.changed_since(target, self.born[target]):
            assert np.allclose(self.replay(at, target), self.tensors[target].data, 1e-12, 1e-12)

        def value(xs: Sequence[Array]) -> float:
            return inner([self.replay(xs, target)], [g])

        scale = 10 + magnitude([self.tensors[target].data], [g])
        directional(value, at, claimed, self.rng, 1e-8, scale)

    def initial(self) -> list[Array]:
        """The values of the leaves when they were made."""
        return [np.asarray(self.made[i].constant) for i in self.leaves]

    @precondition(lambda self: not self.written and not self.freed)
    @rule(k=st.integers(0, 3))
    def second_order_equals_finite_differences(self, k: int) -> None:
        target = self.differentiable(k)
        y, xs = self.tensors[target], [self.tensors[i] for i in self.leaves]
        g, *ways = (self.rng.uniform(-1, 1, t.shape) for t in (y, *xs))
        total: Any = mg.tensor(np.zeros(()))
        for d, way in zip(mg.grad(y, xs, g, create_graph=True), ways, strict=True):
            total = total if d is None else total + (d * way).sum()
        found = mg.grad(total, xs, retain_graph=True) if total.node else [None] * len(xs)
        claimed = [
            np.zeros(x.shape) if d is None else d.data for x, d in zip(xs, found, strict=True)
        ]

        def value(moved: Sequence[Array]) -> float:
            leaves = [leaf(m) for m in moved]
            grads = mg.grad(self.replay(leaves, target), leaves, g)
            return sum(
                inner([d.data], [w]) for d, w in zip(grads, ways, strict=True) if d is not None
            )

        scale = 10 + sum(float(np.abs(c).sum()) for c in claimed)
        directional(value, self.initial(), claimed, self.rng, 1e-8, scale)

    @precondition(lambda self: len(self.tensors) > 14 and not self.freed)
    @rule(k=st.integers(0, 3))
    def a_pass_frees_its_graph(self, k: int) -> None:
        target = self.differentiable(k)
        g = np.ones(self.tensors[target].shape)
        if self.gradient(target, g, retain=False) is not None:
            assert self.gradient(target, g, retain=False) is None


def fit(a: tuple[int, ...], b: tuple[int, ...]) -> bool:
    return all(m == n or 1 in (m, n) for m, n in zip(a, b, strict=True))


RandomGraph.TestCase.settings = settings(
    max_examples=int(os.environ.get("MINIGAN_EXAMPLES", "60")), stateful_step_count=30
)
TestRandomGraph = RandomGraph.TestCase
