"""Any loss, penalty, network and augmentation go together; a step takes the course that it says.

Networks are as small as they can be: what is tested is the order of things, not the pictures.
"""

from __future__ import annotations

import itertools
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minigan as mg
from minigan import autograd, gans, random
from minigan.augment import ADA
from minigan.errors import UsageError
from minigan.gans.two_player import TwoPlayer
from minigan.losses import ADVERSARIAL
from minigan.nn.norm import _Running
from minigan.penalties import PENALTIES
from minigan.training.guard import Guard
from minigan.training.step import take_step

Array = np.ndarray[Any, Any]
SIZE, BATCH = 16, 4
SHARED: dict[str, Any] = {"size": SIZE, "channels": 1, "nz": 3, "previews": 4}

# The networks of the family: name -> preset and options. With fewer units, dropout could drop all.
NETWORKS: dict[str, tuple[str, dict[str, Any]]] = {
    "conv, batch norm": ("dcgan", {"width": 2}),
    "conv, layer norm": ("dcgan", {"width": 2, "norm": "layer"}),
    "conv, instance norm": ("dcgan", {"width": 2, "norm": "instance"}),
    "conv": ("dcgan", {"width": 2, "norm": "none"}),
    "conv, spectral norm": ("sngan", {"width": 2}),
    "residual": ("sngan", {"width": 2, "body": "resnet"}),
    "perceptron": ("vanilla", {"width": 2}),
    "maxout": ("vanilla-maxout", {"width": 8, "optimizer": "adam", "lr": 1e-3, "lr_d": 1e-3}),
}
AUGMENTATIONS = ("none", "diffaugment", "ada:0.5")


def small(preset: str, **options: Any) -> TwoPlayer:
    game = gans.make(preset, **SHARED | {"width": 2} | options)
    assert isinstance(game, TwoPlayer)
    return game


def images(count: int = BATCH, seed: int = 0) -> Array:
    rng = np.random.default_rng(seed)
    return np.tanh(rng.standard_normal((count, 1, SIZE, SIZE))).astype(np.float32)


def batch_for(game: TwoPlayer, seed: int = 0) -> Any:
    return SimpleNamespace(images=images(BATCH * game.batches_per_step, seed), labels=None)


def play(game: TwoPlayer, steps: int, first: int = 0) -> dict[str, float]:
    guard, figures = Guard(game), {}
    for step in range(first, first + steps):
        game.before_step()
        taken = take_step(game, batch_for(game, step), guard)
        figures = {k: float(v.item() if isinstance(v, mg.Tensor) else v) for k, v in taken.items()}
    return figures


# Any with any ------------------------------------------------------------------------------------


def two_steps(
    loss: str, penalty: str, network: str, augment: str, d_steps: int, joint: bool
) -> None:
    preset, options = NETWORKS[network]
    game = small(
        preset,
        **options,
        loss=loss,
        penalty=penalty,
        augment=augment,
        d_steps=d_steps,
        d_batches="joint" if joint else "separate",
    )
    before = {name: array.copy() for name, array in game.state_dict().items()}
    figures = play(game, 2)
    assert all(map(np.isfinite, figures.values())), figures
    assert ("d_real" in figures) != ("w_estimate" in figures or "d_gap" in figures)
    assert ("d_real" in figures) == ("d_fake" in figures) == ("d_fake_g" in figures)
    moved = {
        name.split(".")[1]
        for name, array in game.state_dict().items()
        if name.startswith("networks.") and not np.array_equal(array, before[name])
    }
    assert moved == {"G", "D"}


def combinations() -> list[tuple[Any, ...]]:
    """Each loss with each penalty once; the other axes go round beside them."""
    others = itertools.product(NETWORKS, AUGMENTATIONS, (1, 2), (False, True))
    mixed = np.random.default_rng(1).permutation(np.array(list(others), dtype=object))
    pairs = itertools.product(ADVERSARIAL, PENALTIES)
    return [(*pair, *other) for pair, other in zip(pairs, itertools.cycle(mixed), strict=False)]


