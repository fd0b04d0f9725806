// matmul.cu - products of stacks of matrices with any strides.
#include "mg_gemm.cuh"

constexpr int AXES = 4;  // leading axes

struct Matmul {
    mg::Index a_row, a_k, b_k, b_column, c_row, c_column;  // strides
    mg::Index a_lead[AXES], b_lead[AXES];
    int lead[AXES];  // lengths of the leading axes
    int m, n, k;
    int run;         // length of k (blocks or numbers) that a block sums
};

// Which tile of which product of the stack a block computes.
template <int BM, int BN> struct Where {
    int m0, n0;
    mg::Index a, b, c;  // where its operands and its result begin
    __device__ __forceinline__ Where(const Matmul& p) {
        const int down = (p.m + BM - 1) / BM, tiles = down * ((p.n + BN - 1) / BN);
        int product = blockIdx.x / tiles, products = 1;
        const int tile = blockIdx.x - product * tiles;
        m0 = tile % down * BM;
        n0 = tile / down * BN;
        a = m0 * p.a_row;
        b = n0 * p.b_column;
        c = (mg::Index)product * p.m * p.n + m0 * p.c_row + n0 * p.c_column;
#pragma unroll
        for (int axis = AXES - 1; axis >= 0; axis--) {
            const int rest = product / p.lead[axis], at = product - rest * p.lead[axis];
            a += at * p.a_lead[axis];
            b += at * p.b_lead[axis];
            products *= p.lead[axis];
            product = rest;
        }
        c += (mg::Index)blockIdx.y * products * p.m * p.n;  // its part of the sum
    }
};

// Tensor cores. DEEP: along k numbers lie closer together than across it.
template <class S, bool DEEP_A, bool DEEP_B>
__global__ void __launch_bounds__(S::THREADS, S::RESIDENT)
    product_mma(const Matmul p, const float* a, const float* b, float* c) {
    MG_DYN_SMEM(float, shared);
    const Where<S::BM, S::BN> at(p);
    const int m = p.m - at.m0, n = p.n - at.n0;  // what is left from the tile on
    mg::Matrix<S, S::BM, DEEP_A> left(a + at.a, p.a_row, p.a_k, m, p.k);
    mg::Matrix<S, S::BN, DEEP_B> right(b + at.b, p.b_column, p.b_k, n, p.k);
    const int all = (p.k + mg::DEPTH - 1) / mg::DEPTH, begin = blockIdx.y * p.run;
    mg::Sums<S> sums;
    mg::multiply(sums, shared, left, right, begin, min(begin + p.run, all));
    c += at.c;
    mg::store(
        sums, [](int j) { return j; },
        [&](int i, int j, float value) {
            if (i < m && j < n) c[i * p.c_row + j * p.c_column] = value;
        });
}

// Without tensor cores, for any T.
template <class T>
__global__ void __launch_bounds__(mg::PLAIN_THREADS)
    product_plain(const Matmul p, const T* a, const T* b, T* c) {
    MG_DYN_SMEM(T, shared);
    const Where<mg::SIDE, mg::SIDE> at(p);
    const int m = p.m - at.m0, n = p.n - at.n0, mine = threadIdx.x % mg::SIDE;
    a += at.a + mine * p.a_row;
    b += at.b + mine * p.b_column;
    c += at.c;
    const int begin = blockIdx.y * p.run;
    mg::plain_product(
        shared, [&](int k) { return mine < m ? a[k * p.a_k] : T(0); },
        [&](int k) { return mine < n ? b[k * p.b_k] : T(0); }, begin, min(begin + p.run, p.k),
        [&](int i, int j, T value) {
            if (i < m && j < n) c[i * p.c_row + j * p.c_column] = value;
        });
}
