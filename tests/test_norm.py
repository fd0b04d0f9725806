"""Conventions, edge cases, messages and kernels of the norms. Properties: specs/norm.py."""

from __future__ import annotations

import importlib
import itertools
from collections.abc import Iterator
from typing import Any

import numpy as np
import pytest
from opspec import Array, close, leaf

import minigan as mg
from minigan import nn
from minigan.errors import DtypeError, ShapeError, UsageError
from minigan.ops.modulate import adain, conditional_batch_norm, spade
from minigan.ops.norm import batch_norm, group_norm, instance_norm, layer_norm, pixel_norm
from minigan.tensor import Tensor

cpu = importlib.import_module("minigan_kernels.cpu.norm")
reference = importlib.import_module("minigan_kernels.reference.norm")


def channels_last(x: Array) -> Array:
    return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1)


def train(x: Tensor, weight: Any = None, bias: Any = None, **options: Any) -> Tensor:
    return batch_norm(x, None, None, weight, bias, True, **options)


# Running statistics ----------------------------------------------------------------------------


@pytest.mark.parametrize("momentum", [0.1, 1.0, 0.25])
def test_running_statistics_follow_the_batch(rng: np.random.Generator, momentum: float) -> None:
    x = rng.normal(2, 3, (4, 3, 2, 5))
    mean, var = Tensor(rng.normal(size=3)), Tensor(rng.uniform(1, 2, 3))
    expected = reference.running_update(x, mean.data, var.data, momentum)
    versions = mean.version[0], var.version[0]
    batch_norm(Tensor(x), mean, var, training=True, momentum=momentum)
    close(mean.data, expected[0], 1e-13, "running mean")
    close(var.data, expected[1], 1e-13, "running variance: the unbiased one")
    assert (mean.version[0], var.version[0]) == (versions[0] + 1, versions[1] + 1)


def test_running_variance_is_unbiased_where_the_output_is_biased() -> None:
    x = np.array([[0.0], [2.0]])  # variance: biased 1, unbiased 2
    mean, var = Tensor(np.zeros(1)), Tensor(np.zeros(1))
    y = batch_norm(Tensor(x), mean, var, training=True, momentum=1.0, eps=0.0)
    assert y.data.ravel().tolist() == [-1.0, 1.0]
    assert (mean.data[0], var.data[0]) == (1.0, 2.0)


def test_running_statistics_stay_in_eval_mode_and_in_recomputation() -> None:
    rng = np.random.default_rng(0)
    mean, var = Tensor(np.zeros(3)), Tensor(np.ones(3))
    x = leaf(rng.normal(size=(4, 3, 2, 2)))
    batch_norm(x, mean, var)
    assert not mean.data.any() and mean.version[0] == 0
    y = mg.checkpoint(lambda t: batch_norm(t, mean, var, training=True), x)
    assert mean.version[0] == 1
    once = mean.data.copy()
    y.sum().backward()
    assert mean.version[0] == 1 and np.array_equal(mean.data, once)


def test_running_statistics_do_not_move_when_the_reference_is_differentiated() -> None:
    rng = np.random.default_rng(0)
    mean, var = Tensor(np.zeros(3)), Tensor(np.ones(3))
    x = leaf(rng.normal(size=(4, 3, 2, 2)))
    y = batch_norm(x, mean, var, training=True)
    mg.grad(y, x, rng.normal(size=y.shape), create_graph=True)
    assert mean.version[0] == 1


def test_float32_running_statistics_stay_float32(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 3, 2, 2)).astype(np.float32)
    mean, var = Tensor(np.zeros(3, np.float32)), Tensor(np.ones(3, np.float32))
    batch_norm(Tensor(x), mean, var, training=True, momentum=np.float64(0.1))
    assert mean.dtype == var.dtype == np.float32
    assert batch_norm(Tensor(x), mean, var).dtype == np.float32


