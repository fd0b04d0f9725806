// mg.cuh - what all kernels share: PTX primitives, vectors of 16 bytes, sums over warps and blocks.
// No header of CUDA or C++ is included anywhere, and no asm stands outside mg*.cuh.
#pragma once
#ifndef MG_EMU
#define MG_DYN_SMEM(T, name)                                       \
    extern __shared__ __align__(128) unsigned char mg_shared_[];   \
    T* const name = reinterpret_cast<T*>(mg_shared_)

namespace mg {

__device__ __forceinline__ unsigned smem_u32(const void* p) {
    return (unsigned)__cvta_generic_to_shared(p);
}
// Copies 16 (4) bytes to shared memory, or zeros if p is false; done when waited for.
__device__ __forceinline__ void cp_async16(void* to, const void* from, bool p) {
    asm volatile("cp.async.cg.shared.global [%0], [%1], 16, %2;"
                 ::"r"(smem_u32(to)), "l"(from), "r"(p ? 16 : 0) : "memory");
}
__device__ __forceinline__ void cp_async4(void* to, const void* from, bool p) {
    asm volatile("cp.async.ca.shared.global [%0], [%1], 4, %2;"
                 ::"r"(smem_u32(to)), "l"(from), "r"(p ? 4 : 0) : "memory");
}
__device__ __forceinline__ void cp_async_commit() {
    asm volatile("cp.async.commit_group;" ::: "memory");
}
template <int NEWEST> __device__ __forceinline__ void cp_async_wait() {
    asm volatile("cp.async.wait_group %0;" ::"n"(NEWEST) : "memory");
}
// Four 8x8 matrices of 16-bit (8x4 of 32-bit) numbers; lane i gives the address of row i.
__device__ __forceinline__ void ldsm_x4(unsigned (&r)[4], const void* row) {
    asm volatile("ldmatrix.sync.aligned.m8n8.x4.shared.b16 {%0,%1,%2,%3}, [%4];"
                 : "=r"(r[0]), "=r"(r[1]), "=r"(r[2]), "=r"(r[3]) : "r"(smem_u32(row)) : "memory");
}
// Rounds to the 10 bits of mantissa that the tensor cores read.
__device__ __forceinline__ unsigned to_tf32(float f) {
    unsigned u;
    asm("cvt.rna.tf32.f32 %0, %1;" : "=r"(u) : "f"(f));
    return u;
}
// d (16x8) += a (16x8) b (8x8), shared out over a warp.
__device__ __forceinline__ void mma_tf32(float (&d)[4], const unsigned (&a)[4], const unsigned (&b)[2]) {
    asm volatile("mma.sync.aligned.m16n8k8.row.col.f32.tf32.tf32.f32 "
                 "{%0,%1,%2,%3}, {%4,%5,%6,%7}, {%8,%9}, {%0,%1,%2,%3};"
                 : "+f"(d[0]), "+f"(d[1]), "+f"(d[2]), "+f"(d[3])
                 : "r"(a[0]), "r"(a[1]), "r"(a[2]), "r"(a[3]), "r"(b[0]), "r"(b[1]));
}

}  // namespace mg
#endif

namespace mg {

typedef long long Index;
constexpr int WARP = 32;
constexpr unsigned ALL = 0xffffffffu;

// As many numbers as one 16-byte access moves.
template <class T> struct __align__(16) Pack {
    static constexpr int SIZE = 16 / sizeof(T);
    T v[SIZE];
};
__device__ __forceinline__ bool aligned16(const void* p) { return ((size_t)p & 15) == 0; }

// The number of this thread in a one-dimensional grid.
__device__ __forceinline__ Index my_index() {
    return (Index)blockIdx.x * blockDim.x + threadIdx.x;
}

// The sum over a warp, in every lane; the order is fixed.
template <class T> __device__ __forceinline__ T warp_sum(T v) {
#pragma unroll
    for (int flip = WARP / 2; flip; flip >>= 1) v += __shfl_xor_sync(ALL, v, flip);
    return v;
}
// The sum over a block of whole warps, in every thread; `work` holds one number per warp.
template <class T> __device__ __forceinline__ T block_sum(T v, T* work) {
    const int warps = (blockDim.x + WARP - 1) / WARP;
    v = warp_sum(v);
    __syncthreads();  // work may still be read from an earlier sum
    if (threadIdx.x % WARP == 0) work[threadIdx.x / WARP] = v;
    __syncthreads();
    T sum = work[0];
    for (int i = 1; i < warps; i++) sum += work[i];
    return sum;
}

}  // namespace mg
