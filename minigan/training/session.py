"""What happens around the steps of one session of a run: figures, pictures, checkpoints, report."""

from __future__ import annotations

import contextlib
import datetime
import math
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from types import TracebackType
from typing import TYPE_CHECKING, Any

import minigan
from minigan import random
from minigan.errors import UsageError
from minigan.gans.game import Game
from minigan.training.budget import Budget, Clock
from minigan.training.checkpoint import check_fits
from minigan.training.environment import differences, environment, peak_memory_mb
from minigan.training.figures import Figures
from minigan.training.guard import Guard, write_crash
from minigan.training.health import Health, Verdict
from minigan.training.interrupts import Interrupts
from minigan.training.previews import Previews, due
from minigan.training.progress import Display
from minigan.training.rundir import RunFolder
from minigan.training.saver import Reporter, Saver

if TYPE_CHECKING:
    from minigan.training.loop import Batches

SCHEMA = 1  # of config.json
_TICKS = (50, 20, 10, 5, 2, 1)  # steps per line of figures: about a hundred lines or more
_UNKNOWN_TICK = 10


@dataclass(frozen=True)
class Result:
    """How a session ended.

    Attributes
    ----------
    step : steps done in the whole run.
    verdict : word, reason and advice.
    signal : number of the signal that ended it (2: Ctrl-C, 15: SIGTERM), or None.
    seconds : training time of the whole run.
    skipped : turns left out because of NaN.
    """

    step: int
    verdict: Verdict
    signal: int | None
    seconds: float
    skipped: int


