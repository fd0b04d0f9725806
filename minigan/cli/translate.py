"""minigan translate: put pictures, or a folder of them, through pix2pix or CycleGAN."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigan.errors import DataError, UsageError

if TYPE_CHECKING:
    from minigan.gans import Game

_MOST = 4_000_000  # pixels of a picture that is translated whole


@click.command()
@click.argument("source", metavar="RUN|CKPT", type=click.Path(path_type=Path))
@click.argument("inputs", metavar="IN", type=click.Path(path_type=Path))
@click.argument("out", metavar="OUT", type=click.Path(path_type=Path))
@click.option("--direction", metavar="AtoB|BtoA", help="Of a CycleGAN.  [the first it learned]")
@click.option("--net", type=click.Choice(["ema", "raw"]), default="ema", show_default=True)
@click.option("--size", type=click.IntRange(8), help="Scale and cut to this square first.")
@click.option("--compare", is_flag=True, help="Write input and output side by side.")
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True, help="Of dropout.")
@click.option("--json", "as_json", is_flag=True, help="Print what was written as JSON.")
def translate(source: Path, inputs: Path, out: Path, as_json: bool, **how: Any) -> None:
    """Turn pictures into others with a run of pix2pix or CycleGAN.

    \b
    minigan translate RUN photo.jpg painting.png
    minigan translate RUN photos/ paintings/ --direction BtoA --compare

    Pictures keep their size, whatever the run was trained with. A folder's pictures go to a folder
    under their own names, as PNG. One that cannot be read is named, and the others are done.
    """
    from minigan.cli.sample import load_game

    game, about = load_game(source)
    if not game.directions:
        raise UsageError(
            f"{game.name} does not turn pictures into others",
            fix="train pix2pix or cyclegan; from noise draws `minigan sample`",
        )
    pairs = files(inputs, out)
    written, refused = [], []
    for picture, target in pairs:
        try:
            one(game, picture, target, **how)
            written.append(str(target))
        except DataError as error:
            if len(pairs) == 1:
                raise
            refused.append(str(picture))
            click.echo(f"left out: {error}", err=True)
    told = {"written": written, "refused": refused, "step": about["step"]}
    left_out = f", {len(refused)} left out" if refused else ""
    summary = f"{out}: {len(written)} pictures of step {about['step']}{left_out}"
    click.echo(json.dumps(told) if as_json else summary)
    if refused and not written:
        raise DataError(f"none of the {len(pairs)} pictures in {inputs} could be read")


def files(inputs: Path, out: Path) -> list[tuple[Path, Path]]:
    """What is read, and where it goes: a file to a file, a folder's pictures to a folder."""
    from minigan.data.picture import SUFFIXES

    if inputs.is_file():
        if out.is_dir() or not out.suffix:
            return [(inputs, out / f"{inputs.stem}.png")]
        if out.suffix != ".png":
            raise UsageError(f"cannot write '{out.suffix}' files", fix="name a .png file")
        return [(inputs, out)]
    if not inputs.is_dir():
        raise UsageError(f"there is no file or folder {inputs}")
    found = sorted(p for p in inputs.iterdir() if p.suffix.lower() in SUFFIXES)
    if not found:
        raise DataError(f"{inputs} holds no pictures", fix=f"it takes {', '.join(SUFFIXES)}")
    if out.exists() and not out.is_dir():
        raise UsageError(f"{out} is a file, and {inputs} a folder", fix="name a folder")
    named: dict[Path, Path] = {}
    for path in found:
        first = named.setdefault(out / f"{path.stem}.png", path)
        if first is not path:
            raise UsageError(f"{first.name} and {path.name} would both become {path.stem}.png")
    return [(path, target) for target, path in named.items()]


def one(
    game: Game,
    picture: Path,
    target: Path,
    direction: str | None,
    net: str,
    size: int | None,
    compare: bool,
    seed: int,
) -> None:
    """Read a picture, translate it, write it."""
    import numpy as np

    from minigan.data import read_picture, save_png, to_float, to_uint8

    channels = game.takes(direction)
    shape = None if size is None else (size, size)
    pixels = read_picture(picture, shape, channels, limit=_MOST if size is None else 16 * _MOST)
    made = to_uint8(game.translate(to_float(pixels)[None], direction, net=net, seed=seed)[0])
    if compare:
        sides = [np.broadcast_to(side, (3, *side.shape[1:])) for side in (pixels, made)]
        made = np.concatenate(sides, axis=2)
    target.parent.mkdir(parents=True, exist_ok=True)
    save_png(target, made.transpose(1, 2, 0))
