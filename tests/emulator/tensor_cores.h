// tensor_cores.h - twins of the PTX instructions that mg.cuh and mg_wgmma.cuh wrap.
//
// Asynchronous copies land only when they are waited for, and until then their destination holds
// NaN. wgmma reads shared memory when it is waited for. Who uses either too early gets wrong numbers
// here every time, not only sometimes.
#pragma once
#include "cuda.h"

namespace mg {

// ---- cp.async ---------------------------------------------------------------------------------

// An error if a wgmma that nobody waited for yet still reads the place.
inline void check_not_being_read(const void* place) {
    unsigned low = unsigned(emu::M.shared - emu::M.shared_area);
    unsigned at = unsigned((const char*)place - emu::M.shared_area);
    for (unsigned g = 0; g < emu::M.threads / 128; g++)
        for (emu::Product& product : emu::M.groups[g].products)
            for (int operand = 0; operand < 2; operand++) {
                unsigned long long descriptor = operand ? product.b : product.a;
                unsigned start = (unsigned(descriptor & 0x3fff) << 4 & ~1023u) + (low & ~0x3ffffu);
                unsigned rows = operand ? product.columns : 64;
                if (at >= start && at < start + rows * 128)
                    emu::fail("cp.async overwrites what a wgmma of warpgroup %u, not yet waited for, "
                              "reads", g);
            }
}

inline void cp_async(void* to, const void* from, unsigned bytes, unsigned from_bytes) {
    check_not_being_read(to);
    if ((uintptr_t(to) | (from_bytes ? uintptr_t(from) : 0)) & (bytes - 1))
        emu::fail("cp.async: address not aligned to %u bytes", bytes);
    if ((char*)to < emu::M.shared || (char*)to + bytes > emu::M.shared + emu::M.shared_bytes)
        emu::fail("cp.async: destination outside shared memory");
    memset(to, 0xff, bytes);
    emu::M.current->copies.push_back({(char*)to, (const char*)from, bytes, from_bytes});
}
inline void cp_async16(void* to, const void* from, bool p) { cp_async(to, from, 16, p ? 16 : 0); }
inline void cp_async4(void* to, const void* from, bool p) { cp_async(to, from, 4, p ? 4 : 0); }
inline void cp_async_commit() {
    emu::Fiber* me = emu::M.current;
    me->copy_groups.push_back(unsigned(me->copies.size()));
}
template <int NEWEST> inline void cp_async_wait() {  // all groups but the newest have landed
    emu::Fiber* me = emu::M.current;
    if (int(me->copy_groups.size()) <= NEWEST) return;
    size_t groups = me->copy_groups.size() - NEWEST;
    unsigned end = me->copy_groups[groups - 1];
    for (unsigned i = 0; i < end; i++) {
        emu::Copy& copy = me->copies[i];
        if (copy.from_bytes) memcpy(copy.to, copy.from, copy.from_bytes);
        memset(copy.to + copy.from_bytes, 0, copy.bytes - copy.from_bytes);
    }
    me->unfenced |= end != 0;
    me->copies.erase(me->copies.begin(), me->copies.begin() + end);
    me->copy_groups.erase(me->copy_groups.begin(), me->copy_groups.begin() + groups);
    for (unsigned& group : me->copy_groups) group -= end;
}

// ---- ldmatrix and mma.sync ---------------------------------------------------------------------

struct LoadMatrix { const unsigned* row; unsigned* result; };
inline void load_matrices(void** lanes) {
    for (int j = 0; j < 4; j++)
        for (int i = 0; i < 32; i++)
            ((LoadMatrix*)lanes[i])->result[j] = ((LoadMatrix*)lanes[8 * j + i / 4])->row[i & 3];
}
inline void ldsm_x4(unsigned (&result)[4], const void* row) {
    if (uintptr_t(row) & 15) emu::fail("ldmatrix: row not aligned to 16 bytes");
    LoadMatrix mine{(const unsigned*)row, result};
    emu::meet_warp(0xffffffffu, &mine, load_matrices);
}

// The tensor cores ignore the low 13 bits of an operand; cvt.rna rounds them away before.
inline float as_tf32(unsigned u) { return __uint_as_float(u & 0xffffe000u); }
inline unsigned to_tf32(float f) {
    unsigned u = __float_as_uint(f);
    return (u & 0x7f800000u) == 0x7f800000u ? u : (u + 0x1000u) & 0xffffe000u;
}

struct Mma { float* d; const unsigned* a; const unsigned* b; };
inline void multiply_fragments(void** lanes) {  // fragment layout: PTX ISA, m16n8k8
    float A[16][8], B[8][8], D[16][8] = {};
    for (int i = 0; i < 32; i++) {
        auto* lane = (Mma*)lanes[i];
        int g = i >> 2, t = i & 3;
        A[g][t] = as_tf32(lane->a[0]);
        A[g + 8][t] = as_tf32(lane->a[1]);
        A[g][t + 4] = as_tf32(lane->a[2]);
        A[g + 8][t + 4] = as_tf32(lane->a[3]);
        B[t][g] = as_tf32(lane->b[0]);
        B[t + 4][g] = as_tf32(lane->b[1]);
    }
    for (int m = 0; m < 16; m++)
        for (int k = 0; k < 8; k++)
            for (int n = 0; n < 8; n++) D[m][n] += A[m][k] * B[k][n];
    for (int i = 0; i < 32; i++) {
        auto* lane = (Mma*)lanes[i];
        int g = i >> 2, t = i & 3;
        lane->d[0] += D[g][2 * t];
        lane->d[1] += D[g][2 * t + 1];
        lane->d[2] += D[g + 8][2 * t];
        lane->d[3] += D[g + 8][2 * t + 1];
    }
}
inline void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    Mma mine{d, a, b};
    emu::meet_warp(0xffffffffu, &mine, multiply_fragments);
}

