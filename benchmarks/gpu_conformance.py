"""Every kernel of a GPU against its twin on the CPU, in float64.

    python -m benchmarks.gpu_conformance --device cuda --small

A case is a call of one kernel; it runs on the device in float32 (convolutions and products in both
precision classes) and in float64, twice, and on the CPU in float64. Inputs are float32 numbers, so
what differs is the kernel's rounding alone. Told are the largest relative error (L2) over a case's
results and whether both runs gave the same bits. `--raw` gives every array memory of its own from
the driver, so that compute-sanitizer sees what is written beyond it.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Iterator
from functools import partial
from typing import Any

import numpy as np
from minigan_kernels import cpu
from minigan_kernels.cuda import FAMILIES
from minigan_kernels.reference import random as philox

from benchmarks.gpu_timing import relative

BOUNDS = {"float32": 2e-6, "float64": 1e-12, "tf32": 1e-3}
PRODUCTS = ("conv", "conv_transpose", "conv_weight_grad", "matmul")


class Twin:
    """The kernels of the CPU, and the random numbers of the reference."""

    def __getattr__(self, name: str) -> Any:
        return getattr(philox if name.startswith("philox") else cpu, name)


class Draw:
    """Inputs of a case: the same for every device; `n` images, `c` channels, `h` pixels."""

    def __init__(self, put: Callable[[Any], Any], dtype: str, small: bool) -> None:
        self.put, self.dtype, self.rng = put, np.dtype(dtype), np.random.default_rng(0)
        self.n, self.c, self.h = (2, 8, 6) if small else (8, 64, 32)

    def __call__(self, *shape: int) -> Any:
        """Standard normal numbers; maps (N,C,H,W) lie channels-last."""
        return self.give(self.rng.standard_normal(shape, np.float32))

    def positive(self, *shape: int) -> Any:
        return self.give(np.abs(self.rng.standard_normal(shape, np.float32)) + np.float32(0.1))

    def give(self, array: Any) -> Any:
        array = array.astype(self.dtype)
        if array.ndim == 4:
            array = np.moveaxis(np.ascontiguousarray(np.moveaxis(array, 1, -1)), -1, 1)
        return self.put(array)

    def index(self, high: int, *shape: int) -> Any:
        return self.put(self.rng.integers(0, high, shape))

    def maps(self, channels: int = 0, mean: float = 0.0) -> Any:
        shape = self.n, channels or self.c, self.h, self.h
        return self.give(self.rng.standard_normal(shape, np.float32) + np.float32(mean))

    def lists(self) -> tuple[list[Any], list[Any]]:
        """Parameters and gradients of several sizes."""
        shapes = (self.c, 4, 3, 3), (self.c,), (1000 + self.c, 7)
        return [self(*s) for s in shapes], [self(*s) for s in shapes]


def conv(
    k: Any, a: Draw, outputs: int, inputs: int, size: int, stride: int, groups: int = 1
) -> Any:
    x, pad = a.maps(inputs), (size - 1) // 2
    w = a(outputs, inputs // groups, size, size)
    return k.conv(x, w, (stride, stride), (pad, pad), (1, 1), groups)


def conv_transpose(k: Any, a: Draw, outputs: int) -> Any:
    x, w = a.maps(), a(a.c, outputs, 4, 4)
    return k.conv_transpose(x, w, (2, 2), (1, 1), (0, 0), (1, 1), 1)


def conv_weight_grad(k: Any, a: Draw, inputs: int, stride: int) -> Any:
    g = a(a.n, a.c, a.h // stride, a.h // stride)
    size, pad = (3, 1) if stride == 1 else (4, 1)
    return k.conv_weight_grad(
        a.maps(inputs), g, (size, size), (stride, stride), (pad, pad), (1, 1), 1
    )


def norm(k: Any, a: Draw, axes: tuple[int, ...], slope: float) -> Any:
    x = a.maps(mean=100.0)  # far from zero: where careless variances are lost
    return k.norm(x, a(1, a.c, 1, 1), a(1, a.c, 1, 1), axes, 1e-5, slope, 0.0)


def norm_backward(k: Any, a: Draw, axes: tuple[int, ...], slope: float) -> Any:
    g, x, scale, shift = a.maps(), a.maps(), a(1, a.c, 1, 1), a(1, a.c, 1, 1)
    _, mean, rstd = k.norm(x, scale, shift, axes, 1e-5, slope, 0.0)
    return k.norm_backward(g, x, scale, shift, mean, rstd, axes, slope, 0.0, (True, True, True))


def unary(k: Any, a: Draw, name: str, *options: float) -> Any:
    return getattr(k, name)(a.maps(), *options)


def binary(k: Any, a: Draw, name: str, *options: float) -> Any:
    return getattr(k, name)(a.maps(), a.maps(), *options)


def from_result(k: Any, a: Draw, name: str, *options: Any) -> Any:
    """A backward kernel that reads the forward's result."""
    return getattr(k, f"{name}_backward")(a.maps(), getattr(k, name)(a.maps(), *options), *options)


