// norm.cu - normalisation and the activation after it:
//
//     y = z where z > 0, else slope z,   z = (x - mean) rstd (base + scale) + shift
//
// `normalise` measures (reads x), and applies (reads x, writes y); `finish` joins what was found.
// Where blocks see whole planes and these are the statistics, one launch does all.
#include "mg_norm.cuh"

// A count, a sum, and the sum of squared deviations from the mean; joined by Chan's formula.
struct Moments {
    double n, sum, square;
    __device__ __forceinline__ void add(const Moments& o) {
        const double all = n + o.n, apart = o.sum * n - sum * o.n;
        square += o.square + (n > 0 && o.n > 0 ? apart * apart / (n * o.n * all) : 0);
        sum += o.sum;
        n = all;
    }
    __device__ __forceinline__ Moments flipped(int flip) const {
        return {__shfl_xor_sync(mg::ALL, n, flip), __shfl_xor_sync(mg::ALL, sum, flip),
                __shfl_xor_sync(mg::ALL, square, flip)};
    }
    __device__ __forceinline__ double mean() const { return sum / n; }
    __device__ __forceinline__ double rstd(double eps) const { return 1 / sqrt(square / n + eps); }
};

// Sums of d and d^2 about the first number that the thread meets: what is squared is no larger than
// what the variance is made of.
template <class T, int V>
__device__ __forceinline__ void measure(const mg::Walk<V>& walk, const T* x, Moments (&found)[V]) {
    const bool whole = mg::aligned16(x);
    mg::Adder<T, V> adder;
    mg::Batch<T, V> batch;
    mg::Vector<T, V> about;
    about.clear();
    x += walk.at;
    if (walk.count) about = mg::load<V>(x, whole);
#pragma unroll
    for (int k = 0; k < V; k++)
        if (about.v[k] - about.v[k] != 0) about.v[k] = 0;  // NaN or infinite
    for (int j = 0; j < walk.count; j += mg::AHEAD) {
        batch.read(x, walk, j, whole);
#pragma unroll
        for (int u = 0; u < mg::AHEAD; u++)
            if (j + u < walk.count)
#pragma unroll
                for (int k = 0; k < V; k++) {
                    const T d = batch.v[u].v[k] - about.v[k];
                    adder.a[k] += d;
                    adder.b[k] += d * d;
                }
        adder.close_group(j, mg::AHEAD);
    }
    adder.close_group();
    const double n = walk.count;
#pragma unroll
    for (int k = 0; k < V; k++) {
        const mg::Sums sums = adder.sums[k];
        const double square = sums.b - (n > 0 ? sums.a * sums.a / n : 0);
        found[k] = {n, sums.a + n * (double)about.v[k], square < 0 ? 0 : square};
    }
}

template <class T, int V, bool MAPS>
__device__ __forceinline__ void apply(const mg::Norm& s, const mg::Walk<V>& walk, const T* x,
                                      const T* scale, const T* shift, T* y, const double* mean,
                                      const double* rstd, T slope, double base) {
    const mg::Lines<T, V, MAPS> lines(s, walk, scale, shift, mean, rstd, base);
    const bool whole = mg::aligned16(x) && mg::aligned16(y), bent = slope != 1;
    const bool whole_maps = MAPS && mg::aligned16(scale) && mg::aligned16(shift);
    constexpr int U = MAPS && sizeof(T) * V > 4 ? mg::FEWER : mg::AHEAD;
    mg::Batch<T, V, U> z, scales, shifts;
    x += walk.at, y += walk.at;
    if (MAPS) scale += scale ? s.map_at(walk) : 0, shift += shift ? s.map_at(walk) : 0;
    for (int j = 0; j < walk.count; j += U) {
        z.read(x, walk, j, whole);
        if (MAPS && scale) scales.read(scale, walk, j, whole_maps);
        if (MAPS && shift) shifts.read(shift, walk, j, whole_maps);
#pragma unroll
        for (int u = 0; u < U; u++)
#pragma unroll
            for (int k = 0; k < V; k++) {
                T v = lines.of[k].at(z.v[u].v[k]);
                if (MAPS)
                    v = mg::shaped(v, scale ? (T)base + scales.v[u].v[k] : T(1),
                                   shift ? shifts.v[u].v[k] : T(0));
                z.v[u].v[k] = bent ? mg::bend(v, v, slope) : v;
            }
        z.write(y, walk, j, whole);
    }
}

template <class T, int V, bool MAPS>
__global__ void __launch_bounds__(mg::PLANE_THREADS)
normalise(mg::Norm s, const T* x, const T* scale, const T* shift, T* y, double* mean, double* rstd,
          Moments* cells, double eps, double slope, double base) {
    MG_DYN_SMEM(Moments, work);
    const mg::Walk<V> walk(s.planes);
    if (s.steps & mg::MEASURE) {
        Moments mine[V];
        measure<T, V>(walk, x, mine);
        mg::merge<V>(s.planes, mine, work);
        for (int i = threadIdx.x; i < s.planes.in_block<V>(); i += mg::PLANE_THREADS) {
            const int plane = s.planes.plane<V>(i);
            if (plane < 0) continue;
            const Moments all = mg::merged(s.planes, work, i);
            if (cells) {
                cells[s.planes.cell(plane, s.planes.chunk())] = all;
            } else {
                mean[plane] = all.mean();
                rstd[plane] = all.rstd(eps);
            }
        }
        __syncthreads();  // other threads of this block read mean and rstd
    }
    if (s.steps & mg::APPLY)
        apply<T, V, MAPS>(s, walk, x, scale, shift, y, mean, rstd, (T)slope, base);
}

__global__ void finish(mg::Join s, const Moments* cells, double* mean, double* rstd, double eps) {
    const Moments all = mg::join<Moments>(s, [&](int i) { return cells[i]; });
    if (!s.mine()) return;
    mean[s.result()] = all.mean();
    rstd[s.result()] = all.rstd(eps);
}
