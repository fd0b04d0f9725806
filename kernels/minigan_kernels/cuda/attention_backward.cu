// attention_backward.cu - the gradients of attention, in tiles.
//
// The scores are made again: by rows of queries for dquery, by rows of keys for dkey and dvalue. So
// every sum stays in one thread and has a fixed order. Multiply-adds bound it.
#include "mg_attention.cuh"

// What the backward pass knows of query i: p_ij = e^(s_ij - shift) share,  delta = sum_j p_ij dp_ij.
template <class T> struct Known { T shift, share, delta; };

// Makes `known`, and dq = scale ds k,  ds = p (dp - delta),  dp = g v^T, unless it is null.
template <class T>
__global__ void __launch_bounds__(THREADS, sizeof(T) == 4 ? 2 : 1)
query_gradient(const T* gradient, const T* query, const T* key, const T* value, const T* bias,
               Known<T>* known, T* dquery, Shape shape) {
    constexpr int R = 4;
    MG_DYN_SMEM(T, weights);
    T* const work = weights + SIDE * R * WEIGHTS;
    const Place here(shape, shape.queries, SIDE * R, shape.causal);
    const Matrix<const T> g(gradient, shape.g, here.batch, here.head);
    const Matrix<const T> q(query, shape.q, here.batch, here.head);
    const Matrix<const T> k(key, shape.k, here.batch, here.head);
    const Matrix<const T> v(value, shape.v, here.batch, here.head);
    const Scores<T> score(bias, shape, here.batch, here.head);
    const int y = threadIdx.x / SIDE, x = threadIdx.x % SIDE, from = blockIdx.y * COLUMNS;
    const int end = shape.causal ? min(shape.keys, here.first + SIDE * R) : shape.keys;
    T total[R] = {}, delta[R] = {}, shift[R], share[R];
    Running<T> running[R];
    for (int first = 0; first < end; first += COLUMNS) {
        T s[R][4] = {}, dp[R][4] = {};
        products<R>(s, q, here.first, shape.queries, k, first, shape.keys, shape.depth, work);
        products<R>(dp, g, here.first, shape.queries, v, first, shape.keys, shape.width, work);
#pragma unroll
        for (int r = 0; r < R; r++) {
#pragma unroll
            for (int j = 0; j < 4; j++)
                s[r][j] = score(s[r][j], here.first + SIDE * r + y, first + SIDE * j + x);
            const T fade = running[r].raise(s[r]);
            total[r] *= fade;
            delta[r] *= fade;
#pragma unroll
            for (int j = 0; j < 4; j++) {
                total[r] += s[r][j];
                delta[r] += s[r][j] * dp[r][j];
            }
        }
    }
#pragma unroll
    for (int r = 0; r < R; r++) {
        const T all = row_sum(total[r]);
        const int row = here.first + SIDE * r + y;
        shift[r] = running[r].shift();
        share[r] = 1 / (all == 0 ? T(1) : all);
        delta[r] = row_sum(delta[r]) * share[r];
        if (blockIdx.y == 0 && x == 0 && row < shape.queries) {
            const mg::Index stack = (mg::Index)here.batch * shape.heads + here.head;
            known[stack * shape.queries + row] = {shift[r], share[r], delta[r]};
        }
    }
    if (!dquery) return;
    T sum[R][4] = {};
    for (int first = 0; first < end; first += COLUMNS) {
        T s[R][4] = {}, dp[R][4] = {};
        products<R>(s, q, here.first, shape.queries, k, first, shape.keys, shape.depth, work);
        products<R>(dp, g, here.first, shape.queries, v, first, shape.keys, shape.width, work);
#pragma unroll
        for (int r = 0; r < R; r++)
#pragma unroll
            for (int j = 0; j < 4; j++) {
                const int row = here.first + SIDE * r + y, column = first + SIDE * j + x;
                const T p = mg::exp(score(s[r][j], row, column) - shift[r]) * share[r];
                const T ds = p * (dp[r][j] - delta[r]);
                weights[(SIDE * r + y) * WEIGHTS + SIDE * j + x] = score.scale * ds;
            }
        weigh<R, 4>(sum, weights, k, first, shape.keys, from, shape.depth, work);
    }
    const Matrix<T> out(dquery, shape.dq, here.batch, here.head);
    put(sum, out, here.first, shape.queries, from, shape.depth);
}

// p and ds of the pairs of 64 keys (rows) and 64 queries (columns).
template <class T>
__device__ __forceinline__ void pairs(T (&p)[4][4], T (&ds)[4][4], const Matrix<const T>& g,
                                      const Matrix<const T>& q, const Matrix<const T>& k,
                                      const Matrix<const T>& v, const Scores<T>& score,
                                      const Known<T>* known, int keys, int queries, T* work) {
    const Shape& shape = score.shape;
    const int y = threadIdx.x / SIDE, x = threadIdx.x % SIDE;
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int j = 0; j < 4; j++) p[r][j] = ds[r][j] = 0;
    products<4>(p, k, keys, shape.keys, q, queries, shape.queries, shape.depth, work);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const int query = queries + SIDE * j + x;
        const Known<T> of = query < shape.queries ? known[query] : Known<T>{0, 0, 0};
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const int key = keys + SIDE * r + y;
            const T e = mg::exp(score(p[r][j], query, key) - of.shift) * of.share;
            p[r][j] = score.inside(query, key) ? e : T(0);
        }
    }
    products<4>(ds, v, keys, shape.keys, g, queries, shape.queries, shape.width, work);
