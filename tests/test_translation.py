"""pix2pix and CycleGAN: patches, sizes, pool, dropout as noise, previews, resume, recording."""

from __future__ import annotations

import io
from collections.abc import Callable
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from test_devices import NAME
from toypairs import Pair, Pairs

import minigan as mg
from minigan import autograd, gans, nn, random
from minigan.cli.info import describe_preset
from minigan.errors import MiniganError, NumericError, ShapeError, UsageError
from minigan.gans.any_size import padded
from minigan.gans.image_pool import ImagePool
from minigan.gans.patches import discriminator, receptive_field
from minigan.gans.residual_generator import ResNetGenerator
from minigan.gans.unet import UNet, dropped, levels_for
from minigan.tensor import Tensor
from minigan.training import RunFolder, train
from minigan.training.guard import Guard
from minigan.training.recorded import RecordedSteps
from minigan.training.step import EagerSteps

Array = np.ndarray[Any, Any]
SMALL: dict[str, dict[str, Any]] = {
    "pix2pix": {"size": 16, "levels": 3, "dropout_at": "deepest", "patch": 16},
    "cyclegan": {"size": 16, "blocks": 1, "patch": 16, "pool": 3},
}
GAMES = list(SMALL)


def small(preset: str, **options: Any) -> Any:
    mg.manual_seed(options.pop("seed", 0))
    widths = {"width": 2, "width_d": 2, "previews": 2}
    return gans.make(preset, **{**widths, **SMALL[preset], **options})


def batches_for(game: Any, size: int = 1) -> Pairs:
    return Pairs(game.image_shape[1:], size)


def play(game: Any, steps: int, size: int = 1, **guard: Any) -> list[dict[str, float]]:
    take, data = EagerSteps(game, Guard(game, **guard)), batches_for(game, size)
    return [take(data.batch(step)) for step in range(steps)]


def same_state(first: dict[str, Array], second: dict[str, Array]) -> None:
    assert first.keys() == second.keys()
    for name, array in first.items():
        np.testing.assert_array_equal(array, second[name], name)


# Patches -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("patch", [1, 16, 34, 70])
def test_a_logit_sees_as_many_pixels_as_said(patch: int) -> None:
    """The pixels that the gradient of the middle logit reaches."""
    mg.manual_seed(0)
    D = discriminator(2, 3, patch, "none", (160, 160)).astype("float64")
    assert receptive_field(D) == patch
    x = mg.tensor(np.random.default_rng(0).standard_normal((1, 2, 160, 160)), requires_grad=True)
    logits = D(x)
    middle = logits.shape[2] // 2
    (grad,) = mg.grad(logits[0, 0, middle, middle], [x])
    assert grad is not None
    reached = np.abs(grad.numpy()).sum((0, 1)) > 0
    rows, columns = reached.any(1).nonzero()[0], reached.any(0).nonzero()[0]
    assert (np.ptp(rows) + 1, np.ptp(columns) + 1) == (patch, patch)


def test_patches_of_any_size() -> None:
    def fields(patch: int, sides: tuple[int, int]) -> int:
        return receptive_field(discriminator(3, 1, patch, "batch", sides))

    assert [fields(0, (side, side)) for side in (16, 64, 100, 256)] == [16, 70, 142, 286]
    assert discriminator(3, 2, 70, "batch", (256, 256))(image(256, 256, 3)).shape == (1, 1, 30, 30)
    assert discriminator(3, 2, 1, "batch", (9, 7))(image(9, 7, 3)).shape == (1, 1, 9, 7)
    with pytest.raises(UsageError, match="no PatchGAN looks at patches of this size"):
        fields(50, (64, 64))
    with pytest.raises(UsageError, match="too small"):
        fields(142, (32, 32))


def image(height: int, width: int, channels: int = 3, seed: int = 0) -> Tensor:
    rng = np.random.default_rng(seed)
    return mg.tensor(np.tanh(rng.standard_normal((1, channels, height, width))).astype("f4"))


def test_info_tells_the_receptive_field() -> None:
    facts, lines = describe_preset("cyclegan64")
    assert facts["facts"]["receptive field of D"] == "34x34 pixels"
    assert "receptive field of D: 34x34 pixels" in lines
    assert any("multiple of 4 and crop" in line for line in lines)
    game = small("pix2pix", size=128, patch=70)
    assert game.facts()["receptive field of D"] == "70x70 pixels"


