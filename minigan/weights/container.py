"""The safetensors container with checksums: a damaged file is refused by name, never half read.

The format itself accepts any flipped bit among the numbers and takes the last of two equal keys.
So we keep in its `__metadata__` the CRC-32 of each tensor, and a seal: the CRC-32 of all names,
dtypes, shapes, checksums and metadata. Any other safetensors reader opens these files too.
"""

from __future__ import annotations

import json
import os
import zlib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.errors import CheckpointError
from minigan.weights.atomic import write_bytes

Arrays = dict[str, npt.NDArray[Any]]

_CHECKSUMS, _SEAL = "minigan.crc32", "minigan.seal"
_HEADER_LIMIT = 100_000_000  # bytes; the limit of the format
_DTYPES = {
    "F64": "float64", "F32": "float32", "F16": "float16", "C64": "complex64", "BOOL": "bool",
    "I64": "int64", "I32": "int32", "I16": "int16", "I8": "int8",
    "U64": "uint64", "U32": "uint32", "U16": "uint16", "U8": "uint8",
}  # fmt: skip
_CODES = {name: code for code, name in _DTYPES.items()}


def save_file(
    path: Path | str,
    tensors: Mapping[str, npt.NDArray[Any]],
    metadata: Mapping[str, Any] | None = None,
) -> None:
    """Write `tensors` and `metadata` to `path`, whole or not at all.

    Parameters
    ----------
    path : an existing file is replaced only after the new one is safe on disk.
    tensors : name -> array of any strides; float, integer, bool or complex64.
    metadata : name -> any JSON value without NaN.

    Raises
    ------
    CheckpointError : a dtype that the format does not have, or metadata that is no JSON.
    OSError : the disk is full or the folder cannot be written.
    """
    from safetensors.numpy import save

    dense = {name: np.asarray(array, order="C") for name, array in tensors.items()}
    for name, array in dense.items():
        if array.dtype.name not in _CODES:
            raise CheckpointError(
                f"cannot save '{name}': safetensors has no dtype {array.dtype}", where=str(path)
            )
    checksums = {name: _crc(array) for name, array in dense.items()}
    try:
        texts = {
            name: json.dumps(value, allow_nan=False) for name, value in (metadata or {}).items()
        }
    except (TypeError, ValueError) as error:
        raise CheckpointError(
            "cannot save: the metadata is not JSON", where=str(path), why=str(error)
        ) from error
    header = {name: (_CODES[a.dtype.name], list(a.shape)) for name, a in dense.items()}
    texts[_CHECKSUMS] = json.dumps(checksums, sort_keys=True)
    texts[_SEAL] = _seal(header, texts)
    write_bytes(path, save(dense, texts))


def load_file(
    path: Path | str, *, checksums: bool | None = True, finite: bool = False
) -> tuple[Arrays, dict[str, Any]]:
    """Read and verify a file; return its tensors (read-only arrays) and its metadata.

    Parameters
    ----------
    path : a file that `save_file` wrote.
    checksums : False also takes files of other programs, whose metadata stay strings; None
        takes them too, and verifies checksums where there are any.
    finite : refuse NaN and infinity.

    Raises
    ------
    CheckpointError : missing, cut short, changed, with repeated or unknown keys; the message
        names the file and the tensor.
    """
    from safetensors import SafetensorError, deserialize

    path = Path(path)
    try:
        data = path.read_bytes()
    except OSError as error:
        raise _damaged(path, f"cannot be read: {error.strerror}") from error
    header, metadata = _verified_header(path, data, checksums)
    if checksums is None:
        checksums = _SEAL in metadata
    try:
        views = dict(deserialize(data))  # type: ignore[no-untyped-call]
    except SafetensorError as error:
        raise _damaged(path, f"is damaged: {error}") from error
    expected = json.loads(metadata.pop(_CHECKSUMS, "{}"))
    metadata.pop(_SEAL, None)
    tensors: Arrays = {}
    for name, (dtype, shape) in header.items():
        array = np.frombuffer(views[name]["data"], dtype=_DTYPES[dtype]).reshape(shape)
        if checksums and _crc(array) != expected[name]:
            raise _damaged(path, f"is damaged: the numbers of '{name}' changed since it was saved")
        if finite and array.dtype.kind in "fc" and not np.isfinite(array).all():
            raise _damaged(path, f"holds NaN or infinity in '{name}'")
        tensors[name] = array
    return tensors, _decode(metadata, checksums)


