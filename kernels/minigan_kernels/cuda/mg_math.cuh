// mg_math.cuh - functions of numbers, for float and double by one name.
#pragma once
#include "mg.cuh"

namespace mg {

#define MG_FUNCTION(name, of_float, of_double)                                      \
    __device__ __forceinline__ float name(float x) { return of_float(x); }          \
    __device__ __forceinline__ double name(double x) { return of_double(x); }
MG_FUNCTION(exp, ::expf, ::exp)
MG_FUNCTION(expm1, ::expm1f, ::expm1)
MG_FUNCTION(log, ::logf, ::log)
MG_FUNCTION(log1p, ::log1pf, ::log1p)
MG_FUNCTION(sqrt, ::sqrtf, ::sqrt)
MG_FUNCTION(tanh, ::tanhf, ::tanh)
MG_FUNCTION(abs, ::fabsf, ::fabs)
MG_FUNCTION(floor, ::floorf, ::floor)
MG_FUNCTION(rint, ::rintf, ::rint)
MG_FUNCTION(normal_cdf, ::normcdff, ::normcdf)
#undef MG_FUNCTION

template <class T> __device__ __forceinline__ bool is_finite(T x) { return x - x == T(0); }

// The larger of two; NaN if one is NaN.
template <class T> __device__ __forceinline__ T larger(T a, T b) { return a > b || a != a ? a : b; }

// 1 / (1 + e^-x), without overflow on either side.
template <class T> __device__ __forceinline__ T sigmoid(T x) {
    const T e = exp(-abs(x));
    return (x < 0 ? e : T(1)) / (1 + e);
}
// log(1 + e^x)
template <class T> __device__ __forceinline__ T softplus(T x) {
    return larger(x, T(0)) + log1p(exp(-abs(x)));
}

}  // namespace mg
