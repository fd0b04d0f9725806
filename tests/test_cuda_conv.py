"""Convolutions of the GPU, on the emulated one, against the definitions in float64."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from emulator.loader import ORDERS, emulated_device
from hypothesis import assume, given, settings
from hypothesis import strategies as st
from minigan_kernels import reference
from minigan_kernels.cuda import Kernels, generate_wgmma
from minigan_kernels.cuda import conv as kernels
from minigan_kernels.cuda import conv_plan as plan
from minigan_kernels.cuda.conv_plan import FLAT, FP32, SIMT, TF32, WGMMA, Tile
from minigan_kernels.cuda.conv_taps import PHASES, TAPS, conv_geometry, conv_transpose_geometry
from minigan_kernels.precision import PRECISION
from numpy.random import default_rng

pytestmark = pytest.mark.usefixtures("accurate")

TILES = {
    **{t.instance: t for group in SIMT.values() for t in group},
    **{t.instance: t for t in (*FP32, *TF32, *WGMMA, FLAT)},
}
DEVICES = [emulated_device(order) for order in ORDERS]


@contextmanager
def only(tile: Tile, splits: int = 1) -> Iterator[None]:
    """Every layer is computed by this tile, in so many parts."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(plan, "candidates", lambda *_: (tile,))
        patch.setattr(plan, "choose", lambda *_: (tile, splits))
        plan.job.cache_clear()
        yield
    plan.job.cache_clear()


@contextmanager
def precision(name: str) -> Iterator[None]:
    token = PRECISION.set(name)
    yield
    PRECISION.reset(token)


@dataclass
class Layer:
    """Options of a layer; the padding of a transposed one may not exceed what it makes."""

    transposed: bool
    n: int
    c: int
    k: int
    groups: int
    spatial: tuple[int, ...]
    kernel: tuple[int, ...]
    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    extra: tuple[int, ...]

    @property
    def options(self) -> tuple[Any, ...]:
        if self.transposed:
            return self.stride, self.padding, self.extra, self.dilation, self.groups
        return self.stride, self.padding, self.dilation, self.groups

    @property
    def name(self) -> str:
        return "conv_transpose" if self.transposed else "conv"

    def arrays(self, dtype: Any, seed: int = 0) -> tuple[Any, Any]:
        g, rng = self.groups, default_rng(seed)
        sides = (self.c * g, self.k) if self.transposed else (self.k * g, self.c)
        x = rng.standard_normal((self.n, self.c * g, *self.spatial)).astype(dtype)
        return x, rng.standard_normal((*sides, *self.kernel)).astype(dtype)


def layer2d(
    n: int, c: int, size: int, k: int, kernel: int, stride: int, padding: int, transposed: bool
) -> Layer:
    one = (1, 1)
    sizes = (size, size + 1), (kernel, kernel), (stride, stride), (padding, padding)
    return Layer(transposed, n, c, k, 1, *sizes, one, (0, 0))


