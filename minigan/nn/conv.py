"""Convolution layers in one, two and three dimensions; weights in PyTorch's layout."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

from minigan.errors import ShapeError
from minigan.nn.linear import Weighted
from minigan.ops.conv import (
    conv1d,
    conv2d,
    conv3d,
    conv_transpose1d,
    conv_transpose2d,
    conv_transpose3d,
)
from minigan.tensor import Tensor

Size = int | tuple[int, ...]


class _Conv(Weighted):
    """What Conv and ConvTranspose share: options, and their check."""

    axes: int  # spatial

    def _options(self, in_channels: int, out_channels: int, kernel_size: Size, groups: int) -> None:
        if groups < 1 or in_channels % groups or out_channels % groups:
            raise ShapeError(
                f"{type(self).__name__}: {in_channels} input and {out_channels} output channels "
                f"do not split into {groups} groups",
                fix="choose groups that divides both",
            )
        sizes = (kernel_size,) * self.axes if isinstance(kernel_size, int) else tuple(kernel_size)
        if len(sizes) != self.axes:
            raise ShapeError(
                f"{type(self).__name__}: kernel_size {kernel_size} does not have {self.axes} "
                f"entr{'y' if self.axes == 1 else 'ies'}"
            )
        self.in_channels, self.out_channels = in_channels, out_channels
        self.kernel_size, self.groups = sizes, groups

    def extra_repr(self) -> str:
        text = f"{self.in_channels}, {self.out_channels}, kernel_size={_short(self.kernel_size)}"
        usual = {"stride": 1, "padding": 0, "output_padding": 0, "dilation": 1, "groups": 1}
        for name, default in usual.items():
            value = _short(vars(self).get(name, default))
            if value != default:
                text += f", {name}={value}"
        return text if self.bias is not None else f"{text}, bias=False"


class _ConvNd(_Conv):
    """Cross-correlation; weight (out, in/groups, *kernel_size), bias (out,).

    An axis of length n becomes floor((n + 2 padding - dilation (k - 1) - 1) / stride) + 1.

    Parameters
    ----------
    in_channels, out_channels : maps that come and go.
    kernel_size, stride, padding, dilation : one number, or one for each spatial axis.
    groups : independent parts that the channels are split into.
    bias : whether a number per output channel is added.
    """

    operation: Callable[..., Tensor]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size | str = 0,
        dilation: Size = 1,
        groups: int = 1,
        bias: bool = True,
    ) -> None:
        self._options(in_channels, out_channels, kernel_size, groups)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        shape = (out_channels, in_channels // groups, *self.kernel_size)
        self.reset(shape, out_channels if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.used_weight(), self.used_bias()
        return type(self).operation(
            x, weight, bias, self.stride, self.padding, self.dilation, self.groups
        )


class Conv1d(_ConvNd):
    __doc__ = _ConvNd.__doc__
    axes, operation = 1, staticmethod(conv1d)


class Conv2d(_ConvNd):
    __doc__ = _ConvNd.__doc__
    axes, operation = 2, staticmethod(conv2d)


class Conv3d(_ConvNd):
    __doc__ = _ConvNd.__doc__
    axes, operation = 3, staticmethod(conv3d)


class _ConvTransposeNd(_Conv):
    """The transpose of Conv; weight (in, out/groups, *kernel_size), bias (out,).

    Put stride - 1 zeros between neighbours, then convolve with stride 1. An axis of length n
    becomes (n - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1: kernel 4, stride 2,
    padding 1 doubles it, and kernel 4 turns 1 into 4.

    Parameters
    ----------
    in_channels, out_channels : maps that come and go.
    kernel_size, stride, padding, output_padding, dilation : one number, or one for each axis.
    groups : independent parts that the channels are split into.
    bias : whether a number per output channel is added.
    """

    out_axis = 1
    operation: Callable[..., Tensor]

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        kernel_size: Size,
        stride: Size = 1,
        padding: Size = 0,
        output_padding: Size = 0,
        groups: int = 1,
        bias: bool = True,
        dilation: Size = 1,
    ) -> None:
        self._options(in_channels, out_channels, kernel_size, groups)
        self.stride, self.padding, self.dilation = stride, padding, dilation
        self.output_padding = output_padding
        shape = (in_channels, out_channels // groups, *self.kernel_size)
        self.reset(shape, out_channels if bias else None)

    def forward(self, x: Tensor) -> Tensor:
        weight, bias = self.used_weight(), self.used_bias()
        return type(self).operation(
            x,
            weight,
            bias,
            self.stride,
            self.padding,
            self.output_padding,
            self.groups,
            self.dilation,
        )


class ConvTranspose1d(_ConvTransposeNd):
    __doc__ = _ConvTransposeNd.__doc__
    axes, operation = 1, staticmethod(conv_transpose1d)


class ConvTranspose2d(_ConvTransposeNd):
    __doc__ = _ConvTransposeNd.__doc__
    axes, operation = 2, staticmethod(conv_transpose2d)


class ConvTranspose3d(_ConvTransposeNd):
    __doc__ = _ConvTransposeNd.__doc__
    axes, operation = 3, staticmethod(conv_transpose3d)


def _short(value: Any) -> Any:
    """(4, 4) as 4."""
    if isinstance(value, tuple) and len(set(value)) == 1:
        return value[0]
    return value