def test_instance_norm_averages_its_statistics_over_samples(rng: np.random.Generator) -> None:
    x = rng.normal(2, 3, (4, 3, 2, 5))
    mean, var = Tensor(np.zeros(3)), Tensor(np.zeros(3))
    instance_norm(Tensor(x), mean, var, momentum=1.0)
    close(mean.data, x.mean(axis=(0, 2, 3)), 1e-13, "mean")
    close(var.data, x.var(axis=(2, 3), ddof=1).mean(axis=0), 1e-13, "variance")
    y = instance_norm(Tensor(x), mean, var, use_input_stats=False)
    close(y.data, batch_norm(Tensor(x), mean, var).data, 1e-14, "with running statistics")


# Edge cases ------------------------------------------------------------------------------------


def test_mean_1000_in_float32(rng: np.random.Generator) -> None:
    """E[x^2] - E[x]^2 in float32 would give a variance that is off by 1e6 * 6e-8 = 0.06."""
    exact = rng.normal(1000, 0.5, (8, 3, 9, 9))
    x = exact.astype(np.float32)
    expected, *_ = reference.norm(x.astype(np.float64), None, None, (0, 2, 3), 1e-5)
    for layout in (x, channels_last(x)):
        y = train(Tensor(layout))
        assert np.abs(y.data - expected).max() < 2e-4
        # The mean in float32 is off by up to 3e-5, which must not shift the result.
        assert np.abs(y.data.mean(axis=(0, 2, 3), dtype=np.float64)).max() < 2e-6
    mean, var = Tensor(np.zeros(3, np.float32)), Tensor(np.zeros(3, np.float32))
    batch_norm(Tensor(x), mean, var, training=True, momentum=1.0)
    close(var.data, exact.var(axis=(0, 2, 3), ddof=1), 1e-5, "running variance")
    unbiased = expected * np.sqrt(647 / 648)  # n = 8 * 9 * 9
    assert np.abs(batch_norm(Tensor(x), mean, var).data - unbiased).max() < 2e-4


@pytest.mark.parametrize("order", [1, 2, 3])
def test_mean_1000_in_every_order(order: int, rng: np.random.Generator) -> None:
    """The result does not depend on the mean, so neither do its derivatives."""
    x, v = rng.normal(size=(3, 2, 2, 2)), rng.normal(size=(3, 2, 2, 2))
    results = []
    for mean in (0.0, 1000.0):
        t = leaf(x + mean)
        y = train(t, eps=1e-3)
        for _ in range(order):
            (y,) = mg.grad(y, t, v, create_graph=True)  # type: ignore[assignment]
        results.append(y.data)
    close(results[1], results[0], 1e-9, f"order {order}")


@pytest.mark.parametrize("value", [0.0, 1000.0, 0.1])
def test_variance_zero(value: float) -> None:
    x = np.full((3, 2, 2, 2), value)
    bias = np.array([0.5, -1.0])
    for dtype in (np.float32, np.float64):
        y = train(Tensor(x.astype(dtype)), leaf(np.ones(2, dtype)), Tensor(bias.astype(dtype)))
        spread = np.abs(y.data - bias.astype(dtype).reshape(1, 2, 1, 1)).max()
        assert spread < 1e-10, "a constant channel must come out as its bias"


