"""Penalties on D's gradient, path length, and constraints of weights.

Closed forms with linear and quadratic critics; derivatives with respect to the weights of every
layer that a critic may have, by finite differences; and mistakes of well-known implementations,
each test naming the one it is about.
"""

from __future__ import annotations

import warnings
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opspec import leaf
from strategies import rngs
from test_devices import NAME

import minigan as mg
import minigan.functional as F
from minigan import nn, optim, random
from minigan.backend import to_numpy
from minigan.errors import GraphError, ShapeError, UsageError
from minigan.losses import ADVERSARIAL, adversarial
from minigan.optim.adam import lazy
from minigan.penalties import PENALTIES, PathLength, orthogonal, penalty
from minigan.tensor import Tensor

Array = np.ndarray[Any, Any]
Critic = Callable[[Tensor], Tensor]


def total(terms: dict[str, Tensor]) -> Tensor:
    first, *others = terms.values()
    for other in others:
        first = first + other
    return first


def pair(rng: np.random.Generator, *shape: int) -> tuple[Tensor, Tensor]:
    return Tensor(rng.standard_normal(shape)), Tensor(rng.standard_normal(shape))


def fed(*arrays: Array) -> Callable[[Callable[[], Array]], Tensor]:
    """A feed that gives these arrays, after checking what would have been drawn."""
    queue = list(arrays)

    def feed(compute: Callable[[], Array]) -> Tensor:
        drawn, given = compute(), queue.pop(0)
        assert drawn.shape == given.shape and drawn.dtype == given.dtype
        return Tensor(given)

    return feed


def gradient(y: Tensor, x: Tensor) -> Array:
    (g,) = mg.grad(y, x)
    assert g is not None
    return g.data


# Closed forms: a linear critic, D(x) = <w, x> + b ------------------------------------------------


def linear(w: Tensor, b: float = 0.3) -> Critic:
    return lambda x: (x.reshape(x.shape[0], -1) @ w.reshape(-1, 1)).reshape(-1) + b


# name -> penalty as a function of |w|, for weight 1
OF_LENGTH: dict[str, Callable[[Any], Any]] = {
    "gp": lambda n: (n - 1) ** 2,
    "gp-one-sided": lambda n: np.maximum(n - 1, 0) ** 2,
    "dragan": lambda n: (n - 1) ** 2,
    "r1": lambda n: n**2 / 2,
    "r2": lambda n: n**2 / 2,
    "zero-centred": lambda n: n**2,
    "wgan-div": lambda n: n**6,
}
SLOPE: dict[str, Callable[[Any], Any]] = {
    "gp": lambda n: 2 * (n - 1),
    "gp-one-sided": lambda n: 2 * np.maximum(n - 1, 0),
    "dragan": lambda n: 2 * (n - 1),
    "r1": lambda n: n,
    "r2": lambda n: n,
    "zero-centred": lambda n: 2 * n,
    "wgan-div": lambda n: 6 * n**5,
}


@pytest.mark.parametrize("name", OF_LENGTH)
@pytest.mark.parametrize("length", [0.4, 1.7])
def test_linear_critic(name: str, length: float, rng: np.random.Generator) -> None:
    w = rng.standard_normal((3, 4, 5))
    w *= length / np.linalg.norm(w)
    theta = leaf(w)
    loss = total(penalty(name, 7.0)(linear(theta), *pair(rng, 6, 3, 4, 5)))
    np.testing.assert_allclose(loss.item(), 7 * OF_LENGTH[name](length), rtol=1e-10)
    wanted = 7 * SLOPE[name](length) * w / length
    np.testing.assert_allclose(gradient(loss, theta), wanted, rtol=1e-10, atol=1e-12)


def test_every_penalty_is_tested() -> None:
    assert set(OF_LENGTH) | {"none", "drift"} == set(PENALTIES)


