"""Convolution, transposed convolution and the gradient of their weight: one closed family.

With the same weight and options <conv(x, w), g> = <x, conv_transpose(g, w)> =
<w, conv_weight_grad(x, g)>. So the gradients of each of the three are the other two, and
derivatives of every order need no further kernel.
"""

from __future__ import annotations

from typing import Any

from minigan.autograd import Function
from minigan.backend import Array
from minigan.errors import DtypeError, ShapeError, UsageError, did_you_mean
from minigan.ops.shape import Crop, pad_zeros
from minigan.tensor import Tensor

Size = int | tuple[int, ...]


class _Convolution(Function):
    """What the three have in common: options, and each other's calls in terms of lengths."""

    stride: tuple[int, ...]
    padding: tuple[int, ...]
    dilation: tuple[int, ...]
    groups: int

    def options(self) -> dict[str, Any]:
        return {
            "stride": self.stride,
            "padding": self.padding,
            "dilation": self.dilation,
            "groups": self.groups,
        }

    def to_output(self, x: Any, weight: Any, out: tuple[int, ...]) -> Any:
        """conv(x, weight) at the first `out` positions.

        There are more only where x came from a transposed convolution whose output_padding is
        not less than its stride (dilation allows that).
        """
        y = Conv.on(x, weight, None, **self.options())
        if y.shape[2:] == out:
            return y
        surplus = [(0, m - n) for m, n in zip(y.shape[2:], out, strict=True)]
        return Crop.on(y, widths=((0, 0), (0, 0), *surplus))

    def to_input(self, g: Any, weight: Any, lengths: tuple[int, ...]) -> Any:
        """conv_transpose(g, weight) of just these lengths: s of them give the same conv output."""
        options = zip(lengths, g.shape[2:], weight.shape[2:], *self._per_axis(), strict=True)
        extra = tuple(n - transposed_length(m, k, s, p, d) for n, m, k, s, p, d in options)
        return ConvTranspose.on(g, weight, None, output_padding=extra, **self.options())

    def to_weight(self, x: Any, g: Any, kernel_size: tuple[int, ...]) -> Any:
        """conv_weight_grad(x, g), where g belongs to the output of conv."""
        return ConvWeightGrad.on(x, g, kernel_size=kernel_size, **self.options())

    def add_bias(self, y: Array, bias: Array | None) -> Array:
        if bias is not None:
            self.kernels.add_bias(y, bias)  # y was made by the kernel just now
        return y

    def bias_grad(self, g: Any) -> Any:
        """g summed over all but channels. Arrays or Tensors."""
        if isinstance(g, Tensor):
            return g.sum(axis=(0, *range(2, g.ndim)))
        return self.kernels.channel_sum(g)

    def _per_axis(self) -> tuple[tuple[int, ...], ...]:
        return self.stride, self.padding, self.dilation


class Conv(_Convolution):
    """y[n,o,i] = b[o] + sum over c, k of x[n, c, i s - p + k d] w[o,c,k].

    dx = conv_transpose(g, w),   dw = conv_weight_grad(x, g),   db = g summed over n and i.
    """

    saves = ("x", "weight")

    def forward(self, x: Array, weight: Array, bias: Array | None) -> Array:
        y = self.kernels.conv(x, weight, *self._per_axis(), self.groups)
        return self.add_bias(y, bias)

    def backward(self, g: Any, x: Any, weight: Any) -> Any:
        return (
            self.to_input(g, weight, x.shape[2:]) if self.needs[0] else None,
            self.to_weight(x, g, weight.shape[2:]) if self.needs[1] else None,
            self.bias_grad(g) if self.needs[2] else None,
        )


class ConvTranspose(_Convolution):
    """y[n, o, i s - p + k d] += x[n,c,i] w[c,o,k] for all n, c, o, i, k, starting from y = b.

    dx = conv(g, w),   dw = conv_weight_grad(g, x),   db = g summed over n and places.
    """

    output_padding: tuple[int, ...]
    saves = ("x", "weight")

    def forward(self, x: Array, weight: Array, bias: Array | None) -> Array:
        stride, padding, dilation = self._per_axis()
        y = self.kernels.conv_transpose(
            x, weight, stride, padding, self.output_padding, dilation, self.groups
        )
        return self.add_bias(y, bias)

    def backward(self, g: Any, x: Any, weight: Any) -> Any:
        return (
            self.to_output(g, weight, x.shape[2:]) if self.needs[0] else None,
            self.to_weight(g, x, weight.shape[2:]) if self.needs[1] else None,
            self.bias_grad(g) if self.needs[2] else None,
        )


