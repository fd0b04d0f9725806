"""The CPU's convolutions against their definitions: every setting, layout and way of blocking."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from importlib import import_module
from typing import Any

import numpy as np
import pytest
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from minigan_kernels import cpu, reference
from minigan_kernels.reference.conv import conv_length, conv_transpose_length
from opspec import LAYOUTS, Array, close, inner, laid_out, magnitude
from strategies import Draw, values

EXACT = 1e-12
examples = settings(max_examples=150)


@st.composite
def setups(draw: Draw, transposed: bool = False) -> dict[str, Any]:
    """Arrays and options with all their interplays: strides and dilations with common factors,
    steps longer than the kernel, padding wider than the input, single pixels, empty batches."""
    nd = draw(st.sampled_from([1, 1, 2, 2, 3]))
    top = {1: 6, 2: 4, 3: 3}[nd]

    def per_axis(low: int, high: int) -> tuple[int, ...]:
        return tuple(draw(st.integers(low, high)) for _ in range(nd))

    groups = draw(st.sampled_from([1, 1, 1, 2, 3]))
    inputs, outputs = draw(st.integers(1, 3)), draw(st.integers(1, 3))
    spatial, kernel = per_axis(1, top + 1), per_axis(1, min(top, 4))
    stride, dilation, padding = per_axis(1, top), per_axis(1, top), per_axis(0, 4)
    extra = tuple(
        draw(st.integers(0, max(a, b) - 1)) for a, b in zip(stride, dilation, strict=True)
    )
    rng = np.random.default_rng(draw(st.integers(0, 2**32 - 1)))
    x = values(rng, (draw(st.sampled_from([0, 1, 2, 3])), groups * inputs, *spatial))
    options: dict[str, Any] = {
        "stride": stride,
        "padding": padding,
        "dilation": dilation,
        "groups": groups,
    }
    if transposed:
        lengths = map(conv_transpose_length, spatial, kernel, stride, padding, extra, dilation)
        options["output_padding"] = extra
        weight = values(rng, (groups * inputs, outputs, *kernel))
    else:
        lengths = map(conv_length, spatial, kernel, stride, padding, dilation)
        weight = values(rng, (groups * outputs, inputs, *kernel))
    out = tuple(lengths)
    assume(min(out) >= 1)
    g = values(rng, (x.shape[0], groups * outputs, *out))
    return {"x": x, "weight": weight, "g": g, "options": options}


@contextmanager
def tuned(**constants: int) -> Iterator[None]:
    """Other thresholds in cpu/: tiny panels cut every axis into blocks."""
    with pytest.MonkeyPatch.context() as patch:
        for name, value in constants.items():
            module = "panels" if name == "PANEL_BYTES" else "conv_plain"
            patch.setattr(import_module(f"minigan_kernels.cpu.{module}"), name, value)
        yield


tunings = st.fixed_dictionaries(
    {
        "PANEL_BYTES": st.sampled_from([1, 100, 2000, 1 << 20]),
        "STRIP_BYTES": st.sampled_from([1, 100, 1 << 20]),
        "THIN": st.sampled_from([0, 4, 1 << 30]),  # by taps always, sometimes, (nearly) never
    }
)


@given(setup=setups(), tuning=tunings)
@examples
def test_conv_equals_its_definition(setup: dict[str, Any], tuning: dict[str, int]) -> None:
    x, weight, options = setup["x"], setup["weight"], setup["options"]
    with tuned(**tuning):
        y = cpu.conv(x, weight, **options)
    close(y, reference.conv(x, weight, **options), EXACT, "conv")


@given(setup=setups(transposed=True), tuning=tunings)
@examples
def test_conv_transpose_equals_its_definition(
    setup: dict[str, Any], tuning: dict[str, int]
) -> None:
    x, weight, options = setup["x"], setup["weight"], setup["options"]
    with tuned(**tuning):
        y = cpu.conv_transpose(x, weight, **options)
    close(y, reference.conv_transpose(x, weight, **options), EXACT, "conv_transpose")


@given(setup=setups(), tuning=tunings)
@examples
def test_conv_weight_grad_equals_its_definition(
    setup: dict[str, Any], tuning: dict[str, int]
) -> None:
    x, g, options = setup["x"], setup["g"], setup["options"]
    kernel = setup["weight"].shape[2:]
    with tuned(**tuning):
        dw = cpu.conv_weight_grad(x, g, kernel, **options)
    close(dw, reference.conv_weight_grad(x, g, kernel, **options), EXACT, "conv_weight_grad")


@pytest.mark.parametrize("kernels", [reference, cpu], ids=["reference", "cpu"])
@given(setup=setups())
@settings(max_examples=60)
def test_the_three_are_adjoint(kernels: Any, setup: dict[str, Any]) -> None:
    """<conv(x, w), g> = <x, conv_transpose(g, w)> = <w, conv_weight_grad(x, g)>."""
    x, weight, g, options = (setup[name] for name in ("x", "weight", "g", "options"))
    y = kernels.conv(x, weight, **options)
    per_axis = [options[name] for name in ("stride", "padding", "dilation")]
    lengths = zip(x.shape[2:], g.shape[2:], weight.shape[2:], *per_axis, strict=True)
    extra = tuple(n - conv_transpose_length(m, k, s, p, 0, d) for n, m, k, s, p, d in lengths)
    dx = kernels.conv_transpose(g, weight, output_padding=extra, **options)
    dw = kernels.conv_weight_grad(x, g, weight.shape[2:], **options)
    assert dx.shape == x.shape
    size = magnitude([y], [g])
    assert abs(inner([y], [g]) - inner([x], [dx])) <= EXACT * size
    assert abs(inner([y], [g]) - inner([weight], [dw])) <= EXACT * size


def call_all(x: Array, weight: Array, g: Array) -> list[Array]:
    """All three kernels, with a stride and a dilation."""
    options = {"stride": (2, 1), "padding": (1, 2), "dilation": (1, 2), "groups": 2}
    return [
        cpu.conv(x, weight, **options),
        cpu.conv_transpose(g, weight, output_padding=(0, 0), **options),
        cpu.conv_weight_grad(x, g, weight.shape[2:], **options),
    ]


def arrays(rng: np.random.Generator, dtype: Any = np.float64) -> tuple[Array, Array, Array]:
    x, weight, g = (3, 4, 7, 5), (6, 2, 3, 2), (3, 6, 4, 7)
    return tuple(rng.standard_normal(shape).astype(dtype) for shape in (x, weight, g))  # type: ignore[return-value]


@pytest.mark.parametrize("layout", LAYOUTS)
def test_any_memory_layout(layout: str, rng: np.random.Generator) -> None:
    strided = [laid_out(a, layout) for a in arrays(rng)]
    plain = [np.array(a, order="C") for a in strided]
    for found, expected in zip(call_all(*strided), call_all(*plain), strict=True):
        close(found, expected, EXACT, layout)


@pytest.mark.parametrize("layout", ["channels_last", "reversed", "broadcast"])
@pytest.mark.parametrize("kernel", [(1, 1), (7, 5)], ids=["1x1", "whole"])
def test_where_the_input_itself_is_the_panel(
    kernel: tuple[int, int], layout: str, rng: np.random.Generator
) -> None:
    """A 1x1 kernel and a kernel as large as the input read x as a matrix, if it is one."""
    x = laid_out(rng.standard_normal((3, 4, 7, 5)), layout)
    weight = rng.standard_normal((2, 4, *kernel))
    options = {"stride": (1, 1), "padding": (0, 0), "dilation": (1, 1), "groups": 1}
    y = reference.conv(x, weight, **options)
    close(cpu.conv(x, weight, **options), y, EXACT, "conv")
    g = rng.standard_normal(y.shape)
    dw = reference.conv_weight_grad(x, g, kernel, **options)
    close(cpu.conv_weight_grad(x, g, kernel, **options), dw, EXACT, "conv_weight_grad")
    dx = reference.conv_transpose(g, weight, output_padding=(0, 0), **options)
    found = cpu.conv_transpose(g, weight, output_padding=(0, 0), **options)
    close(found, dx, EXACT, "conv_transpose")


def test_inputs_are_not_changed_and_results_are_new(rng: np.random.Generator) -> None:
    given = arrays(rng)
    for a in given:
        a.flags.writeable = False
    for result in call_all(*given):
        assert result.flags.writeable
        assert not any(np.shares_memory(result, a) for a in given)


def test_float32_stays_float32_and_is_accurate(rng: np.random.Generator) -> None:
    single = arrays(rng, np.float32)
    double = [a.astype(np.float64) for a in single]
    for found, exact in zip(call_all(*single), call_all(*double), strict=True):
        assert found.dtype == np.float32
        close(found, exact, 1e-6, "float32")


def test_results_are_channels_last_in_memory(rng: np.random.Generator) -> None:
    """So a chain of convolutions never transposes, and gradients come in the weight's order."""
    for result in call_all(*arrays(rng)):
        assert np.moveaxis(result, 1, -1).flags.c_contiguous


