"""Convolution layers of GANs: forward, input gradient, weight gradient, each beside PyTorch.

Ours are the kernels `minigan_kernels.cpu.conv`, `conv_transpose` and `conv_weight_grad` on
channels-last arrays, as they follow each other inside a run; the weight lies as `minigan.nn` keeps
it, and what a kernel makes of it (packing, Winograd's transform) is made in every call. PyTorch's
are `conv2d`, `conv_transpose2d` and `aten::convolution_backward` in NCHW and in channels_last; the
faster one counts.

Names: family, layer, and the batch. The families:

    mnist   DCGAN for 28-pixel digits, width 64. g1: z (100) -> 256 maps of 7x7; g2: -> 128 of
            14x14; g3a: -> the image; g3b: -> 64 of 28x28, as wider networks have it. d1, d2: the
            mirror image. Batch 64 and 128.
    dc64    DCGAN of the paper, 64 pixels, 1024 maps at 4x4: g1 .. g5 and d1 .. d5. Batch 16, 64.
    cyc     CycleGAN at 128 pixels: c7 image -> 64 maps by 7x7, d1 and d2 halve, res32 a residual
            block (res64: the same at 256 pixels), u1 and u2 double, o7 back to the image. The
            reflected border is part of the input: 134 = 128 + 6. Batch 1 and 4.
    spade   3x3 convolutions of SPADE's blocks at 64, 32, 16 and 8 pixels; s1 is the first layer
            of its modulation at 64 pixels. Batch 1 and 4.
    sty     3x3 convolutions of StyleGAN: 512 maps at 8, 16 and 32 pixels. Batch 1 and 4.
    p1      1x1 convolutions: 512 maps at 16 pixels, 128 -> 256 at 64, and to RGB. Batch 1 and 4.

"algorithm" names the families of kernels that ran (modules of minigan_kernels.cpu, as far as their
first underscore); "plain" is NumPy and BLAS.
g1's input gradient is left out: its input is noise. The error is that of the first image, and of
the first eight channels of a weight gradient, against the same kernels in float64.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from functools import lru_cache, partial
from typing import Any, NamedTuple

import numpy as np

from benchmarks import ourside, torchside
from benchmarks.cases import Case, Work, measure_section
from benchmarks.results import Results
from benchmarks.timing import Side

DIRECTIONS = ("forward", "input", "weight")
SAMPLE = 8  # channels of a weight gradient that are compared with float64


class Layer(NamedTuple):
    """One convolution: N,C,H,H -> N,O,H',H'."""

    name: str
    transposed: bool
    batch: int
    inputs: int
    size: int
    outputs: int
    kernel: int
    stride: int
    padding: int
    extra: int = 0  # output_padding of a transposed convolution

    @property
    def family(self) -> str:
        return self.name.split(".")[0]

    @property
    def out(self) -> int:
        if self.transposed:
            return (self.size - 1) * self.stride - 2 * self.padding + self.kernel + self.extra
        return (self.size + 2 * self.padding - self.kernel) // self.stride + 1

    @property
    def shapes(self) -> dict[str, tuple[int, ...]]:
        """Of the input x, the weight w and the output (and its gradient) g."""
        k = (self.kernel, self.kernel)
        first, second = self.outputs, self.inputs
        if self.transposed:
            first, second = second, first
        return {
            "x": (self.batch, self.inputs, self.size, self.size),
            "w": (first, second, *k),
            "g": (self.batch, self.outputs, self.out, self.out),
        }

    @property
    def flops(self) -> float:
        """A multiply and an add per tap, also for taps that lie in the padding."""
        pixels = self.size if self.transposed else self.out
        return 2.0 * self.batch * self.inputs * self.outputs * (self.kernel * pixels) ** 2

    @property
    def nbytes(self) -> float:
        """Each of the three arrays once."""
        return 4.0 * sum(float(np.prod(shape)) for shape in self.shapes.values())


def layers() -> Iterator[Layer]:
    """All of them; the docstring of this module says where they come from."""
    conv, up = False, True
    for n in (64, 128):
        yield Layer(f"mnist.g1 N{n}", up, n, 100, 1, 256, 7, 1, 0)
        yield Layer(f"mnist.g2 N{n}", up, n, 256, 7, 128, 4, 2, 1)
        yield Layer(f"mnist.g3a N{n}", up, n, 128, 14, 1, 4, 2, 1)
        yield Layer(f"mnist.g3b N{n}", up, n, 128, 14, 64, 4, 2, 1)
        yield Layer(f"mnist.d1 N{n}", conv, n, 1, 28, 64, 4, 2, 1)
        yield Layer(f"mnist.d2 N{n}", conv, n, 64, 14, 128, 4, 2, 1)
    for n in (16, 64):
        yield Layer(f"dc64.g1 N{n}", up, n, 100, 1, 1024, 4, 1, 0)
        for i in range(3):
            yield Layer(f"dc64.g{i + 2} N{n}", up, n, 1024 >> i, 4 << i, 512 >> i, 4, 2, 1)
        yield Layer(f"dc64.g5 N{n}", up, n, 128, 32, 3, 4, 2, 1)
        yield Layer(f"dc64.d1 N{n}", conv, n, 3, 64, 128, 4, 2, 1)
        for i in range(3):
            yield Layer(f"dc64.d{i + 2} N{n}", conv, n, 128 << i, 32 >> i, 256 << i, 4, 2, 1)
        yield Layer(f"dc64.d5 N{n}", conv, n, 1024, 4, 1, 4, 1, 0)
    for n in (1, 4):
        yield Layer(f"cyc.c7 N{n}", conv, n, 3, 134, 64, 7, 1, 0)
        yield Layer(f"cyc.d1 N{n}", conv, n, 64, 128, 128, 3, 2, 1)
        yield Layer(f"cyc.d2 N{n}", conv, n, 128, 64, 256, 3, 2, 1)
        yield Layer(f"cyc.res32 N{n}", conv, n, 256, 34, 256, 3, 1, 0)
        yield Layer(f"cyc.res64 N{n}", conv, n, 256, 66, 256, 3, 1, 0)
        yield Layer(f"cyc.u1 N{n}", up, n, 256, 32, 128, 3, 2, 1, 1)
        yield Layer(f"cyc.u2 N{n}", up, n, 128, 64, 64, 3, 2, 1, 1)
        yield Layer(f"cyc.o7 N{n}", conv, n, 64, 134, 3, 7, 1, 0)
        yield Layer(f"spade.s1 N{n}", conv, n, 64, 64, 128, 3, 1, 1)
        for width, size in ((128, 64), (256, 32), (512, 16), (1024, 8)):
            yield Layer(f"spade.{size} N{n}", conv, n, width, size, width, 3, 1, 1)
        for size in (8, 16, 32):
            yield Layer(f"sty.{size} N{n}", conv, n, 512, size, 512, 3, 1, 1)
        yield Layer(f"p1.512 N{n}", conv, n, 512, 16, 512, 1, 1, 0)
        yield Layer(f"p1.128 N{n}", conv, n, 128, 64, 256, 1, 1, 0)
        yield Layer(f"p1.rgb N{n}", conv, n, 128, 64, 3, 1, 1, 0)


def cases() -> list[Case]:
    """Every layer in every direction that training needs."""
    found = []
    for layer in layers():
        for direction in DIRECTIONS:
            if direction == "input" and layer.size == 1:
                continue
            found.append(
                Case(
                    f"{layer.name} {direction}",
                    layer.family,
                    partial(work, layer, direction),
                    layer.flops,
                    layer.nbytes,
                    {"direction": direction},
                )
            )
    return found


@lru_cache(maxsize=1)  # the directions of a layer follow each other
def arrays(layer: Layer) -> dict[str, Any]:
    """x, w and g with plausible sizes, channels last in memory. They are read only."""
    rng = np.random.default_rng(0)
    drawn = {
        name: ourside.channels_last(rng.standard_normal(shape, np.float32))
        for name, shape in layer.shapes.items()
    }
    drawn["w"] *= np.float32((layer.inputs * layer.kernel**2) ** -0.5)
    return drawn


def work(layer: Layer, direction: str) -> Work:
    """The sides of one direction of one layer, and what it should give."""
    given = arrays(layer)
    compute = ours(layer, direction)
    with ourside.kernels_seen() as seen:
        compute(**given)
    sides = [Side("minigan", lambda _: compute(**given), wake=ourside.wake)]
    for name, layout in torchside.layouts().items():
        call = theirs(layer, direction, given, layout)
        sides.append(Side(f"torch {name}", call, wake=torchside.wake))
    return Work(
        sides,
        exact=lambda: exact(layer, direction, given),
        taken=taken(direction),
        extra={"algorithm": " + ".join(seen) or "plain"},
    )


def ours(layer: Layer, direction: str) -> Callable[..., Any]:
    """The kernel call of a direction, as a function of x, w and g."""
    from minigan_kernels import cpu

    s, p, d, extra = ((n, n) for n in (layer.stride, layer.padding, 1, layer.extra))
    k = (layer.kernel, layer.kernel)
    if layer.transposed:
        return {
            "forward": lambda x, w, g: cpu.conv_transpose(x, w, s, p, extra, d, 1),
            "input": lambda x, w, g: cpu.conv(g, w, s, p, d, 1),
            "weight": lambda x, w, g: cpu.conv_weight_grad(g, x, k, s, p, d, 1),
        }[direction]
    left = layer.size - ((layer.out - 1) * layer.stride - 2 * layer.padding + layer.kernel)
    return {
        "forward": lambda x, w, g: cpu.conv(x, w, s, p, d, 1),
        "input": lambda x, w, g: cpu.conv_transpose(g, w, s, p, (left, left), d, 1),
        "weight": lambda x, w, g: cpu.conv_weight_grad(x, g, k, s, p, d, 1),
    }[direction]


def theirs(
    layer: Layer, direction: str, given: dict[str, Any], layout: Any
) -> Callable[[Any], Any]:
    """PyTorch's call of a direction."""
    torch = torchside.torch()
    x, w, g = (torchside.tensor(given[name], layout) for name in "xwg")
    s, p, extra = layer.stride, layer.padding, layer.extra
    if direction == "forward" and layer.transposed:
        return lambda _: torch.nn.functional.conv_transpose2d(x, w, None, s, p, extra)
    if direction == "forward":
        return lambda _: torch.nn.functional.conv2d(x, w, None, s, p)
    mask = [direction == "input", direction == "weight", False]
    options = [s, s], [p, p], [1, 1], layer.transposed, [extra, extra], 1, mask
    backward = torch.ops.aten.convolution_backward
    return lambda _: backward(g, x, w, None, *options)[mask.index(True)]


def taken(direction: str) -> Callable[[Any], Any]:
    """The part of a result that is compared with float64."""
    if direction == "weight":
        return lambda dw: np.asarray(dw[:SAMPLE])
    return lambda y: np.asarray(y[:1])


def exact(layer: Layer, direction: str, given: dict[str, Any]) -> Any:
    """That part, in float64."""
    x, w, g = (given[name] for name in "xwg")
    if direction == "weight" and layer.transposed:
        x = x[:, :SAMPLE]
    elif direction == "weight":
        g = g[:, :SAMPLE]
    else:
        x, g = x[:1], g[:1]
    return ours(layer, direction)(*(a.astype(np.float64) for a in (x, w, g)))


def names() -> list[str]:
    """Of all cases."""
    return [case.name for case in cases()]


def measure(options: Any, results: Results, seconds: float, say: Callable[[str], None]) -> None:
    """Measure the chosen cases into `results`."""
    measure_section("layers", cases(), options, results, seconds, say)
