"""Attention in blocks of batch entries and queries: the (L,S) scores never exist as a whole.

The backward pass computes each block of probabilities again instead of keeping it. float32 goes
through threaded kernels (`attention_kernels`); float64, and a bias that wants a gradient, through
NumPy. Blocks of keys that causal attention hides from a whole block of queries are not looked at:
NaN among their values does not reach results that do not depend on them (0 NaN would).
"""

from __future__ import annotations

from collections.abc import Iterator
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan_kernels.cpu import attention_kernels

Array = npt.NDArray[Any]

BLOCK = 1 << 20  # scores that exist at a time: 4 MiB in float32


def scaled_dot_product_attention(
    query: Array, key: Array, value: Array, bias: Array | None, is_causal: bool, scale: float
) -> Array:
    """y = softmax(scale query key^T + bias) value. See the reference."""
    q, k, v = _stacks(query), _stacks(key), _stacks(value)
    views = _bias_rows(bias, query, key)
    if attention_kernels.takes([q, k, v]):
        y = attention_kernels.forward(q, k, v, _in_kernels(views), is_causal, scale)
        return y.reshape(*query.shape[:-1], value.shape[-1])
    y = np.empty((*q.shape[:2], v.shape[2]), q.dtype)
    for b, rows in _blocks(q.shape[0], q.shape[1], k.shape[1]):
        p = _probabilities(q[b, rows], k[b], views, is_causal, scale, b, rows)
        np.matmul(p, v[b], out=y[b, rows])
    return y.reshape(*query.shape[:-1], value.shape[-1])


def scaled_dot_product_attention_backward(
    g: Array,
    query: Array,
    key: Array,
    value: Array,
    bias: Array | None,
    is_causal: bool,
    scale: float,
    needs: tuple[bool, ...],
) -> tuple[Array | None, Array | None, Array | None, Array | None]:
    """dp = g value^T, ds = p (dp - sum p dp), dquery = scale ds key. See the reference."""
    q, k, v, gs = (_stacks(a) for a in (query, key, value, g))
    views = _bias_rows(bias, query, key)
    if attention_kernels.takes([q, k, v, gs]) and (bias is None or not needs[3]):
        options = _in_kernels(views), is_causal, scale, needs
        d = attention_kernels.backward(gs, q, k, v, *options)
        dq, dk, dv = (
            None if a is None else a.reshape(x.shape)
            for a, x in zip(d, (query, key, value), strict=True)
        )
        return dq, dk, dv, None
    dq = np.empty(q.shape, q.dtype) if needs[0] else None
    dk = np.zeros(k.shape, k.dtype) if needs[1] else None
    dv = np.zeros(v.shape, v.dtype) if needs[2] else None
    dbias = np.zeros(bias.shape, bias.dtype) if bias is not None and needs[3] else None
    for b, rows in _blocks(q.shape[0], q.shape[1], k.shape[1]):
        p = _probabilities(q[b, rows], k[b], views, is_causal, scale, b, rows)
        if dv is not None:
            dv[b] += np.matmul(p.swapaxes(1, 2), gs[b, rows])
        ds = np.matmul(gs[b, rows], v[b].swapaxes(1, 2))
        ds -= np.einsum("bls,bls->bl", p, ds)[:, :, None]
        ds *= p
        if dbias is not None:
            _add_bias_rows(dbias, ds, query.shape[:-2], b, rows)
        ds *= scale
        if dq is not None:
            np.matmul(ds, k[b], out=dq[b, rows])
        if dk is not None:
            dk[b] += np.matmul(ds.swapaxes(1, 2), q[b, rows])
    return (
        None if dq is None else dq.reshape(query.shape),
        None if dk is None else dk.reshape(key.shape),
        None if dv is None else dv.reshape(value.shape),
        dbias,
    )


def _stacks(x: Array) -> Array:
    """(..., n, m) as (B, n, m): a view where that is possible."""
    return x.reshape(prod(x.shape[:-2]), *x.shape[-2:])


def _blocks(batch: int, queries: int, keys: int) -> Iterator[tuple[slice, slice]]:
    """Slices of batch entries and of queries whose scores fit into BLOCK."""
    length = max(1, min(queries, BLOCK // max(keys, 1)))
    count = max(1, BLOCK // max(queries * keys, 1))
    for b in range(0, batch, count):
        for i in range(0, queries, length):
            yield slice(b, min(b + count, batch)), slice(i, min(i + length, queries))


def _probabilities(
    q: Array,
    k: Array,
    bias: Array | None,
    is_causal: bool,
    scale: float,
    b: slice,
    rows: slice,
) -> Array:
    """softmax of one block (entries, queries, keys); zeros where a query sees no key."""
    p: Array = np.matmul(q, k.swapaxes(1, 2))
    p *= scale
    if bias is not None:
        batch = bias.shape[:-2]
        for n in range(b.start, b.stop):
            p[n - b.start] += bias[np.unravel_index(n, batch)][rows] if batch else bias[rows]
    if is_causal:
        late = np.arange(p.shape[2])[None, :] > np.arange(rows.start, rows.stop)[:, None]
        p[:, late] = -np.inf
    top = p.max(axis=2, keepdims=True)
    p -= np.where(top == -np.inf, 0, top).astype(p.dtype)
    np.exp(p, out=p)
    total = p.sum(axis=2, keepdims=True)
    np.divide(p, np.where(total == 0, 1, total).astype(p.dtype), out=p)
    return p


def _bias_rows(bias: Array | None, query: Array, key: Array) -> Array | None:
    """bias seen as (..., L, S): a view, whatever its shape."""
    return None if bias is None else np.broadcast_to(bias, (*query.shape[:-1], key.shape[-2]))


def _in_kernels(bias: Array | None) -> Array | None:
    """A bias that kernels can read: float32, keys next to each other or all the same."""
    if bias is None or (bias.dtype == np.float32 and bias.strides[-1] in (0, 4)):
        return bias
    return np.ascontiguousarray(bias, np.float32)


def _add_bias_rows(dbias: Array, ds: Array, batch: tuple[int, ...], b: slice, rows: slice) -> None:
    """Add a block of ds to the elements of dbias that were broadcast to it."""
    lead = len(batch) + 2 - dbias.ndim  # leading axes that bias does not have
    for n in range(b.start, b.stop):
        entry = np.unravel_index(n, batch)[lead:] if batch else ()
        place = tuple(0 if dbias.shape[i] == 1 else int(j) for i, j in enumerate(entry))
        target = dbias[place]
        part = ds[n - b.start]
        part = part.sum(axis=1, keepdims=True) if target.shape[1] == 1 else part
        if target.shape[0] == 1:
            target += part.sum(axis=0, keepdims=True)
        else:
            target[rows] += part