@pytest.mark.filterwarnings("ignore:penalty")  # some of the networks have batch norm
@pytest.mark.parametrize("choice", combinations(), ids=lambda c: "-".join(map(str, c)))
def test_any_loss_penalty_network_and_augmentation(choice: tuple[Any, ...]) -> None:
    two_steps(*choice)


@pytest.mark.slow
@pytest.mark.filterwarnings("ignore:penalty")
@pytest.mark.parametrize("loss", ADVERSARIAL)
@pytest.mark.parametrize("penalty", PENALTIES)
def test_the_whole_product(loss: str, penalty: str) -> None:
    for network, augment, turns in itertools.product(
        NETWORKS, AUGMENTATIONS, ((1, False), (2, True))
    ):
        two_steps(loss, penalty, network, augment, *turns)


# The course of a step ----------------------------------------------------------------------------


class Watched:
    """Notes what G made and what D was shown."""

    def __init__(self, game: TwoPlayer) -> None:
        self.made: list[mg.Tensor] = []
        self.shown: list[Array] = []
        generate, judge = game.generate, game.judge

        def watched_generate(*args: Any, **kwargs: Any) -> mg.Tensor:
            self.made.append(generate(*args, **kwargs))
            return self.made[-1]

        def watched_judge(x: mg.Tensor, y: Any = None) -> mg.Tensor:
            self.shown.append(x.data.copy())
            return judge(x, y)

        game.generate, game.judge = watched_generate, watched_judge  # type: ignore[method-assign]


def test_one_turn_each_both_see_the_same_fakes() -> None:
    game = small("dcgan")
    watched = Watched(game)
    play(game, 1)
    (fake,) = watched.made
    real, first, second = watched.shown
    np.testing.assert_array_equal(real, batch_for(game).images)
    np.testing.assert_array_equal(first, fake.data)
    np.testing.assert_array_equal(second, fake.data)


def test_each_critic_turn_has_its_own_reals_and_noise() -> None:
    game = small("wgan-gp", d_steps=3, penalty="none")
    watched = Watched(game)
    play(game, 1)
    assert len(watched.made) == 4 and len(watched.shown) == 7
    reals = np.concatenate(watched.shown[0:6:2])
    np.testing.assert_array_equal(reals, batch_for(game).images)  # each once, in order
    for i, j in itertools.combinations(range(4), 2):
        assert not np.array_equal(watched.made[i].data, watched.made[j].data)
    assert [t.node is None for t in watched.made] == [True, True, True, False]  # no graph for D
    for turn, shown in enumerate((1, 3, 5, 6)):
        np.testing.assert_array_equal(watched.shown[shown], watched.made[turn].data)


def test_d_sees_everything_augmented() -> None:
    game = small("dcgan", augment="diffaugment")
    watched, augment = Watched(game), game.augment
    seen: list[tuple[Array, Array]] = []

    class Noting(type(augment)):  # type: ignore[misc]
        def __call__(self, x: mg.Tensor) -> mg.Tensor:
            y = augment(x)
            seen.append((x.data.copy(), y.data.copy()))
            return y

    game.augment = Noting()
    play(game, 1)
    fake = watched.made[0].data
    for (given, _), expected in zip(seen, (batch_for(game).images, fake, fake), strict=True):
        np.testing.assert_array_equal(given, expected)
    for (given, changed), shown in zip(seen, watched.shown, strict=True):
        np.testing.assert_array_equal(shown, changed)
        assert not np.array_equal(given, changed)
    assert not np.array_equal(seen[1][1], seen[2][1])  # drawn anew for G


def test_g_learns_through_the_augmentation() -> None:
    game = small("dcgan", augment="diffaugment")
    game.start(batch_for(game))
    game.d_losses()
    grads = mg.grad(game.g_losses()["loss_g"], game.players[1].parameters)
    assert all(g is not None and np.abs(g.data).sum() > 0 for g in grads[-3:])


