"""Every property for every operation (see opspec.py for what a spec promises).

The number of examples per property is small because there are many operations; a nightly run
raises it: MINIGAN_EXAMPLES=200 pytest tests/test_ops.py.
"""

from __future__ import annotations

import itertools
import os
from collections.abc import Sequence
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opspec import (
    Array,
    Case,
    OpSpec,
    close,
    directional,
    gradients,
    inner,
    laid_out,
    leaf,
    leaves,
    magnitude,
)
from specs import ALL
from strategies import rngs

import minigan as mg

EXAMPLES = int(os.environ.get("MINIGAN_EXAMPLES", "10"))
DIFFERENTIABLE = [spec for spec in ALL if spec.order >= 1]
TWICE = [spec for spec in ALL if spec.order >= 2]
FUSED = [spec for spec in ALL if spec.fused]

examples = settings(max_examples=EXAMPLES)
few = settings(max_examples=max(3, EXAMPLES // 2))
EXACT = 1e-12  # two computations of the same thing in float64
EPS32 = float(np.finfo(np.float32).eps)


def over(specs: Sequence[OpSpec]) -> Any:
    return pytest.mark.parametrize("spec", specs, ids=repr)


def draw_case(data: st.DataObject, spec: OpSpec) -> tuple[Case, np.random.Generator]:
    case = data.draw(spec.cases)
    return case, data.draw(rngs(1))


def like(rng: np.random.Generator, spec: OpSpec, case: Case) -> Array:
    """A random cotangent of the result: ones would hide missing sums and transposes."""
    return np.asarray(rng.uniform(-1, 1, spec.call(case.inputs, case.kwargs).shape))


def test_names_are_unique() -> None:
    names = [spec.name for spec in ALL]
    assert len(names) == len(set(names)), sorted(n for n in names if names.count(n) > 1)


# P1: values ------------------------------------------------------------------------------------


@over(ALL)
@given(data=st.data())
@examples
def test_forward_equals_reference(spec: OpSpec, data: st.DataObject) -> None:
    case, rng = draw_case(data, spec)
    before = [None if x is None else x.copy() for x in case.inputs]
    y = spec.call(case.inputs, case.kwargs)
    if y.dtype.kind == "f":
        assert y.dtype == np.float64
        gradients(spec, case.inputs, case.kwargs, like(rng, spec, case))
    for kept, x in zip(before, case.inputs, strict=True):
        assert x is None or np.array_equal(kept, x), "an input was changed"
    close(y.data, spec.reference(*case.inputs, **case.kwargs), EXACT * spec.slack, "forward")


def single(x: Any) -> Any:
    return x.astype(np.float32) if x is not None and x.dtype.kind == "f" else x


@over([spec for spec in ALL if spec.float32])
@given(data=st.data())
@few
def test_float32(spec: OpSpec, data: st.DataObject) -> None:
    case, rng = draw_case(data, spec)
    inputs = [single(x) for x in case.inputs]
    exact = [x.astype(np.float64) if x is not None and x.dtype.kind == "f" else x for x in inputs]
    y = spec.call(inputs, case.kwargs)
    length = max((x.size for x in inputs if x is not None), default=1)
    tolerance = 8 * EPS32 * np.sqrt(length) * spec.float32_slack
    close(y.data, spec.reference(*exact, **case.kwargs), tolerance, "float32 forward")
    if y.dtype.kind != "f" or not spec.order:
        return
    assert y.dtype == np.float32
    g = rng.uniform(-1, 1, y.shape).astype(np.float32)
    found = gradients(spec, inputs, case.kwargs, g)
    expected = gradients(spec, exact, case.kwargs, g.astype(np.float64))
    for place, a, b in zip(spec.places(inputs), found, expected, strict=True):
        assert a.dtype == np.float32, f"gradient {place} is {a.dtype}"
        # Gradients multiply several rounded factors: four times the forward's allowance,
        # relative to the largest gradient of this case.
        scale = max((float(np.max(np.abs(e))) for e in expected if e.size), default=0.0)
        error = float(np.max(np.abs(a - b))) if a.size else 0.0
        assert error <= 4 * tolerance * max(scale, 1e-30), f"float32 gradient {place}: {error:.3g}"
    doubled = gradients(spec, inputs, case.kwargs, g, create_graph=spec.order >= 2)
    assert all(a.dtype == np.float32 for a in doubled), "create_graph changes the dtype"


@over([spec for spec in ALL if spec.layouts])
@given(data=st.data())
@few
def test_memory_layout_does_not_matter(spec: OpSpec, data: st.DataObject) -> None:
    case, rng = draw_case(data, spec)
    layout = data.draw(st.sampled_from(spec.layouts))
    strided = [
        laid_out(x, layout) if x is not None and x.dtype.kind == "f" else x for x in case.inputs
    ]
    plain = [None if x is None else np.array(x, order="C") for x in strided]
    y = spec.call(plain, case.kwargs)
    close(spec.call(strided, case.kwargs).data, y.data, EXACT * spec.slack, f"{layout} forward")
    if spec.order and y.dtype.kind == "f":
        g = rng.uniform(-1, 1, y.shape)
        expected = gradients(spec, plain, case.kwargs, g)
        for variant in (g, laid_out(g, layout) if layout != "broadcast" else g):
            found = gradients(spec, strided, case.kwargs, variant)
            for place, a, b in zip(spec.places(plain), found, expected, strict=True):
                close(a, b, EXACT * spec.slack, f"{layout} gradient {place}")


@over([spec for spec in ALL if spec.nonfinite])
@given(data=st.data())
@few
def test_nan_and_infinity_propagate(spec: OpSpec, data: st.DataObject) -> None:
    case, rng = draw_case(data, spec)
    places = [i for i in spec.places(case.inputs) if case.inputs[i].size]
    if not places:
        return
    place, bad = data.draw(st.sampled_from(places)), data.draw(st.sampled_from([np.nan, np.inf]))
    position = rng.integers(case.inputs[place].size)

    def with_value(value: float) -> list[Any]:
        changed = case.inputs[place].copy()
        changed.flat[position] = value
        return replaced(case, [place], [changed])

    def reference(value: float) -> Array:
        return np.asarray(spec.reference(*with_value(value), **case.kwargs))

    with np.errstate(all="ignore"):
        y = spec.call(with_value(bad), case.kwargs).data
        # A reference may multiply padding by a weight that touches no input: not dependence.
        depends = ~(reference(50.0) == reference(-50.0))
        expected = reference(bad)
    if y.dtype.kind == "f":
        lost = ~np.isfinite(expected) & np.isfinite(y) & depends
        assert not lost.any(), f"{bad} in input {place} is lost at {np.argwhere(lost)[0]}"


# P2, P3: derivatives ---------------------------------------------------------------------------


@over(DIFFERENTIABLE)
@given(data=st.data())
@examples
def test_gradient(spec: OpSpec, data: st.DataObject) -> None:
    """The gradient in all inputs at once against finite differences of the forward."""
    case, rng = draw_case(data, spec)
    places = spec.places(case.inputs)
    g = like(rng, spec, case)

    def value(xs: Sequence[Array]) -> float:
        return inner([spec.call(replaced(case, places, xs), case.kwargs).data], [g])

    at = [case.inputs[i] for i in places]
    scale = magnitude([spec.call(case.inputs, case.kwargs).data], [g])
    claimed = gradients(spec, case.inputs, case.kwargs, g)
    directional(value, at, claimed, rng, 1e-8 * spec.slack, scale * spec.slack)


def replaced(case: Case, places: Sequence[int], xs: Sequence[Any]) -> list[Any]:
    inputs = list(case.inputs)
    for place, x in zip(places, xs, strict=False):
        inputs[place] = x
    return inputs


@over(TWICE)
@given(data=st.data())
@examples
def test_second_order(spec: OpSpec, data: st.DataObject) -> None:
    """The gradient of <gradient, v> in all inputs and the cotangent, against finite differences
    of the first-order gradient."""
    case, rng = draw_case(data, spec)
    check_order(spec, case, rng, 2)


@over(FUSED)
@given(data=st.data())
@few
def test_third_order(spec: OpSpec, data: st.DataObject) -> None:
    """One order more for operations whose first order is a hand-written kernel."""
    case, rng = draw_case(data, spec)
    check_order(spec, case, rng, 3)


def check_order(spec: OpSpec, case: Case, rng: np.random.Generator, order: int) -> None:
    """d^(order-1) of <y, g> along random directions, then its gradient, numerically."""
    places = spec.places(case.inputs)
    g = like(rng, spec, case)
    at = [*(case.inputs[i] for i in places), g]
    ways = [[rng.uniform(-1, 1, x.shape) for x in at] for _ in range(order - 1)]

    def derivative(xs: Sequence[Array], create_graph: bool) -> tuple[Any, list[Any]]:
        """(<...<grad <y, g>, way>..., way>, the leaves): a scalar of order - 1."""
        args = [leaf(x) for x in xs]
        y = spec.call(replaced(case, places, args[:-1]), case.kwargs)
        total = (y * args[-1]).sum()
        for i, way in enumerate(ways):
            last = i == len(ways) - 1
            total = directed(total, args, way, create_graph or not last)
        return total, args

    def value(xs: Sequence[Array]) -> float:
        return float(derivative(xs, False)[0])

    total, args = derivative(at, True)
    if total.node is None:  # every derivative of that order is zero
        claimed = [np.zeros_like(x) for x in at]
    else:
        found = mg.grad(total, args)
        claimed = [
            np.zeros_like(x) if d is None else d.data for x, d in zip(at, found, strict=True)
        ]
    # What is differenced sums products that may cancel; their size is that of the gradients.
    scale = sum(float(np.abs(c).sum()) for c in claimed)
    directional(value, at, claimed, rng, 1e-8 * spec.slack, (1 + scale) * spec.slack)


def directed(total: Any, args: Sequence[Any], way: Sequence[Array], create_graph: bool) -> Any:
    """<grad total, way>, a Tensor."""
    if total.node is None:
        return total * 0.0
    parts = mg.grad(total, args, create_graph=create_graph)
    result: Any = mg.tensor(np.zeros(()))
    for d, u in zip(parts, way, strict=True):
        if d is not None:
            result = result + (d * mg.tensor(u)).sum()
    return result


@over(TWICE)
@given(data=st.data())
@examples
def test_arrays_and_graph_give_the_same_gradient(spec: OpSpec, data: st.DataObject) -> None:
    """P4: backward on raw arrays equals backward recorded for double backward."""
    case, rng = draw_case(data, spec)
    g = like(rng, spec, case)
    plain = gradients(spec, case.inputs, case.kwargs, g)
    recorded = gradients(spec, case.inputs, case.kwargs, g, create_graph=True)
    scale = max((float(np.max(np.abs(a))) for a in plain if a.size), default=0.0)
    for place, a, b in zip(spec.places(case.inputs), plain, recorded, strict=True):
        assert a.shape == b.shape
        error = float(np.max(np.abs(a - b))) if a.size else 0.0
        assert error <= EXACT * spec.slack * max(scale, 1e-300), f"input {place}: {error:.3g}"


# P5: linearity ---------------------------------------------------------------------------------


@over([spec for spec in ALL if spec.linear])
@given(data=st.data())
@examples
def test_adjoint(spec: OpSpec, data: st.DataObject) -> None:
    """<f(u) - f(0), g> = <u, f'(x)^T g> for every linear argument, wherever f' is taken."""
    case, rng = draw_case(data, spec)
    g = like(rng, spec, case)
    for place in spec.linear:
        x = case.inputs[place]
        if x is None:
            continue
        u = rng.uniform(-1, 1, x.shape)
        pulled = gradients(spec, case.inputs, case.kwargs, g, [place])
        moved = spec.call(replaced(case, [place], [u]), case.kwargs).data
        origin = spec.call(replaced(case, [place], [np.zeros_like(u)]), case.kwargs).data
        error = abs(inner([moved, origin], [g, -g]) - inner([u], pulled))
        size = magnitude([moved, origin], [g, g]) + magnitude([u], pulled)
        assert error <= EXACT * max(size, 1e-300), f"input {place}: {error:.3g} of {size:.3g}"


@over(DIFFERENTIABLE)
@given(data=st.data())
@few
def test_gradient_is_linear_in_its_cotangent(spec: OpSpec, data: st.DataObject) -> None:
    case, rng = draw_case(data, spec)
    g, h = like(rng, spec, case), like(rng, spec, case)
    of_g = gradients(spec, case.inputs, case.kwargs, g)
    of_h = gradients(spec, case.inputs, case.kwargs, h)
    both = gradients(spec, case.inputs, case.kwargs, np.asarray(2 * g - 3 * h))
    for place, a, b, c in zip(spec.places(case.inputs), of_g, of_h, both, strict=True):
        size = max((float(np.max(np.abs(x))) for x in (*of_g, *of_h) if x.size), default=0.0)
        error = float(np.max(np.abs(2 * a - 3 * b - c))) if a.size else 0.0
        allowed = 5 * EXACT * spec.slack * max(size, 1e-300)
        assert error <= allowed, f"input {place}: off by {error:.3g}"


# P6, P7: independence of what else is asked, and repetition -------------------------------------


@over(DIFFERENTIABLE)
@given(data=st.data())
@few
def test_any_subset_of_gradients(spec: OpSpec, data: st.DataObject) -> None:
    """Asking for fewer gradients gives the same values; an unused tensor gets None."""
    case, rng = draw_case(data, spec)
    places = spec.places(case.inputs)
    g = like(rng, spec, case)
    full = dict(zip(places, gradients(spec, case.inputs, case.kwargs, g), strict=True))
    sizes = range(1, len(places)) if len(places) <= 3 else (1, len(places) - 1)
    for subset in itertools.chain(*(itertools.combinations(places, n) for n in sizes)):
        # The rest as constants, and the rest as leaves that nobody asks about.
        found = gradients(spec, case.inputs, case.kwargs, g, subset)
        args, unused = leaves(case.inputs, places), leaf(np.ones(3))
        y = spec.call(args, case.kwargs)
        asked = mg.grad(y, [*(args[i] for i in subset), unused], g) if y.node is not None else []
        if asked:
            assert asked.pop() is None
        for i, a, b in itertools.zip_longest(subset, found, asked):
            close(a, full[i], EXACT * spec.slack, f"gradient {i} with constants beside {subset}")
            if b is not None:
                close(b.data, full[i], EXACT * spec.slack, f"gradient {i} alone")


@over(ALL)
@given(data=st.data())
@few
def test_repeats_bit_by_bit(spec: OpSpec, data: st.DataObject) -> None:
    """Two runs agree to the last bit."""
    case, rng = draw_case(data, spec)
    y, z = (spec.call(case.inputs, case.kwargs).data for _ in range(2))
    assert y.tobytes() == z.tobytes()
    if spec.order and y.dtype.kind == "f":
        g = rng.uniform(-1, 1, y.shape)
        first, second = (gradients(spec, case.inputs, case.kwargs, g) for _ in range(2))
        for a, b in zip(first, second, strict=True):
            assert a.tobytes() == b.tobytes()


@over(DIFFERENTIABLE)
@given(data=st.data())
@few
def test_graphs_do_not_share_state(spec: OpSpec, data: st.DataObject) -> None:
    """Two forwards, then the backward of the first: it must see its own statistics and masks."""
    case, rng = draw_case(data, spec)
    other, _ = draw_case(data, spec)
    g, places = like(rng, spec, case), spec.places(case.inputs)
    expected = gradients(spec, case.inputs, case.kwargs, g)
    args = leaves(case.inputs, places)
    y = spec.call(args, case.kwargs)
    spec.call(leaves(other.inputs, spec.places(other.inputs)), other.kwargs)
    found = mg.grad(y, [args[i] for i in places], g) if y.node is not None else []
    for a, b in zip(found, expected, strict=False):
        assert a is None or a.data.tobytes() == b.tobytes()
