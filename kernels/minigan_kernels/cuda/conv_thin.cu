// conv_thin.cu - second half of a convolution that multiplies first and adds up taps afterwards.
//
// z[n, i, t, k] = sum over c of x[n, i, c] w[k, t, c] for every input position i has been computed.
// Here y[n, o, k] = sum over taps t of z[n, input of t at o, t, k]. Positions of y are threads, k
// runs fastest, so that writes are contiguous and the k of a tap are read together.
#include "mg_conv.cuh"

// p has the sizes of the convolution; images image0, image0 + 1, ... of y from those in z.
template <class T>
__global__ void add_taps(const mg::Conv p, const mg::Tap* taps, const mg::Phase* phases,
                         const T* __restrict__ z, T* __restrict__ y, mg::Index image0) {
    const int size = p.OD * p.OH * p.OW * p.K, i = (int)mg::my_index();
    if (i >= size) return;
    int m = i / p.K;
    const int k = i % p.K, ox = m % p.OW;
    m /= p.OW;
    const int oy = m % p.OH, oz = m / p.OH;
    const mg::Phase phase = mg::phase_at(
        p, phases, (oz % p.out_z * p.out_y + oy % p.out_y) * p.out_x + ox % p.out_x);
    mg::Window<T> window;
    window.z = oz / p.out_z * p.in_z, window.y = oy / p.out_y * p.in_y;
    window.x_ = ox / p.out_x * p.in_x;
    window.x = z + (size_t)blockIdx.y * p.D * p.H * p.W * p.weight_taps * p.K + k;
    T sum = 0;
#pragma unroll 4
    for (int t = 0; t < phase.taps; t++) {
        const mg::Tap tap = mg::tap_at(p, taps, phase.first_tap + t);
        if (!window.has(p, tap)) continue;
        const int at = ((window.z + tap.z) * p.H + window.y + tap.y) * p.W + window.x_ + tap.x;
        sum += window.x[(at * p.weight_taps + tap.number) * p.K];
    }
    y[(image0 + blockIdx.y) * size + i] = sum;
}
