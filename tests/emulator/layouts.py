"""Arrays on a device in every order of memory."""

from __future__ import annotations

from typing import Any

import numpy as np
from minigan_kernels.cuda.device import Array, Device

LAYOUTS = ("channels-first", "channels-last", "unaligned", "reversed", "gaps")


def laid_out(device: Device, x: np.ndarray[Any, Any], layout: str) -> Array:
    """x on the device.

    Parameters
    ----------
    layout : "channels-first" is contiguous; "unaligned" has channels last, and begins between two
        multiples of 16 bytes; "reversed" has the axes in reverse order; with "gaps" every second
        number belongs to x.
    """
    if layout == "reversed":
        return device.upload(np.ascontiguousarray(x.T)).transpose()
    if layout == "gaps" and x.ndim:
        return device.upload(np.repeat(x, 2, axis=-1))[..., ::2]
    if layout not in ("channels-last", "unaligned"):
        return device.upload(x)
    last = np.moveaxis(x, 1, -1) if x.ndim > 2 else x
    skipped = int(layout == "unaligned")
    numbers = np.concatenate([np.zeros(skipped, x.dtype), last.ravel()])
    y = device.upload(numbers)[skipped:].reshape(last.shape)
    return y.transpose(0, x.ndim - 1, *range(1, x.ndim - 1)) if x.ndim > 2 else y
