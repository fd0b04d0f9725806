"""The operations that `ops.py` measures: how a user of each engine calls them, and on what.

Layers that follow each other in a network are one entry (a norm and its activation), since an
engine may do them at once. PyTorch's activations work in place where its users let them.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from functools import partial
from typing import Any, NamedTuple

import numpy as np

import minigan.functional as F
from minigan import nn
from minigan.backend import to_device
from minigan.tensor import Tensor


class Op(NamedTuple):
    """One operation in both engines.

    Attributes
    ----------
    name, family : see the module's docstring.
    shapes : of the inputs that ask for a gradient.
    ours : makes our function of these inputs.
    theirs : makes PyTorch's, given the module `torch`.
    passes : arrays of the size of the first input that the operation must read or write at least,
        forward and backward.
    flops : of the forward pass, where they count; backward has twice as many.
    """

    name: str
    family: str
    shapes: Sequence[tuple[int, ...]]
    ours: Callable[[], Callable[..., Any]]
    theirs: Callable[[Any], Callable[..., Any]]
    passes: tuple[float, float] = (2, 3)
    flops: float = 0.0


def ops() -> list[Op]:
    """All operations with a forward and a backward pass."""
    return [*norms(), *activations(), *resampling(), *losses(), *products()]


def norms() -> list[Op]:
    """A norm and the activation after it, training mode."""
    found = []

    def batch(n: int, c: int, size: int, slope: float) -> None:
        act = "lrelu" if slope else "relu"
        found.append(
            Op(
                f"batchnorm+{act} {c}@{size} N{n}",
                "norm+act",
                [(n, c, size, size)],
                lambda: nn.Sequential(nn.BatchNorm2d(c), our_act(slope)),
                lambda t: t.nn.Sequential(t.nn.BatchNorm2d(c), their_act(t, slope)),
                (3, 5),
            )
        )

    def instance(c: int, size: int, slope: float) -> None:
        act = "lrelu" if slope else "relu"
        found.append(
            Op(
                f"instancenorm+{act} {c}@{size} N1",
                "norm+act",
                [(1, c, size, size)],
                lambda: nn.Sequential(nn.InstanceNorm2d(c), our_act(slope)),
                lambda t: t.nn.Sequential(t.nn.InstanceNorm2d(c), their_act(t, slope)),
                (3, 5),
            )
        )

    for setting in ((64, 256, 7, 0), (64, 128, 14, 0), (64, 128, 7, 0.2)):
        batch(*setting)
    for setting in ((16, 1024, 4, 0), (16, 256, 16, 0.2), (16, 128, 32, 0)):
        batch(*setting)
    for place in ((64, 128, 0), (128, 64, 0), (256, 32, 0), (256, 16, 0.2)):
        instance(*place)
    for c, size in ((1024, 8), (256, 32), (64, 128)):
        found.append(
            Op(
                f"spade+lrelu {c}@{size} N1",
                "norm+act",
                [(1, c, size, size)] * 3,
                lambda: lambda x, gamma, beta: F.leaky_relu(F.spade(x, gamma, beta), 0.2),
                their_spade,
                (5, 9),
            )
        )
    found += [
        Op(
            "adain 512@32 N4",
            "norm",
            [(4, 512, 32, 32), (4, 512), (4, 512)],
            lambda: F.adain,
            their_adain,
            (3, 5),
        ),
        Op(
            "groupnorm+relu 128@32 N16",
            "norm+act",
            [(16, 128, 32, 32)],
            lambda: nn.Sequential(nn.GroupNorm(8, 128), nn.ReLU()),
            lambda t: t.nn.Sequential(t.nn.GroupNorm(8, 128), t.nn.ReLU(True)),
            (3, 5),
        ),
        Op(
            "pixelnorm 512@16 N16",
            "norm",
            [(16, 512, 16, 16)],
            lambda: F.pixel_norm,
            lambda t: lambda x: x * (x.square().mean(1, keepdim=True) + 1e-8).rsqrt(),
        ),
    ]
    return found


def our_act(slope: float) -> nn.Module:
    return nn.LeakyReLU(slope) if slope else nn.ReLU()


def their_act(torch: Any, slope: float) -> Any:
    return torch.nn.LeakyReLU(slope, True) if slope else torch.nn.ReLU(True)


def their_spade(torch: Any) -> Callable[..., Any]:
    f = torch.nn.functional

    def call(x: Any, gamma: Any, beta: Any) -> Any:
        y = f.batch_norm(x, None, None, training=True) * (1 + gamma) + beta
        return f.leaky_relu(y, 0.2, inplace=True)

    return call


def their_adain(torch: Any) -> Callable[..., Any]:
    def call(x: Any, scale: Any, shift: Any) -> Any:
        y = torch.nn.functional.instance_norm(x)
        return y * (1 + scale[:, :, None, None]) + shift[:, :, None, None]

    return call


def activations() -> list[Op]:
    """Activations by themselves, and with a bias."""
    shape, size = (16, 128, 32, 32), "128@32 N16"
    found = [
        Op(f"{name} {size}", "activation", [shape], partial(same, ours), theirs)
        for name, ours, theirs in (
            ("relu", F.relu, lambda t: t.relu),
            ("lrelu", lambda x: F.leaky_relu(x, 0.2), lambda t: leaky(t, False)),
            ("tanh", F.tanh, lambda t: t.tanh),
            ("sigmoid", F.sigmoid, lambda t: t.sigmoid),
            ("softplus", F.softplus, lambda t: t.nn.functional.softplus),
            ("gelu", F.gelu, lambda t: t.nn.functional.gelu),
            ("silu", F.silu, lambda t: t.nn.functional.silu),
        )
    ]
    found.append(
        Op(
            f"bias+lrelu {size}",
            "activation",
            [shape, (128,)],
            lambda: lambda x, b: F.bias_act(x, b, activation="lrelu", slope=0.2, gain=1.0),
            lambda t: lambda x, b: leaky(t, True)(x + b[:, None, None]),
        )
    )
    found.append(
        Op(
            f"residual sum {size}",
            "activation",
            [shape, shape],
            lambda: lambda x, y: x + y,
            lambda t: lambda x, y: x + y,
            (3, 1),
        )
    )
    return found


def same(function: Any) -> Any:
    return function


def leaky(torch: Any, inplace: bool) -> Callable[[Any], Any]:
    return lambda x: torch.nn.functional.leaky_relu(x, 0.2, inplace=inplace)


def resampling() -> list[Op]:
    """Larger, smaller, padded, blurred."""
    taps = F.setup_filter([1, 3, 3, 1])
    functional: Callable[[Any], Any] = lambda t: t.nn.functional  # noqa: E731

    def pair(name: str, shape: tuple[int, ...], ours: Any, theirs: Any, passes: Any) -> Op:
        return Op(name, "resampling", [shape], lambda: ours, theirs, passes)

    return [
        pair(
            "nearest x2 256@32 N1",
            (1, 256, 32, 32),
            lambda x: F.interpolate(x, scale_factor=2),
            lambda t: lambda x: functional(t).interpolate(x, scale_factor=2),
            (5, 5),
        ),
        pair(
            "bilinear x2 128@32 N4",
            (4, 128, 32, 32),
            lambda x: F.interpolate(x, scale_factor=2, mode="bilinear"),
            lambda t: lambda x: functional(t).interpolate(x, scale_factor=2, mode="bilinear"),
            (5, 5),
        ),
        pair(
            "reflect pad 1 256@32 N1",
            (1, 256, 32, 32),
            lambda x: F.pad(x, 1, "reflect"),
            lambda t: lambda x: functional(t).pad(x, (1, 1, 1, 1), "reflect"),
            (2, 2),
        ),
        pair(
            "avgpool 3 s2 38@128 N2",
            (2, 38, 128, 128),
            lambda x: F.avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            lambda t: lambda x: functional(t).avg_pool2d(x, 3, 2, 1, count_include_pad=False),
            (1.25, 1.25),
        ),
        pair(
            "maxpool 2 64@64 N4",
            (4, 64, 64, 64),
            lambda x: F.max_pool2d(x, 2),
            lambda t: lambda x: functional(t).max_pool2d(x, 2),
            (1.25, 1.25),
        ),
        pair(
            "blur 128@64 N4",
            (4, 128, 64, 64),
            lambda x: F.filter2d(x, taps),
            lambda t: their_blur(t, taps, 128, 1),
            (2, 2),
        ),
        pair(
            "blur and halve 128@64 N4",
            (4, 128, 64, 64),
            lambda x: F.downsample2d(x, taps),
            lambda t: their_blur(t, taps, 128, 2),
            (1.25, 1.25),
        ),
    ]


def their_blur(torch: Any, taps: Any, channels: int, down: int) -> Callable[[Any], Any]:
    """A depthwise convolution, as StyleGAN's reference implementation has it."""
    weights = [torch.tensor(taps)[None, None].repeat(channels, 1, 1, 1)]
    before, after = (2, 1) if down == 1 else (1, 1)
    widths = (before, after, before, after)

    def call(x: Any) -> Any:
        if weights[0].device != x.device:
            weights[0] = weights[0].to(x.device)
        padded = torch.nn.functional.pad(x, widths)
        return torch.nn.functional.conv2d(padded, weights[0], stride=down, groups=channels)

    return call


