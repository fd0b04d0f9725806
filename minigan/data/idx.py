"""The idx format of MNIST, read with suspicion.

A file is: two zero bytes, a type code (8: unsigned bytes), the number of dimensions, each
dimension as a big-endian 32-bit number, then the data; usually compressed with gzip. A damaged
file must give a clear error, and one whose header promises more than there is must not make us
allocate it: data are taken in small pieces, and never more than promised.
"""

from __future__ import annotations

import math
import struct
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import BinaryIO

import numpy as np

from minigan.errors import DataError

from .pixels import Bytes

_UNSIGNED_BYTE = 8
_PIECE = 1 << 18
LIMIT = 1 << 32  # bytes of data; larger files are refused


def read_idx(path: Path | str, dimensions: int, *, fix: str = "", size: int = 0) -> Bytes:
    """Read an idx file of unsigned bytes, compressed or not.

    Parameters
    ----------
    dimensions : 3 for images (N, H, W), 1 for labels (N,).
    fix : what the error message advises.
    size : length of the file in bytes if it is known, for the error message.

    Raises
    ------
    DataError : the file is missing, damaged, or of another kind.
    """
    path = Path(path)
    fix = fix or "delete it and copy it anew"
    try:
        with open(path, "rb") as file:
            return _read(file, path, dimensions)
    except FileNotFoundError:
        raise DataError(f"{path.name} is not there", where=str(path)) from None
    except OSError as error:
        raise DataError(f"{path.name} cannot be read: {error}", where=str(path)) from error
    except (_Damaged, zlib.error) as error:
        what = f"{path.name} is damaged"
        if size:
            what += f": {path.stat().st_size} bytes, expected {size}"
        raise DataError(what, where=str(path), why=str(error), fix=fix) from None


class _Damaged(Exception):
    """Why a file cannot be right."""


def _read(file: BinaryIO, path: Path, dimensions: int) -> Bytes:
    length = path.stat().st_size
    compressed = file.read(2) == b"\x1f\x8b"
    file.seek(0)
    pieces = _inflated(file) if compressed else iter(lambda: file.read(_PIECE), b"")
    data = bytearray()
    header = 4 + 4 * dimensions
    for piece in pieces:
        data += piece
        if len(data) >= header:
            break
    shape = _shape(bytes(data[:header]), dimensions)
    expected = header + math.prod(shape)
    # gzip cannot shrink by more than a factor of 1032, so a longer promise is a lie.
    if expected > LIMIT or expected > length * (1032 if compressed else 1):
        raise _Damaged(f"its header promises {expected} bytes, too many for this file")
    for piece in pieces:
        data += piece
        if len(data) > expected:
            break
    if len(data) != expected:
        relation = "more than" if len(data) > expected else f"{len(data)} of"
        raise _Damaged(f"it holds {relation} the {expected} bytes that its header promises")
    return np.frombuffer(data, np.uint8, offset=header).reshape(shape)


def _inflated(file: BinaryIO) -> Iterator[bytes]:
    """Decompress one gzip stream piece by piece; zlib checks length and checksum at the end."""
    inflate = zlib.decompressobj(wbits=31)
    rest = b""
    while not inflate.eof:
        rest = rest or file.read(_PIECE)
        if not rest:
            raise _Damaged("the compressed data end too early")
        piece = inflate.decompress(rest, _PIECE)
        rest = inflate.unconsumed_tail
        if piece:
            yield piece
    if inflate.unused_data or file.read(1):
        raise _Damaged("there is something behind the compressed data")


def _shape(header: bytes, dimensions: int) -> tuple[int, ...]:
    if len(header) < 4 + 4 * dimensions:
        raise _Damaged(f"it ends after {len(header)} bytes, within the header")
    zero, kind, found = struct.unpack(">HBB", header[:4])
    if zero or kind != _UNSIGNED_BYTE or found != dimensions:
        wanted = f"0x{_UNSIGNED_BYTE << 8 | dimensions:08x}"
        raise _Damaged(f"it begins with 0x{header[:4].hex()}, expected {wanted}")
    return struct.unpack(f">{dimensions}I", header[4:])
