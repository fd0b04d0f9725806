"""Games: who converges on min_x max_y xy, corrections by second derivatives, lookahead, EMA."""

from __future__ import annotations

import runpy
import sys
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import minigan as mg
from minigan import nn, optim
from minigan.errors import CheckpointError, UsageError
from minigan.optim import schedules

EXAMPLE = Path(__file__).parent.parent / "examples" / "bilinear_game.py"


@pytest.fixture(scope="module")
def example() -> dict[str, Any]:
    return runpy.run_path(str(EXAMPLE))


# The bilinear game -----------------------------------------------------------------------------


@pytest.mark.parametrize("method", range(7))
def test_who_finds_the_equilibrium(method: int, example: dict[str, Any]) -> None:
    name, (optimizers, gradients) = list(example["METHODS"].items())[method]
    distance = np.hypot(*example["play"](optimizers, gradients).T)
    if name == "SGD":
        assert np.all(np.diff(distance) > 0) and distance[-1] > 10 * distance[0]
    elif name == "Adam":
        assert distance.min() > 0.5 * distance[0] and distance[-1] > distance[0]
    else:
        assert distance[-1] < distance[0] / 10


def test_the_example_draws_a_picture(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    out = tmp_path / "game.png"
    monkeypatch.setattr(sys, "argv", ["bilinear_game.py", "--out", str(out)])
    runpy.run_path(str(EXAMPLE), run_name="__main__")
    with Image.open(out) as image:
        assert image.width > 1000 and len(image.convert("RGB").getcolors(1 << 24) or []) > 50


# Second derivatives ----------------------------------------------------------------------------


def quadratic_game(rng: np.random.Generator) -> tuple[Any, Any, Any]:
    """Two players with losses z^T M_i z / 2 + c_i . z over z = (x, y); its xi and J by hand."""
    x, y = nn.Parameter(rng.standard_normal(3)), nn.Parameter(rng.standard_normal(2))
    z = np.concatenate([x.data, y.data])
    matrices = rng.standard_normal((2, 5, 5))
    linear = rng.standard_normal((2, 5))

    def losses() -> list[Any]:
        both = mg.functional.concat([x, y]).reshape(1, 5)
        return [
            ((both @ m) @ both.reshape(5, 1)).sum() / 2 + (both * c.reshape(1, 5)).sum()
            for m, c in zip(matrices, linear, strict=True)
        ]

    hessians = [(m + m.T) / 2 for m in matrices]
    jacobian = np.concatenate([hessians[0][:3], hessians[1][3:]])
    field = jacobian @ z + np.concatenate([linear[0][:3], linear[1][3:]])
    return losses, [[x], [y]], (field, jacobian)


def test_consensus_by_hand(rng: np.random.Generator) -> None:
    losses, players, (xi, J) = quadratic_game(rng)
    grads = optim.consensus_gradients(losses(), players, gamma=0.7)
    np.testing.assert_allclose(np.concatenate([g[0] for g in grads]), xi + 0.7 * J.T @ xi)


def test_symplectic_adjustment_by_hand(rng: np.random.Generator) -> None:
    signs = set()
    for _ in range(12):
        losses, players, (xi, J) = quadratic_game(rng)
        A = (J - J.T) / 2
        grads = optim.symplectic_gradients(losses(), players, 0.7, align=False)
        np.testing.assert_allclose(np.concatenate([g[0] for g in grads]), xi + 0.7 * A.T @ xi)
        h = J.T @ xi
        sign = np.sign((xi @ h) * (A.T @ xi @ h) / 5 + 0.1)
        signs.add(sign)
        grads = optim.symplectic_gradients(losses(), players, 0.7)
        np.testing.assert_allclose(
            np.concatenate([g[0] for g in grads]), xi + sign * 0.7 * A.T @ xi
        )
    assert signs == {-1.0, 1.0}


def test_players_that_do_not_interact_and_unused_parameters() -> None:
    x, y, unused = (nn.Parameter(np.full(2, v)) for v in (1.0, 2.0, 3.0))
    losses = [(x * x).sum(), (y * 3.0).sum()]
    a, b = optim.consensus_gradients(losses, [[x, unused], [y]], gamma=1.0)
    np.testing.assert_allclose(a[0], 2 * 1 + 2 * 2 * 1)  # xi + H xi
    assert not a[1].any() and np.array_equal(b[0], [3, 3])
    losses = [(x * 2.0).sum(), (y * 3.0).sum()]
    a, b = optim.symplectic_gradients(losses, [[x], [y]])
    assert np.array_equal(a[0], [2, 2]) and np.array_equal(b[0], [3, 3])
    with pytest.raises(UsageError, match="1 losses for 2"):
        optim.consensus_gradients(losses[:1], [[x], [y]])


def test_second_order_gradients_of_networks() -> None:
    """The length of xi falls along consensus steps of a small GAN where plain steps do not help."""
    rng = np.random.default_rng(0)
    G = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 2)).astype("float64")
    D = nn.Sequential(nn.Linear(2, 8), nn.Tanh(), nn.Linear(8, 1)).astype("float64")
    z, real = mg.tensor(rng.standard_normal((8, 2))), mg.tensor(rng.standard_normal((8, 2)))
    players = [list(D.parameters()), list(G.parameters())]

    def losses() -> list[Any]:
        gap = D(G(z)).mean() - D(real).mean()
        return [gap, -gap]

    adjusted = optim.consensus_gradients(losses(), players, gamma=1e6)

    def energy(t: float) -> float:
        """|xi|^2 / 2 after a step of length t along J^T xi."""
        for player, grads in zip(players, adjusted, strict=True):
            for p, g in zip(player, grads, strict=True):
                p.data += t * g / 1e6
        xi = [mg.grad(f, p, retain_graph=True) for f, p in zip(losses(), players, strict=True)]
        total = sum(float(np.square(g.data).sum()) for row in xi for g in row if g is not None)
        for player, grads in zip(players, adjusted, strict=True):
            for p, g in zip(player, grads, strict=True):
                p.data -= t * g / 1e6
        return total / 2

    slope = (energy(1e-4) - energy(-1e-4)) / 2e-4
    norm = sum(float(np.square(g / 1e6).sum()) for row in adjusted for g in row)
    assert abs(slope / norm - 1) < 1e-3  # J^T xi is the gradient of |xi|^2 / 2