def test_ada_adapts_between_steps_to_what_d_said_of_the_reals() -> None:
    game = small("dcgan", augment="ada")
    assert isinstance(game.augment, ADA)
    game.augment.kimg, game.augment.interval = 0.1, 1
    game.judge = lambda x, y=None: x.mean(axis=(1, 2, 3)) * 0.0 + 1.0  # type: ignore[method-assign]
    chances = []
    for step in range(3):
        game.before_step()
        chances.append(game.augment.p)
        game.start(batch_for(game, step))
        game.d_losses()
        game.players[0].optimizer.steps += 1
    np.testing.assert_allclose(chances, [0, BATCH / 100, 2 * BATCH / 100])


def float64(game: TwoPlayer) -> TwoPlayer:
    for net in game.networks.values():
        net.astype(np.float64)
    draw = type(game).noise
    game.noise = lambda rng, n: draw(game, rng, n).astype(np.float64)  # type: ignore[method-assign]
    return game


def d_turn(game: TwoPlayer) -> tuple[list[float], list[Array]]:
    random.manual_seed(7)
    game.start(SimpleNamespace(images=images().astype(np.float64)))
    losses = game.d_losses()
    total = losses["loss_d_real"] + losses["loss_d_fake"]
    grads = mg.grad(total, game.players[0].parameters)
    return [loss.item() for loss in losses.values()], [g.data for g in grads if g is not None]


@pytest.mark.parametrize("norm", ["none", "layer", "instance"])
def test_separate_and_joint_batches_agree_without_batch_norm(norm: str) -> None:
    results = []
    for d_batches in ("separate", "joint"):
        random.manual_seed(0)
        results.append(d_turn(float64(small("dcgan", norm=norm, d_batches=d_batches))))
    np.testing.assert_allclose(*(losses for losses, _ in results), rtol=1e-10)
    for a, b in zip(*(grads for _, grads in results), strict=True):
        np.testing.assert_allclose(a, b, rtol=1e-8, atol=1e-12)


def test_batch_norm_sees_whether_batches_are_joint() -> None:
    results = []
    for d_batches in ("separate", "joint"):
        random.manual_seed(0)
        results.append(d_turn(float64(small("dcgan", d_batches=d_batches)))[0])
    assert not np.allclose(*results, rtol=1e-3)


def test_weights_are_clipped_before_each_critic_turn() -> None:
    game = small("wgan", clip=0.01, lr_d=0.1, d_steps=3)
    largest: list[float] = []
    judge = game.judge

    def watched(x: mg.Tensor, y: Any = None) -> mg.Tensor:
        largest.append(max(float(np.abs(p.data).max()) for p in game.players[0].parameters))
        return judge(x, y)

    game.judge = watched  # type: ignore[method-assign]
    play(game, 2)
    critic = [m for k, m in enumerate(largest) if k % 7 != 6]  # without G's turns
    assert max(critic) <= np.float32(0.01) and max(largest) > 0.01


def test_a_lazy_penalty_comes_every_so_often_and_as_much_stronger() -> None:
    game, plain = (
        small("r1gan", penalty_every=every, penalty_weight=1.0, lr=0.0, lr_d=0.0)
        for every in (3, 1)
    )
    plain.load_state_dict(game.state_dict())
    phases, terms, usual = [], [], []
    for step in range(5):
        phases.append(game.phase())
        terms.append(play(game, 1, step).get("loss_r1", 0.0))
        usual.append(play(plain, 1, step)["loss_r1"])
    assert phases == [(True,), (False,), (False,), (True,), (False,)]
    np.testing.assert_allclose(terms, [3 * usual[0], 0, 0, 3 * usual[3], 0], rtol=1e-5)
    assert small("wgan-gp", d_steps=3, penalty_every=2).phase() == (True, False, True)


