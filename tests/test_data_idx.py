"""idx files: what is right is read, what is damaged is refused with a clear message."""

from __future__ import annotations

import gzip
import struct
import tracemalloc
import zlib
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigan.data.idx import read_idx
from minigan.errors import DataError

IMAGES = np.random.default_rng(7).integers(0, 256, (5, 4, 3), np.uint8)


def idx_bytes(array: np.ndarray, *, magic: int | None = None, shape: tuple | None = None) -> bytes:
    """An idx file; `magic` and `shape` let the header lie."""
    shape = array.shape if shape is None else shape
    head = struct.pack(">I", 0x0800 | array.ndim if magic is None else magic)
    return head + struct.pack(f">{len(shape)}I", *shape) + array.tobytes()


COMPRESSED = gzip.compress(idx_bytes(IMAGES), mtime=0)


def write(folder: Path, data: bytes, name: str = "images.gz") -> Path:
    path = folder / name
    path.write_bytes(data)
    return path


@pytest.mark.parametrize("data", [idx_bytes(IMAGES), COMPRESSED], ids=["plain", "gzip"])
def test_reads_what_was_written(tmp_path: Path, data: bytes) -> None:
    images = read_idx(write(tmp_path, data), 3)
    assert images.dtype == np.uint8
    np.testing.assert_array_equal(images, IMAGES)


def test_reads_more_than_one_piece(tmp_path: Path) -> None:
    big = np.random.default_rng(0).integers(0, 4, (30, 200, 200), np.uint8)
    path = write(tmp_path, gzip.compress(idx_bytes(big)))
    np.testing.assert_array_equal(read_idx(path, 3), big)


def test_reads_an_empty_set(tmp_path: Path) -> None:
    path = write(tmp_path, idx_bytes(np.empty((0, 28, 28), np.uint8)))
    assert read_idx(path, 3).shape == (0, 28, 28)


@given(cut=st.integers(0, len(COMPRESSED) - 1))
def test_every_truncation_is_damage(tmp_path_factory: pytest.TempPathFactory, cut: int) -> None:
    path = write(tmp_path_factory.mktemp("cut"), COMPRESSED[:cut])
    with pytest.raises(DataError, match=r"images\.gz is damaged"):
        read_idx(path, 3)


@given(cut=st.integers(0, len(idx_bytes(IMAGES)) - 1))
def test_every_truncation_of_a_plain_file_is_damage(
    tmp_path_factory: pytest.TempPathFactory, cut: int
) -> None:
    path = write(tmp_path_factory.mktemp("cut"), idx_bytes(IMAGES)[:cut])
    with pytest.raises(DataError, match="is damaged"):
        read_idx(path, 3)


def test_every_flipped_byte_is_found_or_harmless(tmp_path: Path) -> None:
    for position in range(len(COMPRESSED)):
        for mask in (0x01, 0x80, 0xFF):
            changed = bytearray(COMPRESSED)
            changed[position] ^= mask
            path = write(tmp_path, bytes(changed))
            try:
                images = read_idx(path, 3)
            except DataError:
                continue
            np.testing.assert_array_equal(images, IMAGES)


@given(st.binary(max_size=200))
def test_noise_is_damage(tmp_path_factory: pytest.TempPathFactory, noise: bytes) -> None:
    path = write(tmp_path_factory.mktemp("noise"), b"\x1f\x8b" + noise)
    with pytest.raises(DataError):
        read_idx(path, 3)


@pytest.mark.parametrize(
    ("data", "why"),
    [
        (b"", "ends after 0 bytes"),
        (idx_bytes(IMAGES, magic=0x801), "begins with 0x00000801, expected 0x00000803"),
        (idx_bytes(IMAGES, magic=0xD03), "begins with 0x00000d03"),
        (idx_bytes(IMAGES, shape=(6, 4, 3)), "promises 88 bytes"),
        (idx_bytes(IMAGES, shape=(4, 4, 3)), "more than the 64 bytes"),
        (idx_bytes(IMAGES, shape=(2**32 - 1,) * 3), "too many for this file"),
        (gzip.compress(idx_bytes(IMAGES, shape=(6, 4, 3)), mtime=0), "76 of the 88 bytes"),
        (gzip.compress(idx_bytes(IMAGES, shape=(2**31, 1, 1)), mtime=0), "too many for this file"),
        (COMPRESSED + b"more", "something behind"),
        (COMPRESSED[:-8] + b"\0" * 8, "incorrect data check"),
        (b"<html>403 Forbidden</html>", "begins with 0x3c68746d"),
    ],
)
def test_says_what_is_wrong(tmp_path: Path, data: bytes, why: str) -> None:
    with pytest.raises(DataError, match=why):
        read_idx(write(tmp_path, data), 3)


def test_message_names_sizes_and_remedy(tmp_path: Path) -> None:
    path = write(tmp_path, COMPRESSED[:-5])
    with pytest.raises(DataError) as caught:
        read_idx(path, 3, fix="delete it and fetch it again: minigan data get mnist", size=1234)
    assert str(caught.value) == (
        f"images.gz is damaged: {len(COMPRESSED) - 5} bytes, expected 1234\n"
        f"  where: {path}\n"
        "  why: the compressed data end too early\n"
        "  fix: delete it and fetch it again: minigan data get mnist"
    )


def test_missing_file(tmp_path: Path) -> None:
    with pytest.raises(DataError, match=r"images\.gz is not there"):
        read_idx(tmp_path / "images.gz", 3)


def test_lies_are_not_allocated(tmp_path: Path) -> None:
    """A bomb that decompresses to 64 MB behind a header that promises 12 bytes."""
    packer = zlib.compressobj(9, wbits=31)
    data = packer.compress(idx_bytes(IMAGES, shape=(1, 4, 3)))
    for _ in range(64):
        data += packer.compress(bytes(1 << 20))
    path = write(tmp_path, data + packer.flush())
    tracemalloc.start()
    with pytest.raises(DataError, match="more than"):
        read_idx(path, 3)
    _, peak = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert peak < 4 << 20
