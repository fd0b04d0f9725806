"""Steps played by a graph equal the steps that were recorded, bit for bit.

On the emulated GPU, unless MINIGAN_DEVICE=cuda. There a recorded step starts with all its memory
full of NaN, so what it keeps from one step to the next by mistake shows.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from minigan_kernels.cuda.arena import ALIGN, Arena
from test_devices import NAME

import minigan as mg
from minigan import gans, nn, optim, random
from minigan.data import Batches, Dataset
from minigan.errors import MiniganError, NumericError, UsageError
from minigan.gans import Game, Player
from minigan.gans.two_player import TwoPlayer
from minigan.tensor import Tensor
from minigan.training import RunFolder, train
from minigan.training.guard import Guard
from minigan.training.recorded import RecordedSteps, can_be_recorded
from minigan.training.step import EagerSteps

TWO_PLAYERS = [name for name, (game, _) in gans.PRESETS.items() if issubclass(game, TwoPlayer)]
STEPS = 5  # three as they are written, then two by the graph


def pictures(side: int, channels: int = 1, count: int = 64) -> Dataset:
    rng = np.random.default_rng(0)
    images = rng.integers(0, 256, (count, channels, side, side), dtype=np.uint8)
    return Dataset("noise", images, np.arange(count) % 10, tuple("0123456789"))


class Small(Game):
    """One player whose step is what a test says: `loss(game)`, with a network, x and dropout."""

    name = "small"

    def __init__(self, loss: Callable[[Any], Tensor], rule: Any = optim.Adam) -> None:
        self.image_shape, self.options = (1, 4, 4), {}
        self.net = nn.Sequential(nn.Linear(16, 8), nn.Dropout(0.5), nn.LeakyReLU(), nn.Linear(8, 3))
        self.networks, self.ema = {"N": self.net}, {"N": optim.EMA(self.net, 0.9)}
        parameters = list(self.net.parameters())
        self.players = [Player("N", parameters, rule(parameters, 1e-2), self.losses)]
        self.loss, self.log = loss, {}

    def start(self, batch: Any) -> None:
        self.x = self.tensor(batch.images).reshape(len(batch.images), 16)

    def losses(self) -> dict[str, Tensor]:
        return {"loss": self.loss(self)}

    def preview(self) -> Any: ...
    def sample(self, z: Any, *, net: str = "ema", labels: Any = None) -> Any: ...
    def noise(self, rng: Any, n: int) -> Any: ...


def plain(game: Small) -> Tensor:
    return game.net(game.x).square().mean()


def played(
    kind: Any, make: Callable[[], Game], sizes: list[int] | None = None
) -> tuple[list[dict[str, float]], dict[str, Any], dict[str, int]]:
    """The figures of some steps, the state after them, and that of the random streams."""
    mg.manual_seed(3)
    game = make().to(NAME)
    data = pictures(game.image_shape[1], game.image_shape[0])
    play = kind(game, Guard(game))
    figures = []
    for step, size in enumerate(sizes or [4] * STEPS):
        batches = Batches(data, size * game.batches_per_step, 1)
        figures.append(play(batches.batch(step)))
    return figures, game.state_dict(), random.state()


def check_same(make: Callable[[], Game], sizes: list[int] | None = None) -> None:
    eager, recorded = played(EagerSteps, make, sizes), played(RecordedSteps, make, sizes)
    assert eager[0] == recorded[0]
    assert eager[2] == recorded[2]
    for name, array in eager[1].items():
        np.testing.assert_array_equal(array, recorded[1][name], name)


def gan(preset: str, **options: Any) -> Callable[[], Game]:
    return lambda: gans.make(preset, **({"size": 8, "width": 4, "nz": 5} | options))


@pytest.mark.parametrize(
    "make",
    [
        gan("dcgan"),
        gan("dcgan", optimizer="rmsprop", augment="ada"),
        gan("wgan-gp"),  # second derivatives, five turns of D
        gan("sngan"),  # vectors of power iteration become new arrays in every forward
        gan("wgan"),  # weights clipped in place
    ],
    ids=["dcgan", "rmsprop-ada", "wgan-gp", "sngan", "wgan"],
)
def test_a_gan(make: Callable[[], Game]) -> None:
    check_same(make, [4] * STEPS)


@pytest.mark.slow
@pytest.mark.parametrize("preset", TWO_PLAYERS)
def test_every_gan_with_two_players(preset: str) -> None:
    small = {"width": 4, "previews": 4}
    check_same(
        lambda: gans.make(preset, **{k: v for k, v in small.items() if k in gans.options(preset)})
    )


def test_a_lazy_penalty() -> None:
    """Two kinds of step, each recorded on its own."""
    check_same(gan("r1gan", penalty_every=2), [4] * 9)


@pytest.mark.parametrize("rule", [optim.SGD, optim.Adam, optim.Adamax, optim.Adagrad])
def test_an_optimizer_with_a_schedule(rule: Any) -> None:
    check_same(lambda: Small(plain, lambda p, lr: rule(p, lambda step: lr / (1 + step))))


def test_random_numbers_go_on() -> None:
    """Dropout, noise of the host, and noise of the device."""

    def loss(game: Small) -> Tensor:
        x = game.x + game.feed(lambda: random.draw("a").standard_normal((4, 16)).astype("f4"))
        x = x + Tensor(random.normal("b", (4, 16), device=game.device))
        return game.net(x * Tensor(random.uniform("c", (4, 1), device=game.device))).square().mean()

    check_same(lambda: Small(loss))


def test_a_checkpoint_draws_the_same_twice() -> None:
    check_same(lambda: Small(lambda game: mg.checkpoint(game.net, game.x).square().mean()))


def test_a_changed_shape_is_recorded_anew() -> None:
    mg.manual_seed(0)
    game = Small(plain).to(NAME)
    play = RecordedSteps(game, Guard(game))
    for size in (4, 4, 3, 4, 3, 3, 4):
        play(Batches(pictures(4), size, 0).batch(0))
    assert [graph.runs for graph in play.graphs.values()] == [3, 3]
    check_same(lambda: Small(plain), [4, 4, 3, 4, 3, 3, 4, 3, 4])


def test_a_bad_batch_leaves_the_weights_alone() -> None:
    """The gate on the device closes; the error names the operation."""
    mg.manual_seed(0)
    game = Small(lambda game: (game.net(game.x) + game.feed(lambda: bad).log()).mean()).to(NAME)
    bad = np.ones((), np.float32)
    play, batch = RecordedSteps(game, Guard(game)), Batches(pictures(4), 4, 0).batch(0)
    for _ in range(4):
        play(batch)
    before = game.state_dict()
    bad = np.full((), -1, np.float32)
    with pytest.raises(NumericError, match="N: the loss is nan") as caught:
        play(batch)
    assert "Log" in str(caught.value)
    after = game.state_dict()
    for name in before:
        if name.startswith("networks") or "exp_avg" in name:
            np.testing.assert_array_equal(before[name], after[name], name)


def test_what_cannot_be_recorded() -> None:
    mg.manual_seed(0)

    def message(loss: Any) -> str:
        game = Small(loss).to(NAME)
        play, batch = RecordedSteps(game, Guard(game)), Batches(pictures(4), 4, 0).batch(0)
        with pytest.raises(MiniganError) as caught:
            for _ in range(4):
                play(batch)
        return str(caught.value)

    def logs(game: Small) -> Tensor:
        game.log["x"] = 1.0
        return plain(game)

    def keeps(game: Small) -> Tensor:
        kept = getattr(game, "kept", game.x.detach())
        game.kept = game.x.detach() * 2  # type: ignore[attr-defined]
        return game.net(kept).mean()

    def reads(game: Small) -> Tensor:
        return plain(game) * (2.0 if plain(game).item() > 0 else 1.0)

    def sends(game: Small) -> Tensor:
        return plain(game) * mg.tensor(random.draw("a").random((), np.float32)).to(NAME)

    assert "x is a number of Python" in message(logs)
    assert "kept from one step to the next" in message(keeps)
    assert "read back" in message(reads) and "other numbers in each step" in message(sends)


def test_who_is_recorded() -> None:
    game = Small(plain).to(NAME)
    assert can_be_recorded(game, Guard(game))
    assert not can_be_recorded(game, Guard(game, "skip"))
    optimistic = Small(plain, optim.OptimisticAdam).to(NAME)
    assert not can_be_recorded(optimistic, Guard(optimistic))
    assert not can_be_recorded(game.to("cpu"), Guard(game))


@pytest.mark.parametrize("record", [True, False])
def test_a_run_goes_on_bit_for_bit(record: bool, tmp_path: Any) -> None:
    """Four steps and four more equal eight, with graphs and without."""

    def run(folder: str, *ends: int) -> dict[str, Any]:
        place = RunFolder.create(tmp_path, folder)
        for end in ends:
            mg.manual_seed(1)
            game = gan("dcgan", previews=4)().to(NAME)
            batches, resume = Batches(pictures(8), 4, 1), end != ends[0]
            train(game, batches, place, steps=end, resume=resume, record=record, progress=False)
        return game.state_dict()

    straight, twice = run("straight", 8), run("twice", 4, 8)
    for name, array in straight.items():
        np.testing.assert_array_equal(array, twice[name], name)


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.booleans(), st.integers(0, 5000)), max_size=60))
def test_places_in_an_arena_do_not_overlap(requests: list[tuple[bool, int]]) -> None:
    def run(arena: Arena) -> list[int]:
        places: list[tuple[int, int]] = []
        offsets = []
        for more, number in requests:
            if more or not places:
                offset = arena.malloc(number)
                assert offset % ALIGN == 0
                for start, size in places:
                    assert offset + number <= start or start + size <= offset
                places.append((offset, number))
                offsets.append(offset)
            else:
                arena.free(places.pop(number % len(places))[0])
        assert set(arena.live) == {start for start, _ in places}
        return offsets

    rehearsed = Arena()
    offsets = run(rehearsed)
    assert run(Arena(rehearsed.peak)) == offsets
    if rehearsed.peak:
        with pytest.raises(MemoryError):
            run(Arena(rehearsed.peak - ALIGN))


def test_an_arena_is_full_again_when_all_is_given_back() -> None:
    arena = Arena(4 * ALIGN)
    places = [arena.malloc(ALIGN) for _ in range(4)]
    for i in (1, 3, 0, 2):
        arena.free(places[i])
    assert arena.malloc(4 * ALIGN) == 0


def test_a_device_without_a_tape_says_so() -> None:
    from minigan_kernels.cuda.device import Device
    from minigan_kernels.cuda.step_graph import CannotRecord, StepGraph

    with pytest.raises(CannotRecord, match="bare records nothing"):
        StepGraph(Device("bare", np, None))  # type: ignore[arg-type]
    assert issubclass(UsageError, MiniganError)
