"""The safetensors container: round trips, damage of every kind, atomic files."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from hypothesis.extra import numpy as hnp

from minigan.errors import CheckpointError
from minigan.weights import atomic, load_file, read_header, save_file

DTYPES = ["f8", "f4", "f2", "i8", "i4", "i2", "i1", "u8", "u4", "u2", "u1", "?", "c8", ">f4"]


def sample_tensors() -> dict[str, np.ndarray[Any, Any]]:
    rng = np.random.default_rng(1)
    return {
        "networks.G.weight": rng.standard_normal((3, 4)).astype(np.float32),
        "optimizers.G.step": np.array(7),
        "networks.G.bias": rng.standard_normal(4).astype(np.float32),
    }


STATE = {"state": {"step": 12, "config": {"name": "x"}, "figures": [0.1, 2.5]}}


@given(st.data())
def test_round_trip_of_any_array(tmp_path_factory: Any, data: st.DataObject) -> None:
    dtype = np.dtype(data.draw(st.sampled_from(DTYPES)))
    shape = hnp.array_shapes(min_dims=0, max_dims=3, min_side=0, max_side=4)
    array = data.draw(hnp.arrays(dtype, data.draw(shape)))
    array = data.draw(st.sampled_from([array, array.T, array[..., ::-1] if array.ndim else array]))
    path = tmp_path_factory.mktemp("c") / "x.safetensors"
    save_file(path, {"a.b": array, "other": np.zeros(2)}, {"note": ["ü", 1.5, None]})
    tensors, metadata = load_file(path)
    assert tensors["a.b"].shape == array.shape
    assert tensors["a.b"].dtype == array.dtype.newbyteorder("=")
    np.testing.assert_array_equal(tensors["a.b"], array)
    assert metadata == {"note": ["ü", 1.5, None]}
    assert read_header(path)[0]["a.b"] == (array.dtype.name, array.shape)


def test_other_programs_read_our_files(tmp_path: Path) -> None:
    from safetensors.numpy import load_file as plain_load

    save_file(tmp_path / "x.safetensors", sample_tensors(), STATE)
    plain = plain_load(tmp_path / "x.safetensors")
    assert {k: v.tolist() for k, v in plain.items()} == {
        k: v.tolist() for k, v in sample_tensors().items()
    }


def test_files_of_other_programs_need_checksums_false(tmp_path: Path) -> None:
    from safetensors.numpy import save_file as plain_save

    path = tmp_path / "x.safetensors"
    plain_save(sample_tensors(), path, {"format": "pt"})
    with pytest.raises(CheckpointError, match="has no checksums"):
        load_file(path)
    tensors, metadata = load_file(path, checksums=False)
    assert set(tensors) == set(sample_tensors())
    assert metadata == {"format": "pt"}
    assert read_header(path)[1] == {"format": "pt"}


_GOOD = b""


def good_bytes(folder: Path) -> bytes:
    global _GOOD
    if not _GOOD:
        path = folder / "good.safetensors"
        save_file(path, sample_tensors(), STATE)
        _GOOD = path.read_bytes()
    return _GOOD


mutations = st.lists(
    st.one_of(
        st.tuples(st.just("flip"), st.integers(0, 2**16), st.integers(0, 7)),
        st.tuples(st.just("set"), st.integers(0, 2**16), st.integers(0, 255)),
        st.tuples(st.just("cut"), st.integers(0, 2**16), st.integers(0, 40)),
        st.tuples(st.just("insert"), st.integers(0, 2**16), st.integers(0, 255)),
        st.tuples(st.just("swap"), st.integers(0, 2**16), st.integers(0, 2**16)),
        st.tuples(st.just("end"), st.integers(0, 2**16), st.just(0)),
    ),
    min_size=1,
    max_size=4,
)


def mutate(data: bytes, changes: list[tuple[str, int, int]]) -> bytes:
    mutant = bytearray(data)
    for kind, place, value in changes:
        at = place % max(1, len(mutant))
        if kind == "flip" and mutant:
            mutant[at] ^= 1 << value
        elif kind == "set" and mutant:
            mutant[at] = value
        elif kind == "cut":
            del mutant[at : at + value]
        elif kind == "insert":
            mutant.insert(at, value)
        elif kind == "swap" and mutant:
            other = value % len(mutant)
            mutant[at], mutant[other] = mutant[other], mutant[at]
        elif kind == "end":
            del mutant[at:]
    return bytes(mutant)


def check_mutant(folder: Path, changes: list[tuple[str, int, int]]) -> None:
    """A changed file is refused, or everything in it is as it was."""
    data = good_bytes(folder)
    path = folder / "mutant.safetensors"
    path.write_bytes(mutate(data, changes))
    try:
        tensors, metadata = load_file(path)
    except CheckpointError as error:
        assert path.name in str(error)
        return
    assert metadata == STATE
    assert set(tensors) == set(sample_tensors())
    for name, array in sample_tensors().items():
        np.testing.assert_array_equal(tensors[name], array)


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz")


@given(changes=mutations)
def test_mutants_are_refused_or_equal(folder: Path, changes: list[tuple[str, int, int]]) -> None:
    check_mutant(folder, changes)


def test_every_single_bit_flip_is_noticed(folder: Path) -> None:
    data = good_bytes(folder)
    for place in range(len(data)):
        check_mutant(folder, [("flip", place, place % 8)])


def test_every_truncation_is_refused(folder: Path) -> None:
    data = good_bytes(folder)
    path = folder / "cut.safetensors"
    for length in range(len(data)):
        path.write_bytes(data[:length])
        with pytest.raises(CheckpointError, match="cut"):
            load_file(path)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(20))
def test_many_random_mutants(folder: Path, seed: int) -> None:
    rng = np.random.default_rng(seed)
    kinds = ["flip", "set", "cut", "insert", "swap", "end"]
    for _ in range(500):
        changes = [
            (kinds[rng.integers(6)], int(rng.integers(2**16)), int(rng.integers(8)))
            for _ in range(rng.integers(1, 5))
        ]
        check_mutant(folder, changes)


def test_the_message_names_file_and_tensor(tmp_path: Path) -> None:
    path = tmp_path / "step-000001.safetensors"
    save_file(path, sample_tensors(), STATE)
    data = bytearray(path.read_bytes())
    place = data.rindex(sample_tensors()["networks.G.weight"].tobytes())
    data[place + 5] ^= 16
    path.write_bytes(data)
    with pytest.raises(CheckpointError, match=r"step-000001.*'networks\.G\.weight' changed"):
        load_file(path)


def header_file(path: Path, header: bytes, body: bytes = b"") -> Path:
    path.write_bytes(len(header).to_bytes(8, "little") + header + body)
    return path


@pytest.mark.parametrize(
    ("header", "text"),
    [
        (b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},' * 2, "header holds"),
        (
            b'{"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]},'
            b'"a":{"dtype":"U8","shape":[1],"data_offsets":[0,1]}}',
            "'a' twice",
        ),
        (b'{"a":{"dtype":"BF16","shape":[1],"data_offsets":[0,2]}}', "type BF16"),
        (b'{"a":{"dtype":"U8","shape":[-1],"data_offsets":[0,1]}}', "damaged"),
        (b'{"a":{"dtype":"U8","shape":[4294967296,4294967296],"data_offsets":[0,1]}}', "damaged"),
        (b'{"a":{"dtype":"U8","shape":[9],"data_offsets":[0,9]}}', "damaged"),
        (b'{"__metadata__":{"x":1}}', "header holds"),
        (b'{"a":5}', "header holds"),
        (b"[" * 5000, "header holds"),
        (b"\xff\xfe", "header holds"),
    ],
)
def test_crafted_headers_are_refused(tmp_path: Path, header: bytes, text: str) -> None:
    path = header_file(tmp_path / "crafted.safetensors", header, b"\0")
    with pytest.raises(CheckpointError, match=text):
        load_file(path, checksums=False)


@pytest.mark.parametrize("length", [2**62, 200_000_000, 2**63 + 5])
def test_huge_header_lengths_allocate_nothing(tmp_path: Path, length: int) -> None:
    path = tmp_path / "huge.safetensors"
    path.write_bytes(length.to_bytes(8, "little") + b"{}")
    for read in (load_file, read_header):
        with pytest.raises(CheckpointError, match="cut short"):
            read(path)


def test_missing_file_and_folder(tmp_path: Path) -> None:
    with pytest.raises(CheckpointError, match="No such file"):
        load_file(tmp_path / "nothing")
    with pytest.raises(CheckpointError, match="cannot be read"):
        load_file(tmp_path)


def test_finite_is_checked_when_asked(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    save_file(path, {"w": np.array([1.0, np.nan]), "i": np.array([1])}, {})
    assert np.isnan(load_file(path)[0]["w"][1])
    with pytest.raises(CheckpointError, match="NaN or infinity in 'w'"):
        load_file(path, finite=True)


def test_what_cannot_be_saved(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    with pytest.raises(CheckpointError, match=r"'o'.*object"):
        save_file(path, {"o": np.array([object()])})
    with pytest.raises(CheckpointError, match="not JSON"):
        save_file(path, {}, {"x": float("nan")})
    assert not path.exists()


# Atomic files --------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["write", "fsync", "replace"])
def test_a_full_disk_keeps_the_old_file(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, name: str
) -> None:
    path = tmp_path / "x.json"
    atomic.write_json(path, {"old": True})

    def full(*args: Any) -> Any:
        raise OSError(errno.ENOSPC, "No space left on device")

    if name == "write":
        opened = open

        def short(file: Any, mode: str = "r", *rest: Any) -> Any:
            handle = opened(file, mode, *rest, buffering=0)
            return FullFile(handle)

        monkeypatch.setattr("builtins.open", short)
    else:
        monkeypatch.setattr(os, name, full)
    with pytest.raises(OSError, match="No space"):
        atomic.write_json(path, {"new": "x" * 1000})
    monkeypatch.undo()
    assert json.loads(path.read_text()) == {"old": True}
    assert [p.name for p in tmp_path.iterdir()] == ["x.json"]


class FullFile:
    """A file on a disk with room for ten more bytes."""

    def __init__(self, file: Any) -> None:
        self.file, self.room = file, 10

    def write(self, data: bytes) -> int:
        self.file.write(data[: self.room])
        raise OSError(errno.ENOSPC, "No space left on device")

    def __enter__(self) -> FullFile:
        return self

    def __exit__(self, *args: object) -> None:
        self.file.close()


def test_windows_sharing_violations_are_retried(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    real, calls = os.replace, []

    def busy(source: Any, target: Any) -> None:
        calls.append(target)
        if len(calls) < 4:
            raise PermissionError(errno.EACCES, "in use")
        real(source, target)

    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(os, "replace", busy)
    monkeypatch.setattr(time, "sleep", lambda _: None)
    atomic.write_text(tmp_path / "x", "new")
    assert (tmp_path / "x").read_text() == "new"
    assert len(calls) == 4


def test_stale_temporary_files_are_removed(tmp_path: Path) -> None:
    (tmp_path / "a.safetensors.99.tmp").write_bytes(b"half")
    (tmp_path / "b.txt").write_text("stays")
    assert [p.name for p in atomic.remove_stale([tmp_path])] == ["a.safetensors.99.tmp"]
    assert [p.name for p in tmp_path.iterdir()] == ["b.txt"]


_SAVER = """
import sys, numpy as np
from pathlib import Path
from minigan.training.checkpoint import Checkpoints
checkpoints = Checkpoints(Path(sys.argv[1]))
step = int(sys.argv[2])
while True:
    step += 1
    arrays = {f"w{i}": np.full(20_000, step, np.float32) for i in range(8)}
    checkpoints.save(arrays, {"step": step}, score=1.0 / step)
    print(step, flush=True)
