"""What a test knows about one operation, and the numerical tools that check it.

A family writes `SPECS: list[OpSpec]` in tests/specs/<family>.py, for example

    @cases
    def scaled(draw, rng):
        shape = draw(shapes(1, 3))
        return Case((values(rng, shape), values(rng, shape)), {"c": draw(st.floats(0.5, 2))})

    SPECS = [OpSpec("scaled", F.scaled, reference.scaled, scaled, linear=(1,))]

and tests/test_ops.py runs every property for it. The finite differences here are independent of
minigan.check on purpose: a mistake there must not hide one in the operations.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Any

import numpy as np
from hypothesis.strategies import SearchStrategy

import minigan as mg
from minigan.tensor import Tensor

Array = np.ndarray[Any, Any]

LAYOUTS = ("transposed", "reversed", "sliced", "fortran", "channels_last", "broadcast")


@dataclass(frozen=True)
class Case:
    """One call: fn(*inputs, **kwargs). Floats are float64; integer arrays (labels, indices) and
    None (an absent optional input) get no gradient."""

    inputs: tuple[Any, ...]
    kwargs: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class OpSpec:
    """One operation and what is true of it.

    Parameters
    ----------
    name : the public name, such as "conv2d"; a variant appends "-something".
    fn : fn(*tensors, **kwargs) -> Tensor.
    reference : reference(*arrays, **kwargs) -> array, an independent definition.
    cases : hypothesis strategy (see `strategies.cases`): inputs at least 1e-2 away from kinks,
        at most about 200 elements, values in about [-3, 3].
    linear : positions of inputs in which fn is linear (or affine) while the others are fixed;
        the adjoint identity is checked there to 1e-12.
    fused : order 3 is checked too.
    order : the highest order with a gradient: 2 normally, 1 if the gradient has none, 0 for
        operations without gradient (argmax).
    wrt : positions that get gradients; all float inputs by default.
    deterministic : False if fn draws random numbers; then the streams are seeded with 0 before
        every call, so that fn is a function again.
    layouts : memory layouts under which the result must be the same, a subset of LAYOUTS.
    nonfinite : where the reference makes NaN or infinity of one, fn must not be finite.
    float32 : fn is tried in float32, to within 8 eps sqrt(elements) of the reference.
    float32_slack : a factor on that tolerance for ill-conditioned operations (say why).
    slack : a factor on the tolerances of derivative checks (1e-8) and of comparisons of two exact
        computations (1e-12), for ill-conditioned operations (say why).
    """

    name: str
    fn: Callable[..., Tensor]
    reference: Callable[..., Any]
    cases: SearchStrategy[Case]
    linear: tuple[int, ...] = ()
    fused: bool = False
    order: int = 2
    wrt: tuple[int, ...] | None = None
    deterministic: bool = True
    layouts: tuple[str, ...] = LAYOUTS
    nonfinite: bool = True
    float32: bool = True
    float32_slack: float = 1.0
    slack: float = 1.0

    def __repr__(self) -> str:
        return self.name

    def call(self, inputs: Sequence[Any], kwargs: dict[str, Any]) -> Tensor:
        """fn on Tensors (None and Tensors pass through, arrays become constants)."""
        if not self.deterministic:
            mg.manual_seed(0)
        tensors = [x if x is None or isinstance(x, Tensor) else Tensor(x) for x in inputs]
        return self.fn(*tensors, **kwargs)

    def places(self, inputs: Sequence[Any]) -> tuple[int, ...]:
        """The positions that get gradients in this case."""
        if self.wrt is not None:
            return self.wrt
        return tuple(i for i, x in enumerate(inputs) if x is not None and x.dtype.kind == "f")


def leaf(array: Array) -> Tensor:
    """A tensor that asks for a gradient and shares the memory of `array`."""
    t = Tensor(array)
    t.requires_grad = True
    return t


def leaves(inputs: Sequence[Any], places: Sequence[int]) -> list[Any]:
    """The inputs of a call: leaves at `places`, constants elsewhere."""
    return [leaf(x) if i in places else x for i, x in enumerate(inputs)]


def gradients(
    spec: OpSpec,
    inputs: Sequence[Any],
    kwargs: dict[str, Any],
    cotangent: Array,
    places: Sequence[int] | None = None,
    create_graph: bool = False,
) -> list[Array]:
    """d<fn(inputs), cotangent>/d(input) for each place, as arrays (zeros where there is none)."""
    places = spec.places(inputs) if places is None else places
    args = leaves(inputs, places)
    y = spec.call(args, kwargs)
    if y.node is None:
        return [np.zeros_like(inputs[i]) for i in places]
    found = mg.grad(y, [args[i] for i in places], cotangent, create_graph=create_graph)
    return [
        np.zeros_like(inputs[i]) if g is None else g.data
        for i, g in zip(places, found, strict=True)
    ]


def inner(xs: Sequence[Array], ys: Sequence[Array]) -> float:
    """Sum of all products of two lists of arrays."""
    return float(sum(np.sum(x * y) for x, y in zip(xs, ys, strict=True)))


def magnitude(xs: Sequence[Array], ys: Sequence[Array]) -> float:
    """What `inner` would be without cancellation: the yardstick of its error."""
    return float(sum(np.sum(np.abs(x * y)) for x, y in zip(xs, ys, strict=True)))


def stencil(
    f: Callable[[Sequence[Array]], float],
    at: Sequence[Array],
    along: Sequence[Array],
    h: float = 1e-4,
) -> float:
    """Directional derivative of f by four points, error O(h^4):

    (f(-2h) - 8 f(-h) + 8 f(h) - f(2h)) / 12h.
    """

    def moved(t: float) -> float:
        return f([x + t * u for x, u in zip(at, along, strict=True)])

    return (moved(-2 * h) - 8 * moved(-h) + 8 * moved(h) - moved(2 * h)) / (12 * h)


def directional(
    f: Callable[[Sequence[Array]], float],
    at: Sequence[Array],
    claimed: Sequence[Array],
    rng: np.random.Generator,
    rtol: float = 1e-8,
    scale: float = 0.0,
) -> None:
    """Assert that `claimed` is the gradient of f at `at`, along a random direction.

    The step is 1e-4 along a direction with entries in [-1, 1]. The error allowed is rtol times
    the sum of the absolute terms of <gradient, direction>, and what rounding of f itself does to
    a difference quotient: `scale` is the size of the terms that f adds up.
    """
    along = [rng.uniform(-1, 1, x.shape) for x in at]
    measured = stencil(f, at, along)
    expected = inner(claimed, along)
    allowed = rtol * magnitude(claimed, along) + 1e-11 * max(scale, abs(f(at)))
    assert np.isfinite(measured), "the finite difference left the domain of the operation"
    assert abs(measured - expected) <= allowed, (
        f"directional derivative: finite difference {measured:.12g}, gradient {expected:.12g}, "
        f"difference {abs(measured - expected):.3g} > {allowed:.3g}"
    )


def close(actual: Any, expected: Any, rtol: float, what: str) -> None:
    """Assert equality to within rtol of the largest entry: per-entry relative tolerances fail
    where terms cancel, fixed absolute ones where the values are large or small."""
    actual, expected = np.asarray(actual), np.asarray(expected)
    assert actual.shape == expected.shape, f"{what}: shape {actual.shape}, not {expected.shape}"
    if not expected.size:
        return
    allowed = rtol * max(float(np.max(np.abs(expected))), 1e-300)
    error = float(np.max(np.abs(actual - expected)))
    assert error <= allowed, f"{what}: off by {error:.3g}, allowed {allowed:.3g}"


def laid_out(x: Array, layout: str) -> Array:
    """The same values (for "broadcast": the first row for all) in another memory layout."""
    if x.ndim == 0:
        return x
    if layout == "transposed":
        return np.ascontiguousarray(x.swapaxes(0, -1)).swapaxes(0, -1)
    if layout == "reversed":
        backwards = (slice(None, None, -1),) * x.ndim
        return np.ascontiguousarray(x[backwards])[backwards]
    if layout == "sliced":
        wide = np.full([2 * n + 1 for n in x.shape], np.nan, x.dtype)
        window = tuple(slice(1, None, 2) for _ in x.shape)
        wide[window] = x
        return wide[window]
    if layout == "fortran":
        return np.asfortranarray(x)
    if layout == "channels_last":
        return np.moveaxis(np.ascontiguousarray(np.moveaxis(x, 1, -1)), -1, 1) if x.ndim > 2 else x
    if layout == "broadcast":
        return np.broadcast_to(x[:1], x.shape) if x.shape[0] else x
    raise ValueError(layout)
