"""What is said when a kernel cannot be started: which one, how, and with what."""

from __future__ import annotations

from typing import Any

# After these the driver refuses everything in this process, and the launch that is told of them
# may be a later one: kernels run on while Python goes on.
FATAL = (
    "ILLEGAL_ADDRESS",
    "MISALIGNED_ADDRESS",
    "ILLEGAL_INSTRUCTION",
    "INVALID_ADDRESS_SPACE",
    "INVALID_PC",
    "HARDWARE_STACK_ERROR",
    "LAUNCH_FAILED",
    "LAUNCH_TIMEOUT",
    "ECC_UNCORRECTABLE",
    "_ASSERT",
)


class LaunchError(RuntimeError):
    """A kernel that could not be loaded or started; the text names it and its arguments."""


def failure(error: Exception, *launch: Any) -> Exception:
    """The exception to raise for what the driver said; `launch` as for `words`."""
    if "OUT_OF_MEMORY" in str(error):
        return MemoryError(words(error, *launch))
    text = words(error, *launch)
    if any(name in str(error) for name in FATAL):
        text += (
            "\n  why: this kernel or an earlier one failed, and the driver serves this process no"
            " more\n  fix: start again; with CUDA_LAUNCH_BLOCKING=1 the kernel named is the one"
        )
    return LaunchError(text)


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
