"""BEGAN, PacGAN and unrolled GAN: balance, packs and the look ahead, by hand."""

from __future__ import annotations

import importlib.util
import itertools
import sys
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minigan as mg
from minigan import gans, nn, random
from minigan.data import Batch
from minigan.errors import UsageError
from minigan.gans.pacgan import packed
from minigan.gans.unrolled import weights
from minigan.losses import ADVERSARIAL
from minigan.penalties import PENALTIES
from minigan.training.guard import Guard
from minigan.training.step import take_step

N = 8
NAMES = ("began", "pacgan", "unrolled")


def images(n: int = N, dtype: Any = np.float32) -> Any:
    return np.random.default_rng(7).uniform(-1, 1, (n, 1, 28, 28)).astype(dtype)


def game64(name: str, **options: Any) -> Any:
    """A small game in float64; for losses, not for steps."""
    mg.manual_seed(2)
    game: Any = gans.make(name, **{"width": 4, "ema": 0.0, "previews": 4} | options)
    for net in game.networks.values():
        net.astype(np.float64)
    draw = game.noise
    game.noise = lambda rng, n: draw(rng, n).astype(np.float64)
    game.start(SimpleNamespace(images=images(dtype=np.float64), labels=None))
    return game


def play(game: Any, steps: int, first: int = 0) -> None:
    """The training loop's order of things."""
    for step in range(first, first + steps):
        game.start(SimpleNamespace(images=np.roll(images(), step, 0), labels=None))
        for player in game.players:
            total = sum(player.losses().values(), start=mg.tensor(0.0))
            player.optimizer.step(mg.grad(total, player.parameters))
        game.finish()


@pytest.mark.parametrize("name", NAMES)
def test_two_steps_equal_one_and_a_checkpoint_and_one(name: str) -> None:
    def new() -> Any:
        mg.manual_seed(1)
        return gans.make(name, width=4, previews=4)

    whole, half = new(), new()
    random.manual_seed(9)
    play(whole, 2)
    random.manual_seed(9)
    play(half, 1)
    saved, randomness = half.state_dict(), random.state()
    other = new()
    other.load_state_dict(saved)
    random.set_state(randomness)
    play(other, 1, first=1)
    for key, array in whole.state_dict().items():
        np.testing.assert_array_equal(array, other.state_dict()[key], err_msg=key)


# BEGAN -------------------------------------------------------------------------------------------


def began_error(game: Any, x: Any) -> float:
    return float(abs(x - game.D(mg.tensor(x)).numpy()).mean())


@pytest.mark.parametrize("d_batches", ["separate", "joint"])
def test_began_losses_and_balance_by_hand(d_batches: str) -> None:
    game = game64("began", gamma=0.6, lambda_k=0.01, d_batches=d_batches)
    game.balance.k.data = np.array(0.25)
    l_real, l_fake = began_error(game, game.reals[0].numpy()), began_error(game, game.fake.numpy())
    losses = {k: v.item() for k, v in game.d_losses().items()}
    assert losses["loss_d_real"] == pytest.approx(l_real, rel=1e-8)
    assert losses["loss_d_fake"] == pytest.approx(-0.25 * l_fake, rel=1e-8)
    assert game.g_losses()["loss_g"].item() == pytest.approx(l_fake, rel=1e-8)
    game.finish()
    k = 0.25 + 0.01 * (0.6 * l_real - l_fake)
    assert game.log["k"].item() == pytest.approx(k, rel=1e-8)
    measure = l_real + abs(0.6 * l_real - l_fake)
    assert game.log["M"].item() == pytest.approx(measure, rel=1e-8)


def test_began_k_stays_within_0_and_1_and_is_part_of_a_checkpoint() -> None:
    for gamma, expected in ((1.0, 1.0), (1e-3, 0.0)):
        game = game64("began", gamma=gamma, lambda_k=100.0)
        game.l_real, game.l_fake = mg.tensor(np.array(1.0)), mg.tensor(np.array(0.5))
        game.finish()
        assert game.state_dict()["balance.k"] == expected


def test_began_refuses_a_loss_without_a_term_for_fakes() -> None:
    with pytest.raises(UsageError, match="'relativistic' has no term"):
        gans.make("began", loss="relativistic")


def test_began_k_is_a_constant_of_the_players() -> None:
    """Neither player has a gradient with respect to k, and D's turn leaves it alone."""
    game = game64("began")
    game.balance.k.data = np.array(0.5)
    losses = game.d_losses()
    assert not game.balance.k.requires_grad
    mg.grad(losses["loss_d_real"] + losses["loss_d_fake"], game.players[0].parameters)
    assert game.balance.k.item() == 0.5


# PacGAN ------------------------------------------------------------------------------------------


