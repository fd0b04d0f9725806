// mg_conv.cuh - what the convolution kernels share: the table of taps, and who computes what.
//
// A layer is one or more *phases*. With position i of a phase and three axes everywhere,
//
//   y[n, first + i out_step, k] = sum over taps t, channels c of x[n, i in_step + t, c] w[k, t, c]
//
// x and y lie N,D,H,W,C in memory, w lies K,taps,C. A convolution is one phase, in_step its stride;
// a transposed one has a phase for every remainder of the output position by the stride.
#pragma once
#include "mg.cuh"

namespace mg {

struct Tap { int z, y, x, number; };  // where it reads; which tap of w it is
struct Phase { int first_tap, taps, first_z, first_y, first_x, Z, Y, X; };  // Z x Y x X positions

struct Conv {
    int N, C, K, groups;            // C, K: channels of one group
    int D, H, W, OD, OH, OW;
    int in_z, in_y, in_x, out_z, out_y, out_x;  // the steps
    int weight_taps, phases, splits;
    Phase phase[8];                 // more of either are passed by address
    Tap tap[64];
};

// By value, never by a chosen address: the compiler would copy all of p into memory.
__device__ __forceinline__ Tap tap_at(const Conv& p, const Tap* more, int i) {
    if (more) return more[i];
    return p.tap[i];
}
__device__ __forceinline__ Phase phase_at(const Conv& p, const Phase* more, int i) {
    if (more) return more[i];
    return p.phase[i];
}

// What a block computes: BM positions of a phase times BN channels of a group, and of the long sum
// over taps and channels the part number `split`. Blocks that read the same x are neighbours.
struct Work {
    Phase phase;
    int m0, M, k0, group, split;
    template <int BM, int BN>
    static __device__ __forceinline__ Work mine(const Conv& p, const Phase* more) {
        Work w;
        int i = blockIdx.x;
        const int columns = (p.K + BN - 1) / BN;
        w.k0 = i % columns * BN, i /= columns;
        w.split = i % p.splits, i /= p.splits;
        w.group = i % p.groups, i /= p.groups;
        w.phase = phase_at(p, more, i % p.phases);
        w.m0 = i / p.phases * BM;
        w.M = p.N * w.phase.Z * w.phase.Y * w.phase.X;
        return w;
    }
    // This block's tiles of the long sum, if all splits together have `tiles`: begin, ..., end - 1.
    __device__ __forceinline__ int begin(const Conv& p, int tiles) const {
        return (int)((Index)tiles * split / p.splits);
    }
    __device__ __forceinline__ int end(const Conv& p, int tiles) const {
        return (int)((Index)tiles * (split + 1) / p.splits);
    }
};

struct Place { int n, z, y, x; };
__device__ __forceinline__ Place place(const Phase& phase, int m) {
    Place a;
    a.x = m % phase.X, m /= phase.X;
    a.y = m % phase.Y, m /= phase.Y;
    a.z = m % phase.Z, a.n = m / phase.Z;
    return a;
}

// The numbers of x that belong to one position.
template <class T> struct Window {
    const T* x;
    int z, y, x_;
    static __device__ __forceinline__ Window at(const Conv& p, const Work& w, const T* x, int m) {
        Window a;
        if (m >= w.M) return {x, -(1 << 30), 0, 0};  // no tap is inside
        const Place i = place(w.phase, m);
        a.z = i.z * p.in_z, a.y = i.y * p.in_y, a.x_ = i.x * p.in_x;
        const int channels = p.C * p.groups;
        a.x = x + (size_t)i.n * p.D * p.H * p.W * channels + w.group * p.C +
              ((a.z * p.H + a.y) * p.W + a.x_) * channels;
        return a;
    }
    __device__ __forceinline__ bool has(const Conv& p, const Tap& t) const {
        return (unsigned)(z + t.z) < (unsigned)p.D && (unsigned)(y + t.y) < (unsigned)p.H &&
               (unsigned)(x_ + t.x) < (unsigned)p.W;
    }
};
// How far a tap lies from the position.
__device__ __forceinline__ int tap_offset(const Conv& p, const Tap& t) {
    return ((t.z * p.H + t.y) * p.W + t.x) * p.C * p.groups;
}

// Where the results of position m begin; each split has a y of its own.
template <class T>
__device__ __forceinline__ T* result(const Conv& p, const Work& w, T* y, int m) {
    const int channels = p.K * p.groups;
    if (p.phases == 1) return y + ((Index)w.split * w.M + m) * channels + w.group * p.K;
    const Place i = place(w.phase, m);
    const Index n = (Index)w.split * p.N + i.n;
    return y + n * p.OD * p.OH * p.OW * channels + w.group * p.K +
           (((w.phase.first_z + i.z * p.out_z) * p.OH + w.phase.first_y + i.y * p.out_y) * p.OW +
            w.phase.first_x + i.x * p.out_x) * channels;
}

// Starts to copy four neighbouring numbers, zeros from number `count` on; `wide`: at once.
__device__ __forceinline__ void copy4(float* to, const float* from, int count, bool wide) {
    if (wide) {
        cp_async16(to, from, count > 0);
    } else {
#pragma unroll
        for (int e = 0; e < 4; e++) cp_async4(to + e, from + e, e < count);
    }
}

// Copies tiles of x (BM positions) and w (BN channels), BK numbers each of one tap after another,
// into shared memory. Chunk c of 16 bytes of row r goes where swizzle(r, c) says, so that neither
// these writes nor the reads of the matrix instructions meet in a bank.
//
// FLAT: for few channels a tile goes on with the next tap instead of zeros, number by number.
template <int BM, int BN, int BK, int THREADS, bool FLAT> struct Loader {
    static constexpr int CHUNKS = BK / 4, ROWS = THREADS / CHUNKS;
    static constexpr int AROWS = BM / ROWS, BROWS = BN / ROWS;
    static_assert(CHUNKS == 4 || CHUNKS == 8, "BK is 16 or 32");
    static_assert(BM % ROWS == 0 && BN % ROWS == 0, "a sweep of all threads is whole rows");
    const Conv& p;
    const Work& work;
    const Tap* taps;
    Window<float> window[AROWS];
    const float* w;  // this thread's number of its first row
    int per_tap, tap, part, row, chunk;
    bool wide;

    static __device__ __forceinline__ int swizzle(int row, int chunk) {
        return chunk ^ (CHUNKS == 8 ? row & 7 : (row >> 1) & 3);
    }
    __device__ __forceinline__ Loader(const Conv& p, const Work& work, const Tap* taps,
                                      const float* x, const float* weight)
        : p(p), work(work), taps(taps) {
        row = threadIdx.x / CHUNKS, chunk = threadIdx.x % CHUNKS;
        wide = p.C % 4 == 0 && aligned16(x) && aligned16(weight);
        per_tap = (p.C + BK - 1) / BK;
#pragma unroll
        for (int i = 0; i < AROWS; i++)
            window[i] = Window<float>::at(p, work, x, work.m0 + row + i * ROWS);
        const size_t k = (size_t)work.group * p.K + work.k0 + row;
        w = weight + k * p.weight_taps * p.C;
    }
    __device__ __forceinline__ int tiles() const {
        return FLAT ? (work.phase.taps * p.C + BK - 1) / BK : work.phase.taps * per_tap;
    }
    __device__ __forceinline__ void start_at(int tile) {
        tap = FLAT || !per_tap ? 0 : tile / per_tap;
        part = tile - tap * per_tap;
    }
    // Starts to copy the next tile.
    __device__ __forceinline__ void load(float* A, float* B) {
        if (FLAT) return load_flat(A, B);
        const Tap t = tap_at(p, taps, work.phase.first_tap + tap);
        const int c = part * BK + chunk * 4, count = p.C - c, offset = tap_offset(p, t) + c;
        if (++part == per_tap) part = 0, tap++;
#pragma unroll
        for (int i = 0; i < AROWS; i++) {
            const int r = row + i * ROWS;
            copy4(A + r * BK + swizzle(r, chunk) * 4, window[i].x + offset,
                  window[i].has(p, t) ? count : 0, wide);
        }
        const float* from = w + (t.number * p.C + c);
#pragma unroll
        for (int i = 0; i < BROWS; i++) {
            const int r = row + i * ROWS;
            copy4(B + r * BK + swizzle(r, chunk) * 4, from, work.k0 + r < p.K ? count : 0, wide);
            from += (size_t)ROWS * p.weight_taps * p.C;
        }
    }
    __device__ __forceinline__ void load_flat(float* A, float* B) {
#pragma unroll
        for (int e = 0; e < 4; e++) {
            const int column = part * BK + chunk * 4 + e, t = column / p.C, c = column - t * p.C;
            const bool inside = t < work.phase.taps;
            const Tap at = tap_at(p, taps, work.phase.first_tap + (inside ? t : 0));
            const int offset = tap_offset(p, at) + c;
#pragma unroll
            for (int i = 0; i < AROWS; i++) {
                const int r = row + i * ROWS;
                cp_async4(A + r * BK + swizzle(r, chunk) * 4 + e, window[i].x + offset,
                          inside && window[i].has(p, at));
            }
            const float* from = w + (at.number * p.C + c);
#pragma unroll
            for (int i = 0; i < BROWS; i++) {
                const int r = row + i * ROWS;
                cp_async4(B + r * BK + swizzle(r, chunk) * 4 + e, from,
                          inside && work.k0 + r < p.K);
                from += (size_t)ROWS * p.weight_taps * p.C;
            }
        }
        part++;
    }
};

// Two neighbouring results of a position; column is even.
__device__ __forceinline__ void store2(const Conv& p, float* y, int column, float a, float b) {
    if (p.K % 2 == 0) {
        if (column < p.K) *(float2*)(y + column) = make_float2(a, b);
    } else {
        if (column < p.K) y[column] = a;
        if (column + 1 < p.K) y[column + 1] = b;
    }
}

}  // namespace mg
