"""Residual blocks, self-attention and batch norm that a vector steers."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np
import pytest

import minigan as mg
import minigan.functional as F
from minigan import nn
from minigan.check import gradcheck
from minigan.errors import ShapeError
from minigan.nn import init
from minigan.nn.blocks import DownBlock, SelfAttention, UpBlock, VectorBatchNorm2d
from minigan.tensor import Tensor

N, C, SIDE = 2, 2, 4


def floats(*shape: int, seed: int = 0) -> Tensor:
    return mg.tensor(np.random.default_rng(seed).standard_normal(shape))


def built(make: Callable[[], Any], seed: int = 7) -> Any:
    """A block in float64 with weights and biases all different from 0, and from one another."""
    mg.manual_seed(1)
    block = make().astype("float64")
    rng = np.random.default_rng(seed)
    for p in block.parameters():
        p.data = rng.standard_normal(p.shape) * 0.5
    for module in block.modules():
        if isinstance(module, nn.SpectralNorm):
            module.iterate(rng.standard_normal((len(module.u), len(module.v))), 3)
    return block


LABELS = mg.tensor([2, 0])
VECTORS = floats(N, 5, seed=3)
TABLES = partial(nn.ConditionalBatchNorm2d, num_classes=3)
STEERED = partial(VectorBatchNorm2d, condition_dim=5)

CASES: dict[str, tuple[Callable[[], Any], tuple[Tensor, ...]]] = {
    "up": (lambda: UpBlock(C, 3), ()),
    "up bilinear": (lambda: UpBlock(C, C, mode="bilinear"), ()),
    "up with classes": (lambda: UpBlock(C, 3, TABLES), (LABELS,)),
    "up with vectors": (lambda: UpBlock(C, 3, STEERED, spectral=True), (VECTORS,)),
    "flat": (lambda: UpBlock(C, C, upsample=False), ()),
    "down": (lambda: DownBlock(C, 3), ()),
    "down wide": (lambda: DownBlock(C, 3, 3), ()),
    "down first": (lambda: DownBlock(C, 3, first=True), ()),
    "down flat": (lambda: DownBlock(C, C, downsample=False, spectral=False), ()),
    "attention": (lambda: SelfAttention(C), ()),
}


@pytest.mark.parametrize("case", CASES)
def test_derivatives_to_second_order(case: str) -> None:
    """With respect to the input and every parameter."""
    make, condition = CASES[case]
    block = built(make, seed=0).eval()  # the vectors of spectral norms rest, so it is a function
    for module in block.modules():
        if hasattr(module, "running_mean"):
            module.training = True  # statistics of the batch
    parameters = list(block.parameters())

    def run(x: Tensor, *values: Tensor) -> Tensor:
        with substituted(block, values):
            return block(x, *condition)

    gradcheck(run, [floats(N, C, 2, 2).data, *(p.data for p in parameters)], order=2)


class substituted:
    """Let a block compute with other tensors in place of its parameters."""

    def __init__(self, block: nn.Module, values: tuple[Tensor, ...]) -> None:
        self.homes = [
            (module, name, value)
            for module in block.modules()
            for name, value in list(vars(module).items())
            if isinstance(value, nn.Parameter)
        ]
        names = [name for name, _ in block.named_parameters()]
        self.values = dict(zip(names, values, strict=True))
        self.names = {id(p): name for name, p in block.named_parameters()}

    def __enter__(self) -> None:
        for module, name, p in self.homes:
            vars(module)[name] = self.values[self.names[id(p)]]

    def __exit__(self, *_: object) -> None:
        for module, name, p in self.homes:
            vars(module)[name] = p


# What they compute -----------------------------------------------------------------------------


@pytest.mark.parametrize("mode", ["nearest", "bilinear"])
def test_up_block_is_the_formula_of_the_paper(mode: str) -> None:
    """The paper enlarges before the convolution of the shortcut, we do it after."""
    block = built(lambda: UpBlock(C, 3, mode=mode))
    x = floats(N, C, SIDE, SIDE)

    def up(t: Tensor) -> Tensor:
        return F.interpolate(t, scale_factor=2, mode=mode)

    h = block.c1(up(F.relu(block.b1(x))))
    h = block.c2(F.relu(block.b2(h))) + block.c_sc(up(x))
    np.testing.assert_allclose(block(x).data, h.data, rtol=1e-12, atol=1e-12)


@pytest.mark.parametrize("first", [False, True])
def test_down_block_is_the_formula_of_the_paper(first: bool) -> None:
    """The paper pools after the convolution of the shortcut, we do it before."""
    block = built(lambda: DownBlock(C, 3, first=first, spectral=False))
    x = floats(N, C, SIDE, SIDE)
    h = block.c2(F.relu(block.c1(x if first else F.relu(x))))
    wanted = F.avg_pool2d(h, 2) + F.avg_pool2d(block.c_sc(x), 2)
    np.testing.assert_allclose(block(x).data, wanted.data, rtol=1e-12, atol=1e-12)


def test_the_shortcut_sees_the_input_before_relu() -> None:
    """The library mimicry's in-place relu hides negative inputs from it; an option does so too."""
    x = floats(N, C, SIDE, SIDE)
    kept = x.data.copy()
    right, wrong = (
        built(partial(DownBlock, C, C, downsample=False, spectral=False, relu_shortcut=flag))
        for flag in (False, True)
    )
    branch = right(x).data - x.data
    np.testing.assert_array_equal(x.data, kept)
    np.testing.assert_allclose(wrong(x).data, branch + np.maximum(x.data, 0), rtol=1e-12)
    assert np.abs(right(x).data - wrong(x).data).max() > 0.1


