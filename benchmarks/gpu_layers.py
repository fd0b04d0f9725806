"""Convolution layers of GANs on a GPU beside cuDNN, in both precision classes.

The layers are those of DCGAN at batch 128, of ResNet-sized 3x3 blocks at batch 16, of SPADE at 4
and of CycleGAN at 1. "tf32" compares with PyTorch's default for convolutions (TF32 allowed), in
NCHW and in channels_last with `cudnn.benchmark`; "fp32" with TF32 switched off. Errors are relative
(L2), of the first image or of the first channels of a weight gradient, against float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from typing import Any, NamedTuple

import numpy as np

from benchmarks import ourside, torchside
from benchmarks.gpu_timing import Clock, Contender, race, sets_for
from benchmarks.timing import versus

DIRECTIONS = ("forward", "input", "weight")
TENSOR, EXACT = 400e12, 133e12  # FLOP/s that TF32 and 3xTF32 may reach on an H200
MEMORY = 4.3e12  # bytes/s


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


def entry(
    backend: Any, torch: Any, where: str, layer: Layer, direction: str, precision: str
) -> dict[str, Any]:
    """One line of the results: times, ratio, errors, floor."""
    import minigan as mg

    rng = np.random.default_rng(0)
    sets = sets_for(layer.nbytes)
    host = [rng.standard_normal(shape, np.float32) for shape in layer.shapes]
    host[1] *= np.float32((layer.c * layer.k**2) ** -0.5)
    given = [tuple(map(backend.upload, map(ourside.lying, host))) for _ in range(sets)]
    compute = ours(backend.kernels, layer, direction)
    sides = [Contender("minigan", lambda i: compute(*given[i]))]
    torch.backends.cudnn.allow_tf32 = precision == "tf32"
    torch.backends.cudnn.benchmark = True
    tensors = {}
    for name, layout in torchside.layouts().items():
        tensors[name] = [
            tuple(torch.tensor(a, device=where).to(memory_format=layout) for a in host)
            for _ in range(sets)
        ]
        sides.append(Contender(f"torch {name}", _bound(torch, layer, direction, tensors[name])))
    exact = _exact(torch, layer, direction, tensors["channels_last"][0])
    with mg.precision(precision):
        wrong = {s.name: _error(_numbers(s.call(0), direction), exact) for s in sides}
        found = versus(race(Clock(backend.xp), sides, sets))
    peak = TENSOR if precision == "tf32" else EXACT
    floor = 1e3 * max(layer.flops / peak, layer.nbytes / MEMORY)
    found |= {"precision": precision, "direction": direction, "error": wrong, "floor_ms": floor}
    found["ratios"] = {
        name: ms["median"] / found["ms"]["minigan"]["median"]
        for name, ms in found["ms"].items()
        if name != "minigan"
    }
    return found


def _bound(torch: Any, layer: Layer, direction: str, given: Any) -> Callable[[int], Any]:
    return lambda i: theirs(torch, layer, direction, *given[i])


def _exact(torch: Any, layer: Layer, direction: str, given: Any) -> Any:
    """The first image of a result, or eight channels of a weight gradient, in float64."""
    x, w, g = (t.double() for t in given)
    if direction != "weight":
        return theirs(torch, layer, direction, x[:1], w, g[:1]).cpu().numpy()
    if layer.transposed:
        part = layer._replace(c=min(8, layer.c))
        return theirs(torch, part, direction, x[:, :8], w[:8], g).cpu().numpy()
    part = layer._replace(o=min(8, layer.o))
    return theirs(torch, part, direction, x, w[:8], g[:, :8]).cpu().numpy()


def _numbers(result: Any, direction: str) -> Any:
    """The same part of a result, as a NumPy array."""
    part = result[:8] if direction == "weight" else result[:1]
    return part.get() if hasattr(part, "get") else part.cpu().numpy()


def _error(found: Any, exact: Any) -> float:
    return float(np.linalg.norm(found.astype(np.float64) - exact) / np.linalg.norm(exact))