# One optimizer at a time -----------------------------------------------------------------------


def test_optimism_by_hand() -> None:
    """With betas (0, 0) and eps 0 the direction is the sign of the gradient."""
    p = nn.Parameter(np.array([0.0]))
    opt = optim.OptimisticAdam([p], lr=1.0, betas=(0.0, 0.0), eps=0.0)
    places = []
    for g in (1.0, 1.0, -1.0):
        opt.step([np.array([g])])
        places.append(p.item())
    assert places == [-2, -3, 0]


def test_extrapolation_by_hand() -> None:
    p = nn.Parameter(np.array([0.0]))
    opt = optim.ExtraAdam([p], lr=1.0, betas=(0.0, 0.0), eps=0.0)
    opt.extrapolate([np.array([5.0])])
    assert p.item() == -1
    with pytest.raises(UsageError, match="twice"):
        opt.extrapolate([np.array([5.0])])
    with pytest.raises(UsageError, match="2 gradients"):
        opt.step([np.array([1.0])] * 2)
    assert p.item() == -1  # the mistake moved nothing
    opt.step([np.array([-5.0])])
    assert p.item() == 1  # from 0, where the trial began
    opt.step([np.array([1.0])])
    assert p.item() == 0
    opt.extrapolate([np.array([1.0])])
    opt.step([None])
    assert p.item() == 0  # back, though there is no gradient


