"""Normalisation on the emulated GPU: values, all memory orders, extremes, equal bits."""

from __future__ import annotations

import importlib
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

import numpy as np
import pytest
from emulator.loader import emulated_device
from hypothesis import given
from hypothesis import strategies as st
from minigan_kernels.cuda import bias, norm_plan, planes, reduce
from minigan_kernels.cuda.device import Device
from opspec import Array
from strategies import Draw

cuda = importlib.import_module("minigan_kernels.cuda.norm")
reference = importlib.import_module("minigan_kernels.reference.norm")

ACCURATE = {"float32": 2e-6, "float64": 1e-12}  # norm of the error over norm of the result
ALL = (True, True, True)
NAMES = ("y", "mean", "rstd", "dx", "dscale", "dshift")


def on(device: Device, order: str, x: Array | None, dtype: Any = np.float32) -> Any:
    """A copy whose axes lie in memory as `order` says; "gaps": every second number."""
    if x is None:
        return None
    axes = list(range(x.ndim))
    if order == "gaps":
        wide = device.empty((*x.shape[:-1], 2 * x.shape[-1]), dtype)
        wide[..., ::2] = device.upload(x.astype(dtype))
        return wide[..., ::2]
    if order == "shifted":  # begins 4 bytes after a multiple of 16
        memory = device.empty((x.size + 1,), dtype)[1:].reshape(x.shape)
        memory[...] = device.upload(x.astype(dtype))
        return memory
    middle = {"first": axes[1:], "last": [*axes[2:], 1], "turned": axes[:0:-1]}[order]
    moved = device.upload(np.ascontiguousarray(x.transpose([0, *middle]), dtype))
    return moved.transpose([[0, *middle].index(i) for i in axes])


CUTS: dict[str, dict[str, int]] = {
    "usual": {},
    "many": {"ROUNDS": 1, "AT_ONCE": 0, "AT_MOST": 0},  # chunks, also of small arrays
    "one": {"MANY": 1, "AT_ONCE": 0, "AT_MOST": 0},  # chunk: threads go far
    "none": {"AT_ONCE": 10**6},  # a block sees all of its planes, where it can
}


@contextmanager
def cut_into(chunks: str) -> Iterator[None]:
    """Arrays are cut in another way. Plans are kept, so they are thrown away."""

    def forget() -> None:
        norm_plan.plan_of.cache_clear()
        reduce._plan.cache_clear()
        bias._plan.cache_clear()

    with pytest.MonkeyPatch.context() as patch:
        for name, value in CUTS[chunks].items():
            patch.setattr(planes, name, value)
        forget()
        yield
    forget()


cuts = st.sampled_from(["usual", "many", "one", "none"])


KINDS = (
    "batch",
    "instance",
    "layer",
    "spade",
    "adain",
    "rows",
    "class",
    "none",
    "critic",
    "batch map",
    "shared map",
)


def problem(kind: str, shape: tuple[int, ...], seed: int = 0) -> tuple[Any, ...]:
    """x, g, scale, shift (float64 that float32 holds) and axes of one kind of norm."""
    rng = np.random.default_rng(seed)
    spatial = tuple(range(2, len(shape)))
    ones = (1,) * len(spatial)
    axes, affine = {
        "batch": ((0, *spatial), (1, shape[1], *ones)),
        "instance": (spatial, (1, shape[1], *ones)),
        "layer": ((1, *spatial), (1, shape[1], *ones)),
        "spade": (spatial, shape),
        "batch map": ((0, *spatial), shape),
        "adain": (spatial, (*shape[:2], *ones)),
        "rows": ((1, *spatial), (1, *shape[1:])),
        "shared map": (spatial, (1, *shape[1:])),
        "critic": ((1, *spatial), (1, 1, *shape[2:])),
        "class": ((0, *spatial), (*shape[:2], *ones)),
        "none": (spatial, None),
    }[kind]
    made = [rng.normal(3, 2, shape), rng.normal(size=shape)]
    made += [None, None] if affine is None else [rng.normal(size=affine), rng.normal(size=affine)]
    return *[a if a is None else a.astype(np.float32).astype(np.float64) for a in made], axes


