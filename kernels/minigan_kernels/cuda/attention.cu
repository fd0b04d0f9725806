// attention.cu - attention in tiles: the (L,S) scores never exist in memory.
//
//     y_i = sum_j p_ij v_j,   p_i = softmax over j of s_ij,   s_ij = scale q_i . k_j + bias_ij
//
// The softmax is taken on the way: the sum and the result so far fade when a larger score comes up,
// so each key is seen once. Multiply-adds bound it.
#include "mg_attention.cuh"

template <class T, int R, int C>
__global__ void __launch_bounds__(THREADS, sizeof(T) == 4 && C < 8 ? 2 : 1)
attention(const T* query, const T* key, const T* value, const T* bias, T* result, Shape shape) {
    MG_DYN_SMEM(T, weights);  // (16 R, COLUMNS), then what is staged
    T* const work = weights + SIDE * R * WEIGHTS;
    const Place here(shape, shape.queries, SIDE * R, shape.causal);
    const Matrix<const T> q(query, shape.q, here.batch, here.head);
    const Matrix<const T> k(key, shape.k, here.batch, here.head);
    const Matrix<const T> v(value, shape.v, here.batch, here.head);
    const Scores<T> score(bias, shape, here.batch, here.head);
    const int y = threadIdx.x / SIDE, x = threadIdx.x % SIDE, from = blockIdx.y * SIDE * C;
    const int end = shape.causal ? min(shape.keys, here.first + SIDE * R) : shape.keys;
    T sum[R][C] = {}, total[R] = {};
    Running<T> running[R];
    for (int first = 0; first < end; first += COLUMNS) {
        T s[R][4] = {};
        products<R>(s, q, here.first, shape.queries, k, first, shape.keys, shape.depth, work);
#pragma unroll
        for (int r = 0; r < R; r++) {
#pragma unroll
            for (int j = 0; j < 4; j++)
                s[r][j] = score(s[r][j], here.first + SIDE * r + y, first + SIDE * j + x);
            const T fade = running[r].raise(s[r]);
            total[r] *= fade;
#pragma unroll
            for (int c = 0; c < C; c++) sum[r][c] *= fade;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                total[r] += s[r][j];
                weights[(SIDE * r + y) * WEIGHTS + SIDE * j + x] = s[r][j];
            }
        }
        weigh<R, C>(sum, weights, v, first, shape.keys, from, shape.width, work);
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
        const T all = row_sum(total[r]), share = 1 / (all == 0 ? T(1) : all);
#pragma unroll
        for (int c = 0; c < C; c++) sum[r][c] *= share;
    }
    const Matrix<T> out(result, shape.y, here.batch, here.head);
    put(sum, out, here.first, shape.queries, from, shape.width);
}
