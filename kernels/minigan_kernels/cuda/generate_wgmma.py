"""Write mg_wgmma.cuh: the operands of a wgmma are too many to write by hand.

python -m minigan_kernels.cuda.generate_wgmma
"""

from __future__ import annotations

import textwrap
from pathlib import Path

TARGET = Path(__file__).resolve().parent / "mg_wgmma.cuh"
COLUMNS = (64, 128, 256)

HEAD = """\
// mg_wgmma.cuh - the warpgroup's matrix product of Hopper in TF32; written by generate_wgmma.py.
#pragma once
#include "mg.cuh"
#ifndef MG_EMU
namespace mg {
// What cp.async wrote becomes visible to wgmma.
__device__ __forceinline__ void fence_proxy_async() {
    asm volatile("fence.proxy.async.shared::cta;" ::: "memory");
}
__device__ __forceinline__ void wgmma_fence() {
    asm volatile("wgmma.fence.sync.aligned;" ::: "memory");
}
__device__ __forceinline__ void wgmma_commit() {
    asm volatile("wgmma.commit_group.sync.aligned;" ::: "memory");
}
template <int NEWEST> __device__ __forceinline__ void wgmma_wait() {
    asm volatile("wgmma.wait_group.sync.aligned %0;" ::"n"(NEWEST) : "memory");
}
__device__ __forceinline__ unsigned smem_addr(const void* p) { return smem_u32(p); }

// d (64 x N, shared out over 128 threads) += a (64 x 8) b^T (N x 8)
template <int N> struct Wgmma;
"""

TAIL = """\
}  // namespace mg
#endif

namespace mg {
// A tile in shared memory: rows of 128 bytes, eight rows 1024 bytes from the next eight, chunk c of
// 16 bytes of row r at place c ^ (r & 7).
__device__ __forceinline__ unsigned long long wgmma_desc(const void* tile) {
    const unsigned long long eight_rows = 1024 >> 4, swizzle_128 = 1;
    return (smem_addr(tile) & 0x3ffff) >> 4 | 1ull << 16 | eight_rows << 32 | swizzle_128 << 62;
}
}  // namespace mg
"""


def product(columns: int) -> str:
    """The wrapper of one instruction."""
    count = columns // 2
    numbers = _lines(", ".join(f"%{i}" for i in range(count)))
    operands = _lines(", ".join(f'"+f"(d[{i}])' for i in range(count)))
    quoted = "\n".join(f'                     "{line} "' for line in numbers)
    indented = ("\n" + " " * 23).join(operands)
    return f"""\
template <> struct Wgmma<{columns}> {{
    static __device__ __forceinline__ void ss(float (&d)[{count}], unsigned long long a,
                                              unsigned long long b) {{
        asm volatile("wgmma.mma_async.sync.aligned.m64n{columns}k8.f32.tf32.tf32 {{"
{quoted}
                     "}}, %{count}, %{count + 1}, 1, 1, 1;"
                     : {indented}
                     : "l"(a), "l"(b));
    }}
}};
"""


def _lines(text: str) -> list[str]:
    return textwrap.wrap(text, 72)


def header() -> str:
    """The whole file."""
    return HEAD + "".join(map(product, COLUMNS)) + TAIL


if __name__ == "__main__":
    TARGET.write_text(header())
