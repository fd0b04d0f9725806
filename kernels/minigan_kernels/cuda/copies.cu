// copies.cu - arrays one after another along an axis.
#include "mg_vector.cuh"

struct Part { int width, start; };  // of a row, in units
// Rows from first on; a row of y has `width` units, of which each part fills some.
struct Parts { int rows, width; Part part[8]; };

// y[row, part.start + i] = part[row, i]. A block copies from one part, which is its blockIdx.y.
template <class Unit>
__global__ void concat(const Unit* a, const Unit* b, const Unit* c, const Unit* d, const Unit* e,
                       const Unit* f, const Unit* g, const Unit* h, Unit* __restrict__ y,
                       mg::Index first, Parts p) {
    constexpr int ITEMS = 4;
    const int k = blockIdx.y;
    const Unit* __restrict__ x = k < 4 ? k < 2 ? k ? b : a : k == 2 ? c : d
                                       : k < 6 ? k == 4 ? e : f : k == 6 ? g : h;
    const unsigned width = p.part[k].width, total = unsigned(p.rows) * width;
    const mg::Index from = (mg::Index)blockIdx.x * blockDim.x * ITEMS + threadIdx.x;
    x += first * width;
    y += first * p.width + p.part[k].start;
    Unit found[ITEMS];
#pragma unroll
    for (int j = 0; j < ITEMS; j++) {
        const mg::Index t = from + j * blockDim.x;
        if (t < total) found[j] = x[t];
    }
#pragma unroll
    for (int j = 0; j < ITEMS; j++) {
        const mg::Index t = from + j * blockDim.x;
        if (t >= total) continue;
        const unsigned row = unsigned(t) / width;
        y[mg::Index(row) * p.width + (unsigned(t) - row * width)] = found[j];
    }
}