def bias_act(k: Any, a: Draw) -> Any:
    return k.bias_act(a.maps(), a(a.c), a(a.n, 1, a.h, a.h), a(a.c), "lrelu", 0.2, 1.4)


def bias_act_backward(k: Any, a: Draw) -> Any:
    y, noise, strength = a.maps(), a(a.n, 1, a.h, a.h), a(a.c)
    options = "lrelu", 0.2, 1.4
    return k.bias_act_backward(a.maps(), y, noise, strength, *options, (True,) * 4)


def in_place(k: Any, a: Draw, name: str, *shape: int) -> Any:
    y = a.maps()
    getattr(k, name)(y, a(*shape) if shape else a.maps())
    return y


def update(k: Any, a: Draw, name: str, memories: int, *options: Any) -> Any:
    """A step of an optimizer; its memory begins as positive numbers."""
    p, g = a.lists()
    kept = [[a.positive(*w.shape) for w in p] for _ in range(memories)]
    getattr(k, name)(p, g, *kept, *options)
    return [*p, *(m for memory in kept for m in memory)]


def attention(k: Any, a: Draw, causal: bool, backward: bool) -> Any:
    length = 2 * a.h + 3
    q, key, v, g = (a(a.n, 2, length, 16) for _ in range(4))
    if not backward:
        return k.scaled_dot_product_attention(q, key, v, None, causal, 0.25)
    needs = True, True, True, False
    return k.scaled_dot_product_attention_backward(g, q, key, v, None, causal, 0.25, needs)


def taps(length: int) -> tuple[Any, Any]:
    """Bilinear doubling of an axis, as tables."""
    place = (
        np.arange(2 * length)[:, None] // 2 + np.array([[0, 1], [-1, 0]])[np.arange(2 * length) % 2]
    )
    index = np.where((place >= 0) & (place < length), place, -1)
    return index.astype(np.int64), np.full(index.shape, 0.5)


def grid_sample(k: Any, a: Draw, backward: bool) -> Any:
    x, grid = a.maps(), a(a.n, a.h, a.h, 2)
    grid *= 0.6
    options = "bilinear", "zeros", False
    return (
        k.grid_sample_backward(a.maps(), x, grid, *options)
        if backward
        else k.grid_sample(x, grid, *options)
    )


def cross_entropy(k: Any, a: Draw, backward: bool) -> Any:
    target = a.index(a.c, a.n, a.h, a.h)
    logits = a.maps()
    if not backward:
        return k.cross_entropy(logits, target, -100, 0.1)
    return k.cross_entropy_backward(a(a.n, a.h, a.h), logits, target, -100, 0.1)


