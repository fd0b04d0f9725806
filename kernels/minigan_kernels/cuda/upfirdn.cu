// upfirdn.cu - up-sample, filter with any two-dimensional filter, down-sample.
#include "mg_vector.cuh"

// A block makes a tile of (lines, columns) results of one plane, for blockDim.x vectors of a pixel.
struct Upfirdn {
    int planes, height, width, inner, rows_out, columns_out;  // inner in vectors
    int kernel[2], up[2], down[2], before[2];                 // rows, columns
    int tile[2], room[2];  // results of a block; pixels of x that they need, at most
};

namespace mg {

__device__ __forceinline__ int divide_up(int a, int b) {  // for any sign of a
    return a > 0 ? (a + b - 1) / b : -(-a / b);
}

}  // namespace mg

// y[i, j] = sum over a, b of f[a, b] wide[i down + a - before, j down + b - before], where wide
// holds x at the multiples of up. Taps that meet an inserted zero are left out: those from
// (before - i down) mod up on, every up-th, are used.
template <class T, int V>
__global__ void __launch_bounds__(256, 4)
filter_tile(const T* __restrict__ x, const T* __restrict__ f, T* __restrict__ y, Upfirdn p) {
    typedef mg::Vector<T, V> Numbers;
    MG_DYN_SMEM(Numbers, patch);  // [room][room][blockDim.x], zeros outside the image
    const bool whole = mg::aligned16(x);
    const int across = (p.columns_out + p.tile[1] - 1) / p.tile[1];
    const int tiles = (p.rows_out + p.tile[0] - 1) / p.tile[0] * across;
    const mg::Index image = blockIdx.x / tiles;
    const int tile = blockIdx.x - image * tiles;
    const int i0 = tile / across * p.tile[0], j0 = tile % across * p.tile[1];
    const int vector = blockIdx.y * blockDim.x + threadIdx.x;
    const int row0 = mg::divide_up(i0 * p.down[0] - p.before[0], p.up[0]);
    const int column0 = mg::divide_up(j0 * p.down[1] - p.before[1], p.up[1]);
    const T* plane = x + image * p.height * p.width * p.inner * V;
    for (int a = threadIdx.z; a < p.room[0]; a += blockDim.z) {
        for (int b = threadIdx.y; b < p.room[1]; b += blockDim.y) {
            const int row = row0 + a, column = column0 + b;
            Numbers v;
            v.clear();
            if (row >= 0 && row < p.height && column >= 0 && column < p.width && vector < p.inner)
                v = mg::load<V>(plane + (mg::Index(row * p.width + column) * p.inner + vector) * V,
                                whole);
            patch[(a * p.room[1] + b) * blockDim.x + threadIdx.x] = v;
        }
    }
    __syncthreads();
    if (vector >= p.inner) return;
    const int i1 = min(i0 + p.tile[0], p.rows_out), j1 = min(j0 + p.tile[1], p.columns_out);
    for (int i = i0 + threadIdx.z; i < i1; i += blockDim.z) {
        const int top = i * p.down[0] - p.before[0], row = mg::divide_up(top, p.up[0]);
        for (int j = j0 + threadIdx.y; j < j1; j += blockDim.y) {
            const int left = j * p.down[1] - p.before[1], column = mg::divide_up(left, p.up[1]);
            Numbers sum;
            sum.clear();
            for (int a = row * p.up[0] - top, r = row - row0; a < p.kernel[0]; a += p.up[0], r++) {
                const Numbers* line = patch + (r * p.room[1] + column - column0) * blockDim.x;
                const T* taps = f + a * p.kernel[1];
#pragma unroll 4
                for (int b = column * p.up[1] - left; b < p.kernel[1]; b += p.up[1]) {
                    sum.add(taps[b], line[threadIdx.x]);
                    line += blockDim.x;
                }
            }
            const mg::Index pixel = (image * p.rows_out + i) * p.columns_out + j;
            mg::store<V>(y + (pixel * p.inner + vector) * V, sum, true);
        }
    }
}
