// conv_weight.cu - gradient of a convolution's weight: dw[o, c, tap] = sum of g[pixel, o] x[.., c].
//
// As a matrix product: k counts pixels, m the channels of the `dense` array, which is read pixel by
// pixel, and n = (tap, channel) what the `wide` array holds around them. Either g is dense, x wide:
//     pixel i of g, place i s - p + t d of x;
// or, if the stride is 1, x is dense and g wide, which pays if g has few channels:
//     pixel j of x, place j + p - t d of g.
#include "mg_gemm.cuh"

struct WeightGrad {
    int pixels;              // of the dense array
    int channels[2];         // of the dense and the wide array
    int m, n;                // sizes of the product, for one group
    int part;                // channels of a group of the wide array
    int extent[3];           // of the dense array: depth, height, width
    int wide[3];             // of the wide array
    int stride[3], begin[3]; // pixel i, tap 0: place i stride + begin
    int taps[3], step[3];    // and tap t: t step further
    int run;                 // length of k (blocks, numbers or rows) that a block sums
    int size;                // numbers of dw
    int group_step, m_step, tap_step, channel_step;  // places in dw
};

// A column n: which tap and channel.
struct Column {
    int tap, channel, at[3];  // at: where the tap lies from tap 0
    __device__ __forceinline__ Column(const WeightGrad& p, int n) {
        tap = n / p.part;
        channel = n - tap * p.part;
        at[2] = tap % p.taps[2] * p.step[2];
        at[1] = tap / p.taps[2] % p.taps[1] * p.step[1];
        at[0] = tap / p.taps[2] / p.taps[1] * p.step[0];
    }
};

constexpr int NOWHERE = -(1 << 30);  // a coordinate that no tap brings back inside

// Where tap 0 of a pixel lies in the wide array.
struct Place {
    int pixel, z, y, x;
    __device__ __forceinline__ Place(const WeightGrad& p, int k)
        : pixel(0), z(NOWHERE), y(0), x(0) {
        if (k >= p.pixels) return;
        int rest = k / p.extent[2];
        x = (k - rest * p.extent[2]) * p.stride[2] + p.begin[2];
        const int image_rows = rest / p.extent[1];
        y = (rest - image_rows * p.extent[1]) * p.stride[1] + p.begin[1];
        const int image = image_rows / p.extent[0];
        z = (image_rows - image * p.extent[0]) * p.stride[0] + p.begin[0];
        pixel = ((image * p.wide[0] + z) * p.wide[1] + y) * p.wide[2] + x;
    }
};

__device__ __forceinline__ bool inside(const int (&extent)[3], int z, int y, int x) {
    return ((unsigned)z < (unsigned)extent[0]) & ((unsigned)y < (unsigned)extent[1]) &
           ((unsigned)x < (unsigned)extent[2]);  // & and not &&: a condition, not three branches
}
__device__ __forceinline__ int pixel_step(const WeightGrad& p, const int (&at)[3]) {
    return (at[0] * p.wide[1] + at[1]) * p.wide[2] + at[2];
}
__device__ __forceinline__ int place_in_dw(const WeightGrad& p, int group, int m, int n) {
    const int tap = n / p.part, channel = n - tap * p.part;
    return group * p.group_step + m * p.m_step + tap * p.tap_step + channel * p.channel_step;
}

// Loads columns of the wide array, CHUNK channels of one tap at a time. A thread keeps its column.
template <class S, int CHUNK> struct WideArray {
    typedef mg::Wide<S::BN> Tile;
    static constexpr int CHUNKS = S::BN / CHUNK, SWEEP = S::THREADS / CHUNKS;
    static_assert(S::THREADS % CHUNKS == 0, "a thread keeps its column");
    static_assert(mg::DEPTH % SWEEP == 0, "every thread copies as much");
    const WeightGrad& p;
    const float* data;  // the column's channel, where its tap lies for a pixel 0 without padding
    int4* places;       // of two blocks of pixels: x, y, z, w = pixel, z, y, x
    int at[3], extent[3], channels;
    int copied;         // numbers: 0 for columns that do not exist
    bool whole;

    __device__ __forceinline__ WideArray(const WeightGrad& p, const float* wide, int4* places,
                                         int group, int n)
        : p(p), places(places), channels(p.channels[1]), copied(n < p.n ? CHUNK : 0) {
        const Column column(p, n);
        for (int axis = 0; axis < 3; axis++) {
            at[axis] = column.at[axis];
            extent[axis] = p.wide[axis];
        }
        data = wide + group * p.part + column.channel + (mg::Index)pixel_step(p, at) * channels;
        whole = mg::aligned16(wide);
    }
    // One warp finds the places of a block of pixels, for the loads after the next barrier.
    __device__ __forceinline__ void prepare(int block) {
        if (threadIdx.x / mg::WARP != block % S::WARPS) return;
        const int row = threadIdx.x % mg::WARP;
        const Place place(p, block * mg::DEPTH + row);
        places[block % 2 * mg::DEPTH + row] = {place.pixel, place.z, place.y, place.x};
    }
    __device__ __forceinline__ void load(float* tile, int block) const {
        if (CHUNK == 1 || whole) copy<true>(tile, block);
        else copy<false>(tile, block);
    }
    template <bool WHOLE> __device__ __forceinline__ void copy(float* tile, int block) const {
        constexpr int ROWS = mg::DEPTH / SWEEP, AT_ONCE = ROWS < 4 ? ROWS : 4;
        const int first = threadIdx.x / CHUNKS;
#pragma unroll
        for (int r = 0; r < ROWS; r += AT_ONCE) {
            int4 place[AT_ONCE];
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++)
                place[i] = places[block % 2 * mg::DEPTH + first + (r + i) * SWEEP];
#pragma unroll
            for (int i = 0; i < AT_ONCE; i++) {
                const int z = place[i].y + at[0], y = place[i].z + at[1], x = place[i].w + at[2];
                const int valid = inside(extent, z, y, x) ? copied : 0;
                const int row = first + (r + i) * SWEEP;
                float* to = tile + Tile::at(threadIdx.x % CHUNKS * CHUNK, row);
                const float* from = data + (mg::Index)place[i].x * channels;
                if (CHUNK == 1) mg::cp_async4(to, from, valid > 0);
                else mg::copy4<WHOLE>(to, from, valid, 1);
            }
        }
    }
};

