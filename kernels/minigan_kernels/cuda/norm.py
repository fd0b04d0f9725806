"""Normalisation and the activation after it on the GPU.

    y = z where z > 0, else slope z,   z = (x - mean) rstd (base + scale) + shift

These kernels wait for memory. A large norm reads x twice and writes y once: it measures, then
applies, with a small kernel between them; its gradient reads g and x twice. Where a block of
threads can see all numbers of its statistics (instance norm, small batch norms, rows of layer
norm), one kernel does everything, and what it reads again comes from the cache.

Sums are made in float32 for sixteen numbers about the first of them and in double from there on;
so mean and variance are right at a mean of 1000, too.
"""

from __future__ import annotations

import numpy as np

from minigan_kernels.cuda.device import Array, Device, type_name
from minigan_kernels.cuda.memory_order import dense, in_order_of, like, order_of
from minigan_kernels.cuda.norm_plan import APPLY, MEASURE, Plan, plan_of
from minigan_kernels.cuda.planes import THREADS
from minigan_kernels.cuda.reduce import SIZES, SUMS, add_cells, axis_sum, join_of, zeros
from minigan_kernels.cuda.sources import Source

MOMENTS = 24  # bytes of a cell of three numbers
_SIZES = [f"{t}, {v}" for t, v in SIZES]

FORWARD = Source(
    "norm.cu",
    ("finish", *(f"normalise<{s}, {maps}>" for s in _SIZES for maps in ("false", "true"))),
)
BACKWARD = Source(
    "norm_gradient.cu",
    (
        *(f"differentiate<{s}, {maps}>" for s in _SIZES for maps in ("false", "true")),
        *(f"sum_maps<{s}>" for s in _SIZES),
        *(f"{k}<{t}>" for k in ("finish_sums", "finish_affine") for t in ("float", "double")),
    ),
)
SOURCES = (FORWARD, BACKWARD)


def norm(
    device: Device,
    x: Array,
    scale: Array | None,
    shift: Array | None,
    axes: tuple[int, ...],
    eps: float,
    slope: float = 1.0,
    base: float = 0.0,
) -> tuple[Array, Array, Array]:
    """(y, mean, rstd); statistics over `axes`, which they keep, in float64."""
    if x.size == 0:
        shape = [1 if i in axes else n for i, n in enumerate(x.shape)]
        return (
            device.empty(x.shape, x.dtype),
            zeros(device, shape, np.float64),
            zeros(device, shape, np.float64),
        )
    affine = _affine_shape(scale, shift)
    x, plan = _planned(device, x, axes, affine)
    y = like(device, x)
    mean, rstd = (device.empty(plan.statistics, np.float64) for _ in range(2))
    scale, shift = (_beside(device, plan, a, x.dtype) for a in (scale, shift))
    way = plan.walk
    cells = None if plan.at_once else device.empty((way.cells, 3), np.float64)

    def launch(steps: int) -> None:
        device.launch(
            FORWARD,
            f"normalise<{_instance(plan, x)}>",
            (way.blocks,),
            (THREADS,),
            *(plan.structure(steps), x, scale, shift, y, mean, rstd, cells),
            *(float(eps), float(slope), float(base)),
            shared=way.shared(MOMENTS) if steps & MEASURE else 0,
        )

    if plan.at_once:
        launch(MEASURE | APPLY)
    else:
        launch(MEASURE)
        join, grid = join_of(plan.results, plan.joined)
        device.launch(FORWARD, "finish", grid, (THREADS,), join, cells, mean, rstd, float(eps))
        launch(APPLY)
    return y, mean.transpose(plan.back), rstd.transpose(plan.back)