class ConvWeightGrad(_Convolution):
    """w[o,c,k] = sum over n, i of g[n,o,i] x[n, c, i s - p + k d].

    With h the gradient at w: dx = conv_transpose(g, h),   dg = conv(x, h).
    """

    kernel_size: tuple[int, ...]
    saves = ("x", "g")

    def forward(self, x: Array, g: Array) -> Array:
        return self.kernels.conv_weight_grad(x, g, self.kernel_size, *self._per_axis(), self.groups)

    def backward(self, h: Any, x: Any, g: Any) -> Any:
        return (
            self.to_input(g, h, x.shape[2:]) if self.needs[0] else None,
            self.to_output(x, h, g.shape[2:]) if self.needs[1] else None,
        )


def transposed_length(n: int, k: int, s: int, p: int, d: int) -> int:
    """Length of a transposed convolution's output without output_padding."""
    return (n - 1) * s - 2 * p + d * (k - 1) + 1


def conv1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """`conv2d` with one spatial axis: x (N, C, L), weight (O, C/groups, k)."""
    return _conv("conv1d", 1, x, weight, bias, stride, padding, dilation, groups)


def conv2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """y[n,o,i] = b[o] + sum over c, k of x[n, c, i stride - padding + k dilation] w[o,c,k].

    Cross-correlation, as in all deep learning: the kernel is not flipped. An axis of length n
    becomes floor((n + 2 padding - dilation (k - 1) - 1) / stride) + 1.

    Parameters
    ----------
    x : (N, C, H, W)
    weight : (O, C/groups, kh, kw)
    bias : (O,)
    stride, dilation : steps of the kernel and between its taps; one int, or one per axis.
    padding : zeros on both sides; also "valid" (none) or "same" (stride 1: the output is as large
        as the input; an odd zero goes to the end). For other paddings use F.pad before.
    groups : input and output channels are cut into that many parts, convolved separately.

    Raises
    ------
    ShapeError, DtypeError, UsageError
        if ranks, channels, groups, dtypes or options do not fit.
    """
    return _conv("conv2d", 2, x, weight, bias, stride, padding, dilation, groups)


def conv3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size | str = 0,
    dilation: Size = 1,
    groups: int = 1,
) -> Tensor:
    """`conv2d` with three spatial axes: x (N, C, D, H, W), weight (O, C/groups, kd, kh, kw)."""
    return _conv("conv3d", 3, x, weight, bias, stride, padding, dilation, groups)


def conv_transpose1d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """`conv_transpose2d` with one spatial axis: x (N, C, L), weight (C, O/groups, k)."""
    options = stride, padding, output_padding, groups, dilation
    return _conv_transpose("conv_transpose1d", 1, x, weight, bias, *options)


def conv_transpose2d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """The transpose of `conv2d`: input pixel i adds x[n,c,i] w[c,o,k] to output i s - p + k d.

    Equal to interleaving stride - 1 zeros, padding by dilation (k - 1) - padding, and convolving
    with stride one and the flipped kernel. An axis of length n becomes
    (n - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1: kernel 4, stride 2, padding
    1 doubles it, and kernel 4 makes 4 of 1.

    Parameters
    ----------
    x : (N, C, H, W)
    weight : (C, O/groups, kh, kw); note that the input channels come first.
    bias : (O,)
    stride, padding, dilation : of the convolution that this is the transpose of.
    output_padding : rows and columns more at the end, less than stride or dilation.
    groups : input and output channels are cut into that many parts, convolved separately.

    Raises
    ------
    ShapeError, DtypeError, UsageError
        if ranks, channels, groups, dtypes or options do not fit.
    """
    options = stride, padding, output_padding, groups, dilation
    return _conv_transpose("conv_transpose2d", 2, x, weight, bias, *options)


