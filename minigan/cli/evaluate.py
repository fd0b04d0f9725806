"""minigan evaluate: how good are the images of a run, a checkpoint, or a file of arrays?"""

from __future__ import annotations

import json
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigan.errors import DataError, UsageError

if TYPE_CHECKING:
    import numpy.typing as npt

    from minigan.metrics import Evaluator

    Array = npt.NDArray[Any]
    Measured = tuple[Evaluator, dict[str, float], dict[str, Any]]  # judge, figures, of what

_ARRAYS = (".npz", ".npy")


@click.command()
@click.argument("source", metavar="RUN|CKPT|FILE.npz", type=click.Path(path_type=Path))
@click.option("--data", metavar="NAME|DIR", help="Real images to compare with.  [of the run]")
@click.option("--data-root", metavar="DIR", help="Where to look for named datasets first.")
@click.option("--classifier", metavar="NAME|FILE", help="Whose features.  [of the data]")
@click.option("--n", type=click.IntRange(1), help="Images to draw.  [10000]")
@click.option("--net", type=click.Choice(["ema", "raw"]), default="ema", show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of the noise.")
@click.option("--json", "as_json", is_flag=True, help="Print the figures as JSON.")
def evaluate(source: Path, as_json: bool, **how: Any) -> None:
    """Measure images: FID, KID, precision, recall, density, coverage, classes, memorisation.

    \b
    minigan evaluate runs/00000-dcgan-mnist-s0
    minigan evaluate runs/00000-dcgan-mnist-s0/checkpoints/step-000500.safetensors --net raw
    minigan evaluate many.npz --data mnist        images (N, C, H, W) in [-1, 1] or bytes; labels

    Beside each figure stands what as many real images get, and a Gaussian in pixel space. Only
    figures of equal N, data and classifier compare. Those of a run go into its metrics.jsonl and
    report.
    """
    started = time.monotonic()
    if source.suffix in _ARRAYS:
        judge, figures, about = of_arrays(source, how)
    else:
        judge, figures, about = of_game(source, how)
    seconds = time.monotonic() - started
    n = int(figures["n"])
    floor, gaussian = judge.floor(n), judge.gaussian(n)
    if source.is_dir():
        record(source, judge, figures, about, seconds)
    if as_json:
        told = {**about, **judge.about(), "figures": figures, "floor": floor, "gaussian": gaussian}
        click.echo(json.dumps(told))
        return
    from minigan.metrics.table import table

    click.echo("\n".join([*headline(judge, about), "", *table(figures, floor, gaussian)]))


def of_game(
    source: Path, how: dict[str, Any]
) -> tuple[Evaluator, dict[str, float], dict[str, Any]]:
    """Draw from a checkpoint and measure."""
    from minigan import data
    from minigan.cli.sample import load_game
    from minigan.metrics import Evaluator, measure_game
    from minigan.metrics.of_game import FULL

    game, about = load_game(source)
    name = how["data"] or data_of(source)
    channels, height, width = game.image_shape
    dataset = data.load(name, size=(height, width), channels=channels, root=how["data_root"])
    judge = Evaluator.for_data(dataset, classifier=how["classifier"])
    net = how["net"] if game.ema else "raw"
    figures = measure_game(judge, game, how["n"] or FULL, net=net, seed=how["seed"])
    shown = {"source": str(source), "preset": about["preset"], "step": about["step"], "net": net}
    return judge, figures, {**shown, "seed": how["seed"]}


def of_arrays(source: Path, how: dict[str, Any]) -> Measured:
    """Measure the images of a file."""
    from minigan.metrics import Evaluator

    if how["data"] is None:
        raise UsageError(
            f"{source} does not say what its images should look like",
            fix="name the real images: --data mnist",
        )
    images, labels = read_arrays(source)
    if how["n"] is not None and how["n"] > len(images):
        raise DataError(f"{source} holds {len(images)} images, not {how['n']}")
    images, labels = images[: how["n"]], None if labels is None else labels[: how["n"]]
    size = images.shape[2:] if images.ndim == 4 else None
    judge = Evaluator.for_data(
        how["data"], classifier=how["classifier"], size=size, root=how["data_root"]
    )
    return judge, judge.measure(images, labels), {"source": str(source)}


def read_arrays(source: Path) -> tuple[Array, Array | None]:
    """`images`, and `labels` if there are any, of a .npz file; or the array of a .npy file."""
    import numpy as np

    try:
        held = np.load(source, allow_pickle=False)
        if isinstance(held, np.ndarray):
            return held, None
        with held:
            if "images" not in held:
                raise DataError(
                    f"{source} holds {', '.join(held) or 'nothing'}, but no 'images'",
                    fix="write it with numpy.savez(FILE, images=...), or minigan sample --out",
                )
            return held["images"], held["labels"] if "labels" in held else None
    except FileNotFoundError as error:
        raise UsageError(f"there is no file {source}") from error
    except (OSError, ValueError, EOFError) as error:
        if isinstance(error, DataError):
            raise
        raise DataError(f"{source} cannot be read as arrays", why=str(error)) from error


def data_of(source: Path) -> str:
    """What a run, or the run that a checkpoint belongs to, learned from."""
    from minigan.training import checkpoint
    from minigan.training.rundir import RunFolder

    if source.is_dir():
        config = RunFolder.open(source).config()
    else:
        config = checkpoint.load_state(source)["config"]
    if "data" not in config:
        raise UsageError(
            f"{source} does not say what data it learned from", fix="name it: --data mnist"
        )
    return str(config["data"]["name"])


def record(
    source: Path, judge: Evaluator, figures: dict[str, float], about: dict[str, Any], seconds: float
) -> None:
    """Add the figures to the run and rebuild its report."""
    from minigan.metrics.of_game import line
    from minigan.training.report import report
    from minigan.training.rundir import RunFolder

    run = RunFolder.open(source)
    measured = {"step": about["step"], "sec": round(seconds, 2)}
    run.add_metrics(measured | line(judge, figures, about["net"]))
    report([run.path])


def headline(judge: Evaluator, about: dict[str, Any]) -> list[str]:
    """What was measured, against what, and through whose eyes."""
    facts = judge.about()
    step = f", step {about['step']:,}, net {about['net']}" if "step" in about else ""
    right = facts["classifier_accuracy"]
    accuracy = "" if right is None else f", {right:.1%} right"
    return [
        f"{about['source']}{step}",
        f"against {facts['reference']:,} images of {facts['data']}, with the classifier of "
        f"{facts['classifier']} (sha256 {facts['classifier_sha256'][:12]}{accuracy})",
    ]
