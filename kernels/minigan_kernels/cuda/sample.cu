// sample.cu - reading images at given places, and both gradients. Images are N,[D,]H,W,C in memory.
//
// A place is read by 1 to 8 lanes (a power of two), which share the channels.
#include "mg_grid.cuh"
#include "mg_segments.cuh"

struct Sampling {
    int batch, places, vectors, lanes;  // places of an image; vectors of a pixel
    int size[3];                        // depth, height, width
    int nearest, padding, align;
};

namespace mg {

// The places of one thread: the pixels around it, their weights, and how these change.
template <int AXES> struct Corners {
    static constexpr int COUNT = 1 << AXES;
    Spot spot[3];  // depth, height, width
    Index image;   // the first pixel of the image

    __device__ __forceinline__ Corners(const double (&u)[AXES], Index n, const Sampling& p) {
        spot[0] = {0, 0, 0};
#pragma unroll
        for (int a = 0; a < AXES; a++)  // the grid names the last axis first
            spot[2 - a] = locate(u[a], p.size[2 - a], p.nearest, p.padding, p.align);
        image = n * p.size[0] * p.size[1] * p.size[2];
    }
    static __device__ __forceinline__ int bit(int corner, int axis) {
        return corner >> (2 - axis) & 1;
    }

    __device__ __forceinline__ bool exists(int corner, const Sampling& p) const {
        bool inside = !(p.nearest && corner);
#pragma unroll
        for (int a = 3 - AXES; a < 3; a++)
            inside = inside && has(spot[a], bit(corner, a), p.size[a]);
        return inside;
    }
    __device__ __forceinline__ Index pixel(int corner, const Sampling& p) const {
        const int z = spot[0].first + bit(corner, 0), y = spot[1].first + bit(corner, 1);
        return image + (Index(z) * p.size[1] + y) * p.size[2] + spot[2].first + bit(corner, 2);
    }
    __device__ __forceinline__ double weight(int corner, int axis) const {
        return bit(corner, axis) ? spot[axis].fraction : 1 - spot[axis].fraction;
    }
    __device__ __forceinline__ double weight(int corner) const {
        double w = 1;
#pragma unroll
        for (int a = 3 - AXES; a < 3; a++) w *= weight(corner, a);
        return w;
    }
    // derivative of the corner's weight by the coordinate of one axis
    __device__ __forceinline__ double slope(int corner, int axis) const {
        double w = bit(corner, axis) ? spot[axis].slope : -spot[axis].slope;
#pragma unroll
        for (int a = 3 - AXES; a < 3; a++)
            if (a != axis) w *= weight(corner, a);
        return w;
    }
};

template <class T, int AXES>
__device__ __forceinline__ void read_place(const T* grid, Index place, double (&u)[AXES]) {
#pragma unroll
    for (int a = 0; a < AXES; a++) u[a] = grid[place * AXES + a];
}

}  // namespace mg

// y[n, place, c] = sum over corners of weight x[n, corner, c]
template <class T, int V, int AXES>
__global__ void grid_sample(const T* __restrict__ x, const T* __restrict__ grid, T* __restrict__ y,
                            Sampling p) {
    const mg::Index t = mg::my_index(), place = t >> __popc(p.lanes - 1);
    if (place >= mg::Index(p.batch) * p.places) return;
    double u[AXES];
    mg::read_place<T, AXES>(grid, place, u);
    const mg::Corners<AXES> corners(u, unsigned(place) / unsigned(p.places), p);
    const bool whole = mg::aligned16(x);
    T weight[corners.COUNT];
    const T* from[corners.COUNT];
#pragma unroll
    for (int q = 0; q < corners.COUNT; q++) {
        weight[q] = corners.exists(q, p) ? (T)corners.weight(q) : T(0);
        from[q] = corners.exists(q, p) ? x + corners.pixel(q, p) * p.vectors * V : nullptr;
    }
    for (int c = int(t & (p.lanes - 1)); c < p.vectors; c += p.lanes) {
        mg::Vector<T, V> sum, v[corners.COUNT];
        sum.clear();
#pragma unroll
        for (int q = 0; q < corners.COUNT; q++) {
            v[q].clear();
            if (from[q]) v[q] = mg::load<V>(from[q] + c * V, whole);
        }
#pragma unroll
        for (int q = 0; q < corners.COUNT; q++) sum.add(weight[q], v[q]);
        mg::store<V>(y + (place * p.vectors + c) * V, sum, true);
    }
}

