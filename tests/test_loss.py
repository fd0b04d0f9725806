"""Extremes, conventions and messages of the losses. Properties: specs/loss.py."""

from __future__ import annotations

import math
import warnings
from typing import Any

import numpy as np
import pytest
from opspec import Array, close, leaf

import minigan as mg
from minigan.errors import DtypeError, ShapeError, UsageError
from minigan.ops.loss import (
    binary_cross_entropy_with_logits,
    cross_entropy,
    hinge_loss,
    huber_loss,
    kl_normal,
    l1_loss,
    mse_loss,
    nll_loss,
    smooth_l1_loss,
    softplus_loss,
)
from minigan.ops.softmax import log_softmax, softmax
from minigan.tensor import Tensor


def gradient(loss: Tensor, x: Tensor) -> Array:
    (g,) = mg.grad(loss, x)
    assert g is not None
    return g.data


# Extremes --------------------------------------------------------------------------------------


def test_binary_cross_entropy_of_sure_logits() -> None:
    """exp(1e4) overflows and log(0) is infinite; warnings are errors in this suite."""
    for dtype in (np.float32, np.float64):
        x = leaf(np.array([1e4, -1e4, 1e4, -1e4], dtype))
        y = np.array([1, 0, 0, 1], dtype)
        loss = binary_cross_entropy_with_logits(x, y, reduction="none")
        assert loss.data.tolist() == [0, 0, 1e4, 1e4]
        assert gradient(loss.sum(), x).tolist() == [0, 0, 1, -1]
        assert softplus_loss(x, True, reduction="none").data.tolist() == [0, 1e4, 0, 1e4]


def test_gradients_of_the_two_generator_losses() -> None:
    """-sigmoid(-t) does not vanish where D is sure of a fake; -sigmoid(t) of minimax does."""
    for t in (-20.0, 0.0, 3.0):
        x = leaf(np.array([t]))
        p = 1 / (1 + math.exp(-t))
        close(gradient(softplus_loss(x, True), x), np.array([p - 1]), 1e-13, "non-saturating")
        close(gradient(-softplus_loss(x, False), x), np.array([-p]), 1e-13, "minimax")


def test_hinge() -> None:
    x = leaf(np.array([-2.0, 0.5, 2.0]))
    assert hinge_loss(x, True, reduction="none").data.tolist() == [3, 0.5, 0]
    assert hinge_loss(x, False, reduction="none").data.tolist() == [0, 1.5, 3]
    assert gradient(hinge_loss(x, True, reduction="sum"), x).tolist() == [-1, -1, 0]
    assert gradient(hinge_loss(x, False, reduction="sum"), x).tolist() == [0, 1, 1]


def test_cross_entropy_of_sure_logits() -> None:
    x = leaf(np.array([[1e4, 0.0, -1e4], [1e4, 0.0, -1e4]]))
    loss = cross_entropy(x, np.array([0, 2]), reduction="none")
    assert loss.data.tolist() == [0, 2e4]
    assert gradient(loss.sum(), x).tolist() == [[0, 0, 0], [1, 0, -1]]
    near = cross_entropy(Tensor(np.array([[40.0, 0.0]])), np.array([0]))
    assert near.item() == pytest.approx(math.exp(-40), rel=1e-12, abs=2.3e-16)


def test_huber_at_its_kink_and_l1_at_zero() -> None:
    x = leaf(np.array([0.0, 1.0, -1.0, 3.0]))
    assert smooth_l1_loss(x, 0.0, reduction="none").data.tolist() == [0, 0.5, 0.5, 2.5]
    assert gradient(smooth_l1_loss(x, 0.0, reduction="sum"), x).tolist() == [0, 1, -1, 1]
    assert huber_loss(x, 0.0, reduction="none", delta=2.0).data.tolist() == [0, 0.5, 0.5, 4]
    assert gradient(l1_loss(x, 0.0, reduction="sum"), x).tolist() == [0, 1, -1, 1]


