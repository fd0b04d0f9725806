"""How kernels are compiled, and where their machine code is kept between runs.

Numba compiles at the first use and can keep the result on disk. It takes a function as unchanged
while its own file is unchanged; but kernels are also built from vector types, microkernels and
helpers of other files. So every module gets a folder named by the sources of itself and of all that
it imports from this package. Where no folder can be written, kernels are compiled anew in every
process and all else works as usual.

$NUMBA_CACHE_DIR moves the folders; otherwise they are in the user's cache.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import re
import shutil
import tempfile
import time
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numba

from minigan_kernels.cpu.machine import simd

_HERE = Path(__file__).parent
_IMPORT = re.compile(r"^from minigan_kernels\.cpu\.(\w+) import", re.MULTILINE)
_FORGOTTEN = 60 * 24 * 3600  # seconds after which a folder that nobody used is deleted


def jit(**options: Any) -> Callable[[Callable[..., Any]], Any]:
    """A decorator: `numba.njit` without Python's lock, with NumPy's division, kept on disk."""

    def decorate(function: Callable[..., Any]) -> Any:
        return compile_with(numba.njit, function, nogil=True, **options)

    return decorate


def compile_with(
    compiler: Any, function: Callable[..., Any], *signature: Any, **options: Any
) -> Any:
    """compiler(*signature, **options)(function), its machine code kept in `folder`."""
    simd()  # settles for which instructions, before anything is compiled
    place = folder(function.__module__.rpartition(".")[2])
    config: Any = numba.config
    before = config.CACHE_DIR
    config.CACHE_DIR = place or before
    try:
        decorator = compiler(*signature, cache=place is not None, error_model="numpy", **options)
        return decorator(function)
    finally:
        config.CACHE_DIR = before


def root() -> Path:
    """The folder that holds all others."""
    import platformdirs

    chosen = os.environ.get("NUMBA_CACHE_DIR")
    return Path(chosen or platformdirs.user_cache_dir("minigan", appauthor=False)) / "kernels"


@cache
def folder(module: str) -> str | None:
    """The folder for the kernels of one module of this package; None if none can be written."""
    path = root() / _digest(module)
    try:
        new = not path.exists()
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            os.utime(path)
    except OSError:
        return None
    if new:
        _tidy()
    return str(path)


def stored() -> tuple[int, int]:
    """Number and bytes of the compiled functions on disk, of this version and others."""
    files = [p for p in root().rglob("*.nbc") if p.is_file()] if root().exists() else []
    return len(files), sum(p.stat().st_size for p in files)


def _digest(module: str) -> str:
    """Of the sources of a module and of all that it imports from this package.

    A module from elsewhere (a test, a benchmark) may use all of the package.
    """
    seen: dict[str, str] = {}
    inside = (_HERE / f"{module}.py").exists()
    todo = [module] if inside else [path.stem for path in _HERE.glob("*.py")]
    while todo:
        name = todo.pop()
        path = _HERE / f"{name}.py"
        if name in seen or not path.exists():
            continue
        seen[name] = path.read_text(encoding="utf-8")
        todo += _IMPORT.findall(seen[name])
    text = "\0".join(seen[name] for name in sorted(seen))
    return f"{module}-{hashlib.sha256(text.encode()).hexdigest()[:12]}"


def _tidy() -> None:
    with contextlib.suppress(OSError):
        for path in root().iterdir():
            if time.time() - path.stat().st_mtime > _FORGOTTEN:
                shutil.rmtree(path, ignore_errors=True)
