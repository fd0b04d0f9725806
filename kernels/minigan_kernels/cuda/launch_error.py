"""What is said when a kernel cannot be started: which one, how, and with what."""

from __future__ import annotations

from typing import Any

# After these the driver refuses everything in this process, and the launch that is told of them
# may be a later one: kernels run on while Python goes on.
FATAL = (
    "ILLEGAL ADDRESS",
    "MISALIGNED ADDRESS",
    "ILLEGAL INSTRUCTION",
    "INVALID ADDRESS SPACE",
    "INVALID PC",
    "HARDWARE STACK ERROR",
    "LAUNCH FAIL",
    "LAUNCH TIMEOUT",
    "ECC UNCORRECTABLE",
    "ASSERT",
)
REMEDY = "start again; with CUDA_LAUNCH_BLOCKING=1 the error names the kernel that failed"


class LaunchError(RuntimeError):
    """A kernel that could not be loaded or started; the text names it and its arguments."""


def failure(error: Exception, *launch: Any) -> Exception:
    """The exception to raise for what the driver said; `launch` as for `words`."""
    if "OUT_OF_MEMORY" in str(error):
        return MemoryError(words(error, *launch))
    text = words(error, *launch)
    if is_fatal(error):
        text += "\n  why: this kernel or an earlier one failed, and the driver serves this process"
        text += f" no more\n  fix: {REMEDY}"
    return LaunchError(text)


def of_recorded_step(error: Exception) -> Exception:
    """The exception to raise for what the driver said when a recorded step was to start."""
    if "OUT_OF_MEMORY" in str(error).upper().replace(" ", "_"):
        return MemoryError(f"a recorded step: {error}")
    fix = REMEDY if is_fatal(error) else "train with --no-graph"
    return LaunchError(f"a recorded step cannot be started: {error}\n  fix: {fix}")


def is_fatal(error: object) -> bool:
    """Whether the driver (CUDA_ERROR_ILLEGAL_ADDRESS) or the runtime (cudaErrorIllegalAddress)
    says that nothing can be done on the GPU any more."""
    said = str(error).upper().replace("_", "")
    return any(f"CUDAERROR{name.replace(' ', '')}" in said for name in FATAL)


def words(
    error: object,
    file: str,
    instance: str,
    grid: tuple[int, ...],
    block: tuple[int, ...],
    args: tuple[Any, ...],
    shared: int,
) -> str:
    """The kernel, its grid and its arguments in words."""
    size = f"grid {tuple(grid)}, block {tuple(block)}, {shared} bytes of shared memory"
    given = ", ".join(map(_argument, args))
    return f"kernel {instance} of {file}: {error}\n  launch: {size}\n  arguments: {given}"


def _argument(value: Any) -> str:
    """An array by dtype and shape, all else by value."""
    shape, dtype = getattr(value, "shape", ()), getattr(value, "dtype", None)
    if shape:
        return f"{dtype} {tuple(shape)}"
    if dtype is not None and dtype.names:
        return "{" + ", ".join(f"{name}: {value[name]}" for name in dtype.names) + "}"
    return str(value)
