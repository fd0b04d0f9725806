"""minigan info: what a run, a preset, a checkpoint or this machine is."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import click

from minigan.errors import UsageError, did_you_mean


@click.command()
@click.argument("what", metavar="[RUN|PRESET|CKPT|env]", default="presets")
@click.option("--json", "as_json", is_flag=True, help="Print it as JSON.")
def info(what: str, as_json: bool) -> None:
    """Describe a run folder, a preset, a checkpoint file or this machine (env); or list presets.

    Of checkpoints only the header is read, however large they are.
    """
    facts, lines = describe(what)
    click.echo(json.dumps(facts) if as_json else "\n".join(lines))


def describe(what: str) -> tuple[dict[str, Any], list[str]]:
    """Return the facts, and the lines that tell them."""
    from minigan import gans

    path = Path(what)
    if what == "presets":
        return list_presets()
    if what == "env":
        return describe_machine()
    if what in gans.PRESETS:
        return describe_preset(what)
    if path.is_dir():
        return describe_run(path)
    if path.is_file():
        return describe_checkpoint(path)
    raise UsageError(
        f"'{what}' is no run, preset or checkpoint{did_you_mean(what, [*gans.PRESETS, 'env'])}",
        fix=f"presets are {', '.join(gans.PRESETS)}; or give a path, or env",
    )


def list_presets() -> tuple[dict[str, Any], list[str]]:
    """Each preset with the first line of its file."""
    from minigan import gans

    told = {name: headline(game) for name, (game, _) in gans.PRESETS.items()}
    return told, [f"{name:<16} {what}" for name, what in told.items()]


def describe_machine() -> tuple[dict[str, Any], list[str]]:
    """Versions and hardware, the kernels that are compiled, and the GPUs."""
    from minigan import cuda
    from minigan.training.environment import compiled_kernels, environment

    facts, kernels, gpus = environment(), compiled_kernels(), cuda.facts()
    rows = {**facts, "compiled": _kept("functions", kernels, "NUMBA_CACHE_DIR"), **gpu_rows(gpus)}
    lines = [f"{name:<14} {value}" for name, value in rows.items()]
    return facts | {"compiled_kernels": kernels, "cuda": gpus}, lines


def gpu_rows(facts: dict[str, Any]) -> dict[str, str]:
    """What `minigan.cuda.facts` found, a line each."""
    rows = {}
    if facts["missing"]:
        rows["gpu"] = f"none: {facts['missing']}"
    else:
        versions = f"driver for CUDA {facts['driver']}, runtime {facts['runtime']}"
        rows["cupy"] = f"{facts['cupy']}, {versions}"
    for i, gpu in enumerate(facts.get("devices", [])):
        memory = f"{gpu['memory_gib']} GiB ({gpu['free_gib']} free)"
        kind = f"compute capability {gpu['capability']}, kernels: {gpu['architecture']}"
        rows[f"cuda:{i}"] = f"{gpu['name']}, {memory}, {kind}"
    rows["nvrtc"] = facts["nvrtc"]
    rows["cubins"] = _kept("files", facts["cubins"], "MINIGAN_CUBINS")
    classes = facts["precision"]
    rows["gpu precision"] = (
        f"convolutions {classes['convolutions']}, matrix products {classes['products']} "
        "(minigan.precision chooses)"
    )
    return rows


def _kept(what: str, kept: dict[str, Any], variable: str) -> str:
    """How many compiled kernels are kept, and where."""
    text = f"{kept[what]} {what}, {kept['megabytes']} MB in {kept['folder']}"
    if not kept["writable"]:
        text += f" (cannot be written: every process compiles anew; set {variable})"
    return text


def describe_preset(name: str) -> tuple[dict[str, Any], list[str]]:
    """Options with their defaults, and the parameters of the networks."""
    from minigan import gans
    from minigan.cli.plan import parameter_table

    options = gans.options(name)
    game = gans.make(name)
    lines = [f"{name}: {headline(type(game))}", "", "options (-o key=value)"]
    lines += [f"  {key:<12} {value}" for key, value in options.items()]
    told = game.facts()
    lines += ["", *(f"{key}: {value}" for key, value in told.items())] if told else []
    for net_name, net in game.networks.items():
        lines += ["", *parameter_table(net_name, net)]
    counts = {net_name: net.num_parameters() for net_name, net in game.networks.items()}
    facts = {"preset": name, "options": options, "parameters": counts, "facts": told}
    return facts, lines


def headline(game: type) -> str:
    """First line of the file that holds the game."""
    import inspect

    module = inspect.getmodule(game)
    return ((module.__doc__ if module else None) or "").strip().partition("\n")[0]


def describe_run(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Configuration, progress and checkpoints of a run."""
    from minigan.training.page import flat
    from minigan.training.progress import plain_line
    from minigan.training.rundir import RunFolder

    run = RunFolder.open(path)
    config, stats, saved = run.config(), run.stats(), run.checkpoints.paths()
    facts = {
        "run": str(path),
        "config": config,
        "last": stats[-1] if stats else None,
        "checkpoints": [p.name for p in saved],
    }
    lines = [str(path), ""]
    lines += [f"{name:<20} {value}" for name, value in flat(config).items() if value is not None]
    lines += ["", plain_line(stats[-1]) if stats else "no figures yet", ""]
    lines += [f"{p.name}  {p.stat().st_size / 1e6:.1f} MB" for p in saved]
    return facts, lines


def describe_checkpoint(path: Path) -> tuple[dict[str, Any], list[str]]:
    """Tensors and state of a checkpoint, from its header alone."""
    from minigan.training.page import flat
    from minigan.weights import read_header

    tensors, metadata = read_header(path)
    state = metadata.get("state")
    shown = flat(state) if isinstance(state, dict) else metadata
    width = max((len(name) for name in tensors), default=0)
    lines = [f"{path}  {path.stat().st_size / 1e6:.1f} MB, {len(tensors)} tensors", ""]
    lines += [f"{name:<28} {value}" for name, value in shown.items() if value is not None]
    lines.append("")
    lines += [
        f"{name:<{width}}  {dtype:<8} {'x'.join(map(str, shape)) or 'scalar'}"
        for name, (dtype, shape) in sorted(tensors.items())
    ]
    return {"file": str(path), "state": state, "tensors": tensors}, lines
