// bias.cu - y = act(x + bias + noise_strength noise) gain, and its gradients from y.
#include "mg_planes.cuh"

enum { BENT, TANH, SIGMOID };  // BENT: z high where z > 0, else z low

// A plane (p, q) has one channel: the number of the plane modulo `channels`. Noise has a number for
// each place of R, and `noise_step` lies between those of two samples (0: all have the same).
struct Bias {
    mg::Planes planes;
    int channels, kind, noise_step, by_channel;

    // Noise at V numbers of a walk.
    template <class T, int V>
    __device__ __forceinline__ mg::Vector<T, V> noise_at(const T* noise, const mg::Walk<V>& walk,
                                                         int j, bool whole) const {
        const int r = walk.r + j * walk.r_step;
        if (planes.along)
            return mg::load<V>(noise + (mg::Index)(walk.p / channels) * noise_step + r, whole);
        const T same = noise[(mg::Index)walk.p * noise_step + r];
        mg::Vector<T, V> all;
#pragma unroll
        for (int k = 0; k < V; k++) all.v[k] = same;
        return all;
    }
};

template <class T> __device__ __forceinline__ T activated(T z, int kind, T low, T high) {
    if (kind == BENT) return z <= 0 ? (low == 0 ? T(0) : z * low) : z * high;  // relu(-inf) is 0
    return (kind == TANH ? mg::tanh(z) : mg::sigmoid(z)) * high;
}

// y may be x; bias may be null, and so may noise with its strength.
template <class T, int V, bool SMOOTH>
__global__ void __launch_bounds__(mg::PLANE_THREADS)
bias_act(Bias s, const T* x, const T* bias, const T* noise, const T* strength, T* y, double low,
         double high) {
    const mg::Walk<V> walk(s.planes);
    const bool whole = mg::aligned16(x) && mg::aligned16(y), whole_noise = mg::aligned16(noise);
    const int kind = SMOOTH ? s.kind : (int)BENT;
    T add[V], grain[V];
    if (!walk.count) return;
#pragma unroll
    for (int k = 0; k < V; k++) {
        const int channel = (walk.plane + k * walk.next) % s.channels;
        add[k] = bias ? bias[channel] : T(0);
        grain[k] = noise ? strength[s.by_channel ? channel : 0] : T(0);
    }
    mg::Batch<T, V> z, noises;
    for (int j = 0; j < walk.count; j += mg::AHEAD) {
        z.read(x + walk.at, walk, j, whole);
        if (noise)
#pragma unroll
            for (int u = 0; u < mg::AHEAD; u++)
                if (j + u < walk.count)
                    noises.v[u] = s.noise_at<T, V>(noise, walk, j + u, whole_noise);
#pragma unroll
        for (int u = 0; u < mg::AHEAD; u++)
#pragma unroll
            for (int k = 0; k < V; k++) {
                T v = z.v[u].v[k] + add[k];
                if (noise) v += grain[k] * noises.v[u].v[k];
                z.v[u].v[k] = activated(v, kind, (T)low, (T)high);
            }
        z.write(y + walk.at, walk, j, whole);
    }
}

// The derivative by z, from y = act(z) gain; a gain below 0 turns the sign of y.
template <class T> __device__ __forceinline__ T slope_at(T y, int kind, T low, T high, T gain) {
    if (kind == BENT) return (gain < 0 ? y < 0 : y > 0) ? high : low;
    const T u = y / gain;
    return (kind == TANH ? 1 - u * u : u * (1 - u)) * gain;
}

// dx = g act' gain, and sums of dx and dx noise; dx, noise and cells may be null.
template <class T, int V>
__global__ void __launch_bounds__(mg::PLANE_THREADS)
bias_act_backward(Bias s, const T* g, const T* y, const T* noise, T* dx, mg::Sums* cells,
                  double low, double high, double gain) {
    MG_DYN_SMEM(mg::Sums, work);
    const mg::Walk<V> walk(s.planes);
    const bool whole = mg::aligned16(g) && mg::aligned16(y) && mg::aligned16(dx);
    const bool whole_noise = mg::aligned16(noise);
    mg::Adder<T, V> adder;
    mg::Batch<T, V> gs, ys, noises;
    for (int j = 0; j < walk.count; j += mg::AHEAD) {
        gs.read(g + walk.at, walk, j, whole);
        ys.read(y + walk.at, walk, j, whole);
#pragma unroll
        for (int u = 0; u < mg::AHEAD; u++) {
            if (j + u >= walk.count) continue;
            if (noise) noises.v[u] = s.noise_at<T, V>(noise, walk, j + u, whole_noise);
#pragma unroll
            for (int k = 0; k < V; k++) {
                const T slope = slope_at(ys.v[u].v[k], s.kind, (T)low, (T)high, (T)gain);
                const T d = gs.v[u].v[k] * slope;
                gs.v[u].v[k] = d;
                adder.a[k] += d;
                if (noise) adder.b[k] += d * noises.v[u].v[k];
            }
        }
        if (dx) gs.write(dx + walk.at, walk, j, whole);
        adder.close_group(j, mg::AHEAD);
    }
    if (!cells) return;
    adder.close_group();
    mg::merge<V>(s.planes, adder.sums, work);
    for (int i = threadIdx.x; i < s.planes.in_block<V>(); i += mg::PLANE_THREADS) {
        const int plane = s.planes.plane<V>(i);
        if (plane < 0) continue;
        cells[s.planes.cell(plane, s.planes.chunk())] = mg::merged(s.planes, work, i);
    }
}
