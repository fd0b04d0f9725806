"""Sums of losses, and their gradients, on the GPU: one pass over x and the target each.

The bytes bound them: 4 or 8 read for each float32, and 4 written for a gradient. A sum stays on
the device, as an array without axes (float64), so that nobody waits for it; the factor of a
gradient may be such an array.
"""

from __future__ import annotations

import numpy as np

from minigan_kernels.cuda.device import REAL, Array, Device, type_name
from minigan_kernels.cuda.memory_order import dense, in_order_of, like
from minigan_kernels.cuda.sources import Source

KINDS = {"mse": "Mse", "l1": "L1", "bce": "Bce", "hinge": "Hinge", "softplus": "Softplus"}
KERNELS = Source(
    "loss.cu",
    (
        *[f"loss_sum<{t}, {loss}>" for loss in KINDS.values() for t in REAL],
        *[f"loss_gradient<{t}, {loss}>" for loss in KINDS.values() for t in REAL],
        "add_up",
    ),
)
SOURCES = (KERNELS,)

THREADS = 256
BYTES = 4 * 16  # of x that a thread of `loss_sum` reads at a time
MOST_BLOCKS = 1024  # of `loss_sum`: as many as run at the same time
SHARED = THREADS // 32 * 8  # one float64 for each warp


def loss_sum(
    device: Device, x: Array, target: Array | float | None, kind: str, sign: float
) -> Array:
    """Sum of the losses of all elements, an array without axes. See `reference.loss_sum`."""
    x, y, number = _operands(device, x, target)
    blocks = max(1, min(-(-x.nbytes // (THREADS * BYTES)), MOST_BLOCKS))
    sums = device.empty((blocks,), np.float64)
    name = f"loss_sum<{type_name(x.dtype)}, {KINDS[kind]}>"
    operands = x, y, sums, x.size, number, float(sign)
    device.launch(KERNELS, name, (blocks,), (THREADS,), *operands, shared=SHARED)
    if blocks == 1:
        return sums.reshape(())
    total = device.empty((), np.float64)
    arguments = sums, total, np.int32(blocks)
    device.launch(KERNELS, "add_up", (1,), (THREADS,), *arguments, shared=SHARED)
    return total


def loss_gradient(
    device: Device,
    x: Array,
    target: Array | float | None,
    kind: str,
    sign: float,
    factor: float | Array,
) -> Array:
    """factor times the derivative of each loss by x. See `reference.loss_gradient`."""
    if not x.size:
        return device.empty(x.shape, x.dtype)
    x, y, number = _operands(device, x, target)
    dx = like(device, x)
    weight = factor.astype(x.dtype) if isinstance(factor, device.xp.ndarray) else None
    by = float(factor) if weight is None else 1.0
    blocks = -(-x.nbytes // (THREADS * 16))
    name = f"loss_gradient<{type_name(x.dtype)}, {KINDS[kind]}>"
    arguments = x, y, dx, x.size, number, float(sign), by, weight
    device.launch(KERNELS, name, (blocks,), (THREADS,), *arguments)
    return dx


def _operands(
    device: Device, x: Array, target: Array | float | None
) -> tuple[Array, Array | None, float]:
    """x without gaps, the target in its memory order, or the number that is the target of all."""
    if x.size:
        x = dense(x)
    if not isinstance(target, device.xp.ndarray):
        return x, None, 0.0 if target is None else float(target)
    if not x.size:
        return x, None, 0.0
    y = target if target.dtype == x.dtype else target.astype(x.dtype)
    return x, in_order_of(device, x, y), 0.0
