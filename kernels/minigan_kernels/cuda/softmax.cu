// softmax.cu - softmax, its logarithm and cross entropy: rows of numbers along one axis.
//
//     y = e^(x - m) / sum e^(x - m)          m = max x: nothing overflows
//     log y = x - m - log sum e^(x - m)
//     loss = -sum q log y                    q: 1 - s at the label, and s / C everywhere
//
// A row belongs to a team of threads that visits it three times: for the maximum, for the sum and
// to write. Only the first visit comes from memory, so bytes bound these kernels: each number is
// read and written once. Sums are float64.
#include "mg_extremes.cuh"
#include "mg_math.cuh"

constexpr int THREADS = 256;
constexpr int UNROLL = 4;  // numbers that a thread has on the way

enum Kind { LANES, BLOCK, COLUMNS };

struct Plan {
    int rows, length, inner;  // row r begins at r / inner * length * inner + r % inner, step inner
    int kind;                 // of teams: lanes of a warp, a block, or every THREADS/size-th thread
    int size;                 // threads of a team, a power of two
};

struct Sum {
    static __device__ __forceinline__ double of(double a, double b) { return a + b; }
};
struct Max {
    static __device__ __forceinline__ double of(double a, double b) { return mg::larger(a, b); }
};

// The threads that serve a row, and which row. All threads of a block take part in `all`.
struct Team {
    const Plan& plan;
    double* work;  // shared memory, one number for each thread
    int rank, row;
    bool valid;

    __device__ Team(const Plan& p, double* w) : plan(p), work(w) {
        const int t = threadIdx.x, teams = THREADS / p.size;
        rank = p.kind == COLUMNS ? t / teams : t % p.size;
        row = blockIdx.x * teams + (p.kind == COLUMNS ? t % teams : t / p.size);
        valid = row < p.rows;
    }
    __device__ mg::Index first() const {  // where the row begins
        return (mg::Index)(row / plan.inner) * plan.length * plan.inner + row % plan.inner;
    }
    // What each thread of the team brings, taken together in a fixed order.
    template <class Op> __device__ __forceinline__ double all(double v) {
        if (plan.kind == COLUMNS) {
            const int teams = THREADS / plan.size, mine = threadIdx.x % teams;
            __syncthreads();  // work may still be read
            work[threadIdx.x] = v;
            __syncthreads();
            v = work[mine];
            for (int i = 1; i < plan.size; i++) v = Op::of(v, work[i * teams + mine]);
            return v;
        }
        const int lanes = plan.size < mg::WARP ? plan.size : mg::WARP;
        for (int flip = lanes / 2; flip; flip >>= 1)
            v = Op::of(v, __shfl_xor_sync(mg::ALL, v, flip));
        if (plan.kind == LANES) return v;
        __syncthreads();
        if (threadIdx.x % mg::WARP == 0) work[threadIdx.x / mg::WARP] = v;
        __syncthreads();
        v = work[0];
        for (int i = 1; i < THREADS / mg::WARP; i++) v = Op::of(v, work[i]);
        return v;
    }
    // body(i, where in the row number i lies) for this thread's numbers.
    template <class Body> __device__ __forceinline__ void each(const Body& body) const {
        if (!valid) return;
        const mg::Index step = plan.inner;
#pragma unroll UNROLL
        for (int i = rank; i < plan.length; i += plan.size) body(i, i * step);
    }
};

// The maximum that powers are shifted by, and their sum.
template <class T> struct Powers {
    T top, shift;
    double sum;

    __device__ Powers(Team& team, const T* x) {
        T most = -mg::infinity<T>();
        team.each([&](int, mg::Index at) { most = mg::larger(most, x[at]); });
        top = (T)team.all<Max>(most);
        shift = top == -mg::infinity<T>() ? T(0) : top;  // a row of -infinity has the powers 0
        double mine = 0;
        team.each([&](int, mg::Index at) { mine += mg::exp(x[at] - shift); });
        sum = team.all<Sum>(mine);
    }
    __device__ T inverse() const { return (T)(1 / (sum == 0 ? 1.0 : sum)); }
};

