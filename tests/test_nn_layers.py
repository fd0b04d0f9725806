"""Layers: equal to torch.nn (stored, and live where torch is), and their own conventions."""

from __future__ import annotations

import math
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest

import minigan as mg
from minigan import nn
from minigan.errors import ShapeError, UsageError
from minigan.tensor import Tensor

FIXTURES = Path(__file__).parent / "fixtures"
sys.path.insert(0, str(FIXTURES))

from make_nn_fixtures import CASES, STORED, Case, run  # noqa: E402


def floats(*shape: int, seed: int = 0) -> Tensor:
    return mg.tensor(np.random.default_rng(seed).standard_normal(shape))


def replay(case: Case, told: dict[str, Any]) -> None:
    """Do here what `run` did in torch, and compare everything."""
    layer = getattr(nn, case.kind)(*case.args, **case.options).astype("float64")
    if case.norm:
        nn.spectral_norm(layer)
    layer.train(case.training)
    before = {k.removeprefix("before/"): v for k, v in told.items() if k.startswith("before/")}
    layer.load_state_dict(before, rename=nn.from_torch)
    x = mg.tensor(told["x"], requires_grad=told["x"].dtype.kind == "f")
    layer(x)
    y = layer(x)
    np.testing.assert_allclose(y.data, told["y"], rtol=1e-10, atol=1e-12)
    names = [name for name, _ in layer.named_parameters()]
    inputs = list(layer.parameters()) + ([x] if x.requires_grad else [])
    grads = mg.grad(y, inputs, told["r"]) if y.requires_grad else []
    expected = {nn.from_torch(k.removeprefix("grad/")): v for k, v in told.items() if "grad/" in k}
    for name, g in zip([*names, "x"], grads, strict=False):
        assert g is not None
        wanted = told["dx"] if name == "x" else expected[name]
        np.testing.assert_allclose(g.data, wanted, rtol=1e-9, atol=1e-11, err_msg=name)
    state = layer.state_dict()
    for key, value in told.items():
        name = nn.from_torch(key.removeprefix("after/"))
        if key.startswith("after/") and not (name.endswith("tracked") and "Inst" in case.kind):
            np.testing.assert_allclose(state[name], value, rtol=1e-10, atol=1e-12, err_msg=key)


@pytest.mark.parametrize("name", STORED)
def test_equals_stored_torch(name: str) -> None:
    with np.load(FIXTURES / "nn.npz") as archive:
        prefix = f"{name}/"
        told = {k.removeprefix(prefix): archive[k] for k in archive if k.startswith(prefix)}
    replay(CASES[name], told)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("name", CASES)
def test_equals_torch(name: str) -> None:
    pytest.importorskip("torch")
    replay(CASES[name], run(CASES[name], seed=100))


# Conventions -----------------------------------------------------------------------------------


@pytest.mark.parametrize("layer", [nn.BatchNorm2d, nn.InstanceNorm2d, nn.BatchNorm1d])
def test_a_second_positional_argument_of_a_norm_is_refused(layer: Any) -> None:
    """PyTorch-GAN's BatchNorm2d(c, 0.8) sets eps, where a momentum was meant."""
    with pytest.raises(TypeError):
        layer(8, 0.8)


def test_first_values_are_those_of_torch_in_distribution() -> None:
    for layer, fan_in in (
        (nn.Linear(50, 400), 50),
        (nn.Conv2d(8, 64, 5), 200),
        (nn.ConvTranspose2d(64, 8, 5), 200),  # torch counts the axis of outputs as fan_in here
    ):
        bound = 1 / math.sqrt(fan_in)
        for t in (layer.weight, layer.bias):
            assert t is not None and t.dtype == np.float32
            assert np.abs(t.data).max() <= bound and np.abs(t.data).max() > 0.7 * bound
        assert abs(float(layer.weight.data.std()) - bound / math.sqrt(3)) < 0.05 * bound


def test_first_values_repeat_with_the_seed() -> None:
    def weights() -> Any:
        return nn.Sequential(nn.Linear(3, 3), nn.Conv2d(3, 3, 3)).state_dict()

    mg.manual_seed(5)
    a = weights()
    mg.manual_seed(5)
    b = weights()
    mg.manual_seed(6)
    c = weights()
    assert all(np.array_equal(a[k], b[k]) for k in a)
    assert not np.array_equal(a["0.weight"], c["0.weight"])
    assert not np.array_equal(a["0.weight"][0], a["0.weight"][1])