def norm_backward(
    device: Device,
    g: Array,
    x: Array,
    scale: Array | None,
    shift: Array | None,
    mean: Array,
    rstd: Array,
    axes: tuple[int, ...],
    slope: float,
    base: float,
    needs: tuple[bool, ...],
) -> tuple[Array | None, Array | None, Array | None]:
    """(dx, dscale, dshift), None where not needed; both have the shape of scale."""
    wanted = needs[0], needs[1] and scale is not None, needs[2] and scale is not None
    if x.size == 0:
        shapes = x.shape, *[() if scale is None else scale.shape] * 2
        made = [
            zeros(device, s, x.dtype) if w else None for s, w in zip(shapes, wanted, strict=True)
        ]
        return made[0], made[1], made[2]
    x, plan = _planned(device, x, axes, _affine_shape(scale, shift))
    gradient = _Gradient(device, plan, in_order_of(device, x, g), x, mean, rstd, slope, base)
    gradient.scale, gradient.shift = (_beside(device, plan, a, x.dtype) for a in (scale, shift))
    dx = like(device, x) if needs[0] else None
    if plan.maps:
        dscale, dshift = gradient.with_maps(dx, wanted[1:])
    else:
        dscale, dshift = gradient.with_numbers(dx, wanted[1:])
    if scale is not None:
        dscale, dshift = (_summed(device, plan, d, scale.shape) for d in (dscale, dshift))
    return dx, dscale, dshift


class _Gradient:
    """The launches of `norm_backward`."""

    scale: Array | None
    shift: Array | None

    def __init__(
        self,
        device: Device,
        plan: Plan,
        g: Array,
        x: Array,
        mean: Array,
        rstd: Array,
        slope: float,
        base: float,
    ) -> None:
        self.device, self.plan, self.g, self.x = device, plan, g, x
        self.mean, self.rstd = (_in_memory(device, plan, a, np.float64) for a in (mean, rstd))
        self.slope, self.base = float(slope), float(base)

    def with_numbers(
        self, dx: Array | None, wanted: tuple[bool, bool]
    ) -> tuple[Array | None, Array | None]:
        """Write dx; return the gradients of scales that are numbers of planes."""
        plan, device = self.plan, self.device
        cells = None
        if any(wanted) or (dx is not None and not plan.at_once):
            cells = device.empty((plan.walk.cells, 2), np.float64)
        if dx is not None:
            self.all_steps(dx, None, None, cells)
        elif cells is not None:
            self.launch(MEASURE, None, None, None, cells, None)
        if not any(wanted):
            return None, None
        assert plan.affine is not None
        made = [device.empty(plan.affine, self.x.dtype) if w else None for w in wanted]
        join, grid = plan.affine_join
        device.launch(
            BACKWARD,
            f"finish_affine<{type_name(self.x.dtype)}>",
            grid,
            (THREADS,),
            *(plan.structure(APPLY), join, cells, self.mean, self.rstd, *made),
        )
        return made[0], made[1]

    def with_maps(
        self, dx: Array | None, wanted: tuple[bool, bool]
    ) -> tuple[Array | None, Array | None]:
        """Write dx; return the gradients of maps."""
        plan, device = self.plan, self.device
        assert plan.affine is not None
        dscale, dshift = (device.empty(plan.affine, self.x.dtype) if w else None for w in wanted)
        own = (None, None) if plan.shared else (dscale, dshift)
        if dx is not None:
            cells = None if plan.at_once else device.empty((plan.walk.cells, 2), np.float64)
            self.all_steps(dx, *own, cells)
        elif any(d is not None for d in own):
            self.launch(APPLY, None, *own, None, None)
        if plan.shared and any(wanted):
            self.sum_maps(dscale, dshift)
        return dscale, dshift

    def all_steps(
        self, dx: Array, dscale: Array | None, dshift: Array | None, cells: Array | None
    ) -> None:
        """Measure, balance and apply."""
        plan, device = self.plan, self.device
        balances = device.empty((plan.results, 2), np.float64)
        if plan.at_once:
            self.launch(MEASURE | APPLY, dx, dscale, dshift, cells, balances)
            return
        self.launch(MEASURE, None, None, None, cells, None)
        join, grid = join_of(plan.results, plan.joined)
        device.launch(
            BACKWARD,
            f"finish_sums<{type_name(self.x.dtype)}>",
            grid,
            (THREADS,),
            *(plan.structure(APPLY), join, cells, self.scale, self.mean, self.rstd, balances),
            *(self.base, float(plan.count)),
        )
        self.launch(APPLY, dx, dscale, dshift, None, balances)

    def launch(self, steps: int, *outputs: Array | None) -> None:
        """`differentiate`; outputs are dx, dscale, dshift, cells and balances."""
        plan, (dx, dscale, dshift, cells, balances) = self.plan, outputs
        self.device.launch(
            BACKWARD,
            f"differentiate<{_instance(plan, self.x)}>",
            (plan.walk.blocks,),
            (THREADS,),
            *(plan.structure(steps), self.g, self.x, self.scale, self.shift, dx, dscale, dshift),
            *(self.mean, self.rstd, cells, balances, self.slope, self.base, float(plan.count)),
            shared=plan.walk.shared(SUMS) if steps & MEASURE else 0,
        )

    def sum_maps(self, dscale: Array | None, dshift: Array | None) -> None:
        """The gradients of maps that all p share."""
        plan, device = self.plan, self.device
        way = plan.map_walk
        cells = device.empty((way.cells, 2), np.float64)
        device.launch(
            BACKWARD,
            f"sum_maps<{type_name(self.x.dtype)}, {way.vector}>",
            (way.blocks,),
            (THREADS,),
            *(way.structure, plan.structure(APPLY), self.g, self.x, self.scale, self.shift),
            *(self.mean, self.rstd, cells, self.slope, self.base),
            shared=way.shared(SUMS),
        )
        add_cells(device, cells, way.width, (way.chunks, way.width, 1), dshift, dscale)