def test_kl_of_the_standard_normal_is_zero() -> None:
    mu, logvar = leaf(np.zeros((2, 3))), leaf(np.zeros((2, 3)))
    loss = kl_normal(mu, logvar)
    assert loss.item() == 0
    assert not any(g.data.any() for g in mg.grad(loss, [mu, logvar]) if g is not None)
    assert kl_normal(mu + 1.0, logvar).item() == 3  # sum of mu^2 / 2


# Labels ----------------------------------------------------------------------------------------


def test_ignored_positions_count_for_nothing(rng: np.random.Generator) -> None:
    x = leaf(rng.normal(size=(2, 3, 2, 2)))
    labels = rng.integers(0, 3, (2, 2, 2))
    labels[0, 0, 1] = labels[1, 1, 1] = 255
    loss = cross_entropy(x, labels, ignore_index=255, reduction="none").data
    assert loss[0, 0, 1] == loss[1, 1, 1] == 0
    mean = cross_entropy(x, labels, ignore_index=255)
    assert mean.item() == pytest.approx(loss.sum() / 6)
    g = gradient(mean, x)
    assert not g[0, :, 0, 1].any() and not g[1, :, 1, 1].any() and g[0, :, 0, 0].all()


def test_a_batch_without_any_label_gives_zero(rng: np.random.Generator) -> None:
    x = leaf(rng.normal(size=(4, 3)))
    loss = cross_entropy(x, np.full(4, -100))
    assert loss.item() == 0 and not gradient(loss, x).any()


def test_smoothing_is_the_mixture_with_the_uniform(rng: np.random.Generator) -> None:
    x = Tensor(rng.normal(size=(5, 4)))
    labels = rng.integers(0, 4, 5)
    smooth = cross_entropy(x, labels, label_smoothing=0.3).item()
    uniform = -log_softmax(x, 1).mean().item()
    assert smooth == pytest.approx(0.7 * cross_entropy(x, labels).item() + 0.3 * uniform)


def test_cross_entropy_is_log_softmax_and_nll(rng: np.random.Generator) -> None:
    x = Tensor(rng.normal(size=(5, 4, 2)))
    labels = Tensor(rng.integers(0, 4, (5, 2)))
    a, b = cross_entropy(x, labels), nll_loss(log_softmax(x, 1), labels)
    assert a.item() == pytest.approx(b.item(), rel=1e-14)


def test_a_label_out_of_range_is_named() -> None:
    x, labels = Tensor(np.zeros((2, 3, 4, 4))), np.zeros((2, 4, 4), int)
    labels[1, 2, 3] = 7
    with pytest.raises(UsageError) as caught:
        cross_entropy(x, labels)
    assert str(caught.value) == (
        "cross_entropy: label 7 at index (1, 2, 3) is not one of 3 classes\n"
        "  why: labels run from 0 to 2\n"
        "  fix: correct the data or the number of classes; mark pixels to skip with "
        "ignore_index (-100 here)"
    )
    with pytest.raises(UsageError, match="label -1 at index 1 is not one of 3 classes"):
        nll_loss(Tensor(np.zeros((2, 3))), np.array([0, -1]))


def test_probabilities_instead_of_logits_warn(rng: np.random.Generator) -> None:
    logits, labels = Tensor(rng.normal(size=(4, 3))), np.array([0, 1, 2, 0])
    with pytest.warns(UserWarning, match="leave out the softmax"):
        cross_entropy(softmax(logits, 1), labels)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        cross_entropy(logits, labels)
        cross_entropy(Tensor(np.zeros((4, 3))), labels)  # a fresh layer: not probabilities


# Messages --------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    "loss", [binary_cross_entropy_with_logits, mse_loss, l1_loss, smooth_l1_loss, huber_loss]
)
def test_losses_do_not_broadcast(loss: Any) -> None:
    with pytest.raises(ShapeError) as caught:
        loss(Tensor(np.zeros((8, 1))), Tensor(np.zeros(8)))
    name = "smooth_l1_loss" if loss is huber_loss else loss.__name__
    assert str(caught.value) == (
        f"{name}: input has shape (8, 1), target (8,)\n"
        "  why: losses do not broadcast: (N,) against (N, 1) would silently compare every element "
        "with every other, N x N\n"
        "  fix: reshape one of them, or pass a single number as the target"
    )
    with pytest.raises(ShapeError, match="losses do not broadcast"):
        loss(Tensor(np.zeros((2, 3))), np.zeros((1, 3)))