def read_header(path: Path | str) -> tuple[dict[str, tuple[str, tuple[int, ...]]], dict[str, Any]]:
    """Return {tensor: (dtype, shape)} and the metadata without reading the numbers.

    Header and metadata are verified by the seal, if there is one; the numbers are not.
    """
    path = Path(path)
    try:
        with open(path, "rb") as file:
            length = file.read(8)
            size = int.from_bytes(length, "little")
            body = file.read(min(size, _HEADER_LIMIT))
    except OSError as error:
        raise _damaged(path, f"cannot be read: {error.strerror}") from error
    header, metadata = _verified_header(path, length + body, None)
    sealed = metadata.pop(_SEAL, None) is not None
    metadata.pop(_CHECKSUMS, None)
    shapes = {name: (_DTYPES[dtype], tuple(shape)) for name, (dtype, shape) in header.items()}
    return shapes, _decode(metadata, sealed)


def _verified_header(
    path: Path, data: bytes, checksums: bool | None
) -> tuple[dict[str, tuple[str, list[int]]], dict[str, str]]:
    """Parse the header strictly and compare the seal (None: only if there is one)."""
    size = int.from_bytes(data[:8], "little")
    if len(data) < 8 or size > min(_HEADER_LIMIT, len(data) - 8):
        raise _damaged(path, "is not a safetensors file, or is cut short")
    try:
        parsed = json.loads(data[8 : 8 + size].decode(), object_pairs_hook=_no_duplicates)
        metadata: dict[str, str] = parsed.pop("__metadata__", {})
        header = {str(k): (str(v["dtype"]), list(v["shape"])) for k, v in parsed.items()}
        if not all(isinstance(text, str) for text in metadata.values()):
            raise ValueError("metadata that is not text")
    except (ValueError, TypeError, KeyError, AttributeError, RecursionError) as error:
        raise _damaged(path, f"is damaged: its header holds {error}") from error
    unknown = sorted({dtype for dtype, _ in header.values()} - set(_DTYPES))
    if unknown:
        raise _damaged(path, f"holds numbers of type {unknown[0]}, which NumPy does not have")
    if checksums is None:
        checksums = _SEAL in metadata
    if checksums:
        if _SEAL not in metadata or _CHECKSUMS not in metadata:
            raise _damaged(path, "has no checksums: minigan did not write it, or it was changed")
        texts = {name: text for name, text in metadata.items() if name != _SEAL}
        if _seal(header, texts) != metadata[_SEAL]:
            raise _damaged(path, "is damaged: its header changed since it was saved")
    return header, metadata


def _seal(header: Mapping[str, tuple[str, list[int]]], texts: Mapping[str, str]) -> str:
    """Return the CRC-32 of everything in the file but the numbers, which have their own."""
    text = json.dumps([{k: list(v) for k, v in header.items()}, dict(texts)], sort_keys=True)
    return f"{zlib.crc32(text.encode()):08x}"


def _crc(array: npt.NDArray[Any]) -> int:
    little = array.astype(array.dtype.newbyteorder("<"), copy=False)
    return zlib.crc32(little.reshape(-1).view(np.uint8).data)


def _no_duplicates(pairs: list[tuple[str, Any]]) -> dict[str, Any]:
    found = dict(pairs)
    if len(found) != len(pairs):
        names = [name for name, _ in pairs]
        raise ValueError(f"the name '{next(n for n in names if names.count(n) > 1)}' twice")
    return found


def _decode(metadata: dict[str, str], ours: bool) -> dict[str, Any]:
    return {name: json.loads(text) if ours else text for name, text in metadata.items()}


def _damaged(path: Path, what: str) -> CheckpointError:
    fix = "use an earlier checkpoint, or copy the file again" if os.path.exists(path) else ""
    return CheckpointError(f"{path} {what}", fix=fix)
