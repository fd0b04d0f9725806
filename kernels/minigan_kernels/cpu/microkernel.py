"""The innermost loop of every matrix product: a tile of C that never leaves the registers.

    C[m, :] (+)= sum over s, k of A[m, s, k] B[s, k, :]

A tile has `rows` rows and `vectors` x 16 columns. Each step of k loads the vectors of one row of B
once and multiplies them with a number of every row of A: rows x vectors multiply-adds for
rows + vectors loads. All of C's tile stays in registers meanwhile, so the arithmetic units, not
memory, set the pace: 99% of the peak in the first-level cache.

The registers set the shape of the tile: AVX-512 has 32 of 16 floats, and 14 x 2 accumulators with
2 vectors of B and a broadcast number leave none unused; AVX2 has 16 of 8 floats, which is 6 x 1 of
our sixteen-lane vectors.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minigan_kernels.cpu.machine import simd
from minigan_kernels.cpu.simd import BYTES, F32, I64, LANES, VF, llvm_function, pointer, splat

WIDE = simd() in ("avx512", "amx")
VECTORS = 2 if WIDE else 1  # of one row of a panel of B
PANEL = VECTORS * LANES  # columns of a panel of B
PANEL_BYTES = 4 * PANEL
TALLEST = 14 if WIDE else 6  # rows of the tallest tile


def tile(rows: int, vectors: int) -> Any:
    """The microkernel of one tile shape, as a function for Numba code.

    tile(A, a_row, a_k, K, S, a_s, B, b_k, C, c_row, add): addresses and strides in bytes.
    K steps of k are repeated for S segments; A moves by a_k and a_s, B always by b_k. `add` is 0
    to overwrite C, 1 to add to it.
    """

    @intrinsic
    def multiply(
        typing: Any,
        A: Any,
        a_row: Any,
        a_k: Any,
        K: Any,
        S: Any,
        a_s: Any,
        B: Any,
        b_k: Any,
        C: Any,
        c_row: Any,
        add: Any,
    ) -> Any:
        def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            _tile(builder, rows, vectors, *args)
            return context.get_dummy_value()

        return types.void(*(types.intp,) * 11), code

    return multiply


def _tile(
    b: ir.IRBuilder,
    rows: int,
    vectors: int,
    A: Any,
    a_row: Any,
    a_k: Any,
    K: Any,
    S: Any,
    a_s: Any,
    B: Any,
    b_k: Any,
    C: Any,
    c_row: Any,
    add: Any,
) -> None:
    def const(n: int) -> Any:
        return ir.Constant(I64, n)

    def c_address(i: int, j: int) -> Any:
        return b.add(b.add(C, b.mul(c_row, const(i))), const(BYTES * j))

    cells = [(i, j) for i in range(rows) for j in range(vectors)]
    fma = llvm_function(b, "llvm.fmuladd.v16f32", VF, 3)
    start = b.block
    names = ("load_c", "segment", "step", "segment_end", "done")
    load_c, segment, step, segment_end, done = (b.function.append_basic_block(n) for n in names)
    b.cbranch(b.icmp_signed("!=", add, const(0)), load_c, segment)

    b.position_at_end(load_c)
    loaded = [b.load(pointer(b, c_address(i, j), VF), align=4) for i, j in cells]
    b.branch(segment)

    b.position_at_end(segment)
    at_segment = [b.phi(VF) for _ in cells]
    s, a_seg, b_seg = (b.phi(I64) for _ in range(3))
    b.branch(step)

    b.position_at_end(step)
    sums = [b.phi(VF) for _ in cells]
    k, a_now, b_now = (b.phi(I64) for _ in range(3))
    line = [b.load(pointer(b, b.add(b_now, const(BYTES * j)), VF), align=4) for j in range(vectors)]
    new = list(sums)
    for i in range(rows):
        number = b.load(pointer(b, b.add(a_now, b.mul(a_row, const(i))), F32))
        everywhere = splat(b, number, VF)
        for j in range(vectors):
            new[i * vectors + j] = b.call(fma, [everywhere, line[j], sums[i * vectors + j]])
    k_next, a_next, b_next = b.add(k, const(1)), b.add(a_now, a_k), b.add(b_now, b_k)
    b.cbranch(b.icmp_signed("<", k_next, K), step, segment_end)
    for phi, first, then in zip(sums, at_segment, new, strict=True):
        phi.add_incoming(first, segment)
        phi.add_incoming(then, step)
    for phi, first, then in ((k, const(0), k_next), (a_now, a_seg, a_next), (b_now, b_seg, b_next)):
        phi.add_incoming(first, segment)
        phi.add_incoming(then, step)

    b.position_at_end(segment_end)
    s_next, a_seg_next = b.add(s, const(1)), b.add(a_seg, a_s)
    b.cbranch(b.icmp_signed("<", s_next, S), segment, done)
    zero = ir.Constant(VF, [0.0] * LANES)
    for phi, old, then in zip(at_segment, loaded, new, strict=True):
        phi.add_incoming(zero, start)
        phi.add_incoming(old, load_c)
        phi.add_incoming(then, segment_end)
    for phi, first, then in ((s, const(0), s_next), (a_seg, A, a_seg_next), (b_seg, B, b_next)):
        phi.add_incoming(first, start)
        phi.add_incoming(first, load_c)
        phi.add_incoming(then, segment_end)

    b.position_at_end(done)
    for (i, j), value in zip(cells, new, strict=True):
        b.store(value, pointer(b, c_address(i, j), VF), align=4)
