"""A pickle reader that cannot run anything: plain containers, numbers, text, and an allow-list.

A pickle is a program for a small stack machine. Python's own machine imports and calls whatever
the program names; this one has no imports and no calls. A name in the program is looked up in
`allowed`, and if it is not there, reading stops. Opcodes that make objects of arbitrary classes
do not exist here. Time and memory grow with the length of the pickle, and that is limited.
"""

from __future__ import annotations

import struct
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Any

LIMIT = 16_000_000  # bytes; pickles of the largest networks have less than 1 MB beside the numbers
OPCODES = 1_000_000  # about 30 for a tensor
_LONG = 32  # bytes of an integer
_NAME = 200  # characters of a global
_KEY = 300  # characters of a dictionary's key


class Refused(ValueError):
    """What cannot be read, at which byte of the pickle and under which key."""

    def __init__(self, what: str, *, why: str = "", offset: int = 0, key: str = "") -> None:
        super().__init__(what)
        self.what, self.why, self.offset, self.key = what, why, offset, key


@dataclass(frozen=True)
class Name:
    """A global that the pickle mentions; `build` is called when the pickle calls it."""

    name: str
    build: Callable[[tuple[Any, ...]], Any] | None = None


class Ordered(dict[Any, Any]):
    """What an OrderedDict becomes. Only to these may a pickle attach attributes, unread."""


def unpickle(
    data: bytes | memoryview, allowed: Mapping[str, Name], persistent: Callable[[Any], Any]
) -> Any:
    """Return what a pickle of protocol 2 to 5 holds.

    Parameters
    ----------
    data : the pickle.
    allowed : "module.name" -> what stands for it.
    persistent : makes an object of a persistent id (PyTorch: of a storage).

    Raises
    ------
    Refused : it is damaged, too large, or asks for what is not allowed.
    """
    if len(data) > LIMIT:
        raise Refused(f"has a pickle of {len(data):,} bytes; at most {LIMIT:,} are read")
    machine = _Machine(bytes(data), allowed, persistent)
    try:
        return machine.run()
    except Refused as error:
        error.offset, error.key = machine.start, machine.key()
        raise
    except (LookupError, TypeError, ValueError, OverflowError, struct.error) as error:
        raise Refused(
            "is damaged: its pickle makes no sense", offset=machine.start, key=machine.key()
        ) from error


