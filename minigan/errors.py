"""Errors that say what went wrong, where, why, and how to mend it.

Every error that a user can cause is a `MiniganError`. Its text has up to four lines:

    conv2d: input has 3 channels, weight expects 4
      where: G.up1.conv, input (8, 3, 32, 32), weight (16, 4, 3, 3)
      why: ...
      fix: ...

Each subclass is also the built-in exception that Python programmers expect, so `except
ValueError` works as usual.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable


class MiniganError(Exception):
    """Base of all errors of the contract.

    Parameters
    ----------
    what : the mistake in one sentence.
    where : operation, module path, file, shapes.
    why : the rule that was broken.
    fix : what to do now.
    """

    def __init__(self, what: str, *, where: str = "", why: str = "", fix: str = "") -> None:
        super().__init__(what)
        self.what, self.where, self.why, self.fix = what, where, why, fix
        self.path: list[str] = []  # module names, outermost first; filled in by Module.__call__

    def __str__(self) -> str:
        where = ", ".join(part for part in (".".join(self.path), self.where) if part)
        lines = [self.what]
        for label, text in (("where", where), ("why", self.why), ("fix", self.fix)):
            if text:
                lines.append(f"  {label}: {text}")
        return "\n".join(lines)


class ShapeError(MiniganError, ValueError):
    """Shapes that do not fit together."""


class DtypeError(MiniganError, TypeError):
    """A dtype that the operation does not take, or a mixture of dtypes."""


class GraphError(MiniganError, RuntimeError):
    """A freed graph, a changed saved tensor, or a gradient that cannot exist."""


class NumericError(MiniganError, ArithmeticError):
    """NaN or infinity where a finite number is needed."""


class UsageError(MiniganError, ValueError):
    """An option or a call that makes no sense."""


class DataError(MiniganError, ValueError):
    """Data that is missing, damaged or of the wrong kind."""


class CheckpointError(MiniganError, ValueError):
    """A checkpoint that is damaged or belongs to another model."""


class ResourceError(MiniganError, RuntimeError):
    """Disk, memory or device that cannot be had."""


def did_you_mean(word: str, choices: Iterable[str]) -> str:
    """Return " (did you mean 'x'?)" for the closest choice, or an empty string."""
    close = difflib.get_close_matches(word, list(choices), n=1)
    return f" (did you mean '{close[0]}'?)" if close else ""
