// reduce.cu - sums over axes: one visit to all numbers, then one to the cells that it left.
#include "mg_planes.cuh"

// Sums of planes. Where a plane is one sum of the result it is written to y, else to cells.
template <class T, int V>
__global__ void __launch_bounds__(mg::PLANE_THREADS)
sum_planes(mg::Planes s, const T* x, T* y, mg::Sums* cells) {
    MG_DYN_SMEM(mg::Sums, work);
    const mg::Walk<V> walk(s);
    const bool whole = mg::aligned16(x);
    mg::Adder<T, V> adder;
    mg::Batch<T, V> batch;
    for (int j = 0; j < walk.count; j += mg::AHEAD) {
        batch.read(x + walk.at, walk, j, whole);
#pragma unroll
        for (int u = 0; u < mg::AHEAD; u++)
            if (j + u < walk.count)
#pragma unroll
                for (int k = 0; k < V; k++) adder.a[k] += batch.v[u].v[k];
        adder.close_group(j, mg::AHEAD);
    }
    adder.close_group();
    mg::merge<V>(s, adder.sums, work);
    for (int i = threadIdx.x; i < s.in_block<V>(); i += mg::PLANE_THREADS) {
        const int plane = s.plane<V>(i);
        if (plane < 0) continue;
        const mg::Sums sums = mg::merged(s, work, i);
        if (cells)
            cells[s.cell(plane, s.chunk())] = sums;
        else
            y[plane] = (T)sums.a;
    }
}

// Results from cells; a or b may be null.
template <class T> __global__ void add_cells(mg::Join s, const mg::Sums* cells, T* a, T* b) {
    const mg::Sums sums = mg::join<mg::Sums>(s, [&](int i) { return cells[i]; });
    if (!s.mine()) return;
    if (a) a[s.result()] = (T)sums.a;
    if (b) b[s.result()] = (T)sums.b;
}
