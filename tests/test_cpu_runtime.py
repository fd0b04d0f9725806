"""What every CPU kernel stands on: tasks and threads, vector types, scratch memory, the cache."""

from __future__ import annotations

import os
import subprocess
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from minigan_kernels.cpu import compiled, machine, parallel, scratch
from minigan_kernels.cpu.microkernel import PANEL, TALLEST, VECTORS, tile
from minigan_kernels.cpu.parallel import arg, kernel, real, run
from minigan_kernels.cpu.simd import (
    fma,
    load,
    load_f32,
    load_part,
    narrow,
    spread,
    store,
    store_f32,
    store_f64,
    store_i64,
    store_part,
    total,
    where,
    widen,
)

# Tasks -----------------------------------------------------------------------------------------


@kernel
def record(args: int, task: int, thread: int) -> None:
    """counts[task] += 1, threads[task] = thread."""
    store_i64(arg(args, 0) + 8 * task, task + 1)
    store_i64(arg(args, 1) + 8 * task, thread)


@kernel
def scale(args: int, task: int, thread: int) -> None:
    """y = factor x + x, in pieces of 64 numbers, the last one partly filled."""
    x, y, n = arg(args, 0), arg(args, 1), arg(args, 2)
    factor = spread(np.float32(real(args, 3)))
    for i in range(64 * task, min(n, 64 * task + 64), 16):
        count = min(16, n - i)
        v = load_part(x + 4 * i, count)
        store_part(y + 4 * i, fma(v, factor, v), count)


@pytest.mark.parametrize("count", [0, 1, 2, 7, 1000])
def test_every_task_is_done_once_by_a_known_thread(count: int) -> None:
    done, by = np.zeros(max(1, count), np.int64), np.full(max(1, count), -1)
    run(record, count, done, by)
    assert np.array_equal(done[:count], np.arange(1, count + 1))
    assert count == 0 or (0 <= by.min() and by.max() < parallel.threads())


