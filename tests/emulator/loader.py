"""Compile .cu files with g++ and launch their kernels: the loader of the emulated GPU."""

from __future__ import annotations

import ctypes
import hashlib
import os
import subprocess
import tempfile
from collections.abc import Callable
from functools import cache
from pathlib import Path
from typing import Any

import numpy as np
from minigan_kernels.cuda import Kernels
from minigan_kernels.cuda.device import Device
from minigan_kernels.cuda.launch_error import LaunchError, words
from minigan_kernels.cuda.sources import Source

from emulator.arrays import HOOKS, EmulatedArray, Module
from emulator.tape import EmulatedTape
from minigan.backend import Backend, find, register

HERE = Path(__file__).resolve().parent
HEADERS = ("fibers.h", "cuda.h", "tensor_cores.h")
CXX = os.environ.get("CXX", "g++")
FLAGS = (
    *("-std=c++20", "-O2", "-ffp-contract=off", "-fno-strict-aliasing", "-fPIC", "-shared", "-w"),
    # A GPU faults where an access is not aligned to its size; x86 does not: make it trap.
    *("-fsanitize=alignment", "-fsanitize-undefined-trap-on-error"),
    # Which lines ran; see coverage.py.
    *(("--coverage", "-O1") if os.environ.get("MINIGAN_EMULATOR_COVERAGE") else ()),
)
ORDERS = (0, 1, 2)  # of warps and lanes between barriers: ascending, descending, shuffled


class EmulatorError(LaunchError):
    """What a GPU would answer with a wrong result, a hang or an illegal address."""


@cache
def library(text: str, instances: tuple[str, ...], flags: tuple[str, ...] = FLAGS) -> Any:
    """Compile instances of a source; the machine code is kept under the hash of all of it."""
    thunks = "".join(
        f'extern "C" int run_{i}(const unsigned* how, void** arguments, char* error) '
        f"{{ return emu::launch(&{name}, how, arguments, error); }}\n"
        for i, name in enumerate(instances)
    )
    program = f'#include "tensor_cores.h"\n{text}\n{thunks}'
    headers = [(HERE / name).read_text() for name in HEADERS]
    key = hashlib.sha256("\0".join([program, *headers, CXX, *flags]).encode()).hexdigest()[:24]
    default = Path(tempfile.gettempdir()) / f"minigan-emulator-{os.getuid()}"
    folder = Path(os.environ.get("MINIGAN_EMULATOR_CACHE", default))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = folder / f"{key}.so"
    if not made.exists():
        file = folder / f"{key}.cpp"
        file.write_text(program)
        new = folder / f"{key}.{os.getpid()}.tmp"
        command = [CXX, *flags, f"-I{HERE}", "-o", str(new), str(file)]
        done = subprocess.run(command, capture_output=True, text=True)
        if done.returncode:
            raise EmulatorError(done.stderr)
        new.replace(made)
    return ctypes.CDLL(str(made))


class EmulatedLoader:
    """Finds kernels for the emulated GPU; `order` and `seed` say how it schedules."""

    architecture = "sm_90a"

    def __init__(self, order: int = 0, seed: int = 0) -> None:
        self.order, self.seed = order, seed
        self.launches: list[str] = []  # the kernels that were launched

    def function(self, source: Source, instance: str) -> Any:
        instances = source.together_with(instance)
        run = getattr(library(source.text, instances), f"run_{instances.index(instance)}")

        def launch(grid: Any, block: Any, args: tuple[Any, ...], shared: int) -> None:
            if HOOKS.tape is not None:
                what = instance, grid, block, args, shared, self.order, self.seed
                return HOOKS.tape.add(prepared(run, *what))
            self.launches.append(instance)
            try:
                call(run, instance, grid, block, args, shared, self.order, self.seed)
            except EmulatorError as error:
                what = source.file, instance, grid, block, args, shared
                raise EmulatorError(words(error, *what)) from None

        return launch


def call(
    run: Any,
    name: str,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    args: tuple[Any, ...],
    shared: int = 0,
    order: int = 0,
    seed: int = 0,
) -> None:
    """Launch a compiled kernel, with arguments as `cupy.RawKernel` takes them."""
    prepared(run, name, grid, block, args, shared, order, seed)()


def prepared(
    run: Any,
    name: str,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    args: tuple[Any, ...],
    shared: int,
    order: int,
    seed: int,
) -> Callable[[], None]:
    """A launch for later; as on a GPU, it knows addresses and keeps no array alive."""
    values = [_value(name, i, a) for i, a in enumerate(args)]
    places = [v.ctypes.data for v in values]
    pointers = (ctypes.c_void_p * max(1, len(values)))(*places)
    sizes = (*grid, 1, 1)[:3] + (*block, 1, 1)[:3]
    how = (ctypes.c_uint * 9)(*sizes, shared, order, seed)

    def start() -> None:
        error = ctypes.create_string_buffer(512)
        if run(how, pointers, error):
            raise EmulatorError(f"{name}: {error.value.decode()}")

    start.values = values  # type: ignore[attr-defined]  # the pointers point at them
    return start


def _value(name: str, i: int, a: Any) -> np.ndarray[Any, Any]:
    """The bytes that a kernel gets: an address, or the value itself."""
    if isinstance(a, EmulatedArray):
        return np.array(a._numbers.ctypes.data, np.uint64)
    if isinstance(a, np.generic) or (isinstance(a, np.ndarray) and a.ndim == 0):
        return np.array(a)
    raise TypeError(f"{name}: argument {i} is a {type(a).__name__}")


def emulated_backend() -> Backend:
    """The emulated GPU as a device of minigan, named "emulated"."""
    device = emulated_device()
    made = Backend("emulated", device.xp, Kernels(device))
    register(made, EmulatedArray, lambda array: made)
    return made


def emulated_device(order: int = 0, seed: int = 0) -> Device:
    """A GPU on the CPU; the real one if MINIGAN_DEVICE names it."""
    wanted = os.environ.get("MINIGAN_DEVICE", "emulated")
    if wanted != "emulated":
        device: Device = find(wanted).kernels.device
        return device
    return Device("emulated", Module(), EmulatedLoader(order, seed), EmulatedTape())
