"""PyTorch as the other side: imported only if it is there, with as many threads as ours."""

from __future__ import annotations

from functools import cache
from typing import Any

from minigan_kernels.cpu.threads import threads


@cache
def torch() -> Any:
    """The module, told the number of threads; None if it is not installed."""
    try:
        import torch
    except ImportError:
        return None
    torch.set_num_threads(threads())
    return torch


def layouts() -> dict[str, Any]:
    """Names of the memory orders that PyTorch is measured in."""
    library = torch()
    if library is None:
        return {}
    return {"nchw": library.contiguous_format, "channels_last": library.channels_last}


def tensor(array: Any, layout: Any = None) -> Any:
    """A copy of a NumPy array as a tensor; arrays with four axes in the given memory order."""
    result = torch().tensor(array)
    return result if layout is None or result.ndim != 4 else result.to(memory_format=layout)


@cache
def _wake_arguments() -> Any:
    library = torch()
    return library.ones(1 << 17), library.ones(1 << 17), library.empty(1 << 17)


def wake() -> None:
    """A tiny parallel call (20 us)."""
    a, b, out = _wake_arguments()
    torch().add(a, b, out=out)