// dgrid[n, place, axis] = sum over corners of dweight/dgrid sum over c of g x. The lanes of a place
// add up their channels, then one another's sums.
template <class T, int V, int AXES>
__global__ void grid_gradient(const T* __restrict__ g, const T* __restrict__ x,
                              const T* __restrict__ grid, T* __restrict__ dgrid, Sampling p) {
    const mg::Index t = mg::my_index(), place = t >> __popc(p.lanes - 1);
    const bool mine = place < mg::Index(p.batch) * p.places;  // all lanes take part in the sums
    double u[AXES] = {};
    if (mine) mg::read_place<T, AXES>(grid, place, u);
    const mg::Corners<AXES> corners(u, unsigned(place) / unsigned(p.places), p);
    const bool whole = mg::aligned16(x) && mg::aligned16(g);
    T dot[corners.COUNT] = {};
    const T* from[corners.COUNT];
#pragma unroll
    for (int q = 0; q < corners.COUNT; q++)
        from[q] = mine && corners.exists(q, p) ? x + corners.pixel(q, p) * p.vectors * V : nullptr;
    if (mine) {
        for (int c = int(t & (p.lanes - 1)); c < p.vectors; c += p.lanes) {
            const mg::Vector<T, V> h = mg::load<V>(g + (place * p.vectors + c) * V, whole);
            mg::Vector<T, V> v[corners.COUNT];
#pragma unroll
            for (int q = 0; q < corners.COUNT; q++) {
                v[q].clear();
                if (from[q]) v[q] = mg::load<V>(from[q] + c * V, whole);
            }
#pragma unroll
            for (int q = 0; q < corners.COUNT; q++)
#pragma unroll
                for (int k = 0; k < V; k++) dot[q] += h.v[k] * v[q].v[k];
        }
    }
    double sum[AXES] = {};
#pragma unroll
    for (int q = 0; q < corners.COUNT; q++) {
        for (int flip = p.lanes / 2; flip; flip >>= 1)
            dot[q] += __shfl_xor_sync(mg::ALL, dot[q], flip);
        if (!from[q]) continue;
#pragma unroll
        for (int a = 0; a < AXES; a++) sum[a] += dot[q] * corners.slope(q, 2 - a);
    }
    if (mine && (t & (p.lanes - 1)) == 0)
#pragma unroll
        for (int a = 0; a < AXES; a++) dgrid[place * AXES + a] = (T)sum[a];
}

// ---- the gradient at x -------------------------------------------------------------------------
//
// Places are sorted by their cell, the square between four pixels (the cube between eight). Cells
// reach one pixel over each edge: (D+1)(H+1)(W+1). A pixel then adds up the places of the 4 (8)
// cells around it.

// key[place] = its cell, or the number of cells if no pixel is near; fraction[axis][place].
template <class T, int AXES>
__global__ void find_cells(const T* __restrict__ grid, unsigned* __restrict__ key,
                           T* __restrict__ fraction, Sampling p) {
    const mg::Index place = mg::my_index(), count = mg::Index(p.batch) * p.places;
    if (place >= count) return;
    double u[AXES];
    mg::read_place<T, AXES>(grid, place, u);
    const mg::Corners<AXES> corners(u, 0, p);
    unsigned cell = 0, cells = 1;
    bool near = true;
#pragma unroll
    for (int a = 3 - AXES; a < 3; a++) {
        const int j = corners.spot[a].first + 1, n = p.size[a] + 1;
        near = near && j >= 0 && j < n;
        cell = cell * n + j;
        cells *= n;
        fraction[(a - 3 + AXES) * count + place] = (T)corners.spot[a].fraction;
    }
    key[place] = near ? cell : cells;
}

