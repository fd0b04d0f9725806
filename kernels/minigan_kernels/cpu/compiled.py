"""Where compiled kernels are kept between runs."""

from __future__ import annotations

import contextlib
import hashlib
import os
import tempfile
from collections.abc import Iterator
from functools import cache
from pathlib import Path
from typing import Any

import numba

from minigan_kernels.cpu.machine import simd


@cache
def sources() -> str:
    """A name for the present state of all kernel sources.

    Numba looks at the file of a kernel only; the vector types and microkernels that it was built
    with are in other files.
    """
    digest = hashlib.sha256()
    for path in sorted(Path(__file__).parent.glob("*.py")):
        digest.update(path.read_bytes())
    return digest.hexdigest()[:16]


@cache
def directory() -> str:
    """The folder of compiled kernels: under $NUMBA_CACHE_DIR if set, else the user's cache."""
    import platformdirs

    root = os.environ.get("NUMBA_CACHE_DIR") or platformdirs.user_cache_dir("minigan")
    path = Path(root) / "kernels" / sources()
    try:
        path.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=path):
            pass
    except OSError:
        return tempfile.mkdtemp(prefix="minigan-kernels-")
    return str(path)


@contextlib.contextmanager
def cached() -> Iterator[None]:
    """Numba functions defined inside keep their machine code in `directory()`."""
    simd()  # before anything is compiled
    config: Any = numba.config
    before, config.CACHE_DIR = config.CACHE_DIR, directory()
    try:
        yield
    finally:
        config.CACHE_DIR = before
