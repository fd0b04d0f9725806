"""The training loop: a game, its batches, and a folder to keep what comes of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import IO, Any, Protocol

from minigan.gans.game import Game
from minigan.training.budget import Budget
from minigan.training.guard import Guard
from minigan.training.progress import display
from minigan.training.recorded import RecordedSteps, can_be_recorded
from minigan.training.rundir import RunFolder
from minigan.training.session import Result, Session
from minigan.training.step import EagerSteps


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
    evaluate: Callable[[Game], Mapping[str, Any]] | None = None,
    evaluate_every: int = 1000,
    on_nan: str = "stop",
    record: bool = True,
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
        checkpoint. Names with a dot ("floor.fid") are drawn beside the others, not printed.
    on_nan : "stop", or "skip" to leave out turns with NaN in the loss or a gradient.
    record : on a GPU, record each kind of step once as a CUDA graph and play that.
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
    recorded = record and can_be_recorded(game, guard)
    play = RecordedSteps(game, guard) if recorded else EagerSteps(game, guard)
    with Session(game, batches, run, budget, guard, shown) as session:
        session.plan(config, resume, tick, preview, checkpoint, evaluate, evaluate_every)
        step = session.begin(resume)
        while session.goes_on(step):
            batch = batches.batch(step)
            figures = play(batch)
            step += 1
            session.after(step, batch, figures)
        return session.end(step)