def conv_transpose3d(
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None = None,
    stride: Size = 1,
    padding: Size = 0,
    output_padding: Size = 0,
    groups: int = 1,
    dilation: Size = 1,
) -> Tensor:
    """`conv_transpose2d` with three spatial axes: weight (C, O/groups, kd, kh, kw)."""
    options = stride, padding, output_padding, groups, dilation
    return _conv_transpose("conv_transpose3d", 3, x, weight, bias, *options)


def _conv(
    name: str,
    nd: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Size,
    padding: Size | str,
    dilation: Size,
    groups: int,
) -> Tensor:
    s = _per_axis(name, "stride", stride, nd, 1)
    d = _per_axis(name, "dilation", dilation, nd, 1)
    _check_tensors(name, nd, x, weight, bias)
    where = f"input {x.shape}, weight {weight.shape}, groups {groups}"
    _check_groups(name, groups, x.shape[1], weight.shape[0], where)
    if x.shape[1] != weight.shape[1] * groups:
        raise _channels(name, x, weight.shape[1] * groups, "(out, in / groups, *kernel)", where)
    _check_bias(name, bias, weight.shape[0])
    if isinstance(padding, str):
        x, p = _pad_by_name(name, x, weight, padding, s, d)
    else:
        p = _per_axis(name, "padding", padding, nd, 0)
    _check_reach(name, x, weight, p, d)
    return Conv.apply(x, weight, bias, stride=s, padding=p, dilation=d, groups=groups)


def _conv_transpose(
    name: str,
    nd: int,
    x: Tensor,
    weight: Tensor,
    bias: Tensor | None,
    stride: Size,
    padding: Size,
    output_padding: Size,
    groups: int,
    dilation: Size,
) -> Tensor:
    s = _per_axis(name, "stride", stride, nd, 1)
    p = _per_axis(name, "padding", padding, nd, 0)
    extra = _per_axis(name, "output_padding", output_padding, nd, 0)
    d = _per_axis(name, "dilation", dilation, nd, 1)
    if any(e >= max(a, b) for e, a, b in zip(extra, s, d, strict=True)):
        raise UsageError(
            f"{name}: output_padding {extra} is too large for stride {s} and dilation {d}",
            why="output_padding chooses among the lengths that the convolution makes equal",
            fix="keep it below max(stride, dilation) on each axis, or pad the result with F.pad",
        )
    _check_tensors(name, nd, x, weight, bias)
    where = f"input {x.shape}, weight {weight.shape}, groups {groups}"
    _check_groups(name, groups, x.shape[1], weight.shape[1] * groups, where)
    if x.shape[1] != weight.shape[0]:
        raise _channels(name, x, weight.shape[0], "(in, out / groups, *kernel)", where)
    _check_bias(name, bias, weight.shape[1] * groups)
    options = zip(x.shape[2:], weight.shape[2:], s, p, d, extra, strict=True)
    out = tuple(transposed_length(*option) + e for *option, e in options)
    if min(out) < 1:
        raise ShapeError(
            f"{name}: nothing is left, the output would have size {out}",
            where=f"{where}, stride {s}, padding {p}, dilation {d}, output_padding {extra}",
            why="its size is (n - 1) stride - 2 padding + dilation (k - 1) + output_padding + 1",
            fix="use less padding",
        )
    options_by_name = {"stride": s, "padding": p, "dilation": d, "groups": groups}
    return ConvTranspose.apply(x, weight, bias, output_padding=extra, **options_by_name)


def _per_axis(name: str, option: str, value: Any, nd: int, low: int) -> tuple[int, ...]:
    """An option as one int per spatial axis, each at least `low`."""
    values = tuple(value) if isinstance(value, tuple | list) else (value,) * nd
    if len(values) != nd or not all(_is_int(v) and v >= low for v in values):
        raise UsageError(
            f"{name}: {option} is {value!r}",
            why=f"it is an int, or one int per spatial axis (here {nd}), each at least {low}",
            fix="F.pad crops with negative widths" if option == "padding" else "",
        )
    return tuple(int(v) for v in values)


def _is_int(value: Any) -> bool:
    return hasattr(value, "__index__") and not isinstance(value, bool)