def test_drift(rng: np.random.Generator) -> None:
    real, fake = pair(rng, 6, 1, 2, 2)
    w = rng.standard_normal(4)
    theta = leaf(w)
    terms = penalty("drift")(linear(theta), real, fake)
    d = real.data.reshape(6, 4) @ w + 0.3
    np.testing.assert_allclose(terms["loss_drift"].item(), 1e-3 * (d**2).mean())
    wanted = 1e-3 * 2 * (d[:, None] * real.data.reshape(6, 4)).mean(0)
    np.testing.assert_allclose(gradient(terms["loss_drift"], theta), wanted)


def test_none() -> None:
    x = Tensor(np.ones((2, 3)))
    assert penalty("none")(linear(x[0]), x, x) == {}
    assert not penalty("none").due(0)


def test_names_of_the_terms(rng: np.random.Generator) -> None:
    real, fake = pair(rng, 4, 5)
    names = {name: list(penalty(name)(linear(fake[0]), real, fake)) for name in PENALTIES}
    assert names == {
        "none": [],
        "gp": ["loss_gp"],
        "gp-one-sided": ["loss_gp"],
        "dragan": ["loss_dragan"],
        "r1": ["loss_r1"],
        "r2": ["loss_r2"],
        "zero-centred": ["loss_r1", "loss_r2"],
        "wgan-div": ["loss_div"],
        "drift": ["loss_drift"],
    }


def test_a_trained_critic_settles_beyond_one(rng: np.random.Generator) -> None:
    """Maximising W n - weight (n - 1)^2 over the length n gives n = 1 + W / (2 weight), not 1,
    where W is the distance of the means along w / n."""
    real, fake = (Tensor(t.data) for t in pair(rng, 8, 5))
    theta, loss = nn.Parameter(rng.standard_normal(5)), adversarial("wgan")
    step, gp = optim.SGD([theta], 0.05), penalty("gp")
    for _ in range(300):
        D = linear(theta)
        step.step(mg.grad(total(loss.d(D(real), D(fake)) | gp(D, real, fake)), [theta]))
    apart = real.data.mean(0) - fake.data.mean(0)
    distance = np.linalg.norm(apart)
    np.testing.assert_allclose(theta.data, (1 + distance / 20) * apart / distance, rtol=1e-4)


# Closed forms: a quadratic critic, D(x) = sum a x^2 / 2, gradient a x at x ------------------------


def quadratic(a: Tensor) -> Critic:
    return lambda x: (x.square() * a.reshape(1, *a.shape)).sum(axis=(1, 2, 3)) * 0.5


def lengths(g: Array) -> Array:
    return np.sqrt((g**2).sum(axis=(1, 2, 3)))


@pytest.mark.parametrize("name", ["gp", "gp-one-sided"])
def test_gradient_penalty_of_a_quadratic_critic(name: str, rng: np.random.Generator) -> None:
    real, fake = pair(rng, 5, 2, 3, 4)
    a, alpha = rng.standard_normal((2, 3, 4)) * 0.2, rng.random((5, 1, 1, 1))
    theta = leaf(a)
    loss = total(penalty(name)(quadratic(theta), real, fake, feed=fed(alpha)))
    x = alpha * real.data + (1 - alpha) * fake.data
    n = lengths(a * x)
    assert n.min() < 1 < n.max()  # both sides occur
    excess = n - 1 if name == "gp" else np.maximum(n - 1, 0)
    np.testing.assert_allclose(loss.item(), 10 * (excess**2).mean(), rtol=1e-10)
    wanted = 10 * (2 * (excess / n)[:, None, None, None] * a * x**2).mean(0)
    np.testing.assert_allclose(gradient(loss, theta), wanted, rtol=1e-9, atol=1e-12)


def test_dragan_of_a_quadratic_critic(rng: np.random.Generator) -> None:
    real, fake = pair(rng, 5, 2, 3, 4)
    a, u = rng.standard_normal((2, 3, 4)) * 0.35, rng.random((5, 2, 3, 4))
    theta = leaf(a)
    loss = total(penalty("dragan")(quadratic(theta), real, fake, feed=fed(u)))
    x = real.data + 0.5 * real.data.std() * u
    n = lengths(a * x)
    np.testing.assert_allclose(loss.item(), 10 * ((n - 1) ** 2).mean(), rtol=1e-10)
    wanted = 10 * (2 * ((n - 1) / n)[:, None, None, None] * a * x**2).mean(0)
    np.testing.assert_allclose(gradient(loss, theta), wanted, rtol=1e-9, atol=1e-12)