def losses() -> list[Op]:
    """Scalars of logits and images, and softmax."""
    patch, image, label = (4, 1, 30, 30), (4, 3, 256, 256), (1, 35, 128, 128)
    other = np.random.default_rng(1).standard_normal(image, np.float32)
    labels = np.random.default_rng(1).integers(0, 35, (1, 128, 128))
    g: Callable[[Any], Any] = lambda t: t.nn.functional  # noqa: E731
    ones = np.ones(patch, np.float32)
    return [
        Op(
            "bce with logits 1@30 N4",
            "loss",
            [patch],
            lambda: lambda x: F.binary_cross_entropy_with_logits(x, 1.0),
            lambda t: lambda x: g(t).binary_cross_entropy_with_logits(x, t.ones_like(x)),
            (1, 2),
        ),
        Op(
            "hinge 1@30 N4",
            "loss",
            [patch],
            lambda: lambda x: F.hinge_loss(x, True),
            lambda t: lambda x: g(t).relu(1 - x).mean(),
            (1, 2),
        ),
        Op(
            "mse 1@30 N4",
            "loss",
            [patch],
            lambda: lambda x: F.mse_loss(x, like(x, ones)),
            lambda t: with_target(t, ones, g(t).mse_loss),
            (2, 3),
        ),
        Op(
            "l1 3@256 N4",
            "loss",
            [image],
            lambda: lambda x: F.l1_loss(x, like(x, other)),
            lambda t: with_target(t, other, g(t).l1_loss),
            (2, 3),
        ),
        Op(
            "cross entropy 35@128 N1",
            "loss",
            [label],
            lambda: lambda x: F.cross_entropy(x, like(x, labels)),
            lambda t: with_target(t, labels, g(t).cross_entropy),
            (1, 2),
        ),
        Op(
            "softmax 256x1024 N4",
            "loss",
            [(4, 256, 1024)],
            lambda: lambda x: F.softmax(x, 2),
            lambda t: lambda x: t.softmax(x, 2),
        ),
    ]


