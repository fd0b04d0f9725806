// conv.cu - convolutions with ordinary multiply-adds, in float and double, for any number of
// channels; the packing of weights; the sum of the parts of a split convolution.
#include "mg_conv.cuh"

// Columns of the long sum (tap after tap, channel after channel) that a thread fetches, BK apart.
struct Column {
    int tap, c;
    mg::Tap at;
    bool inside;
    __device__ __forceinline__ void fetch(const mg::Conv& p, const mg::Phase& phase,
                                          const mg::Tap* taps) {
        inside = tap < phase.taps;
        if (inside) at = mg::tap_at(p, taps, phase.first_tap + tap);
    }
    __device__ __forceinline__ void start(const mg::Conv& p, const mg::Phase& phase,
                                          const mg::Tap* taps, int column) {
        tap = p.C ? column / p.C : 0, c = column - tap * p.C;
        fetch(p, phase, taps);
    }
    __device__ __forceinline__ void advance(const mg::Conv& p, const mg::Phase& phase,
                                            const mg::Tap* taps, int by) {
        c += by;
        if (c < p.C) return;
        while (c >= p.C) c -= p.C, tap++;
        fetch(p, phase, taps);
    }
};

template <class T, int V> struct __align__(V * sizeof(T)) Few { T v[V]; };  // moved at once

// A block computes BM positions x BN channels, BK numbers of the long sum at a time; a thread has
// TM x TN of them. While it multiplies a pair of tiles, the next one is on its way to registers.
template <class T, int BM, int BN, int BK, int TM, int TN>
__global__ void __launch_bounds__((BM / TM) * (BN / TN), 2)
    conv_simt(const mg::Conv p, const mg::Tap* taps, const mg::Phase* phases,
              const T* __restrict__ x, const T* __restrict__ w, T* __restrict__ y) {
    constexpr int V = mg::Pack<T>::SIZE < TN ? mg::Pack<T>::SIZE : TN;  // neighbours of a thread
    constexpr int ACROSS = BN / TN, THREADS = (BM / TM) * ACROSS, ROWS = THREADS / BK;
    constexpr int AROWS = BM / ROWS, BROWS = (BN + ROWS - 1) / ROWS;
    constexpr int LDA = BM + 4, LDB = BN + 4;  // rows begin in other banks
    static_assert(BM % ROWS == 0 && TN % V == 0, "tile");
    MG_DYN_SMEM(T, shared);  // twice: A [BK][LDA], B [BK][LDB]
    const mg::Work work = mg::Work::mine<BM, BN>(p, phases);
    if (work.m0 >= work.M) return;  // phases have different sizes

    const int column = threadIdx.x % BK, row = threadIdx.x / BK;
    mg::Window<T> window[AROWS];
#pragma unroll
    for (int i = 0; i < AROWS; i++)
        window[i] = mg::Window<T>::at(p, work, x, work.m0 + row + i * ROWS);
    const size_t row_of_w = (size_t)p.weight_taps * p.C;
    const T* const my_w = w + ((size_t)work.group * p.K + work.k0 + row) * row_of_w;

    const int tiles = (work.phase.taps * p.C + BK - 1) / BK;
    const int first = work.begin(p, tiles), end = work.end(p, tiles);
    Column at;
    at.start(p, work.phase, taps, first * BK + column);
    T a_next[AROWS], b_next[BROWS];
    auto fetch = [&]() {
        const int offset = at.inside ? mg::tap_offset(p, at.at) + at.c : 0;
#pragma unroll
        for (int i = 0; i < AROWS; i++)
            a_next[i] = at.inside && window[i].has(p, at.at) ? window[i].x[offset] : T(0);
#pragma unroll
        for (int i = 0; i < BROWS; i++) {
            const int r = row + i * ROWS;
            const bool inside = at.inside && r < BN && work.k0 + r < p.K;
            b_next[i] = inside ? my_w[i * ROWS * row_of_w + at.at.number * p.C + at.c] : T(0);
        }
        at.advance(p, work.phase, taps, BK);
    };
    auto store = [&](int buffer) {
        T* A = shared + buffer * BK * (LDA + LDB);
        T* B = A + BK * LDA;
#pragma unroll
        for (int i = 0; i < AROWS; i++) A[column * LDA + row + i * ROWS] = a_next[i];
#pragma unroll
        for (int i = 0; i < BROWS; i++)
            if (row + i * ROWS < BN) B[column * LDB + row + i * ROWS] = b_next[i];
    };

    const int tm = threadIdx.x / ACROSS * TM, tn = threadIdx.x % ACROSS * V;
    T sum[TM][TN] = {};
    if (first < end) fetch(), store(0);
    for (int tile = first; tile < end; tile++) {
        __syncthreads();  // this tile is there, and nobody reads the last one any more
        if (tile + 1 < end) fetch();
        const T* A = shared + (tile - first) % 2 * BK * (LDA + LDB);
        const T* B = A + BK * LDA;
#pragma unroll
        for (int k = 0; k < BK; k++) {
            T a[TM], b[TN];
#pragma unroll
            for (int i = 0; i < TM; i++) a[i] = A[k * LDA + tm + i];
#pragma unroll
            for (int j = 0; j < TN; j++) b[j] = B[k * LDB + tn + j / V * V * ACROSS + j % V];
#pragma unroll
            for (int i = 0; i < TM; i++)
#pragma unroll
                for (int j = 0; j < TN; j++) sum[i][j] += a[i] * b[j];
        }
        if (tile + 1 < end) store((tile + 1 - first) % 2);
    }
#pragma unroll
    for (int i = 0; i < TM; i++) {
        if (work.m0 + tm + i >= work.M) break;
        T* out = mg::result(p, work, y, work.m0 + tm + i);
#pragma unroll
        for (int j = 0; j < TN; j += V) {
            const int k = work.k0 + tn + j * ACROSS;
            if (p.K % V == 0) {
                if (k < p.K) *(Few<T, V>*)(out + k) = *(const Few<T, V>*)&sum[i][j];
            } else {
                for (int e = 0; e < V && k + e < p.K; e++) out[k + e] = sum[i][j + e];
            }
        }
    }
}

