// pixel_norm.cu - every pixel's channels divided by their root mean square:
//
//     y = r x,   dx = r (g - x r^2 mean(g x)),   r = 1 / sqrt(mean(x^2) + eps)
//
// A pixel is a plane, and a block sees whole planes: it adds up, and reads again from the cache.
#include "mg_planes.cuh"

template <class T, int V>
__global__ void __launch_bounds__(mg::PLANE_THREADS)
pixel_norm(mg::Planes s, const T* x, T* y, double eps) {
    MG_DYN_SMEM(mg::Sums, work);
    const mg::Walk<V> walk(s);
    const bool whole = mg::aligned16(x) && mg::aligned16(y);
    mg::Adder<T, V> adder;
    mg::Batch<T, V> batch;
    for (int j = 0; j < walk.count; j += mg::AHEAD) {
        batch.read(x + walk.at, walk, j, whole);
#pragma unroll
        for (int u = 0; u < mg::AHEAD; u++)
            if (j + u < walk.count)
#pragma unroll
                for (int k = 0; k < V; k++) adder.a[k] += batch.v[u].v[k] * batch.v[u].v[k];
        adder.close_group(j, mg::AHEAD);
    }
    adder.close_group();
    mg::merge<V>(s, adder.sums, work);
    T r[V];
#pragma unroll
    for (int k = 0; k < V; k++)
        r[k] = k && s.along ? r[0]
                            : (T)(1 / sqrt(mg::merged(s, work, s.place(k)).a / s.length + eps));
    for (int j = 0; j < walk.count; j += mg::AHEAD) {
        batch.read(x + walk.at, walk, j, whole);
#pragma unroll
        for (int u = 0; u < mg::AHEAD; u++)
#pragma unroll
            for (int k = 0; k < V; k++) batch.v[u].v[k] *= r[k];
        batch.write(y + walk.at, walk, j, whole);
    }
}

template <class T, int V>
__global__ void __launch_bounds__(mg::PLANE_THREADS)
pixel_norm_backward(mg::Planes s, const T* g, const T* x, T* dx, double eps) {
    MG_DYN_SMEM(mg::Sums, work);
    const mg::Walk<V> walk(s);
    const bool whole = mg::aligned16(g) && mg::aligned16(x) && mg::aligned16(dx);
    mg::Adder<T, V> adder;
    mg::Batch<T, V> gs, xs;
    for (int j = 0; j < walk.count; j += mg::AHEAD) {
        gs.read(g + walk.at, walk, j, whole);
        xs.read(x + walk.at, walk, j, whole);
#pragma unroll
        for (int u = 0; u < mg::AHEAD; u++)
            if (j + u < walk.count)
#pragma unroll
                for (int k = 0; k < V; k++) {
                    adder.a[k] += xs.v[u].v[k] * xs.v[u].v[k];
                    adder.b[k] += xs.v[u].v[k] * gs.v[u].v[k];
                }
        adder.close_group(j, mg::AHEAD);
    }
    adder.close_group();
    mg::merge<V>(s, adder.sums, work);
    T r[V], back[V];  // dx = r g - back x
#pragma unroll
    for (int k = 0; k < V; k++) {
        const mg::Sums sums = mg::merged(s, work, s.place(k));
        const double square = 1 / (sums.a / s.length + eps), root = sqrt(square);
        r[k] = k && s.along ? r[0] : (T)root;
        back[k] = k && s.along ? back[0] : (T)(root * square * (sums.b / s.length));
    }
    for (int j = 0; j < walk.count; j += mg::AHEAD) {
        gs.read(g + walk.at, walk, j, whole);
        xs.read(x + walk.at, walk, j, whole);
#pragma unroll
        for (int u = 0; u < mg::AHEAD; u++)
#pragma unroll
            for (int k = 0; k < V; k++)
                xs.v[u].v[k] = r[k] * gs.v[u].v[k] - back[k] * xs.v[u].v[k];
        xs.write(dx + walk.at, walk, j, whole);
    }
}