def test_extra_adam_resumes_between_trial_and_step() -> None:
    a, b = (optim.ExtraAdam([nn.Parameter([1.0, 2.0])], 0.1) for _ in range(2))
    g = [np.array([0.3, -1.0], np.float32)]
    a.extrapolate(g)
    b.load_state_dict(a.state_dict())
    b.params[0].data[...] = a.params[0].data
    a.step(g)
    b.step(g)
    assert a.params[0].data.tobytes() == b.params[0].data.tobytes()


def test_lookahead_by_hand() -> None:
    p, q = nn.Parameter(np.array([0.0])), nn.Parameter(np.array([0.0]))
    follower = optim.Lookahead(optim.SGD([q], 1.0), k=None, alpha=0.25)
    leader = optim.Lookahead(optim.SGD([p], 1.0), k=2, alpha=0.5, followers=[follower])
    for expected in ((-1.0, -1.0), (-1.0, -0.5), (-2.0, -1.5), (-2.0, -1.0)):
        follower.step([np.array([1.0])])
        leader.step([np.array([1.0])])
        assert (p.item(), q.item()) == expected
    leader.lr = 0.5
    assert leader.inner.lr == 0.5 and leader.rate == 0.5


# Moving averages -------------------------------------------------------------------------------


def test_ema_of_weights_by_hand() -> None:
    net = nn.Linear(2, 1, bias=False)
    net.weight.data[...] = 1.0
    ema = optim.EMA(net, beta=0.9, warmup=False)
    net.weight.data[...] = 2.0
    ema.update()
    np.testing.assert_allclose(ema.module.weight.data, 1.1, rtol=1e-6)
    ema.update()
    np.testing.assert_allclose(ema.module.weight.data, 1.19, rtol=1e-6)


def test_ema_warm_up_forgets_the_first_weights() -> None:
    p = nn.Linear(1, 1, bias=False).astype("float64")
    p.weight.data[...] = 0
    ema, expected = optim.EMA(p, 0.999), 0.0
    for t in range(60):
        p.weight.data[...] = t
        ema.update()
        beta = min(0.999, (1 + t) / (10 + t))
        expected = beta * expected + (1 - beta) * t
    np.testing.assert_allclose(ema.module.weight.item(), expected)


def test_half_life_in_thousands_of_images() -> None:
    ema = optim.EMA.with_half_life(nn.Linear(1, 1), kimg=10, batch=32)
    assert abs(ema.beta ** (10_000 / 32) - 0.5) < 1e-12


def test_ema_copies_buffers() -> None:
    """GAN_stability leaves the running statistics of the average at their first values."""
    G = nn.Sequential(nn.Linear(3, 4), nn.BatchNorm1d(4), nn.spectral_norm(nn.Linear(4, 2)))
    ema = optim.EMA(G, 0.999)
    opt = optim.Adam(G.parameters(), 1e-2)
    x = mg.tensor(np.random.default_rng(0).standard_normal((16, 3)).astype(np.float32))
    for _ in range(5):
        opt.step(mg.grad((G(x) - 1.0).square().mean(), opt.params))
        ema.update()
    for (name, mine), (_, theirs) in zip(
        ema.module.named_buffers(), G.named_buffers(), strict=True
    ):
        assert np.array_equal(mine.data, theirs.data), name
        assert not np.shares_memory(mine.data, theirs.data)
    assert ema.module[1].num_batches_tracked.item() == 5
    assert not np.array_equal(ema.module[0].weight.data, G[0].weight.data)
    assert not ema.module.training and G.training
    assert not any(p.requires_grad for p in ema.module.parameters())


