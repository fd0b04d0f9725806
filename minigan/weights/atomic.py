"""Files that are whole or absent: written beside their place, forced to disk, then renamed.

A process killed at any moment leaves the old file, or the new one, and perhaps a `*.tmp`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import sys
import time
from collections.abc import Iterable
from pathlib import Path
from typing import Any

_NO_DIRECTORY_SYNC = (errno.EINVAL, errno.ENOTSUP, errno.EACCES)  # some network file systems
_REPLACE_ATTEMPTS = 10


def write_bytes(path: Path | str, *chunks: bytes | memoryview) -> None:
    """Write `chunks` to `path` so that no reader ever sees a part of them.

    Raises OSError (disk full, no permission); whatever was at `path` is then still there.
    """
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        with open(temporary, "wb") as file:
            for chunk in chunks:
                file.write(chunk)
            file.flush()
            os.fsync(file.fileno())
        _replace(temporary, path)
    except BaseException:
        with contextlib.suppress(OSError):
            temporary.unlink(missing_ok=True)
        raise
    _sync_folder(path.parent)


def write_text(path: Path | str, text: str) -> None:
    """Write UTF-8 text as `write_bytes` does."""
    write_bytes(path, text.encode())


def write_json(path: Path | str, value: Any) -> None:
    """Write `value` as indented JSON as `write_bytes` does. NaN is refused: it is no JSON."""
    write_text(path, json.dumps(value, indent=2, ensure_ascii=False, allow_nan=False) + "\n")


def remove_stale(folders: Iterable[Path]) -> list[Path]:
    """Remove the `*.tmp` files that a killed process left behind; return what was removed.

    Call it only while no other process writes into the folders.
    """
    removed = []
    for folder in folders:
        for path in sorted(folder.glob("*.tmp")):
            with contextlib.suppress(OSError):
                path.unlink()
                removed.append(path)
    return removed


def _replace(source: Path, target: Path) -> None:
    """os.replace; on Windows a virus scanner may hold the target for a moment, so try again."""
    for attempt in range(_REPLACE_ATTEMPTS):
        try:
            os.replace(source, target)
            return
        except PermissionError:
            if sys.platform != "win32" or attempt == _REPLACE_ATTEMPTS - 1:
                raise
            time.sleep(0.01 * 2**attempt)


def _sync_folder(folder: Path) -> None:
    """Make the rename itself survive a power cut. Windows has no such call."""
    if os.name == "nt":
        return
    descriptor = os.open(folder, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in _NO_DIRECTORY_SYNC:
            raise
    finally:
        os.close(descriptor)
