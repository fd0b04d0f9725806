"""Weights in other forms: spectral norm, equalized learning rate, first values by family."""

from __future__ import annotations

import math
from typing import Any

import numpy as np
import pytest

import minigan as mg
from minigan import nn, optim
from minigan.errors import UsageError
from minigan.nn import init
from minigan.tensor import Tensor


def floats(*shape: int, seed: int = 0) -> Tensor:
    return mg.tensor(np.random.default_rng(seed).standard_normal(shape))


LAYERS = [
    lambda: nn.Linear(30, 20),
    lambda: nn.Conv2d(5, 16, 3),
    lambda: nn.ConvTranspose2d(12, 6, 4),
    lambda: nn.Embedding(20, 10),
]


def largest(layer: Any, weight: Any = None) -> float:
    """The largest singular value of the weight as (out, rest), by SVD."""
    w = layer.weight.data if weight is None else weight
    if layer.out_axis:
        w = np.swapaxes(w, 0, 1)
    return float(np.linalg.svd(w.reshape(len(w), -1), compute_uv=False)[0])


# Spectral norm ---------------------------------------------------------------------------------


@pytest.mark.parametrize("make", LAYERS)
def test_spectral_norm_against_svd(make: Any) -> None:
    layer = nn.spectral_norm(make())
    first = largest(layer, layer.eval().used_weight().data)
    assert 1 <= first * 1.001 and first < 1.1  # the 15 iterations of the start
    layer.train()
    for _ in range(20):
        used = layer.used_weight()
    assert abs(largest(layer, used.data) - 1) < 0.02


def test_sigma_is_differentiated_and_its_vectors_are_not() -> None:
    """d(W / sigma) with sigma = u^T W v: checked numerically, u and v held."""
    layer = nn.spectral_norm(nn.Conv2d(2, 3, 2)).astype("float64").eval()
    w, r = layer.weight.data.copy(), floats(3, 2, 2, 2).data
    assert layer.sn is not None
    mg.check.gradcheck(lambda t: layer.sn(t), [w], order=2)
    (g,) = mg.grad((layer.used_weight() * r).sum(), [layer.weight])
    plain = r / float(layer.sn.u.data @ w.reshape(3, -1) @ layer.sn.v.data)
    assert g is not None and np.abs(g.data - plain).max() > 1e-3
    # the gradient is at right angles to W: dividing by sigma takes its length out
    assert abs(float((g.data * w).sum())) < 1e-12


def test_two_forwards_before_the_backward() -> None:
    """D(real) and D(fake) advance u and v twice; each gradient uses the vectors of its own pass."""
    layer = nn.spectral_norm(nn.Linear(4, 3)).astype("float64")
    x = floats(5, 4)
    state = layer.state_dict()
    (a,) = mg.grad(layer(x).square().sum(), [layer.weight])
    layer.load_state_dict(state)
    first = layer(x).square().sum()
    layer(x * 2.0)
    (b,) = mg.grad(first, [layer.weight])
    assert a is not None and b is not None and np.array_equal(a.data, b.data)


def test_power_iteration_only_while_training() -> None:
    layer = nn.spectral_norm(nn.Linear(6, 5))
    x = mg.tensor(np.ones((2, 6), np.float32))
    before = layer.state_dict()
    layer.eval()
    layer(x)
    assert np.array_equal(before["sn.u"], layer.state_dict()["sn.u"])
    layer.train()
    layer(x)
    assert not np.array_equal(before["sn.u"], layer.state_dict()["sn.u"])
    assert list(before) == ["weight", "bias", "sn.u", "sn.v"]
    assert before["sn.u"].shape == (5,) and before["sn.v"].shape == (6,)
    assert [n for n, _ in layer.named_parameters()] == ["weight", "bias"]


def test_the_vectors_are_constants_of_adam() -> None:
    layer = nn.spectral_norm(nn.Linear(6, 5))
    opt = optim.Adam(layer.parameters(), 0.1)
    x = mg.tensor(np.ones((2, 6), np.float32))
    for _ in range(50):
        opt.step(mg.grad((layer(x) - 3.0).square().mean(), opt.params))
    assert abs(largest(layer, layer.used_weight().data) - 1) < 0.02


def test_removing_spectral_norm_keeps_the_function() -> None:
    layer = nn.spectral_norm(nn.equalized(nn.Conv2d(3, 4, 3))).eval()
    x = mg.tensor(np.ones((1, 3, 5, 5), np.float32))
    y = layer(x).data
    nn.remove_spectral_norm(layer)
    np.testing.assert_allclose(layer(x).data, y, rtol=1e-5)
    assert "sn.u" not in layer.state_dict()


def test_spectral_norm_refuses_what_has_no_weight() -> None:
    with pytest.raises(UsageError, match="Sequential has no weight"):
        nn.spectral_norm(nn.Sequential(nn.Linear(2, 2)))  # type: ignore[type-var]
    with pytest.raises(UsageError, match="'bias'"):
        nn.spectral_norm(nn.Linear(2, 2), "bias")
    with pytest.raises(UsageError, match="has it already"):
        nn.spectral_norm(nn.spectral_norm(nn.Linear(2, 2)))


# Equalized learning rate -----------------------------------------------------------------------


