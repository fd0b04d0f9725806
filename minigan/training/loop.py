"""The training loop: a game, its batches, and a folder to keep what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import IO, Any, Protocol

import minigan as mg
from minigan.gans.game import Game, Player
from minigan.training.budget import Budget
from minigan.training.guard import Guard, add_up
from minigan.training.progress import display
from minigan.training.rundir import RunFolder
from minigan.training.session import Result, Session


class Batches(Protocol):
    """Batches of real data as a function of the step, so that a run can begin anywhere."""

    batch_size: int

    def batch(self, step: int) -> Any: ...

    def indices(self, step: int) -> Any: ...


def train(
    game: Game,
    batches: Batches,
    run: RunFolder,
    *,
    steps: int | None = None,
    minutes: float | None = None,
    kimg: float | None = None,
    resume: bool = False,
    tick: int | None = None,
    preview: int = 0,
    checkpoint: int = 500,
    evaluate: Callable[[Game], Mapping[str, float]] | None = None,
    evaluate_every: int = 1000,
    on_nan: str = "stop",
    config: Mapping[str, Any] | None = None,
    progress: bool = True,
    stream: IO[str] | None = None,
) -> Result:
    """Play `game` on `batches` until the budget is spent; keep everything in `run`.

    Parameters
    ----------
    steps, minutes, kimg : the budget, whichever is reached first (kimg: thousands of images).
    resume : go on from the newest checkpoint in `run`, bit for bit as if never interrupted.
    tick : steps that one line of figures averages; chosen from the budget by default.
    preview : steps between pictures; 0 makes them dense at the beginning.
    checkpoint : steps between checkpoints; there is one every three minutes anyway.
    evaluate : returns measures of the game; the first one, lower is better, elects the best
        checkpoint.
    on_nan : "stop", or "skip" to leave out turns with NaN in the loss or a gradient.
    config : what config.json and each checkpoint shall say about the game and its data.
    progress : False prints plain lines even on a terminal.
    stream : where to print; standard output by default.

    Raises
    ------
    NumericError : NaN or infinity; the weights are still finite.
    CheckpointError : the checkpoint does not fit, or could not be written three times.
    """
    budget = Budget(steps, kimg, minutes)
    guard = Guard(game, on_nan)
    shown = display(run, progress, stream)
    with Session(game, batches, run, budget, guard, shown) as session:
        session.plan(config, resume, tick, preview, checkpoint, evaluate, evaluate_every)
        step = session.begin(resume)
        while session.goes_on(step):
            batch = batches.batch(step)
            figures = take_step(game, batch, guard)
            step += 1
            session.after(step, batch, figures)
        return session.end(step)


def take_step(game: Game, batch: Any, guard: Guard) -> dict[str, float]:
    """Let every player take its turns on one batch; return what is worth logging."""
    guard.new_step(batch)
    game.start(batch)
    figures: dict[str, float] = {}
    for player in game.players:
        for _ in range(player.repeats):
            figures |= take_turn(player, guard)
    game.finish()
    return figures | {name: _number(value) for name, value in game.log.items()}


def take_turn(player: Player, guard: Guard) -> dict[str, float]:
    """Lower the player's loss by one step of its optimizer; return what is worth logging."""
    guard.new_turn()
    losses = player.losses()
    total = add_up(losses)
    grads = mg.grad(total, player.parameters)
    norm = guard.check(player, losses, grads)
    if norm is None:  # NaN, and the user wants such turns left out
        return {}
    player.optimizer.step(grads)
    figures = {f"loss_{player.name}": float(total.item()), f"gnorm_{player.name}": norm}
    if len(losses) > 1:
        figures |= {name: float(loss.item()) for name, loss in losses.items()}
    return figures


def _number(value: float | mg.Tensor) -> float:
    return float(value.item() if isinstance(value, mg.Tensor) else value)