@pytest.mark.parametrize("name", ["r1", "r2", "zero-centred", "wgan-div"])
def test_other_penalties_of_a_quadratic_critic(name: str, rng: np.random.Generator) -> None:
    real, fake = pair(rng, 5, 2, 3, 4)
    a = rng.standard_normal((2, 3, 4)) * 0.35
    theta = leaf(a)
    loss = total(penalty(name)(quadratic(theta), real, fake))
    points = {"r1": [real], "r2": [fake]}.get(name, [real, fake])
    weight = 10.0 if name != "wgan-div" else 2.0
    value, slope = 0.0, np.zeros_like(a)
    for x in (p.data for p in points):
        n = lengths(a * x)[:, None, None, None]
        power = 6 if name == "wgan-div" else 2
        value += weight / 2 * (n**power).mean()
        slope += weight / 2 * (power * n ** (power - 2) * a * x**2).mean(0)
    np.testing.assert_allclose(loss.item(), value, rtol=1e-10)
    np.testing.assert_allclose(gradient(loss, theta), slope, rtol=1e-9)


def test_r1_is_about_logits_not_about_the_loss(rng: np.random.Generator) -> None:
    """Bug 14, rosinality's StyleGAN: R1 taken through the softplus of the loss.

    For a linear critic it is gamma / 2 |w|^2, whatever D says of x.
    """
    w = rng.standard_normal((3, 2, 2))
    for shift in (0.0, 30.0, -30.0):
        real, fake = pair(rng, 4, 3, 2, 2)
        loss = penalty("r1")(linear(Tensor(w), shift), real, fake)["loss_r1"]
        np.testing.assert_allclose(loss.item(), 5 * (w**2).sum())


def test_patch_maps_are_summed_for_each_image(rng: np.random.Generator) -> None:
    """The gradient of a map of logits is that of its sum."""
    net = nn.Conv2d(2, 1, 3).astype("float64")
    real, fake = pair(rng, 3, 2, 5, 5)
    of_map = penalty("r1")(net, real, fake)["loss_r1"].item()
    of_sum = penalty("r1")(lambda x: net(x).sum(axis=(1, 2, 3)), real, fake)["loss_r1"].item()
    assert of_map == pytest.approx(of_sum)


# One number for each sample ----------------------------------------------------------------------


def curved(rng: np.random.Generator, *shape: int) -> Critic:
    """A critic whose gradient differs from sample to sample."""
    w = Tensor(rng.standard_normal((int(np.prod(shape)), 4)))
    return lambda x: F.tanh(x.reshape(x.shape[0], -1) @ w).sum(1)


SHAPES = [(7,), (1, 3, 3), (3, 4, 2), (2, 5), (4, 1, 2, 2), (5, 3, 1)]


@given(rngs(), st.sampled_from(SHAPES), st.integers(1, 5))
def test_gp_is_the_mean_over_samples(
    rng: np.random.Generator, shape: tuple[int, ...], n: int
) -> None:
    """Bug 4, PyTorch-GAN, Keras-GAN, torchgan, mimicry: alpha for 32 samples, norm over the whole
    batch, three channels. Any N,C,H,W, any order of the batch, and each sample by itself."""
    real, fake = pair(rng, n, *shape)
    alpha = rng.random((n, *[1] * len(shape)))
    critic, gp = curved(rng, *shape), penalty("gp")

    def value(order: Any) -> float:
        r, f = Tensor(real.data[order]), Tensor(fake.data[order])
        return gp(critic, r, f, feed=fed(alpha[order]))["loss_gp"].item()

    whole = value(np.arange(n))
    assert value(rng.permutation(n)) == pytest.approx(whole)
    assert np.mean([value([i]) for i in range(n)]) == pytest.approx(whole)


