"""The GANs of residual networks: projection, SAGAN, BigGAN, and the networks they share."""

from __future__ import annotations

import json
import re
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minigan as mg
from minigan import gans, nn
from minigan.cli import app
from minigan.data import save_png
from minigan.errors import UsageError
from minigan.gans import biggan, resnet
from minigan.training.guard import Guard
from minigan.training.step import read, take_step

PRESETS = ["projection", "sagan", "biggan"]
TINY = {"width": 8, "width_d": 8, "previews": 9, "classes": 3}


def tiny(name: str, **options: Any) -> Any:
    mg.manual_seed(0)
    return gans.make(name, **TINY | options)


def batch_for(game: Any, n: int = 6, seed: int = 0) -> Any:
    rng = np.random.default_rng(seed)
    count = n * game.batches_per_step
    images = rng.uniform(-1, 1, (count, *game.image_shape)).astype(np.float32)
    return SimpleNamespace(
        images=images, labels=rng.integers(0, game.classes, count), indices=np.arange(count)
    )


# Networks --------------------------------------------------------------------------------------


def counts(size: int, classes: int, wide: bool = False, width_d: int = 128) -> tuple[int, int]:
    G = resnet.Generator(size, classes=classes)
    D = resnet.Discriminator(size, width=width_d, classes=classes, wide=wide)
    return G.num_parameters(), D.num_parameters()


def test_published_numbers_of_parameters() -> None:
    """Of the library mimicry (SN-GAN, cGAN-PD), and of BigGAN's log for CIFAR-10, ch = 64.

    BigGAN's run for CIFAR-10 has no shared table: its G is that of cGAN-PD with spectral norm.
    """
    assert counts(32, 0) == (4_276_739, 1_053_825)
    assert counts(32, 10) == (4_304_387, 1_055_105)
    assert counts(32, 10, wide=True, width_d=256) == (4_304_387, 4_207_361)


@pytest.mark.slow
def test_published_numbers_of_parameters_of_biggan_at_128_pixels() -> None:
    G = biggan.Generator(128, 3, 120, 96, 1000, 128, attention=64)
    assert G.num_parameters() == 70_433_988
    D = resnet.Discriminator(128, 3, 96, 1000, attention=64, wide=True)
    assert D.num_parameters() == 87_982_370


def test_published_names_can_be_mapped() -> None:
    """mimicry numbers its layers from the first linear one; the rest of a name is ours."""
    G = resnet.Generator(32, 3, 8, 4)
    theirs = {f"l1.{kind}" for kind in ("weight", "bias")}
    running = ("weight", "bias", "running_mean", "running_var", "num_batches_tracked")
    for i in (2, 3, 4):
        theirs |= {f"block{i}.{c}.{k}" for c in ("c1", "c2", "c_sc") for k in ("weight", "bias")}
        theirs |= {f"block{i}.{b}.{k}" for b in ("b1", "b2") for k in running}
    theirs |= {f"b5.{k}" for k in running} | {"c5.weight", "c5.bias"}

    def rename(name: str) -> str:
        name = re.sub(r"^block(\d)", lambda m: f"blocks.{int(m[1]) - 2}", name)
        return re.sub(r"^c5", "conv", re.sub(r"^b5", "bn", name))

    assert sorted(map(rename, theirs)) == sorted(G.state_dict())


