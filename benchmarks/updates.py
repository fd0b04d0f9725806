"""Optimizer steps and moving averages over several tensors at a time, as `ops.py` measures them."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

from benchmarks import ourside, torchside
from benchmarks.cases import Case, Work, result_array
from benchmarks.timing import Side
from minigan import nn, optim

BETAS = (0.5, 0.999)


def updates(numbers: int) -> list[Case]:
    """Steps over that many numbers in several tensors, as a small network has them."""
    size = f"{numbers >> 20}M" if numbers >> 20 else f"{numbers >> 10}k"
    kinds: dict[str, tuple[Callable[[list[Any]], Work], int]] = {
        "adam": (adam_work, 7),
        "sgd momentum": (sgd_work, 5),
        "ema": (ema_work, 3),
    }
    return [
        Case(
            f"{kind} {size}",
            kind.split()[0],
            partial(built, make, numbers),
            0.0,
            4.0 * streams * numbers,
            {"direction": "step"},
        )
        for kind, (make, streams) in kinds.items()
    ]


def built(make: Callable[[list[Any]], Work], numbers: int) -> Work:
    return make(weights(numbers))


def weights(numbers: int) -> list[Any]:
    """Weights of 4x4 kernels that halve in size, and as many short vectors."""
    rng, arrays = np.random.default_rng(0), []
    while numbers > 4096:
        channels = 1 << int(np.log2(numbers / 2 / 16) / 2)
        arrays.append(rng.standard_normal((channels, channels, 4, 4), np.float32))
        arrays.append(rng.standard_normal(channels, np.float32))
        numbers -= arrays[-1].size + arrays[-2].size
    return [*arrays, rng.standard_normal(max(numbers, 1), np.float32)]


def gradients(arrays: list[Any]) -> list[Any]:
    rng = np.random.default_rng(1)
    return [rng.standard_normal(a.shape, np.float32) for a in arrays]


def our_parameters(arrays: list[Any], dtype: Any) -> list[Any]:
    parameters = [nn.Parameter(a.astype(dtype)) for a in arrays]
    for p, a in zip(parameters, arrays, strict=True):
        p._data = ourside.lying(a.astype(dtype))
    return parameters


def optimizer_work(
    arrays: list[Any], make: Callable[[Any], Any], theirs: dict[str, Callable[[Any], Any]]
) -> Work:
    """One step of an optimizer of ours, and of several of PyTorch's, over the same gradients."""
    drawn = gradients(arrays)

    def our_step(dtype: Any) -> Side:
        parameters = our_parameters(arrays, dtype)
        optimizer, grads = make(parameters), [ourside.lying(g.astype(dtype)) for g in drawn]

        def call(_: Any) -> Any:
            optimizer.step(grads)
            return parameters[0].data

        return Side("minigan", call, wake=ourside.wake)

    sides = [our_step(np.float32)]
    for name, make_theirs in theirs.items():
        parameters = [torchside.torch().tensor(a, requires_grad=True) for a in arrays]
        for p, g in zip(parameters, drawn, strict=True):
            p.grad = torchside.torch().tensor(g)
        call = stepping(make_theirs(parameters), parameters[0])
        sides.append(Side(f"torch {name}", call, wake=torchside.wake))
    return Work(sides, lambda: our_step(np.float64).call(None), result_array)


def stepping(optimizer: Any, first: Any) -> Callable[[Any], Any]:
    """A call that makes a step and returns the first tensor."""

    def call(_: Any) -> Any:
        optimizer.step()
        return first

    return call


def adam_work(arrays: list[Any]) -> Work:
    torch = torchside.torch()
    theirs: dict[str, Any] = {}
    if torch:
        theirs = {
            "fused": lambda p: torch.optim.Adam(p, 1e-3, BETAS, fused=True),
            "foreach": lambda p: torch.optim.Adam(p, 1e-3, BETAS, foreach=True),
        }
    return optimizer_work(arrays, lambda p: optim.Adam(p, 1e-3, BETAS), theirs)


def sgd_work(arrays: list[Any]) -> Work:
    torch = torchside.torch()
    theirs: dict[str, Any] = {}
    if torch:
        theirs = {
            "fused": lambda p: torch.optim.SGD(p, 1e-3, 0.9, fused=True),
            "foreach": lambda p: torch.optim.SGD(p, 1e-3, 0.9, foreach=True),
        }
    return optimizer_work(arrays, lambda p: optim.SGD(p, 1e-3, momentum=0.9), theirs)


def ema_work(arrays: list[Any]) -> Work:
    """average <- average + 0.001 (weights - average)."""
    goals = gradients(arrays)

    def our_step(dtype: Any) -> Side:
        network = nn.ModuleList([holder(p) for p in our_parameters(arrays, dtype)])
        average = optim.EMA(network, 0.999, warmup=False)
        for module, goal in zip(network, goals, strict=True):
            next(module.parameters()).data = ourside.lying(goal.astype(dtype))

        first = next(iter(average.module.parameters()))

        def call(_: Any) -> Any:
            average.update()
            return first.data

        return Side("minigan", call, wake=ourside.wake)

    sides = [our_step(np.float32)]
    torch = torchside.torch()
    if torch:
        averages, targets = [torch.tensor(a) for a in arrays], [torch.tensor(a) for a in goals]

        def call(_: Any) -> Any:
            torch._foreach_lerp_(averages, targets, 1e-3)
            return averages[0]

        sides.append(Side("torch foreach", call, wake=torchside.wake))
    return Work(sides, lambda: our_step(np.float64).call(None), result_array)


def holder(parameter: Any) -> nn.Module:
    module = nn.Module()
    module.weight = parameter
    return module
