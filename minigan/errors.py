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
import math
from collections.abc import Iterable
from typing import Any


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


# The words of the graph, apart from its code -----------------------------------------------------


def describe(arrays: Iterable[Any]) -> str:
    """Shapes and dtypes of arrays in words: "float32 (8, 3), float32 (3, 4)"."""
    return ", ".join("None" if a is None else f"{a.dtype} {tuple(a.shape)}" for a in arrays)


def explain(error: Exception, node: Any, arrays: Iterable[Any]) -> None:
    """Add the operation and its inputs to an error that left its forward."""
    if isinstance(error, MiniganError):
        error.where = error.where or f"{node!r} on {describe(arrays)}"
    else:
        error.add_note(f"in the forward of {node!r} on {describe(arrays)}")


def not_tensors(node: Any, inputs: Iterable[Any]) -> DtypeError:
    kinds = ", ".join(type(x).__name__ for x in inputs)
    return DtypeError(
        f"{node}: takes Tensors, not ({kinds})",
        fix="wrap arrays and numbers with minigan.tensor(...)",
    )


def check_dtypes(node: Any, arrays: tuple[Any, ...]) -> None:
    """Raise unless all inputs of an operation share one dtype."""
    dtypes = {array.dtype for array in arrays if array is not None}
    if len(dtypes) > 1:
        raise DtypeError(
            f"{node!r}: mixed dtypes {' and '.join(sorted(map(str, dtypes)))}",
            where=describe(arrays),
            why="nothing is converted silently",
            fix=f"convert one side, for example with .astype('{arrays[0].dtype}')",
        )


def no_kernel(node: Any, arrays: Iterable[Any], device: str) -> DtypeError:
    return DtypeError(
        f"{node!r}: {device} does not compute with {describe(arrays)}",
        why="kernels of a GPU take float32 or float64",
        fix="convert first, for example with .astype('float32')",
    )


def mixed_devices(node: Any, names: Iterable[str | None], arrays: Iterable[Any]) -> UsageError:
    devices = ", ".join("None" if name is None else name for name in names)
    return UsageError(
        f"{node!r}: inputs on different devices ({devices})",
        where=describe(arrays),
        why="nothing is moved silently",
        fix="move tensors with .to(device), networks with module.to(device)",
    )


def changed_after_save(name: str, node: Any) -> GraphError:
    return GraphError(
        f"backward: {name} changed after {node!r} saved it",
        why="the gradient needs the value that forward used, and it was overwritten in place",
        fix="call backward (or minigan.grad) before the optimizer steps, or compute the loss again",
    )


def freed_graph(node: Any) -> GraphError:
    return GraphError(
        f"backward: the graph below {node!r} was freed already",
        why="a backward pass frees the graph as it goes",
        fix="compute the loss again, or pass retain_graph=True to the first pass",
    )


def constant_input(i: int, x: Any) -> GraphError:
    return GraphError(
        f"grad: input {i} {x!r} is a constant",
        why="only tensors with requires_grad=True, or computed from such, have gradients",
        fix="set requires_grad before the computation (and check for no_grad or detach)",
    )


def constant_output(y: Any) -> GraphError:
    return GraphError(
        f"backward: {y!r} does not depend on anything that requires a gradient",
        fix="check for no_grad, detach, or parameters with requires_grad=False",
    )


def not_scalar(shape: tuple[int, ...]) -> ShapeError:
    return ShapeError(
        f"backward: the output has {math.prod(shape)} elements, not one",
        where=f"shape {shape}",
        fix="reduce it to a scalar, or pass grad_outputs to minigan.grad",
    )


def wrong_cotangent(g: Any, y: Any) -> ShapeError:
    return ShapeError(
        f"grad: cotangent {g.dtype} {g.shape} does not fit output {y.dtype} {y.shape}",
        fix="pass one array per output, with its shape and dtype",
    )


def wrong_gradient_shape(shape: tuple[int, ...], got: tuple[int, ...]) -> ShapeError:
    return ShapeError(
        f"grad: the gradient of a {shape} tensor has shape {got}",
        why="a backward returned a gradient of another shape than its input",
        fix="sum over broadcast axes in that backward (see sum_to)",
    )


def wrong_gradient_count(node: Any, got: int, wanted: int) -> GraphError:
    return GraphError(
        f"backward: {node!r} returned {got} gradients for {wanted} inputs",
        fix="return one gradient per input of forward, None where there is none",
    )