@pytest.mark.parametrize("name", ["dragan", "r1", "r2", "wgan-div"])
def test_other_penalties_are_means_over_samples(name: str, rng: np.random.Generator) -> None:
    real, fake = pair(rng, 4, 3, 4, 2)
    critic, p = curved(rng, 3, 4, 2), penalty(name)
    zero = np.zeros((4, 3, 4, 2))  # of DRAGAN, whose std is that of the whole batch

    def value(order: list[int]) -> float:
        feed = fed(zero[order])
        return total(p(critic, Tensor(real.data[order]), Tensor(fake.data[order]), feed)).item()

    single = np.mean([value([i]) for i in range(4)])
    assert value([0, 1, 2, 3]) == pytest.approx(single)
    assert value([3, 1, 0, 2]) == pytest.approx(single)


def test_alpha_is_one_number_for_each_sample(rng: np.random.Generator) -> None:
    """Bug 4: alpha per pixel, or one for the batch. The points lie on the lines between pairs."""
    seen: list[Tensor] = []

    def critic(x: Tensor) -> Tensor:
        seen.append(x)
        return x.sum(axis=(1, 2, 3))

    real, fake = Tensor(np.ones((64, 3, 2, 2))), Tensor(np.zeros((64, 3, 2, 2)))
    penalty("gp")(critic, real, fake)
    alpha = seen[0].data
    assert (alpha == alpha[:, :1, :1, :1]).all()
    assert len(np.unique(alpha[:, 0, 0, 0])) == 64
    assert 0 <= alpha.min() < 0.1 and 0.9 < alpha.max() < 1


# Random numbers ----------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gp", "dragan"])
def test_every_call_draws_anew_and_a_seed_repeats_it(name: str, rng: np.random.Generator) -> None:
    real, fake = pair(rng, 4, 6)
    critic, p = curved(rng, 6), penalty(name)
    first, second = (total(p(critic, real, fake)).item() for _ in range(2))
    assert first != second
    mg.manual_seed(0)
    assert total(p(critic, real, fake)).item() == first
    assert random.state()["stream/penalty"] == 1


@pytest.mark.parametrize(("name", "calls"), [("gp", 1), ("dragan", 1), ("r1", 0), ("drift", 0)])
def test_draws_go_through_the_feed(name: str, calls: int, rng: np.random.Generator) -> None:
    """So that a step that is recorded once and played again draws new numbers."""
    counts = {"construction": 0, "call": 0}

    def feed(key: str) -> Callable[[Callable[[], Array]], Tensor]:
        def count(compute: Callable[[], Array]) -> Tensor:
            counts[key] += 1
            return Tensor(compute())

        return count

    real, fake = pair(rng, 4, 6)
    p = penalty(name, feed=feed("construction"))
    p(curved(rng, 6), real, fake)
    p(curved(rng, 6), real, fake, feed=feed("call"))
    assert counts == {"construction": calls, "call": calls}


# Derivatives with respect to the weights of D ----------------------------------------------------


class Attention(nn.Module):
    """x + gamma W_o softmax(q k^T) v over positions, as in SAGAN."""

    def __init__(self, channels: int) -> None:
        self.q, self.k, self.v = (nn.Conv2d(channels, channels, 1) for _ in range(3))
        self.gamma = nn.Parameter(np.full((1, 1, 1, 1), 0.7))

    def forward(self, x: Tensor) -> Tensor:
        def rows(t: Tensor) -> Tensor:  # N,HW,C
            return t.reshape(*t.shape[:2], -1).transpose(0, 2, 1)

        y = F.scaled_dot_product_attention(rows(self.q(x)), rows(self.k(x)), rows(self.v(x)))
        return x + y.transpose(0, 2, 1).reshape(x.shape) * self.gamma


class Projection(nn.Module):
    """D(x, y) = psi(h) + <E_y, h>, h = sum of phi(x) over positions."""

    def __init__(self) -> None:
        self.phi = nn.Sequential(nn.Conv2d(2, 3, 3), nn.LeakyReLU(0.2))
        self.psi, self.embed = nn.Linear(3, 1), nn.Embedding(4, 3)
        self.y = Tensor(np.array([1, 3, 1]))

    def forward(self, x: Tensor) -> Tensor:
        h = self.phi(x).sum(axis=(2, 3))
        return self.psi(h).reshape(-1) + (self.embed(self.y) * h).sum(1)


