// mg_norm.cuh - what forward and backward kernels of normalisation share.
#pragma once
#include "mg_planes.cuh"

namespace mg {

constexpr int MEASURE = 1, APPLY = 2;  // what a kernel does; both where blocks see whole planes

// Planes are grouped as [A][B][D][E] for statistics, which are joined over B and E. A scale or
// shift is the same number for a whole plane and repeats itself after `period` planes, or it is a
// map: then it is as large as x, or (`shared`) as large as one p.
struct Norm {
    Planes planes;
    int among, kept, inside;  // B, D, E
    int period, shared;
    int steps;

    __device__ __forceinline__ int statistic(int plane) const {
        if (among == 1 && inside == 1) return plane;
        return plane / (among * kept * inside) * kept + plane / inside % kept;
    }
    __device__ __forceinline__ int affine(int plane) const { return plane % period; }
    template <int V> __device__ __forceinline__ Index map_at(const Walk<V>& walk) const {
        return walk.at - (shared ? (Index)walk.p * planes.length * planes.width : 0);
    }
};

// z = d factor + offset, d = x - centre. Without maps factor and offset are those of the whole
// norm, with maps those of x^: z = x^ (base + scale) + shift. The mean is `centre`, a T, and a rest
// that only double holds: near a mean of 1000 it makes half of a float's digits.
template <class T> struct Line {
    T centre, factor, offset;
    __device__ __forceinline__ T at(T x) const { return (x - centre) * factor + offset; }
};
template <class T> __device__ __forceinline__ double rest_of(double mean) {
    return mean - (double)(T)mean;
}

template <class T, bool MAPS>
__device__ __forceinline__ Line<T> line_of(const Norm& s, int plane, const T* scale, const T* shift,
                                           const double* mean, const double* rstd, double base) {
    const int i = s.statistic(plane);
    double factor = rstd[i], offset = 0;
    if (!MAPS && scale) factor *= base + (double)scale[s.affine(plane)];
    if (!MAPS && shift) offset = shift[s.affine(plane)];
    return {(T)mean[i], (T)factor, (T)(offset - rest_of<T>(mean[i]) * factor)};
}

// The V lines of a walk.
template <class T, int V, bool MAPS> struct Lines {
    Line<T> of[V];
    __device__ __forceinline__ Lines(const Norm& s, const Walk<V>& walk, const T* scale,
                                     const T* shift, const double* mean, const double* rstd,
                                     double base) {
        if (!walk.count) return;
#pragma unroll
        for (int k = 0; k < V; k++) {
            if (k && !walk.next)
                of[k] = of[0];
            else
                of[k] = line_of<T, MAPS>(s, walk.plane + k, scale, shift, mean, rstd, base);
        }
    }
};

// z from x^ and the numbers of maps.
template <class T> __device__ __forceinline__ T shaped(T xhat, T by, T add) {
    return xhat * by + add;
}
// v, but slope v where z <= 0; a slope of 0 makes 0 even of infinity.
template <class T> __device__ __forceinline__ T bend(T v, T z, T slope) {
    return z <= 0 ? (slope == 0 ? T(0) : slope * v) : v;
}

}  // namespace mg
