"""SPADE and GauGAN: parity with PyTorch, why SPADE exists, any size, styles, rendering."""

from __future__ import annotations

import importlib.util
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from label_steps import compare, compare_stored, edges, numbers, play
from labelgame import CLASSES, Toys, small

import minigan as mg
import minigan.functional as F
from minigan import data, gans, nn
from minigan.errors import MiniganError, ShapeError, UsageError
from minigan.gans import gaugan, spade
from minigan.gans.label_maps import UNKNOWN, check_maps, edges_of, pad_to_multiple
from minigan.gans.multiscale import SpadeDiscriminator, half
from minigan.tensor import Tensor
from minigan.training import RunFolder, train
from minigan.training.guard import Guard
from minigan.training.step import take_step

KINDS = ["spade", "spade-instance", "gaugan"]


def squares(size: int = 32, n: int = 1) -> Any:
    rng = np.random.default_rng(4)
    side = -(-size // 8)
    maps = rng.integers(0, CLASSES, (n, side, side)).repeat(8, 1).repeat(8, 2)
    return maps[:, :size, :size]


# Parity ------------------------------------------------------------------------------------------


@pytest.mark.parametrize("kind", KINDS)
def test_steps_equal_the_stored_pytorch_run(kind: str) -> None:
    compare_stored(kind)


@pytest.mark.torch
@pytest.mark.parametrize("kind", KINDS)
def test_steps_equal_pytorch_live(kind: str) -> None:
    pytest.importorskip("torch")
    import make_label_fixtures as fixture

    compare(play(kind), fixture.play(kind))


def twins(theirs: Any, ours: nn.Module) -> None:
    """The same float64 numbers for a network of PyTorch and for ours, by PyTorch's names."""
    import torch

    theirs.double().eval()
    ours.astype(np.float64).eval()
    state = theirs.state_dict()
    filled = {k: numbers(nn.from_torch(k), tuple(v.shape)) for k, v in state.items()}
    theirs.load_state_dict({k: torch.tensor(v) for k, v in filled.items()})
    ours.load_state_dict(filled, rename=nn.from_torch)
    count = sum(p.numel() for p in theirs.parameters())
    assert ours.num_parameters() == count


def close(ours: Any, theirs: Any) -> None:
    np.testing.assert_allclose(ours.numpy(), theirs.detach().numpy(), rtol=1e-9, atol=1e-9)


@pytest.mark.torch
@pytest.mark.parametrize("norm", ["batch", "instance"])
@pytest.mark.parametrize(("ups", "size", "nz"), [(5, 64, 0), (5, 64, 6), (6, 128, 0), (7, 256, 6)])
def test_the_generator_equals_pytorchs(ups: int, size: int, nz: int, norm: str) -> None:
    torch = pytest.importorskip("torch")
    import torch_label_networks as net

    theirs = net.SpadeGenerator(5, size, 2, 4, ups, nz, norm)
    start = "noise" if nz else "map"
    ours = spade.Generator(5, 3, size, 2, 4, ups, start, nz or 1, norm)
    twins(theirs, ours)
    m, z = numbers("m", (2, 5, size, size)), numbers("z", (2, nz)) if nz else None
    given = [m] if z is None else [m, z]
    close(ours(*map(Tensor, given)), theirs(*map(torch.tensor, given)))


@pytest.mark.torch
@pytest.mark.parametrize(("layers", "scales", "size"), [(4, 2, 64), (3, 3, 45)])
def test_the_discriminator_equals_pytorchs(layers: int, scales: int, size: int) -> None:
    torch = pytest.importorskip("torch")
    import torch_label_networks as net

    theirs, ours = (
        kind(8, 4, layers, scales) for kind in (net.SpadeDiscriminator, SpadeDiscriminator)
    )
    twins(theirs, ours)
    x = numbers("x", (2, 8, size, size))
    for a, b in zip(ours(Tensor(x)), theirs(torch.tensor(x)), strict=True):
        for mine, wanted in zip(a, b, strict=True):
            close(mine, wanted)


@pytest.mark.torch
@pytest.mark.parametrize(("size", "count"), [(256, 6), (128, 5), (64, 4), (96, 4)])
def test_the_encoder_equals_pytorchs(size: int, count: int) -> None:
    torch = pytest.importorskip("torch")
    import torch_label_networks as net

    theirs, ours = net.StyleEncoder(size, 2, 5, count), gaugan.Encoder(size, 3, 2, 5)
    twins(theirs, ours)
    for side in (size, 80):
        x = numbers("x", (2, 3, side, side))
        for mine, wanted in zip(ours(Tensor(x)), theirs(torch.tensor(x)), strict=True):
            close(mine, wanted)


@pytest.mark.torch
def test_a_published_file_loads_by_its_names(tmp_path: Path) -> None:
    """weight_orig, weight_u, weight_v and all, in float32."""
    torch = pytest.importorskip("torch")
    import torch_label_networks as net

    from minigan import weights

    theirs, ours = net.SpadeGenerator(5, 64, 2, 4, 5, 0, "batch"), spade.Generator(5, 3, 64, 2, 4)
    torch.save(theirs.state_dict(), tmp_path / "latest_net_G.pth")
    weights.load(ours, tmp_path / "latest_net_G.pth")
    m = numbers("m", (1, 5, 64, 64)).astype(np.float32)
    theirs.eval(), ours.eval()
    difference = ours(Tensor(m)).numpy() - theirs(torch.tensor(m)).detach().numpy()
    assert np.abs(difference).max() < 1e-4


def test_parameters_are_as_many_as_in_the_authors_networks() -> None:
    assert spade.Generator(12, 3, 64, 16, 128).num_parameters() == 10_760_691
    assert SpadeDiscriminator(187).num_parameters() == 5_904_514
    assert gaugan.Encoder().num_parameters() == 10_463_424


@pytest.mark.slow
def test_parameters_of_the_large_generators() -> None:
    assert spade.Generator(184, 3, 256, 64, 128).num_parameters() == 97_480_899
    noisy = spade.Generator(184, 3, 256, 64, 128, start="noise")
    assert noisy.num_parameters() == 112_626_883
    assert spade.Generator(36, 3, 512, 64, 128, 6).num_parameters() == 93_048_003


# Why SPADE exists --------------------------------------------------------------------------------


def test_instance_norm_forgets_a_uniform_map_and_spade_does_not() -> None:
    """The same image for every class through a convolution and instance norm."""
    mg.manual_seed(1)
    classes, x = 4, Tensor(np.random.default_rng(0).standard_normal((1, 6, 8, 8)))
    plain = nn.Sequential(
        nn.ReflectionPad2d(1), nn.Conv2d(classes, 6, 3), nn.InstanceNorm2d(6), nn.ReLU()
    ).astype(np.float64)
    steered = nn.SPADE(6, classes, 8).astype(np.float64)
    uniform = [Tensor(np.eye(classes)[[k]][:, :, None, None] * np.ones((8, 8))) for k in (0, 1, 2)]
    forgotten = [plain(m).numpy() for m in uniform]
    kept = [steered(x, m).numpy() for m in uniform]
    for k in (1, 2):
        assert np.abs(forgotten[k] - forgotten[0]).max() < 1e-6
        assert np.abs(kept[k] - kept[0]).max() > 0.1


# Maps --------------------------------------------------------------------------------------------


def test_edges_are_where_neighbours_differ() -> None:
    ids = np.random.default_rng(0).integers(0, 3, (2, 7, 5))
    np.testing.assert_array_equal(edges_of(Tensor(ids), np.float64).numpy(), edges(ids))


def test_a_condition_has_classes_then_unknown_then_edges() -> None:
    game = small("spade", unknown=True, edges=True)
    labels = squares()
    labels[0, :3, :3] = UNKNOWN
    batch = SimpleNamespace(labels=labels, edges=None, instances=None)
    m = game.condition(batch).numpy()
    assert m.shape == (1, CLASSES + 2, 32, 32) and m.dtype == np.float32
    assert (m[:, :-1].sum(1) == 1).all() and (m[0, CLASSES, :3, :3] == 1).all()
    np.testing.assert_array_equal(m[:, -1:], edges(labels))
    given = np.full((1, 1, 32, 32), 0.5, np.float32)
    batch.edges = given
    np.testing.assert_array_equal(game.condition(batch).numpy()[:, -1:], given)


def test_labels_outside_the_classes_are_refused_with_value_and_place() -> None:
    maps = squares()
    maps[0, 5, 6] = 7
    game = small("spade")
    with pytest.raises(UsageError, match="label 7 is none of the 3 classes") as caught:
        game.check(SimpleNamespace(labels=maps))
    assert "row 5, column 6" in str(caught.value)
    maps[0, 5, 6] = UNKNOWN
    with pytest.raises(UsageError, match="unknown=true"):
        game.render(maps[0].astype(np.uint8))
    check_maps(maps, CLASSES, True, "spade")
    for labels in (None, np.zeros(4, np.int64)):
        with pytest.raises(UsageError, match="no label maps"):
            game.check(SimpleNamespace(labels=labels))
    with pytest.raises(ShapeError, match="float"):
        check_maps(maps * 1.0, CLASSES, False, "spade")


def test_padding_continues_the_border() -> None:
    x = np.arange(12.0).reshape(1, 1, 3, 4)
    y = pad_to_multiple(Tensor(x), 4).numpy()
    assert y.shape == (1, 1, 4, 4) and (y[0, 0, 3] == x[0, 0, 2]).all()
    assert half(Tensor(np.ones((1, 1, 5, 7)))).numpy().tolist() == [[[[1.0] * 4] * 3]]


# Games -------------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["spade", "gaugan", "pix2pixhd"])
@pytest.mark.parametrize("size", [(40, 52), (33, 47)])
def test_any_size_will_do(name: str, size: tuple[int, int]) -> None:
    game = small(name)
    figures = take_step(game, Toys(size).batch(0), Guard(game))
    assert np.isfinite(figures["loss_G"].item())
    image = game.render(squares(56)[0, : size[0], : size[1]])
    assert image.shape == (*size, 3) and image.dtype == np.uint8


@pytest.mark.parametrize("size", [8, 16, 32, 64, 96, 160, 256, 300])
def test_the_encoder_takes_every_size(size: int) -> None:
    """The authors' fails for images below 256 pixels."""
    E = gaugan.Encoder(size, 3, 2, 5)
    x = np.random.default_rng(0).standard_normal((2, 3, size, size)).astype(np.float32)
    mu, logvar = E(Tensor(x))
    assert mu.shape == logvar.shape == (2, 5)
    assert np.abs(mu.numpy()[0] - mu.numpy()[1]).max() > 1e-4


def test_an_encoder_without_norm() -> None:
    """Away from borders, instance norm gives a photo and a darker one the same features."""
    mg.manual_seed(0)
    inner = Tensor(np.random.default_rng(0).uniform(-1, 1, (1, 3, 9, 9)).astype(np.float32))
    codes = {}
    for norm in ("instance", "none"):
        layer = gaugan.Encoder(64, 3, 4, 8, norm).layer1
        layer[0].padding = 0
        codes[norm] = [layer(x).numpy() for x in (inner, inner * 0.3 - 0.6)]
    np.testing.assert_allclose(*codes["instance"], atol=1e-3)
    assert np.abs(codes["none"][0] - codes["none"][1]).max() > 0.1
    assert small("gaugan", norm_e="none").render(squares()[0]).shape == (32, 32, 3)
    with pytest.raises(UsageError, match="norm_e"):
        small("gaugan", norm_e="batch")


def test_rendering_is_deterministic_and_leaves_no_trace() -> None:
    game, maps = small("gaugan"), squares()[0].astype(np.uint8)
    before, state = game.state_dict(), mg.random.state()
    one, two = (game.render(maps, seed=3).tobytes() for _ in range(2))
    assert one == two != game.render(maps, seed=4).tobytes()
    assert one == game.render(maps.astype(np.int64), seed=3).tobytes()
    assert game.G.training and mg.random.state() == state
    for name, array in game.state_dict().items():
        np.testing.assert_array_equal(array, before[name], name)


def test_a_picture_depends_on_its_own_map_and_code_alone() -> None:
    game, maps = small("gaugan"), squares(32, 3)
    z = game.noise(np.random.default_rng(0), 3)
    together = game.sample(z, labels=maps)
    np.testing.assert_allclose(together[1:2], game.sample(z[1:2], labels=maps[1:2]), atol=1e-6)


def test_style_from_a_picture() -> None:
    game, maps = small("gaugan"), squares()[0]
    rng = np.random.default_rng(0)
    photo = rng.integers(0, 256, (50, 40, 3), dtype=np.uint8)
    z = game.encode(photo)
    assert z.shape == (1, 5)
    as_floats = photo.transpose(2, 0, 1)[None].astype(np.float32) / 127.5 - 1
    np.testing.assert_array_equal(z, game.encode(as_floats))
    np.testing.assert_array_equal(game.render(maps, style=photo), game.render(maps, z=z[0]))
    with pytest.raises(ShapeError, match="photos of shape"):
        game.encode(photo[:, :, :1])
    with pytest.raises(UsageError, match="no encoder"):
        small("spade").render(maps, style=photo)


def test_the_perceptual_loss_is_off_until_features_are_there() -> None:
    game, batch = small("spade"), Toys().batch(0)
    game.start(batch)
    without = game.g_losses()
    assert "loss_perceptual" not in without
    game.perceptual_features = lambda x: [x, F.avg_pool2d(x, 2)]
    total = game.g_losses()["loss_perceptual"]
    wanted = np.abs(game.fake.numpy() - batch.photos).mean()
    assert total.item() > 5 * wanted
    assert any(g is not None for g in mg.grad(total, game.players[0].parameters))


def test_previews_show_map_picture_and_photo() -> None:
    game = small("spade", ema=0.9)
    assert set(game.preview()) == {"fakes", "fakes-ema"}  # made-up maps, no colours
    game.class_colours = np.eye(3, dtype=np.uint8) * 255
    game.keep_previews(Toys(batch_size=2))
    grids = game.preview()
    assert grids["fakes"].shape == (3, 3, 32, 32) and grids["compare"].shape == (3, 3, 32, 96)
    np.testing.assert_array_equal(grids["compare"][:2, :, :, 64:], Toys().batch(0).photos)
    map_ = grids["compare"][0, :, :, :32].argmax(0)
    np.testing.assert_array_equal(map_, Toys().batch(0).labels[0])


def test_g_moves_first_and_d_looks_at_the_moved_g() -> None:
    for fresh in (True, False):
        game = small("spade", fresh=fresh)
        game.start(Toys().batch(0))
        losses = game.players[0].losses()
        first = game.fake
        total = sum(losses.values(), start=mg.tensor(0.0))
        game.players[0].optimizer.step(mg.grad(total, game.players[0].parameters))
        game.players[1].losses()
        assert (game.fake is first) is not fresh


def test_options() -> None:
    for wrong in ({"upsamplings": 4}, {"start": "nose"}, {"norm": "layer"}, {"classes": 0}):
        with pytest.raises(MiniganError):
            small("spade", **wrong)
    with pytest.raises(UsageError, match="no time to fall"):
        small("spade", decay_start=5, decay_end=3)
    with pytest.raises(UsageError, match="of which label maps"):
        game = small("spade")
        game.sample(game.noise(np.random.default_rng(0), 1))
    game = small("spade", lr=1.0, decay_start=2, decay_end=4)
    rate: Any = game.players[0].optimizer.lr
    assert [rate(step) for step in range(6)] == [1, 1, 1, 0.5, 0, 0]
    assert gans.options("gaugan")["kl"] == 0.05 and gans.options("spade64")["most"] == 64
    assert small("spade", most=8).G.head_0.conv_0.weight.shape[:2] == (8, 8)


@pytest.mark.parametrize("name", ["spade", "gaugan", "pix2pixhd"])
def test_three_steps_and_three_more_equal_six(name: str, tmp_path: Path) -> None:
    """Bit for bit; pix2pixHD goes through its three stages."""

    def run(folder: str, *ends: int) -> dict[str, Any]:
        place = RunFolder.create(tmp_path, folder)
        for end in ends:
            mg.manual_seed(1)
            game = small(name, ema=0.9)
            resume = end != ends[0]
            train(game, Toys(), place, steps=end, resume=resume, progress=False, preview=100)
        return game.state_dict()

    straight, twice = run("straight", 6), run("twice", 3, 6)
    for key, array in straight.items():
        np.testing.assert_array_equal(array, twice[key], key)


# Examples ----------------------------------------------------------------------------------------


def example(name: str) -> Any:
    path = Path(__file__).parent.parent / "examples" / f"{name}.py"
    spec = importlib.util.spec_from_file_location(name, path)
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def test_the_example_and_the_preset_are_one() -> None:
    """Same names, and the same numbers after a step: paint opens runs of the example."""
    scenes = data.load("scenes", kind="labels", size=64, limit=2)
    batch = data.batches(scenes, 2, 0).batch(0)
    states = []
    for make in (
        lambda: example("spade_scenes").Painter(12),
        lambda: gans.make("spade64", classes=12),
    ):
        mg.manual_seed(3)
        game = make()
        take_step(game, batch, Guard(game))
        states.append(game.state_dict() | {"picture": game.render(scenes.maps([0])[0])})
    assert list(states[0]) == list(states[1])
    for name, array in states[0].items():
        np.testing.assert_array_equal(array, states[1][name], name)


def test_the_picture_of_why(tmp_path: Path, monkeypatch: Any, capsys: Any) -> None:
    monkeypatch.setattr("sys.argv", ["why_spade.py", "--out", str(tmp_path / "why.png")])
    example("why_spade").main()
    said = capsys.readouterr().out.splitlines()
    assert said[0].endswith(" 0") and float(said[1].split()[-1]) > 0.1
    assert (tmp_path / "why.png").stat().st_size > 1000