def test_same_bits_every_time(rng: np.random.Generator) -> None:
    x, weight = rng.standard_normal((8, 16, 20, 20)), rng.standard_normal((24, 16, 3, 3))
    g = rng.standard_normal((8, 24, 20, 20))
    options = {"stride": (1, 1), "padding": (1, 1), "dilation": (1, 1), "groups": 1}

    def bits() -> list[bytes]:
        results = [
            cpu.conv(x, weight, **options),
            cpu.conv_transpose(g, weight, output_padding=(0, 0), **options),
            cpu.conv_weight_grad(x, g, (3, 3), **options),
        ]
        return [result.tobytes() for result in results]

    with tuned(PANEL_BYTES=1 << 18):
        first = bits()
        assert bits() == first and bits() == first


def test_dcgan_layers_at_full_size(rng: np.random.Generator) -> None:
    """Real sizes, many panels: conv against the sum over taps, the others by adjointness."""
    x = rng.standard_normal((16, 64, 14, 14))
    weight = rng.standard_normal((128, 64, 4, 4))
    options = {"stride": (2, 2), "padding": (1, 1), "dilation": (1, 1), "groups": 1}
    padded = np.pad(x, ((0, 0), (0, 0), (1, 1), (1, 1)))
    expected = sum(
        np.einsum("nchw,oc->nohw", padded[:, :, i : i + 13 : 2, j : j + 13 : 2], weight[:, :, i, j])
        for i in range(4)
        for j in range(4)
    )
    y = cpu.conv(x, weight, **options)
    close(y, expected, EXACT, "conv")
    g = rng.standard_normal(y.shape)
    dx = cpu.conv_transpose(g, weight, output_padding=(0, 0), **options)
    dw = cpu.conv_weight_grad(x, g, (4, 4), **options)
    assert abs(inner([y], [g]) - inner([x], [dx])) <= EXACT * magnitude([y], [g])
    assert abs(inner([y], [g]) - inner([weight], [dw])) <= EXACT * magnitude([y], [g])


