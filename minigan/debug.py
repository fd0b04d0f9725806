"""Looking into a computation: NaN watch, memory meter, and the graph as text or as a picture.

The watchers are hooks: objects whose `forward` and `backward` are called around every operation
while `with minigan.autograd.hook(observer):` is active.
"""

from __future__ import annotations

import contextlib
import linecache
import sys
import weakref
from collections import Counter
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

from minigan import autograd
from minigan.backend import Array, to_numpy
from minigan.errors import NumericError
from minigan.tensor import Leaf, Tensor

_PACKAGE = Path(__file__).parent
_GANS = str(_PACKAGE / "gans")  # their files are read and edited like a user's


def user_line() -> str:
    """The innermost line of code above the engine and its layers: 'file.py:12: y = x.log()'."""
    frame = sys._getframe(1)
    while frame.f_back is not None and _is_engine(frame.f_code.co_filename):
        frame = frame.f_back
    name, number = frame.f_code.co_filename, frame.f_lineno
    return f"{name}:{number}: {linecache.getline(name, number).strip()}".rstrip(": ")


def _is_engine(filename: str) -> bool:
    return filename.startswith(str(_PACKAGE)) and not filename.startswith(_GANS)


def _statistics(value: Tensor | Array | None) -> str:
    if value is None:
        return "None"
    array = to_numpy(value.data if isinstance(value, Tensor) else value)
    if array.dtype.kind != "f" or not array.size:
        return f"{array.dtype} {array.shape}"
    finite = array[np.isfinite(array)]
    spread = f" in [{finite.min():.4g}, {finite.max():.4g}]" if finite.size else ""
    return f"{array.dtype} {array.shape}{spread}, {array.size - finite.size} not finite"


class NanWatch:
    """Raises NumericError at the first operation that makes a NaN or an infinity."""

    def forward(self, node: Any, inputs: tuple[Tensor | None, ...], out: Array) -> None:
        node.line = user_line()
        if out.dtype.kind == "f" and not np.isfinite(out).all():
            raise NumericError(
                f"{node!r} made {_what(out)}",
                where=node.line,
                why="inputs: " + "; ".join(_statistics(t) for t in inputs),
            )

    def backward(self, node: Any, g: Any, grads: tuple[Any, ...]) -> None:
        for i, contribution in enumerate(grads):
            array = contribution.data if isinstance(contribution, Tensor) else contribution
            if array is not None and not np.isfinite(array).all():
                raise NumericError(
                    f"the backward of {node!r} made {_what(array)} for input {i}",
                    where=getattr(node, "line", ""),
                    why=f"incoming gradient: {_statistics(g)}",
                )


def _what(array: Array) -> str:
    return "NaN" if np.isnan(array).any() else "infinity"


@contextlib.contextmanager
def nan_watch() -> Iterator[NanWatch]:
    """Stop at the first NaN or infinity, in the forward or in the backward pass.

    The error names the operation, the line of your code that called it, and the ranges of its
    inputs. Slow: every result is read once more.
    """
    with autograd.hook(NanWatch()) as watch:
        yield watch


class MemoryMeter:
    """Bytes of operation results that are alive, now and at the peak, by operation.

    Attributes
    ----------
    live, peak : bytes of results that are alive now, and were at the most.
    by_operation : bytes alive at the peak, by operation.
    """

    def __init__(self) -> None:
        self.live = self.peak = 0
        self.by_operation: Counter[str] = Counter()
        self._now: Counter[str] = Counter()

    def forward(self, node: Any, inputs: tuple[Tensor | None, ...], out: Array) -> None:
        first = inputs[0]
        if out.base is not None and first is not None and np.may_share_memory(out, first.data):
            return  # a view owns nothing
        owner = out if out.base is None or not isinstance(out.base, np.ndarray) else out.base
        name, size = repr(node), owner.nbytes
        self._now[name] += size
        self.live += size
        weakref.finalize(owner, self._released, name, size)
        if self.live > self.peak:
            self.peak = self.live
            self.by_operation = Counter(self._now)

    def backward(self, node: Any, g: Any, grads: tuple[Any, ...]) -> None:
        """Gradients are short-lived and not counted."""

    def _released(self, name: str, size: int) -> None:
        self._now[name] -= size
        self.live -= size

    def table(self) -> str:
        """The largest holders at the peak, one line each."""
        rows = [f"peak {self.peak / 2**20:.1f} MiB of results"]
        for name, size in self.by_operation.most_common(10):
            rows.append(f"  {name:<24} {size / 2**20:10.2f} MiB")
        return "\n".join(rows)


@contextlib.contextmanager
def memory_meter() -> Iterator[MemoryMeter]:
    """Measure what the results of operations hold inside a `with` block."""
    with autograd.hook(MemoryMeter()) as meter:
        yield meter


def _nodes(y: Tensor) -> list[Any]:
    """All nodes below y, newest first."""
    if y.node is None:
        return []
    return autograd.reachable([y.node], 0)[::-1]


def _label(node: Any) -> str:
    if isinstance(node, Leaf):
        return "Leaf"
    options = [
        f"{key}={value}"
        for key, value in vars(node).items()
        if isinstance(value, int | float | str | bool) and key not in ("seq", "line")
    ]
    return f"{type(node).__name__}({', '.join(options)})"


def graph_text(y: Tensor) -> str:
    """The graph below y, one operation a line, newest first: '#7 Mul() <- #5 #6'."""
    nodes = _nodes(y)
    numbers = {node: i for i, node in enumerate(reversed(nodes))}
    lines = []
    for node in nodes:
        edges = " ".join("constant" if p is None else f"#{numbers[p]}" for p in node.parents)
        lines.append(f"#{numbers[node]} {_label(node)}" + (f" <- {edges}" if edges else ""))
    return "\n".join(lines)


def graph_dot(y: Tensor) -> str:
    """The graph below y in the DOT language (draw it with Graphviz)."""
    nodes = _nodes(y)
    numbers = {node: i for i, node in enumerate(reversed(nodes))}
    lines = ["digraph minigan {", "  rankdir=BT; node [shape=box, fontname=monospace];"]
    for node in reversed(nodes):
        shape = ", style=filled, fillcolor=lightblue" if isinstance(node, Leaf) else ""
        text = _label(node).replace('"', "'")
        lines.append(f'  n{numbers[node]} [label="{text}"{shape}];')
        lines.extend(f"  n{numbers[p]} -> n{numbers[node]};" for p in node.parents if p is not None)
    return "\n".join([*lines, "}"])
