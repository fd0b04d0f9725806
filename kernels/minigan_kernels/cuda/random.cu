// random.cu - random numbers as functions of (key, place): Philox4x64-10.
//
// Salmon, Moraes, Dror and Shaw, "Parallel random numbers: as easy as 1, 2, 3" (2011). The
// generator enciphers a counter; block i of four 64-bit words has counter i + 1, as in NumPy,
// which counts before it enciphers. So any number of a stream can be made without the others.
#include "mg_vector.cuh"

namespace mg {

typedef unsigned long long Word;

__device__ __forceinline__ void philox(Word counter, Word key0, Word key1, Word (&w)[4]) {
    w[0] = counter;
    w[1] = w[2] = w[3] = 0;
#pragma unroll
    for (int round = 0; round < 10; round++) {
        const Word a = 0xD2E7470EE14C6C93ull, b = 0xCA5A826395121157ull;
        const Word high0 = __umul64hi(a, w[0]), low0 = a * w[0];
        const Word high1 = __umul64hi(b, w[2]), low1 = b * w[2];
        w[0] = high1 ^ w[1] ^ key0;
        w[1] = low1;
        w[2] = high0 ^ w[3] ^ key1;
        w[3] = low0;
        key0 += 0x9E3779B97F4A7C15ull;
        key1 += 0xBB67AE8584CAA73Bull;
    }
}

// The 4 double or 8 float numbers of a block. A float comes from half a word, the lower one first.
__device__ __forceinline__ void uniforms(const Word (&w)[4], double (&u)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i++) u[i] = (w[i] >> 11) * 0x1p-53;
}
__device__ __forceinline__ void uniforms(const Word (&w)[4], float (&u)[8]) {
#pragma unroll
    for (int i = 0; i < 8; i++) u[i] = (unsigned(w[i / 2] >> 32 * (i % 2)) >> 8) * 0x1p-24f;
}

// Box and Muller (1958): sqrt(-2 log u) (cos, sin)(2 pi v), with u in (0, 1] and v in [0, 1).
__device__ __forceinline__ void two_normals(double u, double v, double& a, double& b) {
    const double radius = ::sqrt(-2 * ::log(u));
    double sine, cosine;
    ::sincospi(2 * v, &sine, &cosine);
    a = radius * cosine;
    b = radius * sine;
}
__device__ __forceinline__ void normals(const Word (&w)[4], double (&z)[4]) {
#pragma unroll
    for (int i = 0; i < 4; i += 2)
        two_normals(((w[i] >> 11) + 1) * 0x1p-53, (w[i + 1] >> 11) * 0x1p-53, z[i], z[i + 1]);
}
// In double too, and rounded at the end: the same numbers as on the CPU.
__device__ __forceinline__ void normals(const Word (&w)[4], float (&z)[8]) {
#pragma unroll
    for (int i = 0; i < 4; i++) {
        double a, b;
        two_normals(((w[i] & 0xffffffffull) + 1) * 0x1p-32, (w[i] >> 32) * 0x1p-32, a, b);
        z[2 * i] = (float)a;
        z[2 * i + 1] = (float)b;
    }
}

}  // namespace mg

enum Law { UNIFORM, NORMAL };

// y[i], i < n: a thread makes the 32 bytes of one Philox block. The key stands in device memory
// (steps that are recorded once and played with other keys), or it is null and a value.
template <class T, Law LAW>
__global__ void philox(T* __restrict__ y, mg::Index n, const mg::Word* key, mg::Word key0, mg::Word key1) {
    constexpr int COUNT = 32 / sizeof(T);
    const mg::Index block = mg::my_index();
    if (block * COUNT >= n) return;
    if (key) {
        key0 = key[0];
        key1 = key[1];
    }
    mg::Word words[4];
    mg::philox(block + 1, key0, key1, words);
    T numbers[COUNT];
    if (LAW == UNIFORM) mg::uniforms(words, numbers);
    else mg::normals(words, numbers);
    T* to = y + block * COUNT;
    if ((block + 1) * COUNT <= n) {
#pragma unroll
        for (int i = 0; i < COUNT; i += COUNT / 2)
            mg::store<COUNT / 2>(to + i, *(mg::Vector<T, COUNT / 2>*)(numbers + i), true);
    } else {
#pragma unroll
        for (int i = 0; i < COUNT; i++)
            if (block * COUNT + i < n) to[i] = numbers[i];
    }
}
