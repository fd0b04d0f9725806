"""Whole training steps on a GPU (the emulated one, unless MINIGAN_DEVICE=cuda) and on the CPU."""

from __future__ import annotations

import numpy as np
import pytest
from test_devices import NAME

import minigan as mg
from benchmarks.steps import nets
from minigan.backend import to_numpy

STEPS = {net.name.split()[0]: net for net in nets(small=True)}
ROUNDING = 1e-4  # float32 sums in another order, through two networks and an optimizer


@pytest.mark.parametrize("name", ["dcgan28", "dcgan64", "cyclegan128", "spade128"])
def test_a_step_is_that_of_the_cpu(name: str) -> None:
    """The losses of three steps, and where the weights have gone meanwhile."""
    net = STEPS[name]
    batch = net.batch(np.random.default_rng(0))
    losses, moves = [], []
    for device in ("cpu", NAME):
        mg.manual_seed(0)
        game = net.ours()
        before = [p.data.copy() for p in game.parameters]
        game.to(device)
        with mg.precision("fp32"):
            losses.append([game.step(batch) for _ in range(3)])
        after = [to_numpy(p.data) for p in game.parameters]
        pairs = zip(after, before, strict=True)
        moves.append(np.concatenate([(a - b).ravel().astype(np.float64) for a, b in pairs]))
    for on_cpu, on_gpu in zip(*losses, strict=True):
        assert on_cpu == pytest.approx(on_gpu, rel=ROUNDING, abs=ROUNDING)
    # Adam's first steps have one length, and biases in front of a norm have no gradient but
    # rounding: these go anywhere.
    a, b = moves
    assert a @ b > 0.98 * np.linalg.norm(a) * np.linalg.norm(b)
