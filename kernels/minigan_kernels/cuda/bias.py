"""Bias, noise and activation in one pass over memory on the GPU, and the sums of their gradients.

    y = act(x + bias + noise_strength noise) gain

Forward these kernels read x and write y; backward they read g and y, write dx and add it up per
channel on the way. Activations are differentiated from y, so that nothing else is kept.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from minigan_kernels.cuda.device import Array, Device, integers, type_name
from minigan_kernels.cuda.memory_order import channels_last, in_order_of, is_channels_last, like
from minigan_kernels.cuda.planes import THREADS, Picture, Walk, walk
from minigan_kernels.cuda.reduce import SIZES, SUMS, add_cells, axis_sum, zeros
from minigan_kernels.cuda.sources import Source

BENT, TANH, SIGMOID = 0, 1, 2  # activations as the kernels know them
Shape = tuple[int, ...]

KERNELS = Source(
    "bias.cu",
    (
        *(f"bias_act<{t}, {v}, {smooth}>" for t, v in SIZES for smooth in ("false", "true")),
        *(f"bias_act_backward<{t}, {v}>" for t, v in SIZES),
    ),
)
SOURCES = (KERNELS,)


def add_bias(device: Device, y: Array, bias: Array) -> None:
    """y += bias, one number per channel, in place."""
    if y.size == 0:
        return
    if not is_channels_last(y) and not y.flags.c_contiguous:
        y += bias.reshape(1, -1, *[1] * (y.ndim - 2))
        return
    _launch(device, _plan_of(y, False), y, bias, None, None, y, (BENT, 1.0, 1.0))


def channel_sum(device: Device, g: Array) -> Array:
    """Sum over all axes but channels, (C,): the gradient of a bias."""
    return axis_sum(device, g, (0, *range(2, g.ndim)))


def bias_act(
    device: Device,
    x: Array,
    bias: Array | None,
    noise: Array | None,
    noise_strength: Array | None,
    activation: str,
    slope: float,
    gain: float,
) -> Array:
    """act(x + bias + noise_strength noise) gain, in x's memory order."""
    if x.size == 0:
        return device.empty(x.shape, x.dtype)
    x = _in_order(device, x)
    y = like(device, x)
    grain, strength = _noise(device, noise, noise_strength)
    bias = None if bias is None else device.xp.ascontiguousarray(bias)
    plan = _plan_of(x, grain is not None)
    _launch(device, plan, x, bias, grain, strength, y, _how(activation, slope, gain))
    return y


def bias_act_backward(
    device: Device,
    g: Array,
    y: Array,
    noise: Array | None,
    noise_strength: Array | None,
    activation: str,
    slope: float,
    gain: float,
    needs: tuple[bool, ...],
) -> tuple[Array | None, Array | None, Array | None, Array | None]:
    """(dx, dbias, dnoise, dnoise_strength), None where not needed."""
    grain, strength = _noise(device, noise, noise_strength)
    wanted = *needs[:2], *(n and grain is not None for n in needs[2:])
    if y.size == 0:
        shapes = (
            y.shape,
            y.shape[1:2],
            *(() if a is None else a.shape for a in (noise, noise_strength)),
        )
        made = [
            zeros(device, s, y.dtype) if w else None for s, w in zip(shapes, wanted, strict=True)
        ]
        return made[0], made[1], made[2], made[3]
    y = _in_order(device, y)
    dx = like(device, y) if wanted[0] or wanted[2] else None
    plan = _plan_of(y, grain is not None and wanted[3])
    summed = wanted[1] or wanted[3]
    cells = device.empty((plan.walk.cells, 2), np.float64) if summed else None
    kind, low, high = _how(activation, slope, gain)
    device.launch(
        KERNELS,
        f"bias_act_backward<{type_name(y.dtype)}, {plan.walk.vector}>",
        (plan.walk.blocks,),
        (THREADS,),
        *(plan.structure(kind, noise, strength), in_order_of(device, y, g), y),
        *(grain if wanted[3] else None, dx, cells, low, high, float(gain)),
        shared=plan.walk.shared(SUMS) if summed else 0,
    )
    dbias, dstrength = (device.empty((y.shape[1],), y.dtype) if w else None for w in wanted[1::2])
    if cells is not None:
        add_cells(device, cells, y.shape[1], plan.joined, dbias, dstrength)
    if dstrength is not None and strength is not None and strength.size == 1:
        dstrength = axis_sum(device, dstrength, (0,)).reshape(1)
    dnoise = _noise_gradient(device, dx, noise, strength) if wanted[2] else None
    return dx if wanted[0] else None, dbias, dnoise, dstrength


