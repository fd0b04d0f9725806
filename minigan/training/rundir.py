"""The folder of one run: everything that it was told, printed, measured, drew and learned.

runs/00012-dcgan-mnist-s0/
  config.json   env.json      what was asked for; the machine and the versions
  log.txt       stats.jsonl   the console; one line of figures per tick
  metrics.jsonl               one line per evaluation, if there was any
  samples/      checkpoints/  pictures by step; everything needed to go on
  report.html   run.lock      the run as a page; which process works here
  crash/                      what is known about a failure
"""

from __future__ import annotations

import contextlib
import datetime
import json
import math
import os
import re
import socket
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from minigan.errors import CheckpointError, ResourceError, UsageError
from minigan.training.checkpoint import Checkpoints
from minigan.weights.atomic import remove_stale, write_bytes, write_json

_NUMBER = re.compile(r"(\d{5,})(?:-|$)")


def clean_name(text: str) -> str:
    """Return `text` as the name of a folder: letters, digits, dots, dashes; no path, no markup."""
    return re.sub(r"[^A-Za-z0-9._-]+", "_", text).strip("._-")[:80] or "run"


class RunFolder:
    """A run folder; `RunFolder.create` makes a new one, `RunFolder.open` finds one.

    Attributes
    ----------
    path : the folder.
    samples : folder of pictures.
    checkpoints : the checkpoints in it.
    """

    def __init__(self, path: Path) -> None:
        self.path = path
        self.samples = path / "samples"
        self.crash = path / "crash"
        self.checkpoints = Checkpoints(path / "checkpoints")

    @classmethod
    def create(cls, out: Path | str, name: str) -> RunFolder:
        """Make runs/NNNNN-name with the next free number, also when others do so right now."""
        out = Path(out)
        with _writing(out):
            out.mkdir(parents=True, exist_ok=True)
            run = cls(_claim(out, clean_name(name)))
            run.samples.mkdir()
            run.checkpoints.folder.mkdir()
        return run

    @classmethod
    def open(cls, path: Path | str) -> RunFolder:
        """Return the run at `path`. Raises UsageError if no run is there."""
        path = Path(path)
        if not (path / "config.json").is_file():
            what = f"{path} is no run folder" if path.exists() else f"there is no folder {path}"
            near = sorted(p.parent.name for p in path.parent.glob("*/config.json"))
            fix = f"runs beside it: {', '.join(near[-5:])}" if near else "see `ls runs`"
            raise UsageError(what, why="a run folder holds config.json", fix=fix)
        return cls(path)

    # What was asked for --------------------------------------------------------------------------

    def config(self) -> dict[str, Any]:
        """Read config.json."""
        return read_json(self.path / "config.json")

    def write_config(self, config: Mapping[str, Any]) -> None:
        write_json(self.path / "config.json", config)

    def environment(self) -> dict[str, Any]:
        """Read env.json; empty if there is none."""
        path = self.path / "env.json"
        return read_json(path) if path.exists() else {}

    def write_environment(self, environment: Mapping[str, Any]) -> None:
        write_json(self.path / "env.json", environment)

    # What happened -------------------------------------------------------------------------------

    def log(self, text: str) -> None:
        """Append to log.txt. A full disk loses the line, never the run."""
        with contextlib.suppress(OSError):
            append(self.path / "log.txt", text + "\n")

    def add_stats(self, figures: Mapping[str, Any]) -> None:
        """Append one line to stats.jsonl; raises OSError."""
        append(self.path / "stats.jsonl", to_line(figures))

    def add_metrics(self, figures: Mapping[str, Any]) -> None:
        """Append one line to metrics.jsonl; raises OSError."""
        append(self.path / "metrics.jsonl", to_line(figures))

    def stats(self) -> list[dict[str, Any]]:
        """All lines of stats.jsonl."""
        return read_lines(self.path / "stats.jsonl")

    def metrics(self) -> list[dict[str, Any]]:
        """All lines of metrics.jsonl."""
        return read_lines(self.path / "metrics.jsonl")

    def rewind(self, step: int) -> None:
        """Forget the figures after `step`: the run goes on from there and measures them again."""
        for name in ("stats.jsonl", "metrics.jsonl"):
            path = self.path / name
            if path.exists():
                kept = [to_line(line) for line in read_lines(path) if line.get("step", 0) <= step]
                write_bytes(path, *[line.encode() for line in kept])

    def put_crash_aside(self) -> None:
        """Rename crash/ to crash-1/ and so on: the run goes on, it is no longer the last word."""
        if self.crash.exists():
            number = 1 + len(list(self.path.glob("crash-*")))
            self.crash.rename(self.path / f"crash-{number}")

    # Who works here ------------------------------------------------------------------------------

    @contextlib.contextmanager
    def lock(self) -> Iterator[str]:
        """Hold the folder for this process; yields a note about a predecessor that died, or "".

        The operating system frees the lock when its process dies, however it dies. run.lock says
        who holds it. Raises UsageError naming the process if another one does.
        """
        from filelock import FileLock, Timeout

        self.probe()
        owner_path = self.path / "run.lock"
        guard = FileLock(str(self.path / ".lock"))
        try:
            guard.acquire(blocking=False)
        except Timeout as error:
            raise UsageError(
                f"{self.path} is in use",
                why=f"{_describe_owner(owner_path)} is training in it",
                fix="wait for it or stop it; a new run gets a folder of its own",
            ) from error
        try:
            note = ""
            if owner_path.exists():
                note = f"{_describe_owner(owner_path)} ended without saying so; taking over"
            folders = (self.path, self.samples, self.checkpoints.folder)
            remove_stale(folders)
            started = datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds")
            owner = {"pid": os.getpid(), "host": socket.gethostname(), "started": started}
            write_json(owner_path, owner)
            yield note
        finally:
            with contextlib.suppress(OSError):
                owner_path.unlink(missing_ok=True)
            guard.release()

    def probe(self) -> None:
        """Write and remove a file: better to fail now than at the first checkpoint."""
        with _writing(self.path):
            self.samples.mkdir(exist_ok=True)
            self.checkpoints.folder.mkdir(exist_ok=True)
            test = self.path / f"probe.{os.getpid()}.tmp"
            write_bytes(test, b"probe")
            test.unlink()


