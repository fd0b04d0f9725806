"""The family of unconditional GANs: networks and recipes of the papers."""

from __future__ import annotations

import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minigan as mg
from minigan import data, gans, nn, optim, random
from minigan.cli import app
from minigan.gans.two_player import TwoPlayer
from minigan.nn.norm import _Running

FAMILY = [
    "dcgan", "vanilla", "vanilla-maxout", "lsgan", "wgan", "wgan-gp", "sngan", "sngan32", "r1gan",
]  # fmt: skip


def counts(preset: str, **options: Any) -> dict[str, int]:
    game = gans.make(preset, previews=1, ema=0.0, **options)
    return {name: net.num_parameters() for name, net in game.networks.items()}


def batch(count: int, size: int = 28) -> Any:
    rng = np.random.default_rng(0)
    pixels = np.tanh(rng.standard_normal((count, 1, size, size))).astype(np.float32)
    return SimpleNamespace(images=pixels, labels=None)


def test_numbers_of_parameters_are_the_published_ones() -> None:
    assert counts("vanilla") == {"G": 1_510_032, "D": 533_505}  # PyTorch-GAN
    assert counts("sngan32") == {"G": 4_276_739, "D": 1_053_825}  # mimicry
    hidden = 100 * 1200 + 1200 + 1200 * 1200 + 1200
    maxout = 784 * 1200 + 1200 + 240 * 1200 + 1200
    assert counts("vanilla-maxout") == {"G": hidden + 1200 * 784 + 784, "D": maxout + 241}


@pytest.mark.parametrize("preset", FAMILY)
def test_recipes_of_the_papers(preset: str) -> None:
    known = gans.options(preset)
    loss, penalty, d_steps = {
        "lsgan": ("lsgan", "none", 1),
        "wgan": ("wgan", "none", 5),
        "wgan-gp": ("wgan", "gp", 3),
        "sngan": ("hinge", "none", 1),
        "sngan32": ("hinge", "none", 5),
        "r1gan": ("ns", "r1", 1),
    }.get(preset, ("ns", "none", 1))
    assert (known["loss"], known["penalty"], known["d_steps"]) == (loss, penalty, d_steps)
    if preset.startswith(("wgan-gp", "r1gan")):
        assert known["norm"] == "none"
    assert known["spectral"] is preset.startswith("sngan")


@pytest.mark.parametrize("preset", ["wgan-gp", "r1gan", "sngan"])
def test_penalised_critics_have_no_batch_norm(preset: str) -> None:
    game = gans.make(preset, width=4, previews=1)
    assert not [m for m in game.networks["D"].modules() if isinstance(m, _Running)]


def test_wgan_has_no_momentum() -> None:
    game = gans.make("wgan", width=2, previews=1)
    for optimizer in game.optimizers.values():
        assert isinstance(optimizer, optim.RMSprop) and not optimizer.momentum


@pytest.mark.parametrize("body", ["dcgan", "resnet"])
def test_every_layer_of_sngan_stretches_by_one(body: str) -> None:
    """Power iteration, right to 3% after 40 forward passes, in every layer of D and none of G."""
    game = gans.make("sngan", width=8, body=body, previews=1)
    D = game.networks["D"]
    for _ in range(40):
        D(mg.tensor(batch(1).images))
    D.eval()
    layers = [m for m in D.modules() if isinstance(m, nn.Weighted)]
    assert layers and all(layer.sn is not None for layer in layers)
    for layer in layers:
        matrix = layer.used_weight().data.reshape(layer.weight.shape[0], -1)
        assert abs(np.linalg.svd(matrix, compute_uv=False)[0] - 1) < 0.03
    assert not any(getattr(m, "sn", None) for m in game.networks["G"].modules())