@pytest.mark.parametrize("steps", [(5, 1, 7), (0, 3), (100, 0, 100), (1, 1)])
@pytest.mark.parametrize("count", [1, 2, 3])
def test_every_task_of_every_step_is_done_once(
    steps: tuple[int, ...], count: int, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(parallel, "threads", lambda: count)
    done, by = np.zeros(sum(steps), np.int64), np.full(sum(steps), -1)
    run(record, steps, done, by)
    assert np.array_equal(done, np.arange(1, sum(steps) + 1))
    assert 0 <= by.min() and by.max() < count


@kernel
def write_late_read_early(args: int, task: int, thread: int) -> None:
    """Step 0 takes long before it writes; step 1 copies what it wrote."""
    value, copy = arg(args, 0), arg(args, 1)
    if task < 2:
        v = load_f32(value + 8)
        for _ in range(10_000_000 * (task + 1)):
            v = v * v - np.float32(2)  # stays 2
        store_f32(value + 4 * task, v)
    else:
        store_f32(copy + 4 * (task - 2), load_f32(value + 4 * (3 - task)))


def test_a_step_waits_for_the_one_before() -> None:
    value, copy = np.array([0, 0, 2], np.float32), np.zeros(2, np.float32)
    run(write_late_read_early, (2, 2), value, copy)
    assert (value == 2).all() and (copy == 2).all()


@pytest.mark.parametrize("n", [1, 15, 16, 17, 64, 1000])
def test_tails_touch_nothing_beyond(n: int) -> None:
    x = np.random.default_rng(n).standard_normal(n).astype(np.float32)
    guarded = np.full(n + 32, 7, np.float32)
    run(scale, -(-n // 64), x, guarded[16 : 16 + n], n, 0.5)
    np.testing.assert_array_equal(guarded[16 : 16 + n], np.float32(1.5) * x)
    assert (guarded[:16] == 7).all() and (guarded[16 + n :] == 7).all()


def test_floats_integers_and_arrays_reach_the_kernel_exactly() -> None:
    out = np.zeros(1)
    run(exactly, 1, out, np.float64(0.1), -3)
    assert out[0] == 0.1 * -3


@kernel
def exactly(args: int, task: int, thread: int) -> None:
    store_f64(arg(args, 0), real(args, 1) * arg(args, 2))


# Vectors ---------------------------------------------------------------------------------------


@kernel
def vectors(args: int, task: int, thread: int) -> None:
    x, y, out = arg(args, 0), arg(args, 1), arg(args, 2)
    a, b = load(x), load(y)
    store(out, a + b)
    store(out + 64, a - b)
    store(out + 128, a * b)
    store(out + 192, a / b)
    store(out + 256, where(a > b, a, b))
    store(out + 320, where(a <= b, a, b))
    store(out + 384, narrow(widen(a) * widen(b)))
    store_f64(out + 448, total(widen(a)))


def test_arithmetic_is_that_of_numpy() -> None:
    rng = np.random.default_rng(0)
    x, y = rng.standard_normal((2, 16)).astype(np.float32)
    x[3] = np.nan
    out = np.zeros(16 * 7 + 2, np.float32)
    run(vectors, 1, x, y, out)
    got = out[:112].reshape(7, 16)
    with np.errstate(invalid="ignore"):
        larger, smaller = np.where(x > y, x, y), np.where(x <= y, x, y)
        exact = (x.astype(float) * y).astype(np.float32)
    for row, expected in zip(
        got, (x + y, x - y, x * y, x / y, larger, smaller, exact), strict=True
    ):
        np.testing.assert_array_equal(row, expected)
    x[3] = 1
    run(vectors, 1, x, y, out)
    np.testing.assert_allclose(out[112:].view(np.float64)[0], x.astype(float).sum(), rtol=1e-15)


multiply = tile(TALLEST, VECTORS)


@kernel
def one_tile(args: int, task: int, thread: int) -> None:
    A, B, C, K, add = arg(args, 0), arg(args, 1), arg(args, 2), arg(args, 3), arg(args, 4)
    multiply(A, 4 * 2 * K, 4, K, 2, 4 * K, B, 4 * PANEL, C, 4 * PANEL, add)


@pytest.mark.parametrize("K", [1, 5, 64])
def test_the_microkernel_is_a_matrix_product(K: int) -> None:
    rng = np.random.default_rng(K)
    A = rng.standard_normal((TALLEST, 2 * K)).astype(np.float32)
    B = rng.standard_normal((2 * K, PANEL)).astype(np.float32)
    C = np.zeros((TALLEST, PANEL), np.float32)
    run(one_tile, 1, A, B, C, K, 0)
    np.testing.assert_allclose(C, A.astype(float) @ B, atol=1e-4)
    run(one_tile, 1, A, B, C, K, 1)
    np.testing.assert_allclose(C, 2 * (A.astype(float) @ B), atol=2e-4)


# Scratch memory --------------------------------------------------------------------------------


def test_scratch_is_aligned_reused_and_bounded() -> None:
    with scratch.scratch() as space:
        first = space.array((3, 5))
        second = space.array((7,), np.float64)
        assert first.ctypes.data % 64 == second.ctypes.data % 64 == 0
        first[...], second[...] = 1, 2
        with scratch.scratch() as inner:
            inner.array((100,))[...] = 3
        assert (first == 1).all() and (second == 2).all()
    with scratch.scratch() as space:
        again = space.array((3, 5))
        where_first = again.ctypes.data
    with scratch.scratch() as space:
        assert space.array((3, 5)).ctypes.data == where_first
        space.array((scratch.KEPT,), np.uint8)
    with scratch.scratch() as space:
        assert space.block.nbytes <= scratch.KEPT


def test_scratch_falls_back_to_less(monkeypatch: pytest.MonkeyPatch) -> None:
    real_aligned = scratch.aligned

    def poor(shape: Any, dtype: Any = np.float32) -> Any:
        if np.prod(shape) * np.dtype(dtype).itemsize > 1000:
            raise MemoryError
        return real_aligned(shape, dtype)

    monkeypatch.setattr(scratch, "aligned", poor)
    monkeypatch.setattr(scratch._here, "space", scratch.Space(), raising=False)
    with scratch.scratch() as space:
        assert space.first_that_fits([(4096,), (1024,), (128,)]).shape == (128,)
        with pytest.raises(MemoryError):
            space.first_that_fits([(4096,), (1024,)])


# The settings, in processes of their own -------------------------------------------------------

PROGRAM = """
import numpy as np
from minigan_kernels import cpu
from minigan_kernels.cpu import parallel, machine, compiled
rng = np.random.default_rng(0)
x = np.moveaxis(rng.standard_normal((4, 12, 12, 40), dtype=np.float32), -1, 1)
w = rng.standard_normal((70, 40, 4, 4), dtype=np.float32)
y = cpu.conv(x, w, (2, 2), (1, 1), (1, 1), 1)
print(machine.simd(), parallel.threads(), compiled.folder("parallel") is not None)
print(y.tobytes().hex())
"""


def process(**settings: str) -> subprocess.CompletedProcess[str]:
    return subprocess.run(
        [sys.executable, "-c", PROGRAM], capture_output=True, text=True, env=os.environ | settings
    )


def test_the_number_of_threads_changes_no_bit() -> None:
    one, three = process(MINIGAN_THREADS="1"), process(MINIGAN_THREADS="3")
    assert one.stdout.split()[1] == "1" and three.stdout.split()[1] == "3", one.stderr
    assert one.stdout.split()[3] == three.stdout.split()[3]


@pytest.mark.parametrize("bad", ["0", "-1", "many", "1.5"])
def test_a_wrong_number_of_threads_is_refused(bad: str) -> None:
    assert f"MINIGAN_THREADS is {bad!r}" in process(MINIGAN_THREADS=bad).stderr


def test_narrower_instructions_can_be_forced_and_wider_ones_cannot(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    assert process(MINIGAN_SIMD="plain").stdout.startswith("plain ")
    assert "MINIGAN_SIMD is 'abacus'" in process(MINIGAN_SIMD="abacus").stderr
    monkeypatch.setattr(machine, "_widest", lambda: "avx2")
    monkeypatch.setenv("MINIGAN_SIMD", "avx512")
    with pytest.raises(ValueError, match=r"this processor has plain, avx2$"):
        machine.simd.__wrapped__()


def test_a_cache_that_cannot_be_written_is_done_without(tmp_path: Path) -> None:
    file = tmp_path / "file"
    file.write_text("not a folder")
    blocked = process(NUMBA_CACHE_DIR=str(file))  # also stands for a read-only disk
    assert blocked.stdout.split()[2] == "False", blocked.stderr
    kept = process(NUMBA_CACHE_DIR=str(tmp_path / "new" / "folder"))
    assert kept.stdout.split()[2] == "True"
    assert list((tmp_path / "new" / "folder").rglob("*.nbc"))
    assert blocked.stdout.split()[3] == kept.stdout.split()[3]


def test_kernels_are_compiled_anew_when_a_file_they_are_built_from_changes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name, text in (
        ("top", "from minigan_kernels.cpu.middle import a\n"),
        ("middle", "from minigan_kernels.cpu.base import (\n    b,\n)\n"),
        ("base", "b = 1\n"),
        ("other", "c = 1\n"),
    ):
        (tmp_path / f"{name}.py").write_text(text)
    monkeypatch.setattr(compiled, "_HERE", tmp_path)
    before = {name: compiled._digest(name) for name in ("top", "middle", "base", "other")}
    (tmp_path / "base.py").write_text("b = 2\n")
    after = {name: compiled._digest(name) for name in before}
    assert [name for name in before if before[name] != after[name]] == ["top", "middle", "base"]


def test_forgotten_folders_are_deleted_and_others_kept(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("NUMBA_CACHE_DIR", str(tmp_path))
    old, young = tmp_path / "kernels" / "old", tmp_path / "kernels" / "young"
    for path in (old, young):
        path.mkdir(parents=True)
        (path / "machine-code.nbc").write_bytes(b"1234")
    assert compiled.stored() == (2, 8)
    os.utime(old, (0, 0))
    made = compiled.folder.__wrapped__("parallel")
    assert made is not None and Path(made).is_dir()
    assert not old.exists() and young.exists()
