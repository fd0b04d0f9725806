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

from minigan.backend import Array, to_device, to_numpy
from minigan.errors import DtypeError, MiniganError, UsageError
from minigan.nn.state import load_state
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
                    _note_name(tensor, f"{path}.{inner}")
            else:
                _note_name(member, path)

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

    def named_modules(self, unique: bool = True) -> Iterator[tuple[str, Module]]:
        """This module (its name is "") and all modules inside, outer ones first.

        A module that several attributes lead to comes once, under its first name; if `unique` is
        False, once for every name.
        """
        return _walk(self, "", set(), unique)

    def modules(self) -> Iterator[Module]:
        """This module and all modules inside, each once."""
        return (module for _, module in self.named_modules())

    def named_tensors(self, unique: bool = True) -> Iterator[tuple[str, Parameter | Buffer]]:
        """Parameters and buffers with their dotted names; shared ones once if `unique`."""
        seen: set[int] = set()
        for prefix, module in self.named_modules(unique):
            for name, value in vars(module).items():
                for path, member in _spread(name, value):
                    if isinstance(member, Module) or (unique and id(member) in seen):
                        continue
                    seen.add(id(member))
                    yield f"{prefix}.{path}" if prefix else path, member

    def named_parameters(self) -> Iterator[tuple[str, Parameter]]:
        """Parameters with their dotted names, shared ones once."""
        return ((name, t) for name, t in self.named_tensors() if isinstance(t, Parameter))

    def parameters(self) -> Iterator[Parameter]:
        """What an optimizer changes."""
        return (t for _, t in self.named_parameters())

    def named_buffers(self) -> Iterator[tuple[str, Buffer]]:
        """Buffers with their dotted names, shared ones once."""
        return ((name, t) for name, t in self.named_tensors() if isinstance(t, Buffer))

    def buffers(self) -> Iterator[Buffer]:
        """State that is saved but not learned."""
        return (t for _, t in self.named_buffers())

    def num_parameters(self, trainable_only: bool = False) -> int:
        """Number of learned numbers; shared ones count once."""
        return sum(p.size for p in self.parameters() if p.requires_grad or not trainable_only)

    # Changing all of it ------------------------------------------------------------------------

    def train(self, mode: bool = True) -> Self:
        """Set `training` here and in all modules inside."""
        for module in self.modules():
            module.training = mode
        return self

    def eval(self) -> Self:
        """Set `training` to False here and in all modules inside."""
        return self.train(False)

    def requires_grad_(self, flag: bool = True) -> Self:
        """Freeze all parameters (False) or let them learn (True)."""
        for p in self.parameters():
            p.requires_grad = flag
        return self

    def zero_grad(self) -> None:
        """Forget the gradients that `backward` accumulated."""
        for p in self.parameters():
            if p.requires_grad:
                p.grad = None

    def apply(self, fn: Callable[[Module], Any]) -> Self:
        """Call fn on every module inside, and on this one last."""
        for module in reversed(list(self.modules())):
            fn(module)
        return self

    def to(self, device: str) -> Self:
        """Move parameters and buffers to `device`."""
        for _, t in self.named_tensors():
            _replace(t, to_device(t.data, device))
        return self

    def astype(self, dtype: Any) -> Self:
        """Convert floating-point parameters and buffers, for example to "float64" for checks."""
        if np.dtype(dtype).kind != "f":
            raise DtypeError(f"astype: parameters cannot be {np.dtype(dtype)}")
        for _, t in self.named_tensors():
            if t.dtype.kind == "f":
                _replace(t, t.data.astype(dtype))
        return self

    # Saving and loading ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Array]:
        """Copies of all parameters and buffers by name, as NumPy arrays."""
        return {n: np.array(to_numpy(t.data), order="C") for n, t in self.named_tensors()}

    def load_state_dict(
        self,
        state: Mapping[str, Any],
        strict: bool = True,
        rename: Callable[[str], str | None] | None = None,
    ) -> None:
        """Write saved arrays into the parameters and buffers of the same names, or nothing at all.

        Parameters
        ----------
        state : what `state_dict` gave, or arrays from elsewhere. Values are converted to the
            dtype that the parameter has.
        strict : names that are missing or unexpected are errors; wrong shapes always are.
        rename : from the names in `state` to the names here; None drops an entry.
            `nn.from_torch` understands what PyTorch adds to names.

        Raises
        ------
        CheckpointError
            with a table of all that is missing, unexpected or of another shape. Nothing is loaded.
        """
        load_state(self, state, strict, rename)

    # As text -----------------------------------------------------------------------------------

    def extra_repr(self) -> str:
        """The options of this module, as they shall stand in its text form."""
        return ""

    def __repr__(self) -> str:
        lines = [self.extra_repr()]
        for name, child in self.named_children():
            lines.append(f"({name}): {child!r}".replace("\n", "\n  "))
        if len(lines) == 1:
            return f"{type(self).__name__}({lines[0]})"
        return f"{type(self).__name__}(" + "\n  ".join(["", *filter(None, lines)]) + "\n)"


@contextlib.contextmanager
def observe(observer: Any) -> Iterator[Any]:
    """Let `observer` see every module that is called inside a `with` block.

    It has the methods enter(module, args) and leave(module, args, out).
    """
    OBSERVERS.append(observer)
    try:
        yield observer
    finally:
        OBSERVERS.remove(observer)


def _own(data: Any) -> Array:
    """A new array of data; nested lists of floats become float32."""
    if isinstance(data, Tensor):
        data = data.data
    array = np.array(data)
    if not isinstance(data, np.ndarray | np.generic) and array.dtype.kind == "f":
        array = array.astype(np.float32)
    return array


def _replace(t: Parameter | Buffer, array: Array) -> None:
    """Give t another array, possibly of another dtype; a gradient of the old one is dropped."""
    if array is not t.data:
        t._data = array
        t.bump()
        if t.requires_grad:
            t.grad = None


def _note_name(tensor: Parameter | Buffer, name: str) -> None:
    """Put more in front of its name; a name from elsewhere (it is shared) stays."""
    if name.endswith(tensor.name):
        tensor.name = name


def _spread(name: str, value: Any) -> Iterator[tuple[str, Any]]:
    """The parameters, buffers and modules in an attribute, alone or in a list, tuple or dict."""
    if isinstance(value, Parameter | Buffer | Module):
        yield name, value
    elif isinstance(value, list | tuple):
        for i, item in enumerate(value):
            yield from _spread(f"{name}.{i}", item)
    elif isinstance(value, dict):
        for key, item in value.items():
            yield from _spread(f"{name}.{key}", item)


def _walk(
    module: Module, prefix: str, seen: set[int], unique: bool
) -> Iterator[tuple[str, Module]]:
    if id(module) in seen:
        return
    if unique:
        seen.add(id(module))
    else:  # remember only the way down to here, so that a module inside itself does not go round
        seen = seen | {id(module)}
    yield prefix, module
    for name, child in module.named_children():
        yield from _walk(child, f"{prefix}.{name}" if prefix else name, seen, unique)
