"""What goes wrong on a GPU is said, and the program goes on."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from test_devices import NAME

import minigan as mg
import minigan.functional as F
from minigan import nn, optim
from minigan.backend import find
from minigan.errors import UsageError


def both(*shape: int) -> tuple[mg.Tensor, mg.Tensor]:
    """The same numbers on the CPU and on the GPU."""
    here = mg.tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    return here, here.to(NAME)


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: a + b,
        lambda a, b: b * a,
        lambda a, b: F.conv2d(a, b),
        lambda a, b: F.conv2d(b, a),
        lambda a, b: F.concat([a, b]),
        lambda a, b: F.mse_loss(a, b),
        lambda a, b: F.batch_norm(b, None, None, a[0, :, 0, 0], a[0, :, 0, 0], True),
    ],
)
def test_mixed_devices_are_refused(call: Any) -> None:
    here, there = both(3, 3, 4, 4)
    with pytest.raises(UsageError, match=r"different devices(.|\n)*\.to\(device\)"):
        call(here, there)
    assert np.isfinite((there + there).numpy()).all()


def test_numbers_come_back_only_when_asked_for() -> None:
    here, there = both(2, 3)
    assert there.device == find(NAME).name and here.device == "cpu"
    assert np.array_equal(there.numpy(), here.numpy()) and there.to("cpu").device == "cpu"
    with pytest.raises(TypeError):
        np.asarray(there.data)


def test_an_unsupported_dtype_is_refused() -> None:
    whole = mg.tensor([1, 2, 3]).to(NAME)
    with pytest.raises(Exception, match=r"int64|integer"):
        F.tanh(whole)


def test_weights_keep_their_order_in_memory_on_the_way() -> None:
    layer = nn.Conv2d(3, 5, 3)
    strides = layer.weight.data.strides
    saved = layer.state_dict()["weight"]
    layer.to(NAME)
    assert tuple(layer.weight.data.strides) == strides
    assert np.array_equal(layer.state_dict()["weight"], saved)
    layer.to("cpu")
    assert np.array_equal(layer.weight.numpy(), saved)


def test_a_checkpoint_goes_from_device_to_device() -> None:
    """Trained on the GPU for a step, continued on the CPU: the optimizer's memory comes along."""
    network = nn.Linear(4, 2).to(NAME)
    adam = optim.Adam(list(network.parameters()), 1e-3)
    x = both(3, 4)[1]
    adam.step(mg.grad(network(x).square().sum(), list(network.parameters())))
    weights, memory = network.state_dict(), adam.state_dict()
    other = nn.Linear(4, 2)
    again = optim.Adam(list(other.parameters()), 1e-3)
    other.load_state_dict(weights)
    again.load_state_dict(memory)
    for name, array in again.state_dict().items():
        assert np.array_equal(array, memory[name])
    network.load_state_dict(other.state_dict())
    assert network.weight.device == find(NAME).name
