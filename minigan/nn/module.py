"""Module: a network, or a part of one, as an ordinary object with ordinary attributes.

    class Block(nn.Module):
        def __init__(self, width):
            self.conv = nn.Conv2d(width, width, 3, padding=1)
            self.act = nn.ReLU()

        def forward(self, x):
            return x + self.act(self.conv(x))

Nothing is registered anywhere. Parameters, buffers and inner modules are found by looking through
the attributes when they are asked for, and their names are the dotted attribute paths that lead to
them ("conv.weight"). Lists, tuples and dictionaries of modules are looked through as well.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator, Mapping
from typing import Any, Self

import numpy as np

from minigan.backend import Array, to_device
from minigan.errors import DtypeError, MiniganError, UsageError
from minigan.tensor import Tensor

OBSERVERS: list[Any] = []  # objects with enter(module, args) and leave(module, args, out)


class Parameter(Tensor):
    """A tensor that is learned: it asks for a gradient, and optimizers change it.

    Parameters
    ----------
    data : numbers or an array (copied); Python floats become float32.
    """

    __slots__ = ("name",)

    def __init__(self, data: Any) -> None:
        super().__init__(_own(data))
        self.name = ""
        self.requires_grad = True

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self)] = twin = type(self)(self._data)
        twin.name, twin.requires_grad = self.name, self.requires_grad
        return twin

    def __repr__(self) -> str:
        return f"Parameter({self.name or 'unnamed'}, {self.shape}, {self.dtype})"


class Buffer(Tensor):
    """A tensor that belongs to a module's state but is not learned, such as a running mean."""

    __slots__ = ("name",)

    def __init__(self, data: Any) -> None:
        super().__init__(_own(data))
        self.name = ""

    def __deepcopy__(self, memo: dict[int, Any]) -> Self:
        memo[id(self)] = twin = type(self)(self._data)
        twin.name = self.name
        return twin

    def __repr__(self) -> str:
        return f"Buffer({self.name or 'unnamed'}, {self.shape}, {self.dtype})"


class Module:
    """Base of all networks and layers: subclass it, set attributes, write `forward`.

    Attributes
    ----------
    training : True while learning. Batch norm, dropout and spectral norm look at it; `train` and
        `eval` set it for a module and everything inside.
    """

    training: bool = True
    forward: Callable[..., Any]

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Run `forward`. An error that passes through learns this module's place in the network."""
        try:
            if OBSERVERS:
                return self._observed(args, kwargs)
            return self.forward(*args, **kwargs)
        except MiniganError as error:
            self._locate(error)
            raise

    def _observed(self, args: tuple[Any, ...], kwargs: dict[str, Any]) -> Any:
        observers = list(OBSERVERS)
        for observer in observers:
            observer.enter(self, args)
        out = self.forward(*args, **kwargs)
        for observer in reversed(observers):
            observer.leave(self, args, out)
        return out

    def _locate(self, error: MiniganError) -> None:
        """Put this module in front of error.path: ["Conv2d"] -> ["Block", "conv"]."""
        inner = vars(error).get("module")
        if inner is self:
            return
        for name, module in self.named_modules():
            if module is inner:
                error.path[0] = name
        error.path.insert(0, type(self).__name__)
        vars(error)["module"] = self

    def __setattr__(self, name: str, value: Any) -> None:
        """Set a plain attribute; tensors are told their names, for error messages."""
        if isinstance(vars(self).get(name), Parameter) and not isinstance(value, Parameter | None):
            raise UsageError(
                f"{type(self).__name__}.{name} is a Parameter and cannot become {value!r}",
                why="an optimizer would go on changing the old one",
                fix=f"write new values into it with .{name}.data = array",
            )
        object.__setattr__(self, name, value)
        for path, member in _spread(name, value):
            if isinstance(member, Module):
                for inner, tensor in member.named_tensors():
                    tensor.name = f"{path}.{inner}"
            else:
                member.name = path

    # What is inside ----------------------------------------------------------------------------

    def named_children(self) -> Iterator[tuple[str, Module]]:
        """Modules that are attributes of this one, with their names, in order of definition."""
        for name, value in vars(self).items():
            for path, member in _spread(name, value):
                if isinstance(member, Module):
                    yield path, member

    def children(self) -> Iterator[Module]:
        """Modules that are attributes of this one."""
        return (module for _, module in self.named_children())

    def named_modules(
        self, prefix: str = "", unique: bool = True, seen: tuple[Module, ...] | None = None
    ) -> Iterator[tuple[str, Module]]:
        """This module (named `prefix`) and all modules inside, outer ones first.

        With `unique` a module that can be reached on several paths comes once, with its first
        name; without, it comes once for each. `seen` is for the recursion.
        """
        memo: list[Module] = [] if seen is None else seen  # type: ignore[assignment]
        yield from _walk(self, prefix, memo if unique else None, ())

    def modules(self) -> Iterator[Module]:
        """This module and all modules inside, each once."""
        return (module for _, module in self.named_modules())

    def named_tensors(self, unique: bool = True) -> Iterator[tuple[str, Parameter | Buffer]]:
        """Parameters and buffers with their dotted names; shared ones once if `unique`."""
        seen: set[int] = set()
        for prefix, module in self.named_modules(unique=unique):
            for name, value in vars(module).items():
                for path, member in _spread(name, value):
                    if isinstance(member, Module) or (unique and id(member) in seen):
                        continue
                    seen.add(id(member))
                    yield f"{prefix}.{path}" if prefix else path, member
