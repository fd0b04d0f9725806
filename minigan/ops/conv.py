"""Convolutions (first version, being replaced by the owner of this file)."""
from __future__ import annotations
from typing import Any
from minigan.autograd import Function
from minigan.backend import Array
from minigan.tensor import Tensor

class Conv(Function):
    saves = ("x", "weight")
    stride: Any; padding: Any; dilation: Any; groups: int
    def forward(self, x: Array, weight: Array, bias: Array | None) -> Array:
        y = self.kernels.conv(x, weight, self.stride, self.padding, self.dilation, self.groups)
        return y if bias is None else y + bias.reshape(1, -1, *(1,) * (x.ndim - 2))
    def backward(self, g: Any, x: Any, weight: Any) -> Any:
        o = dict(stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups)
        dx = dw = db = None
        if self.needs[0]:
            op = tuple(n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, s, p, d, k in zip(x.shape[2:], g.shape[2:], self.stride, self.padding, self.dilation, weight.shape[2:]))
            dx = ConvTranspose.on(g, weight, None, output_padding=op, **o)
        if self.needs[1]:
            dw = ConvWeightGrad.on(x, g, kernel_size=weight.shape[2:], **o)
        if self.needs[2]:
            db = g.sum(axis=(0, *range(2, g.ndim)))
        return dx, dw, db

class ConvTranspose(Function):
    saves = ("x", "weight")
    stride: Any; padding: Any; dilation: Any; groups: int; output_padding: Any
    def forward(self, x: Array, weight: Array, bias: Array | None) -> Array:
        y = self.kernels.conv_transpose(x, weight, self.stride, self.padding, self.output_padding, self.dilation, self.groups)
        return y if bias is None else y + bias.reshape(1, -1, *(1,) * (x.ndim - 2))
    def backward(self, g: Any, x: Any, weight: Any) -> Any:
        o = dict(stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups)
        return (Conv.on(g, weight, None, **o) if self.needs[0] else None,
            ConvWeightGrad.on(g, x, kernel_size=weight.shape[2:], **o) if self.needs[1] else None,
            g.sum(axis=(0, *range(2, g.ndim))) if self.needs[2] else None)

class ConvWeightGrad(Function):
    saves = ("x", "g")
    stride: Any; padding: Any; dilation: Any; groups: int; kernel_size: Any
    def forward(self, x: Array, g: Array) -> Array:
        return self.kernels.conv_weight_grad(x, g, self.kernel_size, self.stride, self.padding, self.dilation, self.groups)
    def backward(self, h: Any, x: Any, g: Any) -> Any:
        o = dict(stride=self.stride, padding=self.padding, dilation=self.dilation, groups=self.groups)
        op = tuple(n - ((m - 1) * s - 2 * p + d * (k - 1) + 1) for n, m, s, p, d, k in zip(x.shape[2:], g.shape[2:], self.stride, self.padding, self.dilation, self.kernel_size))
        return ConvTranspose.on(g, h, None, output_padding=op, **o) if self.needs[0] else None, Conv.on(x, h, None, **o) if self.needs[1] else None

def _conv(n):
    def f(x, weight, bias=None, stride=1, padding=0, dilation=1, groups=1):
        t = lambda v: (v,) * n if isinstance(v, int) else tuple(v)
        return Conv.apply(x, weight, bias, stride=t(stride), padding=t(padding), dilation=t(dilation), groups=groups)
    return f
def _convt(n):
    def f(x, weight, bias=None, stride=1, padding=0, output_padding=0, groups=1, dilation=1):
        t = lambda v: (v,) * n if isinstance(v, int) else tuple(v)
        return ConvTranspose.apply(x, weight, bias, stride=t(stride), padding=t(padding), dilation=t(dilation), groups=groups, output_padding=t(output_padding))
    return f
conv1d, conv2d, conv3d = _conv(1), _conv(2), _conv(3)
conv_transpose1d, conv_transpose2d, conv_transpose3d = _convt(1), _convt(2), _convt(3)
