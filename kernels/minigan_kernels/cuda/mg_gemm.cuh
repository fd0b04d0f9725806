// mg_gemm.cuh - matrix products C[m, n] = sum over k of A[m, k] B[k, n], one tile of C per block.
//
// `multiply` walks along k, DEPTH numbers at a time: cp.async brings both operands to shared memory
// while the tensor cores work on what came before. Where an operand comes from is its loader's
// business: a type with a member Tile and functions `prepare(block)` and `load(tile, block)`.
//
// A float32 has 24 bits of mantissa, a tensor core reads 11 of them (TF32). SPLIT = 3 writes each
// number as the sum of two such: x y = big big + (big small + small big), less 2^-22 of itself.
// Tensor cores cut their sums off instead of rounding, which over thousands of steps would cost a
// digit and more. So sums of DEPTH products are added to the total by ordinary, rounding additions.
#pragma once
#include "mg.cuh"

namespace mg {

constexpr int DEPTH = 32;  // of a block of k
constexpr int STAGES = 3;  // blocks in shared memory: one in use, two on their way

// Warps that a processor shall hold: 12 with 168 registers each (3xTF32), or 16 with 128 (TF32).
// Before sm_90 it has shared memory for 8.
#if defined(__CUDA_ARCH__) && __CUDA_ARCH__ < 900
constexpr int ROOM[2] = {8, 8};
#else
constexpr int ROOM[2] = {12, 16};
#endif

// A block computes BM x BN numbers, each of its warps WM x WN of them.
template <int BM_, int BN_, int WM_, int WN_, int SPLIT_> struct Shape {
    static constexpr int BM = BM_, BN = BN_, WM = WM_, WN = WN_, SPLIT = SPLIT_;
    static constexpr int ACROSS = BN / WN, WARPS = BM / WM * ACROSS, THREADS = WARPS * WARP;
    static constexpr int MI = WM / 16, NI = WN / 8;  // products of an instruction are 16 x 8
    static constexpr int RESIDENT = (ROOM[SPLIT == 1] + WARPS - 1) / WARPS;  // blocks
    static_assert(SPLIT == 1 || SPLIT == 3, "TF32 or 3xTF32");
};

// Where number (i, k) of an operand lies in its tile: i counts rows of A or columns of B. The lanes
// of a warp read 8 i's times 4 k's at a time, and the strides put those into 32 different banks.
template <int SIZE> struct Wide {  // i is contiguous
    static constexpr int STRIDE = SIZE + 8, FLOATS = DEPTH * STRIDE;
    static __device__ __forceinline__ int at(int i, int k) { return k * STRIDE + i; }
};
template <int SIZE> struct Deep {  // k is contiguous
    static constexpr int STRIDE = DEPTH + 4, FLOATS = SIZE * STRIDE;
    static __device__ __forceinline__ int at(int i, int k) { return i * STRIDE + k; }
};

template <bool DEEP, int SIZE> struct TileOf { typedef Wide<SIZE> Type; };
template <int SIZE> struct TileOf<true, SIZE> { typedef Deep<SIZE> Type; };

// Copies four numbers to shared memory, `step` apart where they come from; zeros from number
// `valid` on. WHOLE: they are contiguous and aligned, and all or none of them valid.
template <bool WHOLE>
__device__ __forceinline__ void copy4(float* to, const float* from, int valid, Index step) {
    if constexpr (WHOLE) {
        cp_async16(to, from, valid > 0);
    } else {
#pragma unroll
        for (int e = 0; e < 4; e++) cp_async4(to + e, from + e * step, e < valid);
    }
}

// Loads an operand from a matrix with any strides: number (i, k) is data[i step_i + k step_k].
template <class S, int SIZE, bool DEEP> struct Matrix {
    typedef typename TileOf<DEEP, SIZE>::Type Tile;
    static constexpr int CHUNKS = (DEEP ? DEPTH : SIZE) / 4, ROWS = DEEP ? SIZE : DEPTH;
    static constexpr int SWEEP = S::THREADS / CHUNKS;
    static_assert(S::THREADS % CHUNKS == 0, "a thread keeps its column");
    const float* mine;  // the first number that this thread copies
    Index fast, slow;   // strides along a row of the tile, and across
    int size, depth;    // numbers that exist
    bool whole;

    __device__ __forceinline__ Matrix(const float* data, Index step_i, Index step_k, int size,
                                      int depth)
        : fast(DEEP ? step_k : step_i), slow(DEEP ? step_i : step_k), size(size), depth(depth) {
        whole = aligned16(data) && fast == 1 && slow % 4 == 0 && (DEEP ? depth : size) % 4 == 0;
        mine = data + threadIdx.x % CHUNKS * 4 * fast + threadIdx.x / CHUNKS * slow;
    }
    __device__ __forceinline__ void prepare(int) {}
    __device__ __forceinline__ void load(float* tile, int block) const {
        if (whole) copy<true>(tile, block);
        else copy<false>(tile, block);
    }
    template <bool WHOLE> __device__ __forceinline__ void copy(float* tile, int block) const {
        const int column = threadIdx.x % CHUNKS * 4, first = threadIdx.x / CHUNKS;
        const int begin = block * DEPTH, left = depth - begin;  // numbers along k from here on
        const float* from = mine + begin * (DEEP ? fast : slow);
#pragma unroll(WHOLE ? ROWS : 1)
        for (int row0 = 0; row0 < ROWS; row0 += SWEEP, from += SWEEP * slow) {
            const int row = row0 + first;
            if (ROWS % SWEEP && row >= ROWS) break;
            const int valid = row < (DEEP ? size : left) ? (DEEP ? left : size) - column : 0;
            const int to = DEEP ? Tile::at(row, column) : Tile::at(column, row);
            copy4<WHOLE>(tile + to, from, valid, fast);
        }
    }
};

// The numbers of C that a thread holds: fragments of 16 x 8, of which a lane has four.
template <class S> struct Sums {
    typedef float Fragments[S::MI][S::NI][4];
    Fragments total = {}, part = {}, small = {};

    __device__ __forceinline__ void add_up() {
#pragma unroll
        for (int i = 0; i < S::MI; i++)
#pragma unroll
            for (int j = 0; j < S::NI; j++)
#pragma unroll
                for (int e = 0; e < 4; e++) {
                    total[i][j][e] += part[i][j][e];
                    part[i][j][e] = 0;
                }
    }
    // The sum of products of numbers; if that is not finite the small parts are meaningless.
    __device__ __forceinline__ float value(int i, int j, int e) const {
        const float t = total[i][j][e];
        return S::SPLIT == 3 && t - t == 0.0f ? t + small[i][j][e] : t;
    }
};

__device__ __forceinline__ int warp_row(int across, int height) {
    return (int)threadIdx.x / WARP / across * height;
}
__device__ __forceinline__ int warp_column(int across, int width) {
    return (int)threadIdx.x / WARP % across * width;
}

// f as TF32; for SPLIT = 3 big + small = f. Then the bits are rounded without a look: should a NaN
// turn into a number, small is still NaN.
template <int SPLIT>
__device__ __forceinline__ void split(float f, unsigned& big, unsigned& small) {
    if constexpr (SPLIT == 1) {
        big = to_tf32(f);
    } else {
        big = (__float_as_uint(f) + 0x1000u) & 0xffffe000u;
        small = __float_as_uint(f - __uint_as_float(big));
    }
}

// Adds the products of one block of k.
template <class S, class A, class B>
__device__ __forceinline__ void multiply_block(Sums<S>& sums, const float* a, const float* b) {
    const int lane = threadIdx.x % WARP;
    a += A::at(warp_row(S::ACROSS, S::WM) + lane / 4, lane % 4);
    b += B::at(warp_column(S::ACROSS, S::WN) + lane / 4, lane % 4);
#pragma unroll
    for (int k = 0; k < DEPTH; k += 8) {
        unsigned b_big[S::NI][2], b_small[S::NI][2];
#pragma unroll
        for (int j = 0; j < S::NI; j++)
#pragma unroll
            for (int e = 0; e < 2; e++)
                split<S::SPLIT>(b[B::at(j * 8, k + e * 4)], b_big[j][e], b_small[j][e]);
#pragma unroll
        for (int i = 0; i < S::MI; i++) {
            unsigned a_big[4], a_small[4];
#pragma unroll
            for (int e = 0; e < 4; e++)
                split<S::SPLIT>(a[A::at(i * 16 + e % 2 * 8, k + e / 2 * 4)], a_big[e], a_small[e]);
            if constexpr (S::SPLIT == 1) {
#pragma unroll
                for (int j = 0; j < S::NI; j++) mma_tf32(sums.total[i][j], a_big, b_big[j]);
            } else {  // an instruction waits for the sums of the one before: use them in turn
#pragma unroll
                for (int j = 0; j < S::NI; j++) mma_tf32(sums.small[i][j], a_small, b_big[j]);
#pragma unroll
                for (int j = 0; j < S::NI; j++) mma_tf32(sums.part[i][j], a_big, b_big[j]);
#pragma unroll
                for (int j = 0; j < S::NI; j++) mma_tf32(sums.small[i][j], a_big, b_small[j]);
            }
        }
    }
    if constexpr (S::SPLIT == 3) sums.add_up();
}

// Adds the products of blocks [begin, end) of k.
template <class S, class A, class B>
__device__ __forceinline__ void multiply(Sums<S>& sums, float* shared, A& a, B& b, int begin,
                                         int end) {
    constexpr int FLOATS = A::Tile::FLOATS + B::Tile::FLOATS;
    auto load = [&](int block) {
        float* stage = shared + (block - begin) % STAGES * FLOATS;
        if (block < end) {
            a.load(stage, block);
            b.load(stage + A::Tile::FLOATS, block);
        }
        cp_async_commit();
    };
    b.prepare(begin);
    for (int block = begin - (STAGES - 1); block < end; block++) {
        cp_async_wait<STAGES - 2>();
        __syncthreads();  // this block has landed for all, and nobody reads the one before any more
        load(block + STAGES - 1);
        b.prepare(block + STAGES);
        if (block < begin) continue;
        const float* stage = shared + (block - begin) % STAGES * FLOATS;
        multiply_block<S, typename A::Tile, typename B::Tile>(sums, stage, stage + A::Tile::FLOATS);
    }
    cp_async_wait<0>();
}

// Calls put(m, c, value) for every number of the tile, c = column(n).
template <class S, class Column, class Put>
__device__ __forceinline__ void store(const Sums<S>& sums, Column column, Put put) {
    const int lane = threadIdx.x % WARP;
    const int m = warp_row(S::ACROSS, S::WM) + lane / 4;
    const int n = warp_column(S::ACROSS, S::WN) + lane % 4 * 2;
#pragma unroll
    for (int j = 0; j < S::NI; j++)
#pragma unroll
        for (int e = 0; e < 2; e++) {
            const auto c = column(n + j * 8 + e);
#pragma unroll
            for (int i = 0; i < S::MI * 2; i++)
                put(m + i * 8, c, sums.value(i / 2, j, i % 2 * 2 + e));
        }
}

// ---- without tensor cores ----------------------------------------------------------------------

constexpr int SIDE = 64, STEPS = 16, PLAIN_THREADS = 256;  // a tile of C is SIDE x SIDE

// The same with ordinary multiply-adds: a(k) is A[m, k] for m = threadIdx.x % SIDE, b(k) is B[k, n]
// for n = threadIdx.x % SIDE. A thread has 4 x 4 numbers of C.
template <class T, class A, class B, class Put>
__device__ __forceinline__ void plain_product(T* shared, A a, B b, int begin, int end, Put put) {
    T* const as = shared;
    T* const bs = shared + STEPS * SIDE;
    const int row = threadIdx.x / 16 * 4, column = threadIdx.x % 16 * 4;
    T sums[4][4] = {};
    for (int k = begin; k < end; k += STEPS) {
        __syncthreads();  // nobody reads the last tile any more
#pragma unroll
        for (int r = 0; r < STEPS; r += PLAIN_THREADS / SIDE) {
            const int at = threadIdx.x + r * SIDE, mine = k + at / SIDE;
            as[at] = mine < end ? a(mine) : T(0);
            bs[at] = mine < end ? b(mine) : T(0);
        }
        __syncthreads();
#pragma unroll
        for (int step = 0; step < STEPS; step++)
#pragma unroll
            for (int i = 0; i < 4; i++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    sums[i][j] += as[step * SIDE + row + i] * bs[step * SIDE + column + j];
    }
#pragma unroll
    for (int i = 0; i < 4; i++)
#pragma unroll
        for (int j = 0; j < 4; j++) put(row + i, column + j, sums[i][j]);
}

}  // namespace mg

// out[i] = sum over s of parts[s, i], for sums over k that several blocks shared. Row r of a
// block's threads adds s = r, r + rows, ..; the rows' sums are added in order.
template <class T> __global__ void add_parts(const T* parts, T* out, mg::Index n, mg::Index count) {
    MG_DYN_SMEM(T, work);
    const mg::Index i = (mg::Index)blockIdx.x * mg::WARP + threadIdx.x;
    T sum = 0;
    if (i < n) {
#pragma unroll 8
        for (mg::Index s = threadIdx.y; s < count; s += blockDim.y) sum += parts[s * n + i];
    }
    work[threadIdx.y * mg::WARP + threadIdx.x] = sum;
    __syncthreads();
    if (threadIdx.y == 0 && i < n) {
        for (int r = 1; r < blockDim.y; r++) sum += work[r * mg::WARP + threadIdx.x];
        out[i] = sum;
    }
}