_ADAM = (7, 7, 7), 1e-2, 0.9, 0.99, 1e-8
CASES: dict[str, Callable[[Any, Draw], Any]] = {
    "conv: 3x3": lambda k, a: conv(k, a, a.c, a.c, 3, 1),
    "conv: stride 2": lambda k, a: conv(k, a, 2 * a.c, a.c, 4, 2),
    "conv: first layer": lambda k, a: conv(k, a, a.c, 3, 3, 1),
    "conv: last layer": lambda k, a: conv(k, a, 3, a.c, 3, 1),
    "conv: groups": lambda k, a: conv(k, a, a.c, a.c, 3, 1, 4),
    "conv_transpose": lambda k, a: conv_transpose(k, a, a.c),
    "conv_transpose: last layer": lambda k, a: conv_transpose(k, a, 3),
    "conv_weight_grad": lambda k, a: conv_weight_grad(k, a, a.c, 1),
    "conv_weight_grad: first layer": lambda k, a: conv_weight_grad(k, a, 3, 2),
    "norm: batch": lambda k, a: norm(k, a, (0, 2, 3), 0.2),
    "norm: instance": lambda k, a: norm(k, a, (2, 3), 1.0),
    "norm_backward: batch": lambda k, a: norm_backward(k, a, (0, 2, 3), 0.2),
    "norm_backward: instance": lambda k, a: norm_backward(k, a, (2, 3), 1.0),
    "add_bias": lambda k, a: in_place(k, a, "add_bias", a.c),
    "channel_sum": partial(unary, name="channel_sum"),
    "bias_act": bias_act,
    "bias_act_backward": bias_act_backward,
    "leaky_relu": lambda k, a: unary(k, a, "leaky_relu", 0.2),
    "leaky_relu_backward": lambda k, a: binary(k, a, "leaky_relu_backward", 0.2),
    "elu": lambda k, a: unary(k, a, "elu", 1.3),
    "elu_backward": lambda k, a: binary(k, a, "elu_backward", 1.3),
    **{name: partial(unary, name=name) for name in (
        "exp", "gelu", "normal_cdf", "sigmoid", "silu", "softplus", "tanh")},
    **{f"{name}_backward": partial(binary, name=f"{name}_backward") for name in (
        "gelu", "sigmoid", "silu", "softplus", "tanh")},
    "matmul": lambda k, a: k.matmul(a(3, 4 * a.h, 2 * a.c), a(3, 2 * a.c, 2 * a.h)),
    "matmul: few rows": lambda k, a: k.matmul(a(a.n, 4 * a.c), a(4 * a.c, a.c)),
    "add": lambda k, a: binary(k, a, "add", 0.7),
    "add_to": lambda k, a: in_place(k, a, "add_to"),
    "multiply": partial(binary, name="multiply"),
    "affine": lambda k, a: unary(k, a, "affine", 1.7, -0.3),
    "axis_sum": lambda k, a: [k.axis_sum(a.maps(), axes) for axes in ((0, 2, 3), (1,), (3,))],
    "loss_sum": lambda k, a: [
        k.loss_sum(a.maps(), target, kind, 1.0)
        for kind, target in (("mse", a.maps()), ("l1", 0.0), ("bce", 1.0), ("hinge", None))
    ],
    "loss_gradient": lambda k, a: [
        k.loss_gradient(a.maps(), target, kind, -1.0, 0.5)
        for kind, target in (("mse", a.maps()), ("bce", 0.0), ("softplus", None))
    ],
    "softmax": lambda k, a: [k.softmax(a.maps(), dim) for dim in (1, 3)],
    "softmax_backward": lambda k, a: from_result(k, a, "softmax", 1),
    "log_softmax": lambda k, a: [k.log_softmax(a.maps(), dim) for dim in (1, 3)],
    "log_softmax_backward": lambda k, a: from_result(k, a, "log_softmax", 1),
    "cross_entropy": partial(cross_entropy, backward=False),
    "cross_entropy_backward": partial(cross_entropy, backward=True),
    "pixel_norm": lambda k, a: unary(k, a, "pixel_norm", 1e-8),
    "pixel_norm_backward": lambda k, a: binary(k, a, "pixel_norm_backward", 1e-8),
    "scaled_dot_product_attention": partial(attention, causal=False, backward=False),
    "scaled_dot_product_attention_backward": partial(attention, causal=True, backward=True),
    "axis_map": lambda k, a: k.axis_map(a.maps(), 2, *taps(a.h)),
    "plane_map": lambda k, a: k.plane_map(a.maps(), *taps(a.h), *taps(a.h)),
    "concat": lambda k, a: k.concat([a.maps(), a.maps(3), a.maps(1)], 1),
    "upfirdn2d": lambda k, a: k.upfirdn2d(
        a.maps(), np.outer([1.0, 3, 3, 1], [1.0, 3, 3, 1]) / 16, (2, 2), (1, 1), ((2, 1), (2, 1))
    ),
    "grid_sample": partial(grid_sample, backward=False),
    "grid_sample_backward": partial(grid_sample, backward=True),
    "max_pool": lambda k, a: k.max_pool(a.maps(), (3, 3), (2, 2), (1, 1), (1, 1)),
    "take_rows": lambda k, a: k.take_rows(a(50, a.c), a.index(50, a.n, a.h)),
    "scatter_rows": lambda k, a: k.scatter_rows(a(a.n, a.h, a.c), a.index(50, a.n, a.h), 50),
    "gather_positions": lambda k, a: k.gather_positions(
        a.maps(), a.index(a.h * a.h, a.n, a.c, a.h)
    ),
    "scatter_positions": lambda k, a: k.scatter_positions(
        a(a.n, a.c, a.h), a.index(a.h * a.h, a.n, a.c, a.h), (a.h, a.h)
    ),
    "adam_step": lambda k, a: update(k, a, "adam_step", 3, *_ADAM, 0.1, True),
    "sgd_step": lambda k, a: update(k, a, "sgd_step", 1, (3, 3, 3), 0.1, 0.9, 0.0, True, 0.1),
    "adamax_step": lambda k, a: update(k, a, "adamax_step", 2, *_ADAM, 0.1),
    "rmsprop_step": lambda k, a: update(k, a, "rmsprop_step", 3, 0.1, 0.99, 1e-8, 0.9, 0.1),
    "adagrad_step": lambda k, a: update(k, a, "adagrad_step", 1, (3, 3, 3), 0.1, 0.1, 1e-8, 0.1),
    "adadelta_step": lambda k, a: update(k, a, "adadelta_step", 2, 0.5, 0.9, 1e-6, 0.1),
    "lerp_step": lambda k, a: update(k, a, "lerp_step", 0, 0.01),
    "square_sum": lambda k, a: k.square_sum(a.lists()[0]),
    "philox_uniform": lambda k, a: k.philox_uniform((5, 7), (a.n, a.c, 37), a.dtype),
    "philox_normal": lambda k, a: k.philox_normal((5, 7), (a.n, a.c, 37), a.dtype),
}  # fmt: skip


