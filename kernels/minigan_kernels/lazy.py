"""Packages whose kernels are imported with their family when they are first named."""

from __future__ import annotations

import sys
from collections.abc import Callable, Mapping
from importlib import import_module
from types import ModuleType
from typing import Any


class _Package(ModuleType):
    FAMILIES: Mapping[str, str]

    def __setattr__(self, name: str, value: Any) -> None:
        # Python sets the attribute `norm` of a package to the module when it imports norm.py.
        # Here `cpu.norm` is the kernel, whoever imported its file, and in which order.
        if isinstance(value, ModuleType) and name in self.FAMILIES:
            value = getattr(value, name)
        super().__setattr__(name, value)


def kernels_of(package: str, families: Mapping[str, str]) -> Callable[[str], Any]:
    """Return the module `__getattr__` of `package`, which finds kernel -> module in `families`."""
    sys.modules[package].__class__ = _Package

    def find(name: str) -> Any:
        if name not in families:
            raise AttributeError(f"{package} has no kernel {name!r}; it has {', '.join(families)}")
        value = getattr(import_module(f"{package}.{families[name]}"), name)
        setattr(sys.modules[package], name, value)  # the next use finds it without coming here
        return value

    return find