LITTLE_MEMORY = """
import resource
import numpy as np
from minigan_kernels import cpu
from importlib import import_module
module = import_module("minigan_kernels.cpu.panels")
rng = np.random.default_rng(0)
x = rng.standard_normal((1, 200, 100, 8)).transpose(0, 3, 1, 2)
weight = rng.standard_normal((8, 8, 5, 5))
options = (1, 1), (2, 2), (1, 1), 1
expected = cpu.conv(x, weight, *options)  # also lets BLAS take its memory
gradient = cpu.conv_weight_grad(x, expected, (5, 5), *options)
module.PANEL_BYTES = 1 << 30  # all 32 MB in one panel
pages = int(open("/proc/self/statm").read().split()[0])
resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + (16 << 20),) * 2)
try:
    np.empty(32 << 20, np.uint8)
except MemoryError:
    print("little memory")
assert np.allclose(cpu.conv(x, weight, *options), expected, rtol=1e-4, atol=1e-3)
again = cpu.conv_weight_grad(x, expected, (5, 5), *options)
assert np.allclose(again, gradient, rtol=1e-3, atol=1.0), abs(again - gradient).max()
print("done")
"""


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
def test_a_panel_that_does_not_fit_is_halved() -> None:
    """A real process that may not have the memory for a panel."""
    run = subprocess.run(
        [sys.executable, "-c", LITTLE_MEMORY], capture_output=True, text=True, timeout=120
    )
    assert run.stdout.split("\n")[:2] == ["little memory", "done"], run.stderr


def torch_functions(nd: int) -> tuple[Callable[..., Any], Callable[..., Any]]:
    import torch.nn.functional as tf

    return getattr(tf, f"conv{nd}d"), getattr(tf, f"conv_transpose{nd}d")


@pytest.mark.torch
@pytest.mark.parametrize("kernels", [reference, cpu], ids=["reference", "cpu"])
@given(setup=setups(), other=setups(transposed=True))
@settings(max_examples=100)
def test_torch_agrees(kernels: Any, setup: dict[str, Any], other: dict[str, Any]) -> None:
    torch = pytest.importorskip("torch")
    order = ("stride", "padding", "dilation", "groups")
    if setup["x"].shape[0]:
        x, weight, g = (torch.from_numpy(setup[name]) for name in ("x", "weight", "g"))
        options = setup["options"]
        weight.requires_grad_()
        y = torch_functions(x.ndim - 2)[0](x, weight, None, *(options[name] for name in order))
        (dw,) = torch.autograd.grad(y, weight, g)
        found = kernels.conv(setup["x"], setup["weight"], **options)
        close(found, y.detach().numpy(), EXACT, "conv")
        kernel = setup["weight"].shape[2:]
        found = kernels.conv_weight_grad(setup["x"], setup["g"], kernel, **options)
        close(found, dw.numpy(), EXACT, "conv_weight_grad")
    if other["x"].shape[0]:
        x, weight, options = other["x"], other["weight"], other["options"]
        order = ("stride", "padding", "output_padding", "groups", "dilation")
        arguments = [torch.from_numpy(x), torch.from_numpy(weight), None]
        arguments += [options[name] for name in order]
        y = torch_functions(x.ndim - 2)[1](*arguments)
        close(kernels.conv_transpose(x, weight, **options), y.numpy(), EXACT, "conv_transpose")
