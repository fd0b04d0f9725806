"""The operations of `op_list.py` and the updates of `updates.py` on a GPU, beside PyTorch's.

They are called as a user calls them and record the graph. "backward" times forward and backward
together, on both sides. Errors are relative (L2), of the result or of the first gradient, against
the same call of ours in float64.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import minigan as mg
from benchmarks import torchside
from benchmarks.gpu_timing import (
    Clock,
    Contender,
    compared,
    normal,
    numbers,
    race,
    relative,
    sets_for,
    shared,
)
from benchmarks.op_list import Op, ops
from benchmarks.updates import BETAS, weights
from minigan import nn, optim
from minigan.tensor import Tensor

SIZES = (1 << 20, 12 << 20, 48 << 20)  # numbers that an optimizer changes


def measure(bench: Any) -> None:
    """Updates, then all operations, forward and backward."""
    for size in SIZES if bench.on_gpu else (1 << 12,):
        bench.add("ops", f"adam {size >> 20}M", partial(adam_entry, bench, size))
        bench.add("ops", f"ema {size >> 20}M", partial(ema_entry, bench, size))
    for op in ops():
        if bench.on_gpu or (np.prod(op.shapes[0]) <= 1 << 16 and op.flops < 1e8):
            for backward in (False, True):
                name = f"{op.name} {'backward' if backward else 'forward'}"
                bench.add("ops", name, partial(entry, bench, op, backward))


def entry(bench: Any, op: Op, backward: bool) -> dict[str, Any]:
    """One direction of one operation."""
    torch, kernels = torchside.torch(), bench.backend.kernels
    nbytes = 4.0 * float(np.prod(op.shapes[0])) * op.passes[int(backward)]
    sets = min(8, sets_for(nbytes)) if bench.on_gpu else 1
    given = [
        [normal(kernels, i * len(op.shapes) + j, s) for j, s in enumerate(op.shapes)]
        for i in range(sets)
    ]
    sides = [Contender("minigan", our_call(op, bench, given, backward, np.float32))]
    for name, layout in torchside.layouts().items():
        if name == "nchw" or len(op.shapes[0]) == 4:  # only maps have two orders
            call = their_call(torch, bench, op, given, backward, layout)
            sides.append(Contender(f"torch {name}", call))
    exact = numbers(our_call(op, bench, given[:1], backward, np.float64)(0))
    wrong = {side.name: relative(numbers(side.call(0)), exact) for side in sides}
    found = compared(race(Clock(bench.backend.xp), sides, sets))
    passes = op.passes[0] + (op.passes[1] if backward else 0)
    floor = bench.limits.floor(
        op.flops * (3 if backward else 1), 4.0 * float(np.prod(op.shapes[0])) * passes, "fp32"
    )
    return found | {"family": op.family, "error": wrong, "floor_ms": 1e3 * floor}


def cotangent(kernels: Any, shape: tuple[int, ...]) -> Any:
    """The gradient at the result, the same for both sides."""
    return normal(kernels, 1 << 20, shape)


def our_call(
    op: Op, bench: Any, given: list[list[Any]], backward: bool, dtype: Any
) -> Callable[[int], Any]:
    function = op.ours()
    own: list[Any] = []
    if isinstance(function, nn.Module):
        own = list(function.astype(dtype).to(bench.backend.name).parameters())
    inputs = [[Tensor(a.astype(dtype, copy=False)) for a in arrays] for arrays in given]
    for x in (x for xs in inputs for x in xs):
        x.requires_grad = True
    if not backward:
        return lambda i: function(*inputs[i])
    shape = function(*inputs[0]).shape
    g = Tensor(cotangent(bench.backend.kernels, shape).astype(dtype, copy=False))
    return lambda i: mg.grad(function(*inputs[i]), [*inputs[i], *own], [g])


def their_call(
    torch: Any, bench: Any, op: Op, given: list[list[Any]], backward: bool, layout: Any
) -> Callable[[int], Any]:
    function = op.theirs(torch)
    own: list[Any] = []
    if isinstance(function, torch.nn.Module):
        own = list(function.to(bench.where).to(memory_format=layout).parameters())
    inputs = [[shared(torch, a, layout).requires_grad_() for a in arrays] for arrays in given]
    if not backward:
        return lambda i: function(*inputs[i])
    shape = tuple(function(*inputs[0]).shape)
    g = shared(torch, cotangent(bench.backend.kernels, shape), layout)
    return lambda i: torch.autograd.grad(function(*inputs[i]), inputs[i] + own, g)


# Updates of many tensors at a time ---------------------------------------------------------------


def adam_entry(bench: Any, size: int) -> dict[str, Any]:
    """One step of Adam over `size` numbers in several tensors; PyTorch's fused and foreach."""
    arrays = weights(size)
    parameters, grads = uploaded(bench, arrays), uploaded(bench, arrays)
    ours = optim.Adam(parameters, 1e-3, BETAS)
    given = [g.data for g in grads]
    sides = [Contender("minigan", lambda i: ours.step(given))]
    torch = torchside.torch()
    for name in ("fused", "foreach") if torch else ():
        theirs = [shared(torch, p.data).clone().requires_grad_() for p in parameters]
        for p, g in zip(theirs, grads, strict=True):
            p.grad = shared(torch, g.data)
        rule = torch.optim.Adam(theirs, 1e-3, BETAS, **{name: True})
        sides.append(Contender(f"torch {name}", lambda i, rule=rule: rule.step()))  # type: ignore[misc]
    return updated(bench, sides, "adam", 7 * size)


def ema_entry(bench: Any, size: int) -> dict[str, Any]:
    """average <- average + 0.001 (weights - average), over as many numbers."""
    arrays = weights(size)
    averages = [p.data for p in uploaded(bench, arrays)]
    targets = [p.data for p in uploaded(bench, arrays)]
    kernels, torch = bench.backend.kernels, torchside.torch()
    sides = [Contender("minigan", lambda i: kernels.lerp_step(averages, targets, 1e-3))]
    if torch:
        a, t = ([shared(torch, x) for x in xs] for xs in (averages, targets))
        sides.append(Contender("torch foreach", lambda i: torch._foreach_lerp_(a, t, 1e-3)))
    return updated(bench, sides, "ema", 3 * size)


def uploaded(bench: Any, arrays: list[Any]) -> list[Any]:
    """Parameters on the device."""
    parameters = [nn.Parameter(a) for a in arrays]
    for p in parameters:
        p.data = bench.backend.upload(p.data)
    return parameters


def updated(bench: Any, sides: list[Contender], family: str, streams: int) -> dict[str, Any]:
    found = compared(race(Clock(bench.backend.xp), sides))
    floor = bench.limits.floor(0.0, 4.0 * streams)
    return found | {"family": family, "floor_ms": 1e3 * floor}
