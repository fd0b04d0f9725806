"""Whole steps as CUDA graphs: what a step makes the device do, recorded once, started by one call.

A step runs four ways, one after the other; each of them is a real step, with the same results:

1. rehearsal: as always, only that its arrays are counted. Kernels are compiled, tables are made.
2. settling: its arrays lie in an `Arena`, at the places where they will stay.
3. recording: the device does nothing but write down what it is told; then that is played.
4. playing, from then on: the host does what went through `again`, copies what it has computed to
   the device in one piece, and starts the recorded work.

Why the arena: a graph contains addresses. Why two runs before the recording: an upload cannot be
recorded, and some tables contain addresses of the arena.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import AbstractContextManager
from typing import TYPE_CHECKING, Any, NamedTuple, Protocol

import numpy as np

from minigan_kernels import recording
from minigan_kernels.cuda.arena import Arena
from minigan_kernels.recording import Action

if TYPE_CHECKING:
    from minigan_kernels.cuda.device import Array, Device

ALIGN = 64  # bytes, of what is fed

Malloc = Callable[[int], int]  # bytes -> address
Free = Callable[[int], None]


class Tape(Protocol):
    """How a device records its work, and where its arrays come from meanwhile."""

    def stream(self) -> AbstractContextManager[Any]:
        """Work inside goes to the stream of recorded steps, and has ended when it is left."""

    def memory(self, malloc: Malloc, free: Free) -> AbstractContextManager[Any]:
        """New arrays lie where `malloc` says."""

    def ordinary_memory(self) -> AbstractContextManager[Any]:
        """New arrays come from the device's own pool again."""

    def block(self, size: int) -> tuple[int, Any]:
        """Memory of its own: the address, and what keeps it."""

    def staging(self, size: int) -> np.ndarray[Any, Any]:
        """Bytes of the host that the device can read while the host goes on."""

    def copy(self, source: np.ndarray[Any, Any], to: Array) -> None:
        """Copy bytes of `staging` to the device, in the order of the stream."""

    def begin(self, arena: Any) -> None:
        """Write down from now on; `arena` is the block that new arrays lie in."""

    def end(self) -> Callable[[], None]:
        """Stop; return what starts the work that was written down."""


class Slot(NamedTuple):
    """A place of what the host feeds: within the staging bytes, and on the device."""

    begin: int
    end: int
    array: Array


class CannotRecord(Exception):
    """Something in the step cannot be played again: what it is."""


