// conv_wgmma.cu - convolutions in TF32 with wgmma, the matrix instruction of Hopper (sm_90a).
//
// Four warps multiply tiles that lie in shared memory, 64 positions x BN channels at a time, and
// are free to copy the next tiles meanwhile. The copies write the 128-byte swizzle that wgmma
// reads. It drops the low 13 bits of what it reads; weights come rounded.
#include "mg_conv.cuh"
#include "mg_wgmma.cuh"

template <int GROUPS, int BN, int STAGES>
__global__ void __launch_bounds__(GROUPS * 128, 1)
    conv_wgmma(const mg::Conv p, const mg::Tap* taps, const mg::Phase* phases,
               const float* __restrict__ x, const float* __restrict__ w, float* __restrict__ y) {
    constexpr int BM = GROUPS * 64, BK = 32, TILE = (BM + BN) * BK;
    static_assert(STAGES >= 3, "one tile is multiplied, one is finished by others, one arrives");
    MG_DYN_SMEM(unsigned char, raw);  // a tile begins at a multiple of 1024 bytes
    float* shared = reinterpret_cast<float*>(raw + (1024 - mg::smem_addr(raw) % 1024) % 1024);
    const mg::Work work = mg::Work::mine<BM, BN>(p, phases);
    if (work.m0 >= work.M) return;  // phases have different sizes
    mg::Loader<BM, BN, BK, GROUPS * 128, false> loader(p, work, taps, x, w);
    const int first = work.begin(p, loader.tiles()), count = work.end(p, loader.tiles()) - first;
    loader.start_at(first);
    auto load = [&](int i) {
        float* A = shared + i % STAGES * TILE;
        if (i < count) loader.load(A, A + BM * BK);
        mg::cp_async_commit();
    };
#pragma unroll
    for (int i = 0; i < STAGES - 2; i++) load(i);

    const int lane = threadIdx.x % 32, warp = threadIdx.x / 32;
    float sum[BN / 2];
#pragma unroll
    for (int i = 0; i < BN / 2; i++) sum[i] = 0;
    for (int i = 0; i < count; i++) {
        // Then the product of tile i - 1 may be under way in other groups; that of i - 2 is done.
        mg::cp_async_wait<STAGES - 3>();
        mg::fence_proxy_async();
        __syncthreads();
        load(i + STAGES - 2);
        const float* A = shared + i % STAGES * TILE;
        const unsigned long long a = mg::wgmma_desc(A + warp / 4 * 64 * BK);
        const unsigned long long b = mg::wgmma_desc(A + BM * BK);
        mg::wgmma_fence();
#pragma unroll
        for (int k = 0; k < BK / 8; k++)  // 8 numbers on: 32 bytes, two units of a descriptor
            mg::Wgmma<BN>::ss(sum, a + 2 * k, b + 2 * k);
        mg::wgmma_commit();
        mg::wgmma_wait<1>();
    }
    mg::wgmma_wait<0>();
    mg::cp_async_wait<0>();
#pragma unroll
    for (int h = 0; h < 2; h++) {
        const int i = work.m0 + warp * 16 + h * 8 + lane / 4;
        if (i >= work.M) continue;
        float* out = mg::result(p, work, y, i);
#pragma unroll
        for (int n = 0; n < BN / 8; n++)
            mg::store2(p, out, work.k0 + n * 8 + lane % 4 * 2, sum[n * 4 + 2 * h],
                       sum[n * 4 + 2 * h + 1]);
    }
}
