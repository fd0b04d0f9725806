"""Which instructions the kernels use: the widest that the processor has, or narrower on request.

$MINIGAN_SIMD = "avx2" or "plain" forces less than the processor has (the tests of the narrower
paths do so; it must be set before the first kernel is compiled). Asking for more is an error.

Intel's matrix unit, AMX, also needs the permission of Linux, which keeps its 8 KB of registers for
every thread that uses them; where it refuses, the level is avx512. $MINIGAN_EMULATE_AMX = "1"
computes the unit's instructions in memory, slowly: with it $MINIGAN_SIMD = "amx" works anywhere.
"""

from __future__ import annotations

import ctypes
import os
import sys
from functools import cache
from typing import Any

import numba
from llvmlite import binding
from numba.core import codegen

VARIABLE = "MINIGAN_SIMD"
EMULATION = "MINIGAN_EMULATE_AMX"
LEVELS = ("plain", "avx2", "avx512", "amx")  # each has all that stands before it
_NAMES = {"plain": "x86-64", "avx2": "haswell", "avx512": "skylake-avx512"}  # as LLVM calls them


@cache
def simd() -> str:
    """One of LEVELS. The first call also tells Numba, if less than everything is wanted.

    Raises
    ------
    ValueError
        if the variable names a level that is unknown or that this processor does not have.
    """
    config: Any = numba.config
    has = _widest()
    wanted = os.environ.get(VARIABLE, "").strip().lower() or has
    if wanted == "amx" and emulates_amx():
        # Code with emulated tiles holds no tile instruction and has its own place in Numba's cache.
        config.CPU_FEATURES = f"{codegen.get_host_cpu_features()},-amx-tile"
        return wanted
    if wanted not in LEVELS or LEVELS.index(wanted) > LEVELS.index(has):
        able = ", ".join(LEVELS[: LEVELS.index(has) + 1])
        raise ValueError(f"{VARIABLE} is {wanted!r}; this processor has {able}")
    if wanted != has and wanted in _NAMES:
        narrow = wanted if binding.get_process_triple().startswith("x86_64") else ""
        config.CPU_NAME = _NAMES.get(narrow, "generic")
        config.CPU_FEATURES = ""
    return wanted


def _widest() -> str:
    features = binding.get_host_cpu_features()
    if features.get("amx-bf16") and features.get("avx512bw") and _tiles_permitted():
        return "amx"
    if features.get("avx512f") and features.get("avx512vl"):
        return "avx512"
    if features.get("avx2") and features.get("fma"):
        return "avx2"
    return "plain"


def emulates_amx() -> bool:
    """Whether the tile instructions are to be computed in memory: for tests, never by itself."""
    return os.environ.get(EMULATION, "").strip() == "1"


def _tiles_permitted() -> bool:
    """Ask Linux, once and for all threads of this process, for the tile registers of AMX."""
    if sys.platform != "linux":
        return False
    arch_prctl, request_permission, tile_data = 158, 0x1023, 18
    return ctypes.CDLL(None).syscall(arch_prctl, request_permission, tile_data) == 0
