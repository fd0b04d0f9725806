"""Compiled kernels on disk: each cubin under the hash of all that decides its bytes.

A file is written whole or not at all, and read back only if its own hash is right: a damaged or
unwritable cache costs time, never a wrong kernel. That it cannot be written is said once.
"""

from __future__ import annotations

import functools
import hashlib
import json
import os
import tempfile
import warnings
from pathlib import Path

from minigan_kernels.cuda import nvrtc
from minigan_kernels.cuda.sources import Source

_DIGEST = 32  # bytes of a sha256


def folder() -> Path:
    """$MINIGAN_CUBINS, or a folder in the user's cache."""
    import platformdirs

    chosen = os.environ.get("MINIGAN_CUBINS")
    return Path(chosen or Path(platformdirs.user_cache_dir("minigan", appauthor=False)) / "cubins")


def cubin(source: Source, instance: str, architecture: str) -> tuple[bytes, dict[str, str]]:
    """Machine code that holds `instance`, and the names of its kernels; compiled if need be."""
    instances = source.together_with(instance)
    path = folder() / f"{_key(source, instances, architecture)}.cubin"
    found = _read(path)
    if found is None:
        made = nvrtc.compile_source(source.text, architecture, instances)
        found = made.cubin, made.names
        _write(path, *found)
    return found


def _key(source: Source, instances: tuple[str, ...], architecture: str) -> str:
    parts = (source.text, *instances, architecture, *nvrtc.OPTIONS, str(nvrtc.version()))
    return hashlib.sha256("\0".join(parts).encode()).hexdigest()[:32]


def _read(path: Path) -> tuple[bytes, dict[str, str]] | None:
    """What `_write` wrote; None if it is not there or not whole."""
    try:
        whole = path.read_bytes()
    except OSError:
        return None
    digest, rest = whole[:_DIGEST], whole[_DIGEST:]
    if hashlib.sha256(rest).digest() != digest:
        return None
    names, _, code = rest.partition(b"\0")
    return code, json.loads(names)


def _write(path: Path, code: bytes, names: dict[str, str]) -> None:
    rest = json.dumps(names).encode() + b"\0" + code
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.NamedTemporaryFile(dir=path.parent, delete=False) as file:
            try:
                file.write(hashlib.sha256(rest).digest() + rest)
                file.close()
                os.replace(file.name, path)  # another process may do the same: either is right
            except BaseException:
                os.unlink(file.name)
                raise
    except OSError as error:
        _not_kept(path.parent, str(error.strerror or error))


@functools.cache
def _not_kept(place: Path, why: str) -> None:
    """Say once for each reason that the next process will compile again."""
    warnings.warn(
        f"compiled CUDA kernels cannot be kept in {place} ({why}): every process compiles them "
        "anew; set MINIGAN_CUBINS to a folder that can be written",
        stacklevel=2,
    )


def stored() -> tuple[int, int]:
    """Number and bytes of the cubins that are kept."""
    sizes = []
    for path in folder().glob("*.cubin"):
        try:
            sizes.append(path.stat().st_size)
        except OSError:
            continue  # just removed
    return len(sizes), sum(sizes)


def writable() -> bool:
    """Whether compiled kernels can be kept."""
    place = folder()
    while not place.exists() and place != place.parent:
        place = place.parent
    return place.is_dir() and os.access(place, os.W_OK | os.X_OK)
