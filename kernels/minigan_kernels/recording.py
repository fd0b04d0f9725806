"""Steps that are recorded once and played again, and what of them the host must do each time.

A recorded step repeats the work of the device, nothing else. What the host computes anew in every
step (a batch, the key of a random stream, the options of an optimizer) goes through `again`; where
nothing is being recorded, `again` just runs its action.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Iterator
from typing import Protocol

Action = Callable[[], None]


class Recording(Protocol):
    """A step that is being recorded."""

    def again(self, action: Action) -> None: ...


_CURRENT: list[Recording] = []


def current() -> Recording | None:
    """The recording that is going on, if any."""
    return _CURRENT[-1] if _CURRENT else None


@contextlib.contextmanager
def going_on(recording: Recording) -> Iterator[None]:
    """Let `again` reach this recording inside a `with` block."""
    _CURRENT.append(recording)
    try:
        yield
    finally:
        _CURRENT.pop()


def again(action: Action) -> None:
    """Run an action of the host now, and again each time a step recorded now is played."""
    if _CURRENT:
        _CURRENT[-1].again(action)
    else:
        action()