def test_variance_zero_and_gamma_zero_have_derivatives_of_every_order(
    rng: np.random.Generator,
) -> None:
    x = rng.normal(size=(3, 2, 2, 2))
    x[:, 0] = 1.0  # the first channel is constant; its slope is 1 / sqrt(eps)
    gamma, beta = np.array([1.3, 0.0]), np.array([0.1, 0.2])

    def norm(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return train(x, weight, bias, eps=0.1)

    assert mg.check.gradcheck(norm, [x, gamma, beta], order=3)


def test_gradients_of_a_constant_channel_are_finite_at_the_usual_eps() -> None:
    t = leaf(np.full((2, 1, 3, 3), 7.0, np.float32))
    (g,) = mg.grad(train(t), t, np.ones(t.shape, np.float32), create_graph=True)
    (h,) = mg.grad((g * g).sum() + (g * 0.5).sum(), t)
    assert np.isfinite(g.data).all() and np.isfinite(h.data).all()


def test_nan_stays_in_its_channel() -> None:
    x = np.random.default_rng(0).normal(size=(2, 3, 4, 4)).astype(np.float32)
    x[0, 1, 2, 2] = np.nan
    for layout in (x, channels_last(x)):
        lost = np.isnan(train(Tensor(layout)).data)
        assert lost[:, 1].all() and not lost[:, [0, 2]].any()


def test_empty_batch() -> None:
    t = leaf(np.zeros((0, 3, 4, 4)))
    w = leaf(np.ones(3))
    y = instance_norm(t, None, None, w, None)
    g, dw = mg.grad(y, [t, w], np.zeros((0, 3, 4, 4)))
    assert y.shape == g.shape == (0, 3, 4, 4) and dw.data.tolist() == [0, 0, 0]
    assert group_norm(t, 3).shape == layer_norm(t, (3, 4, 4)).shape == t.shape


# One formula -----------------------------------------------------------------------------------


def test_the_norms_are_special_cases_of_one_another(rng: np.random.Generator) -> None:
    x = Tensor(rng.normal(size=(2, 4, 3, 3)))
    weight, bias = Tensor(rng.normal(size=4)), Tensor(rng.normal(size=4))
    zeros = Tensor(np.zeros(x.shape))
    column = (4, 1, 1)
    for a, b in [
        (group_norm(x, 4, weight, bias), instance_norm(x, None, None, weight, bias)),
        (
            group_norm(x, 1, weight, bias),
            layer_norm(x, (4, 3, 3), weight.reshape(column), bias.reshape(column)),
        ),
        (spade(x, zeros, zeros), train(x)),
        (spade(x, zeros, zeros, norm="instance"), instance_norm(x)),
        (spade(x, zeros, zeros, norm="layer"), layer_norm(x, (4, 3, 3))),
        (adain(x, Tensor(np.zeros((2, 4))), Tensor(np.zeros((2, 4)))), instance_norm(x)),
        (conditional_batch_norm(x, None, None, *[Tensor(np.ones((2, 4)))] * 2, True), train(x) + 1),
    ]:
        close(a.data, b.data, 1e-13, "same formula")


def test_pixel_norm_makes_unit_pixels(rng: np.random.Generator) -> None:
    y = pixel_norm(Tensor(rng.normal(size=(2, 8, 3, 3)))).data
    close((y**2).mean(axis=1), np.ones((2, 3, 3)), 1e-7, "mean square")
    assert not pixel_norm(Tensor(np.zeros((2, 8)))).data.any()


def test_output_keeps_the_memory_layout(rng: np.random.Generator) -> None:
    x = rng.normal(size=(2, 4, 3, 5)).astype(np.float32)
    for layout in (x, channels_last(x)):
        t = leaf(layout)
        y = train(t, Tensor(np.ones(4, np.float32)))
        (g,) = mg.grad(y, t, layout)
        assert y.data.strides == g.data.strides == layout.strides
        assert group_norm(t, 2).data.strides == layout.strides


# With an activation ----------------------------------------------------------------------------


def calls(dtype: Any, rng: np.random.Generator) -> Iterator[tuple[Any, list[Array]]]:
    """Every norm with its inputs, as a function of options."""
    shape = (3, 6, 4, 5)
    x, gamma, beta = rng.normal(1, 2, (3, *shape)).astype(dtype)
    weight, bias = rng.normal(size=(2, 6)).astype(dtype)
    style = rng.normal(size=(2, 3, 6)).astype(dtype)
    yield train, [x, weight, bias]
    yield lambda x, w, b, **o: instance_norm(x, None, None, w, b, **o), [x, weight, bias]
    yield lambda x, w, **o: instance_norm(x, None, None, w, **o), [x, weight]
    yield lambda x, b, **o: instance_norm(x, None, None, None, b, **o), [x, bias]
    yield lambda x, w, b, **o: group_norm(x, 3, w, b, **o), [x, weight, bias]
    yield lambda x, w, b, **o: layer_norm(x, shape[1:], w, b, **o), [x, gamma[0], beta[0]]
    yield lambda x, w, b, **o: layer_norm(x, shape[1:], w, b, **o), [x, gamma[0], beta[0, :, :1]]
    yield spade, [x, gamma, beta]
    yield lambda *a, **o: spade(*a, norm="layer", **o), [x, gamma, beta]
    yield adain, [x, *style]
    yield lambda *a, **o: conditional_batch_norm(a[0], None, None, *a[1:], True, **o), [x, *style]


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("slope", [None, 0.2, -0.3])
def test_fused_equals_unfused(dtype: Any, slope: float | None, rng: np.random.Generator) -> None:
    options: dict[str, Any] = {"activation": "relu"}
    if slope is not None:
        options = {"activation": "leaky_relu", "negative_slope": slope}
    limit = 1e-6 if dtype == np.float32 else 1e-12
    for norm, arrays in calls(dtype, rng):
        for layout in (np.asarray, channels_last):
            ts = [leaf(layout(a)) if a.ndim == 4 else leaf(a) for a in arrays]
            together = norm(*ts, **options)
            z = norm(*ts)
            apart = mg.functional.relu(z) if slope is None else mg.functional.leaky_relu(z, slope)
            g = rng.normal(size=z.shape).astype(dtype)
            close(together.data, apart.data, limit, "result")
            found, expected = mg.grad(together, ts, g), mg.grad(apart, ts, g)
            for a, b in zip(found, expected, strict=True):
                assert a is not None and b is not None and a.dtype == dtype
                close(a.data, b.data, limit * (1 + np.abs(b.data).max()), "gradient")


def test_a_norm_with_activation_keeps_its_input_only(rng: np.random.Generator) -> None:
    x, weight = leaf(rng.normal(size=(4, 8, 16, 16)).astype(np.float32)), leaf(np.ones(8, "f4"))
    node = train(x, weight, activation="relu").node
    kept = [v for v in vars(node).values() if isinstance(v, np.ndarray) and v.size >= x.size]
    assert not kept and [t is x for t in node.saved if t is not None and t.size >= x.size] == [True]


def test_unknown_activations() -> None:
    x = Tensor(np.zeros((2, 3, 4, 4)))
    with pytest.raises(UsageError) as caught:
        train(x, activation="tanh")
    assert str(caught.value) == (
        "batch_norm: unknown activation 'tanh'\n"
        "  why: only activations that are linear on both sides of 0 run in one pass with a norm\n"
        '  fix: use "relu" or "leaky_relu", or call another activation on the result'
    )


class Operations:
    """The operations that run, as a hook; and the modules, as an observer."""

    def __init__(self) -> None:
        self.names: list[str] = []

    def forward(self, node: Any, inputs: Any, out: Any) -> None:
        self.names.append(repr(node))

    def enter(self, module: nn.Module, args: Any) -> None:
        self.names.append(type(module).__name__)

    def leave(self, module: nn.Module, args: Any, out: Any) -> None: ...


def operations(net: nn.Module, x: Tensor) -> list[str]:
    with mg.autograd.hook(Operations()) as seen:
        net(x)
    return list(seen.names)


NETS: list[tuple[str, Any]] = [
    ("BatchNorm", lambda: nn.BatchNorm2d(4)),
    ("InstanceNorm", lambda: nn.InstanceNorm2d(4, affine=True)),
    ("GroupNorm", lambda: nn.GroupNorm(2, 4)),
    ("LayerNorm", lambda: nn.LayerNorm((4, 3, 3))),
]


@pytest.mark.parametrize(("operation", "make"), NETS)
def test_sequential_joins_a_norm_with_the_activation_after_it(
    operation: str, make: Any, rng: np.random.Generator
) -> None:
    x = leaf(rng.normal(size=(2, 4, 3, 3)).astype(np.float32))
    g = rng.normal(size=x.shape).astype(np.float32)
    for activation in (nn.ReLU(), nn.LeakyReLU(0.2)):
        names = operations(nn.Sequential(make(), activation), x)
        assert names.count(operation) == 1 and not {"Relu", "LeakyRelu"} & set(names)
        net, apart = nn.Sequential(make(), activation), nn.Sequential(make())
        for mode in (True, False):
            net.train(mode), apart.train(mode)
            y, z = net(x), activation(apart(x))
            assert np.array_equal(y.data, z.data)
            for a, b in zip(mg.grad(y, x, g), mg.grad(z, x, g), strict=True):
                assert a is not None and b is not None
                close(a.data, b.data, 1e-6, "gradient")
        assert list(net.state_dict()) == list(apart.state_dict())


def test_sequential_joins_only_what_cannot_be_told_apart() -> None:
    class Mine(nn.ReLU):
        def forward(self, x: Tensor) -> Tensor:
            return x * 2.0

    x = Tensor(np.ones((2, 4, 3, 3), np.float32))
    net = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())
    assert operations(net, x).count("Relu") == 0
    with nn.observe(Operations()) as seen:
        assert operations(net, x).count("Relu") == 1
    assert seen.names == ["Sequential", "BatchNorm2d", "ReLU"]
    assert "ReLU" in str(nn.summary(net, (2, 4, 3, 3)))
    assert "Scale" in operations(nn.Sequential(nn.BatchNorm2d(4), Mine()), x)
    seven = Tensor(np.full(x.shape, 7, np.float32))
    net[1].forward = lambda x: seven
    assert net(x) is seven
    net = nn.Sequential(nn.BatchNorm2d(4), nn.ReLU())
    net[0].forward = lambda x: seven
    assert np.array_equal(net(x).data, seven.data)
    with pytest.raises(ShapeError) as caught:
        nn.Sequential(nn.ReLU(), nn.BatchNorm2d(5), nn.ReLU())(x)
    assert caught.value.path == ["Sequential", "1"]


