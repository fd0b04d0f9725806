"""e^x and what is built on it, sixteen numbers at a time.

Each function is a polynomial on a small interval and exact steps that lead there. With float32
arithmetic alone the errors stay below 2 units in the last place (of a sigmoid 2.5) over the whole
range, denormal results included; infinity and NaN give what the C library gives
(tests/test_kernels_elementwise.py compares with float64 for every exponent).

    e^x        = 2^n e^r,   n = round(x / log 2),   |r| <= log(2) / 2
    e^x - 1    = 2^n (e^r - 1) + (2^n - 1)
    tanh x     = sign(x) m / (m + 2),   m = e^(2|x|) - 1
    sigmoid x  = 1 / (1 + e^-|x|), or e^-|x| / (1 + e^-|x|) below 0
    log(1 + u) = 2 artanh(u / (2 + u)) = 2 (s + s^3 / 3 + s^5 / 5 + ...)
    P(Z < -z)  = e^(-z^2 / 2) R(t),   t = 1 / (1 + z / 4),   for a standard normal Z and z >= 0
"""

from __future__ import annotations

from typing import Any

import numpy as np

from minigan_kernels.cpu.parallel import part
from minigan_kernels.cpu.simd import (
    bits_of,
    floats_of,
    fma,
    shift_left,
    shift_right,
    spread,
    spread_whole,
    where,
)

_F = np.float32
# log 2 in two parts: n times the first is exact for |n| <= 2^9.
_LOG2_HIGH, _LOG2_LOW = _F(0.693359375), _F(-2.12194440e-4)
_PER_LOG2 = _F(1.4426950408889634)
# Adding it leaves the nearest whole number in the lower bits of a float32 of size below 2^22.
_ROUND = _F(12582912.0)
# (e^r - 1 - r) / r^2 on |r| <= log(2) / 2: least relative error of e^r - 1, below 2^-31.
_E2, _E3, _E4 = _F(0.5), _F(0.16666666816694), _F(0.04166635478739)
_E5, _E6, _E7 = _F(0.00833327307284), _F(0.00139409979328), _F(0.00019914155923)
# (artanh(s) - s) / s^3 as a polynomial in s^2 <= 1/9, relative error below 2^-33.
_A3, _A5, _A7 = _F(0.33333337810961), _F(0.19999438873164), _F(0.14308442369686)
_A9, _A11 = _F(0.10713829127455), _F(0.12150466867419)
# R(t) = P(Z > z) e^(z^2 / 2) for 0 <= z <= 14.5, relative error below 2^-25.
_R0, _R1, _R2 = _F(-1.98548569e-05), _F(0.100195352), _F(0.0950988944)
_R3, _R4, _R5 = _F(0.120266579), _F(-0.0166039673), _F(0.297397102)
_R6, _R7, _R8, _R9 = _F(-0.324871467), _F(0.388490441), _F(-0.193378745), _F(0.0334256582)


@part
def _power(r: Any) -> Any:
    """e^r - 1 for |r| <= log(2) / 2. Pairs of terms do not wait for each other (Estrin)."""
    square = r * r
    low, middle = fma(spread(_E3), r, spread(_E2)), fma(spread(_E5), r, spread(_E4))
    high = fma(spread(_E7), r, spread(_E6))
    return fma(fma(fma(high, square, middle), square, low), square, r)


@part
def _split(x: Any) -> Any:
    """(n, r): x = n log 2 + r; n in the lower bits of whole numbers. |x| below 2^15."""
    t = fma(x, spread(_PER_LOG2), spread(_ROUND))
    n = t - spread(_ROUND)
    r = fma(n, spread(-_LOG2_HIGH), x)
    r = fma(n, spread(-_LOG2_LOW), r)
    return bits_of(t) - bits_of(spread(_ROUND)), r


@part
def _two_to(n: Any) -> Any:
    """2^n for -126 <= n <= 127."""
    return floats_of(shift_left(n + spread_whole(127), 23))


@part
def exp(x: Any) -> Any:
    """e^x: 0 below -104, infinity above 89."""
    x = where(x < spread(_F(-104)), spread(_F(-104)), x)
    x = where(x > spread(_F(89)), spread(_F(89)), x)  # NaN passes both
    n, r = _split(x)
    half = shift_right(n, 1)  # 2^n itself may be no float32 when its product with e^r is one
    some = _two_to(half)
    return fma(_power(r), some, some) * _two_to(n - half)


