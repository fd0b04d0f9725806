"""The guard in front of the optimizer: no NaN and no infinity gets into the weights."""

from __future__ import annotations

import json
import math
import traceback
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np

import minigan as mg
from minigan import random
from minigan.backend import backend_of
from minigan.debug import nan_watch
from minigan.errors import NumericError, UsageError
from minigan.gans.game import Game, Player
from minigan.nn import Module
from minigan.weights.atomic import write_json, write_text

ON_NAN = ("stop", "skip")
_SKIPS_IN_A_ROW = 20  # then something is wrong for good


class Guard:
    """Checks losses and gradients of each turn before the optimizer steps.

    Parameters
    ----------
    game : the game being played.
    on_nan : "stop" raises NumericError naming the player and the first bad operation; "skip"
        leaves that player's weights and all running statistics as they were and goes on.

    Attributes
    ----------
    skipped : turns skipped so far.
    """

    def __init__(self, game: Game, on_nan: str = "stop") -> None:
        if on_nan not in ON_NAN:
            raise UsageError(f"on_nan is '{on_nan}'", fix="use 'stop' or 'skip'")
        self.game, self.on_nan = game, on_nan
        self.skipped = self._in_a_row = 0
        self._batch: Any = None
        self._at_start: dict[str, int] = {}
        self._at_turn: dict[str, dict[str, int]] = {}
        self._buffers: list[tuple[mg.Tensor, Any]] = []

    def new_step(self, batch: Any) -> None:
        """Remember what replaying the step needs."""
        self._batch, self._at_start = batch, random.state()
        if self.on_nan == "skip":
            parts = self.game.parts().values()
            nets = [part for part in parts if isinstance(part, Module)]
            buffers = [buffer for net in nets for _, buffer in net.named_buffers()]
            self._buffers = [(buffer, buffer.data.copy()) for buffer in buffers]

    def new_turn(self, player: Player) -> None:
        """Remember the random counters at the beginning of a player's turn."""
        self._at_turn[player.name] = random.state()

    def check(
        self, player: Player, losses: dict[str, mg.Tensor], grads: Sequence[mg.Tensor | None]
    ) -> float | None:
        """Return the norm of the gradients, or None if this turn must be skipped."""
        norm = global_norm(grads)
        if math.isfinite(norm) and all(math.isfinite(loss.item()) for loss in losses.values()):
            self._in_a_row = 0
            return norm
        what = self._describe(player, losses, grads)
        if self.on_nan == "stop":
            raise self._stop(player, what)
        self.skipped += 1
        self._in_a_row += 1
        for buffer, saved in self._buffers:
            buffer.data[...] = saved
            buffer.bump()
        if self._in_a_row >= _SKIPS_IN_A_ROW:
            raise NumericError(
                f"{player.name}: {what}, {self._in_a_row} turns in a row",
                where=self._first_bad_operation(player),
                fix="lower the learning rate or check the data",
            )
        return None

    def judge(self, figures: Mapping[str, float]) -> None:
        """Raise NumericError if a player's loss or gradient of a recorded step is not finite."""
        for player in self.game.players:
            if not math.isfinite(figures[f"loss_{player.name}"]):
                raise self._stop(player, f"the loss is {figures[f'loss_{player.name}']}")
            if not math.isfinite(figures[f"gnorm_{player.name}"]):
                raise self._stop(player, "a gradient holds NaN or infinity")

    def _stop(self, player: Player, what: str) -> NumericError:
        return NumericError(
            f"{player.name}: {what}",
            where=self._first_bad_operation(player),
            why="the weights are still finite: the optimizer did not step",
            fix="lower the learning rate or check the data; --on-nan skip leaves them out",
        )

    def _describe(
        self, player: Player, losses: dict[str, mg.Tensor], grads: Sequence[mg.Tensor | None]
    ) -> str:
        for name, loss in losses.items():
            if not math.isfinite(loss.item()):
                return f"{name} is {loss.item()}"
        names = {
            id(parameter): f"{net_name}.{name}"
            for net_name, net in self.game.networks.items()
            for name, parameter in net.named_parameters()
        }
        for parameter, grad in zip(player.parameters, grads, strict=True):
            if grad is not None and not np.isfinite(grad.data).all():
                kind = "NaN" if np.isnan(grad.data).any() else "infinity"
                return f"the gradient of {names.get(id(parameter), 'a parameter')} holds {kind}"
        return "the norm of the gradients is too large for a number"

    def _first_bad_operation(self, player: Player) -> str:
        """Play the turn again with every operation watched; the random draws are the same."""
        try:
            with nan_watch():
                random.set_state(self._at_start)
                self.game.start(self._batch)
                random.set_state(self._at_turn[player.name])
                losses = player.losses()
                mg.grad(add_up(losses), player.parameters)
        except NumericError as error:
            return "; ".join(part for part in (error.what, error.where, error.why) if part)
        return "no operation of the replayed turn made it: it depends on what came before"


def add_up(losses: dict[str, mg.Tensor]) -> mg.Tensor:
    """Return the sum of a player's losses."""
    first, *others = losses.values()
    for loss in others:
        first = first + loss
    return first


def global_norm(grads: Sequence[mg.Tensor | None]) -> float:
    """Return sqrt(sum of squares) over all gradients; NaN or infinite if one element is."""
    arrays = [grad.data for grad in grads if grad is not None]
    return math.sqrt(square_sum(arrays)) if arrays else 0.0


def square_sum(arrays: Sequence[Any]) -> Any:
    """The sum of squares over all arrays, in float64 and on their device."""
    return backend_of(arrays[0]).kernels.square_sum(arrays)


def write_crash(folder: Path, error: BaseException, step: int, indices: Any) -> None:
    """Keep what is known about a failure: crash/traceback.txt and crash/crash.json."""
    folder.mkdir(exist_ok=True)
    write_text(folder / "traceback.txt", "".join(traceback.format_exception(error)))
    report = {
        "step": step,
        "error": type(error).__name__,
        "message": str(error),
        "batch_indices": json.loads(json.dumps(indices, default=lambda x: np.asarray(x).tolist())),
        "random": random.state(),
    }
    write_json(folder / "crash.json", report)
