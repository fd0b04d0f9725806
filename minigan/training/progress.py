"""What the person in front of the screen sees: a live bar on a terminal, plain lines elsewhere.

Every line also goes to log.txt of the run. The bar is redrawn by the training loop itself, at
most four times a second, so there is no thread and nothing happens between two steps.
"""

from __future__ import annotations

import os
import sys
import time
from collections.abc import Mapping
from typing import IO, Any

from minigan.training.rundir import RunFolder

_REDRAW_SECONDS = 0.25
_LINE_SECONDS = 1.0  # between plain lines on the screen; log.txt gets them all
_COLOURS = {"ok": "green", "D winning": "yellow", "collapse?": "yellow"}


class Display:
    """Plain lines, `key value key value`, at most one a second; also the base of the live display.

    Parameters
    ----------
    run : its log.txt gets the same lines.
    stream : standard output by default.
    """

    def __init__(self, run: RunFolder, stream: IO[str] | None = None) -> None:
        self.run, self.stream = run, stream or sys.stdout
        self._shown = float("-inf")

    def say(self, text: str) -> None:
        """Print a line for people."""
        self.run.log(text)
        self.show(text)

    def show(self, text: str) -> None:
        """Print a line on the screen only."""
        print(text, file=self.stream, flush=True)

    def begin(self, step: int, last: int | None) -> None:
        """Training starts at `step`; `last` is the final step if it is known."""

    def step(self, step: int, fraction: float) -> None:
        """A step is done, and with it this fraction of the budget."""

    def tick(self, line: Mapping[str, Any], remaining: float | None) -> None:
        """A line of figures is there; `remaining` seconds to go."""
        text, now = plain_line(line), time.monotonic()
        self.run.log(text)
        if now - self._shown >= _LINE_SECONDS:
            self._shown = now
            self.show(text if remaining is None else f"{text} eta {duration(remaining)}")

    def snapshot(self, line: Mapping[str, Any], picture: str) -> None:
        """A picture was written."""

    def end(self) -> None:
        """Training is over."""


class LiveDisplay(Display):
    """A bar with the last figures, and one line above it for each picture written."""

    def __init__(self, run: RunFolder, stream: IO[str] | None = None) -> None:
        super().__init__(run, stream)
        from rich.console import Console
        from rich.progress import BarColumn, Progress, TextColumn
        from rich.table import Column

        rest = Column(ratio=1, no_wrap=True, overflow="ellipsis")
        self._console = Console(file=self.stream, highlight=False)
        self._bar = Progress(
            TextColumn("step {task.fields[shown]}"),
            BarColumn(bar_width=16, complete_style="cyan", finished_style="green"),
            TextColumn("{task.percentage:3.0f} %"),
            TextColumn("{task.fields[verdict]}"),
            TextColumn("{task.description}", table_column=rest),
            console=self._console,
            auto_refresh=False,
            expand=True,
        )
        self._task = self._bar.add_task("", total=1.0, shown="0", verdict="")
        self._last: int | None = None
        self._drawn = 0.0
        self._running = False

    def show(self, text: str) -> None:
        self._console.print(text, markup=False, soft_wrap=True)

    def begin(self, step: int, last: int | None) -> None:
        self._last, self._running = last, True
        self._bar.start()
        self.step(step, 0.0 if not last else step / last)

    def step(self, step: int, fraction: float) -> None:
        now = time.monotonic()
        if now - self._drawn < _REDRAW_SECONDS and fraction < 1.0:
            return
        self._drawn = now
        shown = f"{step}/{self._last}" if self._last else f"{step}"
        self._bar.update(self._task, completed=min(fraction, 1.0), shown=shown)
        self._bar.refresh()

    def tick(self, line: Mapping[str, Any], remaining: float | None) -> None:
        self.run.log(plain_line(line))
        verdict = str(line.get("verdict", "ok"))
        colour = _COLOURS.get(verdict, "red")
        self._bar.update(
            self._task,
            description=live_line(line, remaining),
            verdict=f"[{colour}]{verdict}[/{colour}]",
        )

    def snapshot(self, line: Mapping[str, Any], picture: str) -> None:
        self.show(f"step {line['step']:>6} · {figures_line(line)} · {picture}")

    def end(self) -> None:
        if self._running:
            self._bar.stop()


def display(run: RunFolder, progress: bool = True, stream: IO[str] | None = None) -> Display:
    """The live display on a terminal that can redraw a line, plain lines everywhere else."""
    stream = stream or sys.stdout
    if progress and stream.isatty() and os.environ.get("TERM") != "dumb":
        return LiveDisplay(run, stream)
    return Display(run, stream)


def plain_line(line: Mapping[str, Any]) -> str:
    """`step 938 kimg 60.03 ... verdict ok`: easy to read by eye and by grep."""
    return " ".join(f"{name} {_number(value)}" for name, value in line.items())


def figures_line(line: Mapping[str, Any]) -> str:
    """The players' losses and what D thinks: `D 0.61 G 1.43 · D(x) 0.78 D(G) 0.24/0.19`."""
    players = [name.removeprefix("gnorm_") for name in line if name.startswith("gnorm_")]
    losses = [f"{name} {line[f'loss_{name}']:.3g}" for name in players if f"loss_{name}" in line]
    beliefs = [f"D(x) {line['d_real']:.2f}"] if "d_real" in line else []
    turns = [f"{line[name]:.2f}" for name in ("d_fake", "d_fake_g") if name in line]
    if turns:
        beliefs.append(f"D(G) {'/'.join(turns)}")
    return " · ".join(" ".join(part) for part in (losses, beliefs) if part)


def live_line(line: Mapping[str, Any], remaining: float | None) -> str:
    """What stands right of the bar: speed, time to go, losses, beliefs."""
    parts = [f"{line.get('img_s', 0):.0f} img/s"]
    if remaining is not None:
        parts.append(f"ETA {duration(remaining)}")
    return " · ".join(part for part in (*parts, figures_line(line)) if part)


def duration(seconds: float) -> str:
    """Seconds as 2:41 or 1:02:41."""
    minutes, rest = divmod(round(seconds), 60)
    hours, minutes = divmod(minutes, 60)
    return f"{hours}:{minutes:02d}:{rest:02d}" if hours else f"{minutes}:{rest:02d}"


def _number(value: Any) -> str:
    if isinstance(value, float):
        return f"{value:.4g}"
    return str(value).replace(" ", "_")
