"""The emulated GPU writes down its work instead of doing it, and does it when it is told to.

As a captured CUDA stream does: while the tape runs, no kernel runs and no array changes; numbers
cannot be read back, nor sent. Each time the recorded work starts, its arena is full of NaN.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager, nullcontext
from typing import Any

import numpy as np

from emulator.arrays import HOOKS, EmulatedArray, guarded, is_view, new_like

Numbers = np.ndarray[Any, Any]


class EmulatedTape:
    """The `Tape` of the emulated GPU."""

    def __init__(self) -> None:
        self.entries: list[Callable[[], None]] = []
        self._block = np.empty(0, np.uint8)  # the arena

    # What StepGraph asks for ---------------------------------------------------------------------

    def stream(self) -> AbstractContextManager[Any]:
        return nullcontext()

    @contextmanager
    def memory(self, malloc: Any, free: Any) -> Iterator[None]:
        before, HOOKS.memory = HOOKS.memory, (malloc, free)
        try:
            yield
        finally:
            HOOKS.memory = before

    @contextmanager
    def ordinary_memory(self) -> Iterator[None]:
        before, HOOKS.memory = HOOKS.memory, None
        try:
            yield
        finally:
            HOOKS.memory = before

    def block(self, size: int) -> tuple[int, Any]:
        block = guarded((max(1, size),), np.uint8)
        return block.ctypes.data, block

    def staging(self, size: int) -> Numbers:
        return np.empty(size, np.uint8)

    def copy(self, source: Numbers, to: EmulatedArray) -> None:
        to._numbers[...] = source

    def begin(self, arena: Numbers) -> None:
        self.entries, self._block, HOOKS.tape = [], arena, self

    def end(self) -> Callable[[], None]:
        HOOKS.tape = None
        entries, block = self.entries, self._block

        def start() -> None:
            block[...] = 0xFF
            with np.errstate(all="ignore"):
                for entry in entries:
                    entry()

        return start

    # What the arrays and the loader tell ---------------------------------------------------------

    def add(self, entry: Callable[[], None]) -> None:
        """Work that keeps no array alive."""
        self.entries.append(entry)

    def call(self, function: Any, args: Any, kwargs: Any) -> Any:
        """What a function gives, computed from whatever lies there; views need no work later."""
        with np.errstate(all="ignore"):
            try:
                result = function(*args, **kwargs)
            except IndexError:  # the indices are not there yet; any will do for the shape
                result = function(*map(_zeros, args), **kwargs)
        if not isinstance(result, np.ndarray | np.generic):
            raise TypeError(f"{function} gives a {type(result).__name__}: not for a recorded step")
        if is_view(result, (args, kwargs)):
            return result
        made = new_like(result)
        place, args, kwargs = self._there(made), self._there(args), self._there(kwargs)
        self.add(lambda: np.copyto(place, function(*args, **kwargs)))
        return made

    def write(self, function: Any, args: Any, kwargs: Any) -> None:
        """Work that changes an array."""
        args, kwargs = self._there(args), self._there(kwargs)
        self.add(lambda: function(*args, **kwargs))

    def _there(self, value: Any) -> Any:
        """Arrays of the arena as places of it, so that the tape does not keep them alive."""
        if isinstance(value, np.ndarray):
            at = value.ctypes.data - self._block.ctypes.data
            if not 0 <= at < self._block.nbytes:
                return value
            return np.ndarray(value.shape, value.dtype, self._block, at, value.strides)
        if isinstance(value, tuple | list):
            return type(value)(self._there(v) for v in value)
        if isinstance(value, dict):
            return {key: self._there(v) for key, v in value.items()}
        return value


def _zeros(value: Any) -> Any:
    return (
        np.zeros_like(value) if isinstance(value, np.ndarray) and value.dtype.kind == "i" else value
    )