class _Machine:
    """The stack, the memo, and a place in the pickle."""

    def __init__(
        self, data: bytes, allowed: Mapping[str, Name], persistent: Callable[[Any], Any]
    ) -> None:
        self.data, self.at, self.start = data, 0, 0
        self.allowed, self.persistent = allowed, persistent
        self.stack: list[Any] = []
        self.frames: list[list[Any]] = []  # stacks below the open marks
        self.memo: dict[int, Any] = {}

    def run(self) -> Any:
        if self.data[:1] != b"\x80":
            raise Refused("is no pickle of protocol 2 or later", why="it does not begin with PROTO")
        for _ in range(OPCODES):
            self.start = self.at
            code = self.take(1)[0]
            if code == 0x2E:  # STOP
                return self.finish()
            step = _STEPS.get(code)
            if step is None:
                raise Refused(
                    f"uses the pickle opcode {bytes([code])!r}, which is not allowed",
                    why="tensors and plain containers do not need it; others could run code",
                )
            step(self)
        raise Refused(f"has a pickle of more than {OPCODES:,} steps")

    def finish(self) -> Any:
        if len(self.stack) != 1 or self.frames or self.at != len(self.data):
            raise Refused("is damaged: its pickle does not end where it says")
        return self.stack[0]

    def key(self) -> str:
        """Dotted keys of the dictionaries that are being filled; for messages."""
        keys = []
        frames = [*self.frames, self.stack][-8:]
        for below, frame in zip([[], *frames], frames, strict=False):
            if below and isinstance(below[-1], dict):  # key, value, key, value ...
                keys += frame[(len(frame) - 1) // 2 * 2 :][:1]
            else:  # dictionary, key, value
                keys += [b for a, b in pairwise(frame) if isinstance(a, dict)][-1:]
        texts = [str(key)[:80] if type(key) in (str, int) else "?" for key in keys]
        return ".".join(text if text.isprintable() else "?" for text in texts)

    def take(self, n: int) -> bytes:
        if self.at + n > len(self.data):
            raise Refused("is cut short: its pickle has no end")
        self.at += n
        return self.data[self.at - n : self.at]

    def number(self, code: str) -> Any:
        return struct.unpack(code, self.take(struct.calcsize(code)))[0]

    def text(self, code: str) -> None:
        self.stack.append(self.take(self.number(code)).decode())

    def marked(self) -> list[Any]:
        """What lies above the last mark."""
        items, self.stack = self.stack, self.frames.pop()
        return items

    # Opcodes ------------------------------------------------------------------------------------

    def proto(self) -> None:
        version = self.take(1)[0]
        if self.start or not 2 <= version <= 5:
            raise Refused(f"is no pickle of protocol 2 to 5: it says {version}")

    def frame(self) -> None:
        if self.number("<Q") > len(self.data) - self.at:
            raise Refused("is cut short: a frame of its pickle reaches over the end")

    def long(self) -> None:
        size = self.take(1)[0]
        if size > _LONG:
            raise Refused(f"holds an integer of {size} bytes; at most {_LONG} are read")
        self.stack.append(int.from_bytes(self.take(size), "little", signed=True))

    def mark(self) -> None:
        self.frames.append(self.stack)
        self.stack = []

    def tuple_of(self, n: int) -> None:
        if len(self.stack) < n:
            raise IndexError
        at = len(self.stack) - n
        self.stack[at:] = [tuple(self.stack[at:])]

    def tuple_(self) -> None:
        items = tuple(self.marked())
        self.stack.append(items)

    def append(self) -> None:
        item = self.stack.pop()
        self.extend([item])

    def extend(self, items: list[Any]) -> None:
        if type(self.stack[-1]) is not list:
            raise Refused("is damaged: its pickle appends to what is no list")
        self.stack[-1].extend(items)

    def set_item(self) -> None:
        value, key = self.stack.pop(), self.stack.pop()
        self.set_items([key, value])

    def set_items(self, items: list[Any]) -> None:
        """Fill a dictionary. Keys are plain, since hashing nested tuples may take for ever."""
        if type(self.stack[-1]) not in (dict, Ordered) or len(items) % 2:
            raise Refused("is damaged: its pickle fills what is no dictionary")
        for key, value in zip(items[::2], items[1::2], strict=True):
            if type(key) not in (str, int, float, bool, type(None)):
                raise Refused(f"has a dictionary key of type {type(key).__name__}")
            if type(key) is str and (len(key) > _KEY or not key.isprintable()):
                raise Refused(f"has a dictionary key that is no name: {key[:40]!r}")
            self.stack[-1][key] = value

    def find(self, module: Any, name: Any) -> None:
        if type(module) is not str or type(name) is not str:
            raise Refused("is damaged: its pickle names a global by what is no text")
        known = self.allowed.get(f"{module}.{name}")
        if known is None:
            raise Refused(
                f"asks for {f'{module}.{name}'[:_NAME]!r}, which is not on the list of what "
                "weights need",
                why="unpickling it could run any code, so nothing of this file is read",
            )
        self.stack.append(known)

    def global_(self) -> None:
        names = []
        for _ in range(2):
            end = self.data.find(b"\n", self.at, self.at + _NAME + 1)
            if end < 0:
                raise Refused("is damaged: the name of a global has no end")
            names.append(self.take(end + 1 - self.at)[:-1].decode())
        self.find(*names)

    def stack_global(self) -> None:
        name, module = self.stack.pop(), self.stack.pop()
        self.find(module, name)

    def reduce(self) -> None:
        arguments, function = self.stack.pop(), self.stack.pop()
        if type(function) is not Name or function.build is None or type(arguments) is not tuple:
            raise Refused("calls what cannot be called")
        self.stack.append(function.build(arguments))

    def build(self) -> None:
        self.stack.pop()  # attributes such as _metadata: never read
        if type(self.stack[-1]) is not Ordered:
            raise Refused("attaches attributes to what is no OrderedDict")

    def put(self, index: int) -> None:
        self.memo[index] = self.stack[-1]

    def get(self, index: int) -> None:
        self.stack.append(self.memo[index])


_STEPS: dict[int, Callable[[_Machine], None]] = {
    ord("\x80"): _Machine.proto,
    ord("\x95"): _Machine.frame,
    ord("N"): lambda m: m.stack.append(None),
    ord("\x88"): lambda m: m.stack.append(True),
    ord("\x89"): lambda m: m.stack.append(False),
    ord("J"): lambda m: m.stack.append(m.number("<i")),
    ord("K"): lambda m: m.stack.append(m.number("<B")),
    ord("M"): lambda m: m.stack.append(m.number("<H")),
    ord("\x8a"): _Machine.long,
    ord("G"): lambda m: m.stack.append(m.number(">d")),
    ord("X"): lambda m: m.text("<I"),
    ord("\x8c"): lambda m: m.text("<B"),
    ord("("): _Machine.mark,
    ord(")"): lambda m: m.stack.append(()),
    ord("\x85"): lambda m: m.tuple_of(1),
    ord("\x86"): lambda m: m.tuple_of(2),
    ord("\x87"): lambda m: m.tuple_of(3),
    ord("t"): _Machine.tuple_,
    ord("]"): lambda m: m.stack.append([]),
    ord("a"): _Machine.append,
    ord("e"): lambda m: m.extend(m.marked()),
    ord("}"): lambda m: m.stack.append({}),
    ord("s"): _Machine.set_item,
    ord("u"): lambda m: m.set_items(m.marked()),
    ord("c"): _Machine.global_,
    ord("\x93"): _Machine.stack_global,
    ord("R"): _Machine.reduce,
    ord("b"): _Machine.build,
    ord("Q"): lambda m: m.stack.append(m.persistent(m.stack.pop())),
    ord("q"): lambda m: m.put(m.number("<B")),
    ord("r"): lambda m: m.put(m.number("<I")),
    ord("\x94"): lambda m: m.put(len(m.memo)),
    ord("h"): lambda m: m.get(m.number("<B")),
    ord("j"): lambda m: m.get(m.number("<I")),
}
