"""Which instructions the kernels use: the widest that the processor has, or narrower on request.

$MINIGAN_SIMD = "avx2" or "plain" forces less than the processor has (the tests of the narrower
paths do so; it must be set before the first kernel is compiled). Asking for more is an error.
"""

from __future__ import annotations

import os
from functools import cache
from typing import Any

import numba
from llvmlite import binding

VARIABLE = "MINIGAN_SIMD"
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
    has = _widest()
    wanted = os.environ.get(VARIABLE, "").strip().lower() or has
    if wanted not in LEVELS or LEVELS.index(wanted) > LEVELS.index(has):
        able = ", ".join(LEVELS[: LEVELS.index(has) + 1])
        raise ValueError(f"{VARIABLE} is {wanted!r}; this processor has {able}")
    if wanted != has and wanted in _NAMES:
        narrow = wanted if binding.get_process_triple().startswith("x86_64") else ""
        config: Any = numba.config
        config.CPU_NAME = _NAMES.get(narrow, "generic")
        config.CPU_FEATURES = ""
    return wanted


def _widest() -> str:
    features = binding.get_host_cpu_features()
    if features.get("amx-bf16") and features.get("avx512bw"):
        return "amx"
    if features.get("avx512f") and features.get("avx512vl"):
        return "avx512"
    if features.get("avx2") and features.get("fma"):
        return "avx2"
    return "plain"