def _check_tensors(name: str, nd: int, x: Tensor, weight: Tensor, bias: Tensor | None) -> None:
    """Ranks, empty axes and dtypes."""
    shapes = f"input {x.shape}, weight {weight.shape}"
    if x.ndim != nd + 2 or weight.ndim != nd + 2:
        wrong, t = ("input", x) if x.ndim != nd + 2 else ("weight", weight)
        unbatched = t is x and x.ndim == nd + 1
        raise ShapeError(
            f"{name}: {wrong} has {t.ndim} axes, not {nd + 2}",
            where=shapes,
            why=f"input is (N, C, *spatial) with {nd} spatial ax{'i' if nd == 1 else 'e'}s",
            fix="add a batch axis: x.reshape((1, *x.shape))" if unbatched else "",
        )
    if 0 in x.shape[1:] or 0 in weight.shape:
        raise ShapeError(f"{name}: an axis is empty", where=shapes, why="only N may be 0")
    dtypes = {t.dtype for t in (x, weight, bias) if t is not None}
    if len(dtypes) > 1 or x.dtype.kind != "f":
        bias_dtype = "" if bias is None else f", bias {bias.dtype}"
        raise DtypeError(
            f"{name}: input is {x.dtype}, weight {weight.dtype}{bias_dtype}",
            where=shapes,
            why="all are float32, or all float64; nothing is converted silently",
            fix=f"convert the input: x.astype('{weight.dtype}')" if x.dtype != weight.dtype else "",
        )


def _check_groups(name: str, groups: Any, inputs: int, outputs: int, where: str) -> None:
    if not _is_int(groups) or groups < 1:
        raise UsageError(f"{name}: groups is {groups!r}, not a positive int")
    if inputs % groups or outputs % groups:
        raise ShapeError(
            f"{name}: {inputs} input and {outputs} output channels do not divide into "
            f"{groups} groups",
            where=where,
            why="each group takes an equal part of both",
            fix="choose groups that divides both numbers of channels",
        )


def _channels(name: str, x: Tensor, expected: int, layout: str, where: str) -> ShapeError:
    return ShapeError(
        f"{name}: input has {x.shape[1]} channels, weight expects {expected}",
        where=where,
        why=f"the weight is {layout}",
        fix=f"build the layer with in_channels={x.shape[1]}, or give it {expected} channels",
    )


def _check_bias(name: str, bias: Tensor | None, outputs: int) -> None:
    if bias is not None and bias.shape != (outputs,):
        raise ShapeError(
            f"{name}: bias has shape {bias.shape}, not ({outputs},)",
            why="it holds one number per output channel",
        )


def _check_reach(
    name: str, x: Tensor, weight: Tensor, padding: tuple[int, ...], dilation: tuple[int, ...]
) -> None:
    padded = tuple(n + 2 * p for n, p in zip(x.shape[2:], padding, strict=True))
    reach = tuple(d * (k - 1) + 1 for k, d in zip(weight.shape[2:], dilation, strict=True))
    if any(r > n for r, n in zip(reach, padded, strict=True)):
        raise ShapeError(
            f"{name}: the kernel covers {reach}, the padded input has only {padded}",
            where=f"input {x.shape}, weight {weight.shape}, padding {padding}, dilation {dilation}",
            why="a kernel covers dilation (k - 1) + 1 places and must fit in n + 2 padding",
            fix="use larger images, fewer down-sampling layers, or more padding",
        )


def _pad_by_name(
    name: str,
    x: Tensor,
    weight: Tensor,
    padding: str,
    stride: tuple[int, ...],
    dilation: tuple[int, ...],
) -> tuple[Tensor, tuple[int, ...]]:
    """The input and the symmetric padding that "valid" or "same" stand for."""
    if padding == "valid":
        return x, (0,) * len(stride)
    if padding != "same":
        raise UsageError(
            f"{name}: unknown padding {padding!r}{did_you_mean(padding, ['same', 'valid'])}",
            fix="use 'same', 'valid', an int, or one int per spatial axis",
        )
    if set(stride) != {1}:
        raise UsageError(
            f"{name}: padding 'same' with stride {stride}",
            why="with a stride the output cannot be as large as the input",
            fix="give the padding in numbers, or F.pad before",
        )
    total = [d * (k - 1) for k, d in zip(weight.shape[2:], dilation, strict=True)]
    if any(t % 2 for t in total):  # an even kernel: the odd zero goes to the end
        x = pad_zeros(x, [(0, 0), (0, 0), *[(0, t % 2) for t in total]])
    return x, tuple(t // 2 for t in total)
