"""The transforms of Winograd convolution: matrices from points, and their vector code.

F(m, r) computes m outputs of a filter with r taps, y[i] = sum over j of d[i + j] w[j], with
n = m + r - 1 multiplications instead of m r (Toom 1963, Cook 1966, Winograd 1980):

    y = A^T ((G w) * (B^T d))        d (n), w (r), y (m); * elementwise

Read it backwards. The transpose of a filter multiplies polynomials: (sum w_j x^j)(sum y_i x^i) has
degree n - 1, so it is known from its values at n points, and its value at a point is the product
of the two values. G and A evaluate the polynomials at the points (the last point is infinity: the
leading coefficient), B puts the values together again. In two dimensions every transform acts on
both axes, P X P^T, and r^2 m^2 multiplications become n^2: a quarter for F(4,3), 25/64 for F(4,2).

The points decide the rounding error: large powers of them cancel in the end, and what they were
rounded by stays. Relative error (norm) in float32 against float64, 64 channels of random numbers:

    F(4,3)  0, +-1, +-2, inf        1.7e-6        F(4,2)  0, +-1, 2, inf        1.0e-6
    F(4,3)  0, +-2/3, +-3/2, inf    0.8e-6        F(4,2)  +-1/3, +-4/3, inf     0.5e-6

(direct summation: 0.2 to 0.3e-6). Points that come as +-p share work: even and odd powers of p are
added up once and then combined with both signs.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from fractions import Fraction
from typing import Any, NamedTuple

from llvmlite import ir
from numba import extending, types

from minigan_kernels.cpu.parallel import Kernel, arg
from minigan_kernels.cpu.simd import I64, LANES, VF, llvm_function, pointer

Matrix = tuple[tuple[Fraction, ...], ...]


class Matrices(NamedTuple):
    """F(m, r): A^T (m, n), G (n, r), B^T (n, n)."""

    output: Matrix
    weight: Matrix
    input: Matrix


def toom_cook(m: int, r: int, points: Sequence[Fraction]) -> Matrices:
    """The matrices of F(m, r) for n - 1 different points, and infinity as the last."""
    n = m + r - 1
    output, weight, rows = [], [], []
    for p in points:
        others = [q for q in points if q != p]
        scale = Fraction(1)
        for q in others:
            scale *= p - q
        output.append([p**i for i in range(m)])
        weight.append([p**j / scale for j in range(r)])
        rows.append(_with_roots(others, n))
    output.append([Fraction(i == m - 1) for i in range(m)])
    weight.append([Fraction(j == r - 1) for j in range(r)])
    rows.append(_with_roots(points, n))
    return Matrices(transposed(output), _frozen(weight), _frozen(rows))


def _with_roots(roots: Sequence[Fraction], length: int) -> list[Fraction]:
    """Coefficients of the product of (x - root), constant first."""
    c = [Fraction(1)] + [Fraction(0)] * (length - 1)
    for root in roots:
        c = [low - root * here for low, here in zip([Fraction(0), *c], c, strict=False)]
    return c


def _frozen(rows: Sequence[Sequence[Fraction]]) -> Matrix:
    return tuple(tuple(row) for row in rows)


def transposed(rows: Sequence[Sequence[Fraction]]) -> Matrix:
    return tuple(zip(*rows, strict=True))


# How a matrix multiplies a vector with few operations. `do` holds the operations, so that tests can
# run the very same steps on fractions.


class Steps(NamedTuple):
    """scale(c, x) = c x; fma(c, x, y) = c x + y; c is a Fraction."""

    scale: Callable[[Fraction, Any], Any]
    fma: Callable[[Fraction, Any, Any], Any]
    add: Callable[[Any, Any], Any]
    sub: Callable[[Any, Any], Any]


def multiply(matrix: Matrix, x: Sequence[Any], do: Steps) -> list[Any]:
    """matrix @ x; pairs of columns or rows that are equal up to signs share their work."""
    for j in range(1, len(x)):
        i = j - 1
        if _mirrored(column(matrix, i), column(matrix, j)):
            return _columns_together(matrix, x, i, do)
    y: list[Any] = []
    for i, row in enumerate(matrix):
        if len(y) > i:
            continue
        after = matrix[i + 1] if i + 1 < len(matrix) else ()
        if after and _mirrored(row, after):
            y += _rows_together(row, after, x, do)
        else:
            first, value = combination(row, x, do)
            y.append(value if first == 1 else do.scale(first, value))
    return y


def column(matrix: Matrix, j: int) -> tuple[Fraction, ...]:
    return tuple(row[j] for row in matrix)


def _mirrored(a: Sequence[Fraction], b: Sequence[Fraction]) -> bool:
    """Equal but for some signs, not all: one half to be added, the other to be subtracted."""
    agree = any(u == v != 0 for u, v in zip(a, b, strict=True))
    oppose = any(u == -v != 0 for u, v in zip(a, b, strict=True))
    return agree and oppose and all(abs(u) == abs(v) for u, v in zip(a, b, strict=True))


def _columns_together(matrix: Matrix, x: Sequence[Any], i: int, do: Steps) -> list[Any]:
    """a x_i + a x_j and a x_i - a x_j need a single product: of x_i + x_j, of x_i - x_j."""
    j, zero = i + 1, Fraction(0)
    rows = []
    for row in matrix:
        agree, oppose = (row[i], zero) if row[i] == row[j] else (zero, row[i])
        rows.append((*row[:i], agree, oppose, *row[j + 1 :]))
    both = do.add(x[i], x[j]), do.sub(x[i], x[j])
    return multiply(_frozen(rows), [*x[:i], *both, *x[j + 1 :]], do)


def _rows_together(
    row: Sequence[Fraction], after: Sequence[Fraction], x: Sequence[Any], do: Steps
) -> list[Any]:
    """(a + b) x and (a - b) x from a x and b x."""
    zero = Fraction(0)
    a, same = combination([u if u == v else zero for u, v in zip(row, after, strict=True)], x, do)
    b, other = combination([u if u != v else zero for u, v in zip(row, after, strict=True)], x, do)
    if a != 1:
        same = do.scale(a, same)
    return [do.fma(b, other, same), do.fma(-b, other, same)]


def combination(row: Sequence[Fraction], x: Sequence[Any], do: Steps) -> tuple[Fraction, Any]:
    """(first, value): first * value is the product; value begins with an x that needs no factor."""
    used = sorted((k for k, c in enumerate(row) if c), key=lambda k: (abs(row[k]) != 1, -k))
    first, value = row[used[0]], x[used[0]]
    for k in used[1:]:
        c = row[k] / first
        if abs(c) == 1:
            value = do.add(value, x[k]) if c == 1 else do.sub(value, x[k])
        else:
            value = do.fma(c, x[k], value)
    return first, value


def _vector_steps(builder: ir.IRBuilder) -> Steps:
    fused = llvm_function(builder, "llvm.fmuladd.v16f32", VF, 3)

    def constant(c: Fraction) -> Any:
        return ir.Constant(VF, [float(c)] * LANES)

    return Steps(
        scale=lambda c, x: builder.fmul(constant(c), x),
        fma=lambda c, x, y: builder.call(fused, [constant(c), x, y]),
        add=builder.fadd,
        sub=builder.fsub,
    )


# F(4,3) and F(4,2), each as five matrices: three of the convolution, and two more of its adjoint.

_F43 = toom_cook(4, 3, [Fraction(p) for p in ("0", "2/3", "-2/3", "3/2", "-3/2")])
_F42 = toom_cook(4, 2, [Fraction(p) for p in ("1/3", "-1/3", "4/3", "-4/3")])

MATRICES: tuple[Matrix, ...] = tuple(
    matrix
    for f in (_F43, _F42)
    for matrix in (f.input, f.weight, f.output, transposed(f.output), transposed(f.weight))
)

intrinsic: Any = extending.intrinsic


@intrinsic(prefer_literal=True)
def sandwich(
    typing: Any,
    which: Any,
    source: Any,
    source_row: Any,
    source_column: Any,
    result: Any,
    result_row: Any,
    result_column: Any,
) -> Any:
    """P X P^T of MATRICES[which] for a square X of sixteen-lane vectors; strides in bytes."""
    matrix = MATRICES[which.literal_value]
    rows, columns = range(len(matrix)), range(len(matrix[0]))

    def code(context: Any, b: Any, sig: Any, args: Any) -> Any:
        source, source_row, source_column, result, result_row, result_column = args[1:]
        do = _vector_steps(b)

        def vector(start: Any, row: Any, i: int, column: Any, j: int) -> Any:
            offset = b.add(b.mul(row, ir.Constant(I64, i)), b.mul(column, ir.Constant(I64, j)))
            return pointer(b, b.add(start, offset), VF)

        half = []  # P X, column by column
        for j in columns:
            x = [vector(source, source_row, i, source_column, j) for i in columns]
            half.append(multiply(matrix, [b.load(p, align=4) for p in x], do))
        for i in rows:
            for j, value in enumerate(multiply(matrix, [half[k][i] for k in columns], do)):
                b.store(value, vector(result, result_row, i, result_column, j), align=4)
        return context.get_dummy_value()

    return types.void(which, *(types.intp,) * 6), code


def _transform(which: int) -> Kernel:
    """P X P^T as a function that kernels call by its address: `count` times, moving by the steps.

    Arguments: source, source_row, source_column, source_step, the same of the result.
    """

    def transform(args: int, count: int, thread: int) -> None:
        source, source_row, source_column = arg(args, 0), arg(args, 1), arg(args, 2)
        result, result_row, result_column = arg(args, 4), arg(args, 5), arg(args, 6)
        for i in range(count):
            sandwich(
                which,
                source + i * arg(args, 3),
                source_row,
                source_column,
                result + i * arg(args, 7),
                result_row,
                result_column,
            )

    return Kernel(transform)


class Transforms(NamedTuple):
    """F(m, r) as code. Between n x n points and: input tiles, weights, output tiles."""

    m: int
    r: int
    input: Kernel  # B^T d B: n x n pixels to points
    weight: Kernel  # G w G^T: r x r taps to points
    output: Kernel  # A^T p A: points to m x m pixels
    gradient: Kernel  # A g A^T: m x m pixels of an output's gradient to points
    taps: Kernel  # G^T p G: points to r x r taps

    @property
    def n(self) -> int:
        return self.m + self.r - 1


TRANSFORMS = {
    r: Transforms(4, r, *(_transform(first + i) for i in range(5))) for r, first in ((3, 0), (2, 5))
}