# Kernels ---------------------------------------------------------------------------------------


def kernel_cases() -> Iterator[tuple[tuple[int, ...], tuple[int, ...], tuple[int, ...] | None]]:
    """Shapes, axes and shapes of scale: all norms, and odd mixtures of them."""
    sizes = [(4, 3, 5, 5), (2, 8, 10, 9), (3, 4, 1, 1), (70, 3, 2, 2), (2, 2, 3, 4, 5), (6, 5)]
    for shape in sizes:
        spatial = tuple(range(2, len(shape)))
        ones = (1,) * len(spatial)
        over = [(0, *spatial), spatial, (1, *spatial), (0, 1, *spatial)]
        like = [None, (1, shape[1], *ones), (*shape[:2], *ones), shape, (1, *shape[1:])]
        for axes, scale in itertools.product(over, like):
            if axes:
                yield shape, axes, scale


def layouts(x: Array) -> Iterator[Array]:
    yield x
    yield channels_last(x)
    yield np.asfortranarray(x)
    yield x[::-1].copy()[::-1]
    frozen = x.copy()
    frozen.flags.writeable = False
    yield frozen


@pytest.mark.parametrize(("slope", "base"), [(1.0, 0.0), (0.2, 1.0), (0.0, 0.0)])
@pytest.mark.parametrize(("shape", "axes", "scale_shape"), list(kernel_cases()))
def test_cpu_kernels_equal_their_definition(
    shape: tuple[int, ...],
    axes: tuple[int, ...],
    scale_shape: tuple[int, ...] | None,
    slope: float,
    base: float,
) -> None:
    rng = np.random.default_rng(1)
    x, g = rng.normal(3, 2, shape), rng.normal(size=shape)
    scale = None if scale_shape is None else rng.normal(size=scale_shape)
    shift = None if scale_shape is None else rng.normal(size=scale_shape)
    forward = reference.norm(x, scale, shift, axes, 1e-3, slope, base)
    needs = (True, True, True)
    backward = reference.norm_backward(g, x, scale, shift, *forward[1:], axes, slope, base, needs)
    for strided, upstream in itertools.product(layouts(x), (g, channels_last(g))):
        found = cpu.norm(strided, scale, shift, axes, 1e-3, slope, base)
        statistics = found[1:]
        options = axes, slope, base, needs
        found += cpu.norm_backward(upstream, strided, scale, shift, *statistics, *options)
        for a, b in zip(found, (*forward, *backward), strict=True):
            if b is None:
                assert a is None
            else:
                assert a.shape == b.shape and np.abs(a - b).max() < 1e-11


