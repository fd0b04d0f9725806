"""Kernels for the CPU, NumPy and Numba; same names and signatures as `minigan_kernels.reference`.

A kernel is imported with its family when it is first named: importing this package compiles
nothing and does not even import Numba.
"""

from minigan_kernels.cpu.memory import keep_freed_memory
from minigan_kernels.cpu.threads import give_blas_one_thread
from minigan_kernels.lazy import kernels_of

FAMILIES = {
    "conv": "conv",
    "conv_transpose": "conv",
    "conv_weight_grad": "conv",
    "norm": "norm",
    "norm_backward": "norm",
    "add_bias": "bias",
    "channel_sum": "bias",
    "bias_act": "bias",
    "bias_act_backward": "bias",
    "leaky_relu": "activation",
    "leaky_relu_backward": "activation",
    "elu": "activation",
    "elu_backward": "activation",
    "exp": "activation",
    "gelu": "activation",
    "gelu_backward": "activation",
    "normal_cdf": "activation",
    "sigmoid": "activation",
    "sigmoid_backward": "activation",
    "silu": "activation",
    "silu_backward": "activation",
    "softplus": "activation",
    "softplus_backward": "activation",
    "tanh": "activation",
    "tanh_backward": "activation",
    "matmul": "matmul",
    "add": "elementwise",
    "add_to": "elementwise",
    "multiply": "elementwise",
    "affine": "elementwise",
    "axis_sum": "reduce",
    "loss_sum": "loss",
    "loss_gradient": "loss",
    "softmax": "softmax",
    "softmax_backward": "softmax",
    "log_softmax": "softmax",
    "log_softmax_backward": "softmax",
    "cross_entropy": "softmax",
    "cross_entropy_backward": "softmax",
    "pixel_norm": "pixel_norm",
    "pixel_norm_backward": "pixel_norm",
    "scaled_dot_product_attention": "attention",
    "scaled_dot_product_attention_backward": "attention",
    "axis_map": "resample",
    "plane_map": "resample",
    "concat": "copies",
    "upfirdn2d": "upfirdn",
    "grid_sample": "sample",
    "grid_sample_backward": "sample",
    "max_pool": "pool",
    "take_rows": "index",
    "scatter_rows": "index",
    "gather_positions": "index",
    "scatter_positions": "index",
    "adam_step": "optim",
    "sgd_step": "optim",
    "adamax_step": "optim",
    "rmsprop_step": "optim",
    "adagrad_step": "optim",
    "adadelta_step": "optim",
    "lerp_step": "optim",
    "square_sum": "optim",
}  # kernel -> the module that holds it

__getattr__ = kernels_of(__name__, FAMILIES)

keep_freed_memory()
give_blas_one_thread()
