"""Losses of G besides the adversarial one."""

from __future__ import annotations

import numpy as np
import pytest
from opspec import leaf

import minigan as mg
from minigan import losses
from minigan.check import gradcheck
from minigan.errors import ShapeError, UsageError
from minigan.tensor import Tensor


def test_feature_matching(rng: np.random.Generator) -> None:
    shapes = [[(2, 3, 4, 4), (2, 5, 2, 2)], [(2, 3, 2, 2), (2, 5, 1, 1)]]
    real = [[leaf(rng.standard_normal(s)) for s in scale] for scale in shapes]
    fake = [[leaf(rng.standard_normal(s)) for s in scale] for scale in shapes]
    loss = losses.feature_matching(real, fake)
    pairs = [(r, f) for rs, fs in zip(real, fake, strict=True) for r, f in zip(rs, fs, strict=True)]
    wanted = sum(np.abs(r.data - f.data).mean() for r, f in pairs)
    np.testing.assert_allclose(loss.item(), wanted)
    flat = losses.feature_matching([r for r, _ in pairs], [f for _, f in pairs])
    assert flat.item() == loss.item()
    assert all(g is None for g in mg.grad(loss, [r for r, _ in pairs], retain_graph=True))
    for (r, f), g in zip(pairs, mg.grad(loss, [f for _, f in pairs]), strict=True):
        assert g is not None
        np.testing.assert_allclose(g.data, np.sign(f.data - r.data) / f.size)


def test_feature_matching_wants_the_same_layers(rng: np.random.Generator) -> None:
    a, b = Tensor(np.ones((2, 3))), Tensor(np.ones((2, 4)))
    with pytest.raises(UsageError, match="2 layers of real and 1 of fake"):
        losses.feature_matching([a, b], [a])
    with pytest.raises(ShapeError):
        losses.feature_matching([a], [b])


def test_kl_flows_to_both(rng: np.random.Generator) -> None:
    """Bug 7, torchgan: a loss on a tensor that was built anew, so that nothing learned from it."""
    mu, logvar = leaf(rng.standard_normal((4, 3))), leaf(rng.standard_normal((4, 3)))
    loss = losses.kl(mu, logvar)
    m, s = mu.data, logvar.data
    np.testing.assert_allclose(loss.item(), -0.5 * (1 + s - m**2 - np.exp(s)).sum(1).mean())
    for_mu, for_logvar = mg.grad(loss, [mu, logvar])
    assert for_mu is not None and for_logvar is not None
    np.testing.assert_allclose(for_mu.data, m / 4)
    np.testing.assert_allclose(for_logvar.data, (np.exp(s) - 1) / 8)
    assert losses.kl(Tensor(np.zeros((4, 3))), Tensor(np.zeros((4, 3)))).item() == 0


def test_total_variation(rng: np.random.Generator) -> None:
    x = rng.standard_normal((2, 3, 5, 7))
    wanted = np.abs(np.diff(x, axis=2)).mean() + np.abs(np.diff(x, axis=3)).mean()
    np.testing.assert_allclose(losses.total_variation(Tensor(x)).item(), wanted)
    assert losses.total_variation(Tensor(np.full((1, 1, 4, 4), 0.3))).item() == 0
    gradcheck(losses.total_variation, [x])


def test_l1_and_consistency(rng: np.random.Generator) -> None:
    a, b = leaf(rng.standard_normal((4, 3))), leaf(rng.standard_normal((4, 3)))
    np.testing.assert_allclose(losses.l1(a, b).item(), np.abs(a.data - b.data).mean())
    loss = losses.consistency(a, b)
    np.testing.assert_allclose(loss.item(), ((a.data - b.data) ** 2).mean())
    one, other = mg.grad(loss, [a, b])
    assert one is not None and other is not None
    np.testing.assert_allclose(one.data, -other.data)