// ---- wgmma ------------------------------------------------------------------------------------

inline unsigned smem_addr(const void* p) { return unsigned((const char*)p - emu::M.shared_area); }
inline void fence_proxy_async() { emu::M.current->unfenced = false; }
inline void wgmma_fence() {
    if (emu::M.unfenced)
        emu::fail("wgmma reads what cp.async wrote without fence.proxy.async before the barrier");
    emu::meet_group(nullptr, nullptr);
}
inline emu::Group& my_group() { return emu::M.groups[emu::M.current->number >> 7]; }

struct Wgmma_ { unsigned long long a, b; float* d; int columns; };
inline void issue_product(void** threads) {
    auto* first = (Wgmma_*)threads[0];
    emu::Product product{first->a, first->b, first->columns, {}};
    for (int i = 0; i < 128; i++) {
        auto* thread = (Wgmma_*)threads[i];
        if (thread->a != product.a || thread->b != product.b)
            emu::fail("wgmma: descriptors differ inside the warpgroup");
        product.result[i] = thread->d;
    }
    my_group().products.push_back(product);
}
inline void commit_products(void**) {
    emu::Group& group = my_group();
    group.product_groups.push_back(unsigned(group.products.size()));
}
inline void wgmma_commit() { emu::meet_group(nullptr, commit_products); }

// Number k of a row of an operand, through its descriptor: start, stride of 8 rows, 128-byte swizzle.
inline float operand(unsigned long long descriptor, int row, int k) {
    if (descriptor >> 62 != 1 || (descriptor >> 49 & 7))
        emu::fail("wgmma: only the 128-byte swizzle with base offset 0 is emulated");
    unsigned start = unsigned(descriptor & 0x3fff) << 4, rows8 = unsigned(descriptor >> 32 & 0x3fff) << 4;
    unsigned at = start + (row >> 3) * rows8 + (row & 7) * 128 + k * 4;
    at ^= (at >> 7 & 7) << 4;
    unsigned low = unsigned(emu::M.shared - emu::M.shared_area);
    at += low & ~0x3ffffu;  // descriptors hold 18 bits of an address
    if (at < low || at + 4 > low + emu::M.shared_bytes) emu::fail("wgmma: outside shared memory");
    unsigned u;
    memcpy(&u, emu::M.shared_area + at, 4);
    return as_tf32(u);
}
inline void multiply(const emu::Product& product) {
    static float A[64][8], B[256][8];
    for (int r = 0; r < 64; r++)
        for (int k = 0; k < 8; k++) A[r][k] = operand(product.a, r, k);
    for (int r = 0; r < product.columns; r++)
        for (int k = 0; k < 8; k++) B[r][k] = operand(product.b, r, k);
    for (int i = 0; i < 128; i++) {
        int warp = i >> 5, lane = i & 31;
        for (int j = 0; j < product.columns / 8; j++)
            for (int e = 0; e < 4; e++) {
                const float* a = A[warp * 16 + (lane >> 2) + (e >> 1) * 8];
                const float* b = B[j * 8 + (lane & 3) * 2 + (e & 1)];
                float sum = 0;
                for (int k = 0; k < 8; k++) sum += a[k] * b[k];
                product.result[i][j * 4 + e] += sum;
            }
    }
}
template <int NEWEST> void finish_products(void**) {
    emu::Group& group = my_group();
    if (int(group.product_groups.size()) <= NEWEST) return;
    size_t groups = group.product_groups.size() - NEWEST;
    unsigned end = group.product_groups[groups - 1];
    for (unsigned i = 0; i < end; i++) multiply(group.products[i]);
    group.products.erase(group.products.begin(), group.products.begin() + end);
    group.product_groups.erase(group.product_groups.begin(), group.product_groups.begin() + groups);
    for (unsigned& each : group.product_groups) each -= end;
}
template <int NEWEST> void wgmma_wait() { emu::meet_group(nullptr, finish_products<NEWEST>); }
template <int N> struct Wgmma {
    static void ss(float (&d)[N / 2], unsigned long long a, unsigned long long b) {
        Wgmma_ mine{a, b, d, N};
        emu::meet_group(&mine, issue_product);
    }
};

}  // namespace mg
