// pool.cu - maxima of windows and where they are; a thread handles V numbers of one place.
#include "mg_vector.cuh"

struct Axis { int length, out, kernel, stride, padding, dilation; };
struct Pool { int outer, inner; Axis z, y, x; };  // inner in vectors

// y[o, place, i] = the largest x[o, position, i] of the window; its position. The first of equals
// wins, padding never does, NaN is larger than all.
template <class T, int V>
__global__ void max_pool(const T* __restrict__ x, T* __restrict__ y, int* __restrict__ index,
                         Pool p) {
    constexpr int FLIGHT = 4;  // loads at once, along a row of the window
    const unsigned places = unsigned(p.z.out) * p.y.out * p.x.out;
    const mg::Index t = mg::my_index();
    if (t >= mg::Index(p.outer) * places * p.inner) return;
    const unsigned row = unsigned(t) / p.inner, i = unsigned(t) - row * p.inner;
    const unsigned o = row / places, place = row - o * places;
    const unsigned line = place / p.x.out, oz = line / p.y.out;
    const int x0 = int(place - line * p.x.out) * p.x.stride - p.x.padding;
    const int y0 = int(line - oz * p.y.out) * p.y.stride - p.y.padding;
    const int z0 = int(oz) * p.z.stride - p.z.padding;
    const bool whole = mg::aligned16(x);
    const mg::Index positions = mg::Index(p.z.length) * p.y.length * p.x.length;
    const T* plane = x + (o * positions * p.inner + i) * V;

    mg::Vector<T, V> best;
    mg::Vector<int, V> where;
    best.clear();
    where.clear();
    bool first = true;
    for (int a = 0; a < p.z.kernel; a++) {
        const int z = z0 + a * p.z.dilation;
        if (z < 0 || z >= p.z.length) continue;
        for (int b = 0; b < p.y.kernel; b++) {
            const int r = y0 + b * p.y.dilation;
            if (r < 0 || r >= p.y.length) continue;
            const int start = (z * p.y.length + r) * p.x.length;
            for (int c = 0; c < p.x.kernel; c += FLIGHT) {
                mg::Vector<T, V> v[FLIGHT];
                bool inside[FLIGHT];
#pragma unroll
                for (int j = 0; j < FLIGHT; j++) {
                    const int q = x0 + (c + j) * p.x.dilation;
                    inside[j] = c + j < p.x.kernel && q >= 0 && q < p.x.length;
                    v[j].clear();
                    if (inside[j])
                        v[j] = mg::load<V>(plane + mg::Index(start + q) * p.inner * V, whole);
                }
#pragma unroll
                for (int j = 0; j < FLIGHT; j++) {
                    const int position = start + x0 + (c + j) * p.x.dilation;
#pragma unroll
                    for (int k = 0; k < V; k++) {
                        const bool nan = v[j].v[k] != v[j].v[k] && best.v[k] == best.v[k];
                        if (inside[j] && (first || v[j].v[k] > best.v[k] || nan)) {
                            best.v[k] = v[j].v[k];
                            where.v[k] = position;
                        }
                    }
                    first = first && !inside[j];
                }
            }
        }
    }
    mg::store<V>(y + t * V, best, true);
    mg::store<V>(index + t * V, where, true);
}
