// elementwise.cu - arithmetic number by number.
#include "mg_map.cuh"

struct Add {  // x + a y
    template <class T> static __device__ __forceinline__ T of(T x, T y, T a, T b) { return x + a * y; }
};
struct Multiply {  // x y
    template <class T> static __device__ __forceinline__ T of(T x, T y, T a, T b) { return x * y; }
};
struct Affine {  // a x + b
    template <class T> static __device__ __forceinline__ T of(T x, T a, T b) { return a * x + b; }
};
