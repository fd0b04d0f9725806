"""Average and maximum pooling, the deviation over a minibatch."""

from __future__ import annotations

from typing import Any

import numpy as np
from hypothesis import strategies as st
from minigan_kernels import reference
from minigan_kernels.reference.pool import adaptive_avg_pool, avg_pool, pooled_length
from opspec import Array, Case, OpSpec
from strategies import Draw, cases, distinct, maps, per_axis, values

import minigan.functional as F


def windows(draw: Draw, nd: int, dilated: bool) -> tuple[Any, dict[str, Any]]:
    """(shape, kwargs) with at least one window, none of them in the padding alone."""
    kernel, stride = per_axis(draw, nd, 1, 3), per_axis(draw, nd, 1, 3)
    padding = tuple(draw(st.integers(0, k // 2)) for k in kernel)
    dilation = per_axis(draw, nd, 1, 2) if dilated else (1,) * nd
    reach = [d * (k - 1) + 1 for d, k in zip(dilation, kernel, strict=True)]
    low = [max(d, r - 2 * p) for d, r, p in zip(dilation, reach, padding, strict=True)]
    sides = [draw(st.integers(n, n + (3 if nd < 3 else 1))) for n in low]
    kwargs = {"kernel_size": kernel, "stride": stride, "padding": padding}
    kwargs["ceil_mode"] = draw(st.booleans())
    return (
        (draw(st.integers(1, 2)), draw(st.integers(1, 3)), *sides),
        {**kwargs}
        | ({"dilation": dilation} if dilated else {"count_include_pad": draw(st.booleans())}),
    )


def averages(nd: int) -> st.SearchStrategy[Case]:
    @cases
    def drawn(draw: Draw, rng: np.random.Generator) -> Case:
        shape, kwargs = windows(draw, nd, dilated=False)
        return Case((values(rng, shape),), kwargs)

    return drawn


def maxima(nd: int) -> st.SearchStrategy[Case]:
    @cases
    def drawn(draw: Draw, rng: np.random.Generator) -> Case:
        shape, kwargs = windows(draw, nd, dilated=True)
        return Case((distinct(rng, shape),), kwargs)

    return drawn


def reference_max_pool(x: Array, **kwargs: Any) -> Array:
    y: Array = reference.max_pool(x, **kwargs)[0]
    return y


@cases
def adaptive(draw: Draw, rng: np.random.Generator) -> Case:
    shape = draw(maps(2, max_side=5))
    return Case((values(rng, shape),), {"output_size": per_axis(draw, 2, 1, 4)})


@cases
def batches(draw: Draw, rng: np.random.Generator) -> Case:
    parts = draw(st.integers(1, 2))
    shape = (draw(st.integers(1, 6)), parts * draw(st.integers(1, 2)), 2, 2)
    options = {"group_size": draw(st.integers(1, 5)), "num_channels": parts, "eps": 0.1}
    return Case((values(rng, shape),), options)


def reference_minibatch_stddev(x: Array, group_size: int, num_channels: int, eps: float) -> Array:
    """Sample by sample: the group of n is all samples m with m = n mod N/G."""
    n, c = x.shape[:2]
    groups = n // max(g for g in range(1, group_size + 1) if n % g == 0)
    extra = np.empty((n, num_channels, *x.shape[2:]))
    for i in range(n):
        deviation = np.sqrt(x[i % groups :: groups].var(axis=0) + eps)
        for f in range(num_channels):
            width = c // num_channels
            extra[i, f] = deviation[f * width : (f + 1) * width].mean()
    return np.concatenate([x, extra], axis=1)


assert pooled_length(5, 2, 2, 0, ceil_mode=True) == 3

SPECS = [
    *[
        OpSpec(f"avg_pool{nd}d", getattr(F, f"avg_pool{nd}d"), avg_pool, averages(nd), linear=(0,))
        for nd in (1, 2, 3)
    ],
    *[
        OpSpec(
            f"max_pool{nd}d",
            getattr(F, f"max_pool{nd}d"),
            reference_max_pool,
            maxima(nd),
        )
        for nd in (1, 2, 3)
    ],
    OpSpec(
        "adaptive_avg_pool2d",
        F.adaptive_avg_pool2d,
        lambda x, output_size: adaptive_avg_pool(x, output_size),
        adaptive,
        linear=(0,),
    ),
    OpSpec("minibatch_stddev", F.minibatch_stddev, reference_minibatch_stddev, batches),
]
