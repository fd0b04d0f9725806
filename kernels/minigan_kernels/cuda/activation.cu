// activation.cu - activations f(x) and their gradients g f'(x), one pass over memory each.
#include "mg_map.cuh"

#define FUNCTION(Name, formula)                                                               \
    struct Name {                                                                             \
        template <class T> static __device__ __forceinline__ T of(T x, T a, T b) {            \
            return formula;                                                                   \
        }                                                                                     \
    };
#define GRADIENT(Name, formula)                                                               \
    struct Name {                                                                             \
        template <class T> static __device__ __forceinline__ T of(T g, T x, T a, T b) {       \
            return formula;                                                                   \
        }                                                                                     \
    };

FUNCTION(LeakyRelu, x > 0 ? x : (a == 0 && x == x ? T(0) : a * x))  // a: slope; NaN stays
FUNCTION(Elu, x > 0 ? x : a * mg::expm1(x))                         // a: alpha
FUNCTION(Exp, mg::exp(x))
FUNCTION(Tanh, mg::tanh(x))
FUNCTION(Sigmoid, mg::sigmoid(x))
FUNCTION(Softplus, mg::softplus(x))
FUNCTION(Silu, x * mg::sigmoid(x))
FUNCTION(NormalCdf, mg::normal_cdf(x))
FUNCTION(Gelu, x * mg::normal_cdf(x))

// From the result y, here called x:
GRADIENT(LeakyReluBackward, x <= 0 ? (a == 0 ? T(0) : a * g) : g)
GRADIENT(TanhBackward, g - g * x * x)
GRADIENT(SigmoidBackward, g * (x * (1 - x)))
// From the input x:
GRADIENT(EluBackward, g * (x > 0 ? T(1) : a * mg::exp(x)))
GRADIENT(SoftplusBackward, g * mg::sigmoid(x))

struct SiluBackward {  // g s (1 + x (1 - s)),   s = sigmoid(x)
    template <class T> static __device__ __forceinline__ T of(T g, T x, T a, T b) {
        const T s = mg::sigmoid(x);
        return g * (s * (1 + x * (1 - s)));
    }
};
struct GeluBackward {  // g (normal_cdf(x) + x e^(-x^2 / 2) / sqrt(2 pi))
    template <class T> static __device__ __forceinline__ T of(T g, T x, T a, T b) {
        return g * (mg::normal_cdf(x) + x * mg::exp(x * x / -2) * T(0.39894228040143267794));
    }
};
