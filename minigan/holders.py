"""Who holds the memory: what an out-of-memory error says besides that there is none left."""

from __future__ import annotations

import contextlib
import gc
import sys
from collections.abc import Iterator
from typing import Any

import numpy as np
from minigan_kernels.cuda.step_graph import StepGraph

from minigan.tensor import Leaf, Tensor

MOST = 6  # holders that are named
_START = "held by tensors and graphs: "


def note(error: BaseException) -> None:
    """Add the largest holders to an out-of-memory error, unless they are there already."""
    if not isinstance(error, MemoryError):
        return
    if not any(text.startswith(_START) for text in getattr(error, "__notes__", [])):
        error.add_note(largest())


def held() -> Iterator[tuple[Any, str]]:
    """(array, who holds it) for all arrays of tensors and of graph nodes, on any device."""
    for found in gc.get_objects():
        if isinstance(found, Tensor):
            learned = isinstance(found.node, Leaf)
            yield found._data, f"a {type(found).__name__}{' that learns' if learned else ''}"
        elif hasattr(type(found), "saves") and hasattr(found, "saved"):
            for array in found.saved:
                if hasattr(array, "nbytes"):
                    yield array, f"kept by {found!r} for the backward pass"


def largest() -> str:
    """The total and the largest holders, in words, each array once."""
    known: dict[Any, tuple[int, str]] = {}
    for array, who in held():
        key, size = _memory(array)
        known.setdefault(key, (size, f"{who}, {array.dtype} {tuple(array.shape)}"))
    total = sum(size for size, _ in known.values())
    rows = sorted(known.values(), reverse=True)[:MOST]
    lines = [f"  {size / 2**20:8.1f} MiB  {who}" for size, who in rows]
    first = f"{_START}{total / 2**20:.1f} MiB in {len(known)} arrays; the largest:"
    return "\n".join([first, *lines, *_recorded(), *_gpu()])


def _memory(array: Any) -> tuple[Any, int]:
    """Which memory an array lies in, and its bytes; views share that of their base."""
    if not isinstance(array, np.ndarray):
        memory = array.data.mem  # CuPy's
        return memory.ptr, memory.size
    owner = array if array.base is None else array.base
    return id(owner), getattr(owner, "nbytes", array.nbytes)


def _recorded() -> list[str]:
    """A line for each step that is recorded as a CUDA graph: its arrays lie in one block."""
    steps = (found for found in gc.get_objects() if type(found) is StepGraph)
    return [f"  {step.arena_bytes / 2**20:8.1f} MiB  a recorded step" for step in steps]


def _gpu() -> list[str]:
    """A line about the GPU's memory, if CuPy is in use: others may hold it."""
    cupy: Any = sys.modules.get("cupy")
    with contextlib.suppress(Exception):
        free, total = cupy.cuda.runtime.memGetInfo()
        kept = cupy.get_default_memory_pool().total_bytes()
        gib = [f"{size / 2**30:.1f} GiB" for size in (free, total, kept)]
        return ["  GPU: {} of {} are free; this process has {}".format(*gib)]
    return []
