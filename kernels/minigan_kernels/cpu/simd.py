"""Sixteen numbers at a time: the vector types of our Numba kernels.

`V16` holds sixteen float32, `D16` sixteen float64. A kernel written with them reads like the scalar
loop, and its instructions are those we mean: LLVM cuts a V16 into one 512-bit register, two of 256
bits or four of 128, whatever the processor has, so there is one source for all of them.

Addresses are plain integers in bytes and nothing is checked: a kernel that uses this module gets
its arrays through `parallel.run`, which keeps them alive, and its tests run it on odd sizes.

Built with `numba.extending.intrinsic`: each function below is one or a few LLVM instructions.
"""

from __future__ import annotations

import operator
from typing import Any

from llvmlite import ir
from numba import extending, types
from numba.extending import models, register_model

# Numba's decorators turn functions into something else than their annotations say.
intrinsic: Any = extending.intrinsic
lower_builtin: Any = extending.lower_builtin
type_callable: Any = extending.type_callable

LANES = 16
BYTES = 4 * LANES  # of a V16

F32, F64 = ir.FloatType(), ir.DoubleType()
I1, I8, I32, I64 = (ir.IntType(n) for n in (1, 8, 32, 64))
VF = ir.VectorType(F32, LANES)
VD = ir.VectorType(F64, LANES)
VI = ir.VectorType(I32, LANES)
VM = ir.VectorType(I1, LANES)


class _Vector(types.Type):
    """A Numba type for one LLVM vector type."""

    def __init__(self, name: str, llvm: ir.Type) -> None:
        super().__init__(name=name)
        self.llvm = llvm


class _V16(_Vector): ...


class _D16(_Vector): ...


class _Mask16(_Vector): ...


class _I16(_Vector): ...


V16 = _V16("V16", VF)
D16 = _D16("D16", VD)
MASK16 = _Mask16("Mask16", VM)
I16 = _I16("I16", VI)

for _kind in (_V16, _D16, _Mask16, _I16):

    @register_model(_kind)
    class _Model(models.PrimitiveModel):
        def __init__(self, manager: Any, numba_type: Any) -> None:
            super().__init__(manager, numba_type, numba_type.llvm)


# Arithmetic: a + b, a - b, a * b, a / b, and comparisons that give a mask.


def _arithmetic(sign: Any, instruction: str) -> None:
    @type_callable(sign)
    def typing(context: Any) -> Any:
        def typer(a: Any, b: Any) -> Any:
            return a if a is b and a in (V16, D16) else None

        return typer

    for kind in (V16, D16):

        @lower_builtin(sign, kind, kind)
        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return getattr(builder, instruction)(*args)


def _comparison(sign: Any, symbol: str) -> None:
    @type_callable(sign)
    def typing(context: Any) -> Any:
        def typer(a: Any, b: Any) -> Any:
            return MASK16 if a is b and a in (V16, D16) else None

        return typer

    for kind in (V16, D16):

        @lower_builtin(sign, kind, kind)
        def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.fcmp_ordered(symbol, *args)  # false where either is NaN


for _sign, _name in (
    (operator.add, "fadd"),
    (operator.sub, "fsub"),
    (operator.mul, "fmul"),
    (operator.truediv, "fdiv"),
):
    _arithmetic(_sign, _name)
for _sign, _symbol in (
    (operator.gt, ">"),
    (operator.lt, "<"),
    (operator.ge, ">="),
    (operator.le, "<="),
):
    _comparison(_sign, _symbol)


def splat(builder: Any, scalar: Any, vector: ir.VectorType) -> Any:
    """LLVM: a vector whose lanes all hold `scalar`."""
    empty = ir.Constant(vector, ir.Undefined)
    first = builder.insert_element(empty, scalar, ir.Constant(I32, 0))
    return builder.shuffle_vector(first, empty, ir.Constant(VI, [0] * LANES))


def pointer(builder: Any, address: Any, to: ir.Type) -> Any:
    """LLVM: an integer address as a pointer."""
    return builder.inttoptr(address, to.as_pointer())


