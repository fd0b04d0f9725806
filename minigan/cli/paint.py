"""minigan paint: paint a label map in the browser and watch a generator make a picture of it."""

from __future__ import annotations

import importlib.util
import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigan.errors import UsageError

if TYPE_CHECKING:
    from minigan.apps.painters import Generator, Painter
    from minigan.data.classmaps import Classes

# The generator for `scenes` that ships with minigan; made by the command in its folder's README.
SHIPPED = Path(__file__).parent.parent / "apps" / "weights" / "scenes.safetensors"


@click.command()
@click.argument("source", metavar="[RUN|CKPT]", required=False, type=click.Path(path_type=Path))
@click.option("--procedure", is_flag=True, help="No network: what makes `scenes` paints.")
@click.option("--size", type=click.IntRange(16, 512), help="Of the map.  [that of the training]")
@click.option("--net", type=click.Choice(["ema", "raw"]), default="ema", show_default=True)
@click.option("--port", type=click.IntRange(0, 65535), default=0, help="0 is any that is free.")
@click.option("--open", "browse", is_flag=True, help="Open the page in the browser, too.")
@click.option("--json", "as_json", is_flag=True, help="Print the address as JSON.")
def paint(
    source: Path | None,
    procedure: bool,
    size: int | None,
    net: str,
    port: int,
    browse: bool,
    as_json: bool,
) -> None:
    """Paint label maps in the browser with SPADE, GauGAN or pix2pixHD.

    \b
    minigan paint                   the generator for landscapes that ships with minigan
    minigan paint RUN               one of yours
    minigan paint --procedure       no network at all

    The page is served to this machine only, at an address that holds a secret. Ctrl-C stops.
    """
    check_web()
    from minigan.apps import server
    from minigan.apps.paint import application

    if procedure and source is not None:
        raise UsageError("--procedure paints without a run", fix="leave one of them away")
    painter = choose_painter(source, procedure, size, net)
    made, token = server.listen(port), server.new_token()
    port = made.getsockname()[1]
    address = f"http://{server.HOST}:{port}/#{token}"
    app = application(painter, token, port)
    height, width = painter.size
    about = f"{painter.title}, {len(painter.names)} classes, {height}x{width}"
    if as_json:
        click.echo(json.dumps({"address": address, "painter": about}))
    else:
        click.echo(f"paint  {about}\nopen   {address}\n       Ctrl-C stops")
    if browse:
        import webbrowser

        webbrowser.open(address)
    server.serve(app, made)


def check_web() -> None:
    """Say what to install if the extra `web` is missing."""
    missing = [name for name in ("starlette", "uvicorn") if not importlib.util.find_spec(name)]
    if missing:
        raise UsageError(
            f"minigan paint needs {' and '.join(missing)}", fix="pip install 'minigan[web]'"
        )


def choose_painter(source: Path | None, procedure: bool, size: int | None, net: str) -> Painter:
    """What the arguments ask for."""
    from minigan.apps.painters import Procedure

    if procedure:
        return Procedure(size or 96)
    if source is not None:
        return painter_of(source, size, net)
    if SHIPPED.is_file():
        return painter_of(SHIPPED, size, net)
    raise UsageError(
        "no generator ships with this minigan",
        why=f"there is no {SHIPPED.name} beside its code",
        fix="minigan paint RUN for one that you trained (minigan train spade --data scenes), "
        "or minigan paint --procedure to paint without a network",
    )


def painter_of(source: Path, size: int | None = None, net: str = "ema") -> Generator:
    """The generator of a run or a checkpoint, with the names of its classes if they are known."""
    from minigan.apps.painters import Generator
    from minigan.cli.sample import load_game
    from minigan.gans.labels import LabelGame

    game, about = load_game(source)
    if not isinstance(game, LabelGame):
        raise UsageError(
            f"{about['preset']} paints no label maps",
            where=str(source),
            fix="give a run of spade, gaugan or pix2pixhd",
        )
    known = classes_of(data_of(source), game.classes)
    note = f"step {about['step']:,}"
    return Generator(game, known.names, known.colours, note, net, size)


def data_of(source: Path) -> str:
    """The name or the folder of the data that a run learned from; empty if it cannot be told."""
    from minigan.training.rundir import RunFolder

    folder = source if source.is_dir() else source.parent.parent
    if not (folder / "config.json").is_file():
        return "scenes" if source == SHIPPED else ""
    described: Any = RunFolder.open(folder).config().get("data", {})
    return str(described.get("name", "")) if isinstance(described, dict) else str(described)


def classes_of(data: str, count: int) -> Classes:
    """Names and colours: of `scenes`, of the data's classes.txt, or numbers."""
    from minigan.data import classmaps, places, scenes, sets

    if data == "scenes" and count == len(scenes.CLASSES):
        return classmaps.Classes(scenes.CLASSES, scenes.COLOURS)
    folders = [Path(data)] if data else []
    if data in sets.PICTURE_SET_NAMES:
        folders += places.search(data, None)
    for folder in folders:
        if (folder / "classes.txt").is_file():
            known = classmaps.read_classes(folder / "classes.txt")
            if len(known.names) == count:
                return known
    return classmaps.Classes(tuple(f"class {k}" for k in range(count)), classmaps.palette(count))
