"""On what a run was made: versions, processor, instructions, threads, source, command line."""

from __future__ import annotations

import os
import platform
import shlex
import subprocess
import sys
from collections.abc import Mapping
from importlib import metadata
from pathlib import Path
from typing import Any

import minigan
from minigan.errors import UsageError

_PACKAGES = ("numpy", "numba", "safetensors", "pillow", "click", "rich")
# What decides the last bit. The number of threads does not.
_DECIDES_BITS = ("minigan", "numpy", "numba", "blas", "processor", "simd", "gpu")


def environment() -> dict[str, Any]:
    """Return the facts as a JSON object."""
    found: dict[str, Any] = {"minigan": minigan.__version__, "python": platform.python_version()}
    found |= {name: _version(name) for name in _PACKAGES}
    found |= {
        "blas": blas(),
        **instructions_and_threads(),
        "system": platform.platform(),
        "processor": _processor(),
        "cores": os.cpu_count(),
        "memory_gib": _memory_gib(),
        "gpu": _gpu(),
        "commit": _commit(),
        "command": command_line(),
    }
    return found


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What changed since a run was started, among the things that decide the last bit."""
    return [
        f"{name} {before.get(name)} -> {now.get(name)}"
        for name in _DECIDES_BITS
        if name in before and before.get(name) != now.get(name)
    ]


def command_line() -> str:
    """The command that started this process, without the folder of the program."""
    return shlex.join([Path(sys.argv[0]).name, *sys.argv[1:]])


def peak_memory_mb() -> float:
    """The most memory that this process has held, in megabytes; 0 where it cannot be asked."""
    try:
        import resource
    except ImportError:  # Windows
        return 0.0
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return round(peak / (2**20 if sys.platform == "darwin" else 2**10), 1)


def blas() -> str:
    """Name and version of the BLAS that NumPy uses."""
    from threadpoolctl import threadpool_info

    for pool in threadpool_info():
        if pool.get("user_api") == "blas":
            return f"{pool['internal_api']} {pool.get('version')}"
    return "unknown"


def instructions_and_threads() -> dict[str, Any]:
    """What the kernels compute with; raises UsageError if the variables that set it are wrong."""
    from minigan_kernels.cpu.machine import simd
    from minigan_kernels.cpu.threads import threads

    try:
        return {"simd": simd(), "threads": threads()}
    except ValueError as error:
        name = str(error).partition(" ")[0]
        raise UsageError(str(error), fix=f"change or unset {name}") from None


def compiled_kernels() -> dict[str, Any]:
    """Where compiled kernels are kept, whether that can be written, and what is there."""
    from minigan_kernels.cpu import compiled

    count, size = compiled.stored()
    return {
        "folder": str(compiled.root()),
        "writable": compiled.folder("parallel") is not None,
        "functions": count,
        "megabytes": round(size / 1e6, 1),
    }


def _version(package: str) -> str | None:
    try:
        return metadata.version(package)
    except metadata.PackageNotFoundError:
        return None


def _processor() -> str:
    try:
        text = Path("/proc/cpuinfo").read_text()
    except OSError:
        return platform.processor() or platform.machine()
    names = [line.partition(":")[2].strip() for line in text.splitlines() if "model name" in line]
    return names[0] if names else platform.machine()


def _memory_gib() -> float | None:
    try:
        return round(os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30, 1)
    except (AttributeError, ValueError, OSError):
        return None


def _gpu() -> str | None:
    """The GPU of this process, if it uses one, and the version of CuPy."""
    cupy: Any = sys.modules.get("cupy")
    try:
        properties = cupy.cuda.runtime.getDeviceProperties(cupy.cuda.runtime.getDevice())
        return f"{properties['name'].decode()}, cupy {cupy.__version__}"
    except Exception:  # none in use, or none that answers
        return None


def _commit() -> str | None:
    """The commit of a source checkout, with "+changes" if files differ from it."""
    root = Path(minigan.__file__).parents[1]
    if not (root / ".git").exists():
        return None
    try:
        commands = (["rev-parse", "--short=12", "HEAD"], ["status", "--porcelain", "-uno"])
        commit, changes = (
            subprocess.run(
                ["git", "-C", str(root), *command], capture_output=True, text=True, timeout=5
            ).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.TimeoutExpired):
        return None
    return f"{commit}+changes" if changes else commit or None
