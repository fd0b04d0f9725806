"""Convolution layers of GANs on a GPU beside cuDNN, in both precision classes.

The layers are those of DCGAN at batch 128, of ResNet-sized 3x3 blocks at batch 16, of SPADE at 4
and of CycleGAN at 1. "tf32" compares with PyTorch's default for convolutions (TF32 allowed), in
NCHW as it is and in channels_last with `cudnn.benchmark`; "fp32" with TF32 switched off. Errors are
relative (L2), of the first image or of the first channels of a weight gradient, against our float64
kernels (which `gpu_conformance.py` compares with the CPU's).
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks import torchside
from benchmarks.gpu_conformance import BOUNDS
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

DIRECTIONS = ("forward", "input", "weight")


class Layer(NamedTuple):
    """One convolution: N,C,H,W -> N,O,H',W'."""

    name: str
    transposed: bool
    n: int
    c: int
    h: int
    w: int
    o: int
    k: int
    s: int
    p: int

    @property
    def out(self) -> tuple[int, int]:
        if self.transposed:
            return tuple((m - 1) * self.s - 2 * self.p + self.k for m in (self.h, self.w))  # type: ignore[return-value]
        return tuple((m + 2 * self.p - self.k) // self.s + 1 for m in (self.h, self.w))  # type: ignore[return-value]

    @property
    def shapes(self) -> tuple[tuple[int, ...], ...]:
        """Of x, w and g."""
        first, second = (self.c, self.o) if self.transposed else (self.o, self.c)
        g = (self.n, self.o, *self.out)
        return (self.n, self.c, self.h, self.w), (first, second, self.k, self.k), g

    @property
    def flops(self) -> float:
        pixels = self.h * self.w if self.transposed else self.out[0] * self.out[1]
        return 2.0 * self.n * self.c * self.o * self.k**2 * pixels

    @property
    def nbytes(self) -> float:
        return 4.0 * sum(float(np.prod(shape)) for shape in self.shapes)


def layers(small: bool = False) -> Iterator[Layer]:
    """The list; `small` has the same kinds with little work, for the emulator."""
    if small:
        yield Layer("small.up", True, 2, 8, 4, 4, 4, 4, 2, 1)
        yield Layer("small.first", False, 1, 3, 8, 8, 8, 4, 2, 1)
        yield Layer("small.3x3", False, 1, 8, 6, 6, 8, 3, 1, 1)
        return
    for i, size in enumerate((4, 8, 16)):
        yield Layer(f"dcgan.g{i + 2}", True, 128, 1024 >> i, size, size, 512 >> i, 4, 2, 1)
    yield Layer("dcgan.g5", True, 128, 128, 32, 32, 3, 4, 2, 1)
    yield Layer("dcgan.d1", False, 128, 3, 64, 64, 128, 4, 2, 1)
    yield Layer("dcgan.d4", False, 128, 512, 8, 8, 1024, 4, 2, 1)
    for maps, size in ((512, 32), (512, 64), (256, 128), (128, 256)):
        yield Layer(f"3x3.{maps}@{size}", False, 16, maps, size, size, maps, 3, 1, 1)
    yield Layer("1x1.128>3", False, 16, 128, 256, 256, 3, 1, 1, 0)
    yield Layer("1x1.3>128", False, 16, 3, 256, 256, 128, 1, 1, 0)
    yield Layer("spade.1024", False, 4, 1024, 16, 32, 1024, 3, 1, 1)
    yield Layer("spade.512", False, 4, 512, 64, 128, 512, 3, 1, 1)
    yield Layer("spade.64", False, 4, 64, 256, 512, 64, 3, 1, 1)
    yield Layer("spade.gamma-beta", False, 4, 128, 64, 128, 1024, 3, 1, 1)
    yield Layer("cyc.res", False, 1, 256, 64, 64, 256, 3, 1, 1)
    yield Layer("cyc.c7", False, 1, 3, 262, 262, 64, 7, 1, 0)
    yield Layer("cyc.o7", False, 1, 64, 262, 262, 3, 7, 1, 0)


def ours(kernels: Any, layer: Layer, direction: str) -> Callable[..., Any]:
    """The kernel call of a direction, as a function of x, w and g."""
    s, p, d, k = ((n, n) for n in (layer.s, layer.p, 1, layer.k))
    if layer.transposed:
        return {
            "forward": lambda x, w, g: kernels.conv_transpose(x, w, s, p, (0, 0), d, 1),
            "input": lambda x, w, g: kernels.conv(g, w, s, p, d, 1),
            "weight": lambda x, w, g: kernels.conv_weight_grad(g, x, k, s, p, d, 1),
        }[direction]
    left = tuple(
        m - ((q - 1) * layer.s - 2 * layer.p + layer.k)
        for m, q in zip((layer.h, layer.w), layer.out, strict=True)
    )
    return {
        "forward": lambda x, w, g: kernels.conv(x, w, s, p, d, 1),
        "input": lambda x, w, g: kernels.conv_transpose(g, w, s, p, left, d, 1),
        "weight": lambda x, w, g: kernels.conv_weight_grad(x, g, k, s, p, d, 1),
    }[direction]


def theirs(torch: Any, layer: Layer, direction: str, x: Any, w: Any, g: Any) -> Any:
    """PyTorch's result of a direction."""
    if direction == "forward":
        conv = torch.nn.functional.conv_transpose2d if layer.transposed else torch.conv2d
        return conv(x, w, None, layer.s, layer.p)
    mask = [direction == "input", direction == "weight", False]
    s, p = [layer.s] * 2, [layer.p] * 2
    options = s, p, [1, 1], layer.transposed, [0, 0], 1, mask
    found = torch.ops.aten.convolution_backward(g, x, w, None, *options)
    return found[1 if direction == "weight" else 0]


