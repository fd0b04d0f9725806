// index.cu - gathering numbers and rows of numbers, and adding them up where they came from.
#include "mg_segments.cuh"

// y[i] = x[index[i]], rows of `vectors` vectors.
template <class T, int V>
__global__ void take_rows(const T* __restrict__ x, const mg::Index* __restrict__ index,
                          T* __restrict__ y, mg::Index rows, mg::Index vectors) {
    constexpr int ITEMS = 4;
    const bool whole = mg::aligned16(x) && mg::aligned16(y);
    const mg::Index first = (mg::Index)blockIdx.x * blockDim.x * ITEMS + threadIdx.x;
    mg::Vector<T, V> found[ITEMS];
#pragma unroll
    for (int k = 0; k < ITEMS; k++) {
        const unsigned t = unsigned(first + k * blockDim.x);
        if (t >= rows * vectors) continue;
        const unsigned row = t / (unsigned)vectors, c = t - row * (unsigned)vectors;
        found[k] = mg::load<V>(x + (index[row] * vectors + c) * V, whole);
    }
#pragma unroll
    for (int k = 0; k < ITEMS; k++) {
        const mg::Index t = first + k * blockDim.x;
        if (t < rows * vectors) mg::store<V>(y + t * V, found[k], whole);
    }
}

struct Positions {
    int outer, places, inner;  // of y, inner in vectors
    int spatial;               // of x
    int outers, inners;        // planes with the same positions; numbers per place (inner or 1)
};
// y[o, p, i] = x[o, index[o / outers, p, i or 0], i]
template <class T, int V>
__global__ void gather_positions(const T* __restrict__ x, const int* __restrict__ index,
                                 T* __restrict__ y, Positions p) {
    constexpr int ITEMS = 4;
    const bool whole = mg::aligned16(x) && mg::aligned16(y);
    const unsigned total = unsigned(p.outer) * p.places * p.inner;
    const mg::Index first = (mg::Index)blockIdx.x * blockDim.x * ITEMS + threadIdx.x;
    mg::Vector<T, V> found[ITEMS];
#pragma unroll
    for (int k = 0; k < ITEMS; k++) {
        const unsigned t = unsigned(first + k * blockDim.x);
        if (t >= total) continue;
        const unsigned row = t / p.inner, i = t - row * p.inner;
        const unsigned o = row / p.places, place = row - o * p.places;
        const mg::Index shared_row = mg::Index(o / p.outers) * p.places + place;
        const int position = index[shared_row * p.inners + (p.inners > 1 ? i : 0)];
        const mg::Index from = (mg::Index(o) * p.spatial + position) * p.inner + i;
        found[k] = mg::load<V>(x + from * V, whole);
    }
#pragma unroll
    for (int k = 0; k < ITEMS; k++) {
        const mg::Index t = first + k * blockDim.x;
        if (t < total) mg::store<V>(y + t * V, found[k], whole);
    }
}

// key[t] = index[t] * inner + t % inner: numbers of a plane by position, then by channel.
template <class I>
__global__ void make_keys(const I* index, unsigned* key, mg::Index n, mg::Index inner) {
    const mg::Index t = mg::my_index();
    if (t < n) key[t] = unsigned(index[t]) * unsigned(inner) + unsigned(t) % unsigned(inner);
}

// y[r] = sum of the g[i] with index[i] = r, for few rows: everyone reads the whole index.
template <class T, int V>
__global__ void scatter_few(const T* __restrict__ g, const mg::Index* __restrict__ index,
                            T* __restrict__ y, mg::Index count, mg::Index rows, mg::Index vectors) {
    const mg::Index t = mg::my_index();
    if (t >= rows * vectors) return;
    const bool whole = mg::aligned16(g) && mg::aligned16(y);
    const mg::Index row = t / vectors, c = t - row * vectors;
    mg::Vector<T, V> sum;
    sum.clear();
#pragma unroll 4
    for (mg::Index i = 0; i < count; i++)
        if (index[i] == row) sum.add(mg::load<V>(g + (i * vectors + c) * V, whole));
    mg::store<V>(y + t * V, sum, whole);
}

namespace mg {

template <class T, int V> struct RowOf {  // row id of g, at one vector
    const T* g;
    Index stride;
    bool whole;
    __device__ __forceinline__ Vector<T, V> operator()(int id) const {
        return load<V>(g + id * stride, whole);
    }
};

}  // namespace mg

// sums[b] = sum of the rows of block b of the list, where it lies within one segment.
template <class T, int V>
__global__ void add_blocks(const T* __restrict__ g, const int* __restrict__ order,
                           const unsigned* __restrict__ keys, T* __restrict__ sums,
                           mg::Index blocks, mg::Index vectors, mg::Index per) {
    const mg::Index t = mg::my_index();
    if (t >= blocks * vectors) return;
    const unsigned b = unsigned(t) / unsigned(vectors), c = unsigned(t) - b * unsigned(vectors);
    const int begin = b * mg::BLOCK, end = begin + mg::BLOCK;
    if (keys[begin] != keys[end - 1]) return;
    if (order[begin] / (unsigned)per != order[end - 1] / (unsigned)per) return;
    const mg::RowOf<T, V> row{g + c * V, vectors * V, mg::aligned16(g)};
    mg::Vector<T, V> sum;
    sum.clear();
    mg::add_terms(sum, order, begin, end, row);
    mg::store<V>(sums + t * V, sum, true);
}
// y[t] = sum of the rows of target t.
template <class T, int V>
__global__ void add_segments(const T* __restrict__ g, const int* __restrict__ order,
                             const int2* __restrict__ span, const T* __restrict__ sums,
                             T* __restrict__ y, mg::Index targets, mg::Index vectors) {
    const mg::Index t = mg::my_index();
    if (t >= targets * vectors) return;
    const unsigned target = unsigned(t) / unsigned(vectors), c = unsigned(t) - target * vectors;
    const mg::RowOf<T, V> row{g + c * V, vectors * V, mg::aligned16(g)};
    const mg::RowOf<T, V> block{sums + c * V, vectors * V, true};
    mg::Vector<T, V> sum;
    sum.clear();
    mg::add_segment(sum, order, span[target], row, block);
    mg::store<V>(y + t * V, sum, mg::aligned16(y));
}
