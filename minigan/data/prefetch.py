"""Read the next batches while the current one is being used.

One background thread asks the same `Batches` for the same steps in the same order, so results do
not change, only the waiting. The position is what the main loop has taken, not what has been read
ahead.
"""

from __future__ import annotations

import queue
import threading
import weakref
from collections.abc import Iterator
from types import TracebackType
from typing import Any, Generic

from .ordered import B, Indices, Ordered

_POLL = 0.1  # seconds between looks at whether the other side is still there
_JOIN = 10.0


class Prefetch(Generic[B]):
    """`Batches`, read ahead by one thread. Use it in a `with`, or call `close` at the end.

    Parameters
    ----------
    batches : where the batches come from.
    depth : how many batches to hold ready.

    Notes
    -----
    An error of the thread is raised by the call that asks for that batch. The thread starts with
    the first batch, and ends with `close`, with the end of this object or of the program.
    """

    def __init__(self, batches: Ordered[B], depth: int = 2) -> None:
        self.batches, self.depth = batches, max(1, depth)
        self.batch_size = batches.batch_size
        self._reader: _Reader[B] | None = None

    @property
    def step(self) -> int:
        """The step of the batch that comes next."""
        return self.batches.step

    def indices(self, step: int) -> Indices:
        """Return the numbers of the images of a step."""
        return self.batches.indices(step)

    def batch(self, step: int) -> B:
        """Return the batch of a step; fast if it is the one after the last."""
        if self._reader is None or self._reader.next_step != step:
            self.close()
            self._reader = _Reader(self.batches, step, self.depth)
        try:
            return self._reader.take()
        except BaseException:
            self.close()  # the thread has ended; a further call begins anew
            raise

    def state(self) -> dict[str, int]:
        """Return the position of what has been taken."""
        return self.batches.state()

    def set_state(self, state: dict[str, int]) -> None:
        """Go to a position; what has been read ahead is thrown away."""
        self.close()
        self.batches.set_state(state)

    def close(self) -> None:
        """End the thread. The object can still be used: the next batch starts a new one."""
        if self._reader is not None:
            self._reader.close()
            self._reader = None

    def __iter__(self) -> Iterator[B]:
        return self

    def __next__(self) -> B:
        batch = self.batch(self.batches.step)
        self.batches.step += 1
        return batch

    def __enter__(self) -> Prefetch[B]:
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self.close()


class _Reader(Generic[B]):
    """The thread, and the queue between it and the main loop."""

    def __init__(self, batches: Ordered[B], step: int, depth: int) -> None:
        self.next_step = step
        self._ready: queue.Queue[tuple[int, B | Exception]] = queue.Queue(depth)
        self._stop = threading.Event()
        # A daemon, so that a forgotten one cannot keep the program alive; ended by `finalize` all
        # the same, so that none is killed in the middle of its work. It must not refer to self.
        self._thread = threading.Thread(
            target=_read_ahead,
            args=(batches, step, self._ready, self._stop),
            name="minigan-prefetch",
            daemon=True,
        )
        self._thread.start()
        self.close = weakref.finalize(self, _end, self._thread, self._stop)

    def take(self) -> B:
        """Return the next batch, or raise what went wrong with it."""
        while True:
            try:
                step, item = self._ready.get(timeout=_POLL)
                break
            except queue.Empty:
                if not self._thread.is_alive() and self._ready.empty():
                    raise RuntimeError("the prefetching thread has died") from None
        assert step == self.next_step
        if isinstance(item, Exception):
            raise item
        self.next_step += 1
        return item


def _read_ahead(
    batches: Ordered[Any], step: int, ready: queue.Queue[Any], stop: threading.Event
) -> None:
    while not stop.is_set():
        item: Any
        try:
            item = batches.batch(step)
        except Exception as error:
            item = error
        while not stop.is_set():
            try:
                ready.put((step, item), timeout=_POLL)
                break
            except queue.Full:
                continue
        if isinstance(item, Exception):
            return
        step += 1


def _end(thread: threading.Thread, stop: threading.Event) -> None:
    stop.set()
    thread.join(_JOIN)
