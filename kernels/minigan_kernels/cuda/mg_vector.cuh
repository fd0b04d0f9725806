// mg_vector.cuh - V neighbouring numbers, which a thread reads and writes together.
//
// V is 16 / sizeof(T) where rows are made of whole vectors, else 1. Arrays that do not begin at a
// multiple of 16 bytes are rare (views into a larger buffer); `whole` says that none is among them.
#pragma once
#include "mg.cuh"

namespace mg {

template <class T, int V> struct __align__(sizeof(T) * V) Vector {
    T v[V];
    __device__ __forceinline__ void clear() {
#pragma unroll
        for (int k = 0; k < V; k++) v[k] = 0;
    }
    __device__ __forceinline__ void add(const Vector& a) {
#pragma unroll
        for (int k = 0; k < V; k++) v[k] += a.v[k];
    }
    __device__ __forceinline__ void add(T factor, const Vector& a) {
#pragma unroll
        for (int k = 0; k < V; k++) v[k] += factor * a.v[k];
    }
};

template <int V, class T> __device__ __forceinline__ Vector<T, V> load(const T* p, bool whole) {
    if (V == 1 || whole) return *(const Vector<T, V>*)p;
    Vector<T, V> a;
#pragma unroll
    for (int k = 0; k < V; k++) a.v[k] = p[k];
    return a;
}
template <int V, class T>
__device__ __forceinline__ void store(T* p, const Vector<T, V>& a, bool whole) {
    if (V == 1 || whole) {
        *(Vector<T, V>*)p = a;
    } else {
#pragma unroll
        for (int k = 0; k < V; k++) p[k] = a.v[k];
    }
}

}  // namespace mg
