"""Recording on a real GPU: CUDA's stream capture through CuPy."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from contextlib import AbstractContextManager, contextmanager
from typing import Any

import numpy as np

from minigan_kernels.cuda.launch_error import of_recorded_step
from minigan_kernels.cuda.step_graph import Free, Malloc


class CupyTape:
    """The `Tape` of one GPU.

    Parameters
    ----------
    cupy : the module.
    """

    def __init__(self, cupy: Any) -> None:
        self.cupy = cupy
        self._stream: Any = None

    @contextmanager
    def stream(self) -> Iterator[None]:
        if self._stream is None:  # of the device that is current at the first use
            self._stream = self.cupy.cuda.Stream(non_blocking=True)
        self.cupy.cuda.Stream.null.synchronize()  # what this stream reads must have been written
        with self._stream:
            yield
        self._stream.synchronize()

    def memory(self, malloc: Malloc, free: Free) -> AbstractContextManager[Any]:
        cuda = self.cupy.cuda
        places = cuda.PythonFunctionAllocator(
            lambda size, device: malloc(size), lambda address, device: free(address)
        )
        found: AbstractContextManager[Any] = cuda.using_allocator(places.malloc)
        return found

    def ordinary_memory(self) -> AbstractContextManager[Any]:
        pool = self.cupy.get_default_memory_pool()
        found: AbstractContextManager[Any] = self.cupy.cuda.using_allocator(pool.malloc)
        return found

    def block(self, size: int) -> tuple[int, Any]:
        kept = self.cupy.get_default_memory_pool().malloc(max(1, size))
        return int(kept.ptr), kept

    def staging(self, size: int) -> np.ndarray[Any, Any]:
        memory = self.cupy.cuda.alloc_pinned_memory(size)
        return np.frombuffer(memory, np.uint8, size)

    def copy(self, source: np.ndarray[Any, Any], to: Any) -> None:
        to.data.copy_from_host_async(source.ctypes.data, source.nbytes, self._stream)

    def begin(self, arena: Any) -> None:
        self._stream.begin_capture()

    def end(self) -> Callable[[], None]:
        graph = self._stream.end_capture()

        def start() -> None:
            try:
                graph.launch(self._stream)
            except self.cupy.cuda.runtime.CUDARuntimeError as error:
                raise of_recorded_step(error) from error

        return start