def test_a_large_map_is_read_in_blocks(rng: np.random.Generator) -> None:
    """More elements than a block: batch axes are then combined from means and squares."""
    x = rng.normal(100, 1, (9, 16, 32, 32)).astype(np.float32)
    expected = reference.norm(x.astype(np.float64), None, None, (0, 2, 3), 1e-5)
    for layout in (x, channels_last(x)):
        y, mean, rstd = cpu.norm(layout, None, None, (0, 2, 3), 1e-5)
        assert np.abs(y - expected[0]).max() < 5e-5
        close(mean, expected[1], 1e-6, "mean")
        close(rstd, expected[2], 1e-6, "rstd")


# Messages --------------------------------------------------------------------------------------


def test_one_value_per_channel_cannot_be_normalised() -> None:
    with pytest.raises(ShapeError) as caught:
        train(Tensor(np.zeros((1, 512, 1, 1), np.float32)))
    assert str(caught.value) == (
        "batch_norm: 1 value per channel cannot be normalised\n"
        "  where: input (1, 512, 1, 1)\n"
        "  why: their variance is zero, so the result would not depend on the input\n"
        "  fix: use a larger batch or image, leave out this norm (as U-Nets do in their 1x1 "
        "innermost block), or evaluate with running statistics"
    )
    for call in (
        lambda x: instance_norm(x),
        lambda x: adain(x, Tensor(np.zeros((1, 512))), Tensor(np.zeros((1, 512)))),
        lambda x: spade(x, x, x),
    ):
        with pytest.raises(ShapeError, match="1 value per channel"):
            call(Tensor(np.zeros((1, 512, 1, 1))))
    with pytest.raises(ShapeError, match="0 values per channel"):
        train(Tensor(np.zeros((0, 3, 2, 2))))
    state = Tensor(np.zeros(512)), Tensor(np.ones(512))
    assert batch_norm(Tensor(np.zeros((1, 512, 1, 1))), *state).shape == (1, 512, 1, 1)


