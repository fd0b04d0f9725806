"""Sequential, ModuleList and ModuleDict: modules under numbers or names of their own choice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, overload

from minigan.errors import UsageError
from minigan.nn.activation import LeakyReLU, ReLU
from minigan.nn.module import OBSERVERS, Module
from minigan.nn.norm import (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    GroupNorm,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
)

NORMS = (
    BatchNorm1d,
    BatchNorm2d,
    BatchNorm3d,
    InstanceNorm1d,
    InstanceNorm2d,
    InstanceNorm3d,
    LayerNorm,
    GroupNorm,
)


class ModuleList(Module):
    """Modules under the names "0", "1", ...; used like a list. Has no forward of its own."""

    def __init__(self, modules: Iterable[Module] = ()) -> None:
        self.extend(modules)

    def append(self, module: Module) -> Self:
        """Add one module at the end."""
        _check_module(type(self).__name__, module)
        setattr(self, str(len(self)), module)
        return self

    def extend(self, modules: Iterable[Module]) -> Self:
        """Add several modules at the end."""
        for module in modules:
            self.append(module)
        return self

    def __len__(self) -> int:
        return len(list(self.named_children()))

    def __iter__(self) -> Iterator[Module]:
        return self.children()

    @overload
    def __getitem__(self, index: int) -> Module: ...
    @overload
    def __getitem__(self, index: slice) -> Self: ...
    def __getitem__(self, index: Any) -> Any:
        """One module, or for a slice a new container with the same modules."""
        chosen = list(self.children())[index]
        return self._like(chosen) if isinstance(chosen, list) else chosen

    def _like(self, modules: list[Module]) -> ModuleList:
        return ModuleList(modules)

    def __setitem__(self, index: int, module: Module) -> None:
        _check_module(type(self).__name__, module)
        setattr(self, str(range(len(self))[index]), module)


class Sequential(ModuleList):
    """y = f_n(...f_1(f_0(x))): each module takes what the one before it returned.

    A norm followed by `ReLU` or `LeakyReLU` runs as one operation: the same numbers, in less time
    and memory. While `nn.observe` is active every module runs by itself.
    """

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def _like(self, modules: list[Module]) -> Sequential:
        return Sequential(*modules)

    def forward(self, x: Any) -> Any:
        modules = list(self)
        while modules:
            module = modules.pop(0)
            activation = _activation_after(module, modules)
            if activation:
                modules.pop(0)
            x = module(x, **activation)
        return x


class ModuleDict(Module):
    """Modules under names; used like a dictionary. Has no forward of its own."""

    def __init__(self, modules: Mapping[str, Module] | None = None) -> None:
        for name, module in (modules or {}).items():
            self[name] = module

    def __setitem__(self, name: str, module: Module) -> None:
        _check_module("ModuleDict", module)
        if hasattr(type(self), name) or "." in name or not name:
            raise UsageError(
                f"ModuleDict: '{name}' cannot be a name",
                why="names become attributes, and parts of dotted names",
                fix="use another name, without dots",
            )
        setattr(self, name, module)

    def __getitem__(self, name: str) -> Module:
        return dict(self.named_children())[name]

    def __delitem__(self, name: str) -> None:
        delattr(self, name)

    def __contains__(self, name: object) -> bool:
        return name in dict(self.named_children())

    def __len__(self) -> int:
        return len(list(self.named_children()))

    def __iter__(self) -> Iterator[str]:
        return self.keys()

    def keys(self) -> Iterator[str]:
        """Names in the order in which they were set."""
        return (name for name, _ in self.named_children())

    def values(self) -> Iterator[Module]:
        """Modules in the order in which they were set."""
        return self.children()

    def items(self) -> Iterator[tuple[str, Module]]:
        """Names with their modules."""
        return self.named_children()


def _activation_after(module: Module, following: list[Module]) -> dict[str, Any]:
    """The activation that comes next, as options of a norm; nothing if it must run by itself.

    Only the very classes of this package are joined: a subclass, or a module whose forward was
    replaced, may do something else.
    """
    if not following or type(module) not in NORMS or OBSERVERS:
        return {}
    after = following[0]
    if "forward" in vars(module) or "forward" in vars(after):
        return {}
    if type(after) is ReLU:
        return {"activation": "relu"}
    if type(after) is LeakyReLU:
        return {"activation": "leaky_relu", "negative_slope": after.negative_slope}
    return {}


def _check_module(name: str, module: Any) -> None:
    if not isinstance(module, Module):
        raise UsageError(
            f"{name}: {module!r} is not a Module",
            fix="pass modules, separately to Sequential(a, b), in a list to ModuleList([a, b])",
        )
