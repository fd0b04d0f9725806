"""The cache of compiled kernels: damaged, unwritable and shared ones cost time, nothing else."""

from __future__ import annotations

import os
import warnings
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

import pytest
from minigan_kernels.cuda import cubins, nvrtc
from minigan_kernels.cuda.sources import Source

SOURCE = Source("pool.cu", ("max_pool<float, 1>",))
CODE, NAMES = bytes(range(256)) * 40, {"max_pool<float, 1>": "_Zmax"}


class Compiler:
    """Stands in for NVRTC and counts what it compiled."""

    def __init__(self) -> None:
        self.count = 0

    def __call__(self, text: str, architecture: str, instances: Any) -> nvrtc.Compiled:
        self.count += 1
        return nvrtc.Compiled(CODE, NAMES, "")


@pytest.fixture
def compiler(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> Iterator[Compiler]:
    made = Compiler()
    monkeypatch.setattr(nvrtc, "compile_source", made)
    monkeypatch.setattr(nvrtc, "version", lambda: (13, 0))
    monkeypatch.setenv("MINIGAN_CUBINS", str(tmp_path / "cubins"))
    cubins._not_kept.cache_clear()
    yield made
    cubins._not_kept.cache_clear()


def find() -> tuple[bytes, dict[str, str]]:
    found = cubins.cubin(SOURCE, SOURCE.instances[0], "sm_90")
    assert found == (CODE, NAMES)
    return found


def only_file() -> Path:
    (path,) = cubins.folder().glob("*.cubin")
    return path


def test_what_was_compiled_is_kept(compiler: Compiler) -> None:
    find()
    find()
    assert compiler.count == 1 and cubins.stored() == (1, only_file().stat().st_size)
    cubins.cubin(SOURCE, SOURCE.instances[0], "sm_80")  # another architecture, another file
    assert compiler.count == 2 and cubins.stored()[0] == 2
    assert not list(cubins.folder().glob("tmp*")) and cubins.writable()


@pytest.mark.parametrize("damage", ["truncated", "flipped", "empty", "another's"])
def test_a_damaged_file_is_made_anew(compiler: Compiler, damage: str) -> None:
    find()
    path = only_file()
    whole = path.read_bytes()
    flipped = bytes([*whole[:-1], whole[-1] ^ 1])
    path.write_bytes(
        {"truncated": whole[:-100], "flipped": flipped, "empty": b"", "another's": b"x" * 999}[
            damage
        ]
    )
    find()
    assert compiler.count == 2 and path.read_bytes() == whole
    find()
    assert compiler.count == 2


def said(times: int) -> int:
    """Warnings while a kernel is asked for so many times."""
    with warnings.catch_warnings(record=True) as seen:
        warnings.simplefilter("always")
        for _ in range(times):
            find()
    assert all("MINIGAN_CUBINS" in str(w.message) for w in seen)
    return len(seen)


def test_a_folder_in_the_place_of_a_file(compiler: Compiler) -> None:
    find()
    path = only_file()
    path.unlink()
    path.mkdir()
    (path / "x").touch()
    assert said(2) == 1 and compiler.count == 3


@pytest.mark.parametrize("obstacle", ["a file", "no permission", "no space"])
def test_a_cache_that_cannot_be_written(
    compiler: Compiler, obstacle: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    if obstacle == "a file":
        (tmp_path / "cubins").touch()
        assert not cubins.writable()
    else:
        number = {"no permission": 13, "no space": 28}[obstacle]

        def refuse(*args: Any, **kwargs: Any) -> None:
            raise OSError(number, os.strerror(number))

        monkeypatch.setattr("tempfile.NamedTemporaryFile", refuse)
    assert said(3) == 1 and compiler.count == 3


def test_writers_at_once_leave_one_whole_file(compiler: Compiler) -> None:
    def work(_: int) -> None:
        for _ in range(20):
            find()
            for path in cubins.folder().glob("*.cubin"):
                path.unlink(missing_ok=True)
        find()

    with ThreadPoolExecutor(8) as pool:
        list(pool.map(work, range(8)))
    find()
    assert cubins.stored()[0] == 1 and not list(cubins.folder().glob("tmp*"))
