// mg_planes.cuh - walks through P x R x Q numbers whose middle is reduced.
//
// Memory is P x R x Q, a *plane* (p, q) the R numbers at distance Q. Two pictures cover the usual
// orders of axes:
//
//     along Q   channels-last, Q = C: neighbouring lanes take neighbouring planes
//     along R   Q = 1, a plane is contiguous: neighbouring lanes take neighbouring numbers of it
//
// The 256 threads of a block are `lanes` along Q (or R) times `rows` along R (or P). A thread takes
// V neighbouring numbers at a time, U such loads of each array are under way at once, and what it
// finds goes into V cells, those of the planes that it sees. `merge` joins the cells of the threads
// of a block in an order that depends on the shape alone: by shuffles along R, by a tree along Q.
#pragma once
#include "mg_math.cuh"
#include "mg_vector.cuh"

namespace mg {

constexpr int PLANE_THREADS = 256;
constexpr int AHEAD = 4;   // loads of an array under way in a thread
constexpr int FEWER = 2;   // the same where there are four arrays, which take more registers
constexpr int GROUP = 16;  // numbers that are added up in T before they are added in double

struct Planes {
    int count, length, width;  // P, R, Q
    int along;                 // whether lanes run along R
    int lane_bits;             // log2(lanes)
    int each, chunks;          // R is cut into `chunks` of `each`
    int tiles;                 // Q is cut into `tiles` of lanes * V

