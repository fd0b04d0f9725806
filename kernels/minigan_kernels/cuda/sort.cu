// sort.cu - numbers (ids) sorted by their keys, stably and without atomics: a radix sort.
//
// One pass sorts by 8 bits. A tile of 4096 keys belongs to a block, 512 neighbours to a warp. A
// key's new place is the number of keys with smaller digits, plus those with its digit in earlier
// tiles, in earlier warps, in earlier rounds of its warp, and in lower lanes of its round. Lanes
// with equal digits find one another by votes on every bit. A pass reads keys twice and moves 16
// bytes per key.
//
// Afterwards equal keys are neighbours, a *segment*; mark_segments notes where it begins and ends.
#include "mg.cuh"

namespace mg {

constexpr int SORTERS = 256, SORT_WARPS = SORTERS / WARP, ROUNDS = 16;
constexpr int TILE = SORTERS * ROUNDS, DIGITS = 256;

// Lanes of the warp whose digit is the same; none where there is no key.
__device__ __forceinline__ unsigned equal_lanes(unsigned digit, bool exists) {
    unsigned same = __ballot_sync(ALL, exists);
#pragma unroll
    for (int bit = 1; bit < DIGITS; bit <<= 1) {
        const unsigned set = __ballot_sync(ALL, (digit & bit) != 0);
        same &= digit & bit ? set : ~set;
    }
    return exists ? same : 0;
}

// Ranks of a tile's keys among those of their warp with the same digit; at the end also
// count[warp][digit].
__device__ __forceinline__ void rank_tile(const unsigned* keys, int n, int shift, int* count,
                                          unsigned (&key)[ROUNDS], int (&rank)[ROUNDS]) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    const Index first = (Index)blockIdx.x * TILE + warp * (WARP * ROUNDS) + lane;
    for (int i = threadIdx.x; i < SORT_WARPS * DIGITS; i += SORTERS) count[i] = 0;
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) key[r] = first + r * WARP < n ? keys[first + r * WARP] : 0;
    __syncthreads();
#pragma unroll
    for (int r = 0; r < ROUNDS; r++) {
        const unsigned digit = key[r] >> shift & (DIGITS - 1);
        const unsigned same = equal_lanes(digit, first + r * WARP < n);
        int* mine = count + warp * DIGITS + digit;
        const int before = same ? *mine : 0;
        __syncwarp();
        if (same && lane == __popc((same & (0 - same)) - 1)) *mine = before + __popc(same);
        __syncwarp();
        rank[r] = before + __popc(same & ((1u << lane) - 1));
    }
    __syncthreads();
}

// The sum of v over lower threads of a block of SORTERS threads; `work` holds a number per warp.
__device__ __forceinline__ int sum_before(int v, int* work, int& total) {
    const int lane = threadIdx.x % WARP, warp = threadIdx.x / WARP;
    int sum = v;
#pragma unroll
    for (int by = 1; by < WARP; by <<= 1) {
        const int other = __shfl_up_sync(ALL, sum, by);
        if (lane >= by) sum += other;
    }
    __syncthreads();  // work may still be read from an earlier sum
    if (lane == WARP - 1) work[warp] = sum;
    __syncthreads();
    int before = 0;
    total = 0;
#pragma unroll
    for (int w = 0; w < SORT_WARPS; w++) {
        before += w < warp ? work[w] : 0;
        total += work[w];
    }
    return before + sum - v;
}

}  // namespace mg

// counts[digit][tile]; one block per tile, 8 KB of shared memory.
__global__ void __launch_bounds__(mg::SORTERS)
count_digits(const unsigned* keys, mg::Index n, mg::Index shift, mg::Index tiles, int* counts) {
    MG_DYN_SMEM(int, count);
    unsigned key[mg::ROUNDS];
    int rank[mg::ROUNDS];
    mg::rank_tile(keys, (int)n, (int)shift, count, key, rank);
    int sum = 0;
#pragma unroll
    for (int w = 0; w < mg::SORT_WARPS; w++) sum += count[w * mg::DIGITS + threadIdx.x];
    counts[threadIdx.x * tiles + blockIdx.x] = sum;
}

// Each row of counts becomes the sums over its earlier tiles; totals[digit]. One block per digit.
__global__ void __launch_bounds__(mg::SORTERS)
add_earlier_tiles(int* counts, mg::Index tiles, int* totals) {
    MG_DYN_SMEM(int, work);
    int* row = counts + blockIdx.x * tiles;
    int sum = 0;
    for (mg::Index i = 0; i < tiles; i += mg::SORTERS) {
        const mg::Index mine = i + threadIdx.x;
        int total;
        const int before = mg::sum_before(mine < tiles ? row[mine] : 0, work, total);
        if (mine < tiles) row[mine] = sum + before;
        sum += total;
    }
    if (threadIdx.x == 0) totals[blockIdx.x] = sum;
}

// Keys and ids to their places. Without ids they are 0, 1, 2, ...
__global__ void __launch_bounds__(mg::SORTERS)
move_keys(const unsigned* keys, const int* ids, mg::Index n, mg::Index shift, mg::Index tiles,
          const int* earlier, const int* totals, unsigned* new_keys, int* new_ids) {
    MG_DYN_SMEM(int, count);
    unsigned key[mg::ROUNDS];
    int rank[mg::ROUNDS];
    mg::rank_tile(keys, (int)n, (int)shift, count, key, rank);
    int total;
    int place = mg::sum_before(totals[threadIdx.x], count + mg::SORT_WARPS * mg::DIGITS, total);
    place += earlier[threadIdx.x * tiles + blockIdx.x];
#pragma unroll
    for (int w = 0; w < mg::SORT_WARPS; w++) {
        const int here = count[w * mg::DIGITS + threadIdx.x];
        count[w * mg::DIGITS + threadIdx.x] = place;
        place += here;
    }
    __syncthreads();
    const int lane = threadIdx.x % mg::WARP, warp = threadIdx.x / mg::WARP;
    const mg::Index tile = (mg::Index)blockIdx.x * mg::TILE;
    const mg::Index first = tile + warp * (mg::WARP * mg::ROUNDS) + lane;
#pragma unroll
    for (int r = 0; r < mg::ROUNDS; r++) {
        const mg::Index from = first + r * mg::WARP;
        if (from >= n) continue;
        const unsigned digit = key[r] >> shift & (mg::DIGITS - 1);
        const int to = count[warp * mg::DIGITS + digit] + rank[r];
        new_keys[to] = key[r];
        new_ids[to] = ids ? ids[from] : (int)from;
    }
}

// span[target] = begin and end of a target's ids in the sorted list; span is zero before.
// The target of id i with key k is i / per * targets + k; keys from `targets` on have none.
__global__ void mark_segments(const unsigned* keys, const int* ids, mg::Index n, mg::Index per,
                              mg::Index targets, int* span) {
    const mg::Index j = mg::my_index();
    if (j >= n || keys[j] >= targets) return;
    const unsigned group = ids[j] / (unsigned)per;
    const mg::Index target = group * targets + keys[j];
    const bool begins = j == 0 || keys[j - 1] != keys[j] || ids[j - 1] / (unsigned)per != group;
    const bool ends = j == n - 1 || keys[j + 1] != keys[j] || ids[j + 1] / (unsigned)per != group;
    if (begins) span[2 * target] = (int)j;
    if (ends) span[2 * target + 1] = (int)j + 1;
}
