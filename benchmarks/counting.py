"""How much arithmetic and memory traffic a piece of training needs, counted operation by operation.

While `with counting() as count:` is active every operation of the engine adds

    flops   2 per multiply-add of convolutions and matrix products; the rest is not counted
    nbytes  what it reads and writes, each array once: inputs and result, or in a backward pass the
            gradient, what was saved, and the gradients that are made. Views cost nothing.
    floor   the time that this takes at least, if every operation runs at the limit of the machine
            that holds it back: arithmetic or bandwidth

An optimizer step is added by `adam`: p, g, m and v read, p, m and v written.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterable, Iterator
from typing import Any

from benchmarks.peaks import Peaks, peaks
from minigan import autograd
from minigan.tensor import Tensor


class Count:
    """Sums of what was seen; a hook in the sense of `minigan.autograd.hook`."""

    def __init__(self, limits: Peaks) -> None:
        self.limits = limits
        self.flops = self.nbytes = self.floor = 0.0
        self.operations = 0

    def forward(self, node: Any, inputs: tuple[Any, ...], out: Any) -> None:
        if node.is_view:
            return
        self.add(multiply_adds(node, inputs, out.size), [*inputs, out])

    def backward(self, node: Any, g: Any, grads: tuple[Any, ...]) -> None:
        if node.is_view:
            return
        saved = list(node.saved) + ([node.out] if node._keeps_out else [])
        wanted = sum(part is not None for part in grads[:2])  # by data and by weight
        flops = wanted * multiply_adds(node, node.saved, g.size)
        self.add(flops, [g, *saved, *grads])

    def adam(self, parameters: Iterable[Any]) -> None:
        """The optimizer's step over these parameters."""
        for p in parameters:
            self.add(0.0, [p] * 7)

    def add(self, products: float, arrays: list[Any]) -> None:
        flops = 2.0 * products
        nbytes = float(sum(array_of(a).nbytes for a in arrays if a is not None))
        self.flops += flops
        self.nbytes += nbytes
        self.floor += self.limits.floor(flops, nbytes)
        self.operations += 1


def array_of(value: Any) -> Any:
    return value.data if isinstance(value, Tensor) else value


def multiply_adds(node: Any, inputs: Any, outputs: int) -> float:
    """Of one pass through an operation with that many output elements; 0 for all but products."""
    name = type(node).__name__
    if name not in ("Conv", "ConvTranspose", "Linear", "MatMul"):
        return 0.0
    x, weight = inputs[0], inputs[1]
    if name == "ConvTranspose":
        return float(array_of(x).size) * array_of(weight)[0].size
    if name == "MatMul":
        return float(outputs) * array_of(x).shape[-1]
    return float(outputs) * array_of(weight)[0].size


@contextlib.contextmanager
def counting() -> Iterator[Count]:
    """Count what happens inside a `with` block."""
    count = Count(peaks())
    with autograd.hook(count):
        yield count
