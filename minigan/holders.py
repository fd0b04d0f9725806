"""Who holds the memory: what an out-of-memory error says besides that there is none left."""

from __future__ import annotations

import gc
from collections.abc import Iterator
from typing import Any

from minigan.tensor import Leaf, Tensor

MOST = 6  # holders that are named


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
    known: dict[int, tuple[int, str]] = {}
    for array, who in held():
        owner = array if getattr(array, "base", None) is None else array.base
        size = getattr(owner, "nbytes", array.nbytes)
        known.setdefault(id(owner), (size, f"{who}, {array.dtype} {tuple(array.shape)}"))
    total = sum(size for size, _ in known.values())
    rows = sorted(known.values(), reverse=True)[:MOST]
    lines = [f"  {size / 2**20:8.1f} MiB  {who}" for size, who in rows]
    return "\n".join([f"{total / 2**20:.1f} MiB in {len(known)} arrays; the largest:", *lines])