def test_blocks_without_change_keep_the_input_as_shortcut() -> None:
    assert DownBlock(C, C, downsample=False).c_sc is None
    assert DownBlock(C, 3, downsample=False).c_sc is not None
    assert UpBlock(C, C, upsample=False).c_sc is None and UpBlock(C, C).c_sc is not None


def test_attention_is_the_identity_at_first() -> None:
    mg.manual_seed(0)
    attention = SelfAttention(16)
    x = mg.tensor(np.random.default_rng(0).standard_normal((2, 16, 6, 8)).astype(np.float32))
    np.testing.assert_array_equal(attention(x).data, x.data)
    grads = mg.grad(attention(x).square().sum(), list(attention.parameters()))
    moving = [n for n, g in zip(dict(attention.named_parameters()), grads, strict=True)
              if g is not None and g.data.any()]  # fmt: skip
    assert moving == ["gamma"]


@pytest.mark.parametrize("spectral", [False, True])
def test_attention_equals_einsum(spectral: bool) -> None:
    attention = built(lambda: SelfAttention(16, spectral=spectral)).eval()
    x = floats(2, 16, 4, 6).data

    def conv(layer: nn.Conv2d, t: Any) -> Any:
        weight = layer.weight.data[:, :, 0, 0]
        if layer.sn is not None:
            weight = weight / (layer.sn.u.data @ weight @ layer.sn.v.data)
        return np.einsum("oc,nchw->nohw", weight, t)

    def pool(t: Any) -> Any:
        return t.reshape(*t.shape[:2], t.shape[2] // 2, 2, t.shape[3] // 2, 2).max((3, 5))

    theta, phi, g = conv(attention.theta, x), conv(attention.phi, x), conv(attention.g, x)
    assert theta.shape[1] == phi.shape[1] == 2 and g.shape[1] == 8
    scores = np.einsum("nchw,ncij->nhwij", theta, pool(phi))
    weights = np.exp(scores - scores.max((3, 4), keepdims=True))
    weights /= weights.sum((3, 4), keepdims=True)  # over keys, not over queries
    a = np.einsum("nhwij,ncij->nchw", weights, pool(g))
    wanted = x + attention.gamma.data * conv(attention.o, a)
    np.testing.assert_allclose(attention(mg.tensor(x)).data, wanted, rtol=1e-10, atol=1e-12)
    assert all(layer.bias is None for layer in attention.modules() if isinstance(layer, nn.Conv2d))


def test_attention_wants_even_maps() -> None:
    with pytest.raises(ShapeError, match="SelfAttention: maps of 7x7"):
        SelfAttention(8)(mg.tensor(np.zeros((1, 8, 7, 7), np.float32)))


def test_vector_norm_is_batch_norm_with_a_scale_and_shift_of_its_own() -> None:
    norm = built(lambda: VectorBatchNorm2d(C, 5)).eval()
    norm.training = True
    x = floats(N, C, SIDE, SIDE)
    plain = x.data - x.data.mean((0, 2, 3), keepdims=True)
    plain /= np.sqrt(x.data.var((0, 2, 3), keepdims=True) + 1e-5)
    gain, shift = norm.gain(VECTORS).data, norm.shift(VECTORS).data
    wanted = plain * (1 + gain)[:, :, None, None] + shift[:, :, None, None]
    np.testing.assert_allclose(norm(x, VECTORS).data, wanted, rtol=1e-9, atol=1e-11)
    assert norm.gain.bias is None and norm.gain.sn is not None
    np.testing.assert_allclose(norm.running_mean.data, 0.1 * x.data.mean((0, 2, 3)), rtol=1e-9)
    np.testing.assert_allclose(
        norm(x, VECTORS, activation="relu").data, np.maximum(wanted, 0), rtol=1e-9, atol=1e-11
    )


@pytest.mark.parametrize("rule", [init.sngan_, init.dcgan_, init.orthogonal_, init.glorot_uniform_])
def test_first_values_leave_the_tables_of_conditional_norms_alone(rule: Any) -> None:
    """They are Embeddings, but what they hold are scales, which start at 1, and shifts."""
    block = UpBlock(C, C, TABLES)
    before = block.c1.weight.data.copy()
    rule(block)
    assert (block.c1.weight.data != before).any()
    for norm in (block.b1, block.b2):
        assert (norm.gamma.weight.data == 1).all() and not norm.beta.weight.data.any()


def test_only_the_weights_of_training_passes_move_the_vectors_of_spectral_norm() -> None:
    block = DownBlock(C, C)
    x = mg.tensor(np.ones((1, C, SIDE, SIDE), np.float32))
    block.c1.weight.data = (
        np.random.default_rng(0).standard_normal(block.c1.weight.shape).astype(np.float32)
    )
    before = block.c1.sn.u.data.copy()
    block.eval()(x)
    np.testing.assert_array_equal(block.c1.sn.u.data, before)
    block.train()(x)
    assert (block.c1.sn.u.data != before).any()