def _noise_gradient(device: Device, dx: Array, noise: Array, strength: Array) -> Array:
    """Sum of dx noise_strength over channels, and over samples that share the noise."""
    weighted = dx * strength.reshape(1, -1, *[1] * (dx.ndim - 2))
    axes = (0, 1) if noise.shape[0] == 1 else (1,)
    return axis_sum(device, weighted, axes).reshape(noise.shape)


@dataclass(frozen=True)
class _Plan:
    walk: Walk
    channels: int
    pixels: int  # of a sample
    joined: tuple[int, int, int]  # how cells make sums per channel

    def structure(self, kind: int, noise: Array | None, strength: Array | None) -> Any:
        """`Bias` of the kernels."""
        step = 0 if noise is None or noise.shape[0] == 1 else self.pixels
        by_channel = int(strength is not None and strength.size > 1)
        return _structure(self.walk, self.channels, kind, step, by_channel)


@lru_cache(maxsize=1024)
def _structure(way: Walk, channels: int, kind: int, step: int, by_channel: int) -> Any:
    fields = {"channels": channels, "kind": kind, "noise_step": step, "by_channel": by_channel}
    return integers(**way.fields, **fields)


def _plan_of(x: Array, noisy: bool) -> _Plan:
    return _plan(x.shape, is_channels_last(x), noisy, x.itemsize)


@lru_cache(maxsize=1024)
def _plan(shape: Shape, last: bool, noisy: bool, item: int) -> _Plan:
    """With noise each sample has planes of its own: a place in R is then a pixel."""
    samples, channels, pixels = shape[0], shape[1], prod(shape[2:])
    if not last:
        found = Picture((samples * channels, pixels, 1), (1, samples, channels, 1), 3, 0, 0)
    elif noisy:
        found = Picture((samples, pixels, channels), (1, samples, channels, 1), 1, 0, 0)
    else:
        found = Picture((1, samples * pixels, channels), (1, 1, channels, 1), 1, 0, 0)
        found = found.with_wide_pixels()
    way = walk(*found.size, item)
    return _Plan(way, channels, pixels, found.joined(way.chunks))


def _launch(
    device: Device,
    plan: _Plan,
    x: Array,
    bias: Array | None,
    noise: Array | None,
    strength: Array | None,
    y: Array,
    how: tuple[int, float, float],
) -> None:
    kind, low, high = how
    smooth = str(kind != BENT).lower()
    device.launch(
        KERNELS,
        f"bias_act<{type_name(x.dtype)}, {plan.walk.vector}, {smooth}>",
        (plan.walk.blocks,),
        (THREADS,),
        *(plan.structure(kind, noise, strength), x, bias, noise, strength, y, low, high),
    )


def _how(activation: str, slope: float, gain: float) -> tuple[int, float, float]:
    """Kind of activation, and the factors below and above 0."""
    kind = {"tanh": TANH, "sigmoid": SIGMOID}.get(activation, BENT)
    low = {"relu": 0.0, "lrelu": float(slope)}.get(activation, 1.0)
    return kind, low * float(gain), float(gain)


def _noise(
    device: Device, noise: Array | None, strength: Array | None
) -> tuple[Array | None, Array | None]:
    """Both without gaps; noise has one channel, so its memory is N,*spatial."""
    if noise is None or strength is None:
        return None, None
    return device.xp.ascontiguousarray(noise), device.xp.ascontiguousarray(strength)


def _in_order(device: Device, x: Array) -> Array:
    """x, copied to channels-last memory unless its channels lie last or first."""
    return x if x.flags.c_contiguous else channels_last(device, x)
