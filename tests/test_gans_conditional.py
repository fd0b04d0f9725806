"""cGAN, AC-GAN and InfoGAN: where the label goes, what each player minimises, what is refused."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minigan as mg
from minigan import gans, random
from minigan.data import Batch
from minigan.errors import UsageError
from minigan.gans import cgan
from minigan.gans.infogan import InfoGAN

N = 8
CONDITIONAL = ("cgan", "cgan-mlp", "acgan", "infogan")


def batch(n: int = N, labels: Any = None) -> Any:
    rng = np.random.default_rng(7)
    images = rng.uniform(-1, 1, (n, 1, 28, 28)).astype(np.float32)
    return SimpleNamespace(images=images, labels=np.arange(n) % 10 if labels is None else labels)


def game64(name: str, **options: Any) -> Any:
    """A small game in float64; for losses, not for steps."""
    mg.manual_seed(2)
    game: Any = gans.make(name, width=4, ema=0.0, previews=4, **options)
    for net in game.networks.values():
        net.astype(np.float64)
    draw = game.noise
    game.noise = lambda rng, n: draw(rng, n).astype(np.float64)
    return game


def batch64() -> Any:
    return SimpleNamespace(images=batch().images.astype(np.float64), labels=batch().labels)


def cross_entropy(logits: Any, labels: Any) -> float:
    """Mean of -log softmax at the label, by hand."""
    shifted = logits - logits.max(axis=1, keepdims=True)
    log_p = shifted - np.log(np.exp(shifted).sum(axis=1, keepdims=True))
    return float(-log_p[np.arange(len(labels)), labels].mean())


def softplus(t: Any) -> Any:
    return np.logaddexp(0, t)


def play(game: Any, steps: int, first: int = 0) -> None:
    """The training loop's order of things."""
    for step in range(first, first + steps):
        real = batch(N * game.batches_per_step)
        game.start(SimpleNamespace(images=np.roll(real.images, step, 0), labels=real.labels))
        for player in game.players:
            for _ in range(player.repeats):
                total = sum(player.losses().values(), start=mg.tensor(0.0))
                player.optimizer.step(mg.grad(total, player.parameters))
        game.finish()


# cGAN --------------------------------------------------------------------------------------------


def test_beside_puts_the_one_hot_label_in_every_position() -> None:
    x = mg.tensor(np.zeros((2, 3, 4, 5)))
    joined = cgan.beside(x, mg.tensor(np.array([1, 0])), 2).numpy()
    assert joined.shape == (2, 5, 4, 5) and joined.dtype == np.float64
    np.testing.assert_array_equal(joined[0, 3:].mean(axis=(1, 2)), [0, 1])
    np.testing.assert_array_equal(joined[1, 3:].mean(axis=(1, 2)), [1, 0])


@pytest.mark.parametrize("body", cgan.BODIES)
@pytest.mark.parametrize("label", cgan.LABELS)
def test_both_players_are_told_the_class(body: str, label: str) -> None:
    game = game64("cgan", body=body, label=label)
    x, z = mg.tensor(batch64().images), mg.tensor(np.ones((N, game.nz)))
    zeros, ones = mg.tensor(np.zeros(N, np.int64)), mg.tensor(np.ones(N, np.int64))
    assert (game.judge(x, zeros).numpy() != game.judge(x, ones).numpy()).all()
    assert (game.generate(z, zeros).numpy() != game.generate(z, ones).numpy()).any()


def test_projection_is_an_inner_product_of_class_and_features() -> None:
    """D(x, y) - D(x, y') = (E_y - E_y') . h(x), with h what the last layer sees."""
    game = game64("cgan", body="mlp", label="projection")
    D, x = game.D, mg.tensor(batch64().images)
    h = x.flatten(1)
    for stage in D.stages:
        h = stage(h)
    y, other = np.arange(N), np.zeros(N, np.int64)
    table = D.E.weight.numpy()
    expected = ((table[y] - table[other]) * h.numpy()).sum(axis=1)
    difference = D(x, mg.tensor(y)).numpy() - D(x, mg.tensor(other)).numpy()
    np.testing.assert_allclose(difference, expected, rtol=1e-10, atol=1e-12)


def test_the_loss_uses_the_classes_that_were_asked_for() -> None:
    game = game64("cgan", body="mlp")
    game.start(batch64())
    losses = {k: v.item() for k, v in game.d_losses().items()}
    on_real = game.D(mg.tensor(batch64().images), mg.tensor(batch().labels)).numpy()
    on_fake = game.D(game.fake, game.y_fake).numpy()
    assert losses["loss_d_real"] == pytest.approx(softplus(-on_real).mean(), rel=1e-8)
    assert losses["loss_d_fake"] == pytest.approx(softplus(on_fake).mean(), rel=1e-8)
    assert (game.y_fake.numpy() != batch().labels).any(), "y~ is drawn, not taken from the batch"


