"""Attention and its gradients on the GPU, in tiles: memory grows with L and S, never with L S.

Multiply-adds bound it: L S (E + V) forward, and five times that backward, where the scores are made
again. What the backward pass must know of a query, three numbers, is its only working memory. A
bias that is learned has a gradient as large as the bias.

A hidden key has the weight 0, so a NaN or infinity in its row still makes the results NaN, as in
the reference; only tiles that `is_causal` hides as a whole are not visited.
"""

from __future__ import annotations

from math import prod
from typing import Any

import numpy as np

from minigan_kernels.cuda.device import REAL, Array, Device, type_name
from minigan_kernels.cuda.memory_order import order_of
from minigan_kernels.cuda.sources import Source

# Rows and columns of a thread, R and C: 16 R queries and 16 C columns of the result for a block.
TILES = {"float": ((8, 8), (8, 4), (4, 4)), "double": ((4, 4),)}
FORWARD = Source(
    "attention.cu",
    tuple(f"attention<{t}, {r}, {c}>" for t, tiles in TILES.items() for r, c in tiles),
)
BACKWARD = Source(
    "attention_backward.cu",
    tuple(f"{n}<{t}>" for n in ("query_gradient", "key_gradients", "bias_gradient") for t in REAL),
)
SOURCES = (FORWARD, BACKWARD)

THREADS = 256
COLUMNS = 64  # keys of a tile
DEPTH = 32
SMS = 132  # a tile may be large if there is at least one for each multiprocessor

_STRIDES = [("batch", np.int64), ("head", np.int64), ("row", np.int64)]
_NUMBERS = ("queries", "keys", "depth", "width", "heads", "causal", "bias_batches", "bias_heads")
SHAPE = np.dtype(
    [
        *[(name, np.int32) for name in _NUMBERS],
        *[(name, _STRIDES) for name in ("q", "k", "v", "g", "y", "dq", "dk", "dv", "bias")],
        ("bias_column", np.int64),
        ("scale", np.float64),
    ]
)


