"""Differentiable operations by family. Importing this package gives Tensor its operators."""

import sys

from minigan.autograd import backward
from minigan.ops.elementwise import (
    Add,
    Div,
    Mul,
    Neg,
    Sub,
    abs,
    add,
    cast,
    clamp,
    constant,
    cos,
    div,
    exp,
    expm1,
    lerp,
    log,
    log1p,
    maximum,
    minimum,
    mul,
    neg,
    pow,
    reverse_sub,
    rsqrt,
    scale,
    shift,
    sign,
    sin,
    sqrt,
    square,
    sub,
    tanh,
    where,
)
from minigan.ops.linear import linear, matmul
from minigan.ops.reduce import argmax, cumsum, max, mean, min, norm, std, sum, var
from minigan.ops.shape import (
    broadcast_to,
    cat,
    chunk,
    concat,
    crop,
    flatten,
    flip,
    index,
    index_put,
    pad_zeros,
    permute,
    repeat,
    reshape,
    roll,
    split,
    squeeze,
    stack,
    tile,
    transpose,
    unsqueeze,
)

sys.modules["minigan.tensor"].ops = sys.modules[__name__]  # type: ignore[attr-defined]
