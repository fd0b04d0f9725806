"""Path length, weight clipping and orthogonal weights: closed forms, derivatives, state."""

from __future__ import annotations

import numpy as np
import pytest
from opspec import leaf
from test_penalties import STEP, fed, gradient

import minigan as mg
from minigan import nn, random
from minigan.errors import GraphError, MiniganError, ShapeError, UsageError
from minigan.penalties import PathLength, clip_weights, orthogonal
from minigan.tensor import Tensor

# Path length -------------------------------------------------------------------------------------


def test_path_length_of_a_linear_generator(rng: np.random.Generator) -> None:
    n, latent, shape = 4, 5, (3, 2, 6)
    M = leaf(rng.standard_normal((latent, 36)))
    w, y = leaf(rng.standard_normal((n, latent))), rng.standard_normal((n, *shape))
    regular = PathLength().astype("float64")
    regular.mean.data = np.array(0.8)
    images = (w @ M).reshape(n, *shape)
    loss = regular(images, w, feed=fed(y))["loss_pl"]

    jty = (y / np.sqrt(12)).reshape(n, 36) @ M.data.T
    paths = np.sqrt((jty**2).sum(1))
    a = 0.8 + 0.01 * (paths.mean() - 0.8)
    np.testing.assert_allclose(loss.item(), 2 * 4 * ((paths - a) ** 2).mean(), rtol=1e-10)
    np.testing.assert_allclose(regular.mean.item(), a)
    scaled = (2 * (paths - a) / paths)[:, None] * jty  # d/d(J^T y) of (|J^T y| - a)^2
    wanted = 8 * scaled.T @ (y / np.sqrt(12)).reshape(n, 36) / n
    np.testing.assert_allclose(gradient(loss, M), wanted, rtol=1e-9)


def test_path_length_of_several_styles_is_averaged_over_layers(rng: np.random.Generator) -> None:
    w, c = leaf(rng.standard_normal((4, 3, 5))), rng.standard_normal((4, 3, 5))
    images = (w * Tensor(c)).sum(axis=(1, 2)).reshape(4, 1, 1, 1)
    y = rng.standard_normal((4, 1, 1, 1))
    loss = PathLength(1.0, 1.0, 1).astype("float64")(images, w, feed=fed(y))["loss_pl"]
    paths = np.sqrt(((y.reshape(4, 1, 1) * c) ** 2).sum(2).mean(1))
    np.testing.assert_allclose(loss.item(), ((paths - paths.mean()) ** 2).mean())


def test_path_length_differentiates_the_generator(rng: np.random.Generator) -> None:
    """By finite differences, with a held still by decay = 0."""
    G = nn.Sequential(
        nn.Linear(4, 8),
        nn.LeakyReLU(0.2),
        nn.Unflatten(1, (2, 2, 2)),
        nn.ConvTranspose2d(2, 3, 4, stride=2, padding=1),
        nn.Softplus(),
        nn.Conv2d(3, 1, 3, padding=1),
        nn.Tanh(),
    ).astype("float64")
    regular, z = PathLength(decay=0.0).astype("float64"), rng.standard_normal((3, 4))

    def value() -> Tensor:
        mg.manual_seed(0)
        w = leaf(z)
        return regular(G(w), w)["loss_pl"]

    parameters = list(G.parameters())
    for p, g in zip(parameters, mg.grad(value(), parameters), strict=True):
        base, v = p.data.copy(), rng.standard_normal(p.shape)
        ends = []
        for t in (1, -1, 2, -2):
            p.data = base + t * STEP * v
            ends.append(value().item())
        p.data = base
        numeric = (8 * (ends[0] - ends[1]) - (ends[2] - ends[3])) / (12 * STEP)
        analytic = 0.0 if g is None else (g.data * v).sum()
        np.testing.assert_allclose(analytic, numeric, rtol=1e-6, atol=1e-9)


