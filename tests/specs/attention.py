"""Scaled dot-product attention."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from hypothesis import strategies as st
from opspec import Array, Case, OpSpec
from strategies import Draw, cases, masks, shapes, values

from minigan.ops.attention import scaled_dot_product_attention
from minigan.tensor import Tensor

reference = importlib.import_module("minigan_kernels.reference.attention")


@cases
def queries(draw: Draw, rng: np.random.Generator) -> Case:
    batch = draw(shapes(0, 2, 1, 2))
    length, keys, width, out = (draw(st.integers(1, 3)) for _ in range(4))
    full = (*batch, length, keys)
    kind = draw(st.sampled_from(["none", "causal", "seen", "bias"]))
    options: dict[str, Any] = {"is_causal": kind == "causal"}
    options["scale"] = draw(st.sampled_from([None, 1.0, 0.3]))
    options["seen"] = masks(rng, full) if kind == "seen" else None
    bias = None
    if kind == "bias":
        bias = values(rng, [n if draw(st.booleans()) else 1 for n in full])
    inputs = [values(rng, (*batch, *tail)) for tail in ((length, width), (keys, width))]
    return Case((*inputs, values(rng, (*batch, keys, out)), bias), options)


def attend(q: Tensor, k: Tensor, v: Tensor, bias: Any, seen: Any, **options: Any) -> Tensor:
    return scaled_dot_product_attention(q, k, v, bias if seen is None else seen, **options)


def reference_attend(
    q: Array, k: Array, v: Array, bias: Any, seen: Any, is_causal: bool, scale: float | None
) -> Array:
    if seen is not None:
        bias = np.where(seen, 0.0, -np.inf)
    scale = q.shape[-1] ** -0.5 if scale is None else scale
    return np.asarray(reference.scaled_dot_product_attention(q, k, v, bias, is_causal, scale))


SPECS = [
    OpSpec(
        "scaled_dot_product_attention",
        attend,
        reference_attend,
        queries,
        linear=(2,),
        fused=True,
        float32_slack=8,  # an error in a score of size s is an error e^s in its weight
    ),
]
