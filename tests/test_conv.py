"""Conventions, higher derivatives and messages of the convolutions. Properties: specs/conv.py."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from minigan_kernels import reference
from opspec import Array, close

import minigan as mg
import minigan.functional as F
from minigan.autograd import hook
from minigan.errors import DtypeError, MiniganError, ShapeError, UsageError
from minigan.ops.conv import ConvTranspose, ConvWeightGrad
from minigan.tensor import Tensor


def of(rng: np.random.Generator, *shape: int, grad: bool = False, dtype: Any = None) -> Tensor:
    """A tensor of normal values, float64 unless said otherwise."""
    return mg.tensor(rng.standard_normal(shape).astype(dtype or np.float64), requires_grad=grad)


def zeros(*shape: int) -> Tensor:
    return mg.tensor(np.zeros(shape, np.float32))


# Conventions -----------------------------------------------------------------------------------


def test_correlation_by_hand() -> None:
    x = mg.tensor(np.arange(1.0, 10.0).reshape(1, 1, 3, 3))
    weight = mg.tensor(np.array([[[[1.0, 10.0], [100.0, 1000.0]]]]))
    y = F.conv2d(x, weight, mg.tensor(np.array([0.5])))
    # top left: 1*1 + 10*2 + 100*4 + 1000*5, not flipped
    assert np.array_equal(y.data, [[[[5421.5, 6532.5], [8754.5, 9865.5]]]])


def test_transposed_by_hand() -> None:
    x = mg.tensor(np.array([[[1.0, 2.0]]]))
    weight = mg.tensor(np.array([[[1.0, 10.0, 100.0]]]))
    assert F.conv_transpose1d(x, weight).data.tolist() == [[[1, 12, 120, 200]]]
    assert F.conv_transpose1d(x, weight, stride=2).data.tolist() == [[[1, 10, 102, 20, 200]]]
    # padding crops both ends; output_padding gives back at the end only
    assert F.conv_transpose1d(x, weight, stride=2, padding=1).data.tolist() == [[[10, 102, 20]]]
    longer = F.conv_transpose1d(x, weight, stride=2, padding=1, output_padding=1)
    assert longer.data.tolist() == [[[10, 102, 20, 200]]]


@pytest.mark.parametrize(
    ("kernel", "stride", "padding", "extra", "before", "after"),
    [(4, 2, 1, 0, 7, 14), (3, 2, 1, 1, 7, 14), (4, 1, 0, 0, 1, 4), (7, 1, 0, 0, 1, 7)],
)
def test_sizes_that_generators_use(
    kernel: int, stride: int, padding: int, extra: int, before: int, after: int
) -> None:
    x, weight = zeros(2, 3, before, before), zeros(3, 5, kernel, kernel)
    y = F.conv_transpose2d(x, weight, None, stride, padding, extra)
    assert y.shape == (2, 5, after, after)


def test_a_group_sees_its_own_channels_only(rng: np.random.Generator) -> None:
    x, weight = of(rng, 2, 4, 5, 5), of(rng, 6, 2, 3, 3)
    y = F.conv2d(x, weight, groups=2).data
    low = F.conv2d(x[:, :2], weight[:3]).data
    high = F.conv2d(x[:, 2:], weight[3:]).data
    close(y, np.concatenate([low, high], axis=1), 1e-12, "groups")


@pytest.mark.parametrize("kernel", [1, 2, 3, 4, 5])
@pytest.mark.parametrize("dilation", [1, 2, 3])
def test_same_keeps_the_size_and_puts_the_odd_zero_last(kernel: int, dilation: int) -> None:
    impulse = np.zeros((1, 1, 15))
    impulse[0, 0, 7] = 1
    taps = np.arange(1.0, kernel + 1)
    y = F.conv1d(mg.tensor(impulse), mg.tensor(taps[None, None]), padding="same", dilation=dilation)
    assert y.shape == (1, 1, 15)
    # tap k sees the impulse from output 7 - k dilation + (zeros before)
    before = dilation * (kernel - 1) // 2
    places = [7 - k * dilation + before for k in range(kernel)]
    assert [y.data[0, 0, i] for i in places] == taps.tolist()


def test_valid_means_no_padding(rng: np.random.Generator) -> None:
    x, weight = of(rng, 1, 2, 6, 6), of(rng, 3, 2, 3, 3)
    y = F.conv2d(x, weight, stride=2, padding="valid")
    assert np.array_equal(y.data, F.conv2d(x, weight, stride=2).data)


def test_nan_in_the_weight_of_a_transposed_convolution_comes_through(
    rng: np.random.Generator,
) -> None:
    x, weight = of(rng, 1, 2, 3, 3), of(rng, 2, 1, 3, 3)
    weight.data[0, 0, 1, 1] = np.nan
    y = F.conv_transpose2d(x, weight, stride=2)
    assert np.isnan(y.data[0, 0, 1::2, 1::2]).all()
    assert np.isnan(y.data).sum() == 9


def test_empty_batch_has_empty_result_and_zero_weight_gradient(rng: np.random.Generator) -> None:
    x, weight = of(rng, 0, 3, 8, 8, grad=True), of(rng, 4, 3, 4, 4, grad=True)
    bias = of(rng, 4, grad=True)
    y = F.conv2d(x, weight, bias, stride=2, padding=1)
    z = F.conv_transpose2d(y, weight, stride=2, padding=1)
    assert y.shape == (0, 4, 4, 4) and z.shape == x.shape
    dx, dw, db = mg.grad(z.sum() + y.sum(), [x, weight, bias])
    assert dx is not None and dx.shape == x.shape
    assert dw is not None and db is not None and not dw.data.any() and not db.data.any()


def test_options_may_be_numpy_integers_and_lists(rng: np.random.Generator) -> None:
    x, weight = of(rng, 1, 2, 6, 6), of(rng, 3, 2, 3, 3)
    y = F.conv2d(x, weight, stride=np.int64(2), padding=[1, 0])  # type: ignore[arg-type]
    assert np.array_equal(y.data, F.conv2d(x, weight, stride=2, padding=(1, 0)).data)


def test_the_result_of_the_kernel_is_not_shared_with_an_input(rng: np.random.Generator) -> None:
    """The bias is added in place, to memory that is nobody else's."""
    x = mg.tensor(np.ones((1, 1, 1, 1)))
    weight, bias = mg.tensor(np.ones((1, 1, 1, 1))), mg.tensor(np.ones(1))
    for fn in (F.conv2d, F.conv_transpose2d):
        assert fn(x, weight, bias).item() == 2
        assert x.item() == weight.item() == bias.item() == 1