def _instance(plan: Plan, x: Array) -> str:
    return f"{type_name(x.dtype)}, {plan.walk.vector}, {str(plan.maps).lower()}"


def _affine_shape(scale: Array | None, shift: Array | None) -> tuple[int, ...] | None:
    """The shape beside x in which both are given to the kernels."""
    if scale is None or shift is None:
        found = shift if scale is None else scale
        return None if found is None else found.shape
    return np.broadcast_shapes(scale.shape, shift.shape)


def _planned(
    device: Device, x: Array, axes: tuple[int, ...], affine: tuple[int, ...] | None
) -> tuple[Array, Plan]:
    """x in a memory order for which there is a plan, and the plan."""
    x = dense(x)
    order = order_of(x)
    assert order is not None
    plan = plan_of(x.shape, order, axes, affine, x.itemsize)
    if plan is None:
        order = (*(i for i in order if i not in axes), *(i for i in order if i in axes))
        moved = device.xp.ascontiguousarray(x.transpose(order))
        x = moved.transpose([order.index(i) for i in range(x.ndim)])
        plan = plan_of(x.shape, order, axes, affine, x.itemsize)
        assert plan is not None
    return x, plan


def _in_memory(device: Device, plan: Plan, a: Array, dtype: object) -> Array:
    """An array whose memory has the order of x's axes."""
    return device.xp.ascontiguousarray(a.transpose(plan.order), dtype)


def _beside(device: Device, plan: Plan, a: Array | None, dtype: object) -> Array | None:
    """Scale or shift as the kernels read it."""
    if a is None or plan.affine is None:
        return None
    a = a.transpose(plan.order)
    if a.shape != plan.affine:
        a = device.xp.broadcast_to(a, plan.affine)
    return device.xp.ascontiguousarray(a, dtype)


def _summed(device: Device, plan: Plan, d: Array | None, shape: tuple[int, ...]) -> Array | None:
    """The gradient of a scale with x's order of axes, summed where it was written out."""
    if d is None:
        return None
    d = d.transpose(plan.back)
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and d.shape[i] > 1)
    return axis_sum(device, d, axes).reshape(shape) if axes else d