# Sizes -------------------------------------------------------------------------------------------


@settings(max_examples=25, deadline=None)
@given(st.integers(1, 40), st.integers(1, 40), st.sampled_from([1, 4, 16]))
def test_padding_takes_nothing_away(height: int, width: int, multiple: int) -> None:
    class Sees(nn.Module):
        def forward(self, x: Tensor) -> Tensor:
            assert x.shape[2] % multiple == 0 and x.shape[3] % multiple == 0
            assert x.shape[2] < height + multiple and x.shape[3] < width + multiple
            return x * 2.0

    x = image(height, width)
    np.testing.assert_array_equal(padded(Sees(), x, multiple).data, 2 * x.data)


@pytest.mark.parametrize("sides", [(100, 75), (64, 96), (9, 31)])
def test_generators_take_any_size(sides: tuple[int, int]) -> None:
    for net in (UNet(3, 2, 5, 2), ResNetGenerator(3, 2, 2, 1)):
        made = net(image(*sides))
        assert made.shape == (1, 2, *sides)
        assert np.isfinite(made.data).all() and np.abs(made.data).max() <= 1


@pytest.mark.parametrize("preset", GAMES)
def test_pictures_of_100_by_75(preset: str) -> None:
    """Trained on, previewed and translated; the U-Net of 2^3 sees 104x80."""
    game = small(preset, size=75, height=100, patch=34)
    assert game.image_shape == (3, 100, 75)
    figures = play(game, 1)[0]
    assert all(map(np.isfinite, figures.values()))
    made = game.translate(image(100, 75).numpy())
    assert made.shape == (1, 3, 100, 75)
    assert game.translate(image(33, 50).numpy()).shape == (1, 3, 33, 50)


def test_levels_follow_from_the_size() -> None:
    assert [levels_for((n, 2 * n)) for n in (3, 64, 75, 100, 128, 256, 512)] == [
        2,
        6,
        6,
        6,
        7,
        8,
        8,
    ]
    assert [list(dropped("middle", n)) for n in (8, 7, 6, 5)] == [[5, 6, 7], [5, 6], [5], []]
    assert [list(dropped("deepest", n)) for n in (8, 5, 2)] == [[6, 7, 8], [3, 4, 5], [2]]
    counts = {place: sum(isinstance(m, nn.Dropout) for m in UNet(
        3, 3, 8, 1, dropout_at=place).modules()) for place in ("middle", "deepest")}  # fmt: skip
    assert counts == {"middle": 3, "deepest": 3}
    with pytest.raises(UsageError, match="1 levels"):
        UNet(levels=1)


# The pool ----------------------------------------------------------------------------------------


def fakes(numbers: Array) -> Tensor:
    """Pictures that show their number."""
    return Tensor(
        np.broadcast_to(numbers[:, None, None, None], (len(numbers), 1, 2, 2)).astype("f4")
    )


def ask(pool: ImagePool, numbers: Array) -> Array:
    given: Array = pool(fakes(numbers), lambda compute: Tensor(compute())).data
    assert (given == given[:, :1, :1, :1]).all()
    return given[:, 0, 0, 0].astype(int)