def entry(bench: Any, layer: Layer, direction: str, precision: str) -> dict[str, Any]:
    """One line of the results: times, ratios, errors, floor."""
    import minigan as mg

    kernels, torch = bench.backend.kernels, torchside.torch()
    sets = sets_for(layer.nbytes) if bench.on_gpu else 2
    given = [inputs(kernels, layer, i) for i in range(sets)]
    compute = ours(kernels, layer, direction)
    sides = [Contender("minigan", lambda i: compute(*given[i]))]
    for name, layout in torchside.layouts().items():
        tensors = [tuple(shared(torch, a, layout) for a in arrays) for arrays in given]
        torch.backends.cudnn.allow_tf32 = precision == "tf32"
        sides.append(Contender(f"torch {name}", their_call(torch, layer, direction, name, tensors)))
    exact = exact_part(kernels, layer, direction, given[0])
    with mg.precision(precision):
        wrong = {s.name: relative(part(s.call(0), direction), exact) for s in sides}
        found = compared(race(Clock(bench.backend.xp), sides, sets))
    floor = 1e3 * bench.limits.floor(layer.flops, layer.nbytes, precision)
    found |= {"family": f"{direction} {precision}", "error": wrong, "floor_ms": floor}
    bound = BOUNDS["tf32" if precision == "tf32" else "float32"]
    found["faults"] = [f"error > {bound:.0e}"] if not wrong["minigan"] <= bound else []
    return found


def inputs(kernels: Any, layer: Layer, key: int) -> tuple[Any, ...]:
    """x, w and g on the device; results are about as large as x."""
    x, w, g = (normal(kernels, 3 * key + i, shape) for i, shape in enumerate(layer.shapes))
    return x, kernels.affine(w, (layer.c * layer.k**2) ** -0.5, 0.0), g


def their_call(
    torch: Any, layer: Layer, direction: str, layout: str, given: Any
) -> Callable[[int], Any]:
    """PyTorch as it is in NCHW, and with cuDNN's search for the best algorithm in channels_last."""

    def call(i: int) -> Any:
        torch.backends.cudnn.benchmark = layout == "channels_last"
        return theirs(torch, layer, direction, *given[i])

    return call


def exact_part(kernels: Any, layer: Layer, direction: str, given: Any) -> Any:
    """The first image of a result, or eight channels of a weight gradient, in float64."""
    x, w, g = given
    if direction != "weight":
        x, g, layer = x[:1], g[:1], layer._replace(n=1)
    elif layer.transposed:
        x, w, layer = x[:, :8], w[:8], layer._replace(c=min(8, layer.c))
    else:
        w, g, layer = w[:8], g[:, :8], layer._replace(o=min(8, layer.o))
    wide = (a.astype(np.float64) for a in (x, w, g))
    return numbers(ours(kernels, layer, direction)(*wide))


def part(result: Any, direction: str) -> Any:
    """The same part of a result, as a NumPy array."""
    return numbers(result[:8] if direction == "weight" else result[:1])


def measure(bench: Any) -> None:
    """All layers; `--quick` measures forward in TF32 only."""
    for precision in ("tf32", "fp32"):
        for direction in DIRECTIONS:
            if bench.quick and (precision, direction) != ("tf32", "forward"):
                continue
            for layer in layers(small=not bench.on_gpu):
                how = bench, layer, direction, precision
                bench.add("layers", f"{layer.name} {direction} {precision}", partial(entry, *how))
