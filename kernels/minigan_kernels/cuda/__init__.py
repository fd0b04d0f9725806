"""Kernels for NVIDIA GPUs: CUDA C++ beside the Python that launches it, family by family.

`Kernels(device)` holds the kernels of the signature table for one device. A family is imported when
one of its kernels is first named; its CUDA code is compiled when it is first launched.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from importlib import import_module
from typing import Any

from minigan_kernels.cuda.device import Device

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
    "upfirdn2d": "upfirdn",
    "grid_sample": "sample",
    "grid_sample_backward": "sample",
    "max_pool": "pool",
    "take_rows": "index",
    "scatter_rows": "index",
    "gather_positions": "index",
    "scatter_positions": "index",
    "concat": "copies",
    "adam_step": "optim",
    "sgd_step": "optim",
    "adamax_step": "optim",
    "rmsprop_step": "optim",
    "adagrad_step": "optim",
    "adadelta_step": "optim",
    "lerp_step": "optim",
    "square_sum": "optim",
    "philox_uniform": "random",
    "philox_normal": "random",
}  # kernel -> the module that holds it


def function(name: str) -> Callable[..., Any]:
    """The launcher of a kernel; its first parameter is the device."""
    if name not in FAMILIES:
        raise AttributeError(f"cuda has no kernel {name!r}; it has {', '.join(FAMILIES)}")
    found: Callable[..., Any] = getattr(
        import_module(f"minigan_kernels.cuda.{FAMILIES[name]}"), name
    )
    return found


class Kernels:
    """The kernels of one device, with the parameters of the signature table."""

    def __init__(self, device: Device) -> None:
        self.device = device

    def __getattr__(self, name: str) -> Callable[..., Any]:
        bound = partial(function(name), self.device)
        setattr(self, name, bound)  # the next use finds it without coming here
        return bound