@pytest.mark.parametrize("preset", ["vanilla", "lsgan", "wgan", "wgan-gp", "sngan", "r1gan"])
def test_one_command_line_for_all(
    preset: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    """Train, resume with a longer budget, sample, and describe."""

    def call(*arguments: str) -> str:
        with pytest.raises(SystemExit) as ended:
            app.main(list(arguments))
        captured = capsys.readouterr()
        assert ended.value.code == 0, captured.err
        return captured.out

    images = tmp_path / "images"
    images.mkdir()
    for i in range(20):
        data.save_png(images / f"{i}.png", np.full((8, 8, 1), 9 * i, np.uint8))
    small = ["-o", "size=8", "-o", "width=2", "-o", "nz=4", "-o", "augment=diffaugment"]
    out = ["--data", str(images), "--out", str(tmp_path), "--name", "run", "--batch", "4"]
    assert "step 2" in call("train", preset, *small, *out, "--steps", "2", "--no-progress")
    run = str(tmp_path / "00000-run")
    assert "resuming at step 2" in call("train", "--resume", run, "--steps", "3", "--no-progress")
    picture = tmp_path / "x.png"
    call("sample", run, "--grid", "2x2", "--out", str(picture))
    assert picture.stat().st_size > 50
    described = call("info", preset)
    assert "penalty" in described and "augment" in described and gans.options(preset)


# The first GAN -----------------------------------------------------------------------------------


def maxout(**options: Any) -> Any:
    return gans.make("vanilla-maxout", previews=1, **options)


def test_goodfellows_noise_is_uniform_with_variance_one() -> None:
    z = maxout(width=2).noise(random.generator(0, "z", 0), 2000)
    assert z.dtype == np.float32 and np.abs(z).max() <= math.sqrt(3)
    assert abs(z.std() - 1) < 0.01 and abs(np.abs(z).max() - math.sqrt(3)) < 1e-3


def test_goodfellows_first_weights() -> None:
    game = maxout(width=40)
    for name, bound in (("G", 0.05), ("D", 0.005)):
        weights = [p.data for n, p in game.networks[name].named_parameters() if "weight" in n]
        assert max(np.abs(w).max() for w in weights) <= bound
        assert min(np.abs(w).max() for w in weights) > 0.9 * bound


def test_goodfellows_schedule() -> None:
    game = maxout(width=2)
    sgd = game.optimizers["G"]
    assert isinstance(sgd, optim.SGD) and callable(sgd.lr) and callable(sgd.momentum)
    assert sgd.lr(0) == 0.1 and abs(sgd.lr(250_000) - 0.1 / math.e) < 1e-5
    assert sgd.lr(10**9) == 1e-6
    assert [sgd.momentum(t) for t in (0, 62_500, 10**6)] == [0.5, 0.6, 0.7]
    assert game.optimizers["D"].rate == 0.05


def test_maxout_networks_work_on_pixels_in_0_1() -> None:
    """G's images are 2 sigmoid(a) - 1; D's first layer sees (x + 1) / 2."""
    game = maxout(width=2)
    z = mg.tensor(game.noise(random.generator(0, "z", 0), 3))
    a = game.G.main(z).data
    np.testing.assert_allclose(game.G(z).data.reshape(3, -1), 2 / (1 + np.exp(-a)) - 1, atol=1e-6)
    D = game.D.eval()
    black = D(mg.tensor(np.full((1, 1, 28, 28), -1, np.float32)))
    np.testing.assert_array_equal(black.data, D.main(mg.tensor(np.zeros((1, 784), "f4"))).data)


def test_minimax_saturates_where_the_non_saturating_loss_does_not() -> None:
    """With D sure of the fakes (logits -8), G's gradient is sigmoid(-8) of the other one."""
    norms = {}
    for loss in ("minimax", "ns"):
        random.manual_seed(0)
        game = gans.make("vanilla", width=4, loss=loss, previews=1)
        assert isinstance(game, TwoPlayer)
        judge = game.judge
        game.judge = lambda x, y=None, judge=judge: judge(x, y) * 0.01 - 8.0  # type: ignore
        game.start(batch(8))
        grads = mg.grad(game.g_losses()["loss_g"], game.players[1].parameters)
        norms[loss] = math.sqrt(sum(float((g.data**2).sum()) for g in grads if g is not None))
    assert norms["minimax"] / norms["ns"] == pytest.approx(math.exp(-8), rel=0.02)


# The gradient penalty at work --------------------------------------------------------------------


@pytest.mark.slow
def test_the_slope_of_a_wgan_gp_critic_settles_where_theory_says() -> None:
    """Against fixed fakes: n = 1 + W / (2 lambda n), not 1."""
    from minigan.penalties import between, input_gradient, lengths

    game = gans.make("wgan-gp", d_steps=1, width=32, previews=1)
    assert isinstance(game, TwoPlayer)
    random.manual_seed(1)
    real = mg.tensor(data.load("digits", limit=64).batch(np.arange(64)))
    fake = game.G(mg.tensor(game.noise(random.generator(0, "z", 0), 64))).detach()
    critic = game.players[0]
    for _ in range(200):
        losses = game.loss.d(game.judge(real), game.judge(fake))
        losses |= game.penalty(game.judge, real, fake)
        total = losses["loss_d_real"] + losses["loss_d_fake"] + losses["loss_gp"]
        critic.optimizer.step(mg.grad(total, critic.parameters))
    w = game.judge(real).mean().item() - game.judge(fake).mean().item()
    n = lengths(input_gradient(game.judge, between(real, fake, game.feed))).mean().item()
    assert n > 1.02
    assert abs(n - (1 + w / (2 * 10 * n))) < 0.1