def test_statistics_of_the_pool() -> None:
    """The first 50 come back as they are; then half of all are old, from any place alike."""
    mg.manual_seed(4)
    pool, n = ImagePool(50, (1, 2, 2), "pool"), 8000
    numbers = np.arange(1, n + 51)
    given = np.concatenate([ask(pool, part) for part in np.split(numbers, len(numbers) // 50)])
    np.testing.assert_array_equal(given[:50], numbers[:50])
    later, own = given[50:], numbers[50:]
    old = later != own
    assert abs(old.mean() - 0.5) < 4 * 0.5 / n**0.5
    assert (later[old] < own[old]).all()
    assert len(np.unique(later[old])) == old.sum()  # an old one is given once, then it is gone
    age = (own - later)[old]  # a place is taken with probability 1/100 in each query
    assert abs(age.mean() - 100) < 4 * 100 / old.sum() ** 0.5 + 50 * 50 / 100


@settings(max_examples=40, deadline=None)
@given(st.integers(1, 4), st.lists(st.integers(1, 5), min_size=1, max_size=12), st.integers(0, 99))
def test_the_pool_equals_a_list_of_pictures(size: int, batches: list[int], seed: int) -> None:
    mg.manual_seed(seed)
    pool, first = ImagePool(size, (1, 2, 2), "pool"), 1
    asked = []
    for n in batches:
        asked.append(np.arange(first, first + n))
        first += n
    given = [ask(pool, numbers) for numbers in asked]
    mg.manual_seed(seed)
    kept: list[int] = []
    for numbers, answers in zip(asked, given, strict=True):
        rng = random.draw("pool")
        for number, answer in zip(numbers, answers, strict=True):
            if len(kept) < size:
                kept.append(number)
                assert answer == number
            elif rng.random() < 0.5:
                place = rng.integers(size)
                assert answer == kept[place]
                kept[place] = number
            else:
                assert answer == number
    assert pool.slots.data[: len(kept), 0, 0, 0].tolist() == kept
    assert int(pool.stored.data) == len(kept)


def test_no_pool() -> None:
    pool = ImagePool(0, (1, 2, 2), "pool")
    np.testing.assert_array_equal(ask(pool, np.arange(4)), np.arange(4))
    game = small("cyclegan", pool=0)
    play(game, 2)
    assert not any(name.startswith("pools") for name in game.state_dict())


def test_the_pool_is_state() -> None:
    game, again = small("cyclegan"), small("cyclegan", seed=1)
    play(game, 5)
    state = game.state_dict()
    assert state["pools.b.slots"].shape == (4, 3, 16, 16) and state["pools.b.stored"] == 3
    assert np.abs(state["pools.a.slots"][:3]).min((1, 2, 3)).max() > 0
    again.load_state_dict(state)
    same_state(again.state_dict(), state)


def test_a_skipped_turn_leaves_the_pool_alone() -> None:
    game = small("cyclegan")
    play(game, 2)
    before = {k: v for k, v in game.state_dict().items() if k.startswith("pools")}
    bad = batches_for(game).batch(0)
    bad.a[:] = np.nan
    guard = Guard(game, "skip")
    EagerSteps(game, guard)(bad)
    assert guard.skipped == 2
    same_state(before, {k: v for k, v in game.state_dict().items() if k.startswith("pools")})
    with pytest.raises(NumericError, match="G: loss_gan_b is nan"):
        EagerSteps(game, Guard(game))(bad)


# Losses ------------------------------------------------------------------------------------------


def test_ablations() -> None:
    only_l1 = small("pix2pix", lambda_gan=0.0)
    assert [p.name for p in only_l1.players] == ["G"]
    figures = play(only_l1, 1)[0]
    assert "loss_D" not in figures and figures["loss_G"] == pytest.approx(100 * figures["l1"])
    only_gan = play(small("pix2pix", lambda_l1=0.0), 1)[0]
    assert {"loss_D", "loss_G", "l1"} <= only_gan.keys() and "loss_l1" not in only_gan
    blind = small("pix2pix", conditional=False)
    assert blind.D.model[0].weight.shape[1] == 3 and play(blind, 1)
    with pytest.raises(UsageError, match="nothing to learn from"):
        small("pix2pix", lambda_l1=0.0, lambda_gan=0.0)
    no_identity = play(small("cyclegan", lambda_id=0.0), 1)[0]
    assert not any("loss_id" in name for name in no_identity)


@pytest.mark.parametrize("preset", GAMES)
@pytest.mark.parametrize("loss", ["ns", "lsgan", "hinge"])
def test_every_loss_and_other_networks(preset: str, loss: str) -> None:
    other = {"pix2pix": "resnet", "cyclegan": "unet"}[preset]
    game = small(preset, loss=loss, generator=other, levels=3, blocks=1, norm="instance", ema=0.9)
    figures = play(game, 2, size=2)[-1]
    assert all(map(np.isfinite, figures.values()))
    accuracies = [v for name, v in figures.items() if name.startswith("d_accuracy")]
    assert accuracies and all(0 <= v <= 1 for v in accuracies)
    game.keep_previews(batches_for(game))
    assert sum(name.endswith("-ema") for name in game.preview()) == len(game.preview()) / 2


def test_the_discriminator_of_pix2pix_sees_the_input() -> None:
    game, batch = small("pix2pix"), Pairs((16, 16)).batch(0)
    game.start(batch)
    first = game.judge(game.a, game.b).data.copy()
    assert np.abs(game.judge(-game.a, game.b).data - first).max() > 0.01


@pytest.mark.parametrize("preset", GAMES)
def test_the_turn_of_d_does_not_reach_g(preset: str) -> None:
    game = small(preset)
    game.start(batches_for(game).batch(0))
    total = sum(game.d_losses().values(), start=mg.tensor(np.float32(0)))
    assert mg.grad(total, list(game.G.parameters())) == [None] * len(list(game.G.parameters()))


def test_both_move_at_the_weights_of_before() -> None:
    """`simultaneous`: D's step is that of a game whose G did not move, as it plays on old fakes."""
    one, other = small("cyclegan", simultaneous=True), small("cyclegan")
    play(one, 1), play(other, 1)
    same_state(one.D_A.state_dict(), other.D_A.state_dict())
    same_state(one.G.state_dict(), other.G.state_dict())


def test_the_learning_rate_falls() -> None:
    game = small("pix2pix", lr=4e-3, lr_d=2e-3, decay_start=1, decay_end=3)
    rates = []
    for _ in range(4):
        rates.append(tuple(game.optimizers[name].rate for name in "GD"))
        play(game, 1)
    assert rates == [(4e-3, 2e-3), (4e-3, 2e-3), (2e-3, 1e-3), (0, 0)]
    with pytest.raises(UsageError, match="no time to fall"):
        small("pix2pix", decay_start=5, decay_end=5)


@pytest.mark.slow
@pytest.mark.parametrize("preset", GAMES)
def test_a_game_learns(preset: str) -> None:
    """The negative, upside down; without pairs, that the cycle closes."""
    more = {"size": 32, "width": 8, "width_d": 6, "lr": 1e-3}
    figures = play(small(preset, **more), 100, size=4)
    name = {"pix2pix": "l1", "cyclegan": "cycle_a"}[preset]
    values = [line[name] for line in figures]
    assert np.mean(values[-10:]) < 0.7 * np.mean(values[:3])


# Translation -------------------------------------------------------------------------------------


def test_dropout_is_the_noise_of_pix2pix() -> None:
    game = small("pix2pix", width=8)
    play(game, 2)
    before, streams, x = game.state_dict(), random.state(), image(16, 16).numpy()
    first, again = game.translate(x), game.translate(np.concatenate([x, x]))
    np.testing.assert_array_equal(first[0], again[0])  # neither neighbours nor calls before matter
    np.testing.assert_array_equal(first[0], again[1])
    assert np.abs(game.translate(x, seed=1) - first).max() > 1e-4
    np.testing.assert_array_equal(
        game.translate(x, mode="eval"), game.translate(x, mode="eval", seed=1)
    )
    assert np.abs(game.translate(x, mode="eval") - first).max() > 1e-4
    same_state(game.state_dict(), before)
    assert random.state() == streams
    assert all(m.training for m in game.G.modules())


def test_both_directions() -> None:
    game, x = small("cyclegan"), image(16, 16).numpy()
    with autograd.no_grad():
        there, back = game.G(mg.tensor(x)).numpy(), game.F(mg.tensor(x)).numpy()
    np.testing.assert_array_equal(game.translate(x), there)
    np.testing.assert_array_equal(game.translate(x, "BtoA"), back)
    reverse = small("pix2pix", direction="BtoA", channels_a=1)
    assert reverse.directions == ("BtoA",) and reverse.image_shape == (1, 16, 16)
    assert reverse.translate(x).shape == (1, 1, 16, 16)
    a, b = np.zeros((1, 1, 16, 16), "f4"), x
    EagerSteps(reverse, Guard(reverse))(Pair(a, b, np.arange(1)))


def test_messages() -> None:
    game, x = small("pix2pix"), image(16, 16).numpy()

    def message(call: Callable[[], Any], kind: type[MiniganError] = UsageError) -> str:
        with pytest.raises(kind) as caught:
            call()
        return str(caught.value)

    assert "did not learn the direction 'BtoA'" in message(lambda: game.translate(x, "BtoA"))
    assert "(N, 3, H, W)" in message(lambda: game.translate(x[:, :1]), ShapeError)
    assert "(N, 3, H, W)" in message(lambda: game.translate(x[:0]), ShapeError)
    assert "there is no 'evil'" in message(lambda: game.translate(x, mode="evil"))
    assert "there is no 'both'" in message(lambda: game.translate(x, net="both"))
    assert "no pictures to preview" in message(game.preview)
    assert "draws nothing from noise" in message(lambda: game.sample(x))
    assert "draws nothing from noise" in message(lambda: game.noise(np.random.default_rng(0), 1))
    assert "one kind of pictures" in message(lambda: game.start(SimpleNamespace(images=x)))
    assert "does not turn pictures" in message(lambda: gans.make("dcgan", width=2).translate(x))
    unequal = message(lambda: small("cyclegan", channels_a=1))
    assert "1 channels of A, 3 of B" in unequal and "lambda_id=0" in unequal
    assert small("cyclegan", channels_a=1, lambda_id=0.0).preview_columns == 3


# Previews and runs -------------------------------------------------------------------------------


def test_previews_stand_side_by_side(tmp_path: Path) -> None:
    game = small("pix2pix", previews=3)
    run = RunFolder.create(tmp_path, "run")
    train(game, batches_for(game, 2), run, steps=1, progress=False, stream=io.StringIO())
    sheet = game.preview()["pairs"].reshape(3, 4, 3, 16, 16)
    a, b = game.kept
    expected = [batches_for(game, 2).batch(k) for k in (0, 1)]
    np.testing.assert_array_equal(a, np.concatenate([e.a for e in expected])[:3])
    np.testing.assert_array_equal(sheet[:, 0], a)
    np.testing.assert_array_equal(sheet[:, 1], game.translate(a, net="raw"))
    np.testing.assert_array_equal(sheet[:, 2], b)
    np.testing.assert_allclose(sheet[:, 3] + 1, np.abs(sheet[:, 1] - b), atol=1e-6)
    from PIL import Image

    with Image.open(run.samples / "pairs-000001.png") as picture:
        assert picture.size == (4 * (4 * 18 - 2), 4 * (3 * 18 - 2))


def test_previews_of_a_cycle() -> None:
    game = small("cyclegan")
    game.keep_previews(batches_for(game))
    a, b = game.kept
    sheets = game.preview()
    there, back = (sheets[name].reshape(2, 4, 3, 16, 16) for name in ("AtoB", "BtoA"))
    made = game.translate(a, "AtoB")
    for columns, expected in (
        (there, [a, made, game.translate(made, "BtoA"), game.translate(a, "BtoA")]),
        (back, [b, game.translate(b, "BtoA"), None, game.translate(b, "AtoB")]),
    ):
        for i, column in enumerate(expected):
            if column is not None:
                np.testing.assert_array_equal(columns[:, i], column)


@pytest.mark.parametrize("preset", GAMES)
def test_a_run_goes_on_bit_for_bit(preset: str, tmp_path: Path) -> None:
    """Three steps and four more equal seven: weights, moments, pool, random numbers, pictures."""
    options = {"ema": 0.9, "decay_start": 2, "decay_end": 9}

    def run(name: str, *ends: int) -> tuple[Any, Any]:
        folder = RunFolder.create(tmp_path, name)
        for end in ends:
            game = small(preset, seed=end if end != ends[0] else 5, **options)
            data = batches_for(game, 2)
            resume = end != ends[0]
            train(game, data, folder, steps=end, resume=resume, stream=io.StringIO())
        last = max(folder.samples.glob("*-000007.png"))
        return game.state_dict(), last.read_bytes()

    straight, twice = run("straight", 7), run("twice", 3, 7)
    same_state(straight[0], twice[0])
    assert straight[1] == twice[1]


@pytest.mark.parametrize("preset", GAMES)
def test_recorded_steps(preset: str) -> None:
    """Played by a graph, on the emulated GPU or a real one: the same numbers, bit for bit."""

    own = {"cyclegan": {"pool": 2, "lambda_id": 0.0}, "pix2pix": {}}[preset]

    def played(kind: Any) -> Any:
        game = small(preset, decay_end=20, size=8, patch=1, previews=1, **own).to(NAME)
        play, data = kind(game, Guard(game)), batches_for(game)
        figures = [play(data.batch(step)) for step in range(5)]
        game.keep_previews(data)
        shown = game.preview() if preset == "pix2pix" else {}
        return figures, game.state_dict(), random.state(), shown

    eager, recorded = played(EagerSteps), played(RecordedSteps)
    assert eager[0] == recorded[0] and eager[2] == recorded[2]
    same_state(eager[1], recorded[1])
    same_state(eager[3], recorded[3])
