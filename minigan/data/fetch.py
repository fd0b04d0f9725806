"""Downloads that leave a verified file, or nothing but a note of what went wrong.

A file is collected beside its place as `NAME.part`, so that a broken download goes on where it
stopped (HTTP Range), and takes its name only after length and SHA-256 are right. An error page, a
truncated answer or a wrong file therefore never enters the cache; the next mirror is tried.
"""

from __future__ import annotations

import hashlib
import http.client
import os
import time
import urllib.error
import urllib.request
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from minigan.errors import ResourceError

from .sets import SetFile

Progress = Callable[[str, int, int], None]  # file name, bytes so far, bytes in all

_PIECE = 1 << 16
_MOST_REDIRECTS = 5
_MOST_ATTEMPTS = 4  # per mirror, each going on where the last one stopped
_LOCK_WAIT = 3600.0  # seconds


@dataclass(frozen=True)
class Patience:
    """How long to bear with a slow server.

    silence : seconds without any answer.
    window, least : the server must send at least `least` bytes in each `window` seconds.
    """

    silence: float = 20.0
    window: float = 30.0
    least: int = 30_000


class _Failed(Exception):
    """Why a mirror did not deliver."""


class _Broken(_Failed):
    """The connection broke off, but what has come so far is of use."""


class _FewRedirects(urllib.request.HTTPRedirectHandler):
    max_redirections = _MOST_REDIRECTS
    max_repeats = 2


def fetch(
    file: SetFile,
    mirrors: Sequence[str],
    folder: Path,
    *,
    progress: Progress | None = None,
    patience: Patience = Patience(),
) -> list[str]:
    """Make sure that `folder` has `file`; return why mirrors failed, empty if all is well.

    Parameters
    ----------
    mirrors : addresses that end in "/", tried in order.
    progress : called as progress(name, bytes so far, bytes in all).

    Raises
    ------
    ResourceError : the folder cannot be written.
    """
    import filelock

    try:
        folder.mkdir(parents=True, exist_ok=True)
        lock = filelock.FileLock(folder / f".{file.name}.lock", timeout=_LOCK_WAIT)
        with lock:  # another process may be fetching the same file
            if is_intact(folder / file.name, file):
                return []
            return _from_mirrors(file, mirrors, folder, progress, patience)
    except filelock.Timeout:
        raise ResourceError(
            f"another process has been fetching {file.name} for an hour",
            where=str(folder),
            fix="end it, or remove the .lock file",
        ) from None
    except OSError as error:
        raise ResourceError(
            f"{file.name} cannot be stored: {error.strerror or error}",
            where=str(folder),
            fix="make room or set MINIGAN_CACHE to a folder that can be written",
        ) from error


def is_intact(path: Path, file: SetFile) -> bool:
    """Whether a file has the right length and SHA-256."""
    try:
        return path.stat().st_size == file.size and sha256_of(path) == file.sha256
    except OSError:
        return False