def llvm_function(builder: Any, name: str, vector: ir.Type, arguments: int) -> Any:
    """LLVM's own operation of that name, such as llvm.fma.v16f32."""
    signature = ir.FunctionType(vector, [vector] * arguments)
    return builder.module.declare_intrinsic(name, (), signature)


@intrinsic
def fma(typing: Any, a: Any, b: Any, c: Any) -> Any:
    """a b + c, rounded once where the processor can (every one with AVX2 or AVX-512)."""
    kind = c if c in (V16, D16) else V16
    name = "llvm.fmuladd.v16f32" if kind is V16 else "llvm.fmuladd.v16f64"

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.call(llvm_function(builder, name, kind.llvm, 3), list(args))

    return kind(kind, kind, kind), code


@intrinsic
def sqrt(typing: Any, a: Any) -> Any:
    """Square root of each lane."""
    name = "llvm.sqrt.v16f32" if a is V16 else "llvm.sqrt.v16f64"

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.call(llvm_function(builder, name, a.llvm, 1), list(args))

    return a(a), code


@intrinsic
def where(typing: Any, mask: Any, a: Any, b: Any) -> Any:
    """a where the mask holds, else b."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.select(*args)

    return a(mask, a, b), code


# Memory. p is an address in bytes; any alignment is right, a multiple of 64 is fastest.


def _load(numba_type: Any, llvm: ir.Type, align: int) -> Any:
    @intrinsic
    def load(typing: Any, p: Any) -> Any:
        def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            return builder.load(pointer(builder, args[0], llvm), align=align)

        return numba_type(types.intp), code

    return load


def _store(numba_type: Any, llvm: ir.Type, align: int) -> Any:
    @intrinsic
    def store(typing: Any, p: Any, value: Any) -> Any:
        def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            builder.store(args[1], pointer(builder, args[0], llvm), align=align)
            return context.get_dummy_value()

        return types.void(types.intp, numba_type), code

    return store


load = _load(V16, VF, 4)  # sixteen float32 at p
store = _store(V16, VF, 4)
load_f64s = _load(D16, VD, 8)  # sixteen float64 at p
store_f64s = _store(D16, VD, 8)
load_f32 = _load(types.float32, F32, 4)  # one number at p
store_f32 = _store(types.float32, F32, 4)
load_f64 = _load(types.float64, F64, 8)
store_f64 = _store(types.float64, F64, 8)
load_i64 = _load(types.int64, I64, 8)
store_i64 = _store(types.int64, I64, 8)


def _mask_of(builder: Any, count: Any) -> Any:
    """LLVM: lanes 0 .. count-1."""
    number = splat(builder, builder.trunc(count, I32), VI)
    return builder.icmp_signed("<", ir.Constant(VI, list(range(LANES))), number)


@intrinsic
def load_part(typing: Any, p: Any, count: Any) -> Any:
    """The first `count` numbers at p, zeros in the other lanes; reads nothing beyond them."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        signature = ir.FunctionType(VF, [VF.as_pointer(), I32, VM, VF])
        masked = builder.module.declare_intrinsic("llvm.masked.load.v16f32.p0", (), signature)
        lanes = _mask_of(builder, args[1])
        zero = ir.Constant(VF, [0.0] * LANES)
        return builder.call(
            masked, [pointer(builder, args[0], VF), ir.Constant(I32, 4), lanes, zero]
        )

    return V16(types.intp, types.intp), code


@intrinsic
def store_part(typing: Any, p: Any, value: Any, count: Any) -> Any:
    """Write the first `count` lanes to p and nothing beyond them."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        signature = ir.FunctionType(ir.VoidType(), [VF, VF.as_pointer(), I32, VM])
        masked = builder.module.declare_intrinsic("llvm.masked.store.v16f32.p0", (), signature)
        lanes = _mask_of(builder, args[2])
        builder.call(masked, [args[1], pointer(builder, args[0], VF), ir.Constant(I32, 4), lanes])
        return context.get_dummy_value()

    return types.void(types.intp, V16, types.intp), code


@intrinsic
def spread(typing: Any, number: Any) -> Any:
    """A V16 (or, of a float64, a D16) whose lanes all hold `number`."""
    kind = D16 if number == types.float64 else V16
    scalar = types.float64 if kind is D16 else types.float32

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return splat(builder, args[0], kind.llvm)

    return kind(scalar), code


@intrinsic
def widen(typing: Any, a: Any) -> Any:
    """V16 -> D16, exactly."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fpext(args[0], VD)

    return D16(V16), code


