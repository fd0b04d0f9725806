"""Everything in a training step but convolutions, beside PyTorch's eager mode.

Both sides are called as a user calls them, through their public functions and layers, and both
record the graph: ours on channels-last arrays as they come out of a convolution, PyTorch's in NCHW
and in channels_last. "forward" times the operation alone, "backward" only the gradient pass after
an untimed forward pass. Layers that follow each other in a network are one case (a norm and its
activation: `nn.Sequential` of both), since an engine may do them at once. The list is in
`op_list.py`.

Optimizers and the moving average of weights change several tensors at a time, as in a network
(`updates.py`); PyTorch's are its fused and its foreach Adam and SGD, and `_foreach_lerp_`.

Names: operation, shape (channels @ size, N batch), direction. Errors are those of the result
(forward), of the first gradient (backward) or of the first changed tensor, against the same call
of ours in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import minigan as mg
from benchmarks import ourside, torchside
from benchmarks.cases import Case, Work, measure_section, result_array
from benchmarks.op_list import Op, ops
from benchmarks.results import Results
from benchmarks.timing import Side
from benchmarks.updates import updates
from minigan import nn
from minigan.tensor import Tensor


def cases() -> list[Case]:
    found = []
    for op in ops():
        first = 4.0 * float(np.prod(op.shapes[0]))
        for times, direction in ((1, "forward"), (2, "backward")):
            found.append(
                Case(
                    f"{op.name} {direction}",
                    op.family,
                    partial(work, op, direction == "backward"),
                    op.flops * times,
                    first * op.passes[times - 1],
                    {"direction": direction},
                )
            )
    for numbers in (65_536, 1 << 20, 3 << 20, 12 << 20):
        found += updates(numbers)
    return found


def work(op: Op, backward: bool) -> Work:
    """Both sides of one direction of an operation."""
    rng = np.random.default_rng(0)
    arrays = [rng.standard_normal(shape, np.float32) for shape in op.shapes]
    probe = op.ours()(*(Tensor(a) for a in arrays))
    g = rng.standard_normal(probe.shape, np.float32)
    sides = [our_side(op, arrays, g, backward, np.float32)]
    for name, layout in torchside.layouts().items():
        sides.append(their_side(op, arrays, g, backward, name, layout))
        if len(op.shapes[0]) != 4:
            break  # only maps have two orders

    def exact() -> Any:
        side = our_side(op, arrays, g, backward, np.float64)
        return result_array(side.call(side.prepare()))

    return Work(sides, exact, result_array)


def our_side(op: Op, arrays: list[Any], g: Any, backward: bool, dtype: Any) -> Side:
    function = op.ours()
    if isinstance(function, nn.Module) and dtype == np.float64:
        function.astype(dtype)
    own = list(function.parameters()) if isinstance(function, nn.Module) else []
    inputs: list[Tensor] = [Tensor(ourside.lying(a.astype(dtype))) for a in arrays]
    for x in inputs:
        x.requires_grad = True
    cotangent = ourside.lying(g.astype(dtype))
    if not backward:
        return Side("minigan", lambda _: function(*inputs), wake=ourside.wake)
    return Side(
        "minigan",
        lambda y: mg.grad(y, [*inputs, *own], cotangent),
        lambda: function(*inputs),
        ourside.wake,
    )


def their_side(op: Op, arrays: list[Any], g: Any, backward: bool, name: str, layout: Any) -> Side:
    torch = torchside.torch()
    function = op.theirs(torch)
    if isinstance(function, torch.nn.Module):
        function.to(memory_format=layout)
    own = list(function.parameters()) if isinstance(function, torch.nn.Module) else []
    inputs = [torchside.tensor(a, layout).requires_grad_() for a in arrays]
    cotangent = torchside.tensor(g, layout)
    if not backward:
        return Side(f"torch {name}", lambda _: function(*inputs), wake=torchside.wake)
    return Side(
        f"torch {name}",
        lambda y: torch.autograd.grad(y, inputs + own, cotangent),
        lambda: function(*inputs),
        torchside.wake,
    )


def names() -> list[str]:
    """Of all cases."""
    return [case.name for case in cases()]


def measure(options: Any, results: Results, seconds: float, say: Callable[[str], None]) -> None:
    """Measure the chosen operations into `results`."""
    measure_section("ops", cases(), options, results, seconds, say)
