"""Blocks, masks and messages of attention. Properties: specs/attention.py."""

from __future__ import annotations

import importlib
import tracemalloc
from typing import Any

import numpy as np
import pytest
from opspec import close, leaf

import minigan as mg
from minigan.errors import DtypeError, ShapeError, UsageError
from minigan.ops.attention import scaled_dot_product_attention
from minigan.tensor import Tensor

cpu = importlib.import_module("minigan_kernels.cpu.attention")
reference = importlib.import_module("minigan_kernels.reference.attention")


@pytest.mark.parametrize("block", [1 << 20, 48, 24, 7, 1])
@pytest.mark.parametrize("is_causal", [False, True])
def test_blocks_of_any_size_give_the_definition(
    block: int, is_causal: bool, rng: np.random.Generator, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(cpu, "BLOCK", block)
    q, k, v = (
        rng.normal(size=(2, 3, 4, 5)),
        rng.normal(size=(2, 3, 6, 5)),
        rng.normal(size=(2, 3, 6, 2)),
    )
    g = rng.normal(size=(2, 3, 4, 2))
    for shape in (None, (3, 1, 6), (2, 3, 4, 6), (4, 6), (2, 1, 4, 1)):
        bias = None if shape is None else rng.normal(size=shape)
        options = (bias, is_causal, 0.3)
        y = cpu.scaled_dot_product_attention(q, k, v, *options)
        close(y, reference.scaled_dot_product_attention(q, k, v, *options), 1e-14, "forward")
        needs = (True, True, True, shape is not None)
        found = cpu.scaled_dot_product_attention_backward(g, q, k, v, *options, needs)
        expected = reference.scaled_dot_product_attention_backward(g, q, k, v, *options, needs)
        for a, b in zip(found, expected, strict=True):
            assert (a is None) == (b is None)
            if b is not None:  # one bias for all keys changes nothing: its gradient is rounding
                assert a.shape == b.shape and np.abs(a - b).max() < 1e-13


def test_the_scores_are_never_in_memory_together() -> None:
    """4096 x 4096 float32 scores would be 64 MiB."""
    rng = np.random.default_rng(0)
    q, k, v = (leaf(rng.normal(size=(1, 4096, 8)).astype(np.float32)) for _ in range(3))
    warm = scaled_dot_product_attention(q[:, :8], k, v)  # compiles the kernels
    mg.grad(warm, [q, k, v], np.ones(warm.shape, np.float32))
    tracemalloc.start()
    try:
        y = scaled_dot_product_attention(q, k, v)
        mg.grad(y, [q, k, v], np.ones(y.shape, np.float32))
        peak = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert peak < 24 * 2**20


def test_a_query_that_sees_nothing_gives_zero(rng: np.random.Generator) -> None:
    q, k, v = (leaf(rng.normal(size=(2, 3, 4))) for _ in range(3))
    seen = np.ones((3, 3), bool)
    seen[1] = False
    y = scaled_dot_product_attention(q, k, v, seen)
    assert not y.data[:, 1].any() and y.data[:, 0].all()
    g = rng.normal(size=y.shape)
    plain = mg.grad(y, [q, k, v], g, retain_graph=True)
    for a, b in zip(plain, mg.grad(y, [q, k, v], g, create_graph=True), strict=True):
        assert a is not None and b is not None and np.isfinite(a.data).all()
        close(b.data, a.data, 1e-13, "graph mode")
    assert not plain[0].data[:, 1].any()  # type: ignore[union-attr]


def test_masks_agree(rng: np.random.Generator) -> None:
    q, k, v = (Tensor(rng.normal(size=(2, 5, 4))) for _ in range(3))
    causal = scaled_dot_product_attention(q, k, v, is_causal=True).data
    seen = np.tri(5, dtype=bool)
    for mask in (seen, Tensor(seen), np.where(seen, 0.0, -np.inf)):
        close(scaled_dot_product_attention(q, k, v, mask).data, causal, 1e-15, "mask")
    assert np.allclose(causal[:, 0], v.data[:, 0])  # the first query sees only the first key


def test_uniform_scores_give_the_mean(rng: np.random.Generator) -> None:
    v = rng.normal(size=(2, 5, 3))
    zeros = Tensor(np.zeros((2, 4, 6)))
    y = scaled_dot_product_attention(zeros, Tensor(rng.normal(size=(2, 5, 6))), Tensor(v))
    close(y.data, np.repeat(v.mean(axis=1, keepdims=True), 4, axis=1), 1e-15, "mean")


def test_mistakes() -> None:
    def zeros(*shape: int) -> Tensor:
        return Tensor(np.zeros(shape))

    q, k, v = zeros(2, 3, 4), zeros(2, 5, 4), zeros(2, 5, 6)
    with pytest.raises(ShapeError) as caught:
        scaled_dot_product_attention(q, zeros(2, 5, 3), v)
    assert str(caught.value) == (
        "scaled_dot_product_attention: query (2, 3, 4), key (2, 5, 3) and value (2, 5, 6) do not "
        "fit together\n"
        "  why: they are (..., L, E), (..., S, E) and (..., S, V) with equal leading axes and "
        "at least one key"
    )
    calls: list[tuple[Any, str, Any]] = [
        (ShapeError, "fit together", lambda: scaled_dot_product_attention(q, k, zeros(2, 4, 6))),
        (
            ShapeError,
            "at least one key",
            lambda: scaled_dot_product_attention(q, k[:, :0], v[:, :0]),
        ),
        (UsageError, "not both", lambda: scaled_dot_product_attention(q, k, v, zeros(3, 5), True)),
        (
            ShapeError,
            "does not broadcast",
            lambda: scaled_dot_product_attention(q, k, v, zeros(5, 3)),
        ),
        (
            DtypeError,
            "attn_mask of dtype int64",
            lambda: scaled_dot_product_attention(q, k, v, np.ones((3, 5), int)),
        ),
    ]
    for kind, message, call in calls:
        with pytest.raises(kind, match=message):
            call()


@pytest.mark.torch
def test_equals_torch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    attend = torch.nn.functional.scaled_dot_product_attention
    arrays = (
        rng.normal(size=(2, 3, 4, 5)),
        rng.normal(size=(2, 3, 6, 5)),
        rng.normal(size=(2, 3, 6, 2)),
    )
    seen = rng.random((2, 3, 4, 6)) < 0.5
    seen[0, 1, 2] = False  # torch gives 0 for such a query too
    g = rng.normal(size=(2, 3, 4, 2))
    for options in ({}, {"is_causal": True}, {"scale": 1.0}, {"attn_mask": seen}):
        ts = [leaf(a) for a in arrays]
        us = [torch.tensor(a, requires_grad=True) for a in arrays]
        theirs = {k: torch.tensor(o) if k == "attn_mask" else o for k, o in options.items()}
        y, z = scaled_dot_product_attention(*ts, **options), attend(*us, **theirs)
        close(y.data, z.detach().numpy(), 1e-13, "forward")
        for a, b in zip(
            mg.grad(y, ts, g), torch.autograd.grad(z, us, torch.tensor(g)), strict=True
        ):
            assert a is not None
            close(a.data, b.numpy(), 1e-12, "gradient")
