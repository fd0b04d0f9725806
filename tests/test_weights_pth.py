"""Files of torch.save: what they hold comes out bit for bit; damaged and foreign ones do not."""

from __future__ import annotations

import os
import re
import zipfile
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp
from torchfile import STORAGES, Dump, Raw, Tensor, archive, dump, named, packed, text, write

from minigan.errors import CheckpointError
from minigan.weights import load_pth
from minigan.weights.pth import states

F4 = np.arange(12, dtype=np.float32)
GRID = Tensor(F4.tobytes(), count=12, size=(3, 4), stride=(4, 1))


def load(path: Path, tree: Any) -> Any:
    return load_pth(write(path / "x.pth", tree))


@given(st.data())
def test_arrays_come_back_bit_for_bit(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    shape = hnp.array_shapes(min_dims=0, max_dims=4, min_side=0, max_side=4)
    dtype = data.draw(st.sampled_from([*STORAGES]))
    array = data.draw(hnp.arrays(np.dtype(dtype), data.draw(shape)))
    got = load(tmp_path_factory.mktemp("a"), OrderedDict(a=array, b=F4))["a"]
    assert got.dtype == array.dtype and got.shape == array.shape
    assert got.tobytes() == array.tobytes()
    assert not got.flags.writeable


@given(tree=st.recursive(
    st.none() | st.booleans() | st.integers(-(2**200), 2**200) | st.floats(allow_nan=False)
    | st.text(max_size=9),
    lambda inner: st.lists(inner, max_size=3) | st.tuples(inner, inner)
    | st.dictionaries(st.integers() | st.text("abc.", max_size=9), inner, max_size=3),
    max_leaves=12,
))  # fmt: skip
def test_plain_containers_come_back(tmp_path_factory: pytest.TempPathFactory, tree: Any) -> None:
    assert load(tmp_path_factory.mktemp("t"), {"epoch": tree}) == {"epoch": tree}


@given(bits=hnp.arrays(np.uint16, hnp.array_shapes(min_dims=0, max_dims=3, max_side=4)))
def test_bfloat16_becomes_float32(tmp_path_factory: pytest.TempPathFactory, bits: Any) -> None:
    got = load(tmp_path_factory.mktemp("b"), {"a": bits.view([("bf16", "u2")])})["a"]
    assert got.dtype == np.float32 and got.shape == bits.shape
    np.testing.assert_array_equal(got.view(np.uint32), bits.astype(np.uint32) << 16)


def test_strides_offsets_and_shared_storages(tmp_path: Path) -> None:
    views = {
        "transposed": GRID._replace(size=(4, 3), stride=(1, 4), key="0"),
        "row": GRID._replace(size=(4,), stride=(1,), offset=4, key="0"),
        "one": GRID._replace(size=(), stride=(), offset=7, key="0"),
        "none": GRID._replace(size=(0, 5), stride=(5, 1), offset=12, key="0"),
        "expanded": GRID._replace(size=(2, 3), stride=(0, 1), key="0"),
    }
    got = load(tmp_path, {"grid": GRID, **views})
    grid = F4.reshape(3, 4)
    np.testing.assert_array_equal(got["grid"], grid)
    np.testing.assert_array_equal(got["transposed"], grid.T)
    np.testing.assert_array_equal(got["row"], grid[1])
    np.testing.assert_array_equal(got["expanded"], [[0, 1, 2], [0, 1, 2]])
    assert got["one"] == 7 and got["none"].shape == (0, 5)
    assert np.shares_memory(got["grid"], got["row"])  # views: memory is that of the file


def test_big_endian_files(tmp_path: Path) -> None:
    pickle, storages = dump({"a": F4})
    members = {"n/data.pkl": pickle, "n/byteorder": b"big", "n/data/0": F4.astype(">f4").tobytes()}
    (tmp_path / "x.pth").write_bytes(archive(members))
    got = load_pth(tmp_path / "x.pth")["a"]
    assert got.dtype.isnative and storages["0"] == got.tobytes()


def test_parameters_sizes_and_devices(tmp_path: Path) -> None:
    one = Dump().tensor(GRID._replace(key="0"))
    parameter = named("torch._utils", "_rebuild_parameter") + b"(" + one + b"\x88NtR"
    size = named("torch", "Size") + b"(K\x03K\x04t\x85R"
    device = named("torch", "device") + b"(" + text("cuda") + b"K\x00tR"
    got = load(tmp_path, {"g": GRID, "p": Raw(parameter), "s": Raw(size), "d": Raw(device)})
    assert got["s"] == (3, 4) and got["d"] == "cuda:0"
    np.testing.assert_array_equal(got["p"], got["g"])


def test_states_are_the_dictionaries_of_arrays(tmp_path: Path) -> None:
    net = OrderedDict([("a.weight", F4), ("a.bias", F4)])
    tree = {
        "epoch": 3,
        "netG": net,
        "deep": {"er": {"g_ema": net}},
        "optimizer": {"state": {0: {"step": F4}}, "param_groups": [{"lr": 1.0}]},
    }
    found = states(load(tmp_path, tree))
    assert {key: set(arrays) for key, arrays in found.items()} == {
        "netG": {"a.weight", "a.bias"},
        "deep.er.g_ema": {"a.weight", "a.bias"},
    }
    assert set(states(load(tmp_path, net))) == {""}
    assert states([1]) == {}


def test_dictionaries_in_many_places_are_bounded() -> None:
    tree: dict[str, Any] = {"x": F4}
    for _ in range(8):
        tree = {str(i): tree for i in range(30)}
    with pytest.raises(CheckpointError, match="more than 100,000 names"):
        states(tree)
    tree["self"] = tree
    with pytest.raises(CheckpointError, match="more than 100,000 names"):
        states(tree)


# What is refused ---------------------------------------------------------------------------------


def refused(path: Path, data: bytes) -> str:
    (path / "bad.pth").write_bytes(data)
    with pytest.raises(CheckpointError) as caught:
        load_pth(path / "bad.pth")
    assert "bad.pth" in str(caught.value) and "fix:" in str(caught.value)
    return str(caught.value)


TENSORS: list[tuple[str, dict[str, Any], str]] = [
    ("size over the storage", {"size": (4, 4)}, "ends at number 15 of a storage of 12"),
    ("offset over the storage", {"offset": 1}, "ends at number 12"),
    ("stride over the storage", {"stride": (5, 1)}, "ends at number 13"),
    ("one size, two strides", {"size": (3,)}, "1 sizes and 2 strides"),
    ("negative stride", {"stride": (-4, 1)}, "negative"),
    ("negative size", {"size": (-3, 4)}, "negative"),
    ("negative offset", {"offset": -1}, "negative"),
    ("huge size", {"size": (2**60, 4)}, "too large"),
    ("huge expansion", {"size": (2**40, 3), "stride": (0, 1)}, "much larger than the file"),
    ("expansion by dimensions", {"size": (9,) * 32, "stride": (0,) * 32}, "much larger"),
    ("too many dimensions", {"size": (1,) * 33, "stride": (1,) * 33}, "short tuple"),
    ("a float as size", {"size": (3.0, 4)}, "no number"),
    ("a list as size", {"size": [3, 4]}, "short tuple"),
    ("True as size", {"size": (True, 4)}, "no number"),
    ("count of another size", {"count": 13}, "48 bytes, not 13 numbers"),
    ("negative count", {"count": -12}, "48 bytes, not -12 numbers"),
    ("another type", {"kind": "DoubleStorage"}, "48 bytes, not 12 numbers"),
    ("complex numbers", {"kind": "ComplexFloatStorage"}, "type ComplexFloatStorage"),
    ("a storage that is none", {"kind": "nn"}, "'torch.nn', which is not on the list"),
    ("a storage that is a dtype", {"kind": "float32"}, "no type"),
    ("a missing storage", {"key": "7"}, "no storage '7'"),
    ("a path up", {"key": "../data.pkl"}, "no storage '../data.pkl'"),
    ("an absolute path", {"key": "/etc/passwd"}, "no storage '/etc/passwd'"),
    ("an empty key", {"key": ""}, "no storage ''"),
    ("another alphabet", {"key": "٣"}, "no storage"),
]  # fmt: skip


@pytest.mark.parametrize(("changes", "message"), [t[1:] for t in TENSORS], ids=lambda x: "")
def test_tensors_that_lie(tmp_path: Path, changes: dict[str, Any], message: str) -> None:
    pickle, storages = dump(
        {"ok": GRID, "net": OrderedDict([("a.weight", GRID._replace(**changes))])}
    )
    said = refused(tmp_path, packed(pickle, storages))
    assert message in said, said
    assert "key 'net.a.weight', net/data.pkl, byte " in said


def test_a_storage_is_never_another_member(tmp_path: Path) -> None:
    """Even if the archive has a member of that odd name."""
    pickle, _ = dump({"a": Tensor(b"", key="../secret")})
    members = {"net/data.pkl": pickle, "net/data/../secret": bytes(4)}
    assert "no storage '../secret'" in refused(tmp_path, archive(members))


def test_a_damaged_boolean(tmp_path: Path) -> None:
    pickle, storages = dump({"a": Tensor(b"\x00\x02", "BoolStorage", 2, size=(2,))})
    assert "boolean" in refused(tmp_path, packed(pickle, storages))


FOREIGN = [
    (b"", "is empty"),
    (b"\x80\x02\x8a\nl\xfc\x9cF\xf9 j\xa8P\x19.", "old format.*weights_only=True"),
    (b"x" * 257 + b"ustar" + b"\0" * 300, "(?s)tar format.*a file that you trust"),
    (b"\n<!DOCTYPE html><html>", "web page"),
    (b"version https://git-lfs.github.com/spec/v1\n", "git lfs pull"),
    (b"\x02\0\0\0\0\0\0\0{}", "safetensors"),
    (b"GIF89a", "is no file of torch.save"),
    (archive({"a.npy": b"x"}), "not one of torch.save"),
    (archive({"a/data.pkl": b"x", "b/data.pkl": b"x"}), "2 members"),
    (archive({"a/data.pkl": b"x", "a/constants.pkl": b"x"}), "(?s)TorchScript.*jit"),
    (archive({"a/data.pkl": b"x", "a/byteorder": b"middle"}), "byte order"),
]  # fmt: skip


@pytest.mark.parametrize(("data", "message"), FOREIGN, ids=lambda x: "")
def test_other_formats_are_named_with_a_remedy(tmp_path: Path, data: bytes, message: str) -> None:
    assert re.search(message, refused(tmp_path, data).replace("\n", " "))


def test_what_is_no_file(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match=r"gone\.pth cannot be read: No such file"):
        load_pth(tmp_path / "gone.pth")
    with pytest.raises(CheckpointError, match="is no file"):
        load_pth(tmp_path)
    if hasattr(os, "mkfifo"):
        os.mkfifo(tmp_path / "pipe.pth")
        with pytest.raises(CheckpointError, match="is no file"):
            load_pth(tmp_path / "pipe.pth")


def test_zip_archives_that_lie(tmp_path: Path) -> None:
    good = packed(*dump({"a": F4}))
    entry = good.index(b"PK\x01\x02")
    second = good.index(b"PK\x01\x02", entry + 1)

    def patched(at: int, new: bytes) -> str:
        return refused(tmp_path, good[:at] + new + good[at + len(new) :])

    assert "encrypted" in patched(entry + 8, b"\x01")
    assert "compressed" in patched(entry + 10, b"\x08")
    assert "lies about its size" in patched(entry + 20, b"\x01")
    assert "reaches over" in patched(entry + 20, b"\xff\xff\0\0" * 2)
    assert "zip64 size is missing" in patched(entry + 20, b"\xff\xff\xff\xff" * 2)
    assert "not where" in patched(entry + 42, b"\x01")
    assert "another name" in patched(second + 42, b"\0\0\0\0")
    assert "directory" in patched(len(good) - 6, b"\xf0\xff\xff\x7f")
    assert "does not fit into it" in patched(len(good) - 14, b"\xfe\xff\xfe\xff")
    assert "bytes follow" in refused(tmp_path, good + b"more")
    assert "twice" in refused(tmp_path, twice(good))
    assert "overlap" in refused(tmp_path, overlapping())


def twice(good: bytes) -> bytes:
    """The first member a second time in the directory."""
    start, end = good.index(b"PK\x01\x02"), good.rindex(b"PK\x05\x06")
    first = good[start : good.index(b"PK\x01\x02", start + 1)]
    count, size = int.from_bytes(good[end + 8 : end + 10], "little") + 1, end - start + len(first)
    tail = count.to_bytes(2, "little") * 2 + size.to_bytes(4, "little") + good[end + 16 :]
    return good[:end] + first + good[end : end + 8] + tail


def overlapping() -> bytes:
    """A storage whose bytes are also another member, header and all."""
    inner = archive({"n/data/1": b"1234"})
    inner = inner[: inner.index(b"PK\x01\x02")]
    outer = archive({"n/data.pkl": b"x", "n/data/0": inner, "n/data/1": b"1234"})
    nested = outer.index(inner)
    last = outer.rindex(b"PK\x01\x02")
    return outer[: last + 42] + nested.to_bytes(4, "little") + outer[last + 46 :]


def test_a_zip_bomb_is_refused(tmp_path: Path) -> None:
    pickle, _ = dump({"a": Tensor(b"", count=1 << 24, size=(1 << 24,), key="0")})
    with zipfile.ZipFile(tmp_path / "bad.pth", "w", zipfile.ZIP_DEFLATED) as file:
        file.writestr("n/data.pkl", pickle)
        file.writestr("n/data/0", b"\0" * (1 << 26))
    data = (tmp_path / "bad.pth").read_bytes()
    assert len(data) < 100_000
    assert "compressed" in refused(tmp_path, data)


def test_changed_numbers_are_noticed_by_their_checksum(tmp_path: Path) -> None:
    data = bytearray(packed(*dump({"net": {"w": F4}})))
    data[data.index(F4.tobytes()) + 5] ^= 1
    said = refused(tmp_path, bytes(data))
    assert "the bytes of 'net/data/0' changed" in said and "key 'net.w'" in said
