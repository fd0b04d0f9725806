"""Attention: each query takes a weighted mean of values; the weights say how well keys match."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from minigan.autograd import Fused
from minigan.backend import Array, beside
from minigan.errors import DtypeError, ShapeError, UsageError
from minigan.ops.linear import matmul
from minigan.ops.softmax import softmax
from minigan.tensor import Tensor


class ScaledDotProductAttention(Fused):
    """y = p v,   p = softmax(s),   s = scale q k^T + bias.

    dv = p^T g,   dp = g v^T,   ds = p (dp - sum over keys of p dp),
    dq = scale ds k,   dk = scale ds^T q,   dbias = ds summed to its shape.
    """

    saves = ("query", "key", "value", "bias")
    is_causal: bool
    scale: float

    def forward(self, query: Array, key: Array, value: Array, bias: Array | None) -> Array:
        return self.kernels.scaled_dot_product_attention(
            query, key, value, bias, self.is_causal, self.scale
        )

    def backward_kernel(
        self, g: Array, query: Array, key: Array, value: Array, bias: Array | None
    ) -> Any:
        return self.kernels.scaled_dot_product_attention_backward(
            g, query, key, value, bias, self.is_causal, self.scale, self.needs
        )

    def reference(self, query: Tensor, key: Tensor, value: Tensor, bias: Tensor | None) -> Tensor:
        swapped = (*range(key.ndim - 2), key.ndim - 1, key.ndim - 2)
        scores = matmul(query, key.transpose(swapped)) * self.scale
        if bias is not None:
            scores = scores + bias
        if self.is_causal:
            seen = np.tri(scores.shape[-2], scores.shape[-1])
            hidden = np.where(seen == 0, -np.inf, 0).astype(scores.dtype)
            hidden = hidden.reshape((1,) * (scores.ndim - 2) + hidden.shape)
            scores = scores + Tensor(beside(hidden, scores.data))
        return matmul(softmax(scores), value)


def scaled_dot_product_attention(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attn_mask: Tensor | Array | None = None,
    is_causal: bool = False,
    scale: float | None = None,
) -> Tensor:
    """softmax(scale query key^T + mask) value (Vaswani et al., 2017).

    The scores of all pairs are never in memory together, except under create_graph.

    Parameters
    ----------
    query : (..., L, E). Leading axes: batch and heads.
    key : (..., S, E).
    value : (..., S, V).
    attn_mask : broadcasts to (..., L, S). Booleans: True lets a query see a key. Floats are added
        to the scores and may be learned (position biases). A query that sees nothing gives 0.
    is_causal : query i sees only keys j <= i; not together with attn_mask.
    scale : 1 / sqrt(E) by default. Self-attention GANs use 1.

    Returns
    -------
    Tensor
        (..., L, V).
    """
    batch = query.shape[:-2]
    if (
        query.ndim < 2
        or key.shape != (*batch, *key.shape[-2:])
        or value.shape != (*batch, *value.shape[-2:])
        or key.shape[-1] != query.shape[-1]
        or key.shape[-2] != value.shape[-2]
        or not key.shape[-2]
    ):
        raise ShapeError(
            f"scaled_dot_product_attention: query {query.shape}, key {key.shape} and "
            f"value {value.shape} do not fit together",
            why="they are (..., L, E), (..., S, E) and (..., S, V) with equal leading axes and "
            "at least one key",
        )
    if is_causal and attn_mask is not None:
        raise UsageError(
            "scaled_dot_product_attention: give attn_mask or is_causal, not both",
            fix="combine the two into one mask, for example mask & numpy.tri(L, S, dtype=bool)",
        )
    if scale is None:
        scale = 1 / math.sqrt(query.shape[-1])
    bias = None if attn_mask is None else _bias(attn_mask, query, key)
    return ScaledDotProductAttention.apply(
        query, key, value, bias, is_causal=is_causal, scale=float(scale)
    )


def _bias(mask: Tensor | Array, query: Tensor, key: Tensor) -> Tensor:
    """A mask as numbers to add to the scores, with as many axes as the query."""
    bias = mask if isinstance(mask, Tensor) else Tensor(beside(mask, query.data))
    if bias.dtype == bool:
        bias = Tensor(np.where(bias.data, 0.0, -np.inf).astype(query.dtype))
    if bias.dtype.kind != "f":
        raise DtypeError(
            f"scaled_dot_product_attention: attn_mask of dtype {bias.dtype}",
            fix="use booleans (True: may see) or floats (added to the scores)",
        )
    full = (*query.shape[:-1], key.shape[-2])
    lengths = zip(bias.shape[::-1], full[::-1], strict=False)
    if bias.ndim > len(full) or bias.ndim < 2 or any(m not in (1, n) for m, n in lengths):
        raise ShapeError(
            f"scaled_dot_product_attention: attn_mask {bias.shape} does not broadcast to {full}"
        )
    return bias.reshape((1,) * (len(full) - bias.ndim) + bias.shape)