def test_simultaneous_players_move_from_the_same_weights() -> None:
    """SGD: the step of G is -lr times its gradient against the D from before."""
    options = {"optimizer": "sgd", "lr": 0.1, "lr_d": 0.5, "beta1": 0.0, "norm": "none"}
    moves = []
    for simultaneous in (True, False):
        random.manual_seed(0)
        game = small("dcgan", simultaneous=simultaneous, **options)
        before = [p.data.copy() for p in game.players[1].parameters]
        random.manual_seed(1)
        game.start(batch_for(game))
        game.d_losses()
        grads = mg.grad(game.g_losses()["loss_g"], game.players[1].parameters)
        random.manual_seed(1)
        play(game, 1)
        after = [p.data for p in game.players[1].parameters]
        expected = [b - np.float32(0.1) * g.data for b, g in zip(before, grads, strict=True)]
        moves.append(
            all(np.allclose(a, e, atol=1e-7) for a, e in zip(after, expected, strict=True))
        )
    assert moves == [True, False]
    with pytest.raises(UsageError, match="no such order"):
        small("wgan", simultaneous=True)


# Resuming ----------------------------------------------------------------------------------------

RESUMED = {
    "dcgan": {},
    "vanilla": {"d_steps": 2},
    "vanilla-maxout": {},
    "lsgan": {"augment": "ada", "d_steps": 2},
    "wgan": {},
    "wgan-gp": {"augment": "diffaugment"},
    "sngan": {"d_steps": 2},
    "r1gan": {"penalty_every": 3},
}


@pytest.mark.parametrize("preset", RESUMED)
def test_resumed_games_are_the_same_to_the_bit(preset: str) -> None:
    whole, first, resumed = (small(preset, **RESUMED[preset]) for _ in range(3))
    for game in (whole, first, resumed):
        if isinstance(game.augment, ADA):
            game.augment.kimg, game.augment.interval = 0.1, 3  # so that p moves within the test
            game.augment.target = -0.9
    first.load_state_dict(whole.state_dict())
    random.manual_seed(3)
    play(whole, 6)
    random.manual_seed(3)
    play(first, 4)
    saved = {k: v.copy() for k, v in first.state_dict().items()}, random.state()
    resumed.load_state_dict(saved[0])
    random.set_state(saved[1])
    play(resumed, 2, first=4)
    ours, theirs = resumed.state_dict(), whole.state_dict()
    assert list(ours) == list(theirs)
    for name, array in ours.items():
        np.testing.assert_array_equal(array, theirs[name], err_msg=name)


# Sampling ----------------------------------------------------------------------------------------

OF_THE_FAMILY = [*RESUMED]


@pytest.mark.parametrize("preset", OF_THE_FAMILY)
@pytest.mark.parametrize("mode", ["eval", "standing"])
def test_an_image_depends_on_its_own_noise_alone(preset: str, mode: str) -> None:
    game = small(preset)
    play(game, 1)
    z = game.noise(random.generator(0, "z", 0), 70)
    together, alone = game.sample(z, mode=mode), game.sample(z[66:67], mode=mode)
    assert together.shape == (70, 1, SIZE, SIZE) and np.abs(together).max() <= 1
    np.testing.assert_allclose(together[66:67], alone, atol=1e-6)


@pytest.mark.parametrize("mode", ["eval", "standing", "batch"])
@pytest.mark.parametrize("net", ["raw", "ema"])
def test_sampling_leaves_no_trace(mode: str, net: str) -> None:
    game = small("sngan", body="resnet")
    play(game, 2)
    before, streams = {k: v.copy() for k, v in game.state_dict().items()}, random.state()
    training = [m.training for n in game.networks.values() for m in n.modules()]
    places = [id(b.data) for n in game.networks.values() for _, b in n.named_buffers()]
    game.sample(game.fixed_noise, net=net, mode=mode)
    game.preview()
    for name, array in game.state_dict().items():
        np.testing.assert_array_equal(array, before[name], err_msg=name)
    assert random.state() == streams
    assert [id(b.data) for n in game.networks.values() for _, b in n.named_buffers()] == places
    assert [m.training for n in game.networks.values() for m in n.modules()] == training


