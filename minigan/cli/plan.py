"""What `minigan train --dry-run` prints: the networks, sizes, and the time of a few real steps."""

from __future__ import annotations

import json
import statistics
import time
from typing import IO, Any

import click

from minigan.data.ordered import Ordered
from minigan.gans import Game
from minigan.training.budget import Budget
from minigan.training.environment import peak_memory_mb
from minigan.training.guard import Guard
from minigan.training.progress import duration
from minigan.training.step import EagerSteps

_STEPS = 4  # the first one compiles kernels and does not count


def dry_run(
    game: Game, batches: Ordered[Any], config: dict[str, Any], stream: IO[str], as_json: bool
) -> None:
    """Print the plan. Nothing is written."""
    for name, net in game.networks.items():
        print("\n".join(parameter_table(name, net)), file=stream)
    checkpoint = sum(array.nbytes for array in game.state_dict().values()) / 1e6
    seconds = time_steps(game, batches)
    last = Budget(**config["budget"]).last_step(batches.batch_size)
    plan = {
        **config,
        "checkpoint_mb": round(checkpoint, 1),
        "step_seconds": round(seconds, 4),
        "peak_memory_mb": peak_memory_mb(),
        "total_seconds": None if last is None else round(seconds * last, 1),
    }
    if as_json:
        click.echo(json.dumps(plan))
        return
    estimate = "" if last is None else f", {last:,} steps in about {duration(seconds * last)}"
    print(f"step       {seconds * 1000:.0f} ms{estimate}", file=stream)
    print(f"memory     {plan['peak_memory_mb']:,.0f} MB at the peak of a step", file=stream)
    print(f"checkpoint {checkpoint:.1f} MB, four of them are kept", file=stream)
    print(f"data       {batches.dataset!r}", file=stream)
    print("nothing was written", file=stream)


def parameter_table(name: str, net: Any) -> list[str]:
    """One line per parameter: name, shape, count."""
    rows = [(n, "x".join(map(str, p.shape)), p.size) for n, p in net.named_parameters()]
    width = max(len(n) for n, _, _ in rows)
    lines = [f"{name}: {sum(size for *_, size in rows):,} parameters"]
    return lines + [f"  {n:<{width}}  {shape:<18}{size:>12,}" for n, shape, size in rows]


def time_steps(game: Game, batches: Ordered[Any]) -> float:
    """Play a few steps and return the median time of one."""
    play, times = EagerSteps(game, Guard(game)), []
    for step in range(_STEPS):
        started = time.perf_counter()
        play(batches.batch(step))
        times.append(time.perf_counter() - started)
    return statistics.median(times[1:])
