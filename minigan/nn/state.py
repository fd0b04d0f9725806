"""Loading saved arrays into named tensors, all or nothing, with a table of what does not fit."""

from __future__ import annotations

import re
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np

from minigan.backend import Array, beside, is_array, to_numpy
from minigan.errors import CheckpointError, did_you_mean
from minigan.tensor import Tensor

OPTIONAL = "num_batches_tracked"  # a counter that old checkpoints lack, and that is rarely read
ROWS = 20  # of the table


def load_state(
    module: Any,
    state: Mapping[str, Any],
    strict: bool,
    rename: Callable[[str], str | None] | None,
) -> None:
    """See `Module.load_state_dict`; `module` has `named_tensors`."""
    arrays = {}
    for key, value in state.items():
        name = key if rename is None else rename(key)
        if name is not None:
            array = value.data if isinstance(value, Tensor) else value
            arrays[name] = to_numpy(array) if is_array(array) else np.asarray(array)
    tensors = dict(module.named_tensors(unique=False))
    rows = mismatched(arrays, {name: t.data for name, t in tensors.items()})
    if strict:
        first_names = [name for name, _ in module.named_tensors()]
        rows = missing(arrays, first_names, tensors) + unexpected(arrays, tensors) + rows
    refuse(f"load_state_dict: {type(module).__name__}", rows)
    for name, t in tensors.items():
        if name in arrays:
            t.data[...] = beside(arrays[name], t.data)
            t.bump()


def missing(arrays: Mapping[str, Array], names: list[str], tensors: Mapping[str, Any]) -> list[str]:
    """Rows for names that the file lacks. A shared tensor may come under any of its names."""
    present = {id(tensors[name]) for name in arrays if name in tensors}
    return [
        f"missing     {name}  {tensors[name].shape}"
        for name in names
        if id(tensors[name]) not in present and not name.endswith(OPTIONAL)
    ]


def unexpected(arrays: Mapping[str, Array], known: Mapping[str, Any]) -> list[str]:
    """Rows for names that only the file has."""
    free = [name for name in known if name not in arrays]
    others = [(name, array.shape) for name, array in arrays.items() if name not in known]
    return [
        f"unexpected  {name}  {shape}{did_you_mean(name, free) if i < ROWS else ''}"
        for i, (name, shape) in enumerate(others)
    ]


def mismatched(arrays: Mapping[str, Array], known: Mapping[str, Array]) -> list[str]:
    """Rows for arrays of another shape, or that are no real numbers."""
    rows = []
    for name, array in arrays.items():
        if name not in known:
            continue
        if array.shape != known[name].shape:
            rows.append(f"mismatched  {name}  {array.shape} in the file, {known[name].shape} here")
        elif array.dtype.kind not in "fiub":
            rows.append(f"mismatched  {name}  {array.dtype} in the file")
    return rows


def refuse(what: str, rows: list[str]) -> None:
    """Raise CheckpointError with the table if it has rows."""
    if not rows:
        return
    table = rows[:ROWS]
    if len(rows) > ROWS:
        table.append(f"... and {len(rows) - ROWS} more")
    count = "1 misfit" if len(rows) == 1 else f"{len(rows)} misfits"
    raise CheckpointError(
        "\n    ".join([f"{what}: {count}; nothing was loaded", *table]),
        why="every name and shape must agree with what is loaded into",
        fix="build it with the options it was saved with; names may be translated with rename=, "
        "and strict=False accepts missing and unexpected ones",
    )


_RULES = (
    (re.compile(r"^module\."), ""),  # DataParallel
    (re.compile(r"\bparametrizations\.weight\.original$"), "weight"),
    (re.compile(r"\bparametrizations\.weight\.0\._([uv])$"), r"sn.\1"),
    (re.compile(r"\bweight_orig$"), "weight"),
    (re.compile(r"\bweight_([uv])$"), r"sn.\1"),
)


def from_torch(name: str) -> str:
    """Return the name here of a name in a PyTorch state dict.

    Strips the prefix "module." and maps both of PyTorch's spectral norms: `weight_orig`,
    `weight_u`, `weight_v`, and `parametrizations.weight.original`, `.0._u`, `.0._v`, become
    `weight`, `sn.u`, `sn.v`.
    """
    for pattern, replacement in _RULES:
        name = pattern.sub(replacement, name)
    return name