def test_batch_norm_statistics_and_modes() -> None:
    norm = nn.BatchNorm2d(2).astype("float64")
    x = floats(4, 2, 3, 3) * 2.0 + 1.0
    norm(x)
    assert norm.running_mean is not None and norm.running_var is not None
    np.testing.assert_allclose(norm.running_mean.data, 0.1 * x.data.mean(axis=(0, 2, 3)))
    unbiased = x.data.var(axis=(0, 2, 3), ddof=1)
    np.testing.assert_allclose(norm.running_var.data, 0.9 + 0.1 * unbiased)
    norm.eval()
    before = norm.state_dict()
    y = norm(x)
    after = norm.state_dict()
    assert all(np.array_equal(before[k], after[k]) for k in before)
    mean, var = (after[k].reshape(1, 2, 1, 1) for k in ("running_mean", "running_var"))
    np.testing.assert_allclose(y.data, (x.data - mean) / np.sqrt(var + 1e-5))


def test_cumulative_momentum_is_the_mean_of_all_batches() -> None:
    norm = nn.BatchNorm1d(3, momentum=None).astype("float64")
    batches = [floats(5, 3, seed=i) for i in range(4)]
    for x in batches:
        norm(x)
    assert norm.running_mean is not None and norm.num_batches_tracked is not None
    np.testing.assert_allclose(
        norm.running_mean.data, np.mean([x.data.mean(axis=0) for x in batches], axis=0)
    )
    assert norm.num_batches_tracked.item() == 4


def test_recomputing_does_not_count_twice() -> None:
    net = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.spectral_norm(nn.Linear(3, 1)))
    x = mg.tensor(np.random.default_rng(0).standard_normal((4, 3)).astype(np.float32))
    start = net.state_dict()
    mg.grad(mg.checkpoint(net, x).sum(), list(net.parameters()))
    assert net[1].num_batches_tracked.item() == 1
    other = nn.Sequential(nn.Linear(3, 3), nn.BatchNorm1d(3), nn.spectral_norm(nn.Linear(3, 1)))
    other.load_state_dict(start)
    other(x)
    for name, value in net.state_dict().items():
        assert np.array_equal(value, other.state_dict()[name]), name


def test_one_value_per_channel_cannot_be_normalised_while_training() -> None:
    net = nn.Sequential(nn.Conv2d(2, 2, 1), nn.BatchNorm2d(2))
    x = mg.tensor(np.ones((1, 2, 1, 1), np.float32))
    with pytest.raises(ShapeError, match=r"where: Sequential\.1, input \(1, 2, 1, 1\)"):
        net(x)
    assert net.eval()(x).shape == (1, 2, 1, 1)


def test_norms_refuse_inputs_of_other_axes() -> None:
    with pytest.raises(ShapeError, match=r"BatchNorm2d: the input must be \(N,C,H,W\)"):
        nn.BatchNorm2d(3)(floats(2, 3))
    with pytest.raises(ShapeError, match="BatchNorm1d"):
        nn.BatchNorm1d(3)(floats(2, 3, 4, 4))


def test_options_of_convolutions_are_checked_at_once() -> None:
    with pytest.raises(ShapeError, match="do not split into 3 groups"):
        nn.Conv2d(4, 6, 3, groups=3)
    with pytest.raises(ShapeError, match="does not have 2 entries"):
        nn.Conv2d(4, 6, (3, 3, 3))
    with pytest.raises(ShapeError, match="do not split"):
        nn.GroupNorm(3, 4)


def test_weights_lie_in_memory_as_their_gradients_do() -> None:
    """So that an optimizer step is one pass, also after loading, new values and conversion."""
    net = nn.Sequential(
        nn.Conv2d(3, 8, 3), nn.BatchNorm2d(8), nn.ConvTranspose2d(8, 4, 4, stride=2)
    )
    net.load_state_dict(net.state_dict())
    nn.init.dcgan_(net)
    net.astype("float64")
    grads = mg.grad(net(floats(2, 3, 8, 8)).sum(), list(net.parameters()))
    for (name, p), g in zip(net.named_parameters(), grads, strict=True):
        assert g is not None and p.data.strides == g.data.strides, name
    assert all(v.flags.c_contiguous for v in net.state_dict().values())


def test_reshape_keeps_the_batch() -> None:
    assert nn.Reshape(2, 3)(floats(5, 6)).shape == (5, 2, 3)
    assert nn.Identity()(x := floats(2, 2)) is x


def test_dropout_looks_at_the_mode() -> None:
    x = mg.tensor(np.ones((40, 50), np.float32))
    drop = nn.Dropout(0.25)
    y = drop(x).data
    assert set(np.unique(y)) == {0, np.float32(1 / 0.75)} and 0.2 < np.mean(y == 0) < 0.3
    assert drop.eval()(x) is x
    maps = nn.Dropout2d(0.5)(mg.tensor(np.ones((8, 8, 3, 3), np.float32))).data
    assert np.all(maps == maps[:, :, :1, :1])


