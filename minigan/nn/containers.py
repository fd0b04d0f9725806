"""Sequential, ModuleList and ModuleDict: modules under numbers or names of their own choice."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping
from typing import Any, Self, overload

from minigan.errors import UsageError
from minigan.nn.module import Module


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
    """y = f_n(...f_1(f_0(x))): each module takes what the one before it returned."""

    def __init__(self, *modules: Module) -> None:
        super().__init__(modules)

    def _like(self, modules: list[Module]) -> Sequential:
        return Sequential(*modules)

    def forward(self, x: Any) -> Any:
        for module in self:
            x = module(x)
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


def _check_module(name: str, module: Any) -> None:
    if not isinstance(module, Module):
        raise UsageError(
            f"{name}: {module!r} is not a Module",
            fix="pass modules, separately to Sequential(a, b), in a list to ModuleList([a, b])",
        )
