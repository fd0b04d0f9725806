"""The run folder: numbers, locks, lines, names, and what happens when it cannot be written."""

from __future__ import annotations

import errno
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigan.errors import CheckpointError, ResourceError, UsageError
from minigan.training import rundir
from minigan.training.rundir import RunFolder, clean_name, read_lines, to_line


def make(folder: Path, name: str = "toy") -> RunFolder:
    run = RunFolder.create(folder / "runs", name)
    run.write_config({"seed": 1})
    return run


def test_runs_are_numbered_in_order(tmp_path: Path) -> None:
    out = tmp_path / "runs"
    paths = [RunFolder.create(out, name).path.name for name in ("a", "b", "a")]
    assert paths == ["00000-a", "00001-b", "00002-a"]
    (out / "00041-other").mkdir()
    (out / "notes.txt").write_text("")
    (out / "00050").mkdir()  # left by a process that died while it made a run
    assert RunFolder.create(out, "c").path.name == "00051-c"


_CREATOR = """
import sys
from minigan.training.rundir import RunFolder
print("ready", flush=True)
sys.stdin.readline()
print(*[RunFolder.create(sys.argv[1], sys.argv[2]).path.name for _ in range(20)])
"""


def test_eight_processes_get_distinct_numbers(tmp_path: Path) -> None:
    pipe = subprocess.PIPE
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", _CREATOR, str(tmp_path), f"n{i % 3}"],
            stdin=pipe,
            stdout=pipe,
            text=True,
        )
        for i in range(8)
    ]
    for process in processes:
        assert process.stdout is not None
        assert process.stdout.readline() == "ready\n"
    for process in processes:  # all wait at the barrier: let them go
        assert process.stdin is not None
        process.stdin.write("go\n")
        process.stdin.flush()
    names = [name for process in processes for name in process.communicate(timeout=60)[0].split()]
    numbers = [name[:5] for name in names]
    assert len(set(numbers)) == len(numbers) == 160
    assert sorted(path.name for path in tmp_path.iterdir()) == sorted(names)


@given(st.text())
def test_names_are_folders_and_nothing_else(text: str) -> None:
    name = clean_name(text)
    assert 0 < len(name) <= 80
    assert all(c.isascii() and (c.isalnum() or c in "._-") for c in name)
    assert name[0] not in "._-"


@pytest.mark.parametrize("text", ["../../x", "<script>alert(1)</script>", "a/b\\c", "..", "C:x"])
def test_path_tricks_in_names(tmp_path: Path, text: str) -> None:
    run = RunFolder.create(tmp_path / "runs", text)
    assert run.path.parent == tmp_path / "runs"
    assert [p.name for p in tmp_path.iterdir()] == ["runs"]


def test_opening_what_is_no_run(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="there is no folder"):
        RunFolder.open(tmp_path / "nothing")
    run = make(tmp_path)
    (tmp_path / "runs" / "empty").mkdir()
    with pytest.raises(UsageError, match="no run folder") as error:
        RunFolder.open(tmp_path / "runs" / "empty")
    assert run.path.name in str(error.value)
    assert RunFolder.open(run.path).config() == {"seed": 1}
    (run.path / "config.json").write_text("{")
    with pytest.raises(CheckpointError, match=r"config\.json"):
        run.config()


# Locks -----------------------------------------------------------------------------------------

_HOLDER = """
import sys, time
from minigan.training.rundir import RunFolder
with RunFolder.open(sys.argv[1]).lock() as note:
    print("held", flush=True)
    time.sleep(60)
"""


def hold(run: RunFolder) -> subprocess.Popen[str]:
    process = subprocess.Popen(
        [sys.executable, "-c", _HOLDER, str(run.path)], stdout=subprocess.PIPE, text=True
    )
    assert process.stdout is not None
    assert process.stdout.readline() == "held\n"
    return process