def test_minibatch_stddev_and_pixel_norm() -> None:
    x = floats(4, 3, 2, 2)
    y = nn.MinibatchStdDev(4)(x)
    assert y.shape == (4, 4, 2, 2)
    expected = np.sqrt(x.data.var(axis=0) + 1e-8).mean()
    np.testing.assert_allclose(y.data[:, 3], expected)
    z = nn.PixelNorm()(x).data
    np.testing.assert_allclose(np.square(z).mean(axis=1), 1, rtol=1e-6)


def test_maxout_takes_the_largest_piece() -> None:
    x = floats(2, 6)
    np.testing.assert_array_equal(nn.Maxout(3)(x).data, x.data.reshape(2, 2, 3).max(axis=2))


# Conditional norms -----------------------------------------------------------------------------


def test_conditional_batch_norm_selects_by_class() -> None:
    norm = nn.ConditionalBatchNorm2d(2, 3).astype("float64")
    plain = nn.BatchNorm2d(2, affine=False).astype("float64")
    x, labels = floats(4, 2, 3, 3), mg.tensor([0, 2, 1, 2])
    np.testing.assert_allclose(norm(x, labels).data, plain(x).data)  # starts as plain batch norm
    norm.gamma.weight.data[2], norm.beta.weight.data[2] = 3.0, 1.0
    y, reference = norm(x, labels).data, plain(x).data
    np.testing.assert_allclose(y[[1, 3]], 3 * reference[[1, 3]] + 1)
    np.testing.assert_allclose(y[[0, 2]], reference[[0, 2]])
    assert norm.running_mean is not None and plain.running_mean is not None
    np.testing.assert_allclose(norm.running_mean.data, plain.running_mean.data)
    assert norm.eval()(x, labels).shape == x.shape
    names = [n for n, _ in norm.named_parameters()]
    assert names == ["gamma.weight", "beta.weight"]


def test_adain_takes_size_and_place_from_the_style() -> None:
    norm = nn.AdaIN(3, 5).astype("float64")
    x, w = floats(2, 3, 4, 4), floats(2, 5, seed=1)
    y = norm(x, w).data
    style = norm.style(w).data
    np.testing.assert_allclose(y.mean(axis=(2, 3)), style[:, 3:], atol=1e-12)
    np.testing.assert_allclose(y.std(axis=(2, 3)), np.abs(1 + style[:, :3]), rtol=1e-4)


@pytest.mark.parametrize("kind", ["batch", "instance", "layer"])
def test_spade_by_hand(kind: str) -> None:
    layer = nn.SPADE(4, 3, hidden=8, norm=kind).astype("float64")
    x, m = floats(2, 4, 4, 4), floats(2, 3, 8, 8, seed=1)
    y = layer(x, m).data
    axes = {"batch": (0, 2, 3), "instance": (2, 3), "layer": (1, 2, 3)}[kind]
    mean, var = (f(x.data, axis=axes, keepdims=True) for f in (np.mean, np.var))
    small = mg.tensor(m.data[:, :, ::2, ::2])  # nearest takes the top left pixel
    a = layer.mlp_shared(small)
    gamma, beta = layer.mlp_gamma(a).data, layer.mlp_beta(a).data
    np.testing.assert_allclose(y, (x.data - mean) / np.sqrt(var + 1e-5) * (1 + gamma) + beta)
    names = [n for n, _ in layer.named_tensors()]
    assert ("param_free_norm.running_mean" in names) == (kind == "batch")
    assert "mlp_shared.0.weight" in names and "mlp_gamma.bias" in names
    if kind == "batch":
        layer.eval()
        assert not np.allclose(layer(x, m).data, y)
    with pytest.raises(UsageError, match="unknown norm"):
        nn.SPADE(4, 3, norm="group")


def test_spade_sees_a_constant_label_map_where_convolution_and_norm_lose_it() -> None:
    """Two maps, each of one class everywhere: instance norm washes a constant out, SPADE not."""
    maps = [np.zeros((1, 2, 6, 6)) for _ in range(2)]
    maps[0][:, 0] = maps[1][:, 1] = 1
    x = floats(1, 4, 6, 6)
    layer = nn.SPADE(4, 2, hidden=8, norm="instance").astype("float64")
    a, b = (layer(x, mg.tensor(m)).data for m in maps)
    assert np.abs(a - b).max() > 0.1
    plain = nn.Sequential(nn.ReflectionPad2d(1), nn.Conv2d(2, 4, 3), nn.InstanceNorm2d(4))
    a, b = (plain.astype("float64")(mg.tensor(m)).data for m in maps)
    assert np.abs(a - b).max() < 1e-6
