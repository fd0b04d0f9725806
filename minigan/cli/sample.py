"""minigan sample: pictures, grids, walks through the noise, and arrays from a checkpoint.

Each image is computed alone, from the noise of its own seed. So a seed gives the same image
whatever else is drawn with it.
"""

from __future__ import annotations

import functools
import json
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from minigan.errors import CheckpointError, UsageError

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

    from minigan.gans import Game

    Array = npt.NDArray[Any]
    Bytes = npt.NDArray[np.uint8]

_SEEDS, _WALK_SEEDS = "0-15", "0-3"
_SUFFIXES = (".png", ".gif", ".webp", ".npz", ".npy")
_FRAME_MS = 50
_MODES = {
    "eval": "eval: running statistics, one image at a time",
    "standing": "standing: statistics of 16 batches of fresh noise, one image at a time",
}


@click.command()
@click.argument("source", metavar="RUN|CKPT", type=click.Path(path_type=Path))
@click.option("--seeds", help=f"Like 0-15,42.  [{_SEEDS}, or as many as --grid has places]")
@click.option("--grid", help="Rows x columns, like 4x8.  [about square]")
@click.option("--classes", help="Of a conditional GAN, one after the other, like 0-3,7.  [all]")
@click.option("--net", type=click.Choice(["ema", "raw"]), default="ema", show_default=True)
@click.option("--mode", type=click.Choice(list(_MODES)), help="Statistics of norms.  [the GAN's]")
@click.option("--truncation", type=float, help="BigGAN: draw noise beyond it again, like 0.7.")
@click.option("--interpolate", type=click.Choice(["slerp", "lerp", "circle"]), help="Walk.")
@click.option("--frames", type=click.IntRange(2, 10_000), default=60, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), default=Path("sample.png"))
@click.option("--json", "as_json", is_flag=True, help="Print what was drawn as JSON.")
def sample(source: Path, out: Path, as_json: bool, **how: Any) -> None:
    """Draw images from a run or a checkpoint file.

    \b
    minigan sample RUN --seeds 0-63 --grid 8x8 --out grid.png
    minigan sample RUN --interpolate slerp --seeds 0-7 --frames 120 --out walk.gif
    minigan sample RUN --seeds 0-9999 --out many.npz      images (N, C, H, W) in [-1, 1]

    With --interpolate and a grid, each place walks through seeds of its own. lerp goes straight,
    slerp along the sphere that the noise lies on, circle around the two first seeds of a place.
    """
    if out.suffix not in _SUFFIXES:
        raise UsageError(f"cannot write '{out.suffix}' files", fix=f"use {', '.join(_SUFFIXES)}")
    game, about = load_game(source)
    about["net"] = how["net"] if game.ema else "raw"
    about["mode"] = _MODES[how["mode"] or getattr(game, "mode", "eval")]
    about["truncation"] = how["truncation"]
    walk = how["interpolate"] is not None
    seeds, rows, columns = arrange(how["seeds"], how["grid"], walk)
    labels = class_labels(how["classes"], len(seeds), getattr(game, "classes", 0))
    about |= {"seeds": seeds, "labels": labels, "interpolate": how["interpolate"]}
    if walk:
        images = walk_images(game, seeds, rows * columns, how, labels)
        write_walk(out, images, rows, columns, about)
    else:
        images = draw(game, noise_of(game, seeds, how["truncation"]), labels, how)
        write_images(out, images, columns, about)
    if as_json:
        click.echo(json.dumps({"out": str(out), "images": len(images), **about}))
    else:
        click.echo(f"{out}: {len(images)} images of step {about['step']}, net {about['net']}")


