// norm_gradient.cu - the gradients of a norm. With x^ = (x - mean) rstd, e = g where z > 0, else
// slope g, h = e (base + scale) and E the mean over what was normalised:
//
//     dx = rstd (h - E[h] - x^ E[h x^]),   dscale = sum e x^,   dshift = sum e
//
// `differentiate` measures sums of e and e d, d = x - centre (with maps: of h and h d), and applies
//
//     dx = h rstd + d k1 + k0,   k1 = -rstd^2 E[h x^],   k0 = -rstd E[h] - rest k1
//
// where mean = centre + rest. z is computed again from x, by the expressions of the forward kernel.
#include "mg_norm.cuh"

struct Balance { double k0, k1; };

__device__ __forceinline__ Balance balance(mg::Sums h, double rest, double rstd, double n) {
    const double k1 = -rstd * rstd * (rstd * (h.b - rest * h.a) / n);
    return {-rstd * h.a / n - rest * k1, k1};
}

// Sums of e (or h) and of its products with d.
template <class T, int V, bool MAPS>
__device__ __forceinline__ void measure(const mg::Norm& s, const mg::Walk<V>& walk, const T* g,
                                        const T* x, const T* scale, const T* shift,
                                        const mg::Lines<T, V, MAPS>& lines, T slope, T base,
                                        mg::Adder<T, V>& adder) {
    const bool whole = mg::aligned16(g) && mg::aligned16(x), bent = slope != 1;
    const bool whole_maps = MAPS && mg::aligned16(scale) && mg::aligned16(shift);
    const T *scale_at = MAPS && scale ? scale + s.map_at(walk) : nullptr;
    const T *shift_at = MAPS && bent && shift ? shift + s.map_at(walk) : nullptr;
    constexpr int U = MAPS && sizeof(T) * V > 4 ? mg::FEWER : mg::AHEAD;
    mg::Batch<T, V, U> gs, xs, scales, shifts;
    for (int j = 0; j < walk.count; j += U) {
        gs.read(g + walk.at, walk, j, whole);
        xs.read(x + walk.at, walk, j, whole);
        if (scale_at) scales.read(scale_at, walk, j, whole_maps);
        if (shift_at) shifts.read(shift_at, walk, j, whole_maps);
#pragma unroll
        for (int u = 0; u < U; u++)
            if (j + u < walk.count)
#pragma unroll
                for (int k = 0; k < V; k++) {
                    const mg::Line<T> line = lines.of[k];
                    const T v = xs.v[u].v[k], by = scale_at ? base + scales.v[u].v[k] : T(1);
                    T e = gs.v[u].v[k];
                    if (bent) {
                        T z = line.at(v);
                        if (MAPS) z = mg::shaped(z, by, shift_at ? shifts.v[u].v[k] : T(0));
                        e = mg::bend(e, z, slope);
                    }
                    if (MAPS) e *= by;
                    adder.a[k] += e;
                    adder.b[k] += e * (v - line.centre);
                }
        adder.close_group(j, U);
    }
    adder.close_group();
}