@pytest.mark.parametrize("name", ["cgan", "acgan"])
def test_labels_are_checked(name: str) -> None:
    game: Any = gans.make(name, width=4, previews=4)
    with pytest.raises(UsageError, match=r"class 10 is not in 0 \.\.\. 9"):
        game.check(batch(labels=np.full(N, 10)))
    with pytest.raises(UsageError, match="labels are float64"):
        game.check(batch(labels=np.zeros(N)))
    with pytest.raises(UsageError, match="the images have no classes"):
        game.check(SimpleNamespace(images=batch().images, labels=None))
    with pytest.raises(UsageError, match="of which classes"):
        game.sample(game.noise(random.draw("z"), 2))
    with pytest.raises(UsageError, match="label: there is no 'pixel'"):
        gans.make("cgan", label="pixel")


# AC-GAN ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("d_batches", ["separate", "joint"])
def test_acgan_losses_by_hand(d_batches: str) -> None:
    """L_C is the cross-entropy of logits: a softmax before it would not give these numbers."""
    game = game64("acgan", lambda_real=0.7, lambda_fake=0.4, lambda_g=0.3, d_batches=d_batches)
    game.start(batch64())
    turns = [{k: v.item() for k, v in player.losses().items()} for player in game.players]
    x, x_fake = batch64().images, game.fake.numpy()
    y, y_fake = batch().labels, game.y_fake.numpy()
    if d_batches == "separate":
        (real, c_real), (fake, c_fake) = (ask(game, images) for images in (x, x_fake))
    else:
        logits, classes = ask(game, np.concatenate([x, x_fake]))
        (real, fake), (c_real, c_fake) = np.split(logits, 2), np.split(classes, 2)
    on_real, on_fake = cross_entropy(c_real, y), cross_entropy(c_fake, y_fake)
    assert turns[0]["loss_d_class"] == pytest.approx(0.7 * on_real, rel=1e-8)
    assert turns[0]["loss_d_class_fake"] == pytest.approx(0.4 * on_fake, rel=1e-8)
    assert turns[0]["loss_d_real"] == pytest.approx(softplus(-real).mean(), rel=1e-8)
    assert turns[0]["loss_d_fake"] == pytest.approx(softplus(fake).mean(), rel=1e-8)
    fake, c_fake = ask(game, x_fake)
    assert turns[1]["loss_g"] == pytest.approx(softplus(-fake).mean(), rel=1e-8)
    assert turns[1]["loss_g_class"] == pytest.approx(0.3 * cross_entropy(c_fake, y_fake), rel=1e-8)


def ask(game: Any, images: Any) -> tuple[Any, Any]:
    logits, classes = game.D(mg.tensor(images))
    return logits.numpy(), classes.numpy()


def test_acgan_with_a_penalty_and_a_relativistic_loss_names_only_what_it_shall() -> None:
    """The penalty and G's look at reals ask D too, but their class losses count for nothing."""
    game = game64("acgan", penalty="r1", loss="relativistic")
    game.start(batch64())
    with pytest.warns(UserWarning, match="batch norm"):
        losses = game.d_losses()
    (_, c_real), (_, c_fake) = ask(game, batch64().images), ask(game, game.fake.numpy())
    on_real = cross_entropy(c_real, batch().labels)
    on_fake = cross_entropy(c_fake, game.y_fake.numpy())
    assert losses["loss_d_class"].item() == pytest.approx(on_real, rel=1e-8)
    assert losses["loss_d_class_fake"].item() == pytest.approx(0.2 * on_fake, rel=1e-8)
    assert game.g_losses()["loss_g_class"].item() == pytest.approx(on_fake, rel=1e-8)


# InfoGAN -----------------------------------------------------------------------------------------


def test_infogan_noise_is_z_category_and_numbers() -> None:
    game = InfoGAN(nz=5, categories=4, codes=2, width=4, previews=4)
    z = game.noise(np.random.default_rng(0), 500)
    assert z.shape == (500, 11) and z.dtype == np.float32
    category, numbers = z[:, 5:9], z[:, 9:]
    np.testing.assert_array_equal(np.sort(category, axis=1)[:, -2:], np.tile([0, 1], (500, 1)))
    assert (category.mean(axis=0) > 0.15).all()
    assert abs(numbers).max() <= 1 and abs(numbers.std() - 3**-0.5) < 0.03


