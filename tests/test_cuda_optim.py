"""The optimizers' kernels on the emulated GPU, against their definitions in float64."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from emulator.loader import emulated_device
from hypothesis import given, settings
from hypothesis import strategies as st
from minigan_kernels import reference
from minigan_kernels.cuda import Kernels, array_table
from minigan_kernels.group import Group
from strategies import rngs

Array = Any
DEVICES = [emulated_device(order) for order in (0, 1, 2)]

# rule -> (arrays of memory, those that may be missing, steps?, names of options)
RULES: dict[str, tuple[int, tuple[int, ...], bool, tuple[str, ...]]] = {
    "sgd_step": (1, (0,), True, ("lr", "momentum", "dampening", "nesterov", "weight_decay")),
    "adam_step": (3, (2,), True, ("lr", "beta1", "beta2", "eps", "weight_decay", "decoupled")),
    "adamax_step": (2, (), True, ("lr", "beta1", "beta2", "eps", "weight_decay")),
    "rmsprop_step": (3, (1, 2), False, ("lr", "alpha", "eps", "momentum", "weight_decay")),
    "adagrad_step": (1, (), True, ("lr", "lr_decay", "eps", "weight_decay")),
    "adadelta_step": (2, (), False, ("lr", "rho", "eps", "weight_decay")),
    "lerp_step": (0, (), False, ("weight",)),
}
VALUES: dict[str, st.SearchStrategy[Any]] = {
    "nesterov": st.booleans(),
    "decoupled": st.booleans(),
    "eps": st.sampled_from([1e-8, 1e-3]),
    "lr": st.sampled_from([0.1, 1e-3]),
    "weight_decay": st.sampled_from([0.0, 0.1]),
    "alpha": st.sampled_from([0.5, 0.9, 0.999]),  # 0 would make a centred variance 0
    "dampening": st.sampled_from([0.0, 0.4]),
}
ANY_SHARE = st.sampled_from([0.0, 0.5, 0.9, 0.999])


def placed(device: Any, values: Array, order: str, dtype: Any) -> Array:
    """The values on the device: in rows, in columns, at an odd address, or with gaps."""
    x = device.upload(np.asarray(values, dtype))
    if order == "columns":
        return device.upload(np.asarray(values.T, dtype).copy()).T
    if order == "odd":
        room = device.upload(np.zeros(values.size + 1, dtype))[1:].reshape(values.shape)
    elif order == "gaps":
        room = device.upload(np.zeros((*values.shape[:-1], 2 * values.shape[-1]), dtype))[..., ::2]
    else:
        return x
    room[...] = x
    return room


def run_both(
    device: Any, rule: str, lists: list[Any], orders: list[list[str]], rest: list[Any], dtype: Any
) -> tuple[list[Any], list[Any]]:
    """All arrays after the reference in float64 and after the kernel."""
    expected = [
        None if a is None else [np.asarray(x, dtype).astype(float) for x in a] for a in lists
    ]
    found = [
        None if a is None else [placed(device, x, o, dtype) for x, o in zip(a, order, strict=True)]
        for a, order in zip(lists, orders, strict=True)
    ]
    getattr(reference, rule)(*expected, *rest)
    getattr(Kernels(device), rule)(*found, *rest)
    return expected, found


def assert_close(expected: list[Any], found: list[Any], dtype: Any) -> None:
    tolerance = 1e-13 if dtype == np.float64 else 2e-6
    for a, b in zip(expected, found, strict=True):
        for x, y in zip(a or (), b or (), strict=True):
            assert y.dtype == dtype
            assert np.linalg.norm(y.get() - x) <= tolerance * np.linalg.norm(x) + 1e-30


@pytest.mark.parametrize("rule", RULES)
@settings(max_examples=12)
@given(data=st.data(), rng=rngs())
def test_updates_are_those_of_the_reference(rule: str, data: Any, rng: Any) -> None:
    count, optional, with_steps, names = RULES[rule]
    dtype = data.draw(st.sampled_from([np.float32, np.float64]), "dtype")
    shape = st.tuples(st.integers(0, 9), st.integers(1, 70))
    shapes = data.draw(st.lists(shape, min_size=1, max_size=4), "shapes")
    order = st.sampled_from(["rows", "rows", "columns", "odd", "gaps"])
    some = len(shapes)
    lists: list[Any] = [[rng.normal(size=s) for s in shapes] for _ in range(2)]
    for k in range(count):
        missing = k in optional and data.draw(st.booleans(), "missing")
        lists.append(None if missing else [rng.random(s) + 0.1 for s in shapes])
    orders = data.draw(
        st.lists(st.lists(order, min_size=some, max_size=some), min_size=5, max_size=5), "orders"
    )[: len(lists)]
    steps = [data.draw(st.lists(st.integers(1, 3), min_size=some, max_size=some), "steps")]
    options = [data.draw(VALUES.get(name, ANY_SHARE), name) for name in names]
    rest = [*(steps if with_steps else []), *options]
    if rule == "rmsprop_step" and lists[3] is not None:
        lists[2] = [s + a * a for s, a in zip(lists[2], lists[3], strict=True)]  # a variance >= 0
    expected, found = run_both(
        data.draw(st.sampled_from(DEVICES)), rule, lists, orders, rest, dtype
    )
    assert_close(expected, found, dtype)


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
def test_large_and_small_arrays_share_one_launch(dtype: Any, rng: np.random.Generator) -> None:
    device: Any = emulated_device(2)
    shapes = [(4097, 3), (1, 1), (3, 5), (2048, 2), (4096, 1)]
    lists = [[rng.random(s) for s in shapes] for _ in range(4)] + [None]
    rest = [[7] * 5, 1e-2, 0.9, 0.999, 1e-8, 0.0, False]
    expected, found = run_both(device, "adam_step", lists, [["rows"] * 5] * 5, rest, dtype)
    assert_close(expected, found, dtype)
    updates = [name for name in device.loader.launches if name.startswith("update")]
    assert len(updates) == 1


@pytest.mark.parametrize("dtype", [np.float32, np.float64])
@pytest.mark.parametrize("size", [5, 2047, 4095, 4097])
def test_what_lies_behind_an_array_is_left_alone(size: int, dtype: Any) -> None:
    device = DEVICES[0]
    whole = [device.upload(np.ones(size + 8, dtype)) for _ in range(4)]
    parts = [[x[:size]] for x in whole]
    Kernels(device).adam_step(*parts, None, [1], 0.1, 0.5, 0.9, 1e-8, 0.1, True)
    assert all((x.get()[size:] == 1).all() for x in whole)
    assert (parts[0][0].get() < 1).all()


def test_steps_differ_and_dtypes_mix(rng: np.random.Generator) -> None:
    device, kernels = DEVICES[0], Kernels(DEVICES[0])
    dtypes = [np.float32, np.float64, np.float32]
    values = [[rng.random(5).astype(t) for t in dtypes] for _ in range(4)]
    expected = [[x.astype(float) for x in a] for a in values]
    found = [[device.upload(x) for x in a] for a in values]
    rest: list[Any] = [None, [1, 2, 2], 0.1, 0.5, 0.9, 1e-8, 0.1, True]
    reference.adam_step(*expected, *rest)
    kernels.adam_step(*found, *rest)
    for a, b in zip(expected, found, strict=True):
        for x, y in zip(a, b, strict=True):
            np.testing.assert_allclose(y.get(), x, rtol=2e-6)


def test_a_first_buffer_may_hold_anything() -> None:
    device = DEVICES[0]
    p, g, buffer = (device.upload(np.ones(3)) for _ in range(3))
    buffer[...] = np.nan
    Kernels(device).sgd_step([p], [g], [buffer], [1], 0.5, 0.9, 0.3, False, 0.0)
    assert (p.get() == 0.5).all() and (buffer.get() == 1).all()


@pytest.mark.parametrize("value", [np.nan, np.inf, -np.inf])
@pytest.mark.parametrize("rule", RULES)
def test_what_is_not_finite_stays_where_it_is(rule: str, value: float) -> None:
    count, _, with_steps, names = RULES[rule]
    options = {"lr": 0.1, "eps": 1e-8, "nesterov": False, "decoupled": False, "weight_decay": 0.1}
    rest = [*([[2]] if with_steps else []), *[options.get(n, 0.5) for n in names]]
    for which in range(2 + count):
        lists = [[np.full((1, 9), 0.25 if k == 3 else 1.0)] for k in range(2 + count)]
        lists[which][0][0, 5] = value
        with np.errstate(all="ignore"):
            expected, found = run_both(
                DEVICES[1], rule, lists, [["rows"]] * len(lists), rest, np.float64
            )
        for a, b in zip(expected, found, strict=True):
            np.testing.assert_allclose(b[0].get(), a[0], rtol=1e-12)


def test_repeats_are_equal_to_the_last_bit(rng: np.random.Generator) -> None:
    values = [[rng.random(5001).astype(np.float32)] for _ in range(4)]
    results = []
    for device in DEVICES:
        found = [[device.upload(x) for x in a] for a in values]
        Kernels(device).adam_step(*found, None, [3], 0.1, 0.5, 0.9, 1e-8, 0.1, True)
        results.append(b"".join(a[0].get().tobytes() for a in found))
    assert len(set(results)) == 1


def test_the_table_is_kept_and_options_go_up_when_they_change(
    rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    device: Any = emulated_device()
    kernels = Kernels(device)
    values = [rng.random((3, 4)) for _ in range(2)]
    p = Group(device.upload(x) for x in values)
    g, other = ([device.upload(x * k) for x in values] for k in (2, 3))
    kernels.sgd_step(p, g, None, [1, 1], 0.5, 0.0, 0.0, False, 0.0)
    assert device.loader.launches == ["set_options", "update<double, Sgd>"]

    def searched(*args: Any) -> Any:
        raise AssertionError("addresses of a prepared group are searched for again")

    monkeypatch.setattr(array_table, "_places", searched)
    tables = array_table._table.cache_info().misses
    kernels.sgd_step(p, g, None, [2, 2], 0.25, 0.0, 0.0, False, 0.0)
    kernels.sgd_step(p, g, None, [3, 3], 0.25, 0.0, 0.0, False, 0.0)
    assert array_table._table.cache_info().misses == tables
    assert device.loader.launches[2:] == ["set_options", *["update<double, Sgd>"] * 2]
    kernels.sgd_step(p, other, None, [4, 4], 0.5, 0.0, 0.0, False, 0.0)  # gradients elsewhere
    for x, found in zip(values, p, strict=True):
        np.testing.assert_allclose(
            found.get(), x - 0.5 * 2 * x - 0.25 * 4 * x - 0.5 * 3 * x, atol=1e-15
        )
    monkeypatch.undo()
    turned = [device.upload(np.ascontiguousarray(x.T)).T for x in values]
    kernels.sgd_step(p, turned, None, [5, 5], 0.5, 0.0, 0.0, False, 0.0)
    for x, found in zip(values, p, strict=True):
        np.testing.assert_allclose(found.get(), x - 4 * x, rtol=1e-12)


def test_a_group_with_other_memory_is_prepared_anew(rng: np.random.Generator) -> None:
    device = DEVICES[0]
    kernels = Kernels(device)
    p = Group([device.upload(np.ones(4))])
    for _ in range(2):
        g, buffer = device.upload(np.ones(4)), device.upload(np.zeros(4))
        kernels.sgd_step(p, [g], [buffer], [1], 0.25, 0.9, 0.0, False, 0.0)
        assert (buffer.get() == 1).all()
    kernels.lerp_step(p, [device.upload(np.zeros(4))], 1.0)
    assert (p[0].get() == 0).all()
