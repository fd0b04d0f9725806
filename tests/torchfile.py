"""Files in the zip format of torch.save, written without PyTorch; good ones and any other.

write(path, {"weight": array})                      what torch.save writes
archive({"x/data.pkl": b"..."})                     any zip archive of stored members
dump(tree)                                          the pickle of a tree, and its storages
"""

from __future__ import annotations

import itertools
import struct
import zlib
from collections import OrderedDict
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

STORAGES = {
    "float64": "DoubleStorage", "float32": "FloatStorage", "float16": "HalfStorage",
    "int64": "LongStorage", "int32": "IntStorage", "int16": "ShortStorage", "int8": "CharStorage",
    "uint8": "ByteStorage", "bool": "BoolStorage",
}  # fmt: skip


class Tensor(NamedTuple):
    """A tensor as the pickle describes it; every part may lie."""

    storage: bytes
    kind: str = "FloatStorage"
    count: int = 1
    offset: Any = 0
    size: Any = (1,)
    stride: Any = (1,)
    key: str | None = None  # of the storage; numbered if None


class Raw(NamedTuple):
    """Opcodes that push one value."""

    code: bytes


def of_array(array: np.ndarray[Any, Any]) -> Tensor:
    """A contiguous array, or bits of bfloat16 in a structured array with the field "bf16"."""
    kind = "BFloat16Storage" if array.dtype.names == ("bf16",) else STORAGES[array.dtype.name]
    strides = tuple(step // array.itemsize for step in np.empty(array.shape, array.dtype).strides)
    return Tensor(array.tobytes(), kind, array.size, 0, array.shape, strides)


def text(value: str) -> bytes:
    raw = value.encode()
    return b"X" + struct.pack("<I", len(raw)) + raw


def number(value: float) -> bytes:
    if isinstance(value, bool):
        return b"\x88" if value else b"\x89"
    if isinstance(value, float):
        return b"G" + struct.pack(">d", value)
    if -(2**31) <= value < 2**31:
        return b"J" + struct.pack("<i", value)
    raw = value.to_bytes(value.bit_length() // 8 + 1, "little", signed=True)
    return b"\x8a" + bytes([len(raw)]) + raw


def named(module: str, name: str) -> bytes:
    return f"c{module}\n{name}\n".encode()


class Dump:
    """Writes a tree as a pickle of protocol 2 and collects its storages."""

    def __init__(self) -> None:
        self.storages: dict[str, bytes] = {}
        self.counter = itertools.count()

    def value(self, item: Any) -> bytes:
        match item:
            case None:
                return b"N"
            case Raw():
                return item.code
            case Tensor():
                return self.tensor(item)
            case np.ndarray():
                return self.tensor(of_array(item))
            case bool() | int() | float():
                return number(item)
            case str():
                return text(item)
            case tuple():
                return b"(" + b"".join(map(self.value, item)) + b"t"
            case list():
                return b"](" + b"".join(map(self.value, item)) + b"e"
            case dict():
                ordered = named("collections", "OrderedDict") + b")R"
                start = ordered if isinstance(item, OrderedDict) else b"}"
                pairs = b"".join(self.value(k) + self.value(v) for k, v in item.items())
                return start + b"(" + pairs + b"u"
        raise TypeError(type(item))

    def tensor(self, item: Tensor) -> bytes:
        key = item.key
        if key is None:
            key = str(next(self.counter))
            self.storages[key] = item.storage
        kind = Raw(named("torch", item.kind))
        identity = self.value(("storage", kind, key, "cpu", item.count)) + b"Q"
        hooks = OrderedDict[str, Any]()
        parts = (Raw(identity), item.offset, item.size, item.stride, False, hooks)
        return named("torch._utils", "_rebuild_tensor_v2") + self.value(parts) + b"R"


def dump(tree: Any) -> tuple[bytes, dict[str, bytes]]:
    """The pickle of `tree`, and its storages by key."""
    writer = Dump()
    return b"\x80\x02" + writer.value(tree) + b".", writer.storages


def archive(members: dict[str, bytes], crc: bool = True) -> bytes:
    """A zip archive of stored members; without checksums if `crc` is False."""
    body, directory = b"", b""
    for name, data in members.items():
        raw, check = name.encode(), zlib.crc32(data) if crc else 0
        fields = struct.pack("<5H3I2H", 0, 0, 0, 0, 0, check, len(data), len(data), len(raw), 0)
        entry = struct.pack("<4sH", b"PK\x01\x02", 0) + fields
        directory += entry + struct.pack("<HHHII", 0, 0, 0, 0, len(body)) + raw
        body += b"PK\x03\x04" + fields + raw + data
    end = (0, 0, len(members), len(members), len(directory), len(body), 0)
    return body + directory + b"PK\x05\x06" + struct.pack("<HHHHIIH", *end)


def packed(pickle: bytes, storages: dict[str, bytes] | None = None, crc: bool = True) -> bytes:
    """The file around a pickle."""
    members = {"net/data.pkl": pickle, "net/byteorder": b"little"}
    members |= {f"net/data/{key}": data for key, data in (storages or {}).items()}
    return archive(members | {"net/version": b"3\n"}, crc)


def write(path: Path, tree: Any, crc: bool = True) -> Path:
    """What torch.save(tree, path) would write."""
    path.write_bytes(packed(*dump(tree), crc))
    return path