def test_packs_are_neighbours_side_by_side() -> None:
    x = np.arange(2 * 3 * 4 * 5.0).reshape(6, 2, 2, 5)
    both = packed(mg.tensor(x), 3).numpy()
    assert both.shape == (2, 6, 2, 5)
    np.testing.assert_array_equal(both[1], np.concatenate([x[3], x[4], x[5]]))
    with pytest.raises(UsageError, match=r"batch of 7 images .* packs of 2"):
        packed(mg.tensor(np.zeros((7, 1, 2, 2))), 2)
    with pytest.raises(UsageError, match="pack=0"):
        gans.make("pacgan", pack=0)


@pytest.mark.parametrize("d_batches", ["separate", "joint"])
def test_pacgan_has_one_logit_for_each_pack(d_batches: str) -> None:
    game = game64("pacgan", pack=4, d_batches=d_batches)
    judged: list[tuple[int, ...]] = []
    plain = game.loss.d
    game.loss.d = lambda real, fake: judged.extend([real.shape, fake.shape]) or plain(real, fake)
    game.d_losses()
    assert judged == [(N // 4,), (N // 4,)]
    assert game.sample(game.fixed_noise.astype(np.float64)).shape == (4, 1, 28, 28)


def test_a_pack_of_one_is_dcgan() -> None:
    one, dcgan = game64("pacgan", pack=1), game64("dcgan")
    for ours, theirs in zip(one.players, dcgan.players, strict=True):
        for a, b in zip(ours.losses().values(), theirs.losses().values(), strict=True):
            assert a.item() == pytest.approx(b.item(), rel=1e-10)


def test_a_pack_gives_away_samples_that_are_alike() -> None:
    """D can tell equal from different pairs, though each image for itself is as likely."""
    rng = np.random.default_rng(0)
    points = rng.standard_normal((400, 2, 1, 1))
    alike = points.repeat(2, axis=0)[:400]
    mg.manual_seed(0)
    D = nn.Sequential(nn.Flatten(), nn.Linear(4, 32), nn.LeakyReLU(0.2), nn.Linear(32, 1))
    D.astype(np.float64)
    params, optimizer = list(D.parameters()), mg.optim.Adam(D.parameters(), 1e-2)
    loss = mg.losses.adversarial("ns")
    for _ in range(300):
        pair = [D(packed(mg.tensor(x), 2)) for x in (points, alike)]
        value = sum(loss.d(*pair).values(), start=mg.tensor(np.array(0.0)))
        optimizer.step(mg.grad(value, params))
    assert value.item() < 0.7  # 2 log 2 = 1.39 if they could not be told apart


# Unrolled GAN ------------------------------------------------------------------------------------


class Line(nn.Module):
    """D(x) = w . x + b."""

    def __init__(self) -> None:
        self.linear = nn.Linear(28 * 28, 1)

    def forward(self, x: mg.Tensor) -> mg.Tensor:
        return self.linear(x.flatten(1)).reshape(x.shape[0])


def test_weights_are_replaced_for_a_while_and_put_back() -> None:
    D = Line()
    x, before = mg.tensor(images()), D.state_dict()
    original = list(D.parameters())
    theta = [mg.tensor(np.zeros((1, 784), np.float32)), mg.tensor(np.ones(1, np.float32))]
    with weights(D, theta):
        np.testing.assert_array_equal(D(x).numpy(), np.ones(N))
    with pytest.raises(ZeroDivisionError), weights(D, theta):
        raise ZeroDivisionError
    assert all(a is b for a, b in zip(original, D.parameters(), strict=True))
    for key, array in D.state_dict().items():
        np.testing.assert_array_equal(array, before[key])


def test_the_look_ahead_of_a_linear_critic_in_closed_form() -> None:
    """theta^k = w + k eta (mean x - mean G(z)), so L_G = -theta^k . mean G(z), and

    d L_G / d G(z)_n = (-theta^k + k eta mean G(z)) / N: the second term is what the derivative
    through the steps ahead contributes.
    """
    k, eta = 3, 0.2
    game = game64("unrolled", loss="wgan", unroll=k, eta=eta)
    game.D = Line().astype(np.float64)
    game.real = game.reals[0]
    fake = mg.tensor(images(dtype=np.float64)[::-1] * 0.5, requires_grad=True)
    game.fake = fake
    (loss,) = game.g_losses().values()
    (slope,) = mg.grad(loss, [fake])
    x, f = game.real.numpy().reshape(N, -1), fake.numpy().reshape(N, -1)
    theta = game.D.linear.weight.numpy()[0] + k * eta * (x.mean(0) - f.mean(0))
    b = game.D.linear.bias.numpy()[0]  # its gradient is 0: as many reals as fakes
    assert loss.item() == pytest.approx(-(theta @ f.mean(0) + b), rel=1e-10)
    expected = np.tile((-theta + k * eta * f.mean(0)) / N, (N, 1))
    np.testing.assert_allclose(slope.numpy().reshape(N, -1), expected, rtol=1e-8)


def test_the_look_ahead_by_finite_differences() -> None:
    """Through two steps of a convolutional D, in one direction of G(z)."""
    game = game64("unrolled", unroll=2, eta=0.5)
    nn.init.he_normal_(game.D)  # not the small weights at the start, whose curvature is tiny
    game.real = game.reals[0]
    start = images(dtype=np.float64)[::-1] * 0.7
    direction = np.random.default_rng(1).standard_normal(start.shape)

    def loss_at(t: float) -> tuple[Any, Any]:
        game.fake = mg.tensor(start + t * direction, requires_grad=True)
        (loss,) = game.g_losses().values()
        return loss, game.fake

    loss, fake = loss_at(0.0)
    (slope,) = mg.grad(loss, [fake])
    h = 1e-6
    numeric = (loss_at(h)[0].item() - loss_at(-h)[0].item()) / (2 * h)
    assert float((slope.numpy() * direction).sum()) == pytest.approx(numeric, rel=1e-5)
    with weights(game.D, [p.detach() for p in game.look_ahead(game.real, fake)]):
        held = game.loss.g(game.judge(fake))["loss_g"]
    (without,) = mg.grad(held, [fake])
    assert float((without.numpy() * direction).sum()) != pytest.approx(numeric, rel=1e-3)


def test_g_turn_leaves_d_as_it_was_and_no_unrolling_is_the_ordinary_game() -> None:
    game = game64("unrolled", unroll=2)
    game.d_losses()
    before = game.D.state_dict()
    game.g_losses()
    for key, array in game.D.state_dict().items():
        np.testing.assert_array_equal(array, before[key])
    game.unroll = 0
    ordinary = np.logaddexp(0, -game.D(game.fake).numpy()).mean()
    assert game.g_losses()["loss_g"].item() == pytest.approx(ordinary, rel=1e-10)


def test_the_example_of_mode_collapse_plays_all_games() -> None:
    path = Path(__file__).parent.parent / "examples" / "mode_collapse_2d.py"
    spec = importlib.util.spec_from_file_location("mode_collapse_2d", path)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    sys.modules[spec.name] = example  # its dataclass looks there
    spec.loader.exec_module(example)
    for method in example.GAMES:
        samples = example.play("grid", method, 0.0005, 0)
        assert samples.shape == (2500, 2) and np.isfinite(samples).all()
    target = example.TARGETS["grid"]
    picture = example.scatter(target, target.sample(np.random.default_rng(0), 2500), "real")
    green = (np.asarray(picture) == (153, 255, 136)).all(axis=2)
    assert 0.002 < green.mean() < 0.2, "real samples are good ones"


# With everything else ----------------------------------------------------------------------------

MINE = ("cgan", "cgan-mlp", "acgan", "infogan", "began", "pacgan", "unrolled")
COURSES: list[dict[str, Any]] = [
    {"d_batches": "joint"},
    {"d_steps": 2},
    {"simultaneous": True},
    {"augment": "diffaugment"},
]
EVERYTHING = [
    combination
    for combination in itertools.product(MINE, ADVERSARIAL, PENALTIES, range(len(COURSES)))
    if combination[:2] != ("began", "relativistic")
]
SOME = EVERYTHING[::61]  # no divisor of the numbers of losses, penalties and courses


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:penalty")
@pytest.mark.parametrize("name", MINE)
def test_all_shared_options_go_with(name: str) -> None:
    for combination in EVERYTHING:
        if combination[0] == name:
            two_steps(*combination)


@pytest.mark.filterwarnings("ignore:penalty")  # batch norm in D
@pytest.mark.parametrize(("name", "loss", "penalty", "course"), SOME)
def test_some_shared_options_go_with(name: str, loss: str, penalty: str, course: int) -> None:
    two_steps(name, loss, penalty, course)


def two_steps(name: str, loss: str, penalty: str, course: int) -> None:
    shared: dict[str, Any] = {"size": 16, "width": 2, "previews": 4}
    game: Any = gans.make(name, **shared, loss=loss, penalty=penalty, **COURSES[course])
    rng = np.random.default_rng(0)
    for _ in range(2):
        game.before_step()
        count = 4 * game.batches_per_step
        x = rng.uniform(-1, 1, (count, 1, 16, 16)).astype(np.float32)
        figures = take_step(game, Batch(x, np.arange(count) % 10, np.arange(count)), Guard(game))
        numbers = [float(v.item() if isinstance(v, mg.Tensor) else v) for v in figures.values()]
        assert np.isfinite(numbers).all() and len(numbers) >= 4