namespace mg {

template <class T, int V, int AXES> struct WeightedRow {  // weight g of a place, at one vector
    const T* g;
    const T* fraction;
    Index stride, count;
    int corner;
    bool whole;
    __device__ __forceinline__ Vector<T, V> operator()(int place) const {
        T weight = 1;
        bool exists = true;
#pragma unroll
        for (int a = 0; a < AXES; a++) {
            const T f = fraction[a * count + place];
            const bool second = corner >> (AXES - 1 - a) & 1;
            weight *= second ? f : 1 - f;
            exists = exists && !(second && f != f);
        }
        Vector<T, V> v = load<V>(g + place * stride, whole);
#pragma unroll
        for (int k = 0; k < V; k++) v.v[k] = exists ? weight * v.v[k] : 0;
        return v;
    }
};
template <class T, int V> struct BlockSum {
    const T* sums;
    Index stride;
    __device__ __forceinline__ Vector<T, V> operator()(int block) const {
        return load<V>(sums + block * stride, true);
    }
};

}  // namespace mg

// sums[b, corner] = sum of weight g over block b of the sorted places, where it lies in one cell.
template <class T, int V, int AXES>
__global__ void add_cell_blocks(const T* __restrict__ g, const T* __restrict__ fraction,
                                const int* __restrict__ order, const unsigned* __restrict__ keys,
                                T* __restrict__ sums, mg::Index blocks, Sampling p) {
    constexpr int CORNERS = 1 << AXES;
    const mg::Index t = mg::my_index();
    if (t >= blocks * CORNERS * p.vectors) return;
    const unsigned row = unsigned(t) / p.vectors, c = unsigned(t) - row * p.vectors;
    const int begin = row / CORNERS * mg::BLOCK, end = begin + mg::BLOCK;
    if (keys[begin] != keys[end - 1] || (p.nearest && row % CORNERS)) return;
    if (order[begin] / p.places != order[end - 1] / p.places) return;
    const mg::WeightedRow<T, V, AXES> term{g + c * V, fraction, mg::Index(p.vectors) * V,
        mg::Index(p.batch) * p.places, int(row % CORNERS), mg::aligned16(g)};
    mg::Vector<T, V> sum;
    sum.clear();
    mg::add_terms(sum, order, begin, end, term);
    mg::store<V>(sums + t * V, sum, true);
}

// dx[n, pixel, c] = sum over the cells around the pixel of weight g of their places.
template <class T, int V, int AXES>
__global__ void add_cells(const T* __restrict__ g, const T* __restrict__ fraction,
                          const int* __restrict__ order, const int2* __restrict__ span,
                          const T* __restrict__ sums, T* __restrict__ dx, Sampling p) {
    constexpr int CORNERS = 1 << AXES;
    const unsigned pixels = unsigned(p.size[0]) * p.size[1] * p.size[2];
    const mg::Index t = mg::my_index();
    if (t >= mg::Index(p.batch) * pixels * p.vectors) return;
    const unsigned row = unsigned(t) / p.vectors, c = unsigned(t) - row * p.vectors;
    const unsigned n = row / pixels, pixel = row - n * pixels;
    const unsigned line = pixel / p.size[2], z = line / p.size[1];
    const int at[3] = {int(z), int(line - z * p.size[1]), int(pixel - line * p.size[2])};
    mg::WeightedRow<T, V, AXES> term{g + c * V, fraction, mg::Index(p.vectors) * V,
        mg::Index(p.batch) * p.places, 0, mg::aligned16(g)};
    mg::Vector<T, V> sum;
    sum.clear();
    for (int corner = 0; corner < (p.nearest ? 1 : CORNERS); corner++) {
        mg::Index cell = n;
#pragma unroll
        for (int a = 3 - AXES; a < 3; a++)  // the pixel is this corner of the cell
            cell = cell * (p.size[a] + 1) + at[a] + 1 - (corner >> (2 - a) & 1);
        term.corner = corner;
        const mg::BlockSum<T, V> block{sums + (mg::Index(corner) * p.vectors + c) * V,
                                       mg::Index(CORNERS) * p.vectors * V};
        mg::add_segment(sum, order, span[cell], term, block);
    }
    mg::store<V>(dx + t * V, sum, true);
}
