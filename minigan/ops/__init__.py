"""Differentiable operations by family. Importing this package gives Tensor its operators.

`minigan.functional` is the flat face over all families; here stand the few that Tensor calls.
"""

import sys

from minigan.autograd import backward
from minigan.ops.arithmetic import (
    Add,
    Div,
    Mul,
    Neg,
    Sub,
    cast,
    constant,
    reverse_sub,
    scale,
    shift,
)
from minigan.ops.elementwise import (
    Abs,
    Exp,
    Log,
    Sqrt,
    Square,
    Tanh,
    clamp,
    pow,
)
from minigan.ops.linear import matmul
from minigan.ops.reduce import argmax, max, mean, min, std, sum, var
from minigan.ops.shape import flatten, index, reshape, transpose

sys.modules["minigan.tensor"].ops = sys.modules[__name__]  # type: ignore[attr-defined]