@intrinsic
def narrow(typing: Any, a: Any) -> Any:
    """D16 -> V16, rounded."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.fptrunc(args[0], VF)

    return V16(D16), code


@intrinsic
def total(typing: Any, a: Any) -> Any:
    """Sum of the lanes, by halves: the order is fixed and the same on every processor."""
    scalar = types.float32 if a is V16 else types.float64

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        v = args[0]
        for shift in (8, 4, 2, 1):
            lanes = [(i + shift) % LANES for i in range(LANES)]
            v = builder.fadd(v, builder.shuffle_vector(v, v, ir.Constant(VI, lanes)))
        return builder.extract_element(v, ir.Constant(I32, 0))

    return scalar(a), code


@intrinsic
def bits_of(typing: Any, a: Any) -> Any:
    """V16 -> I16: the same 32 bits of each lane as integers."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], VI)

    return I16(V16), code


@intrinsic
def floats_of(typing: Any, a: Any) -> Any:
    """I16 -> V16: the same 32 bits of each lane as float32."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return builder.bitcast(args[0], VF)

    return V16(I16), code


# Whole numbers: a + b, a - b, a & b, a | b, a ^ b, and shifts by a constant number of bits.


def _whole(sign: Any, instruction: str) -> None:
    @type_callable(sign)
    def typing(context: Any) -> Any:
        def typer(a: Any, b: Any) -> Any:
            return I16 if a is b is I16 else None

        return typer

    @lower_builtin(sign, I16, I16)
    def lower(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return getattr(builder, instruction)(*args)


for _sign, _name in (
    (operator.add, "add"),
    (operator.sub, "sub"),
    (operator.and_, "and_"),
    (operator.or_, "or_"),
    (operator.xor, "xor"),
):
    _whole(_sign, _name)


def _shift(instruction: str) -> Any:
    @intrinsic
    def shift(typing: Any, a: Any, bits: Any) -> Any:
        def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            count = splat(builder, builder.trunc(args[1], I32), VI)
            return getattr(builder, instruction)(args[0], count)

        return I16(I16, types.intp), code

    return shift


shift_left = _shift("shl")  # I16, bits -> I16
shift_right = _shift("ashr")  # copies the sign


@intrinsic
def spread_whole(typing: Any, number: Any) -> Any:
    """An I16 whose lanes all hold the lower 32 bits of `number`."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return splat(builder, builder.trunc(args[0], I32), VI)

    return I16(types.intp), code


@intrinsic
def transpose(typing: Any, source: Any, source_row: Any, target: Any, target_row: Any) -> Any:
    """Write the transpose of a 16 x 16 tile of float32; rows are so many bytes apart."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        def row(base: Any, step: Any, i: int) -> Any:
            return pointer(builder, builder.add(base, builder.mul(step, ir.Constant(I64, i))), VF)

        rows = [builder.load(row(args[0], args[1], i), align=4) for i in range(LANES)]
        for size in (1, 2, 4, 8):  # swap the off-diagonal blocks of every 2 size x 2 size block
            low = [j if not j & size else LANES + j - size for j in range(LANES)]
            high = [j + size if not j & size else LANES + j for j in range(LANES)]
            for i in range(LANES):
                if not i & size:
                    a, b = rows[i], rows[i + size]
                    rows[i] = builder.shuffle_vector(a, b, ir.Constant(VI, low))
                    rows[i + size] = builder.shuffle_vector(a, b, ir.Constant(VI, high))
        for i, vector in enumerate(rows):
            builder.store(vector, row(args[2], args[3], i), align=4)
        return context.get_dummy_value()

    return types.void(*(types.intp,) * 4), code


@intrinsic
def store_f64s_part(typing: Any, p: Any, value: Any, count: Any) -> Any:
    """Write the first `count` lanes of a D16 to p and nothing beyond them."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        signature = ir.FunctionType(ir.VoidType(), [VD, VD.as_pointer(), I32, VM])
        masked = builder.module.declare_intrinsic("llvm.masked.store.v16f64.p0", (), signature)
        lanes = _mask_of(builder, args[2])
        builder.call(masked, [args[1], pointer(builder, args[0], VD), ir.Constant(I32, 8), lanes])
        return context.get_dummy_value()

    return types.void(types.intp, D16, types.intp), code


