"""How good the pictures are: DCGAN in both engines, the same network, data, budget and seeds.

For each seed both start from the same weights (ours, copied over) and see the same batches and the
same noise, with the same optimizer; that the first losses agree (1e-4 relative) is checked. After
938, 1876, 2814 steps (one, two, three epochs of MNIST at batch 64) both draw pictures of the same
noise, with the weights as they are, and `minigan.metrics` measures them. Training amplifies
rounding, so a single pair says little; the ratio is that of the medians over the seeds.

    python -m benchmarks quality --save my-machine
    python -m benchmarks quality --save my-machine -o lr=4e-4 -o ema=0.99

Every finished pair of engine and seed is written at once and not repeated, so Ctrl-C loses one run
at most. A variant is ours alone, to see what its options gain; "ema" is what the moving average of
G draws, which is what `minigan sample` shows.
"""

from __future__ import annotations

import datetime
import sys
import time
from collections.abc import Callable, Sequence
from functools import partial
from typing import Any

from benchmarks import torchside
from benchmarks.results import Results
from benchmarks.steps import AGREE, LossesDiffer, load
from benchmarks.tables import quality_tables

BATCH = 64
OURS, THEIRS = "minigan", "torch"
Images = Any  # (N, C, H, W)
Play = Callable[[Any], dict[str, float]]  # a step on a batch; its losses
Painters = dict[str, Callable[[Any], Images]]  # net -> images of noise


def measure(options: Any, results: Results, say: Callable[[str], None]) -> None:
    """Train and measure what is missing in `results`."""
    from minigan import data, metrics

    judge = None
    known = data.load(options.data)
    for seed in options.seeds:
        for engine in (OURS, THEIRS):
            if options.only not in (None, engine) or (engine == THEIRS and options.options):
                continue
            name = entry_name(engine, seed, options)
            known_steps = steps_of(results.data.get("quality", {}).get(name))
            if known_steps.issuperset(options.steps):
                say(f"{name}: there already")
                continue
            if engine == THEIRS and torchside.torch() is None:
                say(f"{name}: PyTorch is not installed")
                continue
            judge = judge or metrics.Evaluator.for_data(known)
            say(name)
            steps = sorted(known_steps.union(options.steps))
            entry = run(engine, seed, steps, options, known, judge, say)
            check_start(results, entry)
            results.add("quality", name, entry)


def entry_name(engine: str, seed: int, options: Any) -> str:
    """Of an entry: all that decides its numbers, but not for how long it was trained."""
    parts = [options.data, f"w{options.width}", f"n{options.images}", engine, *options.options]
    return f"{' '.join(parts)} seed {seed}"


def steps_of(entry: Any) -> set[int]:
    """After which an entry has figures."""
    return set() if entry is None else set(map(int, entry["raw"]))


def check_start(results: Results, entry: dict[str, Any]) -> None:
    """Both engines must begin with the same losses, or they do not compute the same."""
    for other in results.data.get("quality", {}).values():
        if other["pair"] == entry["pair"] and "" == other["variant"] == entry["variant"]:
            for player, loss in entry["first"].items():
                if not abs(loss - other["first"][player]) <= AGREE * max(abs(loss), 1e-3):
                    raise LossesDiffer(f"{entry['first']}, before {other['first']}")


# One run ---------------------------------------------------------------------------------------


def run(
    engine: str,
    seed: int,
    steps: Sequence[int],
    options: Any,
    known: Any,
    judge: Any,
    say: Callable[[str], None],
) -> dict[str, Any]:
    """Train one engine from one seed; measure it after `steps`."""
    from minigan.data import Batches
    from minigan.random import generator

    game = make(seed, options, known)
    play, painters = (ours if engine == OURS else theirs)(game)
    z = game.noise(generator(0, "quality", 0), options.images)
    batches = Batches(known, BATCH, seed)
    entry: dict[str, Any] = {
        "engine": engine,
        "seed": seed,
        "variant": " ".join(options.options),
        "group": f"{options.data}, width {options.width}, {options.images} images",
        "pair": f"{options.data} w{options.width} seed {seed}",
        "floor": judge.floor(options.images)["fid"],
    }
    seconds = 0.0
    for step in range(1, steps[-1] + 1):
        batch = batches.batch(step - 1)
        start = time.perf_counter()
        losses = play(batch)
        seconds += time.perf_counter() - start
        if step == 1:
            entry["first"] = losses
        if step in steps:
            for net, paint in painters.items():
                figures = judge.measure(paint(z))
                entry.setdefault(net, {})[str(step)] = figures
                say(f"  {step} steps, {seconds:.0f} s, {net}: FID {figures['fid']:.1f}")
    return entry | {"seconds": seconds, "date": datetime.date.today().isoformat()}


def make(seed: int, options: Any, known: Any) -> Any:
    """The game with the weights of a seed; the next noise drawn is then that of the seed too."""
    import minigan as mg
    from minigan import gans
    from minigan.cli.values import overrides

    channels, size, _ = known.image_shape
    chosen = overrides("dcgan", options.options, gans.options("dcgan"))
    mg.manual_seed(seed)
    shape = {"size": size, "channels": channels, "width": options.width}
    return gans.make("dcgan", **shape | chosen)


def ours(game: Any) -> tuple[Play, Painters]:
    """A step of minigan's training loop, and what draws."""
    from minigan.training.guard import Guard
    from minigan.training.step import EagerSteps

    steps = EagerSteps(game, Guard(game))

    def play(batch: Any) -> dict[str, float]:
        figures = steps(batch)
        return {player.name: figures[f"loss_{player.name}"] for player in game.players}

    nets = ["raw", *(["ema"] if game.ema else [])]
    return play, {net: partial(game.sample, net=net) for net in nets}


def theirs(game: Any) -> tuple[Play, Painters]:
    """The same step in PyTorch, from the weights of the game, with the noise that it would draw."""
    from benchmarks import networks_torch
    from minigan import random

    torch = torchside.torch()
    channels, size, _ = game.image_shape
    layout, adam = torch.channels_last, torch.optim.Adam
    net = networks_torch.DCGAN(
        size, channels, game.options["width"], lambda p, lr, betas: adam(p, lr, betas, fused=True)
    )
    load(net, game, layout)
    for optimizer, option in ((net.opt_g, "lr"), (net.opt_d, "lr_d")):
        for group in optimizer.param_groups:
            group["lr"] = game.options[option]

    def play(batch: Any) -> dict[str, float]:
        z = torch.from_numpy(game.noise(random.draw("z"), len(batch.images)))
        images = torch.from_numpy(batch.images).to(memory_format=layout)
        losses: dict[str, float] = net.step({"images": images, "z": z})
        return losses

    def paint(z: Any) -> Images:
        net.G.eval()
        with torch.no_grad():
            parts = [net.G(part[:, :, None, None]) for part in torch.from_numpy(z).split(500)]
        net.G.train()
        return torch.cat(parts).contiguous().numpy()

    return play, {"raw": paint}


# The command -----------------------------------------------------------------------------------


def main(options: Any) -> int:
    """The command `quality`."""
    from benchmarks import machine
    from benchmarks.results import OtherMachine
    from minigan.errors import MiniganError

    def say(text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    try:
        results = Results(options.save, machine.facts())
        measure(options, results, say)
    except (OtherMachine, MiniganError, LossesDiffer) as error:
        say(str(error))
        return 2
    except KeyboardInterrupt:
        say("interrupted; what was measured is kept")
        return 130
    found = results.data.get("quality", {})
    print("\n".join(quality_tables(found)) if found else "nothing was measured")
    return 0