_TARGETS: dict[tuple[int, Any, str], tuple[Any, Tensor]] = {}  # the array, which must live on


def like(x: Tensor, array: Any) -> Tensor:
    """The target on x's device and, unless it holds labels, in x's dtype."""
    dtype = x.dtype if array.dtype.kind == "f" else array.dtype
    key = id(array), dtype, x.device
    if key not in _TARGETS:
        moved = to_device(array.astype(dtype, copy=False), x.device)
        _TARGETS[key] = array, Tensor(moved)
    return _TARGETS[key][1]


def with_target(torch: Any, array: Any, loss: Callable[..., Any]) -> Callable[[Any], Any]:
    """A loss with a target, which is brought to x's device once."""
    targets = [torch.tensor(array)]

    def call(x: Any) -> Any:
        if targets[0].device != x.device:
            targets[0] = targets[0].to(x.device)
        return loss(x, targets[0])

    return call


def products() -> list[Op]:
    """Matrix products that are not convolutions."""

    def heads(batch: int, queries: int, keys: int, depth: int, name: str) -> Op:
        q, k = (batch, queries, depth), (batch, keys, depth)
        return Op(
            name,
            "attention",
            [q, k, k],
            lambda: F.scaled_dot_product_attention,
            lambda t: t.nn.functional.scaled_dot_product_attention,
            (2 + 2 * keys / queries, 4 + 4 * keys / queries),
            4.0 * batch * queries * keys * depth,
        )

    def linear(n: int, inputs: int, outputs: int) -> Op:
        return Op(
            f"linear {inputs}->{outputs} N{n}",
            "linear",
            [(n, inputs), (outputs, inputs), (outputs,)],
            lambda: F.linear,
            lambda t: t.nn.functional.linear,
            (1 + outputs / inputs + outputs / n, 2 * (1 + outputs / inputs + outputs / n)),
            2.0 * n * inputs * outputs,
        )

    return [
        heads(4, 1024, 256, 64, "attention 1024x256 d64 N4"),
        heads(4, 4096, 1024, 32, "attention 4096x1024 d32 N4"),
        linear(16, 512, 512),
        linear(256, 128, 128),
        linear(64, 256, 16384),
    ]
