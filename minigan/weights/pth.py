"""A reader of the `.pth` and `.pt` files of PyTorch (1.6 and later) that needs no PyTorch.

Such a file is a zip archive: NAME/data.pkl is a pickle of the containers, in which each tensor is
a call of `_rebuild_tensor_v2` with (storage, offset, size, stride, ...), and NAME/data/0,
NAME/data/1 ... are the storages, the numbers themselves. The pickle is read by `unpickle`, which
cannot run anything. All sizes are checked before they are used: the arrays are views of the bytes
of the file, so reading takes no more memory than the file has bytes, but for bfloat16, which
NumPy does not have and which becomes float32.
"""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.errors import CheckpointError
from minigan.weights.foreign import FETCH_AGAIN, check_format
from minigan.weights.unpickle import Name, Ordered, Refused, unpickle
from minigan.weights.zipped import ZipDamage, Zipped

Arrays = dict[str, npt.NDArray[Any]]

_DIMENSIONS = 32  # that all versions of NumPy can do
_EXTENT = 2**48  # of a dimension
_SLACK, _FACTOR = 64 << 20, 8  # all tensors together may have 64 MiB + 8 times the file
_DEPTH = 6  # of dictionaries in dictionaries
_KEYS = 100_000  # in all of them; a dictionary that stands in several places counts each time

_DTYPES = {
    "float64": "f8", "float32": "f4", "float16": "f2", "bfloat16": "bf16", "bool": "?",
    "int64": "i8", "int32": "i4", "int16": "i2", "int8": "i1",
    "uint64": "u8", "uint32": "u4", "uint16": "u2", "uint8": "u1",
}  # fmt: skip
_STORAGES = {
    "DoubleStorage": "f8", "FloatStorage": "f4", "HalfStorage": "f2", "BFloat16Storage": "bf16",
    "BoolStorage": "?", "LongStorage": "i8", "IntStorage": "i4", "ShortStorage": "i2",
    "CharStorage": "i1", "ByteStorage": "u1", "UntypedStorage": "u1",
}  # fmt: skip
_UNREAD = (
    "complex32", "complex64", "complex128", "ComplexFloatStorage", "ComplexDoubleStorage",
    "float8_e4m3fn", "float8_e4m3fnuz", "float8_e5m2", "float8_e5m2fnuz", "float8_e8m0fnu",
    "QInt8Storage", "QUInt8Storage", "QInt32Storage",
)  # fmt: skip

_EXTRACT = (
    "where PyTorch is installed, load {name!r} with torch.load and torch.save nothing but the "
    "state_dict() of its networks, in float32"
)


def load_pth(path: Path | str) -> Any:
    """Return what was given to `torch.save`: containers, numbers, and arrays (read-only).

    Parameters
    ----------
    path : a file of `torch.save` in its zip format. The older formats are refused.

    Raises
    ------
    CheckpointError : missing, damaged, of another format, or asking for objects that are neither
        tensors nor plain containers; the message names the file, the key and the byte.
    """
    path = Path(path)
    try:
        if path.exists() and not path.is_file():
            raise CheckpointError(f"{path} is no file", fix="give the .pth file itself")
        with open(path, "rb", buffering=0) as file:  # a buffer would make a second copy
            check_format(path, file.read(512))
            file.seek(0)
            data = file.read()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    try:
        return _Pth(path, data).read()
    except ZipDamage as error:
        where = "" if error.offset is None else f"byte {error.offset}"
        raise CheckpointError(f"{path} {error.what}", where=where, fix=FETCH_AGAIN) from error


def states(tree: Any, where: str = "") -> dict[str, Arrays]:
    """Find the dictionaries of arrays in what `load_pth` returned.

    Returns {dotted keys that lead there: {name: array}}; the outermost one has the key "". Values
    that are no arrays (numbers, texts) and dictionaries with other keys than texts (the state of
    an optimizer) are left out.
    """
    found: dict[str, Arrays] = {}
    todo, keys = [("", tree, 0)], 0
    while todo:
        prefix, level, depth = todo.pop()
        if not isinstance(level, dict) or depth > _DEPTH:
            continue
        keys += 1 + len(level)
        if keys > _KEYS:
            raise CheckpointError(f"the file holds more than {_KEYS:,} names", where=where)
        if not all(isinstance(key, str) for key in level):
            continue
        arrays = {name: item for name, item in level.items() if isinstance(item, np.ndarray)}
        if arrays:
            found[prefix] = arrays
        inner = [(key, item) for key, item in level.items() if isinstance(item, dict)]
        for key, item in reversed(inner):
            todo.append((f"{prefix}.{key}" if prefix else key, item, depth + 1))
    return found


