// mg_attention.cuh - tiles of attention scores: staging, products, weighted sums, running softmax.
//
// A block of 16 x 16 threads makes 16 R x 64 scores at a time, R x 4 in each thread, from rows that
// are staged in shared memory. There every row begins an odd number of 16-byte words after the one
// before, so that threads which read different rows meet no bank twice.
#pragma once
#include "mg_extremes.cuh"
#include "mg_math.cuh"

constexpr int SIDE = 16, THREADS = SIDE * SIDE;
constexpr int COLUMNS = 4 * SIDE;  // of a tile of scores
constexpr int DEPTH = 32;          // numbers of each row that are staged for scores
constexpr int WEIGHTS = COLUMNS + 16;  // step between rows of weights: writes meet no bank twice

struct Strides { mg::Index batch, head, row; };

struct Shape {
    int queries, keys, depth, width;  // L, S, E, V
    int heads, causal;
    int bias_batches, bias_heads;  // 1 where the bias is the same for all
    Strides q, k, v, g, y, dq, dk, dv, bias;
    mg::Index bias_column;
    double scale;
};

// One matrix of a stack: rows of contiguous numbers.
template <class T> struct Matrix {
    T* p;
    mg::Index step;
    bool together;  // 16-byte reads are possible

    __device__ Matrix(T* all, const Strides& s, int batch, int head)
        : p(all ? all + batch * s.batch + head * s.head : nullptr), step(s.row) {
        constexpr int W = mg::Pack<T>::SIZE;
        together = mg::aligned16(p) && step % W == 0;
    }
    __device__ T* row(int i) const { return p + i * step; }
};

// Rows first .. and columns from .. of a matrix to shared memory; zeros beyond its end.
template <int ROWS, int LENGTH, class T>
__device__ __forceinline__ void stage(T* to, const Matrix<const T>& m, int first, int rows,
                                      int from, int columns) {
    typedef mg::Pack<T> Pack;
    constexpr int W = Pack::SIZE, EACH = LENGTH / W;
#pragma unroll
    for (int i = threadIdx.x; i < ROWS * EACH; i += THREADS) {
        const int row = i / EACH, at = i % EACH * W;
        const int left = first + row < rows ? columns - from - at : 0;
        const T* p = m.row(first + row) + from + at;
        Pack pack;
#pragma unroll
        for (int w = 0; w < W; w++) pack.v[w] = 0;
        if (left >= W && m.together) {
            pack = *(const Pack*)p;
        } else {
#pragma unroll
            for (int w = 0; w < W; w++)
                if (w < left) pack.v[w] = p[w];
        }
        *(Pack*)(to + row * (LENGTH + W) + at) = pack;
    }
}

// s[r][j] += a row (16 r + my row) times b row (16 j + my column).
template <int R, class T>
__device__ __forceinline__ void products(T (&s)[R][4], const Matrix<const T>& a, int a_first,
                                         int a_rows, const Matrix<const T>& b, int b_first,
                                         int b_rows, int depth, T* work) {
    typedef mg::Pack<T> Pack;
    constexpr int W = Pack::SIZE, STEP = DEPTH + W;
    T* const as = work;
    T* const bs = work + SIDE * R * STEP;
    const int y = threadIdx.x / SIDE, x = threadIdx.x % SIDE;
    int from = 0;
    do {
        __syncthreads();  // work may still be read
        stage<SIDE * R, DEPTH>(as, a, a_first, a_rows, from, depth);
        stage<COLUMNS, DEPTH>(bs, b, b_first, b_rows, from, depth);
        __syncthreads();
        const int end = min(DEPTH, depth - from);
#pragma unroll 1
        for (int e = 0; e < end; e += W) {
            Pack p[R], q[4];
#pragma unroll
            for (int r = 0; r < R; r++) p[r] = *(const Pack*)(as + (SIDE * r + y) * STEP + e);
#pragma unroll
            for (int j = 0; j < 4; j++) q[j] = *(const Pack*)(bs + (SIDE * j + x) * STEP + e);
#pragma unroll
            for (int w = 0; w < W; w++)
#pragma unroll
                for (int r = 0; r < R; r++)
#pragma unroll
                    for (int j = 0; j < 4; j++) s[r][j] += p[r].v[w] * q[j].v[w];
        }
        from += DEPTH;
    } while (from < depth);
}