class Session:
    """A `with` block: the folder is locked, signals are caught, a failure is written down."""

    def __init__(
        self,
        game: Game,
        batches: Batches,
        run: RunFolder,
        budget: Budget,
        guard: Guard,
        shown: Display,
    ) -> None:
        self.game, self.batches, self.run = game, batches, run
        self.budget, self.guard = budget, guard
        self.display = shown
        self.figures, self.health, self.clock = Figures(), Health(), Clock()
        self.interrupts = Interrupts()
        self.last = budget.last_step(batches.batch_size)
        self.line: dict[str, Any] = {}
        self._held = contextlib.ExitStack()
        self._step = -1  # not begun

    def __enter__(self) -> Session:
        note = self._held.enter_context(self.run.lock())
        self._held.enter_context(self.interrupts)
        now = datetime.datetime.now().astimezone().isoformat(timespec="seconds")
        self.run.log(f"=== {now} minigan {minigan.__version__}")
        if note:
            self.display.say(f"note: {note}")
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        traceback: TracebackType | None,
    ) -> None:
        self.display.end()
        if isinstance(error, Exception) and self._step >= 0:
            self.run.log(f"{type(error).__name__}: {error}")
            with contextlib.suppress(OSError):
                write_crash(self.run.crash, error, self._step, self.batches.indices(self._step))
        self._held.close()

    def plan(
        self,
        config: Mapping[str, Any] | None,
        resume: bool,
        tick: int | None,
        preview: int,
        checkpoint: int,
        evaluate: Callable[[Game], Mapping[str, Any]] | None,
        evaluate_every: int,
    ) -> None:
        """Decide what is due when, and write it to config.json."""
        if tick is None and resume:
            tick = self.run.config().get("every", {}).get("tick")
        if tick is None:
            tick = next((t for t in _TICKS if self.last and t <= self.last / 100), 1)
            tick = tick if self.last else _UNKNOWN_TICK
        for name, value in (("tick", tick), ("checkpoint", checkpoint), ("preview", preview + 1)):
            if value < 1:
                raise UsageError(f"{name} every {value} steps makes no sense", fix="use 1 or more")
        self.tick_steps, self.evaluate = tick, evaluate
        self.evaluate_every = evaluate_every
        self.previews = Previews(self.game, self.run, preview)
        self.saver = Saver(self.run, checkpoint, self.display.say)
        self.reporter = Reporter(self.run, self.display.say)
        made = {"preset": self.game.name, "options": getattr(self.game, "options", {})}
        self.config = {
            "schema": SCHEMA,
            "minigan": minigan.__version__,
            **made,
            "seed": random.state()["seed"],
            "batch": self.batches.batch_size,
            **(config or {}),
            "budget": vars(self.budget),
            "every": {"tick": tick, "preview": preview, "checkpoint": checkpoint},
            "on_nan": self.guard.on_nan,
        }

    def begin(self, resume: bool) -> int:
        """Start anew or take over the newest checkpoint; return the number of steps done."""
        saved = self.run.checkpoints.paths()
        if saved and not resume:
            raise UsageError(
                f"{self.run.path} already holds a run of {saved[0].stem}",
                fix="resume it, or train into a new folder",
            )
        here = environment()
        if resume and (changed := differences(self.run.environment(), here)):
            self.display.say(f"note: not bit for bit, the machine differs: {'; '.join(changed)}")
        self.run.put_crash_aside()
        step = self._take_over() if saved else 0
        if not saved:
            self.run.rewind(-1)
            self.run.write_environment(here)
        self.run.write_config(self.config)
        self.display.begin(step, self.last)
        self._step = self._pictured = step
        self.game.keep_previews(self.batches)
        if step == 0:
            self._picture(0, self.batches.batch(0))
        return step

    def goes_on(self, step: int) -> bool:
        """Whether another step is wanted."""
        self._step = step
        if self.interrupts.signal is not None:
            return False
        if self.last is not None and step >= self.last:
            return False
        minutes = self.budget.minutes
        return minutes is None or self.clock.seconds() < 60 * minutes

    def after(self, step: int, batch: Any, figures: dict[str, float]) -> None:
        """Do what is due after this step."""
        if self.guard.on_nan == "skip":
            figures = {name: value for name, value in figures.items() if math.isfinite(value)}
        self.figures.add(figures)
        if due(step, self.previews.every) or step == self.last:
            self._picture(step, batch)
        if step % self.tick_steps == 0:
            self._tick(step)
        score = None
        if self.evaluate is not None and step % self.evaluate_every == 0:
            score = self._evaluate(step)
        if self.saver.due(step) or score is not None:
            self.saver.save(self.game.state_dict(), self._state(step), score)
            self.reporter.build_now_and_then()
        self.display.step(step, self._fraction(step))

    def end(self, step: int) -> Result:
        """Save, show what was reached, write the report, and say how it ended."""
        if self.interrupts.signal is None and self._pictured != step:
            self._picture(step, self.batches.batch(step))
        if self.saver.saved_step != step:
            self.saver.save(self.game.state_dict(), self._state(step), None, final=True)
        self.reporter.build()
        return Result(
            step,
            self.health.verdict,
            self.interrupts.signal,
            self.clock.seconds(),
            self.guard.skipped,
        )

    # Parts of the above --------------------------------------------------------------------------

    def _take_over(self) -> int:
        snapshot = self.run.checkpoints.load(set_aside=True)
        check_fits(self.game.state_dict(), snapshot.arrays, str(snapshot.path))
        self.game.load_state_dict(snapshot.arrays)
        random.set_state(snapshot.state["random"])
        self.config["seed"] = random.state()["seed"]
        self.figures.load_state(snapshot.state["figures"])
        self.guard.skipped = snapshot.state["skipped"]
        self.clock = Clock(snapshot.state["seconds"])
        self.run.rewind(snapshot.step)
        for line in self.run.stats():
            self.health.see(line)
        self.saver.saved_step = snapshot.step
        self.display.say(f"resuming at step {snapshot.step} from {snapshot.path.name}")
        return snapshot.step

    def _state(self, step: int) -> dict[str, Any]:
        return {
            "step": step,
            "config": self.config,
            "random": random.state(),
            "figures": self.figures.state(),
            "skipped": self.guard.skipped,
            "seconds": self.clock.seconds(),
        }

    def _tick(self, step: int) -> None:
        took = self.clock.tick(self.tick_steps)
        images = self.batches.batch_size
        line: dict[str, Any] = {"step": step, "kimg": round(step * images / 1000, 3)}
        line |= {
            "sec": round(self.clock.seconds(), 3),
            "img_s": round(images * self.tick_steps / took, 1) if took else 0.0,
            "rss_mb": peak_memory_mb(),
        }
        line |= self.figures.tick()
        if self.guard.skipped:
            line["skipped"] = self.guard.skipped
        before, verdict = self.health.verdict, self.health.see(line)
        self.line = {**line, "verdict": verdict.word}
        try:
            self.run.add_stats(self.line)
        except OSError as error:
            self.display.say(f"warning: stats.jsonl lost the line of step {step}: {error}")
        remaining = self.clock.remaining(step, self.last, self.budget.minutes)
        self.display.tick(self.line, remaining)
        if verdict.word != before.word:
            advice = f"; {verdict.advice}" if verdict.advice else ""
            self.display.say(f"verdict at step {step}: {verdict.word}: {verdict.reason}{advice}")

    def _picture(self, step: int, batch: Any) -> None:
        self._pictured = step
        try:
            name, figures = self.previews.write(step, batch)
        except OSError as error:
            self.display.say(f"warning: no picture of step {step}: {error}")
            return
        if due(step, self.previews.every):  # a longer budget would have no figures of other ends
            self.figures.add(figures)
        self.display.snapshot({**self.line, "step": step}, name)

    def _evaluate(self, step: int) -> float | None:
        assert self.evaluate is not None
        started = time.monotonic()
        measures = dict(self.evaluate(self.game))
        measured = {"step": step, "sec": round(time.monotonic() - started, 2), **measures}
        try:
            self.run.add_metrics(measured)
        except OSError as error:
            self.display.say(f"warning: metrics.jsonl lost the line of step {step}: {error}")
        shown = [
            f"{name} {value:.4g}"
            for name, value in measures.items()
            if "." not in name and isinstance(value, int | float)
        ]
        self.display.say(f"step {step}: {' '.join(shown)}")
        return next(iter(measures.values()), None)

    def _fraction(self, step: int) -> float:
        parts = [step / self.last] if self.last else []
        if self.budget.minutes:
            parts.append(self.clock.seconds() / (60 * self.budget.minutes))
        return max(parts, default=0.0)