class _Storage:
    """A storage: its bytes, and how its numbers are written there."""

    def __init__(self, data: memoryview, code: str) -> None:
        self.data, self.code = data, code


class _Pth:
    """One file: its archive, its storages, and how much its tensors may take together."""

    def __init__(self, path: Path, data: bytes) -> None:
        self.path = path
        self.zip = Zipped(data)
        self.allowance = _SLACK + _FACTOR * len(data)
        self.root = self._root()
        self.swapped = self._byte_order() != sys.byteorder
        self.checked: dict[str, memoryview] = {}  # storages whose checksum was compared

    def read(self) -> Any:
        try:
            return unpickle(self.zip.read(f"{self.root}data.pkl"), self._allowed(), self.storage)
        except Refused as error:
            place = f"{self.root}data.pkl, byte {error.offset}"
            where = f"key '{error.key}', {place}" if error.key else place
            fix = _EXTRACT.format(name=self.path.name) if error.why else FETCH_AGAIN
            raise CheckpointError(
                f"{self.path} {error.what}", where=where, why=error.why, fix=fix
            ) from error

    def _root(self) -> str:
        """The folder in the archive, with its slash."""
        names = self.zip.members
        found = [n for n in names if n == "data.pkl" or n.endswith("/data.pkl")]
        root = found[0].removesuffix("data.pkl") if len(found) == 1 else ""
        if root + "constants.pkl" in names:
            raise CheckpointError(
                f"{self.path} is a TorchScript archive: a program, not only weights",
                fix="where PyTorch is installed: "
                f"torch.save(torch.jit.load({self.path.name!r}).state_dict(), 'new.pth')",
            )
        if len(found) != 1:
            raise CheckpointError(
                f"{self.path} is a zip archive, but not one of torch.save",
                why=f"it has {len(found)} members data.pkl; there must be one",
                fix="if the .pth file is inside it, extract that first",
            )
        return root

    def _byte_order(self) -> str:
        """Of the numbers: "little" or "big"."""
        name = f"{self.root}byteorder"
        text = bytes(self.zip.read(name)) if name in self.zip.members else b"little"
        if text not in (b"little", b"big"):
            raise ZipDamage(f"is damaged: its byte order is {text[:20]!r}")
        return text.decode()

    def _allowed(self) -> dict[str, Name]:
        """All that a pickle may name."""
        calls = {
            "collections.OrderedDict": _ordered,
            "torch.Size": lambda arguments: _numbers(*arguments),
            "torch.device": lambda arguments: ":".join(str(part)[:20] for part in arguments[:2]),
            "torch._utils._rebuild_tensor_v2": self.tensor_v2,
            "torch._utils._rebuild_tensor_v3": self.tensor_v3,
            "torch._utils._rebuild_parameter": _first_array,
            "torch._utils._rebuild_parameter_with_state": _first_array,
        }
        names = {name: Name(name, build) for name, build in calls.items()}
        known = (*_DTYPES, *_STORAGES, *_UNREAD)
        plain = ["torch.storage.UntypedStorage", *(f"torch.{name}" for name in known)]
        return names | {name: Name(name) for name in plain}

    def storage(self, identity: Any) -> _Storage:
        """Persistent id ('storage', type, key, location, numel) -> the bytes of that member."""
        if type(identity) is not tuple or len(identity) != 5 or identity[0] != "storage":
            raise Refused("is damaged: it refers to what is no storage")
        _, kind, key, _, count = identity
        code = _code(kind, _STORAGES)
        if type(key) is not str or type(count) is not int:
            raise Refused("is damaged: it refers to a storage that makes no sense")
        name = f"{self.root}data/{key}"
        if not (key.isascii() and key.isdecimal()) or name not in self.zip.members:
            raise Refused(f"is damaged: it has no storage {key[:80]!r}")
        if self.zip.members[name].size != count * _itemsize(code):
            size = self.zip.members[name].size
            raise Refused(f"is damaged: storage {key} has {size} bytes, not {count} numbers")
        if name not in self.checked:
            try:
                self.checked[name] = self.zip.read(name)
            except ZipDamage as error:
                raise Refused(f"{error.what} (byte {error.offset} of the file)") from error
        return _Storage(self.checked[name], code)

    def tensor_v2(self, arguments: tuple[Any, ...]) -> npt.NDArray[Any]:
        """(storage, offset, size, stride, requires_grad, hooks[, metadata]) -> array."""
        storage = arguments[0]
        if not 6 <= len(arguments) <= 7 or type(storage) is not _Storage:
            raise Refused("is damaged: a tensor is not described as tensors are")
        return self.tensor(storage, storage.code, *arguments[1:4])

    def tensor_v3(self, arguments: tuple[Any, ...]) -> npt.NDArray[Any]:
        """(storage, offset, size, stride, requires_grad, hooks, dtype[, metadata]) -> array."""
        if not 7 <= len(arguments) <= 8:
            raise Refused("is damaged: a tensor is not described as tensors are")
        storage, dtype = arguments[0], arguments[6]
        code = _code(dtype, _DTYPES)
        if type(storage) is not _Storage:
            raise Refused("is damaged: a tensor is not described as tensors are")
        return self.tensor(storage, code, *arguments[1:4])

    def tensor(
        self, storage: _Storage, code: str, offset: Any, size: Any, stride: Any
    ) -> npt.NDArray[Any]:
        """View storage[offset + sum_d i_d * stride_d], after checking that all i_d lie in it."""
        shape, steps = _numbers(size), _numbers(stride)
        (offset,) = _numbers((offset,))
        if len(shape) != len(steps):
            raise Refused(f"is damaged: a tensor has {len(shape)} sizes and {len(steps)} strides")
        width = _itemsize(code)
        last = offset + sum((n - 1) * step for n, step in zip(shape, steps, strict=True))
        count = math.prod(shape)
        if count and (last + 1) * width > len(storage.data):
            raise Refused(
                f"is damaged: a tensor of shape {shape} ends at number {last} of a storage of "
                f"{len(storage.data) // width}"
            )
        self.allowance -= count * (4 if code == "bf16" else width)
        if self.allowance < 0:
            raise Refused(
                "holds tensors that are much larger than the file: one number stands for many"
            )
        dtype = np.dtype("u2" if code == "bf16" else code)
        if self.swapped:
            dtype = dtype.newbyteorder("S")
        view: npt.NDArray[Any]
        if count:
            strides = [step * width for step in steps]
            view = np.ndarray(shape, dtype, storage.data, offset * width, strides)
        else:
            view = np.zeros(shape, dtype)
        if code == "bf16":  # the upper half of a float32
            wide = view.astype(np.uint32)
            wide <<= 16
            view = wide.view(np.float32)
        elif code == "?" and count and view.view(np.uint8).max() > 1:
            raise Refused("is damaged: a boolean is neither 0 nor 1")
        elif not dtype.isnative:
            view = view.astype(dtype.newbyteorder("S"))
        view.flags.writeable = False
        return view


