// optim.cu - update rules of optimizers: one launch changes all arrays of a call.
//
// A block serves a chunk of one array: 16 KiB of the parameter and of what belongs to it. Nothing
// is read twice, so the bytes bound it; a thread moves sixteen of each array at a time.
#include "mg_math.cuh"

constexpr int THREADS = 256;
constexpr int CHUNK = THREADS * 4 * 16;  // bytes of each array
constexpr int MEMORY = 3;                // arrays that a rule may remember beside p

struct Row {  // of the table of arrays
    mg::Index size;
    void *p, *g, *memory[MEMORY];  // null: not there
};
struct Chunk { int row, number; };
struct Options { double v[9]; };

// W numbers that are read and written together.
template <class T, int W> struct __align__(W * sizeof(T)) Few { T v[W]; };

// The rules: new values of p and of the memory m, where given; o are the options.

template <class T> struct Sgd {
    T lr, keep, take, straight, along, decay;
    __device__ explicit Sgd(const double* o)
        : lr(o[0]), keep(o[1]), take(o[2]), straight(o[3]), along(o[4]), decay(o[5]) {}
    __device__ void operator()(T& p, T g, T (&m)[MEMORY], const bool (&given)[MEMORY]) const {
        T d = g + decay * p;
        if (given[0]) {
            m[0] = (keep == 0 ? T(0) : keep * m[0]) + take * d;  // at first m may be anything
            d = straight != 0 ? straight * d + along * m[0] : along * m[0];
        }
        p -= lr * d;
    }
};

template <class T> struct Adam {  // m: mean, mean square, the largest mean square
    T size, root, beta1, take1, beta2, take2, eps, shrink, decay;
    __device__ explicit Adam(const double* o)
        : size(o[0]), root(o[1]), beta1(o[2]), take1(o[3]), beta2(o[4]), take2(o[5]), eps(o[6]),
          shrink(o[7]), decay(o[8]) {}
    __device__ void operator()(T& p, T g, T (&m)[MEMORY], const bool (&given)[MEMORY]) const {
        const T w = shrink * p, d = g + decay * w;
        m[0] = beta1 * m[0] + take1 * d;
        m[1] = beta2 * m[1] + take2 * (d * d);
        if (given[2]) m[2] = mg::larger(m[2], m[1]);
        p = w - size * m[0] / (root * mg::sqrt(given[2] ? m[2] : m[1]) + eps);
    }
};

template <class T> struct Adamax {  // m: mean, largest magnitude
    T size, beta1, take1, beta2, eps, decay;
    __device__ explicit Adamax(const double* o)
        : size(o[0]), beta1(o[1]), take1(o[2]), beta2(o[3]), eps(o[4]), decay(o[5]) {}
    __device__ void operator()(T& p, T g, T (&m)[MEMORY], const bool (&)[MEMORY]) const {
        const T d = g + decay * p;
        m[0] = beta1 * m[0] + take1 * d;
        m[1] = mg::larger(beta2 * m[1], mg::abs(d) + eps);
        p -= size * m[0] / m[1];
    }
};

template <class T> struct Rmsprop {  // m: mean square, mean, buffer of momentum
    T lr, alpha, take, eps, momentum, decay;
    __device__ explicit Rmsprop(const double* o)
        : lr(o[0]), alpha(o[1]), take(o[2]), eps(o[3]), momentum(o[4]), decay(o[5]) {}
    __device__ void operator()(T& p, T g, T (&m)[MEMORY], const bool (&given)[MEMORY]) const {
        T d = g + decay * p;
        m[0] = alpha * m[0] + take * (d * d);
        T spread = m[0];
        if (given[1]) {
            m[1] = alpha * m[1] + take * d;
            spread = mg::larger(spread - m[1] * m[1], T(0));  // rounding can go below 0
        }
        d = d / (mg::sqrt(spread) + eps);
        if (given[2]) d = m[2] = momentum * m[2] + d;
        p -= lr * d;
    }
};

template <class T> struct Adagrad {  // m: sum of squares
    T size, eps, decay;
    __device__ explicit Adagrad(const double* o) : size(o[0]), eps(o[1]), decay(o[2]) {}
    __device__ void operator()(T& p, T g, T (&m)[MEMORY], const bool (&)[MEMORY]) const {
        const T d = g + decay * p;
        m[0] += d * d;
        p -= size * d / (mg::sqrt(m[0]) + eps);
    }
};

template <class T> struct Adadelta {  // m: mean square of gradients, of changes
    T lr, rho, take, eps, decay;
    __device__ explicit Adadelta(const double* o)
        : lr(o[0]), rho(o[1]), take(o[2]), eps(o[3]), decay(o[4]) {}
    __device__ void operator()(T& p, T g, T (&m)[MEMORY], const bool (&)[MEMORY]) const {
        T d = g + decay * p;
        m[0] = rho * m[0] + take * (d * d);
        d *= mg::sqrt(m[1] + eps) / mg::sqrt(m[0] + eps);
        m[1] = rho * m[1] + take * (d * d);
        p -= lr * d;
    }
};