def both(
    device: Device, arrays: tuple[Any, ...], axes: Any, slope: float, base: float, needs: Any = ALL
) -> list[Any]:
    """All results of the device, as NumPy arrays."""
    x, g, scale, shift = arrays
    found = cuda.norm(device, x, scale, shift, axes, 1e-3, slope, base)
    back = cuda.norm_backward(device, g, x, scale, shift, *found[1:], axes, slope, base, needs)
    return [a if a is None else a.get() for a in (*found, *back)]


def exactly(
    arrays: tuple[Any, ...], axes: Any, slope: float, base: float, needs: Any = ALL
) -> list[Any]:
    x, g, scale, shift = arrays
    found = reference.norm(x, scale, shift, axes, 1e-3, slope, base)
    back = reference.norm_backward(g, x, scale, shift, *found[1:], axes, slope, base, needs)
    return [*found, *back]


def compare(
    found: list[Any],
    exact: list[Any],
    dtype: str,
    what: str,
    terms: dict[str, float] | None = None,
) -> None:
    """`terms`: sizes of what results are made of, where little may be left of it."""
    for name, a, b in zip(NAMES, found, exact, strict=True):
        if b is None:
            assert a is None, f"{name} of {what}"
            continue
        assert a.shape == b.shape, f"{name} of {what}"
        assert a.dtype == (np.float64 if name in ("mean", "rstd") else dtype)
        size = max(np.linalg.norm(b), (terms or {}).get(name, 0.0), 1e-30)
        error = np.linalg.norm(a - b) / size
        assert error < ACCURATE[dtype], f"{name} of {what}: {error}"


def check(
    kind: str,
    shape: tuple[int, ...],
    order: str,
    bent: tuple[float, float] = (0.2, 1.0),
    dtype: str = "float32",
    needs: tuple[bool, ...] = ALL,
    device: Device | None = None,
    mean: float = 0.0,
) -> list[Any]:
    """All results against the definition."""
    device = device or emulated_device()
    *arrays, axes = problem(kind, shape)
    if mean:  # then dx depends on how far x is from the mean, too
        arrays[1] = (arrays[1] + arrays[0]).astype(np.float32).astype(np.float64)
    arrays[0] = (arrays[0] + mean).astype(np.float32).astype(np.float64)
    narrow = tuple(on(device, order, a, dtype) for a in arrays)
    found = both(device, narrow, axes, *bent, needs)
    exact = exactly(tuple(arrays), axes, *bent, needs)
    z, g = reference.norm(arrays[0], *arrays[2:], axes, 1e-3, 1.0, bent[1])[0], arrays[1]
    by = exact[2] * (1 if arrays[2] is None else bent[1] + arrays[2])
    sizes = np.linalg.norm(z), np.linalg.norm(g * by), *[np.linalg.norm(g) / 2] * 2
    terms = dict(zip(("y", "dx", "dscale", "dshift"), map(float, sizes), strict=True))
    compare(found, exact, dtype, f"{kind} {shape} {order}", terms)
    return found


@st.composite
def shapes(draw: Draw) -> tuple[int, ...]:
    """Channels that fill vectors, that do not, and one."""
    channels = draw(st.sampled_from([1, 2, 3, 4, 5, 16, 35, 48]))
    spatial = draw(st.sampled_from([(), (2, 2), (3, 5), (4, 4), (19,), (2, 3, 2), (9, 7)]))
    return (draw(st.integers(1, 4)), channels, *spatial)