# Derivatives -----------------------------------------------------------------------------------

SETTINGS: list[dict[str, Any]] = [
    {},
    {"stride": 2, "padding": 1},
    {"stride": (3, 2), "padding": (0, 2), "dilation": (1, 2)},
    {"stride": (2, 4), "padding": (2, 1), "dilation": (4, 2)},
    {"padding": 1, "groups": 2},
]


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_conv_to_third_order(options: dict[str, Any], rng: np.random.Generator) -> None:
    groups = options.get("groups", 1)
    x, weight = rng.standard_normal((2, 2, 9, 6)), rng.standard_normal((2, 2 // groups, 3, 2))
    bias = rng.standard_normal(2)
    mg.check.gradcheck(lambda *a: F.conv2d(*a, **options).tanh(), [x, weight, bias], order=3)


@pytest.mark.parametrize("options", SETTINGS, ids=str)
def test_conv_transpose_to_third_order(options: dict[str, Any], rng: np.random.Generator) -> None:
    groups = options.get("groups", 1)
    extra = tuple(
        max(s, d) - 1
        for s, d in zip(per_axis(options, "stride"), per_axis(options, "dilation"), strict=True)
    )
    x, weight = rng.standard_normal((2, 2, 3, 2)), rng.standard_normal((2, 2 // groups, 3, 2))
    bias = rng.standard_normal(2)

    def fn(*args: Tensor) -> Tensor:
        return F.conv_transpose2d(*args, output_padding=extra, **options).tanh()

    mg.check.gradcheck(fn, [x, weight, bias], order=3)


def per_axis(options: dict[str, Any], name: str) -> tuple[int, ...]:
    value = options.get(name, 1)
    return (value, value) if isinstance(value, int) else value


def test_output_padding_of_a_whole_stride_is_cropped_in_the_gradient(
    rng: np.random.Generator,
) -> None:
    """conv has more outputs there than the transposed convolution has inputs."""
    x, weight = of(rng, 1, 1, 4, grad=True), of(rng, 1, 1, 3, grad=True)
    y = F.conv_transpose1d(x, weight, stride=1, dilation=4, output_padding=3)
    assert y.shape == (1, 1, 15)
    g = rng.standard_normal(y.shape)
    dx, dw = mg.grad(y, [x, weight], g)
    assert dx is not None and dw is not None
    taps = [g[0, 0, 4 * k : 4 * k + 4] for k in range(3)]
    expected = sum(w * t for w, t in zip(weight.data[0, 0], taps, strict=True))
    close(dx.data[0, 0], expected, 1e-12, "dx")
    close(dw.data[0, 0], np.array([t @ x.data[0, 0] for t in taps]), 1e-12, "dw")


def test_double_backward_needs_no_other_operation(rng: np.random.Generator) -> None:
    """A gradient recorded for double backward consists of the family itself."""
    x, weight = of(rng, 1, 2, 6, 6, grad=True), of(rng, 3, 2, 3, 3, grad=True)
    seen: set[type] = set()

    class Watch:
        def forward(self, node: Any, arrays: Any, out: Any) -> None:
            seen.add(type(node))

        def backward(self, node: Any, g: Any, grads: Any) -> None: ...

    y = F.conv2d(x, weight, stride=2)
    with hook(Watch()):
        dx, dw = mg.grad(y, [x, weight], rng.standard_normal(y.shape), create_graph=True)
        assert dx is not None and dw is not None
    assert seen == {ConvTranspose, ConvWeightGrad}


def test_gradient_penalty_through_a_discriminator(rng: np.random.Generator) -> None:
    """The gradient of |grad_x D(x)|^2 with respect to the weights, against finite differences."""
    x = rng.standard_normal((2, 1, 8, 8))
    shapes = [(2, 1, 4, 4), (3, 2, 4, 4), (1, 3, 2, 2)]
    weights = [rng.standard_normal(s) for s in shapes]

    def penalty(*weights: Tensor) -> Tensor:
        h = image = mg.tensor(x, requires_grad=True)
        h = F.conv2d(h, weights[0], stride=2, padding=1).tanh()
        h = F.conv2d(h, weights[1], stride=2, padding=1).tanh()
        (g,) = mg.grad(F.conv2d(h, weights[2]).sum(), [image], create_graph=True)
        assert g is not None
        return (g * g).sum()

    mg.check.gradcheck(penalty, weights, order=2)


def test_needs_are_respected(rng: np.random.Generator) -> None:
    """A frozen weight or a constant image costs no kernel call."""
    x, weight = of(rng, 1, 2, 6, 6), of(rng, 3, 2, 3, 3, grad=True)
    called: list[str] = []

    class Kernels:
        def __getattr__(self, name: str) -> Callable[..., Array]:
            called.append(name)
            return getattr(reference, name)  # type: ignore[no-any-return]

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(mg.backend.CPU, "_kernels", Kernels())
        y = F.conv2d(x, weight)
        mg.grad(y.sum(), [weight])
    assert called == ["conv", "conv_weight_grad"]


# Messages --------------------------------------------------------------------------------------


def message(call: Callable[[], Any], kind: type[MiniganError]) -> str:
    with pytest.raises(kind) as info:
        call()
    return str(info.value)


def test_message_channels() -> None:
    text = message(lambda: F.conv2d(zeros(8, 3, 32, 32), zeros(16, 4, 3, 3)), ShapeError)
    assert text == (
        "conv2d: input has 3 channels, weight expects 4\n"
        "  where: input (8, 3, 32, 32), weight (16, 4, 3, 3), groups 1\n"
        "  why: the weight is (out, in / groups, *kernel)\n"
        "  fix: build the layer with in_channels=3, or give it 4 channels"
    )
    text = message(lambda: F.conv_transpose2d(zeros(8, 3, 4, 4), zeros(4, 2, 3, 3)), ShapeError)
    assert text.startswith("conv_transpose2d: input has 3 channels, weight expects 4\n")
    assert "(in, out / groups, *kernel)" in text


def test_message_kernel_does_not_fit() -> None:
    def call() -> Tensor:
        return F.conv2d(zeros(1, 3, 3, 8), zeros(4, 3, 4, 4), padding=1, dilation=2)

    assert message(call, ShapeError) == (
        "conv2d: the kernel covers (7, 7), the padded input has only (5, 10)\n"
        "  where: input (1, 3, 3, 8), weight (4, 3, 4, 4), padding (1, 1), dilation (2, 2)\n"
        "  why: a kernel covers dilation (k - 1) + 1 places and must fit in n + 2 padding\n"
        "  fix: use larger images, fewer down-sampling layers, or more padding"
    )


def test_message_rank() -> None:
    text = message(lambda: F.conv2d(zeros(3, 8, 8), zeros(4, 3, 3, 3)), ShapeError)
    assert text == (
        "conv2d: input has 3 axes, not 4\n"
        "  where: input (3, 8, 8), weight (4, 3, 3, 3)\n"
        "  why: input is (N, C, *spatial) with 2 spatial axes\n"
        "  fix: add a batch axis: x.reshape((1, *x.shape))"
    )
    text = message(lambda: F.conv1d(zeros(2, 3, 8), zeros(4, 3, 3, 3)), ShapeError)
    assert text.startswith("conv1d: weight has 4 axes, not 3") and "1 spatial axis\n" in text + "\n"


def test_message_output_padding() -> None:
    def call() -> Tensor:
        return F.conv_transpose2d(zeros(1, 3, 4, 4), zeros(3, 4, 3, 3), stride=2, output_padding=2)

    assert message(call, UsageError) == (
        "conv_transpose2d: output_padding (2, 2) is too large for stride (2, 2) "
        "and dilation (1, 1)\n"
        "  why: output_padding chooses among the lengths that the convolution makes equal\n"
        "  fix: keep it below max(stride, dilation) on each axis, or pad the result with F.pad"
    )


def test_message_nothing_left() -> None:
    def call() -> Tensor:
        return F.conv_transpose1d(zeros(1, 1, 1), zeros(1, 1, 3), padding=2)

    text = message(call, ShapeError)
    assert text.startswith("conv_transpose1d: nothing is left, the output would have size (-1,)\n")


def test_message_dtypes(rng: np.random.Generator) -> None:
    pixels = mg.tensor(np.zeros((1, 3, 8, 8), np.uint8))
    text = message(lambda: F.conv2d(pixels, zeros(4, 3, 3, 3)), DtypeError)
    assert text == (
        "conv2d: input is uint8, weight float32\n"
        "  where: input (1, 3, 8, 8), weight (4, 3, 3, 3)\n"
        "  why: all are float32, or all float64; nothing is converted silently\n"
        "  fix: convert the input: x.astype('float32')"
    )
    mixed = message(lambda: F.conv2d(of(rng, 1, 3, 8, 8), zeros(4, 3, 3, 3)), DtypeError)
    assert mixed.startswith("conv2d: input is float64, weight float32\n")
    bias = mg.tensor(np.zeros(4))
    text = message(lambda: F.conv2d(zeros(1, 3, 8, 8), zeros(4, 3, 3, 3), bias), DtypeError)
    assert text.startswith("conv2d: input is float32, weight float32, bias float64\n")


@pytest.mark.parametrize(
    ("options", "text"),
    [
        ({"stride": 0}, "conv2d: stride is 0\n"),
        ({"stride": (1, 2, 1)}, "conv2d: stride is (1, 2, 1)\n"),
        ({"stride": 1.5}, "conv2d: stride is 1.5\n"),
        ({"dilation": (1, 0)}, "conv2d: dilation is (1, 0)\n"),
        ({"padding": -1}, "conv2d: padding is -1\n"),
        ({"padding": "smae"}, "conv2d: unknown padding 'smae' (did you mean 'same'?)\n"),
        ({"padding": "same", "stride": 2}, "conv2d: padding 'same' with stride (2, 2)\n"),
        ({"groups": 0}, "conv2d: groups is 0, not a positive int"),
        ({"groups": True}, "conv2d: groups is True, not a positive int"),
    ],
    ids=str,
)
def test_messages_of_options(options: dict[str, Any], text: str) -> None:
    found = message(lambda: F.conv2d(zeros(1, 4, 8, 8), zeros(4, 4, 3, 3), **options), UsageError)
    assert found.startswith(text)


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        (((1, 6, 8, 8), (4, 2, 3, 3)), "6 input and 4 output channels do not divide into 3 groups"),
        (((1, 5, 8, 8), (6, 2, 3, 3)), "5 input and 6 output channels do not divide into 3 groups"),
        (((1, 6, 8, 8), (6, 2, 3, 3), (5,)), "bias has shape (5,), not (6,)"),
        (((1, 6, 0, 8), (6, 2, 3, 3)), "an axis is empty"),
        (((1, 6, 8, 8), (6, 2, 0, 3)), "an axis is empty"),
    ],
    ids=str,
)
def test_messages_of_shapes(shapes: tuple[tuple[int, ...], ...], text: str) -> None:
    tensors = [zeros(*shape) for shape in shapes]
    found = message(lambda: F.conv2d(*tensors, groups=3), ShapeError)
    assert found.startswith(f"conv2d: {text}")


# PyTorch ---------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("nd", [1, 2, 3])
@pytest.mark.parametrize("options", [*SETTINGS, {"padding": "same", "dilation": 3}], ids=str)
def test_torch_agrees_to_second_order(
    options: dict[str, Any], nd: int, rng: np.random.Generator
) -> None:
    """Values, gradients, and the gradient of the squared gradients."""
    torch = pytest.importorskip("torch")
    options = {
        name: (value * nd)[:nd] if isinstance(value, tuple) else value
        for name, value in options.items()
    }
    groups, side = options.get("groups", 1), {1: 14, 2: 11, 3: 9}[nd]
    x = rng.standard_normal((2, 4, *(side,) * nd))
    weight = rng.standard_normal((4, 4 // groups, *(3, 2, 3)[:nd]))
    bias = rng.standard_normal(4)
    names = [f"conv{nd}d"] + [f"conv_transpose{nd}d"] * ("same" not in options.values())
    for name in names:
        ours = [mg.tensor(a, requires_grad=True) for a in (x, weight, bias)]
        theirs = [torch.tensor(a, requires_grad=True) for a in (x, weight, bias)]
        y = getattr(F, name)(*ours, **options)
        t = getattr(torch.nn.functional, name)(*theirs, **options)
        close(y.data, t.detach().numpy(), 1e-12, name)
        g = rng.standard_normal(y.shape)
        found = mg.grad(y, ours, mg.tensor(g), create_graph=True)
        expected = torch.autograd.grad(t, theirs, torch.tensor(g), create_graph=True)
        second = mg.grad((found[0] * found[0]).sum() + (found[1] * found[1]).sum(), ours[:2])
        squares = sum((e * e).sum() for e in expected[:2])
        both = zip(
            [*found, *second],
            [*expected, *torch.autograd.grad(squares, theirs[:2])],
            ["dx", "dw", "db", "ddx", "ddw"],
            strict=True,
        )
        for a, b, what in both:
            close(a.data, b.detach().numpy(), 1e-12, f"{name} {what}")