// A thread per result, for groups of few channels: neighbours read neighbouring channels of x.
template <class T>
__global__ void conv_direct(const mg::Conv p, const mg::Tap* taps, const mg::Phase* phases,
                            const T* __restrict__ x, const T* __restrict__ w, T* __restrict__ y) {
    mg::Work work;
    const int channels = p.K * p.groups;
    const mg::Index i = mg::my_index();
    work.phase = mg::phase_at(p, phases, blockIdx.y);
    work.M = p.N * work.phase.Z * work.phase.Y * work.phase.X;
    if (i >= (mg::Index)work.M * channels) return;
    const int m = (int)(i / channels), channel = (int)(i % channels);
    work.group = channel / p.K, work.split = 0;
    const mg::Window<T> window = mg::Window<T>::at(p, work, x, m);
    T sum = 0;
    for (int t = 0; t < work.phase.taps; t++) {
        const mg::Tap tap = mg::tap_at(p, taps, work.phase.first_tap + t);
        if (!window.has(p, tap)) continue;
        const T* a = window.x + mg::tap_offset(p, tap);
        const T* b = w + ((size_t)channel * p.weight_taps + tap.number) * p.C;
        for (int c = 0; c < p.C; c++) sum += a[c] * b[c];
    }
    mg::result(p, work, y, m)[channel % p.K] = sum;
}

__device__ __forceinline__ float rounded(float f) { return __uint_as_float(mg::to_tf32(f)); }
__device__ __forceinline__ double rounded(double f) { return f; }

// Weights as the kernels read them. w is `batch` matrices rows x columns; their columns become rows
// of `rows` numbers. Row r = k taps + t of all goes to row t channels + k if channels is not 0.
template <class T>
__global__ void pack_weight(const T* __restrict__ w, T* __restrict__ out, int rows, int columns,
                            int taps, int channels, int round) {
    MG_DYN_SMEM(T, tile);  // 128 x 33
    const int across = (columns + 31) / 32, down = (rows + 127) / 128;
    const int column0 = blockIdx.x % across * 32, row0 = blockIdx.x / across % down * 128;
    const mg::Index matrix = blockIdx.x / across / down;
    const int nr = min(128, rows - row0), nc = min(32, columns - column0);
    const T* from = w + (matrix * rows + row0) * columns + column0;
#pragma unroll 4
    for (int e = threadIdx.x; e < nr * nc; e += blockDim.x)
        tile[e / nc * 33 + e % nc] = from[(size_t)(e / nc) * columns + e % nc];
    __syncthreads();
#pragma unroll 4
    for (int e = threadIdx.x; e < nr * nc; e += blockDim.x) {
        mg::Index r = matrix * columns + column0 + e / nr;
        if (channels) r = r % taps * channels + r / taps;
        const T v = tile[e % nr * 33 + e / nr];
        out[r * rows + row0 + e % nr] = round ? rounded(v) : v;
    }
}

// y[i] = parts[0][i] + parts[1][i] + ..., in this order.
template <class T>
__global__ void sum_parts(const T* __restrict__ parts, T* __restrict__ y, mg::Index n, int count) {
    const mg::Index i = mg::my_index();
    if (i >= n) return;
    T sum = parts[i];
#pragma unroll 4
    for (int s = 1; s < count; s++) sum += parts[s * n + i];
    y[i] = sum;
}
