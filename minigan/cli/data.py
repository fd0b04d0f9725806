"""minigan data: what datasets there are, fetching, checking and looking at them."""

from __future__ import annotations

import dataclasses
import json
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import click

_root = click.option("--data-root", metavar="DIR", help="Where to look for named datasets first.")
_json = click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")


@click.group()
def data() -> None:
    """List, fetch, check and look at datasets."""


@data.command("list")
@_root
@_json
def list_(data_root: str | None, as_json: bool) -> None:
    """List the named datasets and where they are on this machine."""
    from minigan.data import list_sets

    found = list_sets(data_root)
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(one) for one in found]))
        return
    for one in found:
        size = one.download_bytes / 1e6
        missing = f"not here: minigan data get {one.name} ({size:.0f} MB)"
        if not one.mirrors:
            missing = "not here, and cannot be downloaded: minigan data get says where to put it"
        place = one.place or missing
        click.echo(f"{one.name:<15} {one.counts['train']:>7,} images   {place}")


@data.command()
@click.argument("name")
@_json
def get(name: str, as_json: bool) -> None:
    """Download a named dataset into the cache."""
    from minigan.data import get as fetch

    folder = fetch(name, progress_printer("MB", 1e6))
    if as_json:
        click.echo(json.dumps({"name": name, "folder": str(folder)}))
    else:
        click.echo(f"{name} is in {folder}")


@data.command()
@click.argument("source", metavar="NAME|DIR")
@_root
@_json
def info(source: str, data_root: str | None, as_json: bool) -> None:
    """Say what is in a dataset: images, sizes, classes, where it comes from."""
    from minigan.data import info as named_info
    from minigan.data.picture_sets import PICTURE_SETS
    from minigan.data.sets import NAMED_SETS

    if source in NAMED_SETS or source in PICTURE_SETS:
        facts: dict[str, Any] = dataclasses.asdict(named_info(source, data_root))
    else:
        facts = folder_facts(source)
    if as_json:
        click.echo(json.dumps(facts))
        return
    for name, value in facts.items():
        if isinstance(value, dict):
            value = ", ".join(f"{key} {count:,}" for key, count in value.items())
        elif isinstance(value, list | tuple):
            value = ", ".join(map(str, value))
        click.echo(f"{name.replace('_', ' '):<15} {value}")


@data.command()
@click.argument("source", metavar="NAME|DIR")
@click.option("--pairs", is_flag=True, help="The pictures of a folder are pairs side by side.")
@_root
@_json
def check(source: str, pairs: bool, data_root: str | None, as_json: bool) -> int:
    """Verify checksums of a named dataset, or every picture of a folder.

    Where pictures come in twos (photo and label, A and B, trainA and trainB) also that they fit
    together: partners, sizes, channels, class numbers. Names file, pixel and value.
    """
    from minigan.data import check as verify

    states = verify(source, data_root, progress_printer("pictures", 1), pairs=pairs)
    bad = [state for state in states if state.state != "ok"]
    if as_json:
        click.echo(json.dumps([dataclasses.asdict(state) for state in states]))
    else:
        for state in states:
            reason = f"  ({state.reason})" if state.reason else ""
            click.echo(f"{state.state:<8} {state.path or state.name}{reason}")
        click.echo(f"{len(bad)} of the files are not usable" if bad else "all is well")
    return 4 if bad else 0


@data.command("make-pairs")
@click.argument("a", metavar="A")
@click.argument("b", metavar="B")
@click.argument("out", metavar="OUT")
@click.option("--size", type=click.IntRange(1), help="Side of each half.  [as the pictures are]")
@_json
def make_pairs(a: str, b: str, out: str, size: int | None, as_json: bool) -> None:
    """Join the pictures of folders A and B that have the same names: A left, B right."""
    from minigan.data import make_pairs as join

    pair = None if size is None else (size, size)
    count = join(a, b, out, size=pair, step=progress_printer("pairs", 1))
    if as_json:
        click.echo(json.dumps({"pairs": count, "folder": out}))
    else:
        click.echo(f"{count} pairs are in {out}")


@data.command()
@click.argument("source", metavar="NAME|DIR")
@click.option("--out", type=click.Path(path_type=Path), default=Path("preview.png"))
@click.option("--split", default="train", show_default=True)
@click.option("--size", type=click.IntRange(1), help="Side of the images, as in training.")
@click.option("--channels", type=click.Choice(["1", "3"]), help="Grey or colour.")
@_root
def preview(
    source: str,
    out: Path,
    split: str,
    size: int | None,
    channels: str | None,
    data_root: str | None,
) -> None:
    """Write a picture of the first images, prepared as in training."""
    from minigan import data

    dataset = data.load(
        source,
        split=split,
        size=size,
        channels=int(channels) if channels else None,
        root=data_root,
    )
    data.preview(dataset).save(out)
    click.echo(f"{out}: {dataset!r}")


def folder_facts(source: str) -> dict[str, Any]:
    """Counts, sizes and classes of a folder of pictures."""
    from collections import Counter

    from minigan.data import load
    from minigan.data.folder import FolderDataset
    from minigan.data.picture import picture_size

    dataset = load(source)
    facts: dict[str, Any] = {"name": dataset.name, "images": len(dataset)}
    if isinstance(dataset, FolderDataset):
        sizes = Counter(picture_size(dataset.root / path) for path in dataset.paths)
        common = sizes.most_common(5)
        facts["sizes"] = {f"{width}x{height}": count for (width, height), count in common}
        facts["other_sizes"] = len(dataset) - sum(count for _, count in common)
    if dataset.labels is None and dataset.classes:
        facts["classes"] = list(dataset.classes)
    if dataset.labels is not None:
        counts = Counter(dataset.labels.tolist())
        names = dataset.classes or tuple(str(i) for i in sorted(counts))
        facts["classes"] = {name: counts[i] for i, name in enumerate(names)}
    return facts | {"source": dataset.source}


def progress_printer(unit: str, scale: float) -> Callable[..., None]:
    """A function that redraws one line on a terminal, and prints nothing elsewhere."""
    drawn = 0.0

    def show(*values: Any) -> None:
        nonlocal drawn
        *name, done, total = values
        now = time.monotonic()
        if not sys.stderr.isatty() or (now - drawn < 0.1 and done != total):
            return
        drawn = now
        title = f"{name[0]}  " if name else ""
        end = "\n" if done == total else ""
        amount = f"{done / scale:.0f} of {(total or 0) / scale:.0f} {unit}"
        click.echo(f"\r\x1b[2K{title}{amount}{end}", nl=False, err=True)

    return show
