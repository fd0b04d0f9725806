"""NVRTC, NVIDIA's run-time compiler, through ctypes: CUDA C++ in, machine code (a cubin) out.

It needs neither a GPU nor a driver. The library comes with the wheel `nvidia-cuda-nvrtc` (part of
the extras `cuda12` and `cuda13`) or with a CUDA toolkit ($CUDA_HOME, $CUDA_PATH, or the linker's
path).
"""

from __future__ import annotations

import ctypes
import functools
import os
import sysconfig
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

OPTIONS = ("-std=c++17", "--ftz=false", "--fmad=true", "--ptxas-options=-v")


class CompileError(RuntimeError):
    """NVRTC is missing, or it refused a source; the text says why."""


@dataclass(frozen=True)
class Compiled:
    """Machine code of some kernels."""

    cubin: bytes
    names: dict[str, str]  # instance -> its name in the cubin
    log: str  # registers, spills and shared memory of each, as ptxas reports them


@functools.cache
def library() -> Any:
    """Load NVRTC; raises CompileError with the remedy if it is nowhere."""
    for path in (*_candidates(), *map(Path, ("libnvrtc.so", "libnvrtc.so.13", "libnvrtc.so.12"))):
        try:
            for builtins in path.parent.glob("libnvrtc-builtins.so*"):
                ctypes.CDLL(str(builtins))  # NVRTC asks for it by its bare name
            return ctypes.CDLL(str(path))
        except OSError:
            continue
    raise CompileError(
        "NVRTC was not found: install the wheel nvidia-cuda-nvrtc, "
        "or set CUDA_HOME to a CUDA toolkit"
    )


def _candidates() -> list[Path]:
    site = Path(sysconfig.get_path("purelib")) / "nvidia"
    folders = [*sorted(site.glob("cu*/lib"), reverse=True), site / "cuda_nvrtc" / "lib"]
    for variable in ("CUDA_HOME", "CUDA_PATH"):
        if variable in os.environ:
            folders.append(Path(os.environ[variable]) / "lib64")
    return [p for f in folders for p in sorted(f.glob("libnvrtc.so*")) if "builtins" not in p.name]


def version() -> tuple[int, int]:
    """Version of the compiler."""
    major, minor = ctypes.c_int(), ctypes.c_int()
    _check(library().nvrtcVersion(ctypes.byref(major), ctypes.byref(minor)))
    return major.value, minor.value


def compile_source(text: str, architecture: str, instances: Sequence[str]) -> Compiled:
    """Compile some instances of a source for one architecture, such as "sm_90a".

    Raises
    ------
    CompileError
        with the compiler's messages.
    """
    nvrtc, program = library(), ctypes.c_void_p()
    _check(
        nvrtc.nvrtcCreateProgram(ctypes.byref(program), text.encode(), b"minigan.cu", 0, None, None)
    )
    try:
        for name in instances:
            _check(nvrtc.nvrtcAddNameExpression(program, name.encode()))
        options = [f"--gpu-architecture={architecture}".encode(), *map(str.encode, OPTIONS)]
        status = nvrtc.nvrtcCompileProgram(
            program, len(options), (ctypes.c_char_p * len(options))(*options)
        )
        log = _fetch(program, nvrtc.nvrtcGetProgramLogSize, nvrtc.nvrtcGetProgramLog)
        messages = log.rstrip(b"\0").decode(errors="replace")
        if status:
            raise CompileError(f"{architecture}, {', '.join(instances)}:\n{messages}")
        names = {name: _lowered(program, name) for name in instances}
        cubin = _fetch(program, nvrtc.nvrtcGetCUBINSize, nvrtc.nvrtcGetCUBIN)
        return Compiled(cubin, names, messages)
    finally:
        nvrtc.nvrtcDestroyProgram(ctypes.byref(program))


def _lowered(program: ctypes.c_void_p, name: str) -> str:
    found = ctypes.c_char_p()
    _check(library().nvrtcGetLoweredName(program, name.encode(), ctypes.byref(found)))
    assert found.value is not None
    return found.value.decode()


def _fetch(program: ctypes.c_void_p, size: Callable[..., int], get: Callable[..., int]) -> bytes:
    length = ctypes.c_size_t()
    _check(size(program, ctypes.byref(length)))
    buffer = ctypes.create_string_buffer(length.value)
    _check(get(program, buffer))
    return buffer.raw


def _check(status: int) -> None:
    if status:
        library().nvrtcGetErrorString.restype = ctypes.c_char_p
        raise CompileError(f"NVRTC: {library().nvrtcGetErrorString(status).decode()}")
