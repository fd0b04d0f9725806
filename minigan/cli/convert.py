"""minigan convert: weights of PyTorch as safetensors, without PyTorch."""

from __future__ import annotations

import json
import math
from pathlib import Path

import click


@click.command()
@click.argument("source", metavar="IN.pth", type=click.Path(path_type=Path))
@click.argument("target", metavar="OUT.safetensors", type=click.Path(path_type=Path))
@click.option("--key", help="Keep one network of several, such as g_ema or state_dict.netG.")
@click.option("--force", is_flag=True, help="Replace OUT if it exists.")
@click.option("--json", "as_json", is_flag=True, help="Print the result as JSON.")
def convert(source: Path, target: Path, key: str | None, force: bool, as_json: bool) -> None:
    """Convert weights of PyTorch (.pth) to .safetensors.

    PyTorch is not needed, and nothing in the file is executed: files that hold more than tensors
    and plain containers are refused. Names stay as they are; minigan.weights.load knows those of
    published networks.
    """
    from minigan.weights import convert as convert_file

    done = convert_file(source, target, key, force)
    if as_json:
        click.echo(json.dumps({"file": str(target)} | vars(done)))
        return
    count = numbers = 0
    width = max(len(name) for tensors in done.tensors.values() for name in tensors)
    for state, tensors in done.tensors.items():
        if state:
            click.echo(f"\n{state}")
        for name, (dtype, shape) in tensors.items():
            shown = name if name.isprintable() else ascii(name)
            click.echo(f"{shown:<{width}}  {dtype:<8} {'x'.join(map(str, shape)) or 'scalar'}")
            count += 1
            numbers += math.prod(shape)
    size = target.stat().st_size / 1e6
    click.echo(f"\n{target}: {count} tensors, {numbers:,} numbers, {size:.1f} MB")
    click.echo(f"names of the family {done.family}")