// Any of dx, dscale and dshift may be null; the last two are those of maps as large as x.
template <class T, int V, bool MAPS>
__device__ __forceinline__ void apply(const mg::Norm& s, const mg::Walk<V>& walk, const T* g,
                                      const T* x, const T* scale, const T* shift, T* dx, T* dscale,
                                      T* dshift, const mg::Lines<T, V, MAPS>& lines,
                                      const Balance* balances, T slope, T base) {
    const bool whole = mg::aligned16(g) && mg::aligned16(x) && mg::aligned16(dx), bent = slope != 1;
    const bool whole_maps = MAPS && mg::aligned16(scale) && mg::aligned16(shift) &&
                            mg::aligned16(dscale) && mg::aligned16(dshift);
    const T *scale_at = MAPS && scale ? scale + s.map_at(walk) : nullptr;
    const T *shift_at = MAPS && bent && shift ? shift + s.map_at(walk) : nullptr;
    T k0[V], k1[V];
#pragma unroll
    for (int k = 0; k < V; k++) {
        k0[k] = k1[k] = 0;
        if (dx && walk.count) {
            const Balance b = balances[s.statistic(walk.plane + k * walk.next)];
            k0[k] = (T)b.k0, k1[k] = (T)b.k1;
        }
    }
    constexpr int U = MAPS && sizeof(T) * V > 4 ? mg::FEWER : mg::AHEAD;
    mg::Batch<T, V, U> es, xs, scales, shifts;
    for (int j = 0; j < walk.count; j += U) {
        es.read(g + walk.at, walk, j, whole);
        xs.read(x + walk.at, walk, j, whole);
        if (scale_at) scales.read(scale_at, walk, j, whole_maps);
        if (shift_at) shifts.read(shift_at, walk, j, whole_maps);
#pragma unroll
        for (int u = 0; u < U; u++)
#pragma unroll
            for (int k = 0; k < V; k++) {
                const mg::Line<T> line = lines.of[k];
                const T v = xs.v[u].v[k], d = v - line.centre;
                const T by = scale_at ? base + scales.v[u].v[k] : T(1), xhat = line.at(v);
                T e = es.v[u].v[k];
                if (bent) {
                    T z = xhat;
                    if (MAPS) z = mg::shaped(xhat, by, shift_at ? shifts.v[u].v[k] : T(0));
                    e = mg::bend(e, z, slope);
                }
                es.v[u].v[k] = e;
                xs.v[u].v[k] = e * by * line.factor + (d * k1[k] + k0[k]);
                if (MAPS) scales.v[u].v[k] = e * xhat;
            }
        if (dx) xs.write(dx + walk.at, walk, j, whole);
        if (MAPS && dscale) scales.write(dscale + walk.at, walk, j, whole_maps);
        if (MAPS && dshift) es.write(dshift + walk.at, walk, j, whole_maps);
    }
}

// `cells` may be null if the block finishes its planes itself, `balances` if it only measures.
template <class T, int V, bool MAPS>
__global__ void __launch_bounds__(mg::PLANE_THREADS)
differentiate(mg::Norm s, const T* g, const T* x, const T* scale, const T* shift, T* dx, T* dscale,
              T* dshift, const double* mean, const double* rstd, mg::Sums* cells, Balance* balances,
              double slope, double base, double n) {
    MG_DYN_SMEM(mg::Sums, work);
    const mg::Walk<V> walk(s.planes);
    const mg::Lines<T, V, MAPS> lines(s, walk, scale, shift, mean, rstd, base);
    if (s.steps & mg::MEASURE) {
        mg::Adder<T, V> adder;
        measure<T, V, MAPS>(s, walk, g, x, scale, shift, lines, (T)slope, (T)base, adder);
        mg::merge<V>(s.planes, adder.sums, work);
        for (int i = threadIdx.x; i < s.planes.in_block<V>(); i += mg::PLANE_THREADS) {
            const int plane = s.planes.plane<V>(i);
            if (plane < 0) continue;
            mg::Sums h = mg::merged(s.planes, work, i);
            if (cells) cells[s.planes.cell(plane, s.planes.chunk())] = h;
            if (s.steps & mg::APPLY) {
                const double by = !MAPS && scale ? base + (double)scale[s.affine(plane)] : 1;
                h = {h.a * by, h.b * by};
                balances[plane] = balance(h, mg::rest_of<T>(mean[plane]), rstd[plane], n);
            }
        }
        __syncthreads();  // other threads of this block read the balances
    }
    if (s.steps & mg::APPLY)
        apply<T, V, MAPS>(s, walk, g, x, scale, shift, dx, dscale, dshift, lines, balances,
                          (T)slope, (T)base);
}

// Which plane a cell belongs to.
__device__ __forceinline__ int plane_of(const mg::Planes& s, int cell) {
    return s.along ? cell / s.chunks : cell / (s.chunks * s.width) * s.width + cell % s.width;
}

