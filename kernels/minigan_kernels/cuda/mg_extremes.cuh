// mg_extremes.cuh - numbers that are not finite.
#pragma once
#include "mg.cuh"

namespace mg {

template <class T> __device__ __forceinline__ T infinity() { return (T)__uint_as_float(0x7f800000u); }
template <class T> __device__ __forceinline__ T not_a_number() {
    return (T)__uint_as_float(0x7fc00000u);
}

}  // namespace mg