// sum[r][..] += weights (my rows, COLUMNS) times rows of m, of which the columns from `from` on.
// A thread has the columns  W (SIDE j + x) + i,  i < W,  of sum[r][W j + i].
template <int R, int C, class T>
__device__ __forceinline__ void weigh(T (&sum)[R][C], const T* weights, const Matrix<const T>& m,
                                      int first, int rows, int from, int columns, T* work) {
    typedef mg::Pack<T> Pack;
    constexpr int W = Pack::SIZE, STEP = SIDE * C + W;
    const int y = threadIdx.x / SIDE, x = threadIdx.x % SIDE;
    __syncthreads();  // work may still be read; all weights are written
    stage<COLUMNS, SIDE * C>(work, m, first, rows, from, columns);
    __syncthreads();
    const int end = min(COLUMNS, rows - first);
#pragma unroll 1
    for (int k = 0; k < end; k += W) {
        Pack p[R];
#pragma unroll
        for (int r = 0; r < R; r++) p[r] = *(const Pack*)(weights + (SIDE * r + y) * WEIGHTS + k);
#pragma unroll
        for (int w = 0; w < W; w++)
#pragma unroll
            for (int j = 0; j < C / W; j++) {
                const Pack q = *(const Pack*)(work + (k + w) * STEP + W * (SIDE * j + x));
#pragma unroll
                for (int r = 0; r < R; r++)
#pragma unroll
                    for (int i = 0; i < W; i++) sum[r][W * j + i] += p[r].v[w] * q.v[i];
            }
    }
}

// What `weigh` added up, to the rows and columns of a matrix where they exist.
template <int R, int C, class T>
__device__ __forceinline__ void put(const T (&sum)[R][C], const Matrix<T>& m, int first, int rows,
                                    int from, int columns) {
    constexpr int W = mg::Pack<T>::SIZE;
    const int y = threadIdx.x / SIDE, x = threadIdx.x % SIDE;
#pragma unroll
    for (int r = 0; r < R; r++)
#pragma unroll
        for (int c = 0; c < C; c++) {
            const int row = first + SIDE * r + y, column = from + W * (SIDE * (c / W) + x) + c % W;
            if (row < rows && column < columns) m.row(row)[column] = sum[r][c];
        }
}

// Products become scores: times scale, plus bias, -infinity where a key is hidden or not there.
template <class T> struct Scores {
    const T* bias;
    const Shape& shape;
    T scale;

    __device__ Scores(const T* b, const Shape& s, int batch, int head)
        : bias(b ? b + batch * s.bias.batch + head * s.bias.head : nullptr), shape(s),
          scale((T)s.scale) {}
    __device__ __forceinline__ bool inside(int query, int key) const {
        return query < shape.queries && key < shape.keys;
    }
    __device__ __forceinline__ T operator()(T product, int query, int key) const {
        T s = product * scale;
        if (bias && inside(query, key))
            s += bias[query * shape.bias.row + key * shape.bias_column];
        return key >= shape.keys || (shape.causal && key > query) ? -mg::infinity<T>() : s;
    }
};

// The largest (sum) of what the 16 threads of a row of threads have.
template <class T> __device__ __forceinline__ T row_max(T v) {
#pragma unroll
    for (int flip = SIDE / 2; flip; flip >>= 1)
        v = mg::larger(v, __shfl_xor_sync(mg::ALL, v, flip));
    return v;
}
template <class T> __device__ __forceinline__ T row_sum(T v) {
#pragma unroll
    for (int flip = SIDE / 2; flip; flip >>= 1) v += __shfl_xor_sync(mg::ALL, v, flip);
    return v;
}

// Softmax on the way: the largest score so far. `raise` takes in the scores of a row of a tile,
// makes them powers e^(s - shift), and gives the factor by which everything before fades.
template <class T> struct Running {
    T top = -mg::infinity<T>();

    __device__ __forceinline__ T shift() const {  // where all scores are -infinity powers are 0
        return top == -mg::infinity<T>() ? T(0) : top;
    }
    __device__ __forceinline__ T raise(T (&s)[4]) {
        const T before = top;
        T most = s[0];
#pragma unroll
        for (int j = 1; j < 4; j++) most = mg::larger(most, s[j]);
        top = mg::larger(top, row_max(most));
#pragma unroll
        for (int j = 0; j < 4; j++) s[j] = mg::exp(s[j] - shift());
        return mg::exp(before - shift());
    }
};

// The block's tile, head and batch; of a causal triangle the longest rows go first.
struct Place {
    int first, head, batch;
    __device__ Place(const Shape& s, int rows, int each, bool backwards) {
        const int tiles = (rows + each - 1) / each, tile = blockIdx.x % tiles;
        const int stack = blockIdx.x / tiles;
        first = (backwards ? tiles - 1 - tile : tile) * each;
        head = stack % s.heads;
        batch = stack / s.heads;
    }
};