def scaled_dot_product_attention(
    device: Device,
    query: Array,
    key: Array,
    value: Array,
    bias: Array | None,
    is_causal: bool,
    scale: float,
) -> Array:
    """y = softmax(scale query key^T + bias) value. See the reference."""
    result = _like(device, query, value.shape[-1])
    q, k, v = (_stacks(device, a) for a in (query, key, value))
    b = _bias(device, bias, query, key)
    y = _stacks(device, result)
    shape = _shape(q, k, v, b, is_causal, scale, y=y)
    name = type_name(query.dtype)
    r, c = _tile(name, prod(q.shape[:2]), q.shape[2], v.shape[3])
    grid = (-(-q.shape[2] // (16 * r)) * prod(q.shape[:2]), -(-v.shape[3] // (16 * c)))
    instance = f"attention<{name}, {r}, {c}>"
    shared = _shared(query.dtype, r, c)
    arguments = q, k, v, b, y, shape
    device.launch(FORWARD, instance, grid, (THREADS,), *arguments, shared=shared)
    return result


def scaled_dot_product_attention_backward(
    device: Device,
    g: Array,
    query: Array,
    key: Array,
    value: Array,
    bias: Array | None,
    is_causal: bool,
    scale: float,
    needs: tuple[bool, ...],
) -> tuple[Array | None, Array | None, Array | None, Array | None]:
    """(dquery, dkey, dvalue, dbias), None where not needed. See the reference."""
    operands = tuple(_stacks(device, a) for a in (g, query, key, value))
    b = _bias(device, bias, query, key)
    results = [
        _like(device, a, a.shape[-1]) if need else None
        for a, need in zip((query, key, value), needs, strict=False)
    ]
    dq, dk, dv = (None if a is None else _stacks(device, a) for a in results)
    gs, q, k, v = operands
    shape = _shape(q, k, v, b, is_causal, scale, g=gs, dq=dq, dk=dk, dv=dv)
    stacks, queries, keys = prod(q.shape[:2]), q.shape[2], k.shape[2]
    name, shared = type_name(query.dtype), _shared(query.dtype, 4, 4)
    known = device.empty((stacks, queries, 3), query.dtype)
    columns = {"q": -(-q.shape[3] // COLUMNS), "v": -(-v.shape[3] // COLUMNS)}
    grid: tuple[int, ...]
    grid = (-(-queries // COLUMNS) * stacks, max(1, columns["q"] if dq is not None else 1))
    arguments = *operands, b, known
    _backward(device, f"query_gradient<{name}>", grid, shared, *arguments, dq, shape)
    if dk is not None or dv is not None:
        grid = (-(-keys // COLUMNS) * stacks, max(columns.values()))
        _backward(device, f"key_gradients<{name}>", grid, shared, *arguments, dk, dv, shape)
    dbias = None
    if bias is not None and b is not None and needs[3]:
        full = device.empty((*b.shape[:2], queries, keys), query.dtype)
        grid = (-(-queries // COLUMNS) * prod(b.shape[:2]), -(-keys // COLUMNS))
        batches = np.int32(q.shape[0])
        arguments = *arguments, full, shape, batches
        _backward(device, f"bias_gradient<{name}>", grid, shared, *arguments)
        dbias = _to_bias(full, bias, query)
    return results[0], results[1], results[2], dbias


def _backward(
    device: Device, instance: str, grid: tuple[int, ...], shared: int, *arguments: Any
) -> None:
    device.launch(BACKWARD, instance, grid, (THREADS,), *arguments, shared=shared)


def _tile(name: str, stacks: int, queries: int, width: int) -> tuple[int, int]:
    """The largest tile that the result fills and that gives every multiprocessor a block."""
    for r, c in TILES[name][:-1]:
        blocks = -(-queries // (16 * r)) * stacks * -(-width // (16 * c))
        if blocks >= SMS and width > 8 * c:
            return r, c
    return TILES[name][-1]


def _shared(dtype: Any, r: int, c: int) -> int:
    """Bytes of shared memory: the weights, and the larger of what is staged at a time."""
    pad = 16 // dtype.itemsize
    staged = max((16 * r + COLUMNS) * (DEPTH + pad), COLUMNS * (16 * c + pad))
    return int(16 * r * (COLUMNS + 16) + staged) * int(dtype.itemsize)


def _shape(
    q: Array, k: Array, v: Array, bias: Array | None, causal: bool, scale: float, **more: Array
) -> Any:
    """The structure `Shape` of mg_attention.cuh; strides count numbers, not bytes."""
    shape = np.zeros((), SHAPE)
    queries, depth = q.shape[2:]
    keys, width = v.shape[2:]
    groups = (1, 1) if bias is None else bias.shape[:2]
    values = (queries, keys, depth, width, q.shape[1], int(causal), *groups)
    for name, value in zip(_NUMBERS, values, strict=True):
        shape[name] = value
    for name, a in {"q": q, "k": k, "v": v, **more}.items():
        if a is not None:
            shape[name] = tuple(s // a.itemsize for s in a.strides[:3])
    if bias is not None:
        steps = [
            0 if n == 1 else s // bias.itemsize
            for n, s in zip(bias.shape, bias.strides, strict=True)
        ]
        shape["bias"], shape["bias_column"] = tuple(steps[:3]), steps[3]
    shape["scale"] = scale
    return shape


# Stacks of matrices -----------------------------------------------------------------------------


def _stacks(device: Device, x: Array) -> Array:
    """(..., n, m) as (batch, heads, n, m), its rows without gaps: a view where possible."""
    if x.strides[-1] != x.itemsize and x.shape[-1] != 1:
        x = device.xp.ascontiguousarray(x)
    if x.ndim > 4:
        return x.reshape(prod(x.shape[:-3]), *x.shape[-3:])
    return x[(None,) * (4 - x.ndim)]


def _like(device: Device, x: Array, columns: int) -> Array:
    """An uninitialised (..., n, columns), its axes in memory in the order of x (..., n, m)."""
    order = order_of(x)
    if order is None or order[-1] != x.ndim - 1 or x.ndim > 4:
        return device.empty((*x.shape[:-1], columns), x.dtype)
    shape = [*x.shape[:-1], columns]
    y = device.empty([shape[i] for i in order], x.dtype)
    return y.transpose([order.index(i) for i in range(x.ndim)])


def _bias(device: Device, bias: Array | None, query: Array, key: Array) -> Array | None:
    """The bias as (1 or batch, 1 or heads, 1 or L, 1 or S), in the dtype of the query."""
    if bias is None:
        return None
    bias = bias.astype(query.dtype, copy=False)
    bias = bias[(None,) * (max(4, query.ndim) - bias.ndim)]
    if query.ndim == 3:  # the only leading axis is that of the heads
        return bias
    lead = bias.shape[:-3]
    if query.ndim > 4 and prod(lead) != 1 and lead != query.shape[:-3]:
        bias = device.xp.broadcast_to(bias, (*query.shape[:-3], *bias.shape[-3:]))
        bias = device.xp.ascontiguousarray(bias)
    return bias.reshape(prod(bias.shape[:-3]), *bias.shape[-3:])


def _to_bias(full: Array, bias: Array, query: Array) -> Array:
    """The gradient of all scores that have their own bias, summed to the shape of the bias."""
    batches = (1,) * (query.ndim - 3) if full.shape[0] == 1 else query.shape[:-3]
    full = full.reshape(*batches, *full.shape[1:])
    lead = full.ndim - bias.ndim
    shape = (1,) * lead + bias.shape
    axes = tuple(i for i, n in enumerate(shape) if n == 1 and full.shape[i] != 1)
    return (full.sum(axis=axes, keepdims=True) if axes else full).reshape(bias.shape)
