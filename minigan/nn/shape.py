"""Modules that move numbers without computing: reshape, pad, resize, pool, drop, shuffle."""

from __future__ import annotations

from collections.abc import Sequence

from minigan.nn.module import Module
from minigan.ops.dropout import dropout, dropout2d
from minigan.ops.pad import pad
from minigan.ops.pool import adaptive_avg_pool2d, avg_pool2d, max_pool2d
from minigan.ops.resample import interpolate
from minigan.ops.shape import flatten
from minigan.ops.shuffle import minibatch_stddev, pixel_shuffle, pixel_unshuffle
from minigan.tensor import Tensor

Size = int | tuple[int, ...]


class Identity(Module):
    """y = x: stands where an optional layer is left out."""

    def forward(self, x: Tensor) -> Tensor:
        return x


class Flatten(Module):
    """Axes start_dim to end_dim as one."""

    def __init__(self, start_dim: int = 1, end_dim: int = -1) -> None:
        self.start_dim, self.end_dim = start_dim, end_dim

    def forward(self, x: Tensor) -> Tensor:
        return flatten(x, self.start_dim, self.end_dim)


class Unflatten(Module):
    """Axis `dim` as several of the lengths `sizes`: Unflatten(1, (512, 4, 4)) after a Linear."""

    def __init__(self, dim: int, sizes: Sequence[int]) -> None:
        self.dim, self.sizes = dim, tuple(sizes)

    def forward(self, x: Tensor) -> Tensor:
        dim = self.dim % x.ndim
        return x.reshape(*x.shape[:dim], *self.sizes, *x.shape[dim + 1 :])

    def extra_repr(self) -> str:
        return f"{self.dim}, {self.sizes}"


class Reshape(Module):
    """Each sample in another shape: Reshape(512, 4, 4) makes (N, 512, 4, 4)."""

    def __init__(self, *shape: int) -> None:
        self.shape = shape

    def forward(self, x: Tensor) -> Tensor:
        return x.reshape(x.shape[0], *self.shape)

    def extra_repr(self) -> str:
        return ", ".join(map(str, self.shape))


class _Pad(Module):
    """More pixels around an image.

    Parameters
    ----------
    padding : one number for all four sides, or (left, right, top, bottom).
    """

    mode: str

    def __init__(self, padding: Size) -> None:
        self.padding = (padding,) * 4 if isinstance(padding, int) else tuple(padding)

    def forward(self, x: Tensor) -> Tensor:
        return pad(x, self.padding, self.mode)

    def extra_repr(self) -> str:
        return f"{self.padding}"


class ZeroPad2d(_Pad):
    __doc__ = f"{_Pad.__doc__}\n    They are zero."
    mode = "constant"


class ReflectionPad2d(_Pad):
    __doc__ = f"{_Pad.__doc__}\n    They mirror the inside; the border itself is not repeated."
    mode = "reflect"


class ReplicationPad2d(_Pad):
    __doc__ = f"{_Pad.__doc__}\n    They repeat the border."
    mode = "replicate"


class Upsample(Module):
    """Resize the spatial axes to `size`, or by `scale_factor`.

    Parameters
    ----------
    size, scale_factor : one of the two; one number, or one per axis.
    mode : "nearest", "bilinear", ...: see `functional.interpolate`.
    align_corners : where corner pixels of in- and output meet (linear modes).
    """

    def __init__(
        self,
        size: Size | None = None,
        scale_factor: float | tuple[float, ...] | None = None,
        mode: str = "nearest",
        align_corners: bool = False,
    ) -> None:
        self.size, self.scale_factor = size, scale_factor
        self.mode, self.align_corners = mode, align_corners

    def forward(self, x: Tensor) -> Tensor:
        return interpolate(x, self.size, self.scale_factor, self.mode, self.align_corners)

    def extra_repr(self) -> str:
        target = f"size={self.size}" if self.size else f"scale_factor={self.scale_factor}"
        return f"{target}, mode='{self.mode}'"


class AvgPool2d(Module):
    """Means of windows. count_include_pad=False divides by the number of true pixels only."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        ceil_mode: bool = False,
        count_include_pad: bool = True,
    ) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.ceil_mode, self.count_include_pad = ceil_mode, count_include_pad

    def forward(self, x: Tensor) -> Tensor:
        return avg_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.ceil_mode, self.count_include_pad
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class AdaptiveAvgPool2d(Module):
    """Means of as many windows as `output_size` says."""

    def __init__(self, output_size: int | tuple[int | None, ...]) -> None:
        self.output_size = output_size

    def forward(self, x: Tensor) -> Tensor:
        return adaptive_avg_pool2d(x, self.output_size)

    def extra_repr(self) -> str:
        return f"{self.output_size}"


class MaxPool2d(Module):
    """Largest values of windows."""

    def __init__(
        self,
        kernel_size: Size,
        stride: Size | None = None,
        padding: Size = 0,
        dilation: Size = 1,
        ceil_mode: bool = False,
    ) -> None:
        self.kernel_size, self.stride, self.padding = kernel_size, stride, padding
        self.dilation, self.ceil_mode = dilation, ceil_mode

    def forward(self, x: Tensor) -> Tensor:
        return max_pool2d(
            x, self.kernel_size, self.stride, self.padding, self.dilation, self.ceil_mode
        )

    def extra_repr(self) -> str:
        return f"kernel_size={self.kernel_size}, stride={self.stride}, padding={self.padding}"


class PixelShuffle(Module):
    """(N, C r^2, H, W) -> (N, C, H r, W r): channels become pixels."""

    def __init__(self, upscale_factor: int) -> None:
        self.upscale_factor = upscale_factor

    def forward(self, x: Tensor) -> Tensor:
        return pixel_shuffle(x, self.upscale_factor)

    def extra_repr(self) -> str:
        return f"{self.upscale_factor}"


class PixelUnshuffle(Module):
    """(N, C, H r, W r) -> (N, C r^2, H, W): pixels become channels."""

    def __init__(self, downscale_factor: int) -> None:
        self.downscale_factor = downscale_factor

    def forward(self, x: Tensor) -> Tensor:
        return pixel_unshuffle(x, self.downscale_factor)

    def extra_repr(self) -> str:
        return f"{self.downscale_factor}"


class Dropout(Module):
    """While training each element is 0 with probability p, the others are divided by 1 - p."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"{self.p}"


class Dropout2d(Module):
    """While training each map of each sample is 0 with probability p, the others over 1 - p."""

    def __init__(self, p: float = 0.5) -> None:
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        return dropout2d(x, self.p, self.training)

    def extra_repr(self) -> str:
        return f"{self.p}"


class MinibatchStdDev(Module):
    """Appends maps that say how much the samples of a group differ (ProGAN).

    Parameters
    ----------
    group_size : samples that are compared; smaller if the batch does not split so.
    num_channels : maps to append, each for a part of the channels.
    eps : added to the variance.
    """

    def __init__(self, group_size: int = 4, num_channels: int = 1, *, eps: float = 1e-8) -> None:
        self.group_size, self.num_channels, self.eps = group_size, num_channels, eps

    def forward(self, x: Tensor) -> Tensor:
        return minibatch_stddev(x, self.group_size, self.num_channels, self.eps)