def conv_then(*layers: nn.Module, out: int = 48) -> nn.Module:
    """Layers between a convolution, 2 -> 3 maps of 4x4, and a curved end."""
    return nn.Sequential(
        nn.Conv2d(2, 3, 3), *layers, nn.Softplus(), nn.Flatten(), nn.Linear(out, 1)
    )


def spectral() -> nn.Module:
    return nn.Sequential(
        nn.spectral_norm(nn.Conv2d(2, 3, 3)),
        nn.Softplus(),
        nn.spectral_norm(nn.ConvTranspose2d(3, 2, 2, stride=2)),
        nn.LeakyReLU(0.2),
        nn.Flatten(),
        nn.spectral_norm(nn.Linear(128, 1)),
    )


LAYERS: dict[str, Callable[[], nn.Module]] = {
    "conv": lambda: conv_then(nn.Conv2d(3, 4, 3, stride=2, padding=1), out=16),
    "conv transpose": lambda: conv_then(nn.ConvTranspose2d(3, 2, 4, stride=2, padding=1), out=128),
    "linear": lambda: nn.Sequential(
        nn.Flatten(), nn.Linear(72, 5), nn.Tanh(), nn.Linear(5, 4), nn.SiLU(), nn.Linear(4, 1)
    ),
    "leaky relu": lambda: conv_then(nn.LeakyReLU(0.2), nn.Conv2d(3, 3, 3, padding=1)),
    "prelu": lambda: conv_then(nn.PReLU(), nn.Conv2d(3, 3, 3, padding=1)),
    "layer norm": lambda: conv_then(nn.LayerNorm((3, 4, 4)), nn.LeakyReLU(0.2)),
    "instance norm": lambda: conv_then(nn.InstanceNorm2d(3, affine=True), nn.LeakyReLU(0.2)),
    "group norm": lambda: conv_then(nn.GroupNorm(1, 3)),
    "batch norm": lambda: conv_then(nn.BatchNorm2d(3), nn.LeakyReLU(0.2)),
    "pixel norm": lambda: conv_then(nn.PixelNorm()),
    "spectral norm": spectral,
    "self attention": lambda: conv_then(Attention(3)),
    "max pool": lambda: conv_then(nn.MaxPool2d(2), out=12),
    "average pool": lambda: conv_then(nn.AvgPool2d(2), out=12),
    "upsample": lambda: conv_then(nn.Upsample(scale_factor=2), out=192),
    "pixel unshuffle": lambda: conv_then(nn.PixelUnshuffle(2), nn.Conv2d(12, 3, 1), out=12),
    "minibatch stddev": lambda: conv_then(nn.MinibatchStdDev(), nn.Conv2d(4, 3, 1)),
    "embedding": Projection,
    "equalized": lambda: conv_then(nn.equalized(nn.Conv2d(3, 3, 3, padding=1))),
}
STEP = 1e-5


def prepared(layer: str) -> tuple[nn.Module, list[nn.Parameter]]:
    """A critic in float64 whose parameters are all different from their special first values."""
    D = LAYERS[layer]().astype("float64")
    rng = np.random.default_rng(3)
    parameters = list(D.parameters())
    for p in parameters:
        p.data = p.data + 0.3 * rng.standard_normal(p.shape)
    if layer == "spectral norm":  # u and v move in training mode, and are constants by definition
        D.eval()
    return D, parameters