@pytest.mark.parametrize(
    ("make", "fan_in"),
    [
        (lambda: nn.Linear(40, 30), 40),
        (lambda: nn.Conv2d(8, 16, 3), 72),
        (lambda: nn.ConvTranspose2d(8, 16, 3), 72),
    ],
)
def test_equalized(make: Any, fan_in: int) -> None:
    layer = nn.equalized(make(), gain=math.sqrt(2), lrmul=0.01)
    assert abs(float(layer.weight.data.std()) * 0.01 - 1) < 0.1
    assert layer.bias is not None and not layer.bias.data.any()
    used = layer.used_weight().data
    np.testing.assert_allclose(used, layer.weight.data * (math.sqrt(2 / fan_in) * 0.01), rtol=1e-5)
    layer.bias.data[...] = 1
    bias = layer.used_bias()
    assert bias is not None and np.allclose(bias.data, 0.01)
    assert list(layer.state_dict()) == ["weight", "bias"]


def test_equalized_keeps_the_size_of_activations() -> None:
    net = nn.Sequential()
    for _ in range(4):
        net.append(nn.equalized(nn.Linear(256, 256))).append(nn.ReLU())
    x = mg.tensor(np.random.default_rng(0).standard_normal((64, 256)).astype(np.float32))
    assert 0.5 < float(np.square(net(x).data).mean()) < 2


# First values ----------------------------------------------------------------------------------


def network() -> nn.Sequential:
    return nn.Sequential(
        nn.Conv2d(16, 32, 3, stride=2),
        nn.BatchNorm2d(32),
        nn.ConvTranspose2d(32, 16, 4, stride=2),
        nn.spectral_norm(nn.Conv2d(16, 64, 1)),
        nn.Linear(64, 32),
        nn.Embedding(50, 64),
    )


FANS = {"0": (144, 288), "2": (512, 256), "3": (16, 64), "4": (64, 32), "5": (50, 64)}


def check_spread(name: str, layer: Any, std: float, uniform: bool) -> None:
    w = layer.weight.data.astype(np.float64)
    assert abs(w.std() / std - 1) < 0.08 and abs(w.mean()) < 0.1 * std, name
    if uniform:
        assert 0.9 < np.abs(w).max() / (std * math.sqrt(3)) <= 1 + 1e-6, name
    else:
        assert np.abs(w).max() > 2.5 * std, name
    assert layer.bias is None or not layer.bias.data.any()


RULES: dict[str, tuple[Any, bool]] = {
    "dcgan_": (lambda i, o, k: 0.02, False),
    "glorot_uniform_": (lambda i, o, k: math.sqrt(2 / (i + o)), True),
    "glorot_normal_": (lambda i, o, k: math.sqrt(2 / (i + o)), False),
    "he_uniform_": (lambda i, o, k: math.sqrt(2 / i), True),
    "he_normal_": (lambda i, o, k: math.sqrt(2 / i), False),
    "goodfellow_": (lambda i, o, k: 0.05 / math.sqrt(3), True),
    "sngan_": (lambda i, o, k: math.sqrt(2 / (i + o)) * (math.sqrt(2) if k > 1 else 1), True),
    "spade_": (lambda i, o, k: 0.02 * math.sqrt(2 / (i + o)), False),
}


@pytest.mark.parametrize("rule", RULES)
def test_first_values_by_family(rule: str) -> None:
    net = network()
    assert getattr(init, rule)(net) is None
    std, uniform = RULES[rule]
    for name, (fan_in, fan_out) in FANS.items():
        layer: Any = net[int(name)]
        kernel = math.prod(layer.weight.shape[2:])
        check_spread(name, layer, std(fan_in, fan_out, kernel), uniform)
    norm: Any = net[1]
    moved = rule in ("dcgan_", "spade_")
    assert (0.01 < norm.weight.data.std() < 0.03) == moved
    assert abs(norm.weight.data.mean() - 1) < 0.02 and not norm.bias.data.any()


def test_orthogonal() -> None:
    net = network()
    init.orthogonal_(net, gain=2.0)
    for name in FANS:
        layer: Any = net[int(name)]
        w = layer.weight.data.astype(np.float64).reshape(len(layer.weight), -1)
        gram = w @ w.T if len(w) <= w.shape[1] else w.T @ w
        np.testing.assert_allclose(gram, 4 * np.eye(len(gram)), atol=1e-5)


def test_wgan_gp_divides_the_fan_by_the_stride() -> None:
    net = network()
    init.wgan_gp_(net)
    check_spread("0", net[0], math.sqrt(4 / (144 + 288 / 4)), True)
    check_spread("2", net[2], math.sqrt(4 / (512 / 4 + 256)), True)
    check_spread("4", net[4], math.sqrt(2 / (64 + 32)), True)


def test_spectral_norm_starts_again_after_new_values() -> None:
    net = network()
    init.orthogonal_(net)
    layer: Any = net[3].eval()
    assert abs(largest(layer, layer.used_weight().data) - 1) < 1e-3


def test_first_values_keep_dtype_and_bump_versions() -> None:
    layer = nn.Linear(3, 3).astype("float64")
    version = layer.weight.version[0]
    init.dcgan_(layer)
    assert layer.weight.dtype == np.float64 and layer.weight.version[0] > version