def test_standing_statistics_are_those_of_much_noise() -> None:
    from minigan.gans.sampling import standing

    game = small("dcgan", width=4)
    play(game, 3)
    twin = standing(game.G, game.draw_anything)
    first = next(m for m in twin.modules() if isinstance(m, _Running))
    with autograd.no_grad():
        z = mg.tensor(game.noise(random.generator(9, "z", 0), 4000))
        maps = game.G.main[0](z.reshape(4000, -1, 1, 1)).data
    deviation = maps.std(axis=(0, 2, 3))
    assert first.running_mean is not None and first.running_var is not None
    np.testing.assert_allclose(first.running_mean.data / deviation, 0, atol=0.1)
    np.testing.assert_allclose(first.running_var.data, deviation**2, rtol=0.1)


def test_batch_mode_is_how_training_sees_the_images() -> None:
    game = small("dcgan")
    play(game, 2)
    z = game.fixed_noise
    with autograd.no_grad():
        expected = game.G(mg.tensor(z)).data
    np.testing.assert_array_equal(game.sample(z, net="raw", mode="batch"), expected)
    with pytest.raises(UsageError, match=r"there is no 'standin' \(did you mean 'standing'\?\)"):
        game.sample(z, mode="standin")


# Classes -----------------------------------------------------------------------------------------


class Labelled(TwoPlayer):
    """Networks that take labels, as small as can be: a table of images, a table of logits."""

    name = "labelled"

    def __init__(self, classes: int = 3, **recipe: Any) -> None:
        class G(mg.nn.Module):
            def __init__(self) -> None:
                self.table = mg.nn.Embedding(classes, SIZE * SIZE)
                self.gain = mg.nn.Linear(3, SIZE * SIZE)

            def forward(self, z: mg.Tensor, y: mg.Tensor) -> mg.Tensor:
                return (self.table(y) + self.gain(z)).tanh().reshape(len(z), 1, SIZE, SIZE)

        class D(mg.nn.Module):
            def __init__(self) -> None:
                self.table = mg.nn.Embedding(classes, SIZE * SIZE)

            def forward(self, x: mg.Tensor, y: mg.Tensor) -> mg.Tensor:
                return (self.table(y) * x.reshape(len(x), -1)).sum(axis=1)

        super().__init__(G(), D(), (1, SIZE, SIZE), 3, classes, **self.recipe | recipe)


def labelled(labels: Any, parts: int = 1) -> Any:
    return SimpleNamespace(images=images(BATCH * parts), labels=labels)


@pytest.mark.parametrize("d_steps", [1, 2])
@pytest.mark.parametrize("d_batches", ["separate", "joint"])
def test_classes_reach_both_players(d_steps: int, d_batches: str) -> None:
    game = Labelled(d_steps=d_steps, d_batches=d_batches, penalty="gp", previews=9)
    shown: list[Array] = []
    judge = game.judge

    def watched(x: mg.Tensor, y: Any = None) -> mg.Tensor:
        shown.append(y.data.copy())
        return judge(x, y)

    game.judge = watched  # type: ignore[method-assign]
    labels = np.arange(BATCH * d_steps) % 3
    take_step(game, labelled(labels, d_steps), Guard(game))
    reals = [y[:BATCH] for y in shown if len(y) == (8 if d_batches == "joint" else 4)]
    if d_batches == "joint":
        np.testing.assert_array_equal(np.concatenate(reals[:d_steps]), labels)
    else:
        penalised = shown[2 : 3 * d_steps : 3]
        np.testing.assert_array_equal(np.concatenate(shown[0 : 3 * d_steps : 3]), labels)
        np.testing.assert_array_equal(np.concatenate(penalised), labels)
    drawn = game.draw_classes(6000).data
    np.testing.assert_allclose(np.bincount(drawn) / 6000, 1 / 3, atol=0.03)