// The balance of every statistic; a scale that maps hold is in the sums already (`period` 0).
template <class T>
__global__ void finish_sums(mg::Norm s, mg::Join join, const mg::Sums* cells, const T* scale,
                            const double* mean, const double* rstd, Balance* balances, double base,
                            double n) {
    const mg::Sums h = mg::join<mg::Sums>(join, [&](int i) {
        mg::Sums e = cells[i];
        const double by =
            scale && s.period ? base + (double)scale[s.affine(plane_of(s.planes, i))] : 1;
        return mg::Sums{e.a * by, e.b * by};
    });
    if (!join.mine()) return;
    const int i = join.result();
    balances[i] = balance(h, mg::rest_of<T>(mean[i]), rstd[i], n);
}

// dscale and dshift of numbers that planes share; either may be null.
template <class T>
__global__ void finish_affine(mg::Norm s, mg::Join join, const mg::Sums* cells, const double* mean,
                              const double* rstd, T* dscale, T* dshift) {
    const mg::Sums sums = mg::join<mg::Sums>(join, [&](int i) {  // plane, then chunk
        const int plane = i / s.planes.chunks, statistic = s.statistic(plane);
        const mg::Sums e = cells[s.planes.cell(plane, i % s.planes.chunks)];
        return mg::Sums{e.a, rstd[statistic] * (e.b - mg::rest_of<T>(mean[statistic]) * e.a)};
    });
    if (!join.mine()) return;
    if (dscale) dscale[join.result()] = (T)sums.b;
    if (dshift) dshift[join.result()] = (T)sums.a;
}

// Sums of e and e x^ over all p, for maps that these share: a walk `s` through 1 x P x (R Q).
template <class T, int V>
__global__ void __launch_bounds__(mg::PLANE_THREADS)
sum_maps(mg::Planes s, mg::Norm norm, const T* g, const T* x, const T* scale, const T* shift,
         const double* mean, const double* rstd, mg::Sums* cells, double slope, double base) {
    MG_DYN_SMEM(mg::Sums, work);
    const mg::Walk<V> walk(s);
    const bool whole = mg::aligned16(g) && mg::aligned16(x), bent = slope != 1;
    mg::Adder<T, V> adder;
    mg::Vector<T, V> by, add;
    by.clear(), add.clear();
    if (walk.count && bent) {
        by = mg::load<V>(scale + walk.plane, mg::aligned16(scale));
        if (shift) add = mg::load<V>(shift + walk.plane, mg::aligned16(shift));
    }
    const int width = norm.planes.width;
    mg::Batch<T, V> gs, xs;
    for (int j = 0; j < walk.count; j += mg::AHEAD) {
        gs.read(g + walk.at, walk, j, whole);
        xs.read(x + walk.at, walk, j, whole);
#pragma unroll
        for (int u = 0; u < mg::AHEAD; u++) {
            if (j + u >= walk.count) continue;
            const int first = (walk.r + (j + u) * walk.r_step) * width;
            mg::Line<T> line;
#pragma unroll
            for (int k = 0; k < V; k++) {
                if (!k || width > 1)
                    line = mg::line_of<T, true>(norm, first + (walk.plane + k) % width, scale,
                                                shift, mean, rstd, base);
                const T xhat = line.at(xs.v[u].v[k]);
                T e = gs.v[u].v[k];
                if (bent) e = mg::bend(e, mg::shaped(xhat, (T)base + by.v[k], add.v[k]), (T)slope);
                adder.a[k] += e;
                adder.b[k] += e * xhat;
            }
        }
        adder.close_group(j, mg::AHEAD);
    }
    adder.close_group();
    mg::merge<V>(s, adder.sums, work);
    for (int i = threadIdx.x; i < s.in_block<V>(); i += mg::PLANE_THREADS) {
        const int plane = s.plane<V>(i);
        if (plane >= 0) cells[s.cell(plane, s.chunk())] = mg::merged(s, work, i);
    }
}