@part
def decay(x: Any) -> Any:
    """e^-|x|, 0 from |x| = 104 on."""
    z = floats_of(bits_of(x) | spread_whole(0x80000000))
    n, r = _split(where(z < spread(_F(-104)), spread(_F(-104)), z))  # NaN passes
    more = _two_to(n + spread_whole(64))  # 2^n is no float32 where the result is denormal
    return fma(_power(r), more, more) * spread(_F(2.0**-64))


@part
def expm1(x: Any) -> Any:
    """e^x - 1 for x <= 80, exact near 0."""
    n, r = _split(where(x < spread(_F(-20)), spread(_F(-20)), x))
    power = _two_to(n)
    return fma(power, _power(r), power - spread(_F(1)))


@part
def tanh(x: Any) -> Any:
    """tanh x; 1 in float32 from |x| = 9.02 on."""
    a = absolute(x)
    z = where(a > spread(_F(10)), spread(_F(20)), a + a)
    m = expm1(z)
    two = spread(_F(2))
    return with_sign_of(x, _over_sum(m, where(m > two, m, two), where(m > two, two, m)))


@part
def sigmoid(x: Any) -> Any:
    """1 / (1 + e^-x); no power is above 1, so nothing overflows. Off by 2.5 units at most."""
    p, one = decay(x), spread(_F(1))
    return where(x >= spread(_F(0)), one, p) / (one + p)


@part
def softplus(x: Any) -> Any:
    """log(1 + e^x) = max(x, 0) + log(1 + e^-|x|)."""
    tail = log1p(decay(x))
    return where(x > spread(_F(0)), x + tail, tail)


@part
def log1p(u: Any) -> Any:
    """log(1 + u) for 0 <= u <= 1."""
    s2 = _over_sum(u + u, spread(_F(2)), u)  # twice s
    w = s2 * s2 * spread(_F(0.25))  # s^2 <= 1/9
    p = fma(spread(_A11), w, spread(_A9))
    p = fma(p, w, spread(_A7))
    p = fma(p, w, spread(_A5))
    p = fma(p, w, spread(_A3))
    return fma(s2 * w, p, s2)


@part
def normal_cdf(x: Any) -> Any:
    """P(Z < x); in the lower tail the relative error grows to some units in the last place."""
    return normal(x)[0]


@part
def normal(x: Any) -> Any:
    """P(Z < x), and the density e^(-x^2 / 2) / sqrt(2 pi)."""
    z = absolute(x)
    z = where(z > spread(_F(15)), spread(_F(15)), z)
    square = z * z
    lost = fma(z, z, negative(square))  # of z^2 in rounding
    half, one = spread(_F(0.5)), spread(_F(1))
    power = decay(half * square)
    r = _tail(z)
    tail = power * fma(negative(half * lost), r, r)
    density = power * spread(_F(0.3989422804014327))
    return where(x < spread(_F(0)), tail, one - tail), density


@part
def _tail(z: Any) -> Any:
    """R(t) for z >= 0, in pairs of terms as `_power`."""
    t = spread(_F(1)) / fma(z, spread(_F(0.25)), spread(_F(1)))
    t2 = t * t
    t4 = t2 * t2
    low = fma(fma(spread(_R3), t, spread(_R2)), t2, fma(spread(_R1), t, spread(_R0)))
    high = fma(fma(spread(_R7), t, spread(_R6)), t2, fma(spread(_R5), t, spread(_R4)))
    top = fma(spread(_R9), t, spread(_R8))
    return fma(fma(top, t4, high), t4, low)


@part
def _over_sum(a: Any, large: Any, small: Any) -> Any:
    """a / (large + small), as if the sum were not rounded."""
    b = large + small
    lost = small - (b - large)
    r = spread(_F(1)) / b
    q = a * r
    return fma(r, fma(negative(q), b, a) - q * lost, q)


@part
def absolute(x: Any) -> Any:
    """|x|."""
    return floats_of(bits_of(x) & spread_whole(0x7FFFFFFF))


@part
def negative(x: Any) -> Any:
    """-x."""
    return floats_of(bits_of(x) ^ spread_whole(0x80000000))


@part
def with_sign_of(x: Any, size: Any) -> Any:
    """`size` (not negative) with the sign bit of x."""
    return floats_of((bits_of(x) & spread_whole(0x80000000)) | bits_of(size))