def test_eps_and_momentum_go_by_keyword_only() -> None:
    x = Tensor(np.zeros((2, 3, 2, 2)))
    for call in (
        lambda: batch_norm(x, None, None, None, None, True, 0.8),  # type: ignore[misc]
        lambda: instance_norm(x, None, None, None, None, True, 0.8),  # type: ignore[misc]
        lambda: group_norm(x, 3, None, None, 0.8),  # type: ignore[misc]
        lambda: layer_norm(x, (3, 2, 2), None, None, 0.8),  # type: ignore[misc]
    ):
        with pytest.raises(TypeError):
            call()


def test_shapes_that_do_not_fit() -> None:
    x = Tensor(np.zeros((2, 3, 4, 4)))
    four, pair = Tensor(np.zeros(4)), Tensor(np.zeros((2, 4)))
    for message, call in (
        (r"weight has shape \(4,\), the input has 3 channels", lambda: train(x, four)),
        (r"bias has shape \(4,\)", lambda: group_norm(x, 3, None, four)),
        (r"running_var has shape", lambda: batch_norm(x, Tensor(np.zeros(3)), four)),
        ("3 channels do not split into 2 groups", lambda: group_norm(x, 2)),
        (r"the last axes of \(2, 3, 4, 4\) are not \(4, 3\)", lambda: layer_norm(x, (4, 3))),
        (r"weight \(4,\) does not fit", lambda: layer_norm(x, (3, 4, 4), four)),
        ("gamma has shape", lambda: spade(x, pair, pair)),
        (r"scale or shift of shape \(2, 4\)", lambda: adain(x, pair, pair)),
        ("needs an input", lambda: pixel_norm(four)),
    ):
        with pytest.raises(ShapeError, match=message):
            call()


def test_other_mistakes() -> None:
    x = Tensor(np.zeros((2, 3, 4, 4)))
    three = Tensor(np.zeros(3))
    with pytest.raises(UsageError, match="no running statistics"):
        batch_norm(x)
    with pytest.raises(UsageError, match="both running_mean and running_var"):
        batch_norm(x, three)
    with pytest.raises(UsageError, match="unknown norm 'bacth'"):
        spade(x, x, x, norm="bacth")
    with pytest.raises(DtypeError, match="cannot normalise int64"):
        train(Tensor(np.zeros((2, 3), np.int64)))
    with pytest.raises(DtypeError, match="mixed dtypes"):
        train(x, Tensor(np.ones(3, np.float32)))