def load_game(source: Path) -> tuple[Game, dict[str, Any]]:
    """Build the game that a checkpoint describes and give it the weights."""
    from minigan import gans
    from minigan.training import checkpoint
    from minigan.training.rundir import RunFolder

    if source.is_dir():
        snapshot = RunFolder.open(source).checkpoints.load()
    elif source.exists():
        snapshot = checkpoint.load(source)
    else:
        raise UsageError(f"there is no run or checkpoint {source}", fix="see `ls runs`")
    config = snapshot.state["config"]
    if config["preset"] not in gans.PRESETS:
        raise CheckpointError(
            f"{snapshot.path} is of a GAN named '{config['preset']}', which is no preset here",
            fix="sample it from the program that trained it, or update minigan",
        )
    game = gans.make(config["preset"], **config["options"])
    checkpoint.check_fits(game.state_dict(), snapshot.arrays, str(snapshot.path))
    game.load_state_dict(snapshot.arrays)
    about = {"preset": config["preset"], "step": snapshot.step, "checkpoint": snapshot.path.name}
    return game, about


def arrange(seeds: str | None, grid: str | None, walk: bool) -> tuple[list[int], int, int]:
    """The seeds, and the rows and columns of the picture."""
    from minigan.cli import values

    rows, columns = values.grid(grid) if grid else (0, 0)
    places = rows * columns
    if seeds is None and places:
        wanted = list(range(4 * places if walk else places))
    else:
        wanted = values.integers(seeds or (_WALK_SEEDS if walk else _SEEDS))
    if walk and not places:
        return wanted, 1, 1
    if not places:
        columns = int(-(-(len(wanted) ** 0.5) // 1))
        return wanted, -(-len(wanted) // columns), columns
    if not walk and len(wanted) > places:
        raise UsageError(f"{len(wanted)} seeds do not fit into a grid of {rows}x{columns}")
    return wanted, rows, columns


def class_labels(classes: str | None, count: int, known: int = 0) -> list[int] | None:
    """One class per image, starting over when they are used up; by default all that are known."""
    from minigan.cli import values

    if classes is None and not known:
        return None
    chosen = list(range(known)) if classes is None else values.integers(classes)
    return [chosen[i % len(chosen)] for i in range(count)]


def noise_of(game: Game, seeds: Sequence[int], truncation: float | None = None) -> Array:
    """The noise of each seed, drawn from a stream of its own."""
    import numpy as np

    from minigan.random import generator

    noise: Any = game.noise
    if truncation is not None:
        if not hasattr(game, "truncated_noise"):
            raise UsageError(f"{game.name}: this GAN has no truncation", fix="leave it away")
        noise = functools.partial(game.truncated_noise, threshold=truncation)
    return np.concatenate([noise(generator(seed, "sample", 0), 1) for seed in seeds])


def draw(game: Game, z: Array, labels: Sequence[int] | None, how: dict[str, Any]) -> Array:
    """Images (N, C, H, W) in [-1, 1], computed one by one."""
    import numpy as np

    chosen = {"net": how["net"]} | ({"mode": how["mode"]} if how["mode"] else {})

    def one(i: int) -> Array:
        label = None if labels is None else np.array([labels[i]])
        return game.sample(z[i : i + 1], labels=label, **chosen)

    return np.concatenate([one(i) for i in range(len(z))])


# Walks -------------------------------------------------------------------------------------------


def walk_images(
    game: Game, seeds: list[int], places: int, how: dict[str, Any], labels: list[int] | None
) -> Array:
    """Images (frames * places, C, H, W); every place walks a closed way through its seeds."""
    import numpy as np

    needs = 2 * places
    if len(seeds) < needs:
        raise UsageError(
            f"a walk in {places} places needs at least {needs} seeds, got {len(seeds)}",
            fix=f"--seeds 0-{2 * needs - 1}",
        )
    z = noise_of(game, seeds, how["truncation"])
    ways = [z[place::places] for place in range(places)]
    points = [
        between(way, frame / how["frames"], how["interpolate"])
        for frame in range(how["frames"])
        for way in ways
    ]
    chosen = None if labels is None else [labels[i % places] for i in range(len(points))]
    return draw(game, np.stack(points), chosen, how)


def between(way: Array, t: float, kind: str) -> Array:
    """The noise at 0 <= t < 1 of a closed way through the rows of `way`.

    lerp: (1-s) a + s b.  slerp: (sin((1-s) w) a + sin(s w) b) / sin(w), w the angle of a and b.
    circle: cos(2 pi t) a + sin(2 pi t) b, which keeps normal noise normal.
    """
    import numpy as np

    if kind == "circle":
        angle = 2 * np.pi * t
        mixed = np.cos(angle) * way[0] + np.sin(angle) * way[1]
        return mixed.astype(way.dtype)
    start = int(t * len(way))
    s, a, b = t * len(way) - start, way[start], way[(start + 1) % len(way)]
    if kind == "lerp":
        return ((1 - s) * a + s * b).astype(way.dtype)
    flat_a, flat_b = a.reshape(-1).astype(np.float64), b.reshape(-1).astype(np.float64)
    norms = float(np.linalg.norm(flat_a) * np.linalg.norm(flat_b)) or 1.0
    angle = float(np.arccos(np.clip(flat_a @ flat_b / norms, -1.0, 1.0)))
    if np.sin(angle) < 1e-6:
        return ((1 - s) * a + s * b).astype(way.dtype)
    mixed = (np.sin((1 - s) * angle) * a + np.sin(s * angle) * b) / np.sin(angle)
    return mixed.astype(way.dtype)


# Files -------------------------------------------------------------------------------------------


def write_images(out: Path, images: Array, columns: int, about: dict[str, Any]) -> None:
    """One grid as a picture, or the arrays."""
    from minigan.data.grid import image_grid

    if out.suffix in (".npz", ".npy"):
        write_arrays(out, images, about)
    else:
        write_pictures(out, [image_grid(images, columns, scale_of(images))], about)


def write_walk(out: Path, images: Array, rows: int, columns: int, about: dict[str, Any]) -> None:
    """One grid per frame as an animation; a PNG shows each walk as a row; or the arrays."""
    from minigan.data.grid import image_grid

    places = rows * columns
    walks = images.reshape(-1, places, *images.shape[1:])  # frame, place, C,H,W
    if out.suffix in (".npz", ".npy"):
        write_arrays(out, walks, about)
    elif out.suffix == ".png":
        by_place = walks.swapaxes(0, 1).reshape(images.shape)
        write_pictures(out, [image_grid(by_place, len(walks), scale_of(images))], about)
    else:
        grids = [image_grid(frame, columns, scale_of(images)) for frame in walks]
        write_pictures(out, grids, about)


def write_arrays(out: Path, images: Array, about: dict[str, Any]) -> None:
    """images as .npy, or images, seeds and a description as .npz."""
    import io

    import numpy as np

    from minigan.weights.atomic import write_bytes

    buffer = io.BytesIO()
    if out.suffix == ".npy":
        np.save(buffer, images, allow_pickle=False)
    else:
        described = np.array(json.dumps(about))
        np.savez_compressed(buffer, images=images, seeds=about["seeds"], about=described)
    write_bytes(out, buffer.getbuffer())


def scale_of(images: Array) -> int:
    """Enlarge small images two to four times."""
    return min(4, max(1, 128 // int(images.shape[-1])))


def write_pictures(out: Path, grids: Sequence[Bytes], about: dict[str, Any]) -> None:
    """Write one picture, or several as an endless animation; PNG keeps how it was made."""
    import io

    from PIL.PngImagePlugin import PngInfo

    from minigan.data.grid import to_pillow
    from minigan.weights.atomic import write_bytes

    first, *others = [to_pillow(grid) for grid in grids]
    options: dict[str, Any] = {}
    if out.suffix == ".png":
        options["pnginfo"] = PngInfo()
        options["pnginfo"].add_text("minigan", json.dumps(about))
    elif others:
        options |= {"save_all": True, "append_images": others, "duration": _FRAME_MS, "loop": 0}
    if out.suffix == ".webp":
        options["lossless"] = True
    buffer = io.BytesIO()
    first.save(buffer, out.suffix[1:].upper(), **options)
    write_bytes(out, buffer.getbuffer())