@given(
    kind=st.sampled_from(KINDS),
    shape=shapes(),
    order=st.sampled_from(["first", "last", "last", "turned", "gaps", "shifted"]),
    bent=st.sampled_from([(1.0, 0.0), (0.2, 1.0), (0.0, 0.0), (-0.5, 1.0)]),
    dtype=st.sampled_from(["float32", "float64"]),
    needs=st.sampled_from(
        [ALL, ALL, (True, False, False), (False, True, True), (True, False, True)]
    ),
    schedule=st.integers(0, 2),
    cut=cuts,
)
def test_values(
    kind: str, shape: Any, order: str, bent: Any, dtype: str, needs: Any, schedule: int, cut: str
) -> None:
    with cut_into(cut):
        check(kind, shape, order, bent, dtype, needs, emulated_device(schedule))


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("order", ["first", "last"])
def test_arrays_of_many_chunks(kind: str, order: str) -> None:
    check(kind, (3, 72, 21, 13), order)


def test_shared_maps_whose_vectors_span_two_pixels() -> None:
    check("shared map", (3, 130, 1, 2), "last")


@pytest.mark.parametrize("kind", ["batch", "none", "spade", "rows"])
@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("cut", ["one", "none"])
def test_long_walks(kind: str, order: str, cut: str) -> None:
    """Threads that take more numbers than they add up in float32."""
    for shape in ((1, 1, 66, 65), (1, 2, 128, 132)) if order == "first" else ((2, 16, 65, 32),):
        with cut_into(cut):
            check(kind, shape, order)


@pytest.mark.parametrize("order", ["first", "last", "turned"])
@pytest.mark.parametrize("groups", [2, 6])
def test_groups(order: str, groups: int) -> None:
    """Group norm is this norm on (N,G,C/G,H,W); channels-last needs two axes apart."""
    for cut in CUTS:
        device = emulated_device(1)
        shape = (3, groups, 4, 5, 4)
        rng = np.random.default_rng(1)
        x, g = rng.normal(3, 1, shape), rng.normal(size=shape)
        scale, shift = rng.normal(size=(2, 1, groups, 4, 1, 1))
        arrays = tuple(a.astype(np.float32).astype(np.float64) for a in (x, g, scale, shift))

        def grouped(a: Array) -> Any:
            whole = on(device, order, a.reshape(a.shape[0], -1, *a.shape[3:]))  # noqa: B023
            return whole.reshape(a.shape)

        axes = (2, 3, 4)
        with cut_into(cut):
            found = both(device, tuple(grouped(a) for a in arrays), axes, 0.2, 0.0)
        compare(found, exactly(arrays, axes, 0.2, 0.0), "float32", f"groups {order}")


@pytest.mark.parametrize("shift", [True, False])
@pytest.mark.parametrize(
    "affine", [(1, 6, 1, 1), (3, 1, 1, 1), (1, 1, 4, 1), (3, 6, 1, 5), (1, 1, 1, 1)]
)
@pytest.mark.parametrize("axes", [(0, 2, 3), (1, 2), (3,), (0, 3), (0, 1, 2, 3), (1,)])
def test_any_axes(axes: tuple[int, ...], affine: tuple[int, ...], shift: bool) -> None:
    """Also what no layer asks for: scales along some of the axes, axes far apart, no shift."""
    device = emulated_device(2)
    rng = np.random.default_rng(2)
    arrays = [
        rng.normal(3, 1, (3, 6, 4, 5)),
        rng.normal(size=(3, 6, 4, 5)),
        rng.normal(size=affine),
    ]
    arrays.append(rng.normal(size=affine) if shift else None)  # type: ignore[arg-type]
    exact = exactly(tuple(arrays), axes, 0.2, 1.0)
    for order in ("first", "last"):
        narrow = tuple(on(device, order, a, "float64") for a in arrays)
        compare(both(device, narrow, axes, 0.2, 1.0), exact, "float64", f"{axes} {affine} {order}")


