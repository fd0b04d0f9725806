"""The group of commands, and what is printed when one of them fails.

Exit codes: 0 done; 1 a mistake of the caller; 2 wrong usage; 3 NaN or infinity; 4 damaged or
missing data, or a checkpoint that does not fit; 5 out of memory; 130 Ctrl-C, 143 SIGTERM.
MINIGAN_DEBUG=1 shows tracebacks.
"""

from __future__ import annotations

import os
import sys
import warnings
from collections.abc import Sequence
from typing import Any

import click
from minigan_kernels.cuda.launch_error import REMEDY, is_fatal

import minigan
from minigan import holders
from minigan.cli.convert import convert
from minigan.cli.data import data
from minigan.cli.evaluate import evaluate
from minigan.cli.info import info
from minigan.cli.paint import paint
from minigan.cli.report import report
from minigan.cli.sample import sample
from minigan.cli.train import train
from minigan.cli.translate import translate
from minigan.errors import (
    CheckpointError,
    DataError,
    MiniganError,
    NumericError,
    did_you_mean,
)


class Commands(click.Group):
    """A group that suggests the command that was probably meant."""

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        name = args[0] if args else ""
        if name and not name.startswith("-") and self.get_command(ctx, name) is None:
            known = self.list_commands(ctx)
            ctx.fail(
                f"no command '{name}'{did_you_mean(name, known)}; there are {', '.join(known)}"
            )
        return super().resolve_command(ctx, args)


@click.group(cls=Commands, context_settings={"help_option_names": ["-h", "--help"]})
@click.version_option(minigan.__version__, package_name="minigan", message="minigan %(version)s")
def app() -> None:
    """Train GANs, draw samples, look into runs.

    \b
    minigan train dcgan                     the procedural digits, no download
    minigan train dcgan --data mnist --minutes 10
    minigan sample runs/00000-dcgan-digits-s0 --seeds 0-63 --out grid.png
    minigan evaluate runs/00000-dcgan-digits-s0
    minigan report runs/00000-dcgan-digits-s0
    minigan convert latest_net_G.pth G.safetensors
    minigan paint                           label maps into pictures, in the browser
    """


app.add_command(train)
app.add_command(sample)
app.add_command(translate)
app.add_command(evaluate)
app.add_command(info)
app.add_command(data)
app.add_command(report)
app.add_command(convert)
app.add_command(paint)


def main(arguments: Sequence[str] | None = None) -> None:
    """Run the command line and leave the process with its exit code."""
    warnings.showwarning = _show_warning
    debug = bool(os.environ.get("MINIGAN_DEBUG"))
    try:
        code = app.main(args=arguments, prog_name="minigan", standalone_mode=False)
        sys.exit(code if isinstance(code, int) else 0)
    except click.exceptions.Abort:
        sys.exit(130)
    except click.ClickException as error:
        error.show()
        sys.exit(error.exit_code)
    except KeyboardInterrupt:
        sys.exit(130)
    except BrokenPipeError:  # `minigan info ... | head`
        os.dup2(os.open(os.devnull, os.O_WRONLY), 1)
        sys.exit(0)
    except Exception as error:
        if debug:
            raise
        code, text = describe(error)
        click.echo(text, err=True)
        sys.exit(code)


def describe(error: Exception) -> tuple[int, str]:
    """Return the exit code and the text for an error."""
    if isinstance(error, NumericError):
        return 3, f"error: {error}"
    if isinstance(error, DataError | CheckpointError):
        return 4, f"error: {error}"
    if isinstance(error, MiniganError):
        return 1, f"error: {error}"
    if isinstance(error, MemoryError):
        why = f"\n  why: {error}" if str(error) else ""
        for note in _notes(error):
            why += "\n  " + note.replace("\n", "\n  ")
        fix = "use a smaller --batch, or a smaller model (-o width=...)"
        return 5, f"error: out of memory{why}\n  fix: {fix}; checkpoints are untouched"
    if isinstance(error, OSError):
        where = f"\n  where: {error.filename}" if error.filename else ""
        return 1, f"error: {error.strerror or error}{where}"
    notes = "".join(f"\n  {note}" for note in _notes(error))
    fix = "set MINIGAN_DEBUG=1 to see where; this is a bug worth reporting"
    if is_fatal(error):
        fix = REMEDY
    return 1, f"error: {type(error).__name__}: {error}{notes}\n  fix: {fix}"


def _notes(error: BaseException) -> list[str]:
    """The notes of an error and of those that caused it; who holds the memory, if it ran out."""
    if error.__cause__ is not None:
        return [*_notes(error.__cause__), *getattr(error, "__notes__", [])]
    holders.note(error)
    return getattr(error, "__notes__", [])


def _show_warning(message: Warning | str, *args: Any, **kwargs: Any) -> None:
    click.echo(f"warning: {message}", err=True)
