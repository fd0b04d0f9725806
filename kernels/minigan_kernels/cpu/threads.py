"""How many threads compute: decided here, once, for our kernels and for BLAS.

Our parallel loop uses all of them; BLAS gets one. Two pools that both spin while they wait take
the cores from each other (both then run at half speed), so matrix products that deserve several
threads go through our own kernels.
"""

from __future__ import annotations

import os
from functools import cache

VARIABLE = "MINIGAN_THREADS"


def cores() -> int:
    """Cores that this process may use."""
    try:
        return len(os.sched_getaffinity(0))
    except AttributeError:  # not Linux
        return os.cpu_count() or 1


@cache
def threads() -> int:
    """$MINIGAN_THREADS, or the number of cores; read once.

    Raises
    ------
    ValueError
        if the variable is set to something else than a positive integer.
    """
    text = os.environ.get(VARIABLE, "").strip()
    if text and not (text.isdecimal() and int(text) > 0):
        raise ValueError(f"{VARIABLE} is {text!r}; set it to a positive number of threads")
    return int(text) if text else cores()


def give_blas_one_thread() -> None:
    """Called when the kernels are imported; holds for the whole process."""
    import threadpoolctl

    threadpoolctl.threadpool_limits(1, user_api="blas")