@pytest.mark.parametrize("kind", ["batch", "instance", "layer", "spade"])
@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("cut", ["usual", "many"])
def test_far_from_zero(kind: str, order: str, cut: str) -> None:
    with cut_into(cut):
        check(kind, (3, 8, 9, 11), order, (1.0, 0.0), mean=1000.0)


@pytest.mark.parametrize("order", ["first", "last"])
def test_equal_numbers(order: str) -> None:
    """Variance 0: rstd is 1 / sqrt(eps), and y the shift."""
    device = emulated_device()
    x = np.full((2, 8, 5, 7), 0.1, np.float32)
    y, mean, rstd = cuda.norm(device, on(device, order, x), None, None, (0, 2, 3), 1e-5)
    assert not y.get().any() and np.allclose(rstd.get(), 1e5**0.5)
    assert (mean.get() == x[0, 0, 0, 0]).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("order", ["first", "last"])
@pytest.mark.parametrize("cut", ["usual", "many"])
def test_not_finite(value: float, order: str, cut: str) -> None:
    """It stays in its channel, and the statistics are those of the definition."""
    for place in ((0, 1, 0, 0), (1, 2, 3, 1)):
        *arrays, axes = problem("batch", (2, 4, 5, 3))
        arrays[0][place] = value
        device = emulated_device()
        narrow = tuple(on(device, order, a) for a in arrays)
        with cut_into(cut), np.errstate(invalid="ignore"):
            found, exact = both(device, narrow, axes, 0.0, 0.0), exactly(arrays, axes, 0.0, 0.0)
        for name, a, b in zip(NAMES, found, exact, strict=True):
            assert np.allclose(a, b, rtol=1e-4, atol=1e-4, equal_nan=True), name


def test_an_outlier_in_front() -> None:
    """What sums are taken about may be far from everything else."""
    x = np.full((1, 4, 64, 64), 0.3)
    x[0, :, 0, 0] = 1000
    x = x.astype(np.float32).astype(np.float64)
    for order in ("first", "last"):
        device = emulated_device()
        _, mean, rstd = cuda.norm(device, on(device, order, x), None, None, (0, 2, 3), 1e-5)
        _, *exact = reference.norm(x, None, None, (0, 2, 3), 1e-5)
        for a, b in zip((mean, rstd), exact, strict=True):
            assert np.allclose(a.get(), b, rtol=1e-5)


@pytest.mark.parametrize("shape", [(0, 3, 4, 4), (2, 3, 0, 4)])
def test_empty(shape: tuple[int, ...]) -> None:
    device = emulated_device()
    x, scale = device.empty(shape), on(device, "first", np.ones((1, 3, 1, 1)))
    y, mean, rstd = cuda.norm(device, x, scale, scale, (0, 2, 3), 1e-5)
    assert y.shape == shape and mean.shape == rstd.shape == (1, 3, 1, 1)
    dx, dscale, dshift = cuda.norm_backward(
        device, x, x, scale, scale, mean, rstd, (0, 2, 3), 1.0, 0.0, (True, True, True)
    )
    assert dx.shape == shape and not dscale.get().any() and not dshift.get().any()


@pytest.mark.parametrize("kind", ["batch", "instance", "rows", "spade"])
def test_bits_do_not_depend_on_the_schedule(kind: str) -> None:
    with cut_into("many"):
        runs = [
            check(kind, (2, 8, 9, 8), "last", device=emulated_device(i, 7 + i)) for i in range(3)
        ]
    for other in runs[1:]:
        assert all(np.array_equal(a, b) for a, b in zip(runs[0], other, strict=True))


def test_one_launch_where_planes_are_small() -> None:
    for kind, order, launches in (
        ("instance", "last", 3),
        ("instance", "first", 3),
        ("none", "last", 2),
    ):
        device = emulated_device()
        check(kind, (2, 32, 8, 8), order, device=device)
        assert len(device.loader.launches) == launches, device.loader.launches  # type: ignore[attr-defined]