template <class T>
__global__ void __launch_bounds__(THREADS, 1)
softmax(const T* __restrict__ x, T* __restrict__ y, Plan plan, bool log) {
    MG_DYN_SMEM(double, work);  // THREADS
    Team team(plan, work);
    x += team.valid ? team.first() : 0;
    y += team.valid ? team.first() : 0;
    const Powers<T> powers(team, x);
    if (log) {
        const T less = (T)mg::log(powers.sum);
        team.each([&](int, mg::Index at) { y[at] = x[at] - powers.top - less; });
    } else {
        const T share = powers.inverse();
        team.each([&](int, mg::Index at) { y[at] = mg::exp(x[at] - powers.shift) * share; });
    }
}

// dx = y (g - sum g y), or of the logarithm: dx = g - e^y sum g.
template <class T>
__global__ void __launch_bounds__(THREADS, 1)
softmax_gradient(const T* __restrict__ g, const T* __restrict__ y, T* __restrict__ dx, Plan plan,
                 bool log) {
    MG_DYN_SMEM(double, work);  // THREADS
    Team team(plan, work);
    const mg::Index first = team.valid ? team.first() : 0;
    g += first, y += first, dx += first;
    double mine = 0;
    team.each([&](int, mg::Index at) { mine += log ? (double)g[at] : (double)g[at] * y[at]; });
    const T sum = (T)team.all<Sum>(mine);
    if (log)
        team.each([&](int, mg::Index at) { dx[at] = g[at] - mg::exp(y[at]) * sum; });
    else
        team.each([&](int, mg::Index at) { dx[at] = y[at] * (g[at] - sum); });
}

// A label that is no class makes its row NaN instead of reading elsewhere.
__device__ __forceinline__ bool is_class(mg::Index label, const Plan& plan) {
    return label >= 0 && label < plan.length;
}

template <class T>
__global__ void __launch_bounds__(THREADS, 1)
cross_entropy(const T* x, const mg::Index* labels, T* loss, Plan plan, mg::Index ignored,
              double smoothing) {
    MG_DYN_SMEM(double, work);  // THREADS
    Team team(plan, work);
    x += team.valid ? team.first() : 0;
    const Powers<T> powers(team, x);
    double mine = 0;
    if (smoothing != 0) team.each([&](int, mg::Index at) { mine += x[at]; });
    const double mean = smoothing != 0 ? team.all<Sum>(mine) / plan.length : 0;
    if (!team.valid || team.rank != 0) return;
    const mg::Index label = labels[team.row];
    double found = 0;
    if (label != ignored) {
        const double at = is_class(label, plan) ? x[label * plan.inner] : mg::not_a_number<T>();
        double picked = (1 - smoothing) * (at - powers.top);
        if (smoothing != 0) picked += smoothing * (mean - powers.top);
        found = mg::log(powers.sum) - picked;
    }
    loss[team.row] = (T)found;
}

// dx = g (softmax(x) - q)
template <class T>
__global__ void __launch_bounds__(THREADS, 1)
cross_entropy_gradient(const T* g, const T* __restrict__ x, const mg::Index* labels,
                       T* __restrict__ dx, Plan plan, mg::Index ignored, double smoothing) {
    MG_DYN_SMEM(double, work);  // THREADS
    Team team(plan, work);
    const mg::Index first = team.valid ? team.first() : 0;
    x += first, dx += first;
    const mg::Index label = team.valid ? labels[team.row] : ignored;
    const Powers<T> powers(team, x);
    if (label == ignored) {
        team.each([&](int, mg::Index at) { dx[at] = 0; });
        return;
    }
    const T weight = is_class(label, plan) ? g[team.row] : mg::not_a_number<T>();
    const T share = powers.inverse();
    const T less = (T)(smoothing / plan.length), picked = (T)(1 - smoothing);
    team.each([&](int i, mg::Index at) {
        const T p = mg::exp(x[at] - powers.shift) * share;
        dx[at] = weight * (i == label ? p - less - picked : p - less);
    });
}