"""


def kill_in_mid_save(folder: Path, delay: float, first: int) -> int:
    """Run a process that saves without pause, kill it; return the last step it reported."""
    process = subprocess.Popen(
        [sys.executable, "-c", _SAVER, str(folder), str(first)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    last = int(process.stdout.readline())
    time.sleep(delay)
    process.send_signal(signal.SIGKILL)
    rest = process.stdout.read().split()
    process.wait()
    process.stdout.close()
    return int(rest[-1]) if rest else last


def check_survival(folder: Path, kills: int, seed: int) -> None:
    from minigan.training.checkpoint import Checkpoints

    rng, reported = np.random.default_rng(seed), 0
    for _ in range(kills):
        reported = kill_in_mid_save(folder, float(rng.uniform(0, 0.06)), reported)
        snapshot = Checkpoints(folder).load()
        assert snapshot.step >= reported
        assert all((array == snapshot.step).all() for array in snapshot.arrays.values())
        json.loads((folder / "latest.json").read_text())
        json.loads((folder / "best.json").read_text())
        reported = snapshot.step
    atomic.remove_stale([folder])
    assert not list(folder.glob("*.tmp"))


def test_sigkill_while_saving_never_loses_a_checkpoint(tmp_path: Path) -> None:
    check_survival(tmp_path, 8, 0)


@pytest.mark.slow
def test_two_hundred_sigkills_while_saving(tmp_path: Path) -> None:
    check_survival(tmp_path, 200, 1)