def test_a_second_run_is_refused_and_a_dead_one_replaced(tmp_path: Path) -> None:
    run = make(tmp_path)
    process = hold(run)
    (run.checkpoints.folder / "step-000001.safetensors.7.tmp").write_bytes(b"half")
    with pytest.raises(UsageError, match="in use") as error, run.lock():
        raise AssertionError("both processes hold the lock")
    assert f"process {process.pid} on " in str(error.value)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert process.stdout is not None
    process.stdout.close()
    with run.lock() as note:
        assert f"process {process.pid}" in note
        assert "taking over" in note
        assert json.loads((run.path / "run.lock").read_text())["pid"] == os.getpid()
        assert not list(run.checkpoints.folder.iterdir())
        with pytest.raises(UsageError, match="in use"), run.lock():
            raise AssertionError("the same process twice")
    assert not (run.path / "run.lock").exists()
    with run.lock() as note:
        assert note == ""


def test_the_lock_goes_when_the_block_fails(tmp_path: Path) -> None:
    run = make(tmp_path)
    with pytest.raises(ZeroDivisionError), run.lock():
        _ = 1 / 0
    with run.lock():
        pass


# Writing ---------------------------------------------------------------------------------------


def test_a_folder_that_cannot_be_written_is_one_clear_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = make(tmp_path)

    def refuse(*args: Any) -> None:
        raise PermissionError(errno.EACCES, "Permission denied")

    monkeypatch.setattr(rundir, "write_bytes", refuse)
    with pytest.raises(ResourceError, match=r"cannot write to .*: Permission denied"):
        run.probe()
    (tmp_path / "file").write_text("")
    with pytest.raises(ResourceError, match="cannot write"):
        RunFolder.create(tmp_path / "file" / "runs", "x")


@pytest.mark.skipif(os.name == "nt" or os.geteuid() == 0, reason="root may write everywhere")
def test_a_read_only_folder(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.path.chmod(0o500)
    try:
        with pytest.raises(ResourceError, match="cannot write"), run.lock():
            pass
    finally:
        run.path.chmod(0o700)


def test_a_full_disk_loses_log_lines_only(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = make(tmp_path)

    def full(*args: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    run.log("before")
    monkeypatch.setattr(rundir, "append", full)
    run.log("lost")
    with pytest.raises(OSError, match="No space"):
        run.add_stats({"step": 1})
    monkeypatch.undo()
    assert (run.path / "log.txt").read_text() == "before\n"


def test_lines_round_trip_and_torn_ones_are_skipped(tmp_path: Path) -> None:
    run = make(tmp_path)
    run.add_stats({"step": 10, "loss_D": 0.5, "word": "D winning"})
    run.add_stats({"step": 20, "loss_D": float("nan"), "x": float("inf")})
    whole = (run.path / "stats.jsonl").read_bytes()
    assert len(run.stats()) == 2
    assert run.stats()[1] == {"step": 20, "loss_D": None, "x": None}
    for cut in range(1, len(to_line(run.stats()[1]).encode())):
        (run.path / "stats.jsonl").write_bytes(whole[:-cut])
        assert run.stats()[0] == {"step": 10, "loss_D": 0.5, "word": "D winning"}
        assert len(run.stats()) == (2 if cut == 1 else 1)
    (run.path / "stats.jsonl").write_bytes(b'{"step": 1}\n{"st{"step": 3}\n[]\n{"step": 4}\n')
    assert run.stats() == [{"step": 1}, {"step": 4}]
    with open(run.path / "stats.jsonl", "ab") as file:
        file.write(b'{"step": 5, "lo')
    run.add_stats({"step": 6})
    assert run.stats() == [{"step": 1}, {"step": 4}, {"step": 6}]
    assert read_lines(tmp_path / "nothing") == []


def test_rewind_forgets_what_came_after(tmp_path: Path) -> None:
    run = make(tmp_path)
    for step in (10, 20, 30):
        run.add_stats({"step": step, "loss_D": 0.1 * step})
        run.add_metrics({"step": step, "fid": 1.0})
    before = (run.path / "stats.jsonl").read_bytes()
    (run.path / "stats.jsonl").write_bytes(before + b'{"step": 40, "lo')
    run.rewind(20)
    assert [line["step"] for line in run.stats()] == [10, 20]
    assert [line["step"] for line in run.metrics()] == [10, 20]
    assert before.startswith((run.path / "stats.jsonl").read_bytes())
