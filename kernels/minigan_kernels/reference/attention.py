"""Attention by its definition, one query at a time."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

Array = npt.NDArray[Any]


def scaled_dot_product_attention(
    query: Array,
    key: Array,
    value: Array,
    bias: Array | None,
    is_causal: bool,
    scale: float,
) -> Array:
    """y_i = sum_j p_ij value_j,   p_i = softmax over j of (scale query_i . key_j + bias_ij).

    Parameters
    ----------
    query : (..., L, E)
    key : (..., S, E)
    value : (..., S, V)
    bias : broadcasts to (..., L, S); -infinity hides a key. A query that sees no key gives 0.
    is_causal : query i sees only the keys j <= i.
    """
    y = np.zeros((*query.shape[:-1], value.shape[-1]), query.dtype)
    for place in np.ndindex(query.shape[:-1]):
        batch, i = place[:-1], place[-1]
        p = _probabilities(query, key, bias, is_causal, scale, batch, i)
        y[place] = p @ value[batch]
    return y


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
    """Return (dquery, dkey, dvalue, dbias), None where not needed.

    For each query, with dp_j = g . value_j and ds = p (dp - sum p dp):
    dquery = scale ds . key,  dkey_j += scale ds_j query,  dvalue_j += p_j g,  dbias_j += ds_j.
    """
    dquery, dkey, dvalue = np.zeros_like(query), np.zeros_like(key), np.zeros_like(value)
    shape = (*query.shape[:-1], key.shape[-2])
    ds_all = np.zeros(shape, query.dtype)
    for place in np.ndindex(query.shape[:-1]):
        batch, i = place[:-1], place[-1]
        p = _probabilities(query, key, bias, is_causal, scale, batch, i)
        dp = value[batch] @ g[place]
        ds = p * (dp - p @ dp)
        dquery[place] = scale * ds @ key[batch]
        dkey[batch] += scale * np.outer(ds, query[place])
        dvalue[batch] += np.outer(p, g[place])
        ds_all[place] = ds
    dbias = None
    if bias is not None and needs[3]:
        full = (1,) * (len(shape) - bias.ndim) + bias.shape
        axes = tuple(i for i, n in enumerate(full) if n == 1)
        dbias = ds_all.sum(axis=axes, keepdims=True).reshape(bias.shape)
    return (
        dquery if needs[0] else None,
        dkey if needs[1] else None,
        dvalue if needs[2] else None,
        dbias,
    )


def _probabilities(
    query: Array,
    key: Array,
    bias: Array | None,
    is_causal: bool,
    scale: float,
    batch: tuple[int, ...],
    i: int,
) -> Array:
    scores = key[batch] @ query[(*batch, i)] * scale
    if bias is not None:
        scores = scores + np.broadcast_to(bias, (*query.shape[:-1], key.shape[-2]))[(*batch, i)]
    if is_causal:
        scores[i + 1 :] = -np.inf
    if (scores == -np.inf).all():
        return np.zeros_like(scores)
    powers = np.exp(scores - scores.max())
    p: Array = powers / powers.sum()
    return p