def test_other_mistakes() -> None:
    x = Tensor(np.zeros((2, 3)))
    for kind, message, call in (
        (UsageError, "unknown reduction 'avg'", lambda: mse_loss(x, x, reduction="avg")),
        (ShapeError, "kl_normal: input has shape", lambda: kl_normal(x, x[:1])),
        (UsageError, "beta must be positive", lambda: smooth_l1_loss(x, x, beta=0)),
        (UsageError, "label_smoothing 2", lambda: cross_entropy(x, [0, 1], label_smoothing=2)),
        (DtypeError, "labels have dtype float64", lambda: cross_entropy(x, np.zeros(2))),
        (
            ShapeError,
            r"labels \(2, 1\) do not fit",
            lambda: cross_entropy(x, np.zeros((2, 1), int)),
        ),
        (ShapeError, "mean over no elements", lambda: mse_loss(x[:0], x[:0])),
        (DtypeError, "mixed dtypes", lambda: mse_loss(x, np.zeros((2, 3), np.float32))),
    ):
        with pytest.raises(kind, match=message):
            call()


def test_a_number_as_target(rng: np.random.Generator) -> None:
    x = rng.normal(size=(4, 1)).astype(np.float32)
    for loss in (binary_cross_entropy_with_logits, mse_loss, l1_loss):
        for number in (1, 0.9, np.float64(0.9)):
            a = loss(Tensor(x), number)
            b = loss(Tensor(x), np.full_like(x, number))
            assert a.dtype == np.float32 and a.item() == b.item()


# PyTorch ---------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize("reduction", ["mean", "sum", "none"])
def test_equals_torch(reduction: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    F = torch.nn.functional
    x, y = rng.normal(0, 3, (3, 4, 2, 3)), rng.random((3, 4, 2, 3))
    labels = rng.integers(0, 4, (3, 2, 3))
    labels[0, 0, 0] = -100
    target, classes = torch.tensor(y), torch.tensor(labels)
    pairs: list[tuple[Any, Any, dict[str, Any]]] = [
        (
            lambda x, **o: binary_cross_entropy_with_logits(x, y, **o),
            lambda x, **o: F.binary_cross_entropy_with_logits(x, target, **o),
            {},
        ),
        (
            lambda x, **o: cross_entropy(x, labels, **o),
            lambda x, **o: F.cross_entropy(x, classes, **o),
            {},
        ),
        (
            lambda x, **o: cross_entropy(x, labels, **o),
            lambda x, **o: F.cross_entropy(x, classes, **o),
            {"label_smoothing": 0.1},
        ),
        (lambda x, **o: nll_loss(x, labels, **o), lambda x, **o: F.nll_loss(x, classes, **o), {}),
        (lambda x, **o: mse_loss(x, y, **o), lambda x, **o: F.mse_loss(x, target, **o), {}),
        (lambda x, **o: l1_loss(x, y, **o), lambda x, **o: F.l1_loss(x, target, **o), {}),
        (
            lambda x, **o: smooth_l1_loss(x, y, **o),
            lambda x, **o: F.smooth_l1_loss(x, target, **o),
            {"beta": 0.7},
        ),
        (
            lambda x, **o: huber_loss(x, y, **o),
            lambda x, **o: F.huber_loss(x, target, **o),
            {"delta": 0.7},
        ),
    ]
    for mine, other, options in pairs:
        t, u = leaf(x), torch.tensor(x, requires_grad=True)
        a, b = mine(t, reduction=reduction, **options), other(u, reduction=reduction, **options)
        close(a.data, b.detach().numpy(), 1e-13, "forward")
        g = rng.normal(size=a.shape)
        (p,), (q,) = mg.grad(a, t, g), torch.autograd.grad(b, u, torch.tensor(g))
        assert p is not None
        close(p.data, q.numpy(), 1e-13, "gradient")
