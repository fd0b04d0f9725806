"""`import minigan` is light and has no side effects: watched by an audit hook in a new process."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

WATCH = """
import json, os, sys, threading
seen = []

def watch(event, args):
    if event.startswith("socket."):
        seen.append(event)
    elif event in ("_thread.start_new_thread", "subprocess.Popen", "os.fork", "os.system"):
        seen.append(event)
    elif event in ("os.mkdir", "os.remove", "os.rename", "os.rmdir", "shutil.rmtree"):
        seen.append(f"{event} {args[0]}")
    elif event == "open" and isinstance(args[2], int):
        if args[2] & (os.O_WRONLY | os.O_RDWR | os.O_CREAT | os.O_APPEND):
            seen.append(f"open for writing {args[0]}")

sys.dont_write_bytecode = True
import numpy
before = set(sys.modules)
sys.addaudithook(watch)
for name in sys.argv[1:]:
    __import__(name)
loaded = sorted({m.split(".")[0] for m in set(sys.modules) - before})
print(json.dumps({"seen": seen, "loaded": loaded, "threads": threading.active_count()}))
"""

HEAVY = {"numba", "llvmlite", "cupy", "torch", "PIL", "scipy", "rich", "starlette", "uvicorn"}


def imported(*names: str) -> dict[str, list[str]]:
    run = subprocess.run(
        [sys.executable, "-W", "error", "-c", WATCH, *names],
        capture_output=True, text=True, timeout=120, check=False,
    )  # fmt: skip
    assert run.returncode == 0, run.stderr
    result: dict[str, list[str]] = json.loads(run.stdout)
    return result


@pytest.mark.parametrize(
    "names",
    [("minigan",), ("minigan", "minigan.functional", "minigan_kernels.cpu")],
    ids=["minigan", "functional"],
)
def test_import_is_light_and_silent(names: tuple[str, ...]) -> None:
    """No compiler, no image library, no socket, no thread, nothing written."""
    result = imported(*names)
    assert not HEAVY & set(result["loaded"]), "heavy modules were imported"
    assert result["seen"] == []
    assert result["threads"] == 1


def test_the_watch_works() -> None:
    """The same script sees what it is meant to see."""
    assert "PIL" in imported("minigan", "PIL.Image")["loaded"]


def test_import_leaves_numpy_alone() -> None:
    code = (
        "import numpy as np; before = np.random.get_state()[1].tolist(), np.geterr(); "
        "import minigan; after = np.random.get_state()[1].tolist(), np.geterr(); "
        "assert before == after"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=120)