def _code(kind: Any, codes: dict[str, str]) -> str:
    """How the numbers of torch.FloatStorage or torch.float32 are written."""
    name = kind.name.rpartition(".")[2] if type(kind) is Name else ""
    if name in _UNREAD:
        raise Refused(f"holds numbers of type {name}", why="real ones of 16 bits or more are read")
    if name not in codes:
        raise Refused("is damaged: a tensor has no type")
    return codes[name]


def _itemsize(code: str) -> int:
    return 2 if code == "bf16" else np.dtype(code).itemsize


def _numbers(value: Any) -> tuple[int, ...]:
    """Sizes, strides or offsets: whole numbers from 0, not too many and not too large."""
    if type(value) is not tuple or len(value) > _DIMENSIONS:
        raise Refused("is damaged: a size is no short tuple")
    if not all(type(n) is int and 0 <= n < _EXTENT for n in value):
        raise Refused("is damaged: a size or stride is negative, too large or no number")
    return value


def _ordered(arguments: tuple[Any, ...]) -> Ordered:
    if arguments:
        raise Refused("fills an OrderedDict in a way that torch.save does not")
    return Ordered()


def _first_array(arguments: tuple[Any, ...]) -> npt.NDArray[Any]:
    """A Parameter is its tensor."""
    if not arguments or not isinstance(arguments[0], np.ndarray):
        raise Refused("is damaged: a parameter is no tensor")
    return arguments[0]
