"""What a network consists of and what it costs, measured by running it once on zeros."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import Any

import numpy as np

from minigan import autograd, random
from minigan.autograd import no_grad
from minigan.backend import Array
from minigan.errors import UsageError
from minigan.nn.module import Module, observe
from minigan.ops.attention import ScaledDotProductAttention
from minigan.ops.conv import Conv, ConvTranspose
from minigan.ops.linear import Linear, MatMul
from minigan.tensor import Tensor


@dataclass
class Row:
    """One module that holds parameters or computes something itself.

    Attributes
    ----------
    name, kind : dotted name and class.
    parameters : numbers that it learns itself, without those of modules inside.
    leaf : whether there are no modules inside.
    shape : of its output, the last time it was called.
    flops : 2 x multiply-adds of its convolutions and matrix products.
    activations : bytes of its output; if it has modules inside, of what it computes besides.
    """

    name: str
    kind: str
    parameters: int
    leaf: bool = True
    shape: tuple[int, ...] = ()
    flops: int = 0
    activations: int = 0


@dataclass
class Summary:
    """Rows in the order of the first call, and totals. str() is the table."""

    rows: list[Row] = field(default_factory=list)
    parameters: int = 0

    @property
    def flops(self) -> int:
        return sum(row.flops for row in self.rows)

    @property
    def activations(self) -> int:
        return sum(row.activations for row in self.rows)

    def __str__(self) -> str:
        table = [("module", "kind", "output", "parameters", "FLOPs", "activations")]
        for row in self.rows:
            shape = "x".join(map(str, row.shape))
            cost = (f"{row.parameters:,}", _short(row.flops), _bytes(row.activations))
            table.append((row.name, row.kind, shape, *cost))
        total = (f"{self.parameters:,}", _short(self.flops), _bytes(self.activations))
        table.append(("total", "", "", *total))
        widths = [max(len(line[i]) for line in table) for i in range(6)]
        lines = []
        for line in table:
            cells = [
                cell.ljust(width) if i < 3 else cell.rjust(width)
                for i, (cell, width) in enumerate(zip(line, widths, strict=True))
            ]
            lines.append("  ".join(cells).rstrip())
        rule = "-" * max(map(len, lines))
        return "\n".join([lines[0], rule, *lines[1:-1], rule, lines[-1]])


def summary(module: Module, *inputs: tuple[int, ...] | Tensor | Array) -> Summary:
    """Run `module` once in eval mode, without gradients, and return what each part did.

    Parameters
    ----------
    module : any module.
    inputs : for each argument of forward a shape, which stands for zeros, or the value itself
        (labels, for example). Zeros have the dtype of the parameters.

    Returns
    -------
    Summary
        `print` it. Operations outside of any inner module count for `module` itself.
    """
    dtype = next((p.dtype for p in module.parameters()), np.dtype(np.float32))
    arguments = [_argument(x, dtype) for x in inputs]
    modes = [(inner, inner.training) for inner in module.modules()]
    counters = random.state()
    meter = _Meter(module)
    module.eval()
    try:
        with no_grad(), observe(meter), autograd.hook(meter):
            module(*arguments)
    finally:
        random.set_state(counters)
        for inner, training in modes:
            inner.training = training
    rows = [row for row in meter.rows.values() if row.parameters or row.activations]
    return Summary(rows, module.num_parameters())


def _argument(x: Any, dtype: np.dtype[Any]) -> Tensor:
    if isinstance(x, Tensor):
        return x
    if isinstance(x, np.ndarray):
        return Tensor(x)
    if isinstance(x, tuple | list) and all(isinstance(n, int) for n in x):
        return Tensor(np.zeros(x, dtype))
    raise UsageError(f"summary: {x!r} is neither a shape nor an array", fix="pass (1, 3, 64, 64)")


class _Meter:
    """Observer of modules and hook of operations: each counts for the innermost module."""

    def __init__(self, root: Module) -> None:
        self.names = {id(module): name for name, module in root.named_modules()}
        self.rows: dict[int, Row] = {}
        self.inside: list[Row] = []

    def enter(self, module: Module, args: tuple[Any, ...]) -> None:
        if id(module) not in self.rows:
            own = [p for name, p in module.named_parameters() if not _is_inner(module, name)]
            kind = type(module).__name__
            name = self.names.get(id(module), "?") or kind
            leaf = next(module.children(), None) is None
            self.rows[id(module)] = Row(name, kind, sum(p.size for p in own), leaf)
        self.inside.append(self.rows[id(module)])

    def leave(self, module: Module, args: tuple[Any, ...], out: Any) -> None:
        row = self.inside.pop()
        row.shape = getattr(out, "shape", ())
        if isinstance(out, Tensor) and row.leaf:
            row.activations += _new_bytes(out.data, args)

    def forward(self, node: Any, inputs: tuple[Any, ...], out: Array) -> None:
        if not self.inside:
            return
        row = self.inside[-1]
        row.flops += 2 * _multiply_adds(node, inputs, out)
        if not row.leaf:
            row.activations += _new_bytes(out, inputs)

    def backward(self, node: Any, g: Any, grads: tuple[Any, ...]) -> None:
        """Not reached: nothing is recorded."""


def _new_bytes(out: Array, inputs: tuple[Any, ...]) -> int:
    """Bytes of a result; none if it is a view of an input."""
    shared = any(isinstance(x, Tensor) and np.may_share_memory(out, x.data) for x in inputs)
    return 0 if shared else out.nbytes


def _is_inner(module: Module, name: str) -> bool:
    """Whether a parameter belongs to a module inside."""
    return any(name.startswith(f"{child}.") for child, _ in module.named_children())


def _multiply_adds(node: Any, inputs: tuple[Any, ...], out: Array) -> int:
    if isinstance(node, Conv):  # each output element: in/groups * kernel
        return out.size * math.prod(inputs[1].shape[1:])
    if isinstance(node, ConvTranspose):  # each input element: out/groups * kernel
        return int(inputs[0].size * math.prod(inputs[1].shape[1:]))
    if isinstance(node, Linear | MatMul):  # each output element: the axis that is summed over
        return int(out.size * inputs[0].shape[-1])
    if isinstance(node, ScaledDotProductAttention):  # scores, then the mean of values
        keys = inputs[1].shape[-2]
        return int((inputs[0].size + out.size) * keys)
    return 0


def _short(number: int) -> str:
    """1234567 as "1.23 M"."""
    if not number:
        return ""
    for unit, size in (("G", 1e9), ("M", 1e6), ("k", 1e3)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return str(number)


def _bytes(number: int) -> str:
    """1048576 as "1.00 MiB"."""
    for unit, size in (("GiB", 2**30), ("MiB", 2**20), ("KiB", 2**10)):
        if number >= size:
            return f"{number / size:.2f} {unit}"
    return f"{number} B" if number else ""