@pytest.mark.filterwarnings("ignore:penalty")  # of batch norm
@pytest.mark.parametrize("layer", LAYERS)
@pytest.mark.parametrize("name", ["gp", "r1", "dragan"])
def test_derivatives_through_every_layer(layer: str, name: str, rng: np.random.Generator) -> None:
    """Bug 5, tf-gan, mlpack, AiDotNet: a penalty that critics do not learn from, because their
    layers have no second derivative. Each parameter along a random direction."""
    D, parameters = prepared(layer)
    real, fake = pair(rng, 3, 2, 6, 6)
    p = penalty(name)

    def value() -> Tensor:
        mg.manual_seed(0)
        return total(p(D, real, fake))

    for parameter, g in zip(parameters, mg.grad(value(), parameters), strict=True):
        base, v = parameter.data.copy(), rng.standard_normal(parameter.shape)

        def at(t: float, parameter: Any = parameter, base: Array = base, v: Array = v) -> float:
            parameter.data = base + t * STEP * v
            return float(value().item())

        numeric = (8 * (at(1) - at(-1)) - (at(2) - at(-2))) / (12 * STEP)
        parameter.data = base
        if g is None:
            assert abs(numeric) < 1e-7, parameter
            continue
        size = np.abs(g.data * v).sum()
        np.testing.assert_allclose((g.data * v).sum(), numeric, rtol=0, atol=1e-7 * size + 1e-8)


def test_the_weights_inside_do_learn(rng: np.random.Generator) -> None:
    """Guards the test above: hardly any of its gradients is None or zero."""
    for layer in LAYERS:
        D, parameters = prepared(layer)
        real, fake = pair(rng, 3, 2, 6, 6)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            loss = total(penalty("gp")(D, real, fake))
        learn = [g is not None and np.abs(g.data).max() > 1e-6 for g in mg.grad(loss, parameters)]
        assert sum(learn) >= len(learn) - 2, layer
        assert learn[0], layer


def test_no_nan_where_the_gradient_of_d_vanishes(rng: np.random.Generator) -> None:
    """The root of 0 has an infinite slope: eps inside keeps the gradients finite."""
    for dtype in (np.float32, np.float64):
        real = Tensor(rng.standard_normal((3, 4)).astype(dtype))
        for name in OF_LENGTH:
            theta = leaf(np.zeros(4, dtype))
            loss = total(penalty(name)(linear(theta), real, real))
            assert loss.dtype == dtype
            assert np.isfinite(loss.item()) and np.isfinite(gradient(loss, theta)).all(), name


def test_a_critic_that_ignores_its_images_is_refused(rng: np.random.Generator) -> None:
    """Bug 7, torchgan: a tensor built anew on the way, so that the penalty is a constant."""
    real, fake = pair(rng, 3, 4)
    w = leaf(rng.standard_normal(4))
    for critic in (lambda x: linear(w)(Tensor(x.data)), lambda x: Tensor(x.data).sum(1)):
        with pytest.raises(GraphError, match="does not depend on the images"):
            penalty("gp")(critic, real, fake)


def test_penalty_and_loss_are_one_graph_and_leave_g_alone(rng: np.random.Generator) -> None:
    """Bug 6, torchgan: the penalty as a step of its own, with fakes that are not detached."""
    G = nn.Sequential(nn.Linear(3, 5), nn.Tanh(), nn.Linear(5, 4)).astype("float64")
    D = nn.Sequential(nn.Linear(4, 5), nn.Tanh(), nn.Linear(5, 1)).astype("float64")
    real, fake = Tensor(rng.standard_normal((6, 4))), G(Tensor(rng.standard_normal((6, 3))))
    for name in PENALTIES:
        p = penalty(name)
        terms = adversarial("wgan").d(D(real), D(fake.detach())) | p(D, real, fake)
        loss = total(terms)
        grads = mg.grad(loss, [*G.parameters(), *D.parameters()])
        of_g, of_d = grads[:4], grads[4:]
        assert all(g is None for g in of_g), name
        assert sum(g is not None and bool(g.data.any()) for g in of_d) >= 2, name


def test_float32_stays_float32(rng: np.random.Generator) -> None:
    D = nn.Sequential(nn.Conv2d(3, 4, 3), nn.LeakyReLU(0.2), nn.Flatten(), nn.Linear(144, 1))
    real, fake = (Tensor(rng.standard_normal((4, 3, 8, 8)).astype(np.float32)) for _ in range(2))
    for name in PENALTIES:
        for term in penalty(name)(D, real, fake).values():
            assert term.dtype == np.float32
            assert all(g is None or g.dtype == np.float32 for g in mg.grad(term, [*D.parameters()]))


# Mistakes ----------------------------------------------------------------------------------------


