"""minigan report: rebuild the page of a run, or compare several."""

from __future__ import annotations

import json
from pathlib import Path

import click


@click.command()
@click.argument("runs", nargs=-1, required=True, type=click.Path(path_type=Path))
@click.option("--out", type=click.Path(path_type=Path), help="Where to write the page.")
@click.option("--json", "as_json", is_flag=True, help="Print the path as JSON.")
def report(runs: tuple[Path, ...], out: Path | None, as_json: bool) -> None:
    """Write report.html of a run; of several runs, a page that compares them."""
    from minigan.training.report import report as build

    path = build(runs, out)
    size = path.stat().st_size
    if as_json:
        click.echo(json.dumps({"report": str(path), "bytes": size}))
    else:
        click.echo(f"{path} ({size / 1e6:.1f} MB)")