def sha256_of(path: Path) -> str:
    """Return the SHA-256 of a file as 64 hexadecimal digits."""
    with open(path, "rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()


def _from_mirrors(
    file: SetFile,
    mirrors: Sequence[str],
    folder: Path,
    progress: Progress | None,
    patience: Patience,
) -> list[str]:
    reasons = []
    part = folder / f"{file.name}.part"
    for mirror in mirrors:
        url = mirror + file.name
        try:
            _from_mirror(file, url, part, progress, patience)
        except _Failed as error:
            reasons.append(f"{url}: {error}")
            continue
        os.replace(part, folder / file.name)
        return []
    return reasons


def _from_mirror(
    file: SetFile, url: str, part: Path, progress: Progress | None, patience: Patience
) -> None:
    """Complete `part` from one address and verify it; _Failed if that cannot be done."""
    for attempt in range(_MOST_ATTEMPTS):
        before = _length(part)
        try:
            if before < file.size:
                _collect(file, url, part, progress, patience)
        except _Broken:
            # Go on where it stopped, as long as attempts change anything.
            if attempt + 1 < _MOST_ATTEMPTS and _length(part) != before:
                continue
            raise
        if is_intact(part, file):
            return
        part.unlink()
        if before == 0:
            raise _Failed("the checksum is wrong, so it is another file or a damaged one")
        # What an earlier attempt had left may have been the bad part: once more from the start.
    raise _Failed("it broke off again and again")


def _collect(
    file: SetFile, url: str, part: Path, progress: Progress | None, patience: Patience
) -> None:
    """Ask for what is missing in `part` and append it."""
    start = _length(part)
    try:
        answer = _ask(url, start, patience.silence)
    except urllib.error.HTTPError as error:
        error.close()
        if error.code == 416 and start:
            part.unlink()
            raise _Broken("there is nothing to go on with") from None
        raise _Failed(_http_reason(error)) from None
    except (OSError, http.client.HTTPException, ValueError) as error:
        raise _Failed(_reason(error)) from None
    with answer:
        start = _check_answer(answer, file, start)
        with open(part, "r+b" if start else "wb") as target:
            target.seek(start)
            target.truncate()
            _copy(answer, target, file, start, progress, patience)


def _ask(url: str, start: int, timeout: float) -> Any:
    """Open an address, from byte `start` on."""
    headers = {"User-Agent": "minigan", "Accept-Encoding": "identity"}
    if start:
        headers["Range"] = f"bytes={start}-"
    opener = urllib.request.build_opener(_FewRedirects)
    return opener.open(urllib.request.Request(url, headers=headers), timeout=timeout)


def _check_answer(answer: Any, file: SetFile, start: int) -> int:
    """Return at which byte of the file the answer begins; _Failed if it cannot be the file."""
    kind = answer.headers.get_content_type()
    if kind == "text/html":
        raise _Failed("the answer is a web page, not the file")
    if answer.status == 206:
        expected = f"bytes {start}-{file.size - 1}/{file.size}"
        if answer.headers.get("Content-Range", "").strip() != expected:
            raise _Failed("the answer is a part that was not asked for")
    elif answer.status == 200:
        start = 0  # this server knows no parts
    else:
        raise _Failed(f"the answer has status {answer.status}")
    length = answer.headers.get("Content-Length")
    if length is not None and length.strip() != str(file.size - start):
        raise _Failed(f"the answer has {length.strip()} bytes, expected {file.size - start}")
    return start


def _copy(
    answer: Any,
    target: Any,
    file: SetFile,
    done: int,
    progress: Progress | None,
    patience: Patience,
) -> None:
    """Copy the body to the end of `target`; _Broken if it ends too early or comes too slowly."""
    window_end, window_bytes = time.monotonic() + patience.window, 0
    while done < file.size:
        try:
            # read1 returns what has arrived: a trickle does not hide behind a full buffer.
            piece = answer.read1(min(_PIECE, file.size - done))
        except (OSError, http.client.HTTPException) as error:
            raise _Broken(
                f"broke off after {done} of {file.size} bytes: {_reason(error)}"
            ) from None
        if not piece:
            raise _Broken(f"broke off after {done} of {file.size} bytes")
        target.write(piece)
        done += len(piece)
        window_bytes += len(piece)
        if progress is not None:
            progress(file.name, done, file.size)
        if time.monotonic() > window_end:
            if window_bytes < patience.least:
                raise _Broken(f"too slow: {window_bytes} bytes in {patience.window:g} s")
            window_end, window_bytes = time.monotonic() + patience.window, 0
    target.flush()
    os.fsync(target.fileno())


def _length(path: Path) -> int:
    return path.stat().st_size if path.exists() else 0


def _http_reason(error: urllib.error.HTTPError) -> str:
    if 300 <= error.code < 400:
        return "too many redirects, or one that is not allowed"
    return f"HTTP {error.code} {http.client.responses.get(error.code, '')}".rstrip()


def _reason(error: Exception) -> str:
    inner = getattr(error, "reason", error)
    if isinstance(inner, TimeoutError):
        return "no answer in time"
    return str(getattr(inner, "strerror", None) or inner or type(inner).__name__)