def flat(result: Any) -> Iterator[Any]:
    """All arrays of a result as NumPy arrays."""
    if isinstance(result, list | tuple):
        for part in result:
            yield from flat(part)
    elif result is not None:
        yield result.get() if hasattr(result, "get") else np.asarray(result)


def entry(backend: Any, name: str, small: bool) -> dict[str, Any]:
    """Errors of one case, and what is wrong with it."""
    import minigan as mg

    case, kernel = CASES[name], name.partition(":")[0]
    found: dict[str, Any] = {"error": {}, "faults": []}
    exact = list(flat(case(Twin(), Draw(np.array, "float64", small))))
    for how in ("float32", "tf32", "float64") if kernel in PRODUCTS else ("float32", "float64"):
        dtype = "float32" if how == "tf32" else how
        if kernel.startswith("philox"):  # other numbers in another dtype
            exact = list(flat(case(Twin(), Draw(np.array, dtype, small))))
        with mg.precision("tf32" if how == "tf32" else "fp32"):
            first, again = (
                list(flat(case(backend.kernels, Draw(backend.upload, dtype, small))))
                for _ in range(2)
            )
        wrong = max(relative(a.astype(np.float64), b) for a, b in zip(first, exact, strict=True))
        found["error"][how] = wrong
        if not wrong <= BOUNDS[how]:
            found["faults"].append(f"{how}: error {wrong:.1e} > {BOUNDS[how]:.0e}")
        if any(a.tobytes() != b.tobytes() for a, b in zip(first, again, strict=True)):
            found["faults"].append(f"{how}: two runs differ")
    return found


def line(found: dict[str, Any]) -> str:
    errors = ", ".join(f"{how} {error:.1e}" for how, error in found["error"].items())
    return "  ".join([errors, *(f"WRONG {fault}" for fault in found["faults"])])


def missing() -> set[str]:
    """Kernels without a case."""
    return set(FAMILIES) - {name.partition(":")[0] for name in CASES}


def measure(bench: Any) -> None:
    """All cases into the results."""
    for name in CASES:
        bench.add("conformance", name, partial(entry, bench.backend, name, bench.small))


def main() -> int:
    from minigan.backend import find

    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--device", default="cuda")
    parser.add_argument("--small", action="store_true", help="small arrays")
    parser.add_argument("--raw", action="store_true", help="memory from the driver, no pool")
    options = parser.parse_args()
    backend = find(options.device)
    if options.raw:
        backend.xp.cuda.set_allocator(None)
    faults = 0
    for name in CASES:
        found = entry(backend, name, options.small)
        faults += len(found["faults"])
        print(f"{name:40s} {line(found)}", flush=True)
    return int(faults > 0)


if __name__ == "__main__":
    sys.exit(main())