class StepGraph:
    """One step, however often: `run(step)` calls it three times and plays it from then on.

    Parameters
    ----------
    device : whose work is recorded.

    Attributes
    ----------
    runs : how often it has run, up to 3.
    arena_bytes : memory of the recorded step's arrays.
    """

    def __init__(self, device: Device) -> None:
        if device.tape is None:
            raise CannotRecord(f"device {device.name} records nothing")
        self.device, self.tape = device, device.tape
        self.runs = 0
        self.arena_bytes = self._fed = 0
        self._actions: list[tuple[Action, int]] = []  # and the first slot that it feeds
        self._slots: list[Slot] = []
        self._cursor = 0
        self._inside = False  # an action of the host
        self._constants: dict[Any, Array] = {}
        self._held: list[Any] = []  # arrays outside of the arena that the graph refers to
        # Arrays of run 0 that exist: address -> bytes, offset in the arena, what keeps them
        self._rehearsed: dict[int, tuple[int, int, Any]] = {}
        self._read: dict[int, tuple[int, ...]] = {}  # those that run 1 has read

    def run(self, step: Callable[[], Any]) -> Any:
        """Run the step; what it returns when it is recorded is returned again by later runs.

        Raises
        ------
        CannotRecord
            with what in the step stands in the way.
        """
        how = (self._rehearse, self._settle, self._record, self._play)[self.runs]
        before = self.device.recording
        with self.tape.stream(), recording.going_on(self):
            self.device.recording = self
            try:
                result = how(step)
            finally:
                self.device.recording = before
        self.runs = min(self.runs + 1, 3)
        return result

    @property
    def is_played(self) -> bool:
        """Whether only the host's part of the step is being done: the rest is recorded."""
        return self.runs == 3

    def again(self, action: Action) -> None:
        """Run an action of the host now, and each time the step is played."""
        if self._inside:
            return action()
        first, self._inside = self._cursor, True
        try:
            action()
        finally:
            self._inside = False
        # Kept in all runs, so that the arrays that actions refer to live equally long in all.
        self._actions.append((action, first))

    def feed(self, compute: Callable[[], np.ndarray[Any, Any]]) -> Array:
        """What the host computes, on the device; computed and copied anew in every run."""
        arrays: list[Array] = []
        self.again(lambda: arrays.append(self._put(np.asarray(compute()))))
        return arrays.pop()

    def sees(self, args: tuple[Any, ...]) -> bool:
        """Whether a launch with these arguments is to happen."""
        if self.runs in (1, 2):
            for array in args:
                if isinstance(array, self.device.xp.ndarray):
                    self._note(array)
        return not self.is_played

    def constant(self, array: np.ndarray[Any, Any]) -> Array:
        """An array that goes to the device in every run with the same numbers: once is enough."""
        key = array.shape, array.dtype, array.tobytes()
        if key not in self._constants:
            if self.runs == 2:
                what = f"{array.dtype}{array.shape}"
                raise CannotRecord(f"{what} goes to the device, with other numbers in each step")
            with self.tape.ordinary_memory():
                self._constants[key] = self.device.xp.asarray(array)
        return self._constants[key]

    # The four ways -------------------------------------------------------------------------------

    def _rehearse(self, step: Callable[[], Any]) -> Any:
        arena, places = Arena(), self._rehearsed

        def malloc(size: int) -> int:
            address, keeper = self.tape.block(size)
            places[address] = size, arena.malloc(size), keeper
            return address

        def free(address: int) -> None:
            arena.free(places.pop(address)[1])

        with self.tape.memory(malloc, free):
            result = step()
            self.arena_bytes = arena.peak
        return result

    def _settle(self, step: Callable[[], Any]) -> Any:
        self._base, self._block = self.tape.block(self.arena_bytes)
        self._feeds = self.device.xp.empty((max(1, self._fed),), np.uint8)
        self._staging = self.tape.staging(max(1, self._fed))
        with self._in_arena():
            result = step()
        replaced = [shape for place, shape in self._read.items() if place not in self._rehearsed]
        if replaced:
            raise CannotRecord(
                f"an array of shape {replaced[0]} is kept from one step to the next; state must "
                "lie in parameters and buffers, or be changed in place"
            )
        return result

    def _record(self, step: Callable[[], Any]) -> Any:
        with self._in_arena():
            self.tape.begin(self._block)
            try:
                self._result = step()
            finally:
                self._start = self.tape.end()
        return self._play_now()

    def _play(self, step: Callable[[], Any]) -> Any:
        self._inside = True
        try:
            for action, first in self._actions:
                self._cursor = first
                action()
        finally:
            self._inside = False
        return self._play_now()

    def _play_now(self) -> Any:
        self.tape.copy(self._staging, self._feeds)
        self._start()
        return self._result

    # Memory --------------------------------------------------------------------------------------

    def _in_arena(self) -> AbstractContextManager[Any]:
        """New arrays lie in the arena, which is empty: what lies there of earlier runs is dead."""
        self._actions, self._slots, self._cursor = [], [], 0
        arena = Arena(self.arena_bytes)
        return self.tape.memory(
            lambda size: self._base + arena.malloc(size),
            lambda address: arena.free(address - self._base),
        )

    def _put(self, value: np.ndarray[Any, Any]) -> Array:
        """Copy to the place of the next slot."""
        size = -(-value.nbytes // ALIGN) * ALIGN
        if self.runs == 0:
            self._fed += size
            with self.tape.ordinary_memory():
                return self.device.xp.asarray(value)
        if self._cursor == len(self._slots):
            begin = self._slots[-1].end if self._slots else 0
            flat = self._feeds[begin : begin + value.nbytes]
            self._slots.append(
                Slot(begin, begin + size, flat.view(value.dtype).reshape(value.shape))
            )
        slot = self._slots[self._cursor]
        self._cursor += 1
        if slot.array.shape != value.shape or slot.array.dtype != value.dtype:
            raise CannotRecord(
                f"{value.dtype}{value.shape} is fed where {slot.array.dtype}{slot.array.shape} was"
            )
        place = self._staging[slot.begin : slot.begin + value.nbytes]
        place[...] = np.ascontiguousarray(value).reshape(-1).view(np.uint8)
        if self.runs == 1:
            self.tape.copy(place, self._feeds[slot.begin : slot.begin + value.nbytes])
        return slot.array

    def _note(self, array: Array) -> None:
        """Keep what the graph refers to outside of the arena; note what is left of run 0."""
        address = array.data.ptr
        if self.runs == 2:
            if not 0 <= address - self._base < self.arena_bytes:
                self._held.append(array)
            return
        for place, (size, *_) in self._rehearsed.items():
            if place <= address < place + size:
                self._read[place] = array.shape