@st.composite
def layers(
    draw: Any,
    channels: tuple[int, ...] = (1, 2, 3, 4, 5, 8, 12, 20),
    directions: tuple[bool, ...] = (False, True),
) -> Layer:
    """All options together: wide padding, strides and dilations that share a factor."""
    count = draw(st.integers(1, 3))
    some = st.sampled_from(channels)
    c, k = draw(some), draw(some)
    groups, n = draw(st.sampled_from([1, 1, 2, 3])), draw(st.integers(0, 3))
    transposed = draw(st.sampled_from(directions))
    axes = []
    for _ in range(count):
        size, taps = draw(st.integers(1, 5)), draw(st.integers(1, 4))
        stride, dilation = draw(st.integers(1, 4)), draw(st.integers(1, 4))
        reach = dilation * (taps - 1) + 1
        if transposed:
            extra = draw(st.integers(0, max(stride, dilation) - 1))
            most = ((size - 1) * stride + reach + extra - 1) // 2
            padding = draw(st.integers(0, min(most, 6)))
        else:
            extra, least = 0, max(0, -((size - reach) // 2))
            padding = draw(st.integers(least, least + 6))
        axes.append((size, taps, stride, padding, dilation, extra))
    return Layer(transposed, n, c, k, groups, *zip(*axes, strict=True))


def definition(layer: Layer, x: Any, w: Any) -> Any:
    return getattr(reference, layer.name)(
        x.astype(np.float64), w.astype(np.float64), *layer.options
    )


def computed(layer: Layer, x: Any, w: Any, order: int = 0) -> Any:
    device = DEVICES[order]
    function = getattr(kernels, layer.name)
    return function(device, device.upload(x), device.upload(w), *layer.options).get()


def error(y: Any, expected: Any) -> float:
    assert y.shape == expected.shape
    return float(np.linalg.norm(y - expected) / (np.linalg.norm(expected) or 1))


def check(layer: Layer, dtype: Any, limit: float, order: int = 0) -> None:
    x, w = layer.arrays(dtype)
    y = computed(layer, x, w, order)
    assert y.dtype == dtype
    assert np.isfinite(y).all() and error(y, definition(layer, x, w)) < limit


@given(layers(), st.sampled_from(ORDERS))
@settings(max_examples=60, deadline=None)
def test_all_options_together_in_float64(layer: Layer, order: int) -> None:
    check(layer, np.float64, 1e-13, order)


@given(layers(), st.sampled_from(["fp32", "tf32"]), st.sampled_from(ORDERS))
@settings(max_examples=60, deadline=None)
def test_all_options_together_in_float32(layer: Layer, name: str, order: int) -> None:
    with precision(name):
        check(layer, np.float32, 2e-6 if name == "fp32" else 1e-3, order)


LIMITS = {t.instance: 1e-13 for t in SIMT["double"]}
LIMITS |= {t.instance: 2e-6 for t in (*SIMT["float"], *FP32, FLAT)}
LIMITS |= {t.instance: 1e-3 for t in (*TF32, *WGMMA)}
SHAPES = [
    layer2d(2, 8, 5, 36, 3, 1, 1, False),
    layer2d(1, 36, 8, 33, 4, 2, 1, False),
    layer2d(2, 5, 4, 72, 1, 1, 0, False),
    layer2d(2, 20, 4, 12, 4, 2, 1, True),
    layer2d(2, 4, 3, 7, 3, 3, 0, True),
]


@pytest.mark.parametrize("name", TILES)
@pytest.mark.parametrize("order", ORDERS)
@pytest.mark.parametrize("splits", [1, 3])
def test_every_kernel(name: str, order: int, splits: int) -> None:
    dtype = np.float64 if "double" in name else np.float32
    with only(TILES[name], splits):
        for layer in SHAPES[order::2] if splits == 1 else SHAPES[::3]:
            check(layer, dtype, LIMITS[name], order)


@given(layers((1, 4, 5, 16, 40)), st.sampled_from([*FP32[2:], *TF32[2:], WGMMA[2], FLAT, FLAT]))
@settings(max_examples=25, deadline=None)
def test_all_options_together_on_the_tensor_cores(layer: Layer, tile: Tile) -> None:
    with only(tile, 1 + layer.n):
        check(layer, np.float32, LIMITS[tile.instance])


@given(layers(directions=(True,)), st.sampled_from(ORDERS))
@settings(max_examples=40, deadline=None)
def test_transposed_convolution_is_the_adjoint(layer: Layer, order: int) -> None:
    # with more output padding conv would make a longer array than it came from
    assume(all(e < s for e, s in zip(layer.extra, layer.stride, strict=True)))
    g, w = layer.arrays(np.float64)
    made = computed(layer, g, w, order)
    x, device = default_rng(1).standard_normal(made.shape), DEVICES[order]
    options = layer.stride, layer.padding, layer.dilation, layer.groups
    y = kernels.conv(device, device.upload(x), device.upload(w), *options).get()
    scale = np.linalg.norm(y) * np.linalg.norm(g)
    assert abs(np.vdot(y, g) - np.vdot(x, made)) <= 1e-12 * scale


def test_the_three_kernels_are_one_family() -> None:
    layer, device = layer2d(2, 5, 4, 6, 3, 2, 1, False), emulated_device()
    x, w = layer.arrays(np.float64)
    y = Kernels(device).conv(device.upload(x), device.upload(w), *layer.options).get()
    g = default_rng(1).standard_normal(y.shape)
    options = layer.kernel, *layer.options
    dw = Kernels(device).conv_weight_grad(device.upload(x), device.upload(g), *options).get()
    assert np.vdot(w, dw) == pytest.approx(np.vdot(y, g), rel=1e-12)


def launched(layer: Layer, dtype: Any = np.float32, **edits: Any) -> list[str]:
    """The kernels that compute a layer; the result is checked, too."""
    device = emulated_device()
    x, w = layer.arrays(dtype)
    function = getattr(kernels, layer.name)
    y = function(device, device.upload(x), device.upload(w), *layer.options).get()
    expected = definition(layer, x, w)
    assert error(y, expected) < (1e-3 if PRECISION.get() == "tf32" else 2e-6)
    return [name.split("<")[0] for name in device.loader.launches]


def test_which_kernel_computes_what() -> None:
    middle = layer2d(2, 64, 4, 40, 3, 1, 1, False)
    assert launched(middle) == ["pack_weight", "conv_tf32", "sum_parts"]
    assert launched(middle, np.float64) == ["pack_weight", "conv_simt", "sum_parts"]
    first = layer2d(2, 3, 4, 40, 3, 1, 1, False)
    assert launched(first) == ["pack_weight", "conv_tf32"]
    tiny = layer2d(2, 3, 4, 5, 3, 1, 1, False)
    assert launched(tiny) == ["pack_weight", "conv_simt"]
    last = layer2d(2, 32, 4, 3, 4, 2, 1, True)
    assert launched(last) == ["pack_weight", "conv_tf32", "add_taps"]
    to_rgb = layer2d(2, 32, 4, 3, 1, 1, 0, False)
    assert launched(to_rgb) == ["conv_tf32"]  # a 1x1 weight already lies as wanted
    depthwise = Layer(False, 1, 1, 1, 9, (4, 4), (3, 3), (1, 1), (1, 1), (1, 1), (0, 0))
    assert launched(depthwise) == ["conv_direct"]
    with precision("tf32"):
        assert launched(middle) == ["pack_weight", "conv_wgmma", "sum_parts"]


@pytest.mark.parametrize(
    "architecture, expected", [("sm_80", "conv_tf32"), ("sm_90a", "conv_wgmma")]
)
def test_hopper_has_kernels_of_its_own(architecture: str, expected: str) -> None:
    geometry = conv_geometry((16, 16), (3, 3), (1, 1), (1, 1), (1, 1))
    job = plan.job(geometry, 64, 64, 256, 1, "float", "tf32", architecture)
    assert job.tile.instance.startswith(expected) and job.splits == 1


def test_a_tile_is_chosen_by_what_it_leaves_idle() -> None:
    geometry = conv_geometry((32, 32), (3, 3), (1, 1), (1, 1), (1, 1))

    def chosen(n: int, c: int, k: int) -> tuple[int, int, int]:
        job = plan.job(geometry, n, c, k, 1, "float", "fp32", "sm_90a")
        return job.tile.rows, job.tile.columns, job.splits

    assert chosen(64, 256, 256) == (128, 128, 1)
    assert chosen(64, 256, 64) == (128, 64, 1)  # 128 columns would be half empty
    assert chosen(64, 256, 3) == (128, 32, 1)
    shallow = plan.job(geometry, 64, 16, 64, 1, "float", "tf32", "sm_80")
    assert shallow.tile.depth == 16  # of 32 numbers of a tap half would be zeros
    rows, columns, splits = chosen(1, 256, 64)
    assert (rows, columns) == (64, 64) and 16 * splits <= plan.SMS < 16 * (splits + 1)


@pytest.mark.parametrize("tile", [*FP32, SIMT["float"][1]])
def test_long_sums_are_accurate(tile: Tile) -> None:
    with only(tile):
        check(layer2d(1, 300, 3, 8, 3, 1, 1, False), np.float32, 2e-6)


def test_infinity_and_nan_stay_where_they_are_seen() -> None:
    for layer in (layer2d(2, 3, 6, 5, 3, 1, 1, False), layer2d(2, 8, 6, 40, 4, 2, 1, True)):
        x, w = layer.arrays(np.float32)
        x[0, 1, 2, 3], x[1, 0, 0, 0] = np.nan, np.inf
        with np.errstate(invalid="ignore"):
            expected = definition(layer, x, w)
        y = computed(layer, x, w)
        finite = np.isfinite(expected)
        assert np.array_equal(np.isfinite(y), finite)
        assert error(y[finite], expected[finite]) < 2e-6
        assert np.isnan(y[np.isnan(expected)]).all()


@pytest.mark.parametrize("name", ["fp32", "tf32"])
def test_two_runs_give_the_same_bits(name: str) -> None:
    with precision(name):
        for layer in (layer2d(1, 64, 4, 40, 3, 1, 1, False), layer2d(3, 40, 3, 3, 4, 2, 1, True)):
            x, w = layer.arrays(np.float32)
            runs = [computed(layer, x, w, order).tobytes() for order in ORDERS]
            assert runs[0] == runs[1] == runs[2]


@pytest.mark.parametrize("transposed", [False, True])
def test_any_memory_order(transposed: bool) -> None:
    layer = layer2d(2, 8, 4, 40, 3, 2, 1, transposed)
    x, w = layer.arrays(np.float32)
    expected, device, function = definition(layer, x, w), DEVICES[0], getattr(kernels, layer.name)

    def last(a: Any) -> Any:  # a view N,C,*S of memory N,*S,C
        return device.upload(np.ascontiguousarray(a.transpose(0, 2, 3, 1))).transpose(0, 3, 1, 2)

    def gaps(a: Any) -> Any:
        return device.upload(np.repeat(a, 2, 3))[..., ::2]

    def first(a: Any) -> Any:  # memory C,*S,N: as a transposed convolution reads its weight
        return device.upload(np.ascontiguousarray(a.transpose(1, 2, 3, 0))).transpose(3, 0, 1, 2)

    for of_x, of_w in ((last, device.upload), (gaps, gaps), (first, last), (last, first)):
        y = function(device, of_x(x), of_w(w), *layer.options)
        assert error(y.get(), expected) < 2e-6
        assert y.transpose(0, 2, 3, 1).flags.c_contiguous


def test_arrays_that_begin_between_two_16_byte_words() -> None:
    layer = layer2d(2, 8, 4, 40, 1, 1, 0, False)
    x, w = layer.arrays(np.float32)
    device = DEVICES[0]
    rows = np.ascontiguousarray(x.transpose(0, 2, 3, 1))
    moved = device.upload(np.concatenate([[0], rows.ravel()]).astype(np.float32))[1:]
    odd_x = moved.reshape(rows.shape).transpose(0, 3, 1, 2)
    odd_w = device.upload(np.concatenate([[0], w.ravel()]).astype(np.float32))[1:].reshape(w.shape)
    y = kernels.conv(device, odd_x, odd_w, *layer.options)
    assert error(y.get(), definition(layer, x, w)) < 2e-6


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("k", [3, 24])
def test_more_taps_than_the_arguments_of_a_kernel_hold(transposed: bool, k: int) -> None:
    layer = Layer(transposed, 1, 16, k, 1, (5, 5), (9, 9), (1, 1), (4, 4), (1, 1), (0, 0))
    check(layer, np.float32, 2e-6)


def test_more_phases_than_the_arguments_of_a_kernel_hold() -> None:
    layer = Layer(True, 1, 8, 24, 1, (3, 3), (4, 4), (4, 3), (0, 1), (1, 1), (1, 2))
    check(layer, np.float32, 2e-6)
    check(layer, np.float64, 1e-13)


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("groups, c, k", [(7, 1, 1), (3, 2, 4), (2, 12, 9)])
def test_groups(groups: int, c: int, k: int, transposed: bool) -> None:
    one = (1, 1)
    layer = Layer(
        transposed, 2, c, k, groups, (5, 4), (3, 3), (2, 2), one, one, (1, 0) if transposed else one
    )
    check(layer, np.float32, 2e-6)
    check(layer, np.float64, 1e-13)


def test_products_of_few_images_at_a_time(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(kernels, "PANEL", 2 * 4 * 5 * 9 * 3 * 4)  # of two images
    for transposed in (False, True):
        layer = layer2d(5, 16, 4, 3, 3, 1, 1, transposed)
        names = launched(layer)
        assert names.count("conv_tf32") == names.count("add_taps") == 3


def test_layers_from_and_to_one_pixel() -> None:
    from_pixel = layer2d(3, 20, 1, 24, 4, 1, 0, True)
    from_pixel.spatial = (1, 1)
    assert launched(from_pixel) == ["pack_weight", "conv_tf32", "add_taps"]
    to_pixel = Layer(False, 3, 40, 1, 1, (4, 4), (4, 4), (1, 1), (0, 0), (1, 1), (0, 0))
    assert launched(to_pixel) == ["pack_weight", "conv_tf32", "sum_parts"]


@pytest.mark.parametrize("name", ["conv", "conv_transpose"])
def test_empty_arrays(name: str) -> None:
    device = emulated_device()
    shapes = [
        ((0, 3, 4, 4), (8, 3, 3, 3)),
        ((2, 8, 4, 4), (0, 8, 3, 3)),
        ((2, 0, 4, 4), (8, 0, 3, 3)),
    ]
    for x_shape, w_shape in shapes:
        one, extra = (1, 1), ((0, 0),) if name == "conv_transpose" else ()
        if name == "conv_transpose":
            w_shape = (w_shape[1], w_shape[0], 3, 3)
        options = one, one, *extra, one, 1
        x, w = np.ones(x_shape, np.float32), np.ones(w_shape, np.float32)
        y = getattr(kernels, name)(device, device.upload(x), device.upload(w), *options).get()
        assert np.array_equal(y, getattr(reference, name)(x, w, *options))


def test_no_tap_is_kept_that_reads_padding_only() -> None:
    geometry = conv_geometry((1, 1), (3, 3), (1, 1), (1, 1), (1, 1))
    assert len(geometry.taps) == 1  # a 3x3 kernel on one pixel is its centre
    geometry = conv_transpose_geometry((4,), (4,), (2,), (1,), (0,), (1,))
    assert len(geometry.phases) == 2 and geometry.phases[:, 1].tolist() == [2, 2]


def test_the_header_of_wgmma_is_what_its_generator_writes() -> None:
    assert generate_wgmma.TARGET.read_text() == generate_wgmma.header()


def test_the_structure_of_arguments_has_no_gaps() -> None:
    assert plan.PARAMS.itemsize == 4 * (10 + 6 + 3 + 8 * PHASES + 4 * TAPS) < 4000


def test_the_class_that_nobody_chose() -> None:
    """Convolutions in TF32, matrix products accurate: as PyTorch's on a GPU."""
    device, rng = emulated_device(), default_rng(0)
    x, w = (rng.standard_normal(s).astype(np.float32) for s in ((1, 64, 9, 9), (64, 64, 3, 3)))
    token = PRECISION.set("default")
    y = Kernels(device).conv(device.upload(x), device.upload(w), (1, 1), (1, 1), (1, 1), 1)
    a, b = x.reshape(64, -1), w.reshape(64, -1)
    product = Kernels(device).matmul(device.upload(b.T), device.upload(a))
    PRECISION.reset(token)
    exact = reference.conv(x.astype(float), w.astype(float), (1, 1), (1, 1), (1, 1), 1)
    assert 1e-5 < error(y.get(), exact) < 1e-3
    assert error(product.get(), b.T.astype(float) @ a.astype(float)) < 2e-6
