"""Steps on a GPU, recorded as CUDA graphs: one call instead of thousands.

A kind of step (the shapes of its batch, and what `Game.phase` says) is played three times as it is
written, and from then on by its graph; the numbers are the same, bit for bit. Losses and norms of
gradients are read once, at the end of the step, so the host cannot stop an optimizer: the device
itself leaves the weights alone from the first loss or gradient on that is not finite.
"""

from __future__ import annotations

import contextlib
import dataclasses
from collections.abc import Hashable, Iterable, Iterator, Sequence
from typing import Any

import numpy as np
from minigan_kernels.cuda.step_graph import CannotRecord, StepGraph

import minigan as mg
from minigan.backend import again, find, to_numpy
from minigan.errors import UsageError
from minigan.gans.game import Game, Player
from minigan.nn import Module
from minigan.training.guard import Guard, add_up, square_sum
from minigan.training.step import take_step


def can_be_recorded(game: Game, guard: Guard) -> bool:
    """Whether the device can record, and nothing in the step needs the host in between."""
    device = getattr(find(game.device).kernels, "device", None)
    return (
        getattr(device, "tape", None) is not None
        and guard.on_nan == "stop"  # to skip a turn is for the host to decide
        and all(player.optimizer.records for player in game.players)
    )


class RecordedSteps:
    """Plays the steps of a game, each kind of step by a graph of its own."""

    def __init__(self, game: Game, guard: Guard) -> None:
        self.game, self.guard = game, guard
        self.device = find(game.device).kernels.device
        self.graphs: dict[Hashable, StepGraph] = {}
        self._batch: Any = None

    def __call__(self, batch: Any) -> dict[str, float]:
        """Play a step; return its figures."""
        self.game.before_step()
        self.game.check(batch)
        self.guard.new_step(batch)
        self._batch = batch
        shapes = tuple((name, value.shape, value.dtype) for name, value in _arrays(batch))
        graph = self.graphs.setdefault((shapes, self.game.phase()), StepGraph(self.device))
        try:
            names, numbers = graph.run(self._step)
        except CannotRecord as error:
            raise UsageError(
                f"{self.game.name}: the step cannot be recorded as a CUDA graph",
                why=str(error),
                fix="train with --no-graph, or change the game (see Game.feed and Game.phase)",
            ) from error
        figures = dict(zip(names, map(float, to_numpy(numbers)), strict=True))
        self.guard.judge(figures)
        return figures

    def _step(self) -> tuple[list[str], Any]:
        """The step as it is recorded: the names of its figures, and their numbers on the device."""
        gate = _Gate(self.guard, self.device)
        with state_at_home(self.game.networks.values()), gate:
            figures = take_step(self.game, self._fed(), gate)  # type: ignore[arg-type]
        for name, value in figures.items():
            if not isinstance(value, mg.Tensor):
                raise CannotRecord(f"the figure {name} is a number of Python: log a Tensor")
        xp = self.device.xp
        numbers = [v.data.reshape(()).astype(np.float64) for v in figures.values()]  # type: ignore
        return list(figures), xp.stack(numbers)

    def _fed(self) -> Any:
        """The batch with its arrays on the device, and in each step that step's."""

        def field(name: str) -> Any:
            return self.device.feed(lambda: getattr(self._batch, name))

        return dataclasses.replace(self._batch, **{n: field(n) for n, _ in _arrays(self._batch)})


@contextlib.contextmanager
def state_at_home(networks: Iterable[Module]) -> Iterator[None]:
    """What networks keep stays where it is in memory; some operations put it elsewhere."""
    homes = [(tensor, tensor.data) for net in networks for _, tensor in net.named_tensors()]
    yield
    for tensor, home in homes:
        if tensor.data is not home:
            home[...] = tensor.data
            tensor.data = home


class _Gate:
    """In the guard's place while a step is recorded: the device keeps bad turns from the weights.

    The gate is the sum of all squared gradients so far and 0 times the losses, so that a loss or
    a gradient that is not finite closes it for the rest of the step.
    """

    def __init__(self, guard: Guard, device: Any) -> None:
        self.guard, self.device = guard, device

    def __enter__(self) -> _Gate:
        return self

    def __exit__(self, *exception: Any) -> None:
        self.device.gate = None

    def new_step(self, batch: Any) -> None:
        """The guard knows it."""

    def new_turn(self, player: Player) -> None:
        again(lambda: self.guard.new_turn(player))

    def check(
        self,
        player: Player,
        losses: dict[str, mg.Tensor],
        grads: Sequence[mg.Tensor | None],
    ) -> mg.Tensor:
        """The norm of the gradients; the gate closes if it or a loss is not finite."""
        squares = square_sum([grad.data for grad in grads if grad is not None])
        gate = squares + 0 * add_up(losses).data.reshape(()).astype(np.float64)
        self.device.gate = gate if self.device.gate is None else self.device.gate + gate
        return mg.Tensor(self.device.xp.sqrt(squares))


def _arrays(batch: Any) -> list[tuple[str, Any]]:
    """The arrays among the fields of a batch."""
    fields = ((field.name, getattr(batch, field.name)) for field in dataclasses.fields(batch))
    return [(name, value) for name, value in fields if isinstance(value, np.ndarray)]
