"""Microkernels that find one factor through a table of addresses ("indirect" convolution).

The windows of a convolution overlap and jump at the ends of lines, so as rows of a matrix they
have no common stride. Copying them into a matrix costs a tenth of the time where the other factor
has few columns. These tiles read them where they are, by addresses from a table:

    window_tile     C[i, :] = sum over s, k of W[s, i][k] B[s K + k, :]      y = windows @ weight
    gradient_tile   C[i, :] = sum over k of A[k, i] W[k][column + :]     dw = g^T @ windows

W[...] is an address from the table. C is PANEL columns wide and always overwritten. See
microkernel.py for why a tile has the shape it has. (After M. Dukhan, "The Indirect Convolution
Algorithm", 2019.)
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from llvmlite import ir
from numba import types
from numba.extending import intrinsic

from minigan_kernels.cpu.microkernel import PANEL_BYTES, VECTORS
from minigan_kernels.cpu.simd import BYTES, F32, I64, VF, llvm_function, pointer, splat


def window_tile(rows: int) -> Any:
    """tile(W, w_s, K, S, B, C): w_s bytes lie between a row's cells of W for two segments s."""

    @intrinsic
    def multiply(typing: Any, W: Any, w_s: Any, K: Any, S: Any, B: Any, C: Any) -> Any:
        def code(context: Any, b: Any, sig: Any, args: Any) -> Any:
            W, w_s, K, S, B, C = args

            def segment(s: Any, sums: list[Any]) -> list[Any]:
                cells = b.add(W, b.mul(s, w_s))
                windows = [_load(b, cells, I64, 8 * i) for i in range(rows)]
                line = b.add(B, b.mul(s, b.mul(K, _const(PANEL_BYTES))))

                def step(k: Any, sums: list[Any]) -> list[Any]:
                    at = b.mul(k, _const(4))
                    numbers = [_load(b, b.add(window, at), F32) for window in windows]
                    return _multiply_add(
                        b, numbers, b.add(line, b.mul(k, _const(PANEL_BYTES))), sums
                    )

                return _loop(b, K, step, sums)

            _store(b, _loop(b, S, segment, _zeros(rows)), C)
            return context.get_dummy_value()

        return types.void(*(types.intp,) * 6), code

    return multiply


def gradient_tile(rows: int) -> Any:
    """tile(A, a_k, K, W, column, C): rows of A are a_k bytes apart; column counts bytes."""

    @intrinsic
    def multiply(typing: Any, A: Any, a_k: Any, K: Any, W: Any, column: Any, C: Any) -> Any:
        def code(context: Any, b: Any, sig: Any, args: Any) -> Any:
            A, a_k, K, W, column, C = args

            def step(k: Any, sums: list[Any]) -> list[Any]:
                window = _load(b, b.add(W, b.mul(k, _const(8))), I64)
                now = b.add(A, b.mul(k, a_k))
                numbers = [_load(b, now, F32, 4 * i) for i in range(rows)]
                return _multiply_add(b, numbers, b.add(window, column), sums)

            _store(b, _loop(b, K, step, _zeros(rows)), C)
            return context.get_dummy_value()

        return types.void(*(types.intp,) * 6), code

    return multiply


def _const(n: int) -> Any:
    return ir.Constant(I64, n)


def _load(b: Any, address: Any, kind: ir.Type, offset: int = 0) -> Any:
    return b.load(pointer(b, b.add(address, _const(offset)), kind))


def _zeros(rows: int) -> list[Any]:
    return [ir.Constant(VF, [0.0] * 16)] * (rows * VECTORS)


def _multiply_add(b: Any, numbers: list[Any], line: Any, sums: list[Any]) -> list[Any]:
    """sums[i, :] + numbers[i] line[:], one panel wide."""
    fma = llvm_function(b, "llvm.fmuladd.v16f32", VF, 3)
    at = [pointer(b, b.add(line, _const(BYTES * j)), VF) for j in range(VECTORS)]
    vectors = [b.load(p, align=4) for p in at]
    new = []
    for i, number in enumerate(numbers):
        everywhere = splat(b, number, VF)
        for j, vector in enumerate(vectors):
            new.append(b.call(fma, [everywhere, vector, sums[i * VECTORS + j]]))
    return new


def _loop(
    b: Any, count: Any, body: Callable[[Any, list[Any]], list[Any]], sums: list[Any]
) -> list[Any]:
    """Repeat the body count > 0 times; it gets the number of the turn and the sums so far."""
    before = b.block
    turn, after = (b.function.append_basic_block(name) for name in ("turn", "after"))
    b.branch(turn)
    b.position_at_end(turn)
    i, *now = (b.phi(kind) for kind in (I64, *(VF,) * len(sums)))
    new = body(i, now)
    i_next = b.add(i, _const(1))
    for phi, first, then in zip((i, *now), (_const(0), *sums), (i_next, *new), strict=True):
        phi.add_incoming(first, before)
        phi.add_incoming(then, b.block)
    b.cbranch(b.icmp_signed("<", i_next, count), turn, after)
    b.position_at_end(after)
    return new


def _store(b: Any, sums: list[Any], C: Any) -> None:
    for i, vector in enumerate(sums):
        b.store(vector, pointer(b, b.add(C, _const(BYTES * i)), VF), align=4)