#pragma unroll
    for (int j = 0; j < 4; j++) {
        const int query = queries + SIDE * j + x;
        const T delta = query < shape.queries ? known[query].delta : T(0);
#pragma unroll
        for (int r = 0; r < 4; r++) {
            const T d = p[r][j] * (ds[r][j] - delta);
            ds[r][j] = score.inside(query, keys + SIDE * r + y) ? d : T(0);
        }
    }
}

// dk = scale ds^T q and dv = p^T g, where not null.
template <class T>
__global__ void __launch_bounds__(THREADS, sizeof(T) == 4 ? 2 : 1)
key_gradients(const T* gradient, const T* query, const T* key, const T* value, const T* bias,
              const Known<T>* known, T* dkey, T* dvalue, Shape shape) {
    MG_DYN_SMEM(T, weights);
    T* const work = weights + COLUMNS * WEIGHTS;
    const Place here(shape, shape.keys, COLUMNS, false);
    const Matrix<const T> g(gradient, shape.g, here.batch, here.head);
    const Matrix<const T> q(query, shape.q, here.batch, here.head);
    const Matrix<const T> k(key, shape.k, here.batch, here.head);
    const Matrix<const T> v(value, shape.v, here.batch, here.head);
    const Scores<T> score(bias, shape, here.batch, here.head);
    const int y = threadIdx.x / SIDE, x = threadIdx.x % SIDE, from = blockIdx.y * COLUMNS;
    const bool for_key = dkey && from < shape.depth, for_value = dvalue && from < shape.width;
    known += ((mg::Index)here.batch * shape.heads + here.head) * shape.queries;
    T dk[4][4] = {}, dv[4][4] = {};
    for (int first = shape.causal ? here.first : 0; first < shape.queries; first += COLUMNS) {
        T p[4][4], ds[4][4];
        pairs(p, ds, g, q, k, v, score, known, here.first, first, work);
        if (for_value) {
#pragma unroll
            for (int r = 0; r < 4; r++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    weights[(SIDE * r + y) * WEIGHTS + SIDE * j + x] = p[r][j];
            weigh<4, 4>(dv, weights, g, first, shape.queries, from, shape.width, work);
            __syncthreads();  // before the weights change
        }
        if (for_key) {
#pragma unroll
            for (int r = 0; r < 4; r++)
#pragma unroll
                for (int j = 0; j < 4; j++)
                    weights[(SIDE * r + y) * WEIGHTS + SIDE * j + x] = score.scale * ds[r][j];
            weigh<4, 4>(dk, weights, q, first, shape.queries, from, shape.depth, work);
        }
    }
    const Matrix<T> key_out(dkey, shape.dk, here.batch, here.head);
    const Matrix<T> value_out(dvalue, shape.dv, here.batch, here.head);
    if (for_key) put(dk, key_out, here.first, shape.keys, from, shape.depth);
    if (for_value) put(dv, value_out, here.first, shape.keys, from, shape.width);
}

// dbias (batches of bias, heads of bias, L, S) = ds, summed over those that share the bias.
template <class T>
__global__ void __launch_bounds__(THREADS, sizeof(T) == 4 ? 2 : 1)
bias_gradient(const T* gradient, const T* query, const T* key, const T* value, const T* bias,
              const Known<T>* known, T* dbias, Shape shape, int batches) {
    MG_DYN_SMEM(T, work);
    const int tiles = (shape.queries + COLUMNS - 1) / COLUMNS;
    const int queries = blockIdx.x % tiles * COLUMNS, keys = blockIdx.y * COLUMNS;
    const int group = blockIdx.x / tiles;
    const int own_head = group % shape.bias_heads, own_batch = group / shape.bias_heads;
    const int y = threadIdx.x / SIDE, x = threadIdx.x % SIDE;
    T sum[4][4] = {};
    for (int batch = own_batch; batch < batches; batch += shape.bias_batches)
        for (int head = own_head; head < shape.heads; head += shape.bias_heads) {
            const Matrix<const T> g(gradient, shape.g, batch, head);
            const Matrix<const T> q(query, shape.q, batch, head);
            const Matrix<const T> k(key, shape.k, batch, head);
            const Matrix<const T> v(value, shape.v, batch, head);
            const Scores<T> score(bias, shape, batch, head);
            T p[4][4], ds[4][4];
            const mg::Index stack = (mg::Index)batch * shape.heads + head;
            pairs(p, ds, g, q, k, v, score, known + stack * shape.queries, keys, queries, work);
#pragma unroll
            for (int r = 0; r < 4; r++)
#pragma unroll
                for (int j = 0; j < 4; j++) sum[r][j] += ds[r][j];
        }
#pragma unroll
    for (int r = 0; r < 4; r++)
#pragma unroll
        for (int j = 0; j < 4; j++) {
            const int at = queries + SIDE * j + x, column = keys + SIDE * r + y;
            if (at < shape.queries && column < shape.keys)
                dbias[((mg::Index)group * shape.queries + at) * shape.keys + column] = sum[r][j];
        }
}