// Tensor cores. Blocks: tiles of the product, parts of k, groups.
template <class S, int CHUNK>
__global__ void __launch_bounds__(S::THREADS, S::RESIDENT)
    weight_mma(const WeightGrad p, const float* dense, const float* wide, float* out) {
    MG_DYN_SMEM(float, shared);
    typedef mg::Matrix<S, S::BM, false> A;
    typedef WideArray<S, CHUNK> B;
    const int tiles = (p.m + S::BM - 1) / S::BM, group = blockIdx.z;
    const int m0 = blockIdx.x % tiles * S::BM, n0 = blockIdx.x / tiles * S::BN;
    int4* places = (int4*)(shared + mg::STAGES * (A::Tile::FLOATS + B::Tile::FLOATS));
    A a(dense + group * p.m + m0, 1, p.channels[0], p.m - m0, p.pixels);
    B b(p, wide, places, group, n0 + threadIdx.x % B::CHUNKS * CHUNK);
    const int all = (p.pixels + mg::DEPTH - 1) / mg::DEPTH, begin = blockIdx.y * p.run;
    mg::Sums<S> sums;
    mg::multiply(sums, shared, a, b, begin, min(begin + p.run, all));
    out += (mg::Index)blockIdx.y * p.size;
    mg::store(
        sums, [&](int n) { return n0 + n < p.n ? place_in_dw(p, group, m0, n0 + n) : -1; },
        [&](int m, int place, float value) {
            if (m0 + m < p.m && place >= 0) out[place + m * p.m_step] = value;
        });
}

// Without tensor cores, for any T.
template <class T>
__global__ void __launch_bounds__(mg::PLAIN_THREADS)
    weight_plain(const WeightGrad p, const T* dense, const T* wide, T* out) {
    MG_DYN_SMEM(T, shared);
    const int tiles = (p.m + mg::SIDE - 1) / mg::SIDE, group = blockIdx.z;
    const int m0 = blockIdx.x % tiles * mg::SIDE, n0 = blockIdx.x / tiles * mg::SIDE;
    const int m = m0 + threadIdx.x % mg::SIDE, n = n0 + threadIdx.x % mg::SIDE;
    const Column column(p, n);
    const int step = pixel_step(p, column.at);
    dense += group * p.m + m;
    wide += group * p.part + column.channel;
    auto a = [&](int k) { return m < p.m ? dense[(mg::Index)k * p.channels[0]] : T(0); };
    auto b = [&](int k) {
        const Place place(p, k);
        const bool ok = n < p.n && inside(p.wide, place.z + column.at[0], place.y + column.at[1],
                                               place.x + column.at[2]);
        return ok ? wide[(mg::Index)(place.pixel + step) * p.channels[1]] : T(0);
    };
    const int begin = blockIdx.y * p.run, end = min(begin + p.run, p.pixels);
    out += (mg::Index)blockIdx.y * p.size;
    mg::plain_product(shared, a, b, begin, end, [&](int i, int j, T value) {
        if (m0 + i < p.m && n0 + j < p.n) out[place_in_dw(p, group, m0 + i, n0 + j)] = value;
    });
}

// Small groups (depthwise convolution): a thread sums one number of dw over `run` rows of g, the
// dense array. Lanes hold neighbouring channels of g, so each reads next to the other.
template <class T>
__global__ void weight_small_groups(const WeightGrad p, const T* g, const T* x, T* out) {
    const int at = blockIdx.x * blockDim.x + threadIdx.x, outputs = p.channels[0];
    if (at >= p.size) return;
    const int o = at % outputs, n = at / outputs, group = o / p.m, width = p.extent[2];
    const Column column(p, n);
    const int move = p.stride[2], from = p.begin[2] + column.at[2];
    // The pixels i of a row with 0 <= i move + from < width of x.
    const int first = from < 0 ? (move - 1 - from) / move : 0;
    const int last = min(width, (p.wide[2] - from + move - 1) / move);
    const int rows = p.pixels / (width ? width : 1), begin = blockIdx.y * p.run;
    g += o;
    x += group * p.part + column.channel;
    T sum = 0;
    for (int row = begin; row < min(begin + p.run, rows); row++) {
        const Place place(p, row * width);
        const int z = place.z + column.at[0], y = place.y + column.at[1];
        if ((unsigned)z >= (unsigned)p.wide[0] || (unsigned)y >= (unsigned)p.wide[1]) continue;
        const T* a = g + (mg::Index)row * width * outputs;
        const T* b = x + (mg::Index)(place.pixel + pixel_step(p, column.at)) * p.channels[1];
#pragma unroll 4
        for (int i = first; i < last; i++)
            sum += a[(mg::Index)i * outputs] * b[(mg::Index)i * move * p.channels[1]];
    }
    out[(mg::Index)blockIdx.y * p.size + place_in_dw(p, group, o - group * p.m, n)] = sum;
}
