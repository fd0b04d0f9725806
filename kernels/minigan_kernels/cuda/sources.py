"""CUDA sources: which files there are, what is compiled from them, and their text.

A .cu file holds templates; an *instance* such as `map<float, Tanh>` is one of them with all its
parameters filled in. Only what a `Source` lists can be launched, so everything that a user's
machine may ever compile has been compiled and measured before (`check.py`).

Sources include no header of CUDA or C++. Local includes are put in place, so that one text is what
is compiled, hashed and cached.
"""

from __future__ import annotations

import functools
import re
from dataclasses import dataclass
from pathlib import Path

HERE = Path(__file__).resolve().parent
ARCHITECTURES = ("sm_80", "sm_90", "sm_90a")

_INCLUDE = re.compile(r'[ \t]*#[ \t]*include[ \t]*"([^"]+)"')


class NoKernel(KeyError):
    """A kernel that does not exist, mostly for a dtype that kernels do not compute with."""


@dataclass(frozen=True)
class Source:
    """A .cu file and the instances of its kernels that exist.

    Parameters
    ----------
    file : its name, in this folder.
    instances : C++ expressions that name a kernel.
    apart : each instance is compiled alone, when it is first launched: they take seconds.
    architectures : that it is compiled for; a machine without them uses other kernels.
    contains : machine instructions that every instance must have (`check.py` looks).
    """

    file: str
    instances: tuple[str, ...]
    apart: bool = False
    architectures: tuple[str, ...] = ARCHITECTURES
    contains: tuple[str, ...] = ()

    @property
    def text(self) -> str:
        """The source with its local includes in place."""
        return flatten(HERE / self.file)

    def together_with(self, instance: str) -> tuple[str, ...]:
        """The instances that are compiled when this one is needed."""
        if instance not in self.instances:
            raise NoKernel(f"{self.file} has no instance {instance}; it has {self.instances}")
        return (instance,) if self.apart else self.instances


@functools.cache
def flatten(path: Path) -> str:
    """The text of a file with every local include once, where it is first named."""
    return _flatten(path, set())


def _flatten(path: Path, seen: set[Path]) -> str:
    path = path.resolve()
    if path in seen:
        return ""
    seen.add(path)
    out = [f'#line 1 "{path.name}"']  # messages of compilers name file and line
    for number, line in enumerate(path.read_text(encoding="utf-8").splitlines(), 1):
        found = _INCLUDE.match(line)
        if found:
            out += [_flatten(path.parent / found[1], seen), f'#line {number + 1} "{path.name}"']
        else:
            out.append("" if line == "#pragma once" else line)
    return "\n".join(out) + "\n"
