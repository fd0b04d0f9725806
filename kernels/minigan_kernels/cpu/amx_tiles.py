"""The tile instructions of AMX, Intel's matrix unit, as functions for our kernels.

    tileconfig(tiles, rows, pairs)         the shapes of the tiles, for this thread; see below
    tilezero(tiles, t)                     tile t = 0
    tileloadd(tiles, t, p, stride)         tile t = the rows at p, p + stride, ...
    tdpbf16ps(tiles, c, a, b)              tile c += tile a @ tile b, in pairs of bfloat16
    tilestored(tiles, t, p, stride)        the rows at p, p + stride, ... = tile t
    tilerelease(tiles)                     done: nothing to save when threads take turns

The unit does 16 x 16 x 32 multiply-adds per instruction, one row of A a cycle: sixteen times the
rate of AVX-512 with float32. It has eight tiles, which we use as a 2 x 2 block of results: C in
0..3 (row by row), two tiles of A in 4 and 5, two of B in 6 and 7. Then every tile that is loaded
takes part in two products. A and C have `rows` rows, A has `pairs` pairs of bfloat16 in each, and B
one row of 16 pairs for each of those.

`tiles` is the address of TILES_BYTES of this thread, 64-byte aligned. The processor finds the
configuration there; the emulation, which `machine.emulates_amx` chooses, the tiles themselves.
Tile numbers are part of the instruction, so they must be literal numbers in the code.
"""

from __future__ import annotations

from typing import Any

from llvmlite import ir
from numba import types

from minigan_kernels.cpu import amx_emulated as emulated
from minigan_kernels.cpu.amx_emulated import CONFIG_BYTES, TILE_BYTES
from minigan_kernels.cpu.machine import EMULATION, emulates_amx, simd
from minigan_kernels.cpu.parallel import part
from minigan_kernels.cpu.simd import I8, intrinsic, pointer, store_i64

TILES_BYTES = CONFIG_BYTES + 8 * TILE_BYTES
EMULATED = emulates_amx()
if not EMULATED and simd() != "amx":
    raise ImportError(f"the processor has no AMX, or may not use it; {EMULATION}=1 emulates it")


def _emitted(name: str, numbers: list[Any], operands: list[Any]) -> tuple[Any, Any]:
    """What an intrinsic returns: for an instruction with these tile numbers and other operands."""
    in_memory = getattr(emulated, name.removesuffix("64"))
    types_of_all = [types.intp, *numbers, *operands]

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        if EMULATED:
            plain = types.void(*(types.intp for _ in types_of_all))
            return context.compile_internal(builder, in_memory, plain, args)
        values = [ir.Constant(I8, number.literal_value) for number in numbers]
        if operands:
            address, *stride = args[1 + len(numbers) :]
            values += [pointer(builder, address, I8), *stride]
        signature = ir.FunctionType(ir.VoidType(), [value.type for value in values])
        function = builder.module.declare_intrinsic(f"llvm.x86.{name}", (), signature)
        builder.call(function, values)
        return context.get_dummy_value()

    return types.void(*types_of_all), code


_instruction = intrinsic(prefer_literal=True)


@_instruction
def _ldtilecfg(typing: Any, tiles: Any, p: Any) -> Any:
    return _emitted("ldtilecfg", [], [types.intp])


@_instruction
def tilezero(typing: Any, tiles: Any, t: Any) -> Any:
    return _emitted("tilezero", [t], [])


@_instruction
def tileloadd(typing: Any, tiles: Any, t: Any, p: Any, stride: Any) -> Any:
    return _emitted("tileloadd64", [t], [types.intp, types.intp])


@_instruction
def tdpbf16ps(typing: Any, tiles: Any, c: Any, a: Any, b: Any) -> Any:
    return _emitted("tdpbf16ps", [c, a, b], [])


@_instruction
def tilestored(typing: Any, tiles: Any, t: Any, p: Any, stride: Any) -> Any:
    return _emitted("tilestored64", [t], [types.intp, types.intp])


@_instruction
def tilerelease(typing: Any, tiles: Any) -> Any:
    return _emitted("tilerelease", [], [])


@part
def tileconfig(tiles: int, rows: int, pairs: int) -> None:
    """Set the shapes of all tiles and clear them."""
    # Palette 1; from byte 16 on the bytes of a row of each tile, from byte 48 on their rows.
    c, a, b = 64, 4 * pairs, 64
    store_i64(tiles, 1)
    store_i64(tiles + 8, 0)
    store_i64(tiles + 16, c * 0x0001_0001_0001_0001)
    store_i64(tiles + 24, a * 0x0001_0001 + b * 0x0001_0001_0000_0000)
    store_i64(tiles + 32, 0)
    store_i64(tiles + 40, 0)
    store_i64(tiles + 48, rows * 0x01_01_01_01_01_01 + pairs * 0x01_01_00_00_00_00_00_00)
    store_i64(tiles + 56, 0)
    _ldtilecfg(tiles, tiles)