template <class T> struct Lerp {  // the target stands where a gradient would
    T weight;
    __device__ explicit Lerp(const double* o) : weight(o[0]) {}
    __device__ void operator()(T& p, T target, T (&)[MEMORY], const bool (&)[MEMORY]) const {
        p += weight * (target - p);
    }
};

// The numbers first .. last - 1 of a row by all threads of a block, W together.
template <int W, class T, class Rule>
__device__ __forceinline__ void run(const Row& row, const Rule& rule, mg::Index first,
                                    mg::Index last) {
    typedef Few<T, W> Numbers;
    const bool given[MEMORY] = {row.memory[0] != nullptr, row.memory[1] != nullptr,
                                row.memory[2] != nullptr};
    for (mg::Index i = first + threadIdx.x * W; i < last; i += THREADS * W) {
        Numbers p = *(const Numbers*)((const T*)row.p + i), m[MEMORY];
        const Numbers g = *(const Numbers*)((const T*)row.g + i);
#pragma unroll
        for (int k = 0; k < MEMORY; k++)
            if (given[k]) m[k] = *(const Numbers*)((const T*)row.memory[k] + i);
#pragma unroll
        for (int j = 0; j < W; j++) {
            T mine[MEMORY] = {m[0].v[j], m[1].v[j], m[2].v[j]};
            rule(p.v[j], g.v[j], mine, given);
#pragma unroll
            for (int k = 0; k < MEMORY; k++) m[k].v[j] = mine[k];
        }
        *(Numbers*)((T*)row.p + i) = p;
#pragma unroll
        for (int k = 0; k < MEMORY; k++)
            if (given[k]) *(Numbers*)((T*)row.memory[k] + i) = m[k];
    }
}

template <class T, template <class> class Rule>
__global__ void __launch_bounds__(THREADS)
update(const Row* rows, const Chunk* chunks, const double* options, const double* gate) {
    constexpr int LENGTH = CHUNK / sizeof(T), SIZE = mg::Pack<T>::SIZE;
    if (gate && !mg::is_finite(*gate)) return;  // of all blocks alike
    const Chunk chunk = chunks[blockIdx.x];
    const Row row = rows[chunk.row];
    const Rule<T> rule(options);
    const mg::Index first = (mg::Index)chunk.number * LENGTH;
    const mg::Index last = first + LENGTH < row.size ? first + LENGTH : row.size;
    bool together = mg::aligned16(row.p) && mg::aligned16(row.g);
    for (int k = 0; k < MEMORY; k++) together &= mg::aligned16(row.memory[k]);
    const mg::Index whole = together ? last - (last - first) % SIZE : first;
    run<SIZE, T>(row, rule, first, whole);
    run<1, T>(row, rule, whole, last);
}

// parts[block] = the sum of p^2 over its chunk. A thread adds its numbers in float64.
template <class T>
__global__ void __launch_bounds__(THREADS)
squares(const Row* rows, const Chunk* chunks, double* parts) {
    constexpr int LENGTH = CHUNK / sizeof(T), SIZE = mg::Pack<T>::SIZE;
    MG_DYN_SMEM(double, work);  // THREADS / 32
    const Chunk chunk = chunks[blockIdx.x];
    const Row row = rows[chunk.row];
    const mg::Index first = (mg::Index)chunk.number * LENGTH;
    const mg::Index last = first + LENGTH < row.size ? first + LENGTH : row.size;
    const mg::Index whole = mg::aligned16(row.p) ? last - (last - first) % SIZE : first;
    const T* x = (const T*)row.p;
    double sum = 0;
    for (mg::Index i = first + threadIdx.x * SIZE; i < whole; i += THREADS * SIZE) {
        const mg::Pack<T> pack = *(const mg::Pack<T>*)(x + i);
#pragma unroll
        for (int j = 0; j < SIZE; j++) sum += (double)pack.v[j] * pack.v[j];
    }
    for (mg::Index i = whole + threadIdx.x; i < last; i += THREADS) sum += (double)x[i] * x[i];
    sum = mg::block_sum(sum, work);
    if (threadIdx.x == 0) parts[blockIdx.x] = sum;
}

// One block: the sum of the blocks' sums, added to `total` unless that is the first.
__global__ void __launch_bounds__(THREADS)
add_parts(const double* parts, double* total, int count, int first) {
    MG_DYN_SMEM(double, work);  // THREADS / 32
    double sum = 0;
    for (int i = threadIdx.x; i < count; i += THREADS) sum += parts[i];
    sum = mg::block_sum(sum, work);
    if (threadIdx.x == 0) *total = first ? sum : *total + sum;
}

__global__ void set_options(double* to, Options values) {
#pragma unroll
    for (int i = 0; i < 9; i++) to[i] = values.v[i];
}