def test_batch_norm_is_warned_about_once(rng: np.random.Generator) -> None:
    D = nn.Sequential(nn.Conv2d(1, 2, 3), nn.BatchNorm2d(2), nn.Flatten(), nn.Linear(8, 1))
    real, fake = (Tensor(rng.standard_normal((4, 1, 4, 4)).astype(np.float32)) for _ in range(2))
    for name in OF_LENGTH:
        p = penalty(name)
        with pytest.warns(UserWarning, match="depends on all others") as caught:
            p(lambda x: D(x), real, fake)  # through a closure, as games call it
        assert len(caught) == 1
        p(D, real, fake)
    penalty("drift")(D, real, fake)
    D.eval()
    for name in OF_LENGTH:
        penalty(name)(D, real, fake)


def test_norms_of_single_samples_are_not_warned_about(rng: np.random.Generator) -> None:
    layers = [nn.InstanceNorm2d(2), nn.LayerNorm((2, 2, 2)), nn.GroupNorm(2, 2), nn.PixelNorm()]
    D = nn.Sequential(nn.Conv2d(1, 2, 3), *layers, nn.Flatten(), nn.Linear(8, 1))
    real, fake = (Tensor(rng.standard_normal((4, 1, 4, 4)).astype(np.float32)) for _ in range(2))
    for name in OF_LENGTH:
        penalty(name)(D, real, fake)


def test_mistakes_are_explained(rng: np.random.Generator) -> None:
    with pytest.raises(UsageError, match=r"unknown penalty 'dargan' \(did you mean 'dragan'\?\)"):
        penalty("dargan")
    with pytest.raises(UsageError, match="at least 1"):
        penalty("gp", every=0)
    with pytest.raises(UsageError, match="not be negative"):
        penalty("gp", -1.0)
    with pytest.raises(ShapeError, match="between a real image and a fake"):
        penalty("gp")(linear(Tensor(np.ones(4))), *(Tensor(np.ones((n, 4))) for n in (3, 5)))


# Lazy application --------------------------------------------------------------------------------


def test_lazy_penalties_count_as_much_as_those_of_every_step(rng: np.random.Generator) -> None:
    real, fake = pair(rng, 4, 6)
    critic = curved(rng, 6)
    often, seldom = penalty("r1"), penalty("r1", every=4)
    assert [seldom.due(step) for step in range(6)] == [True, False, False, False, True, False]
    assert all(often.due(step) for step in range(6))

    def summed(p: Any) -> float:
        due = [p(critic, real, fake) for step in range(8) if p.due(step)]
        return sum(total(terms).item() for terms in due)

    assert summed(seldom) == pytest.approx(summed(often))
    assert lazy(1e-3, (0.0, 0.99), 4) == (1e-3 * 0.8, (0.0, 0.99**0.8))


# On a GPU ----------------------------------------------------------------------------------------


def terms_on(device: str, what: str, net: nn.Module) -> tuple[list[float], list[Array]]:
    """Values of the terms, and the gradients of their sum with respect to the weights."""
    rng = np.random.default_rng(1)
    images = [Tensor(rng.standard_normal((4, 2, 6, 6)).astype(np.float32)) for _ in range(2)]
    real, fake = (t.to(device) for t in images)
    net.to(device)
    mg.manual_seed(0)
    if what == "path length":
        regular = PathLength().to(device)
        w = Tensor(real.data)
        w = w.reshape(4, -1)
        w.requires_grad = True
        terms = regular(net(w.reshape(real.shape)), w)
        terms = terms | {"mean": regular.mean}
    elif what == "orthogonal":
        terms = orthogonal(net)
    elif what in PENALTIES:
        terms = penalty(what)(net, real, fake)
    else:
        loss = adversarial(what)
        terms = loss.d(net(real), net(fake)) | loss.g(net(fake), net(real))
    assert all(term.device == real.device for term in terms.values())
    learned = [p for p in net.parameters() if p.ndim > 1]
    grads = mg.grad(total({k: v for k, v in terms.items() if k != "mean"}), learned)
    found = [to_numpy(g.data) for g in grads if g is not None]
    net.to("cpu")
    return [float(term.item()) for term in terms.values()], found