def test_previews_of_classes_have_one_in_each_column() -> None:
    game = Labelled(previews=9)
    np.testing.assert_array_equal(game.fixed_classes, [0, 1, 2] * 3)
    np.testing.assert_array_equal(game.fixed_noise[0], game.fixed_noise[2])
    assert not np.array_equal(game.fixed_noise[0], game.fixed_noise[3])
    assert game.preview()["fakes-ema"].shape == (9, 1, SIZE, SIZE)


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (None, "the images have no classes"),
        (np.array([0, 1, 2, 3]), "class 3 is not in 0 ... 2"),
        (np.array([0, 1, -1, 2]), "class -1 is not in 0 ... 2"),
        (np.array([0.0, 1, 1, 2]), "labels are float64"),
        (np.eye(4, dtype=int), r"labels are int64 of shape \(4, 4\)"),
    ],
)
def test_bad_labels_are_refused(labels: Any, message: str) -> None:
    with pytest.raises(UsageError, match=message):
        Labelled().check(labelled(labels))


def test_sampling_wants_classes_only_where_there_are_some() -> None:
    game = Labelled()
    with pytest.raises(UsageError, match="of which classes"):
        game.sample(game.fixed_noise)
    with pytest.raises(UsageError, match="class 5 is not in"):
        game.sample(game.fixed_noise[:1], labels=np.array([5]))
    plain = small("dcgan")
    with pytest.raises(UsageError, match="has no classes"):
        plain.sample(plain.fixed_noise, labels=np.zeros(4, int))


# Options -----------------------------------------------------------------------------------------


def test_options_list_those_of_the_base_with_the_recipe_of_the_class() -> None:
    known = gans.options("wgan-gp")
    assert {"size", "width", "norm", "loss", "penalty", "augment", "ema", "d_batches"} <= set(known)
    assert (known["loss"], known["penalty"], known["norm"]) == ("wgan", "gp", "none")
    assert not {"self", "recipe", "G", "D", "classes"} & set(known)
    assert gans.options("wgan")["lr"] == 5e-4 and gans.defaults(gans.DCGAN)["lr"] == 2e-4


def test_bad_options_are_refused() -> None:
    with pytest.raises(UsageError, match=r"unknown option 'penalti' \(did you mean 'penalty'\?\)"):
        gans.make("wgan-gp", penalti="gp")
    for option, word in {
        "loss": "wgann", "penalty": "dragon", "augment": "adda", "optimizer": "adamm",
        "d_batches": "join", "norm": "bach",
    }.items():  # fmt: skip
        with pytest.raises(UsageError, match=f"'{word}'.*did you mean"):
            small("dcgan", **{option: word})
    with pytest.raises(UsageError, match="at least one turn"):
        small("dcgan", d_steps=0)
    with pytest.raises(UsageError, match="has no option 'smoothing'"):
        small("wgan", smoothing=0.1)


def test_a_penalty_on_batch_norm_warns() -> None:
    game = small("dcgan", penalty="gp")
    with pytest.warns(UserWarning, match="batch norm"):
        play(game, 1)


def test_without_average_the_raw_weights_draw() -> None:
    game = small("dcgan", ema=0.0)
    assert not game.ema and list(game.preview()) == ["fakes"]
    np.testing.assert_array_equal(
        game.sample(game.fixed_noise), game.sample(game.fixed_noise, net="raw")
    )


def test_smoothing_moves_the_target_of_reals_only() -> None:
    smooth, plain = small("dcgan", smoothing=0.1), small("dcgan")
    smooth.load_state_dict(plain.state_dict())
    figures = []
    for game in (smooth, plain):
        random.manual_seed(2)
        game.start(batch_for(game))
        figures.append({k: v.item() for k, v in game.d_losses().items()})
    assert figures[0]["loss_d_fake"] == figures[1]["loss_d_fake"]
    assert figures[0]["loss_d_real"] != figures[1]["loss_d_real"]
