"""Matrix products."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from opspec import Array, Case, OpSpec
from strategies import Draw, broadcast_shapes, cases, shapes, values

import minigan.functional as F


@cases
def stacks(draw: Draw, rng: np.random.Generator) -> Case:
    """Matrices with equal or broadcastable leading axes."""
    lead_a, lead_b = draw(broadcast_shapes(2, 0, 2, 3))
    n, k, m = (int(i) for i in rng.integers(1, 4, 3))
    return Case((values(rng, (*lead_a, n, k)), values(rng, (*lead_b, k, m))))


@cases
def stack_by_matrix(draw: Draw, rng: np.random.Generator) -> Case:
    n, k, m = (int(i) for i in rng.integers(1, 4, 3))
    return Case((values(rng, (*draw(shapes(1, 2)), n, k)), values(rng, (k, m))))


@cases
def layers(draw: Draw, rng: np.random.Generator) -> Case:
    lead = draw(shapes(0, 2))
    inputs, outputs = (int(i) for i in rng.integers(1, 4, 2))
    arrays = [values(rng, (*lead, inputs)), values(rng, (outputs, inputs))]
    if draw(st.booleans()):
        arrays.append(values(rng, (outputs,)))
    return Case(tuple(arrays))


def reference_matmul(a: Array, b: Array) -> Array:
    return np.asarray((a[..., :, :, None] * b[..., None, :, :]).sum(-2))


def reference_linear(x: Array, weight: Array, bias: Any = None) -> Array:
    y = (x[..., None, :] * weight).sum(-1)
    return np.asarray(y if bias is None else y + bias)


SPECS = [
    OpSpec("matmul", F.matmul, reference_matmul, stacks, linear=(0, 1)),
    OpSpec("matmul-by-matrix", F.matmul, reference_matmul, stack_by_matrix, linear=(0, 1)),
    OpSpec("linear", F.linear, reference_linear, layers, linear=(0, 1)),
]
