// loss.cu - sums of losses and their gradients: x and the target are read once, no loss is stored.
//
// A sum has a fixed order: a thread adds its numbers, a block its threads, and a second kernel the
// blocks. How many blocks there are depends on the number of elements alone. The sums are float64.
#include "mg_math.cuh"

constexpr int THREADS = 256;
constexpr int PACKS = 4;  // 16-byte reads of each array that a thread has on the way

// The losses of x for a target y and a sign s, and their slopes.
#define LOSS(Name, loss, derivative)                                                           \
    struct Name {                                                                             \
        template <class T> static __device__ __forceinline__ T of(T x, T y, T s) {            \
            return loss;                                                                      \
        }                                                                                     \
        template <class T> static __device__ __forceinline__ T slope(T x, T y, T s) {         \
            return derivative;                                                                \
        }                                                                                     \
    };

template <class T> __device__ __forceinline__ T signum(T d) {  // NaN stays
    return d > 0 ? T(1) : d < 0 ? T(-1) : d;
}

LOSS(Mse, (x - y) * (x - y), 2 * (x - y))
LOSS(L1, mg::abs(x - y), signum(x - y))
LOSS(Bce, mg::softplus(x) - x * y, mg::sigmoid(x) - y)
LOSS(Hinge, mg::larger(1 - s * x, T(0)), 1 - s * x > 0 ? -s : T(0))
LOSS(Softplus, mg::softplus(-s * x), -s * mg::sigmoid(-s * x))

// Sixteen bytes of an array, or of a row of equal numbers if there is none.
template <class T>
__device__ __forceinline__ mg::Pack<T> pack_of(const T* x, mg::Index i, T number) {
    if (x) return *(const mg::Pack<T>*)(x + i);
    mg::Pack<T> equal;
#pragma unroll
    for (int k = 0; k < mg::Pack<T>::SIZE; k++) equal.v[k] = number;
    return equal;
}

// sums[block] = the losses of this block; the target is an array or, if null, the number y.
template <class T, class Loss>
__global__ void __launch_bounds__(THREADS)
loss_sum(const T* x, const T* target, double* sums, mg::Index n, double number, double sign) {
    constexpr int SIZE = mg::Pack<T>::SIZE;
    MG_DYN_SMEM(double, work);  // THREADS / 32
    const T y = (T)number, s = (T)sign;
    const bool together = mg::aligned16(x) && mg::aligned16(target);
    const mg::Index packs = together ? n / SIZE : 0, all = (mg::Index)gridDim.x * THREADS;
    double sum = 0;
    for (mg::Index i = mg::my_index(); i < packs; i += PACKS * all) {
        mg::Pack<T> p[PACKS], q[PACKS];
#pragma unroll
        for (int k = 0; k < PACKS; k++)
            if (i + k * all < packs) {
                p[k] = pack_of(x, (i + k * all) * SIZE, T(0));
                q[k] = pack_of(target, (i + k * all) * SIZE, y);
            }
#pragma unroll
        for (int k = 0; k < PACKS; k++)
            if (i + k * all < packs) {
                T part = 0;
#pragma unroll
                for (int j = 0; j < SIZE; j++) part += Loss::of(p[k].v[j], q[k].v[j], s);
                sum += part;
            }
    }
    for (mg::Index i = packs * SIZE + mg::my_index(); i < n; i += all)
        sum += Loss::of(x[i], target ? target[i] : y, s);
    sum = mg::block_sum(sum, work);
    if (threadIdx.x == 0) sums[blockIdx.x] = sum;
}

// One block: the sum of the blocks' sums.
__global__ void __launch_bounds__(THREADS) add_up(const double* sums, double* total, int count) {
    MG_DYN_SMEM(double, work);  // THREADS / 32
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += sums[i];
    sum = mg::block_sum(sum, work);
    if (threadIdx.x == 0) *total = sum;
}

// dx = factor * slope; `weight`, if there is one, is a further factor in device memory.
template <class T, class Loss>
__global__ void __launch_bounds__(THREADS)
loss_gradient(const T* x, const T* target, T* dx, mg::Index n, double number, double sign,
              double factor, const T* weight) {
    constexpr int SIZE = mg::Pack<T>::SIZE;
    const T y = (T)number, s = (T)sign, by = (T)(weight ? factor * *weight : factor);
    const mg::Index i = mg::my_index() * SIZE;
    if (i >= n) return;
    if (i + SIZE <= n && mg::aligned16(x) && mg::aligned16(target) && mg::aligned16(dx)) {
        mg::Pack<T> p = pack_of(x, i, T(0));
        const mg::Pack<T> q = pack_of(target, i, y);
#pragma unroll
        for (int k = 0; k < SIZE; k++) p.v[k] = by * Loss::slope(p.v[k], q.v[k], s);
        *(mg::Pack<T>*)(dx + i) = p;
    } else {
        for (mg::Index j = i; j < n && j < i + SIZE; j++)
            dx[j] = by * Loss::slope(x[j], target ? target[j] : y, s);
    }
}
