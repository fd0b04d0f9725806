// cuda.h - the part of CUDA C++ that our kernels use, for g++: qualifiers, vectors, indices, warp
// collectives, atomics, mathematics.
#pragma once
#include <cmath>
#include "fibers.h"

#define MG_EMU 1
#define __global__
#define __device__
#define __host__
#define __constant__
#define __forceinline__ inline
#define __launch_bounds__(...)
#define __align__(n) alignas(n)
// Kernels take shared memory through this macro only.
#define MG_DYN_SMEM(T, name) T* const name = reinterpret_cast<T*>(emu::M.shared)

struct alignas(8) float2 { float x, y; };
struct alignas(16) float4 { float x, y, z, w; };
struct alignas(16) double2 { double x, y; };
struct alignas(8) int2 { int x, y; };
struct alignas(16) int4 { int x, y, z, w; };
struct alignas(8) uint2 { unsigned x, y; };
struct alignas(16) uint4 { unsigned x, y, z, w; };
inline float2 make_float2(float a, float b) { return {a, b}; }
inline float4 make_float4(float a, float b, float c, float d) { return {a, b, c, d}; }
inline double2 make_double2(double a, double b) { return {a, b}; }
inline int2 make_int2(int a, int b) { return {a, b}; }
inline int4 make_int4(int a, int b, int c, int d) { return {a, b, c, d}; }
inline uint2 make_uint2(unsigned a, unsigned b) { return {a, b}; }
inline uint4 make_uint4(unsigned a, unsigned b, unsigned c, unsigned d) { return {a, b, c, d}; }

#define threadIdx (emu::M.current->index)
#define blockIdx (emu::M.block)
#define blockDim (emu::M.block_size)
#define gridDim (emu::M.grid_size)
#define warpSize 32

inline void __syncthreads() { emu::sync_block(); }
inline void __syncwarp(unsigned mask = 0xffffffffu) { emu::meet_warp(mask, nullptr, nullptr); }
inline void __threadfence() {}

namespace emu {

inline int lane() { return M.current->number & 31; }

template <class T> struct Shuffle { T mine, found; int from; };
template <class T> void shuffle_all(void** lanes) {
    for (int i = 0; i < 32; i++) {
        auto* me = (Shuffle<T>*)lanes[i];
        me->found = ((Shuffle<T>*)lanes[me->from])->mine;
    }
}
template <class T> T shuffle(unsigned mask, T value, int from) {
    Shuffle<T> mine{value, value, from};
    meet_warp(mask, &mine, shuffle_all<T>);
    return mine.found;
}

struct Vote { int yes; unsigned result; };
inline void count_votes(void** lanes) {
    unsigned result = 0;
    for (int i = 0; i < 32; i++) result |= unsigned(((Vote*)lanes[i])->yes != 0) << i;
    for (int i = 0; i < 32; i++) ((Vote*)lanes[i])->result = result;
}

}  // namespace emu

template <class T> T __shfl_sync(unsigned mask, T v, int from, int width = 32) {
    return emu::shuffle(mask, v, (emu::lane() & ~(width - 1)) | (from & (width - 1)));
}
template <class T> T __shfl_xor_sync(unsigned mask, T v, int flip, int width = 32) {
    int me = emu::lane(), from = me ^ flip;
    return emu::shuffle(mask, v, from / width <= me / width ? from : me);
}
template <class T> T __shfl_down_sync(unsigned mask, T v, unsigned by, int width = 32) {
    int me = emu::lane();
    return emu::shuffle(mask, v, (me & (width - 1)) + int(by) < width ? me + int(by) : me);
}
template <class T> T __shfl_up_sync(unsigned mask, T v, unsigned by, int width = 32) {
    int me = emu::lane();
    return emu::shuffle(mask, v, (me & (width - 1)) >= int(by) ? me - int(by) : me);
}
inline unsigned __ballot_sync(unsigned mask, int yes) {
    emu::Vote vote{yes, 0};
    emu::meet_warp(mask, &vote, emu::count_votes);
    return vote.result;
}
inline int __any_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) != 0; }
inline int __all_sync(unsigned mask, int yes) { return __ballot_sync(mask, yes) == mask; }

template <class T> T __ldg(const T* p) { return *p; }
inline unsigned __float_as_uint(float f) { unsigned u; memcpy(&u, &f, 4); return u; }
inline float __uint_as_float(unsigned u) { float f; memcpy(&f, &u, 4); return f; }
inline long long __double_as_longlong(double f) { long long u; memcpy(&u, &f, 8); return u; }
inline double __longlong_as_double(long long u) { double f; memcpy(&f, &u, 8); return f; }
inline float rsqrtf(float x) { return 1.0f / sqrtf(x); }
inline double rsqrt(double x) { return 1.0 / sqrt(x); }
inline float normcdff(float x) { return 0.5f * erfcf(-x * 0.70710678f); }
inline double normcdf(double x) { return 0.5 * erfc(-x * 0.70710678118654752440); }
inline int __popc(unsigned x) { return __builtin_popcount(x); }
inline int __clz(int x) { return x ? __builtin_clz(unsigned(x)) : 32; }
inline unsigned __umulhi(unsigned a, unsigned b) { return unsigned((uint64_t(a) * b) >> 32); }
inline unsigned long long __umul64hi(unsigned long long a, unsigned long long b) {
    return (unsigned long long)(((unsigned __int128)a * b) >> 64);
}
inline int min(int a, int b) { return a < b ? a : b; }
inline int max(int a, int b) { return a > b ? a : b; }
inline long long min(long long a, long long b) { return a < b ? a : b; }
inline long long max(long long a, long long b) { return a > b ? a : b; }
// Quarter turns are taken off exactly.
inline void sincospi(double x, double* sine, double* cosine) {
    const double quarters = ::rint(2 * x), rest = (x - quarters / 2) * 3.14159265358979323846;
    const double s = ::sin(rest), c = ::cos(rest);
    const int turn = int(quarters - 4 * ::floor(quarters / 4));
    *sine = turn == 0 ? s : turn == 1 ? c : turn == 2 ? -s : -c;
    *cosine = turn == 0 ? c : turn == 1 ? -s : turn == 2 ? -c : s;
}