@pytest.mark.parametrize("size", [28, 32, 64])
@pytest.mark.parametrize("classes", [0, 3])
def test_shapes_and_range(size: int, classes: int) -> None:
    G = resnet.Generator(size, 3, 5, 4, classes, attention=size // 2)
    D = resnet.Discriminator(size, 3, 4, classes, attention=size // 2)
    y = mg.tensor([2, 0]) if classes else None
    images = G(mg.tensor(np.ones((2, 5), np.float32)), y)
    assert images.shape == (2, 3, size, size) and np.abs(images.data).max() <= 1
    assert D(images, y).shape == (2,)


def test_maps_of_the_papers() -> None:
    assert resnet.maps_up(32, 256) == [256] * 4 and resnet.maps_down(32, 128) == [128] * 4
    assert resnet.maps_up(64, 64) == [1024, 512, 256, 128, 64]
    assert resnet.maps_up(128, 96) == [w * 96 for w in (16, 16, 8, 4, 2, 1)]
    assert resnet.maps_down(64, 64) == [64, 128, 256, 512, 1024]
    assert resnet.maps_down(128, 96) == [w * 96 for w in (1, 2, 4, 8, 16, 16)]


def test_attention_stands_where_it_was_wanted() -> None:
    G = resnet.Generator(32, 3, 5, 4, attention=16)
    D = resnet.Discriminator(32, 3, 4, attention=16)
    seen: dict[int, Any] = {}

    class Watch:
        def enter(self, module: nn.Module, args: Any) -> None:
            seen[id(module)] = args[0].shape

        def leave(self, *_: Any) -> None: ...

    with nn.observe(Watch()):
        D(G(mg.tensor(np.ones((1, 5), np.float32))))
    assert seen[id(G.attn_block)] == seen[id(D.attn_block)] == (1, 4, 16, 16)
    with pytest.raises(UsageError, match=r"no maps of 20x20(?s:.*)use one of 8, 16, 32, or 0"):
        resnet.Generator(32, 3, 5, 4, attention=20)


def test_projection_is_an_inner_product_of_features_and_a_normalised_table() -> None:
    """f(x, y) = w . phi(x) + b + E_y . phi(x), with E divided as a matrix (classes, maps)."""
    mg.manual_seed(3)
    D = resnet.Discriminator(28, 1, 4, classes=5).astype("float64").eval()
    x = mg.tensor(np.random.default_rng(0).uniform(-1, 1, (5, 1, 28, 28)))
    h = x
    for block in D.blocks:
        h = block(h)
    phi = D.features(x).data
    np.testing.assert_allclose(phi, np.maximum(h.data, 0).sum((2, 3)), rtol=1e-10)
    assert D.embed is not None and D.embed.sn.u.shape == (5,) and D.embed.sn.v.shape == (4,)
    E = D.embed.weight.data / (D.embed.sn.u.data @ D.embed.weight.data @ D.embed.sn.v.data)
    assert abs(np.linalg.svd(E)[1][0] - 1) < 1e-3
    plain = D.linear(mg.tensor(phi)).data[:, 0]
    for labels in ([0, 1, 2, 3, 4], [4, 4, 0, 1, 2]):
        wanted = plain + (E[labels] * phi).sum(axis=1)
        np.testing.assert_allclose(D(x, mg.tensor(labels)).data, wanted, rtol=1e-10)


@pytest.mark.parametrize("name", PRESETS)
def test_spectral_norm_is_in_every_layer_that_shall_have_it(name: str) -> None:
    game = tiny(name)
    layers = [m for m in game.D.modules() if isinstance(m, nn.Weighted)]
    assert len(layers) > 10 and all(layer.sn is not None for layer in layers)
    free = {n for n, m in game.G.named_modules() if isinstance(m, nn.Weighted) and m.sn is None}
    if name == "projection":
        assert {"l1", "conv", "blocks.0.c1"} <= free
    else:  # tables of classes are looked up, not multiplied with
        assert all(re.fullmatch(r"shared|blocks\.\d\.b\d\.(gamma|beta)", n) for n in free)
    bare = tiny(name, spectral=False)
    assert all(m.sn is None for m in bare.D.modules() if isinstance(m, nn.Weighted))


# Games -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", PRESETS)
def test_steps_move_everything(name: str) -> None:
    game = tiny(name)
    before = {k: v for k, v in game.state_dict().items() if k.startswith("networks.")}
    guard = Guard(game, "stop")
    for k in range(3):  # attention learns from the second step on, when gamma is not 0
        figures = read(take_step(game, batch_for(game, seed=k), guard))
    assert all(np.isfinite(value) for value in figures.values())
    assert {"loss_D", "loss_G", "d_real", "d_fake", "d_fake_g"} <= set(figures)
    after = game.state_dict()
    still = [
        key for key, array in before.items() if np.array_equal(array, after[key]) and array.size > 1
    ]
    assert still == []


@pytest.mark.parametrize("name", PRESETS)
def test_a_saved_game_goes_on_as_it_would_have(name: str) -> None:
    def play(game: Any, steps: range) -> None:
        guard = Guard(game, "stop")
        for k in steps:
            take_step(game, batch_for(game, seed=k), guard)

    game = tiny(name)
    play(game, range(2))
    saved, streams = game.state_dict(), mg.random.state()
    play(game, range(2, 4))
    twin = tiny(name)
    twin.load_state_dict(saved)
    mg.random.set_state(streams)
    play(twin, range(2, 4))
    for key, array in game.state_dict().items():
        np.testing.assert_array_equal(array, twin.state_dict()[key], err_msg=key)


def test_g_and_d_are_asked_about_the_classes_that_were_drawn() -> None:
    game = tiny("projection")
    seen: list[Any] = []
    judge = game.judge
    game.judge = lambda x, y: seen.append(np.array(y.data)) or judge(x, y)
    batch = batch_for(game, 64)
    game.start(batch)
    game.d_losses()
    game.g_losses()
    real, fake, again = seen
    np.testing.assert_array_equal(real, batch.labels)
    np.testing.assert_array_equal(fake, again)
    np.testing.assert_array_equal(fake, game.y_fake.data)
    assert (fake != batch.labels).any() and set(fake) == {0, 1, 2}


@pytest.mark.parametrize("name", PRESETS)
def test_wrong_labels_are_refused(name: str) -> None:
    game = tiny(name)
    z = game.noise(np.random.default_rng(0), 2)
    with pytest.raises(UsageError, match=r"class 3 is not in 0 ... 2"):
        game.sample(z, labels=np.array([0, 3]))
    with pytest.raises(UsageError, match="of which classes"):
        game.sample(z)
    with pytest.raises(UsageError, match="labels are float64"):
        game.sample(z, labels=np.array([0.0, 1.0]))
    with pytest.raises(UsageError, match="have no classes"):
        game.check(SimpleNamespace(images=np.zeros((2, 1, 28, 28), np.float32), labels=None))
    for who, network, x in (("generator", game.G, z), ("discriminator", game.D, None)):
        images = np.zeros((2, *game.image_shape), np.float32) if x is None else x
        with pytest.raises(UsageError, match=f"{who} has classes and was called without"):
            network(mg.tensor(images))


def test_previews_have_a_class_in_each_column_and_a_noise_in_each_row() -> None:
    game = tiny("projection")
    for norm in game.G.modules():
        if isinstance(norm, nn.ConditionalBatchNorm2d):
            norm.beta.weight.data[...] = np.arange(3)[:, None]  # otherwise classes start equal
    grid = game.preview()["fakes"]
    z = game.fixed_noise.reshape(3, 3, -1)
    assert (z == z[:, :1]).all() and (z[0] != z[1]).any()
    for row in range(3):
        for column in range(3):
            image = game.sample(z[row, column][None], net="raw", labels=np.array([column]))
            np.testing.assert_allclose(grid[3 * row + column], image[0], atol=1e-5)


# BigGAN ----------------------------------------------------------------------------------------


def test_each_part_of_z_steers_one_block() -> None:
    G = biggan.Generator(28, 1, 12, 4, classes=3, shared=5)
    z = mg.tensor(np.random.default_rng(0).standard_normal((2, 12)).astype(np.float32))
    first, conditions = G.conditions(z, mg.tensor([2, 1]))
    np.testing.assert_array_equal(first.data, z.data[:, :4])
    assert len(conditions) == len(G.blocks) == 2
    for b, (c,) in enumerate(conditions):
        np.testing.assert_array_equal(c.data[:, :5], G.shared.weight.data[[2, 1]])
        np.testing.assert_array_equal(c.data[:, 5:], z.data[:, 4 * b + 4 : 4 * b + 8])
    with pytest.raises(UsageError, match=r"z of 13 numbers does not split into 3(?s:.*)nz=12"):
        biggan.Generator(28, 1, 13, 4, classes=3)


def test_orthogonal_regularisation_pulls_on_all_weights_of_g_but_classes() -> None:
    game = tiny("biggan", ortho=0.5)
    game.start(batch_for(game))
    game.d_losses()
    loss = game.g_losses()["loss_ortho"]
    names = dict(game.G.named_parameters())
    grads = dict(zip(names, mg.grad(loss, list(names.values())), strict=True))
    W = names["blocks.0.c1.weight"].data.reshape(8, -1)
    np.testing.assert_allclose(
        grads["blocks.0.c1.weight"].data.reshape(8, -1),
        2 * 0.5 * ((W @ W.T) * (1 - np.eye(8))) @ W,
        atol=1e-5,
    )
    assert grads["shared.weight"] is None
    assert "loss_ortho" not in tiny_losses(tiny("biggan", ortho=0.0))


def tiny_losses(game: Any) -> dict[str, Any]:
    game.start(batch_for(game))
    game.d_losses()
    return game.g_losses()


def test_truncation_draws_far_numbers_again_and_never_in_training() -> None:
    game = tiny("biggan")
    z = game.truncated_noise(np.random.default_rng(0), 500, 0.8)
    assert z.shape == (500, 60) and z.dtype == np.float32 and np.abs(z).max() <= 0.8
    near = np.random.default_rng(1).standard_normal(200_000)
    near = near[np.abs(near) <= 0.8]  # what is left when far ones are thrown away
    assert abs(z.std() - near.std()) < 0.005 and abs(z.mean()) < 0.01
    assert np.abs(game.noise(np.random.default_rng(0), 500)).max() > 3
    fed: list[Any] = []
    generate = game.generate
    game.generate = lambda z, *rest: fed.append(z.data) or generate(z, *rest)
    game.start(batch_for(game, 64))
    assert np.abs(fed[0]).max() > 3
    with pytest.raises(UsageError, match="truncation at 0"):
        game.truncated_noise(np.random.default_rng(0), 1, 0.0)


def test_standing_statistics_fit_the_weights_and_leave_no_trace() -> None:
    """Running statistics lag behind the weights; at the start they know nothing at all."""
    game = tiny("biggan")
    saved, streams = game.state_dict(), mg.random.state()
    rng = np.random.default_rng(0)
    z, y = game.noise(rng, 60), np.arange(60) % 3
    by_batch, running, standing = (
        game.sample(z, net="raw", labels=y, mode=mode) for mode in ("batch", "eval", "standing")
    )
    assert np.abs(standing - by_batch).mean() < 0.25 * np.abs(running - by_batch).mean()
    np.testing.assert_array_equal(game.sample(z, net="raw", labels=y), standing)  # the default
    alone = game.sample(z[7:8], net="raw", labels=y[7:8])
    np.testing.assert_allclose(alone[0], standing[7], atol=1e-5)
    assert mg.random.state() == streams and game.G.training
    for key, array in game.state_dict().items():
        np.testing.assert_array_equal(array, saved[key], err_msg=key)


def test_standing_statistics_are_taken_once_for_the_same_weights() -> None:
    game = tiny("biggan")
    z, y = game.noise(np.random.default_rng(0), 2), np.array([0, 1])
    drawn: list[int] = []
    draw = game.standing.draw
    game.standing.draw = lambda net, k: drawn.append(k) or draw(net, k)
    for net in ("raw", "raw", "ema", "raw", "ema"):
        game.sample(z, net=net, labels=y)
    assert drawn == list(range(16))  # at the start the average is the network
    take_step(game, batch_for(game), Guard(game, "stop"))
    for net in ("raw", "ema", "raw", "ema"):
        game.sample(z, net=net, labels=y)
    assert drawn == list(range(16)) * 3


# The command line ------------------------------------------------------------------------------


def test_the_command_line_samples_classes_and_truncates(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    def cli(*words: Any) -> tuple[int, str]:
        with pytest.raises(SystemExit) as ended:
            app.main([str(word) for word in words])
        assert isinstance(ended.value.code, int)
        return ended.value.code, capsys.readouterr().err

    rng = np.random.default_rng(0)
    for i in range(24):
        (folder := tmp_path / "set" / f"class{i % 3}").mkdir(parents=True, exist_ok=True)
        save_png(folder / f"{i}.png", rng.integers(0, 256, (8, 8, 1), dtype=np.uint8))
    small = {"size": 8, "width": 4, "width_d": 4, "nz": 4, "shared": 4, "classes": 3, "previews": 9}
    options = [word for key, value in small.items() for word in ("-o", f"{key}={value}")]
    where = ["--data", tmp_path / "set", "--out", tmp_path / "runs", "--name", "x"]
    assert cli("train", "biggan", *where, "--batch", "8", "--steps", "2", *options)[0] == 0
    (run,) = (tmp_path / "runs").iterdir()

    def sample(*words: Any) -> tuple[Any, dict[str, Any]]:
        out = tmp_path / "images.npz"
        assert cli("sample", run, "--seeds", "0-3", "--out", out, *words)[0] == 0
        with np.load(out) as file:
            return file["images"], json.loads(str(file["about"]))

    images, about = sample()
    assert about["labels"] == [0, 1, 2, 0] and about["mode"].startswith(
        "standing: statistics of 16"
    )
    images_of_1, about = sample("--classes", "1", "--truncation", "0.5")
    assert about["labels"] == [1] * 4 and about["truncation"] == 0.5
    assert (images_of_1 != images).any()
    running, about = sample("--mode", "eval")
    assert about["mode"].startswith("eval: running") and (running != images).any()
    code, message = cli("sample", run, "--classes", "0-3", "--out", tmp_path / "x.png")
    assert code == 1 and "class 3 is not in 0 ... 2" in message
