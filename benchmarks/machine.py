"""On what was measured, and whether the machine was quiet meanwhile.

Two witnesses say whether somebody else was at work. A spin loop of known arithmetic, on all
threads: its samples of two milliseconds should hardly differ. And the kernel's account of time:
what the cores did in this second, less what this process did, was done by others (or by the
host of a virtual machine, which is called stolen).
"""

from __future__ import annotations

import os
import platform
import time
from collections.abc import Callable
from importlib import metadata
from pathlib import Path
from typing import Any

import numpy as np
from minigan_kernels.cpu.machine import simd
from minigan_kernels.cpu.threads import cores, threads

from benchmarks.peaks import spin

SETTLE, SPIN = 0.1, 0.8  # seconds of spinning in a check: not looked at, looked at
VARIATION = 0.05  # between the quartiles of the loop's speed
DISTURBED = 0.1  # share of samples below 85% of the median
OTHERS = 0.05  # share of the cores
TRIES = 3  # before a machine is called noisy
SLOWER = 0.05  # the machine after a run against before it


def facts() -> dict[str, Any]:
    """Processor, threads, instructions and versions."""
    found: dict[str, Any] = {
        "processor": processor(),
        "cores": cores(),
        "threads": threads(),
        "simd": simd(),
        "python": platform.python_version(),
    }
    for package in ("numpy", "numba", "torch"):
        try:
            found[package] = metadata.version(package)
        except metadata.PackageNotFoundError:
            found[package] = None
    return found


def processor() -> str:
    """The processor's name for itself."""
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


class Watch:
    """How much of the cores others have used since it was made; None where nobody can tell."""

    def __init__(self) -> None:
        self.start = time.perf_counter()
        self.cores, self.own = _busy(), _own()

    def others(self) -> float | None:
        now = _busy()
        if self.cores is None or now is None:
            return None
        elapsed = (time.perf_counter() - self.start) * (os.cpu_count() or 1)
        used = now - self.cores - (_own() - self.own)
        return round(max(0.0, used / max(elapsed, 1e-9)), 4)


def _busy() -> float | None:
    """Seconds that all cores have worked, for whomever, and that the host took away."""
    try:
        numbers = [int(n) for n in Path("/proc/stat").read_text().split("\n", 1)[0].split()[1:9]]
    except (OSError, ValueError):
        return None
    user, nice, system, _idle, _waiting, irq, soft, stolen = numbers
    ticks: int = os.sysconf("SC_CLK_TCK")
    return (user + nice + system + irq + soft + stolen) / ticks


def _own() -> float:
    times = os.times()
    return times.user + times.system + times.children_user + times.children_system


def check() -> dict[str, Any]:
    """Spin for a moment; return what was seen and `noise`, a list of complaints.

    A moment is easily disturbed: only a machine that is noisy three times in a row is.
    """
    for _ in range(TRIES):
        seen = _look()
        if not seen["noise"]:
            break
    return seen


def _look() -> dict[str, Any]:
    work = spin(threads())
    _spin(work, SETTLE)
    watch = Watch()
    samples = _spin(work, SPIN)
    low, middle, high = np.percentile(samples, (25, 50, 75))
    seen: dict[str, Any] = {
        "gflops": round(float(middle), 1),
        "variation": round(float((high - low) / middle), 3),
        "disturbed": round(float(np.mean(np.array(samples) < 0.85 * middle)), 3),
        "others": watch.others(),
        "load": _load(),
    }
    noise = []
    if seen["variation"] > VARIATION:
        noise.append(f"the speed of a fixed loop varies by {seen['variation']:.0%}")
    if seen["disturbed"] > DISTURBED:
        noise.append(f"{seen['disturbed']:.0%} of the samples of a fixed loop are slow")
    if (seen["others"] or 0) > OTHERS:
        noise.append(f"others use {seen['others']:.0%} of the cores")
    return seen | {"noise": noise}


def _spin(work: Callable[[], float], seconds: float) -> list[float]:
    samples, start = [], time.perf_counter()
    while time.perf_counter() - start < seconds:
        samples.append(work())
    return samples


def _load() -> float | None:
    try:
        return round(os.getloadavg()[0], 2)
    except OSError:
        return None


def verdict(before: dict[str, Any], after: dict[str, Any], others: float | None) -> list[str]:
    """All complaints about a run, from the checks around it and the watch over it."""
    noise = [f"before: {text}" for text in before["noise"]]
    noise += [f"after: {text}" for text in after["noise"]]
    if others is not None and others > OTHERS:
        noise.append(f"meanwhile others used {others:.0%} of the cores")
    if after["gflops"] < before["gflops"] * (1 - SLOWER):
        noise.append(
            f"a fixed loop ran at {after['gflops']} GFLOP/s after, {before['gflops']} before"
        )
    return noise


def describe(seen: dict[str, Any]) -> str:
    """One line about a check."""
    others = "unknown" if seen["others"] is None else f"{seen['others']:.1%}"
    return (
        f"{seen['gflops']} GFLOP/s, varying by {seen['variation']:.1%}, {seen['disturbed']:.0%} of "
        f"the samples slow; others use {others} of the cores, load average {seen['load']}"
    )
