// mg_map.cuh - functions that go number by number: y[i] = F(x[i]), z[i] = F(x[i], y[i]).
//
// Such a kernel waits for memory, so a thread reads and writes 16 bytes at a time where all arrays
// begin at a multiple of 16 bytes. F has static functions `of` for float and double; a and b are its
// options.
#pragma once
#include "mg_math.cuh"

namespace mg {

// y = F(x); y may be x.
template <class T, class F> __device__ __forceinline__ void map1(const T* x, T* y, Index n, T a, T b) {
    constexpr int SIZE = Pack<T>::SIZE;
    const Index i = my_index() * SIZE;
    if (i >= n) return;
    if (i + SIZE <= n && aligned16(x) && aligned16(y)) {
        Pack<T> v = *(const Pack<T>*)(x + i);
#pragma unroll
        for (int k = 0; k < SIZE; k++) v.v[k] = F::of(v.v[k], a, b);
        *(Pack<T>*)(y + i) = v;
    } else {
        for (Index j = i; j < n && j < i + SIZE; j++) y[j] = F::of(x[j], a, b);
    }
}

// z = F(x, y); z may be x or y.
template <class T, class F>
__device__ __forceinline__ void map2(const T* x, const T* y, T* z, Index n, T a, T b) {
    constexpr int SIZE = Pack<T>::SIZE;
    const Index i = my_index() * SIZE;
    if (i >= n) return;
    if (i + SIZE <= n && aligned16(x) && aligned16(y) && aligned16(z)) {
        Pack<T> v = *(const Pack<T>*)(x + i);
        const Pack<T> w = *(const Pack<T>*)(y + i);
#pragma unroll
        for (int k = 0; k < SIZE; k++) v.v[k] = F::of(v.v[k], w.v[k], a, b);
        *(Pack<T>*)(z + i) = v;
    } else {
        for (Index j = i; j < n && j < i + SIZE; j++) z[j] = F::of(x[j], y[j], a, b);
    }
}

}  // namespace mg

template <class T, class F>
__global__ void map(const T* x, T* y, mg::Index n, double a, double b) {
    mg::map1<T, F>(x, y, n, (T)a, (T)b);
}
template <class T, class F>
__global__ void zip(const T* x, const T* y, T* z, mg::Index n, double a, double b) {
    mg::map2<T, F>(x, y, z, n, (T)a, (T)b);
}