def _claim(out: Path, name: str) -> Path:
    """Make the folder of the next number.

    The bare number is the claim: mkdir succeeds for one process only. It is void if a folder of
    that number was finished (renamed) just before.
    """
    number = 0
    while True:
        taken = _numbers(out)
        number = max(number, max(taken, default=-1) + 1)
        claim = out / f"{number:05d}"
        try:
            os.mkdir(claim)
        except FileExistsError:
            number += 1
            continue
        if any(path.name != claim.name for path in out.glob(f"{number:05d}*")):
            os.rmdir(claim)
            number += 1
            continue
        path = out / f"{number:05d}-{name}"
        os.rename(claim, path)
        return path


def _numbers(out: Path) -> list[int]:
    found = (_NUMBER.match(path.name) for path in out.iterdir())
    return [int(match[1]) for match in found if match]


def _describe_owner(path: Path) -> str:
    try:
        owner = json.loads(path.read_text())
        return f"process {owner['pid']} on {owner['host']} (since {owner['started']})"
    except (OSError, ValueError, TypeError, KeyError):
        return "another process"


@contextlib.contextmanager
def _writing(folder: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise ResourceError(
            f"cannot write to {folder}: {error.strerror}",
            fix="choose another folder with --out, or mend its permissions or free space",
        ) from error


# Files of lines --------------------------------------------------------------------------------


def append(path: Path, text: str) -> None:
    """Append in one write, so that a line is at worst torn; after a torn one begin a new line."""
    with open(path, "ab+", buffering=0) as file:
        if file.seek(0, os.SEEK_END):
            file.seek(-1, os.SEEK_END)
            if file.read(1) != b"\n":
                text = "\n" + text
        file.write(text.encode())  # in append mode always at the end


def to_line(figures: Mapping[str, Any]) -> str:
    """One line of JSON; NaN and infinity, which JSON does not have, become null."""
    finite = {k: None if isinstance(v, float) and not math.isfinite(v) else v
              for k, v in figures.items()}  # fmt: skip
    return json.dumps(finite, ensure_ascii=False, allow_nan=False) + "\n"


def read_lines(path: Path) -> list[dict[str, Any]]:
    """Read a file of JSON lines; a torn line (killed or out of space in mid-write) is skipped."""
    lines = []
    for text in path.read_bytes().splitlines() if path.exists() else []:
        try:
            line = json.loads(text)
        except ValueError:
            continue
        if isinstance(line, dict):
            lines.append(line)
    return lines


def read_json(path: Path) -> dict[str, Any]:
    """Read a JSON object; raises CheckpointError if it is damaged."""
    try:
        value = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise CheckpointError(f"{path} cannot be read", why=str(error)) from error
    if not isinstance(value, dict):
        raise CheckpointError(f"{path} is damaged", why="it holds no JSON object")
    return value
