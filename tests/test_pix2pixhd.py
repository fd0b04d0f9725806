"""pix2pixHD: parity with PyTorch, the three stages, codes of objects; recorded steps of all."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from label_steps import compare, compare_stored, numbers, play
from labelgame import CLASSES, Toys, small
from test_devices import NAME
from test_spade import close, squares, twins

import minigan as mg
from minigan import random
from minigan.check import gradcheck
from minigan.errors import UsageError
from minigan.gans.coarse_to_fine import FeatureEncoder, GlobalGenerator, LocalEnhancer
from minigan.gans.instances import SLOTS, instance_mean, kmeans, object_codes
from minigan.gans.multiscale import HDDiscriminator
from minigan.tensor import Tensor
from minigan.training.guard import Guard
from minigan.training.recorded import RecordedSteps
from minigan.training.step import EagerSteps, take_step

# Parity ------------------------------------------------------------------------------------------


def test_steps_equal_the_stored_pytorch_run() -> None:
    compare_stored("pix2pixhd")


@pytest.mark.torch
def test_steps_equal_pytorch_live() -> None:
    pytest.importorskip("torch")
    import make_label_fixtures as fixture

    compare(play("pix2pixhd"), fixture.play("pix2pixhd"))


@pytest.mark.torch
@pytest.mark.parametrize("enhancers", [0, 1, 2])
def test_the_generators_equal_pytorchs(enhancers: int) -> None:
    torch = pytest.importorskip("torch")
    import torch_label_networks as net

    form: Any = (5, 3, 2, 2, 2)
    if enhancers:
        theirs, ours = (kind(*form, enhancers, 2) for kind in (net.LocalEnhancer, LocalEnhancer))
    else:
        theirs, ours = (kind(*form) for kind in (net.GlobalGenerator, GlobalGenerator))
    twins(theirs, ours)
    x = numbers("x", (2, 5, 32, 48))
    close(ours(Tensor(x)), theirs(torch.tensor(x)))


@pytest.mark.torch
@pytest.mark.parametrize(("layers", "scales"), [(3, 2), (2, 3)])
def test_the_discriminator_equals_pytorchs(layers: int, scales: int) -> None:
    torch = pytest.importorskip("torch")
    import torch_label_networks as net

    theirs, ours = (kind(7, 4, layers, scales) for kind in (net.HDDiscriminator, HDDiscriminator))
    twins(theirs, ours)
    x = numbers("x", (2, 7, 45, 64))
    for a, b in zip(ours(Tensor(x)), theirs(torch.tensor(x)), strict=True):
        for mine, wanted in zip(a, b, strict=True):
            close(mine, wanted)


@pytest.mark.torch
def test_the_encoder_equals_pytorchs() -> None:
    torch = pytest.importorskip("torch")
    import torch_label_networks as net

    theirs, ours = net.FeatureEncoder(3, 2, 3), FeatureEncoder(3, 3, 2, 3)
    twins(theirs, ours)
    x = numbers("x", (2, 3, 32, 24))
    ids = np.random.default_rng(0).integers(0, 5, (2, 32, 24)) * 1000
    pooled = instance_mean(ours(Tensor(x)), Tensor(ids))
    close(pooled, theirs(torch.tensor(x), torch.tensor(ids)))


def test_small_networks_have_as_many_parameters_as_the_authors() -> None:
    assert FeatureEncoder().num_parameters() == 788_803
    assert HDDiscriminator(39).num_parameters() == 5_603_202
    assert HDDiscriminator(39, scales=3).num_parameters() == 8_404_803


@pytest.mark.slow
def test_large_networks_have_as_many_parameters_as_the_authors() -> None:
    assert GlobalGenerator(36).num_parameters() == 182_546_755
    assert LocalEnhancer(36).num_parameters() == 182_857_059


def test_names_are_the_authors() -> None:
    names = [n for n, _ in LocalEnhancer(5, 3, 2, 4, 9).named_parameters() if "weight" in n]
    plain = [n for n in names if "conv_block" not in n]
    numbered = [f"model.{i}.weight" for i in (1, 4, 7, 10, 13, 25, 28, 31, 34)]
    assert plain[:9] == numbered and "model.16.conv_block.1.weight" in names
    last = ["model1_1.1.weight", "model1_1.4.weight", "model1_2.3.weight", "model1_2.7.weight"]
    assert plain[9:] == last
    assert "model.38.weight" in dict(GlobalGenerator(5, 3, 2).named_parameters())
    names = [n for n, _ in HDDiscriminator(4, 2).named_parameters()]
    assert names[:2] == ["scale0_layer0.0.weight", "scale0_layer0.0.bias"] and len(names) == 20


def test_the_last_scale_sees_the_full_size() -> None:
    D = HDDiscriminator(3, 2, 1, 3)
    found = D(Tensor(np.zeros((1, 3, 64, 64), np.float32)))
    assert [scale[0].shape[2] for scale in found] == [33, 17, 9]


# Stages ------------------------------------------------------------------------------------------


def changed(before: dict[str, Any], after: dict[str, Any]) -> set[str]:
    """Which parts of the networks moved."""
    moved = {k for k in before if not np.array_equal(before[k], after[k])}
    parts = {k.split(".")[1] + "." + k.split(".")[2] for k in moved if k.startswith("networks")}
    return {p if p.startswith("G.") else p.split(".")[0] for p in parts}


@pytest.mark.parametrize("features", [0, 2])
def test_three_stages(features: int) -> None:
    game, data = small("pix2pixhd", features=features), Toys()
    style = {"E"} if features else set()
    wanted = [
        ("global", {"G.model", "head", "D"} | style),
        ("global", {"G.model", "head", "D"} | style),
        ("enhancer", {"G.model1_1", "G.model1_2", "D"} | style),
        ("enhancer", {"G.model1_1", "G.model1_2", "D"} | style),
        ("whole", {"G.model", "G.model1_1", "G.model1_2", "D"} | style),
    ]
    for step, (stage, moved) in enumerate(wanted):
        assert game.stage == game.phase() == stage
        before = game.state_dict()
        take_step(game, data.batch(step), Guard(game))
        assert game.fake.shape[2] == (16 if stage == "global" else 32)
        assert changed(before, game.state_dict()) == moved
        assert game.preview()["fakes"].shape == (3, 3, 32, 32)


def test_a_global_generator_alone() -> None:
    game = small("pix2pixhd", enhancers=0, global_steps=0, fixed_steps=0)
    take_step(game, Toys().batch(0), Guard(game))
    assert isinstance(game.G, GlobalGenerator) and game.stage == "whole"
    with pytest.raises(UsageError, match="one stage only"):
        small("pix2pixhd", enhancers=0)


# Codes of objects --------------------------------------------------------------------------------


def test_instance_mean_is_the_mean_over_each_object() -> None:
    rng = np.random.default_rng(0)
    x, ids = rng.standard_normal((2, 3, 4, 5)), rng.integers(0, 3, (2, 4, 5)) * (SLOTS // 3)
    y = instance_mean(Tensor(x), Tensor(ids)).numpy()
    for n in range(2):
        for number in np.unique(ids[n]):
            inside = ids[n] == number
            mean = x[n][:, inside].mean(1, keepdims=True)
            np.testing.assert_allclose(y[n][:, inside], np.broadcast_to(mean, (3, inside.sum())))


def test_instance_mean_has_derivatives() -> None:
    ids = Tensor(np.array([[[0, 0, 1], [1, 2, 0]]]))
    x = np.random.default_rng(0).standard_normal((1, 2, 2, 3))
    gradcheck(lambda x: instance_mean(x, ids) * x, [x], order=2)


def test_neighbouring_objects_of_a_batch_stay_apart() -> None:
    """Number 0 of the second picture is not number 0 of the first."""
    x = Tensor(np.array([1.0, 2.0]).reshape(2, 1, 1, 1))
    y = instance_mean(x, Tensor(np.zeros((2, 1, 1), np.int64)))
    assert y.numpy().ravel().tolist() == [1, 2]


def test_kmeans_finds_clusters() -> None:
    rng = np.random.default_rng(0)
    middles = np.array([[0.0, 0.0], [5.0, 5.0], [0.0, 9.0]])
    points = np.concatenate([m + 0.1 * rng.standard_normal((50, 2)) for m in middles])
    found = kmeans(points, 3, np.random.default_rng(3))
    distance = np.linalg.norm(found[:, None] - middles, axis=2)
    assert (distance.min(1) < 0.1).all()
    np.testing.assert_array_equal(kmeans(points[:2], 4, rng), points[[0, 1, 0, 1]])


def test_codes_of_the_data_give_styles() -> None:
    game, data, maps = small("pix2pixhd", global_steps=0, fixed_steps=0), Toys(), squares()[0]
    black = game.render(maps, seed=1)
    np.testing.assert_array_equal(black, game.render(maps, seed=2))
    game.cluster(data.batch(k) for k in range(6))
    game.styles.centres.data[...] *= 20  # an untrained encoder hardly tells objects apart
    assert (game.render(maps, seed=1) != game.render(maps, seed=2)).any()
    again = small("pix2pixhd", global_steps=0, fixed_steps=0)
    again.load_state_dict(game.state_dict())
    np.testing.assert_array_equal(game.render(maps, seed=1), again.render(maps, seed=1))


def test_object_codes_have_one_row_for_each_object() -> None:
    labels, ids = np.array([[[0, 0], [1, 1]]]), np.array([[[3, 4], [5, 5]]])
    codes = object_codes(np.arange(4.0).reshape(1, 1, 2, 2), labels, ids)
    assert codes[0].tolist() == [[0], [1]] and codes[1].tolist() == [[2]]


def test_codes_come_from_the_photo_or_without_instances_from_classes() -> None:
    game = small("pix2pixhd", global_steps=0, fixed_steps=0)
    with_ids, without = Toys().batch(0), Toys(instances=False).batch(0)
    E, photos = game.networks["E"], Tensor(with_ids.photos)
    fine, coarse = game.codes(photos, with_ids, E), game.codes(photos, without, E)
    count = [len(np.unique(c.numpy()[0, 0])) for c in (fine, coarse)]
    assert count[0] > CLASSES >= count[1]
    bad = Toys().batch(0)
    bad.instances[0, 0, 0] = SLOTS  # type: ignore[index]
    with pytest.raises(UsageError, match=f"0 ... {SLOTS}"):
        game.check(bad)


# Recorded ----------------------------------------------------------------------------------------


def check_recorded(name: str, steps: int, **options: Any) -> None:
    """A graph plays the same as steps operation by operation, bit for bit."""

    def played(kind: Any) -> tuple[Any, Any, Any]:
        game = small(name, **options).to(NAME)
        play, data = kind(game, Guard(game)), Toys(options.get("size", 32))
        figures = [play(data.batch(step)) for step in range(steps)]
        return figures, game.state_dict(), random.state()

    eager, recorded = played(EagerSteps), played(RecordedSteps)
    assert eager[0] == recorded[0] and eager[2] == recorded[2]
    for key, array in eager[1].items():
        np.testing.assert_array_equal(array, recorded[1][key], key)


def test_recorded_steps_of_pix2pixhd() -> None:
    form: Any = {"size": 8, "downs": 1, "downs_e": 1, "scales": 1, "enhancers": 0}
    check_recorded("pix2pixhd", 4, **form, global_steps=0, fixed_steps=0)


@pytest.mark.slow
@pytest.mark.parametrize(("name", "steps"), [("spade", 5), ("gaugan", 5), ("pix2pixhd", 12)])
def test_recorded_steps_of_all(name: str, steps: int) -> None:
    check_recorded(name, steps, ema=0.9)


def test_d_is_judged_before_anybody_moves() -> None:
    game = small("pix2pixhd", global_steps=0, fixed_steps=0)
    assert game.simultaneous
    game.start(Toys().batch(0))
    d, g = (sum(p.losses().values(), start=mg.tensor(0.0)) for p in game.players)
    grads = mg.grad(g, game.players[1].parameters)
    assert all(x is not None for x in grads)
    assert mg.grad(d, game.players[1].parameters, retain_graph=True) == [None] * len(grads)