def test_the_mean_path_is_state(rng: np.random.Generator) -> None:
    """It changes in place (a recorded step goes on changing it), is saved, and comes back."""
    regular = PathLength()
    memory, version = regular.mean.data, regular.mean.version[0]
    w = leaf(rng.standard_normal((4, 5)).astype(np.float32))
    images = (w * w).reshape(4, 1, 1, 5)
    regular(images, w)
    first = regular.mean.item()
    assert first > 0 and regular.mean.data is memory and regular.mean.version[0] > version
    other = PathLength()
    other.load_state_dict(regular.state_dict())
    assert other.mean.item() == first
    state = random.state()
    one = regular(images, w)["loss_pl"].item()
    random.set_state(state)
    assert other(images, w)["loss_pl"].item() == one
    assert other.mean.item() == regular.mean.item() != first


def test_path_length_wants_the_w_of_the_images(rng: np.random.Generator) -> None:
    w, other = leaf(rng.standard_normal((2, 3))), leaf(rng.standard_normal((2, 3)))
    with pytest.raises(GraphError, match="do not depend on w"):
        PathLength()((w * w).reshape(2, 1, 1, 3), other)
    maps = leaf(rng.standard_normal((2, 3, 4, 4)))
    with pytest.raises(ShapeError, match="w has shape"):
        PathLength()(maps * maps, maps)


# Weights -----------------------------------------------------------------------------------------


def test_clipping_reaches_every_parameter_of_the_critic(rng: np.random.Generator) -> None:
    """WGAN: scales and shifts of norms too, in place, and with a new version."""
    D = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 1))
    x = Tensor(rng.standard_normal((4, 1, 4, 4)).astype(np.float32))
    arrays, loss = [p.data for p in D.parameters()], D(x).sum()
    before = [a.copy() for a in arrays]
    clip_weights(D.parameters(), 0.01)
    for p, array, old in zip(D.parameters(), arrays, before, strict=True):
        assert p.data is array
        np.testing.assert_array_equal(array, np.clip(old, np.float32(-0.01), np.float32(0.01)))
    assert D[1].weight is not None and np.abs(D[1].weight.data).max() == np.float32(0.01)
    with pytest.raises(MiniganError, match="changed after"):
        mg.grad(loss, list(D.parameters()))


def test_orthogonal_has_the_gradient_of_biggan(rng: np.random.Generator) -> None:
    net = nn.Sequential(
        nn.Linear(6, 8), nn.Unflatten(1, (2, 2, 2)), nn.ConvTranspose2d(2, 3, 2), nn.Conv2d(3, 2, 2)
    ).astype("float64")
    weights = [net[0].weight, net[2].weight, net[3].weight]
    loss = orthogonal(net, 0.01)["loss_ortho"]
    value = 0.0
    for w, g, axis in zip(weights, mg.grad(loss, weights), (0, 1, 0), strict=True):
        moved = np.moveaxis(w.data, axis, 0)  # a transposed convolution has its outputs in axis 1
        W = moved.reshape(len(moved), -1)
        off = W @ W.T * (1 - np.eye(len(W)))
        value += 0.01 / 2 * (off**2).sum()
        assert g is not None
        ours = np.moveaxis(g.data, axis, 0).reshape(W.shape)
        np.testing.assert_allclose(ours, 2 * 0.01 * off @ W, rtol=1e-10)
    np.testing.assert_allclose(loss.item(), value)


def test_orthogonal_leaves_embeddings_and_lengths_alone() -> None:
    net = nn.ModuleList([nn.Embedding(5, 3), nn.Linear(6, 4), nn.Linear(6, 1)])
    nn.init.orthogonal_(net, gain=3.0)
    assert orthogonal(net, 1.0)["loss_ortho"].item() < 1e-8
    net[0].weight.data = np.ones_like(net[0].weight.data)
    assert orthogonal(net, 1.0)["loss_ortho"].item() < 1e-8
    with pytest.raises(UsageError, match="no layers with weights"):
        orthogonal(nn.ModuleList([nn.Embedding(5, 3)]))


def test_orthogonal_counts_shared_weights_once_and_frozen_ones_never() -> None:
    net = nn.ModuleList([nn.Linear(6, 4), nn.Linear(6, 4), nn.Linear(6, 4)])
    alone = orthogonal(nn.ModuleList([net[0]]))["loss_ortho"].item()
    net[1].weight = net[0].weight
    net[2].weight.requires_grad = False
    assert orthogonal(net)["loss_ortho"].item() == alone > 0