def test_ema_resumes_bitwise() -> None:
    def start() -> tuple[Any, optim.EMA]:
        mg.manual_seed(1)
        net = nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3))
        return net, optim.EMA(net, 0.99)

    def play(net: Any, ema: optim.EMA, first: int, last: int) -> None:
        for t in range(first, last):
            rng = np.random.default_rng(t)
            for p in net.parameters():
                p.data += rng.standard_normal(p.shape).astype(np.float32)
            ema.update()

    (a, whole), (b, half), (c, rest) = start(), start(), start()
    play(a, whole, 0, 9)
    play(b, half, 0, 4)
    c.load_state_dict(b.state_dict())
    rest.load_state_dict(half.state_dict())
    play(c, rest, 4, 9)
    mine, theirs = rest.state_dict(), whole.state_dict()
    assert list(mine) == list(theirs) and mine["step"] == 9
    assert all(mine[k].tobytes() == theirs[k].tobytes() for k in theirs)
    with pytest.raises(CheckpointError, match="missing"):
        rest.load_state_dict({"step": np.array(3)})
    assert rest.steps == 9
    with pytest.raises(UsageError):
        optim.EMA(c, 1.0)


# Schedules -------------------------------------------------------------------------------------


def test_schedules_at_their_corners() -> None:
    f = schedules.linear_to_zero(2.0, 10, 20)
    assert [f(t) for t in (0, 10, 15, 20, 99)] == [2, 2, 1, 0, 0]
    f = schedules.step_decay(1.0, 10, 0.5)
    assert [f(t) for t in (0, 9, 10, 20)] == [1, 1, 0.5, 0.25]
    f = schedules.exponential(0.1, 1 / 1.000004, 1e-6)
    np.testing.assert_allclose(f(1_000_000), 0.1 * np.exp(-1e6 * np.log(1.000004)))
    assert f(10_000_000) == 1e-6
    f = schedules.cosine(2.0, 100, 1.0)
    np.testing.assert_allclose([f(t) for t in (0, 50, 100, 200)], [2, 1.5, 1, 1])
    f = schedules.piecewise({0: 1e-3, 100: 2e-3})
    assert [f(t) for t in (0, 99, 100, 500)] == [1e-3, 1e-3, 2e-3, 2e-3]
    f = schedules.warmup(2.0, 4)
    assert [f(t) for t in (0, 1, 3, 10)] == [0.5, 1, 2, 2]
    f = schedules.scaled(schedules.constant(2.0), 0.5)
    assert f(7) == 1
    f = schedules.chained((1.0, 2), (schedules.linear(4.0, 2.0, 2), 3), last=9.0)
    assert [f(t) for t in range(6)] == [1, 1, 4, 3, 2, 9]


def test_epoch_rules_of_pix2pix_and_pix2pixhd() -> None:
    f = schedules.pix2pix_decay(1.0, 3, 4, steps_per_epoch=10)
    np.testing.assert_allclose([f(10 * e) for e in range(8)], [1, 1, 1, 0.8, 0.6, 0.4, 0.2, 0])
    assert f(39) == f(30)
    f = schedules.pix2pixhd_decay(1.0, 3, 4, steps_per_epoch=10)
    np.testing.assert_allclose([f(10 * e) for e in range(8)], [1, 1, 1, 1, 0.75, 0.5, 0.25, 0])


@pytest.mark.torch
def test_pix2pix_rule_equals_torch() -> None:
    torch = pytest.importorskip("torch")
    p = torch.nn.Parameter(torch.zeros(1))
    theirs = torch.optim.SGD([p], lr=2e-4)
    rule = torch.optim.lr_scheduler.LambdaLR(theirs, lambda e: 1.0 - max(0, e + 1 - 3) / 5)
    f = schedules.pix2pix_decay(2e-4, 3, 4, steps_per_epoch=1)
    for epoch in range(7):
        np.testing.assert_allclose(f(epoch), theirs.param_groups[0]["lr"])
        theirs.step()
        rule.step()


def test_schedules_refuse_nonsense() -> None:
    for make in (
        lambda: schedules.linear_to_zero(1.0, 10, 10),
        lambda: schedules.warmup(1.0, 0),
        lambda: schedules.piecewise({5: 1.0}),
    ):
        with pytest.raises(UsageError):
            make()
