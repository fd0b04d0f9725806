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
    "add": "elementwise",
    "add_to": "elementwise",
    "multiply": "elementwise",
    "affine": "elementwise",
    "loss_sum": "loss",
    "loss_gradient": "loss",
    "adam_step": "optim",
    "sgd_step": "optim",
    "adamax_step": "optim",
    "rmsprop_step": "optim",
    "adagrad_step": "optim",
    "adadelta_step": "optim",
    "lerp_step": "optim",
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
