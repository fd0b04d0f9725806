// conv_tf32.cu - convolutions on the tensor cores with mma.sync, any number of channels.
//
// Operands are rounded to 10 bits of mantissa. With SPLIT 3 each is the sum of two such numbers,
// a = A + a', and A B + A b' + a' B has the accuracy of float32. FLAT: for fewer than 8 channels.
#include "mg_conv.cuh"

// Rounds the fragment, and with SPLIT 3 keeps what the rounding lost (the product truncates that).
template <int SPLIT, int SIZE>
__device__ __forceinline__ void split(unsigned (&big)[SIZE], unsigned (&small)[SIZE]) {
#pragma unroll
    for (int e = 0; e < SIZE; e++) {
        const float f = __uint_as_float(big[e]);
        big[e] = mg::to_tf32(f);
        if (SPLIT == 3) small[e] = __float_as_uint(f - __uint_as_float(big[e]));
    }
}

// A block of warps computes BM positions x BN channels, each warp WM x WN of them, BK numbers of
// the long sum at a time; STAGES of such tiles are in shared memory or on their way to it.
template <int BM, int BN, int BK, int WM, int WN, int STAGES, int SPLIT, bool FLAT>
__global__ void __launch_bounds__((BM / WM) * (BN / WN) * 32, BM * BN > 64 * 128 ? 1 : 2)
    conv_tf32(const mg::Conv p, const mg::Tap* taps, const mg::Phase* phases,
              const float* __restrict__ x, const float* __restrict__ w, float* __restrict__ y) {
    constexpr int MI = WM / 16, NI = WN / 8, TILE = (BM + BN) * BK;
    using Loader = mg::Loader<BM, BN, BK, (BM / WM) * (BN / WN) * 32, FLAT>;
    static_assert(SPLIT == 1 || BK == 16, "long sums on the tensor cores are not accurate");
    static_assert(NI % 2 == 0, "ldmatrix fetches two columns of fragments");
    MG_DYN_SMEM(float, shared);
    const mg::Work work = mg::Work::mine<BM, BN>(p, phases);
    if (work.m0 >= work.M) return;  // phases have different sizes
    Loader loader(p, work, taps, x, w);
    const int first = work.begin(p, loader.tiles()), count = work.end(p, loader.tiles()) - first;
    loader.start_at(first);
    auto load = [&](int i) {
        float* A = shared + i % STAGES * TILE;
        if (i < count) loader.load(A, A + BM * BK);
        mg::cp_async_commit();
    };
#pragma unroll
    for (int i = 0; i < STAGES - 1; i++) load(i);

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    const int wm = warp / (BN / WN) * WM, wn = warp % (BN / WN) * WN;
    float sum[MI][NI][4] = {};
    for (int i = 0; i < count; i++) {
        mg::cp_async_wait<STAGES - 2>();
        __syncthreads();  // tile i is there, and nobody reads the last one any more
        load(i + STAGES - 1);
        const float* A = shared + i % STAGES * TILE;
        const float* B = A + BM * BK;
        // The tensor cores truncate when they add. For float32 accuracy they add up the products of
        // one tile only, and the long sum is rounded properly.
        float part[SPLIT == 3 ? MI : 1][SPLIT == 3 ? NI : 1][4] = {};
#pragma unroll
        for (int k = 0; k < BK / 8; k++) {
            unsigned a[MI][4], a_small[MI][4];
#pragma unroll
            for (int m = 0; m < MI; m++) {
                const int row = wm + m * 16 + lane % 16, chunk = k * 2 + lane / 16;
                mg::ldsm_x4(a[m], A + row * BK + Loader::swizzle(row, chunk) * 4);
                split<SPLIT>(a[m], a_small[m]);
            }
#pragma unroll
            for (int n = 0; n < NI; n += 2) {
                unsigned b[4], b_small[4];
                const int row = wn + n * 8 + lane % 8 + lane / 16 * 8, chunk = k * 2 + lane / 8 % 2;
                mg::ldsm_x4(b, B + row * BK + Loader::swizzle(row, chunk) * 4);
                split<SPLIT>(b, b_small);
#pragma unroll
                for (int h = 0; h < 2; h++) {
                    const unsigned B1[2] = {b[2 * h], b[2 * h + 1]};
                    const unsigned B2[2] = {b_small[2 * h], b_small[2 * h + 1]};
#pragma unroll
                    for (int m = 0; m < MI; m++) {
                        if (SPLIT == 3) {
                            float(&d)[4] = part[SPLIT == 3 ? m : 0][SPLIT == 3 ? n + h : 0];
                            mg::mma_tf32(d, a_small[m], B1);
                            mg::mma_tf32(d, a[m], B2);
                            mg::mma_tf32(d, a[m], B1);
                        } else {
                            mg::mma_tf32(sum[m][n + h], a[m], B1);
                        }
                    }
                }
            }
        }
        if (SPLIT == 3) {
#pragma unroll
            for (int m = 0; m < MI; m++)
#pragma unroll
                for (int n = 0; n < NI; n++)
#pragma unroll
                    for (int e = 0; e < 4; e++)
                        sum[m][n][e] += part[SPLIT == 3 ? m : 0][SPLIT == 3 ? n : 0][e];
        }
    }
    mg::cp_async_wait<0>();
#pragma unroll
    for (int m = 0; m < MI; m++)
#pragma unroll
        for (int h = 0; h < 2; h++) {
            const int i = work.m0 + wm + m * 16 + h * 8 + lane / 4;
            if (i >= work.M) continue;
            float* out = mg::result(p, work, y, i);
#pragma unroll
            for (int n = 0; n < NI; n++)
                mg::store2(p, out, work.k0 + wn + n * 8 + lane % 4 * 2, sum[m][n][2 * h],
                           sum[m][n][2 * h + 1]);
        }
}