# PyTorch ---------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize("shape", [(4, 3, 5, 6), (4, 3), (4, 3, 7), (2, 3, 3, 4, 5)])
def test_equals_torch(shape: tuple[int, ...], rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    state = rng.normal(size=3), rng.uniform(1, 2, 3)
    ours, theirs = [Tensor(a.copy()) for a in state], [torch.tensor(a) for a in state]
    pairs = [
        (lambda x, *a: train(x, *a), lambda x, *a: F.batch_norm(x, None, None, *a, True)),
        (lambda x, *a: batch_norm(x, *ours, *a), lambda x, *a: F.batch_norm(x, *theirs, *a)),
        (
            lambda x, *a: batch_norm(x, *ours, *a, True),
            lambda x, *a: F.batch_norm(x, *theirs, *a, True),
        ),
    ]
    if len(shape) > 2:
        pairs += [
            (
                lambda x, *a: instance_norm(x, *ours, *a),
                lambda x, *a: F.instance_norm(x, *theirs, *a),
            ),
            (lambda x, *a: group_norm(x, 3, *a), lambda x, *a: F.group_norm(x, 3, *a)),
        ]
    arrays = rng.normal(1, 2, shape), np.array([1.5, 0.0, -0.7]), rng.normal(size=3)
    for mine, other in pairs:
        compare_with_torch(torch, mine, other, arrays, rng)
    for a, b in zip(ours, theirs, strict=True):
        close(a.data, b.numpy(), 1e-12, "running statistics")
    affine = rng.normal(size=shape[1:]), rng.normal(size=shape[1:])
    compare_with_torch(
        torch,
        lambda x, *a: layer_norm(x, shape[1:], *a),
        lambda x, *a: F.layer_norm(x, shape[1:], *a),
        (arrays[0], *affine),
        rng,
    )


def compare_with_torch(
    torch: Any, mine: Any, other: Any, arrays: tuple[Array, ...], rng: np.random.Generator
) -> None:
    ts = [leaf(a) for a in arrays]
    us = [torch.tensor(a, requires_grad=True) for a in arrays]
    y, z = mine(*ts), other(*us)
    g = rng.normal(size=y.shape)
    close(y.data, z.detach().numpy(), 1e-12, "forward")
    for a, b in zip(mg.grad(y, ts, g), torch.autograd.grad(z, us, torch.tensor(g)), strict=True):
        assert a is not None
        close(a.data, b.numpy(), 1e-12, "gradient")


@pytest.mark.torch
def test_orders_two_and_three_equal_torch_primitives(rng: np.random.Generator) -> None:
    """torch's own fused norms are wrong at order 3, so it computes the formula step by step."""
    torch = pytest.importorskip("torch")
    x, v, u = rng.normal(size=(3, 4, 3, 5, 5))
    gamma = np.array([1.3, 0.0, -0.4])
    t, w = leaf(x), leaf(gamma)
    y = train(t, w)
    (a1,) = mg.grad((y * y * y).sum(), t, create_graph=True)
    a2, b2 = mg.grad((a1 * Tensor(v)).sum(), [t, w], create_graph=True)
    (a3,) = mg.grad((a2 * Tensor(u)).sum(), t)
    s, k = (torch.tensor(a, requires_grad=True) for a in (x, gamma))
    d = s - s.mean((0, 2, 3), keepdim=True)
    z = d / torch.sqrt((d * d).mean((0, 2, 3), keepdim=True) + 1e-5) * k.view(1, 3, 1, 1)
    (c1,) = torch.autograd.grad((z**3).sum(), s, create_graph=True)
    c2, d2 = torch.autograd.grad((c1 * torch.tensor(v)).sum(), (s, k), create_graph=True)
    (c3,) = torch.autograd.grad((c2 * torch.tensor(u)).sum(), s)
    for mine, other in ((a1, c1), (a2, c2), (b2, d2), (a3, c3)):
        close(mine.data, other.detach().numpy(), 1e-12, "derivative")
