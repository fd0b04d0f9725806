"""One step of a game: every player lowers its own loss.

game.start(batch)
for each player, as often as it repeats:
    losses = player.losses()
    grads  = mg.grad(sum of losses, player.parameters)
    player.optimizer.step(grads)
game.finish()
"""

from __future__ import annotations

from typing import Any

import minigan as mg
from minigan.gans.game import Game, Player
from minigan.training.guard import Guard, add_up

Figures = dict[str, float | mg.Tensor]


class EagerSteps:
    """Plays the steps of a game operation by operation."""

    def __init__(self, game: Game, guard: Guard) -> None:
        self.game, self.guard = game, guard

    def __call__(self, batch: Any) -> dict[str, float]:
        """Play a step; return its figures."""
        self.game.before_step()
        self.game.check(batch)
        return read(take_step(self.game, batch, self.guard))


def take_step(game: Game, batch: Any, guard: Guard) -> Figures:
    """Let every player take its turns on one batch; return what is worth logging."""
    guard.new_step(batch)
    game.start(batch)
    figures: Figures = {}
    if game.simultaneous:  # all gradients at the weights from before the step
        turns = [Turn(player, guard) for player in game.players]
        for turn in turns:
            figures |= turn.move(guard)
    else:
        for player in game.players:
            for _ in range(player.repeats):
                figures |= Turn(player, guard).move(guard)
    game.finish()
    return figures | game.log


class Turn:
    """A player's losses and the gradients of their sum, not yet acted upon."""

    def __init__(self, player: Player, guard: Guard) -> None:
        guard.new_turn(player)
        self.player, self.losses = player, player.losses()
        self.total = add_up(self.losses)
        self.grads = mg.grad(self.total, player.parameters)

    def move(self, guard: Guard) -> Figures:
        """Make one step of the player's optimizer; return what is worth logging."""
        norm = guard.check(self.player, self.losses, self.grads)
        if norm is None:  # NaN, and the user wants such turns left out
            return {}
        self.player.optimizer.step(self.grads)
        name = self.player.name
        figures: Figures = {f"loss_{name}": self.total.detach(), f"gnorm_{name}": norm}
        if len(self.losses) > 1:
            figures |= {name: loss.detach() for name, loss in self.losses.items()}
        return figures


def read(figures: Figures) -> dict[str, float]:
    """The numbers of a step, from wherever they are."""
    return {
        name: float(value.item() if isinstance(value, mg.Tensor) else value)
        for name, value in figures.items()
    }
