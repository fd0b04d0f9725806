// resample.cu - sparse linear maps along one axis, or along rows and columns at once.
#include "mg_vector.cuh"

namespace mg {

// The sum over taps of weight[k] x[index[k] stride]; index -1: no tap. Four loads are in flight.
template <class T, int V>
__device__ __forceinline__ Vector<T, V> mix(const T* x, Index stride, const int* index,
                                            const T* weight, int taps, bool whole) {
    constexpr int FLIGHT = 4;
    Vector<T, V> sum;
    sum.clear();
    for (int k = 0; k < taps; k += FLIGHT) {
        Vector<T, V> v[FLIGHT];
        T w[FLIGHT];
#pragma unroll
        for (int j = 0; j < FLIGHT; j++) {
            v[j].clear();
            w[j] = 0;
            const int from = k + j < taps ? index[k + j] : -1;
            if (from >= 0) {
                v[j] = load<V>(x + from * stride, whole);
                w[j] = weight[k + j];
            }
        }
#pragma unroll
        for (int j = 0; j < FLIGHT; j++) sum.add(w[j], v[j]);
    }
    return sum;
}

}  // namespace mg

struct AxisMap { int planes, length, inner, out, taps; };  // inner in vectors

// y[p, o, i] = sum over k of weight[o, k] x[p, index[o, k], i]; index -1: no tap.
template <class T, int V>
__global__ void axis_map(const T* __restrict__ x, const int* __restrict__ index,
                         const T* __restrict__ weight, T* __restrict__ y, AxisMap m) {
    constexpr int ITEMS = V == 1 ? 4 : 1;  // numbers of a thread, far apart
    const bool whole = mg::aligned16(x);
    const unsigned total = unsigned(m.planes) * m.out * m.inner;
    const mg::Index first = (mg::Index)blockIdx.x * blockDim.x * ITEMS + threadIdx.x;
    mg::Vector<T, V> sum[ITEMS];
#pragma unroll
    for (int j = 0; j < ITEMS; j++) {
        const unsigned t = unsigned(first + j * blockDim.x);
        if (t >= total) continue;
        const unsigned row = t / m.inner, i = t - row * m.inner;
        const unsigned p = row / m.out, o = row - p * m.out;
        const T* plane = x + (mg::Index(p) * m.length * m.inner + i) * V;
        sum[j] = mg::mix<T, V>(plane, mg::Index(m.inner) * V, index + o * m.taps,
                               weight + o * m.taps, m.taps, whole);
    }
#pragma unroll
    for (int j = 0; j < ITEMS; j++) {
        const mg::Index t = first + j * blockDim.x;
        if (t < total) mg::store<V>(y + t * V, sum[j], true);
    }
}

// A block makes `lines` lines of a tile of `columns` columns of results: blockDim is (vectors,
// columns, lines) that run at once.
struct PlaneMap {
    int planes, height, width, inner;  // of x, inner in vectors
    int rows_out, columns_out, row_taps, column_taps;
    int lines, columns, room;  // of a block; columns of x that its results need, at most
};

// Rows are mixed first, into shared memory: all columns of x that the tile needs, first[tile] on.
// The result mixes columns of these. A line is a row of results of one plane.
template <class T, int V>
__global__ void __launch_bounds__(256, 4)
plane_map(const T* __restrict__ x, const int* __restrict__ row_index,
          const T* __restrict__ row_weight, const int* __restrict__ column_index,
          const T* __restrict__ column_weight, const int* __restrict__ first, T* __restrict__ y,
          PlaneMap m) {
    typedef mg::Vector<T, V> Numbers;
    MG_DYN_SMEM(Numbers, mixed);  // [lines][room][blockDim.x]
    const bool whole = mg::aligned16(x);
    const int i = blockIdx.z * blockDim.x + threadIdx.x;  // vector of a pixel
    const int start = first[blockIdx.y], room = min(m.room, m.width - start);
    const mg::Index block_line = (mg::Index)blockIdx.x * m.lines;
    const mg::Index lines = (mg::Index)m.planes * m.rows_out;
    for (int l = threadIdx.z; l < m.lines && block_line + l < lines; l += blockDim.z) {
        const unsigned plane = unsigned(block_line + l) / m.rows_out;
        const int row = unsigned(block_line + l) - plane * m.rows_out;
        const T* image = x + mg::Index(plane) * m.height * m.width * m.inner * V;
        for (int j = threadIdx.y; j < room; j += blockDim.y) {
            if (i >= m.inner) continue;
            mixed[(l * m.room + j) * blockDim.x + threadIdx.x] = mg::mix<T, V>(
                image + (mg::Index(start + j) * m.inner + i) * V, mg::Index(m.width) * m.inner * V,
                row_index + row * m.row_taps, row_weight + row * m.row_taps, m.row_taps, whole);
        }
    }
    __syncthreads();
    if (i >= m.inner) return;
    const int end = min((int(blockIdx.y) + 1) * m.columns, m.columns_out);
    for (int l = threadIdx.z; l < m.lines && block_line + l < lines; l += blockDim.z) {
        for (int o = blockIdx.y * m.columns + threadIdx.y; o < end; o += blockDim.y) {
            const Numbers* line = mixed + (l * m.room - start) * (int)blockDim.x + threadIdx.x;
            const Numbers sum = mg::mix<T, V>(
                (const T*)line, mg::Index(blockDim.x) * V, column_index + o * m.column_taps,
                column_weight + o * m.column_taps, m.column_taps, true);
            const mg::Index pixel = (block_line + l) * m.columns_out + o;
            mg::store<V>(y + (pixel * m.inner + i) * V, sum, true);
        }
    }
}