@pytest.mark.parametrize("d_batches", ["separate", "joint"])
def test_infogan_losses_by_hand(d_batches: str) -> None:
    game = game64("infogan", lambda_cat=0.5, lambda_code=0.25, d_batches=d_batches)
    game.start(batch64())
    losses = game.d_losses()
    seen = game.fake.numpy()
    if d_batches == "joint":
        seen = np.concatenate([batch64().images, seen])
    a, mu, log_sigma = (part.numpy()[-N:] for part in game.D(mg.tensor(seen))[1])
    cat = cross_entropy(a, game.category.numpy().argmax(axis=1))
    numbers = game.numbers.numpy()
    log_n = -0.5 * ((numbers - mu) / np.exp(log_sigma)) ** 2 - log_sigma - 0.5 * np.log(2 * np.pi)
    code = -log_n.sum(axis=1).mean()
    assert losses["loss_cat"].item() == pytest.approx(0.5 * cat, rel=1e-8)
    assert losses["loss_code"].item() == pytest.approx(0.25 * code, rel=1e-8)
    bound = np.log(10) + 2 * np.log(2) - cat - code
    assert game.log["mutual_information"].item() == pytest.approx(bound, rel=1e-8)


@pytest.mark.parametrize("part", ["loss_cat", "loss_code"])
def test_the_information_pulls_at_both_players(part: str) -> None:
    """A bound whose gradient stopped on the way would be logged, and never rise."""
    game = game64("infogan")
    game.start(batch64())
    for player in game.players:
        first = mg.grad(player.losses()[part], player.parameters)[0]
        assert first is not None and abs(first.numpy()).max() > 0


def test_infogan_labels_choose_the_category() -> None:
    game = InfoGAN(width=4, previews=4)
    z = game.noise(np.random.default_rng(0), 3)
    asked = game.sample(z, labels=np.array([4, 5, 6]))
    z[:, game.nz : game.nz + 10] = np.eye(10)[[4, 5, 6]]
    np.testing.assert_array_equal(asked, game.sample(z))
    with pytest.raises(UsageError, match=r"class 10 is not in"):
        game.sample(z, labels=np.array([1, 2, 10]))


# All of them -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", CONDITIONAL)
def test_previews_have_one_class_in_each_column(name: str) -> None:
    mg.manual_seed(4)
    game: Any = gans.make(name, width=4, previews=100)
    z = game.fixed_noise.reshape(10, 10, -1)
    if name == "infogan":
        np.testing.assert_array_equal(z[3, :, 62:72], np.eye(10))
        z = np.delete(z, np.s_[62:72], axis=2)
        walk = game.walks["code-2"].reshape(10, 10, -1)
        np.testing.assert_allclose(walk[5, :, 73], np.linspace(-2, 2, 10), rtol=1e-6)
        assert (walk[5, :, 67] == 1).all() and (walk[:, :, 72] == walk[0, 0, 72]).all()
    else:
        np.testing.assert_array_equal(game.fixed_classes.reshape(10, 10)[3], np.arange(10))
    assert (z[3] == z[3, :1]).all() and (z[3] != z[4]).any()
    assert game.preview()["fakes"].shape == (100, 1, 28, 28)


@pytest.mark.parametrize("name", ["cgan", "acgan"])
def test_the_example_and_the_preset_are_one_game(name: str) -> None:
    """Same names and shapes, so that `minigan sample` opens runs of the example; same losses."""
    path = Path(__file__).parent.parent / "examples" / f"{name}_mnist.py"
    spec = importlib.util.spec_from_file_location(f"{name}_mnist", path)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    theirs = example.DigitGame()
    ours: Any = gans.make(name, **theirs.options)
    ours.load_state_dict(theirs.state_dict())
    for game in (ours, theirs):
        mg.manual_seed(3)
        game.start(Batch(batch().images, batch().labels, np.arange(N)))
    for a, b in zip(ours.players, theirs.players, strict=True):
        x, y = a.losses(), b.losses()
        assert list(x) == list(y)
        for key in x:
            assert x[key].item() == pytest.approx(y[key].item(), rel=1e-6), key


@pytest.mark.parametrize("name", CONDITIONAL)
def test_two_steps_equal_one_and_a_checkpoint_and_one(name: str) -> None:
    def new() -> Any:
        mg.manual_seed(1)
        return gans.make(name, width=4, previews=4, d_steps=2 if name == "acgan" else 1)

    whole = new()
    play(whole, 2)
    half = new()
    play(half, 1)
    saved, randomness = half.state_dict(), random.state()
    other = new()
    other.load_state_dict(saved)
    random.set_state(randomness)
    play(other, 1, first=1)
    for key, array in whole.state_dict().items():
        np.testing.assert_array_equal(array, other.state_dict()[key], err_msg=key)