    __device__ __forceinline__ int lanes() const { return 1 << lane_bits; }
    __device__ __forceinline__ int rows() const { return PLANE_THREADS >> lane_bits; }
    __device__ __forceinline__ int lane() const { return threadIdx.x & (lanes() - 1); }
    __device__ __forceinline__ int row() const { return threadIdx.x >> lane_bits; }
    __device__ __forceinline__ int chunk() const {
        return (along ? blockIdx.x : blockIdx.x / tiles) % chunks;
    }
    // First p and first q of this block.
    __device__ __forceinline__ int p() const {
        return along ? blockIdx.x / chunks * rows() : blockIdx.x / tiles / chunks;
    }
    template <int V> __device__ __forceinline__ int q() const {
        return along ? 0 : blockIdx.x % tiles * lanes() * V;
    }
    // Planes of a block, and the number of plane i among all planes (-1: there is none).
    template <int V> __device__ __forceinline__ int in_block() const {
        return along ? rows() : lanes() * V;
    }
    template <int V> __device__ __forceinline__ int plane(int i) const {
        if (along) return p() + i < count ? p() + i : -1;
        const int at = q<V>() + (i & (lanes() - 1)) * V + (i >> lane_bits);
        return at < width ? p() * width + at : -1;
    }
    // Which plane of the block the k-th of a thread's V neighbours belongs to.
    __device__ __forceinline__ int place(int k) const {
        return along ? row() : (k << lane_bits) + lane();
    }
    // Where the cell of a plane and a chunk lies: [P][chunks][Q].
    __device__ __forceinline__ int cell(int plane, int chunk) const {
        if (along) return plane * chunks + chunk;
        return (plane / width * chunks + chunk) * width + plane % width;
    }
};

// The way of a thread: `count` times V numbers, the first at `at`, each `step` after the last.
template <int V> struct Walk {
    Index at, step;
    int count, p, r, r_step;
    int plane, next;  // the plane of the first number, and how far it is to that of its neighbour

    __device__ __forceinline__ Walk(const Planes& s) {
        const int end = min(s.length - s.chunk() * s.each, s.each), start = s.chunk() * s.each;
        const int first = s.along ? s.lane() * V : s.row();
        const int q = s.q<V>() + (s.along ? 0 : s.lane() * V);
        p = s.p() + (s.along ? s.row() : 0);
        r = start + first;
        r_step = s.along ? s.lanes() * V : s.rows();
        const bool inside = p < s.count && q < s.width && first < end;
        count = inside ? (end - first + r_step - 1) / r_step : 0;
        at = ((Index)p * s.length + r) * s.width + q;
        step = (Index)r_step * s.width;
        plane = p * s.width + q;
        next = s.along ? 0 : 1;
    }
};

// V numbers of one array at each of U places of a walk, as many as there are from place j on.
template <class T, int V, int U = AHEAD> struct Batch {
    Vector<T, V> v[U];
    // `x` points to the first number of the walk (in maps: to the one that belongs to it).
    __device__ __forceinline__ void read(const T* x, const Walk<V>& walk, int j, bool whole) {
        x += j * walk.step;
#pragma unroll
        for (int u = 0; u < U; u++)
            if (j + u < walk.count) v[u] = load<V>(x + u * walk.step, whole);
    }
    __device__ __forceinline__ void write(T* y, const Walk<V>& walk, int j, bool whole) const {
        y += j * walk.step;
#pragma unroll
        for (int u = 0; u < U; u++)
            if (j + u < walk.count) store<V>(y + u * walk.step, v[u], whole);
    }
};

// Two sums.
struct Sums {
    double a, b;
    __device__ __forceinline__ void add(const Sums& other) {
        a += other.a;
        b += other.b;
    }
    __device__ __forceinline__ Sums flipped(int flip) const {
        return {__shfl_xor_sync(ALL, a, flip), __shfl_xor_sync(ALL, b, flip)};
    }
};

// Two sums for each of V planes, added up in T for GROUP numbers at a time.
template <class T, int V> struct Adder {
    T a[V], b[V];
    Sums sums[V];
    __device__ __forceinline__ Adder() {
#pragma unroll
        for (int k = 0; k < V; k++) a[k] = b[k] = 0, sums[k] = {0, 0};
    }
    // After places j to j + u - 1 of a walk: a full group goes into the sums.
    __device__ __forceinline__ void close_group(int j, int u) {
        if ((j + u) % GROUP == 0) close_group();
    }
    __device__ __forceinline__ void close_group() {
#pragma unroll
        for (int k = 0; k < V; k++) {
            sums[k].add({(double)a[k], (double)b[k]});
            a[k] = b[k] = 0;
        }
    }
};

// Joins the cells of all threads; then `merged(s, cells, i)` is the cell of plane i of the block.
template <int V, class Cell>
__device__ __forceinline__ void merge(const Planes& s, Cell (&mine)[V], Cell* cells) {
    const int lanes = s.lanes(), rows = s.rows();
    if (s.along) {
        if constexpr (V > 1) {
#pragma unroll
            for (int k = 1; k < V; k++) mine[0].add(mine[k]);
        }
        const int near = min(lanes, WARP), warps = lanes / near;
        for (int flip = near / 2; flip; flip /= 2) mine[0].add(mine[0].flipped(flip));
        if (threadIdx.x % near == 0) cells[threadIdx.x / near] = mine[0];
        if (warps > 1) {
            __syncthreads();
            if (threadIdx.x < rows)
                for (int w = 1; w < warps; w++)
                    cells[threadIdx.x * warps].add(cells[threadIdx.x * warps + w]);
        }
    } else {
#pragma unroll
        for (int k = 0; k < V; k++) cells[(s.row() * V + k) * lanes + s.lane()] = mine[k];
        for (int half = rows / 2; half; half /= 2) {
            __syncthreads();
            const int width = lanes * V;
            for (int i = threadIdx.x; i < half * width; i += PLANE_THREADS)
                cells[i].add(cells[i + half * width]);
        }
    }
    __syncthreads();
}
template <class Cell>
__device__ __forceinline__ const Cell& merged(const Planes& s, const Cell* cells, int i) {
    return cells[s.along ? i * max(1, s.lanes() / WARP) : i];
}

// Cells as [.][outer][kept][inner], to be joined over outer and inner; `lanes` threads (a power of
// two, at most a warp) make one result.
struct Join {
    int results, outer, kept, inner, lanes;

    __device__ __forceinline__ int result() const {
        return (int)(my_index() / lanes);
    }
    __device__ __forceinline__ int count() const { return result() < results ? outer * inner : 0; }
    __device__ __forceinline__ int cell(int j) const {
        return ((result() / kept * outer + j / inner) * kept + result() % kept) * inner + j % inner;
    }
    __device__ __forceinline__ bool mine() const {
        return my_index() % lanes == 0 && result() < results;
    }
};

// The join of what `get(number of a cell)` gives, in the first of the lanes of a result.
template <class Cell, class Get>
__device__ __forceinline__ Cell join(const Join& s, const Get& get) {
    Cell sum = {};
    const int count = s.count();
#pragma unroll 4
    for (int j = (int)(my_index() % s.lanes); j < count; j += s.lanes) sum.add(get(s.cell(j)));
    for (int flip = s.lanes / 2; flip; flip /= 2) sum.add(sum.flipped(flip));
    return sum;
}

}  // namespace mg