@pytest.mark.usefixtures("accurate")
@pytest.mark.parametrize("what", [*PENALTIES, *ADVERSARIAL, "path length", "orthogonal"][1:])
def test_a_gpu_gives_the_same(what: str) -> None:
    """With nothing read back from the device on the way; random numbers come from the host."""
    net = nn.Sequential(
        nn.Conv2d(2, 4, 3),
        nn.LeakyReLU(0.2),
        nn.spectral_norm(nn.Conv2d(4, 3, 3)),
        nn.Tanh(),
        nn.Conv2d(3, 1, 1),
    ).eval()
    values, grads = terms_on("cpu", what, net)
    others, other_grads = terms_on(NAME, what, net)
    assert values == pytest.approx(others, rel=1e-4)
    assert len(grads) == len(other_grads) >= 2
    for a, b in zip(grads, other_grads, strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-3, atol=1e-4 * np.abs(a).max())


# PyTorch -----------------------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.parametrize("name", ["gp", "r1", "path length"])
def test_equals_torch(name: str, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    layers = (nn.Conv2d(2, 3, 3, stride=2, padding=1), nn.Conv2d(3, 1, 3))
    D = nn.Sequential(layers[0], nn.LeakyReLU(0.2), layers[1], nn.Softplus()).astype("float64")
    theta = [torch.tensor(p.data.copy(), requires_grad=True) for p in D.parameters()]
    conv, act = torch.nn.functional.conv2d, torch.nn.functional

    def theirs(x: Any) -> Any:
        h = act.leaky_relu(conv(x, theta[0], theta[1], stride=2, padding=1), 0.2)
        return act.softplus(conv(h, theta[2], theta[3]))

    real, fake = pair(rng, 4, 2, 8, 8)
    if name == "path length":
        w, y = leaf(real.data.reshape(4, -1)), rng.standard_normal((4, 1, 2, 2))
        images = D(w.reshape(real.shape))
        mine = PathLength().astype("float64")(images, w, feed=fed(y))["loss_pl"]
    else:
        alpha = rng.random((4, 1, 1, 1))
        mine = total(penalty(name)(D, real, fake, feed=fed(alpha)))
    data = torch.tensor(real.data)
    if name == "gp":
        a = torch.tensor(alpha)
        data = a * data + (1 - a) * torch.tensor(fake.data)
    data.requires_grad_(True)
    out = theirs(data)
    out = (out * torch.tensor(y) / 2).sum() if name == "path length" else out.sum()
    (g,) = torch.autograd.grad(out, data, create_graph=True)
    if name == "gp":
        loss = 10 * ((g.flatten(1).norm(dim=1) - 1) ** 2).mean()
    elif name == "r1":
        loss = 10 / 2 * g.square().sum([1, 2, 3]).mean()
    else:
        paths = g.square().sum([1, 2, 3]).sqrt()
        loss = 8 * (paths - 0.01 * paths.mean().detach()).square().mean()
    grads = torch.autograd.grad(loss, theta, allow_unused=True)
    assert mine.item() == pytest.approx(loss.item(), rel=1e-10)
    for a, b in zip(mg.grad(mine, list(D.parameters())), grads, strict=True):
        if b is None or a is None:
            assert (a is None or not a.data.any()) and (b is None or not b.any())
        else:
            np.testing.assert_allclose(a.data, b, rtol=1e-10, atol=1e-13)


def test_fakes_are_judged_with_their_own_classes() -> None:
    """D(x, y) = a_y . x: R1 knows the reals' classes, R2 the fakes'."""
    a = Tensor(np.array([[1.0, 2.0], [3.0, 4.0]]))
    x = Tensor(np.zeros((2, 2)))
    y, y_fake = Tensor(np.array([0, 0])), Tensor(np.array([1, 1]))
    terms = penalty("zero-centred", 1.0)(
        lambda x: (F.embedding(y, a) * x).sum(axis=1),
        x,
        x,
        of_fake=lambda x: (F.embedding(y_fake, a) * x).sum(axis=1),
    )
    assert terms["loss_r1"].item() == 2.5 and terms["loss_r2"].item() == 12.5
