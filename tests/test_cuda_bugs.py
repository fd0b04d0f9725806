"""Planted bugs that the emulated GPU must report: in kernels of their own, and in convolutions.

Each is of a kind that a real GPU shows as a wrong number now and then, as a hang or not at all. A
bug is noticed if the emulator stops, or if a result is wrong in one of the three schedules.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import numpy as np
import pytest
from emulator.loader import ORDERS, EmulatorError, emulated_device
from minigan_kernels.cuda import conv as kernels
from minigan_kernels.cuda import conv_plan as plan
from minigan_kernels.cuda.sources import HERE, Source, flatten
from test_cuda_conv import LIMITS, TILES, Layer, definition, error, layer2d, only


@dataclass(frozen=True)
class Written(Source):
    """A source that is no file."""

    body: str = ""

    @property
    def text(self) -> str:
        return self.body


# Kernels of 64 threads with 64 numbers of shared memory. All but `right` are wrong.
BODY = """
__global__ void right(const float* x, float* y) {
    MG_DYN_SMEM(float, s);
    mg::cp_async4(s + threadIdx.x, x + threadIdx.x, true);
    mg::cp_async_commit();
    mg::cp_async_wait<0>();
    __syncthreads();
    y[threadIdx.x] = s[(threadIdx.x + 1) % 64];
}
__global__ void no_barrier(const float* x, float* y) {
    MG_DYN_SMEM(float, s);
    s[threadIdx.x] = x[threadIdx.x];
    y[threadIdx.x] = s[(threadIdx.x + 1) % 64];
}
__global__ void no_barrier_between_warps(const float* x, float* y) {
    MG_DYN_SMEM(float, s);
    s[threadIdx.x] = x[threadIdx.x];
    __syncwarp();
    y[threadIdx.x] = s[(threadIdx.x + 1) % 64];
}
__global__ void no_wait(const float* x, float* y) {
    MG_DYN_SMEM(float, s);
    mg::cp_async4(s + threadIdx.x, x + threadIdx.x, true);
    mg::cp_async_commit();
    __syncthreads();
    y[threadIdx.x] = s[(threadIdx.x + 1) % 64];
    mg::cp_async_wait<0>();
}
__global__ void wait_after_barrier(const float* x, float* y) {
    MG_DYN_SMEM(float, s);
    mg::cp_async4(s + threadIdx.x, x + threadIdx.x, true);
    mg::cp_async_commit();
    __syncthreads();
    mg::cp_async_wait<0>();
    y[threadIdx.x] = s[(threadIdx.x + 1) % 64];
}
__global__ void never_waits(const float* x, float* y) {
    MG_DYN_SMEM(float, s);
    mg::cp_async4(s + threadIdx.x, x + threadIdx.x, true);
    mg::cp_async_commit();
    y[threadIdx.x] = x[(threadIdx.x + 1) % 64];
}
__global__ void uninitialised(const float* x, float* y) {
    MG_DYN_SMEM(float, s);
    y[threadIdx.x] = s[threadIdx.x];
}
__global__ void forgets_one(const float* x, float* y) {
    if (threadIdx.x < 63) y[threadIdx.x] = x[(threadIdx.x + 1) % 64];
}
__global__ void writes_beyond(const float* x, float* y) { y[threadIdx.x + 1] = x[threadIdx.x]; }
__global__ void writes_before(const float* x, float* y) { y[(int)threadIdx.x - 1025] = x[0]; }
__global__ void reads_beyond(const float* x, float* y) { y[threadIdx.x] = x[threadIdx.x + 1]; }
__global__ void shared_too_small(const float* x, float* y) {
    MG_DYN_SMEM(float, s);
    s[threadIdx.x + 1] = x[threadIdx.x];
}
__global__ void misaligned(const float* x, float* y) {
    *(float4*)(y + 1) = make_float4(1, 2, 3, 4);
}
__global__ void misaligned_copy(const float* x, float* y) {
    MG_DYN_SMEM(float, s);
    mg::cp_async16(s, x + 1, true);
}
__global__ void copies_outside(const float* x, float* y) {
    MG_DYN_SMEM(float, s);
    mg::cp_async16(s + 64, x, true);
}
__global__ void half_a_barrier(const float* x, float* y) {
    if (threadIdx.x < 40) __syncthreads();
    y[threadIdx.x] = 0;
}
__global__ void barrier_after_return(const float* x, float* y) {
    if (threadIdx.x == 5) return;
    __syncthreads();
}
__global__ void half_a_shuffle(const float* x, float* y) {
    if (threadIdx.x & 1) y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[0], 1);
}
__global__ void partial_mask(const float* x, float* y) {
    y[threadIdx.x] = __shfl_xor_sync(0xffffu, x[0], 1);
}
__global__ void two_collectives(const float* x, float* y) {
    if (threadIdx.x & 1) __syncwarp();
    else y[threadIdx.x] = __shfl_xor_sync(0xffffffffu, x[0], 2);
}
__global__ void barriers_and_shuffles(const float* x, float* y) {
    if (threadIdx.x % 32 == 0) __syncthreads();
    else y[threadIdx.x] = mg::warp_sum(x[0]);
}
__global__ void divides_by_zero(const int* x, float* y) { y[threadIdx.x] = 7 / x[0]; }
__global__ void null_pointer(const float* x, float* y) {
    y[threadIdx.x] = x[threadIdx.x];  // x is None here
}
"""
NAMES = tuple(line.split("(")[0].split()[-1] for line in BODY.splitlines() if "__global__" in line)
SMALL = Written("bugs", NAMES, body=flatten(HERE / "mg.cuh") + BODY)
REPORTS = {
    "never_waits": "not waited for",
    "writes_beyond": "illegal",
    "writes_before": "illegal",
    "reads_beyond": "illegal",
    "shared_too_small": "illegal",
    "misaligned": "misaligned memory access",
    "misaligned_copy": "not aligned",
    "copies_outside": "outside shared memory",
    "half_a_barrier": "returned",
    "barrier_after_return": "returned",
    "half_a_shuffle": "missing|deadlock",
    "partial_mask": "full-warp masks",
    "two_collectives": "divergent",
    "barriers_and_shuffles": "deadlock",
    "divides_by_zero": "division",
    "null_pointer": "illegal",
}  # the others give wrong numbers


def run_small(name: str, order: int) -> Any:
    device = emulated_device(order)
    x, y = device.upload(np.arange(64, dtype=np.float32)), device.empty((64,))
    x = None if name == "null_pointer" else x
    device.launch(SMALL, name, (1,), (64,), x, y, shared=256)
    return y.get()


@pytest.mark.parametrize("name", NAMES)
def test_a_small_kernel(name: str) -> None:
    if name in REPORTS:
        with pytest.raises(EmulatorError, match=REPORTS[name]):
            run_small(name, 0)
        return
    right = [np.array_equal(run_small(name, o), np.roll(np.arange(64), -1)) for o in ORDERS]
    assert all(right) == (name == "right"), right


def test_launches_that_no_gpu_accepts() -> None:
    device = emulated_device()
    x, y = device.upload(np.ones(64, np.float32)), device.empty((64,))
    for grid, block, shared in (((1,), (2048,), 0), ((1, 70000), (64,), 0), ((1,), (64,), 1 << 18)):
        with pytest.raises(EmulatorError, match="invalid launch"):
            device.launch(SMALL, "right", grid, block, x, y, shared=shared)
    with pytest.raises(TypeError, match="argument 0 is a ndarray"):
        device.launch(SMALL, "right", (1,), (64,), np.ones(64, np.float32), y, shared=256)


@dataclass(frozen=True)
class Edited(Source):
    """A source with a piece of its text replaced."""

    old: str = ""
    new: str = ""

    @property
    def text(self) -> str:
        text = flatten(HERE / self.file)
        assert not self.old or text.count(self.old) == 1, f"no longer fits: {self.old!r}"
        return text.replace(self.old, self.new) if self.old else text


def middle() -> Layer:
    return layer2d(2, 72, 4, 40, 3, 1, 1, False)


def odd() -> Layer:
    return layer2d(1, 36, 3, 33, 3, 1, 1, False)


def odd_channels() -> Layer:
    return layer2d(2, 33, 3, 40, 3, 1, 1, False)


def many() -> Layer:  # positions
    return layer2d(5, 36, 4, 40, 1, 1, 0, False)


def thin() -> Layer:
    return layer2d(2, 20, 3, 3, 4, 2, 1, True)


@dataclass(frozen=True)
class Bug:
    """`old` becomes `new` in the file of a kernel; the emulator `says` so, or y is wrong."""

    instance: str
    old: str = ""
    new: str = ""
    says: str = ""
    layer: Callable[[], Layer] = middle


MMA, MMA3 = plan.TF32[2].instance, plan.FP32[2].instance
WGMMA, FMA = plan.WGMMA[-1].instance, plan.SIMT["float"][1].instance
PACK, PARTS, ADD = "pack_weight<float>", "sum_parts<float>", "add_taps<float>"
BARRIER = "        __syncthreads();  // tile i is there, and nobody reads the last one any more\n"
LOAD = "        load(i + STAGES - 1);\n"
FENCE = "        mg::fence_proxy_async();\n"
LATE = "        __syncthreads();\n        load(i + STAGES - 2);\n"
EARLY = "        load(i + STAGES - 2);\n        __syncthreads();\n"
FMA_BARRIER = "__syncthreads();  // this tile is there, and nobody reads the last one any more"
COMMIT = "BM * BK);\n        mg::cp_async_commit"
RIGHT = " &&\n               (unsigned)(x_ + t.x) < (unsigned)p.W"
BUGS = {
    "no barrier": Bug(MMA, BARRIER, ""),
    "loads before the barrier": Bug(MMA, BARRIER + LOAD, LOAD + BARRIER),
    "waits for one tile too few": Bug(MMA, "wait<STAGES - 2>", "wait<STAGES - 1>"),
    "commits only what it loads": Bug(MMA, COMMIT, "BM * BK), mg::cp_async_commit"),
    "leaves copies under way": Bug(MMA, "    mg::cp_async_wait<0>();\n", "", "not waited for"),
    "reads another swizzle": Bug(
        MMA, "A + row * BK + Loader::swizzle(row, chunk)", "A + row * BK + chunk"
    ),
    "one row too many": Bug(
        MMA, "if (i >= work.M) continue;", "if (i > work.M) continue;", "illegal"
    ),
    "weights beyond the last": Bug(MMA, "work.k0 + r < p.K ? count : 0", "count", "illegal"),
    "no bound on the right": Bug(MMA, RIGHT, ""),
    "wide copies of odd rows": Bug(
        MMA, "p.C % 4 == 0 && aligned16", "aligned16", "aligned", odd_channels
    ),
    "stores two where one is left": Bug(MMA, "p.K % 2 == 0", "true", "", odd),
    "drops what rounding lost": Bug(MMA3, "mg::mma_tf32(d, a_small[m], B1);", ""),
    "keeps the last part": Bug(MMA3, "sum[m][n][e] += part", "sum[m][n][e] = part"),
    "no fence": Bug(WGMMA, FENCE, "", "fence.proxy"),
    "no wait for products": Bug(WGMMA, "mg::wgmma_wait<1>();", "", "not yet waited for"),
    "reads products too early": Bug(WGMMA, "    mg::wgmma_wait<0>();\n", ""),
    "overwrites what others read": Bug(WGMMA, LATE, EARLY, "not yet waited for"),
    "all groups read the first rows": Bug(WGMMA, "A + warp / 4 * 64 * BK", "A", "", many),
    "descriptors in bytes": Bug(WGMMA, "a + 2 * k, b + 2 * k", "a + 32 * k, b + 32 * k"),
    "fma without barrier": Bug(FMA, FMA_BARRIER, ""),
    "fma overwrites its tile": Bug(
        FMA, "store((tile + 1 - first) % 2)", "store((tile - first) % 2)"
    ),
    "fma beyond the taps": Bug(FMA, "inside = tap < phase.taps;", "inside = true;", "", odd),
    "fma beyond the channels": Bug(FMA, "if (k < p.K) *(Few", "*(Few"),
    "pack without barrier": Bug(PACK, "e % nc];\n    __syncthreads();\n", "e % nc];\n"),
    "pack beyond the rows": Bug(PACK, "min(128, rows - row0)", "128", "illegal", odd),
    "pack leaves columns": Bug(
        PACK, "(columns + 31) / 32", "columns / 32 + (columns < 32)", "", thin
    ),
    "no first part": Bug(PARTS, "T sum = parts[i];", "T sum = 0;"),
    "one part too many": Bug(PARTS, "s < count", "s <= count", "illegal"),
    "add beyond the image": Bug(ADD, "if (i >= size) return;", "", "", thin),
    "add of another phase": Bug(ADD, "oy % p.out_y", "0", "", thin),
}


def noticed(bug: Bug) -> str:
    """What the emulator says about a layer, "wrong" or ""."""
    layer = bug.layer()
    x, w = layer.arrays(np.float32)
    expected = definition(layer, x, w)
    tile = TILES.get(bug.instance, TILES[FMA])
    source = next(s for s in kernels.SOURCES if bug.instance in s.instances)
    edited = Edited(source.file, (bug.instance,), old=bug.old, new=bug.new)
    for order in ORDERS:
        device = emulated_device(order)
        original = device.loader.function

        def function(s: Source, instance: str, original: Any = original) -> Any:
            return original(edited if instance == bug.instance else s, instance)

        device.loader.function = function  # type: ignore[method-assign]
        run = getattr(kernels, layer.name)
        with only(tile, 2 if bug.instance == PARTS else 1):
            try:
                y = run(device, device.upload(x), device.upload(w), *layer.options).get()
            except EmulatorError as found:
                return str(found)
        if not error(y, expected) < LIMITS[tile.instance]:
            return "wrong"
    return ""


@pytest.mark.parametrize("name", BUGS)
def test_a_planted_bug(name: str) -> None:
    said = noticed(BUGS[name])
    assert said, "nobody notices"
    assert BUGS[name].says in said


@pytest.mark.parametrize("instance", [MMA, MMA3, WGMMA, FMA])
@pytest.mark.parametrize("layer", [middle, odd, odd_channels, many, thin])
def test_the_layers_are_right_without_bugs(instance: str, layer: Callable[[], Layer]) -> None:
    assert noticed(Bug(instance, layer=layer)) == ""