@intrinsic
def load_f64s_part(typing: Any, p: Any, count: Any) -> Any:
    """The first `count` float64 at p, zeros in the other lanes; reads nothing beyond them."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        signature = ir.FunctionType(VD, [VD.as_pointer(), I32, VM, VD])
        masked = builder.module.declare_intrinsic("llvm.masked.load.v16f64.p0", (), signature)
        lanes = _mask_of(builder, args[1])
        zero = ir.Constant(VD, [0.0] * LANES)
        return builder.call(
            masked, [pointer(builder, args[0], VD), ir.Constant(I32, 8), lanes, zero]
        )

    return D16(types.intp, types.intp), code


@intrinsic
def first_lanes(typing: Any, count: Any) -> Any:
    """The mask of lanes 0 .. count-1."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        return _mask_of(builder, args[0])

    return MASK16(types.intp), code


@intrinsic
def largest(typing: Any, a: Any) -> Any:
    """The largest lane of a V16; no lane may be NaN."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        v = args[0]
        for shift in (8, 4, 2, 1):
            lanes = [(i + shift) % LANES for i in range(LANES)]
            other = builder.shuffle_vector(v, v, ir.Constant(VI, lanes))
            v = builder.select(builder.fcmp_ordered(">", v, other), v, other)
        return builder.extract_element(v, ir.Constant(I32, 0))

    return types.float32(a), code


def _lanes_of_three(builder: Any, vectors: Any, flat: list[int]) -> Any:
    """LLVM: lanes of three vectors that follow each other, by their numbers 0 .. 47."""
    pair = [i if i < 2 * LANES else 0 for i in flat]
    both = builder.shuffle_vector(vectors[0], vectors[1], ir.Constant(VI, pair))
    last = [j if i < 2 * LANES else i - LANES for j, i in enumerate(flat)]
    return builder.shuffle_vector(both, vectors[2], ir.Constant(VI, last))


def _three(source_apart: bool) -> Any:
    """Sixteen triples between three rows (`step` bytes apart) and one row of 48 numbers."""

    @intrinsic
    def move(typing: Any, source: Any, step: Any, target: Any) -> Any:
        def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
            def place(base: Any, i: int, apart: bool) -> Any:
                by = args[1] if apart else ir.Constant(I64, BYTES)
                return pointer(builder, builder.add(base, builder.mul(by, ir.Constant(I64, i))), VF)

            rows = [builder.load(place(args[0], i, source_apart), align=4) for i in range(3)]
            for i in range(3):
                mixed = [LANES * (n % 3) + n // 3 for n in range(i * LANES, (i + 1) * LANES)]
                picked = [3 * j + i for j in range(LANES)]
                vector = _lanes_of_three(builder, rows, mixed if source_apart else picked)
                builder.store(vector, place(args[2], i, not source_apart), align=4)
            return context.get_dummy_value()

        return types.void(*(types.intp,) * 3), code

    return move


mix_three = _three(True)  # source rows, their step, target: red, green, blue -> pixels
part_three = _three(False)  # source, step of the target rows, target: pixels -> colours


@intrinsic
def fetch(typing: Any, p: Any) -> Any:
    """Ask for the cache line at p, to the second level: it will be read soon. p may be anything."""

    def code(context: Any, builder: Any, sig: Any, args: Any) -> Any:
        place = pointer(builder, args[0], I8)
        signature = ir.FunctionType(ir.VoidType(), [place.type, I32, I32, I32])
        function = builder.module.declare_intrinsic("llvm.prefetch.p0", (), signature)
        reading, second_level, data = (ir.Constant(I32, n) for n in (0, 2, 1))
        builder.call(function, [place, reading, second_level, data])
        return context.get_dummy_value()

    return types.void(types.intp), code
