"""The precision class of matrix products and convolutions of float32 arrays, for every device.

"fp32" is accurate to float32 rounding, whatever the instruction: relative error (the norm of the
error over the norm of the result) below 2e-6 against float64. "tf32" permits kernels with a
mantissa of 10 bits or more. A device without faster kernels for a class computes better than asked.

Where neither is asked for, the CPU is accurate; a GPU does as PyTorch does: convolutions in TF32,
matrix products accurate.
"""

from __future__ import annotations

from contextvars import ContextVar

CLASSES = ("fp32", "tf32")
DEFAULT = "default"

PRECISION: ContextVar[str] = ContextVar("precision", default=DEFAULT)


def of_convolutions() -> str:
    """The class of a convolution on a GPU."""
    return "fp32" if PRECISION.get() == "fp32" else "tf32"


def of_products() -> str:
    """The class of a matrix product on a GPU."""
    return "tf32" if PRECISION.get() == "tf32" else "fp32"
