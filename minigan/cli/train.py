"""minigan train: a preset, a dataset and a budget become a run folder."""

from __future__ import annotations

import json
import shlex
import sys
from typing import TYPE_CHECKING, Any

import click

from minigan.cli.train_data import (
    classes_option,
    data_name,
    described,
    load_data,
    make_batches,
)
from minigan.errors import UsageError

if TYPE_CHECKING:
    from minigan.data import Dataset
    from minigan.gans import Game
    from minigan.training.rundir import RunFolder

_STEPS, _DATA = 1000, "digits"


@click.command()
@click.argument("preset", required=False)
@click.option("--data", metavar="NAME|DIR", help="Dataset, or a folder of pictures.  [digits]")
@click.option("--data-root", metavar="DIR", help="Where to look for named datasets first.")
@click.option("--direction", type=click.Choice(["AtoB", "BtoA"]), help="Of pairs.  [AtoB]")
@click.option("--jitter", type=click.FloatRange(1, 2), help="Of pairs: enlarge, then cut.")
@click.option("--flip/--no-flip", default=None, help="Of pairs: mirror half of them.  [flip]")
@click.option("--steps", type=click.IntRange(0), help="Budget in steps.  [1000]")
@click.option("--minutes", type=click.FloatRange(0), help="Budget in minutes.")
@click.option("--kimg", type=click.FloatRange(0), help="Budget in thousands of images.")
@click.option("--batch", type=click.IntRange(1), help="Images per batch.  [of the preset]")
@click.option("--seed", type=click.IntRange(0, 2**63 - 1), help="Of everything random.  [0]")
@click.option("--device", default="auto", show_default=True, help="auto, cpu or cuda.")
@click.option("--out", default="runs", show_default=True, help="Folder of all runs.")
@click.option("--name", help="Name of the run instead of PRESET-DATA-sSEED.")
@click.option("--resume", metavar="RUN", help="Go on with a run; needs nothing else.")
@click.option("-o", "pairs", metavar="KEY=VALUE", multiple=True, help="Option of the preset.")
@click.option("--evaluate", type=click.IntRange(1), metavar="EVERY", help="Steps between metrics.")
@click.option("--classifier", metavar="NAME|FILE", help="Of --evaluate.  [of the data]")
@click.option("--on-nan", type=click.Choice(["stop", "skip"]), help="At NaN.  [stop]")
@click.option("--no-graph", is_flag=True, help="On a GPU: no CUDA graphs of whole steps.")
@click.option("--no-progress", is_flag=True, help="Plain lines instead of a live bar.")
@click.option("-n", "--dry-run", is_flag=True, help="Show the plan and time a few steps.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def train(**given: Any) -> int:
    """Train a GAN; everything goes into a new folder below runs/.

    \b
    minigan train dcgan --data mnist --minutes 10
    minigan train dcgan --data mnist --steps 3000 --evaluate 500   (FID and others of 2,000 images)
    minigan train dcgan64 --data photos/ --steps 20000 -o width=64
    minigan train --resume runs/00003-dcgan-mnist-s0
    minigan train --resume runs/00003-dcgan-mnist-s0 --steps 5000     (a longer budget)

    `minigan info dcgan` lists the options of a preset for -o. Ctrl-C saves and stops.
    """
    if given["resume"]:
        config, run = resumed(given)
    elif given["preset"]:
        config, run = planned(given), None
    else:
        raise UsageError(
            "say what to train", fix="minigan train dcgan, or minigan train --resume RUN"
        )
    return start(config, run, given)


# What to do --------------------------------------------------------------------------------------


def planned(given: dict[str, Any]) -> dict[str, Any]:
    """The configuration of a new run from the options given."""
    from minigan import gans
    from minigan.cli.values import overrides

    preset = given["preset"]
    defaults = gans.options(preset)
    game, changed = gans.PRESETS[preset][0], overrides(preset, given["pairs"], defaults)
    data = data_name(given["data"] or _DATA)
    defaults |= classes_option(game, defaults, changed, data, given["data_root"])
    budget = {name: given[name] for name in ("steps", "minutes", "kimg")}
    if all(value is None for value in budget.values()):
        budget["steps"] = _STEPS
    measured = {name: given[name] for name in ("evaluate", "classifier") if given[name]}
    return {
        "preset": preset,
        "options": defaults | changed,
        "overrides": changed,
        "data": described(given, game, data),
        "batch": given["batch"] or game.batch,
        "seed": given["seed"] or 0,
        "budget": budget,
        "on_nan": given["on_nan"] or "stop",
        **measured,
        "command": command(given),
    }


def resumed(given: dict[str, Any]) -> tuple[dict[str, Any], RunFolder]:
    """The configuration of an old run; the budget, --on-nan and --evaluate may be new."""
    from minigan.training.rundir import RunFolder

    fixed = "preset", "data", "direction", "jitter", "flip", "batch", "seed", "name", "pairs"
    for name in fixed:
        if given[name] not in (None, ()):
            shown = {"preset": "PRESET", "pairs": "-o"}.get(name, f"--{name}")
            raise UsageError(
                f"--resume goes on with the options of the run; {shown} cannot be changed",
                fix="leave it away, or start a new run",
            )
    run = RunFolder.open(given["resume"])
    config = run.config()
    if "data" not in config or "preset" not in config:
        raise UsageError(
            f"the run in {run.path} was made by a script that did not say what data it learns",
            fix="go on from that script, with train(..., resume=True)",
        )
    budget = {name: given[name] for name in ("steps", "minutes", "kimg")}
    if any(value is not None for value in budget.values()):
        config["budget"] = budget
    for name in ("on_nan", "evaluate", "classifier"):
        if given[name]:
            config[name] = given[name]
    return config, run


def command(given: dict[str, Any]) -> str:
    """The command that makes this run again."""
    parts = ["minigan", "train", given["preset"]]
    for name in (
        "data",
        "direction",
        "jitter",
        "steps",
        "minutes",
        "kimg",
        "batch",
        "seed",
        "evaluate",
        "classifier",
        "on_nan",
    ):
        if given[name] is not None:
            value = given[name]
            value = f"{value:g}" if isinstance(value, float) else str(value)
            parts += [f"--{name.replace('_', '-')}", value]
    if given["flip"] is not None:
        parts.append("--flip" if given["flip"] else "--no-flip")
    for pair in given["pairs"]:
        parts += ["-o", pair]
    return shlex.join(parts)


# Doing it ----------------------------------------------------------------------------------------


def start(config: dict[str, Any], run: RunFolder | None, given: dict[str, Any]) -> int:
    """Build the game and its data, train, and say how it ended; returns the exit code."""
    import minigan as mg
    from minigan import gans
    from minigan.data import Prefetch
    from minigan.training import loop
    from minigan.training.rundir import RunFolder

    stream = sys.stderr if given["as_json"] else sys.stdout
    device, why = choose_device(given["device"])
    mg.manual_seed(config["seed"])
    game = gans.make(config["preset"], **config["options"]).to(device)
    dataset = load_data(config, game, given["data_root"])
    batches = make_batches(dataset, config, game)
    if given["dry_run"]:
        from minigan.cli.plan import dry_run

        dry_run(game, batches, config, stream, given["as_json"])
        return 0
    measuring = evaluation(config, dataset)
    resume = run is not None
    if run is None:
        name = given["name"] or f"{config['preset']}-{dataset.name}-s{config['seed']}"
        run = RunFolder.create(given["out"], name)
        run.write_config(config)
    print_banner(game, dataset, config, run, f"{device}{why}", stream)
    every = {k: v for k, v in config.get("every", {}).items() if k != "evaluate"}
    try:
        with Prefetch(batches) as ahead:
            result = loop.train(
                game,
                ahead,
                run,
                **config["budget"],
                **every,
                **measuring,
                resume=resume,
                on_nan=config["on_nan"],
                record=not given["no_graph"],
                config=config,
                progress=not given["no_progress"],
                stream=stream,
            )
    except Exception as error:
        click.echo(f"run    {run.path}", err=True)
        if isinstance(error, MemoryError):
            smaller = max(1, config["batch"] // 2)
            raise MemoryError(
                f"{error} (batch {config['batch']}; try --batch {smaller})"
            ) from error
        raise
    finish(run, result, game, given, stream)
    return 0 if result.signal is None else 128 + result.signal


def choose_device(wanted: str) -> tuple[str, str]:
    """The device, and for `auto` the reason."""
    from minigan.backend import find
    from minigan.errors import ResourceError

    if wanted != "auto":
        return find(wanted).name, ""
    try:
        return find("cuda").name, " (auto)"
    except ResourceError:
        return "cpu", " (auto)"


def evaluation(config: dict[str, Any], dataset: Dataset) -> dict[str, Any]:
    """What `--evaluate EVERY` asks of the loop: the figures of 2,000 images."""
    if not config.get("evaluate"):
        return {}
    from minigan.metrics import Evaluator
    from minigan.metrics.of_game import hook

    judge = Evaluator.for_data(dataset, classifier=config.get("classifier"))
    return {"evaluate": hook(judge), "evaluate_every": config["evaluate"]}


def print_banner(
    game: Game, dataset: Dataset, config: dict[str, Any], run: RunFolder, device: str, stream: Any
) -> None:
    """Four lines that say what runs where on what."""
    import numpy as np

    import minigan
    from minigan.training.budget import Budget
    from minigan.training.environment import instructions_and_threads

    kernels = instructions_and_threads()
    shape = "x".join(map(str, dataset.image_shape[1:] + dataset.image_shape[:1]))
    sizes = " · ".join(
        f"{name} {net.num_parameters() / 1e6:.2f} M parameters"
        for name, net in game.networks.items()
    )
    lines = (
        f"minigan {minigan.__version__} · numpy {np.__version__} · device {device} "
        f"({kernels['simd']}, {kernels['threads']} threads)",
        f"data   {dataset.name:<10} {len(dataset):,} images, {shape}  ({dataset.source})",
        f"model  {config['preset']:<10} {sizes}",
        f"run    {run.path}   seed {config['seed']}   batch {config['batch']}   "
        f"budget {Budget(**config['budget'])}",
    )
    for line in lines:
        print(line, file=stream, flush=True)
        run.log(line)


def finish(run: RunFolder, result: Any, game: Game, given: dict[str, Any], stream: Any) -> None:
    """Say where everything is, or how to go on after an interrupt."""
    from minigan.training.progress import duration

    page = run.path / "report.html"
    if given["as_json"]:
        told = {
            "run": str(run.path),
            "step": result.step,
            "seconds": round(result.seconds, 3),
            "verdict": result.verdict.word,
            "reason": result.verdict.reason,
            "skipped": result.skipped,
            "signal": result.signal,
            "report": str(page) if page.exists() else None,
        }
        click.echo(json.dumps(told))
    ended = "stopped at" if result.signal else "done:"
    lines = [f"{ended} step {result.step} after {duration(result.seconds)}, "
             f"verdict {result.verdict.word}"]  # fmt: skip
    if result.signal:
        lines.append(f"go on  minigan train --resume {shlex.quote(str(run.path))}")
    elif page.exists():
        lines.append(f"report {page}")
        path = shlex.quote(str(run.path))
        lines.append(
            {
                "images": f"sample minigan sample {path} --grid 8x8",
                "labels": f"paint  minigan paint {path}",
            }.get(game.data, f"use    minigan translate {path} IN OUT")
        )
    for line in lines:
        print(line, file=stream, flush=True)
        run.log(line)
