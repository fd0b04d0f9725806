"""The precision class of matrix products and convolutions of float32 arrays, for every device.

"fp32" is accurate to float32 rounding, whatever the instruction: relative error (the norm of the
error over the norm of the result) below 2e-6 against float64. "tf32" permits kernels with a
mantissa of 10 bits or more. A device without faster kernels for a class computes better than asked.
"""

from __future__ import annotations

from contextvars import ContextVar

CLASSES = ("fp32", "tf32")

PRECISION: ContextVar[str] = ContextVar("precision", default="fp32")
