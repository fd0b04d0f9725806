"""NVIDIA GPUs: CuPy, imported when a GPU is first asked for, and one backend per device.

What can be missing is told apart, each with its remedy: CuPy, the driver, a driver new enough,
a visible device, a device new enough.
"""

from __future__ import annotations

import importlib
from functools import cache
from typing import Any

from minigan_kernels.cuda import Kernels, cubins, nvrtc
from minigan_kernels.cuda.cupy_loader import CupyLoader, architecture_for
from minigan_kernels.cuda.cupy_tape import CupyTape
from minigan_kernels.cuda.device import Device
from minigan_kernels.precision import of_convolutions, of_products

from minigan.backend import Backend, register
from minigan.errors import ResourceError

INSTALL = "pip install 'minigan[cuda13]' (driver 580 or later) or 'minigan[cuda12]'"


@cache
def load_cupy() -> Any:
    """Import CuPy and make sure that a GPU answers."""
    try:
        cupy = importlib.import_module("cupy")
    except ImportError as error:
        raise ResourceError(
            "device 'cuda' needs CuPy, which cannot be imported",
            why=str(error),
            fix=f"{INSTALL}, or use device 'cpu'",
        ) from error
    runtime = cupy.cuda.runtime
    try:
        count = runtime.getDeviceCount()
    except runtime.CUDARuntimeError as error:
        raise _no_device(runtime, error) from error
    if count == 0:
        raise ResourceError(
            "device 'cuda': no GPU is visible",
            why="the driver answers, but offers no device",
            fix="look at CUDA_VISIBLE_DEVICES and nvidia-smi, or use device 'cpu'",
        )
    return cupy


def _no_device(runtime: Any, error: Exception) -> ResourceError:
    """Why the driver did not even count its devices."""
    have, wanted = runtime.driverGetVersion(), runtime.runtimeGetVersion()
    if have == 0:
        return ResourceError(
            "device 'cuda': no NVIDIA driver answers",
            why=str(error),
            fix="install the driver and see that nvidia-smi works, or use device 'cpu'",
        )
    if have < wanted:
        return ResourceError(
            f"device 'cuda': the driver is too old for CUDA {_dotted(wanted)}",
            why=f"it supports CUDA {_dotted(have)}",
            fix="update the driver, or install minigan[cuda12], or use device 'cpu'",
        )
    return ResourceError(
        "device 'cuda': no GPU can be used",
        why=str(error),
        fix="look at CUDA_VISIBLE_DEVICES and nvidia-smi, or use device 'cpu'",
    )


def _dotted(version: int) -> str:
    return f"{version // 1000}.{version % 1000 // 10}"


def backend(index: int = 0) -> Backend:
    """The backend of one GPU."""
    cupy = load_cupy()
    count = cupy.cuda.runtime.getDeviceCount()
    if not 0 <= index < count:
        raise ResourceError(
            f"device 'cuda:{index}' does not exist",
            why=f"{count} GPU{'s are' if count > 1 else ' is'} visible, numbered from 0",
            fix="use one of these, or look at CUDA_VISIBLE_DEVICES",
        )
    return _backend(index)


@cache
def _backend(index: int) -> Backend:
    cupy = load_cupy()
    capability = cupy.cuda.Device(index).compute_capability
    try:
        loader = CupyLoader(cupy, capability)
        nvrtc.library()
    except nvrtc.CompileError as error:
        raise ResourceError(
            f"device 'cuda:{index}': the compiler of its kernels is missing",
            why=str(error),
            fix=f"{INSTALL}, or use device 'cpu'",
        ) from error
    except ValueError as error:
        raise ResourceError(
            f"device 'cuda:{index}' is older than minigan's kernels",
            why=str(error),
            fix="use a GPU of the Ampere generation or later, or device 'cpu'",
        ) from error
    name = f"cuda:{index}"
    made = Backend(name, cupy, Kernels(Device(name, cupy, loader, CupyTape(cupy))))
    register(made, cupy.ndarray, lambda array: _backend(array.device.id))
    return made


# What `minigan info env` tells -------------------------------------------------------------------


def facts() -> dict[str, Any]:
    """The GPUs of this machine and what their kernels need; says of each missing thing why.

    Keys: "missing" (None, or why there is no GPU), with a GPU "cupy", "driver", "runtime" and
    "devices"; "nvrtc" (version, or why there is none), "cubins", "precision".
    """
    found: dict[str, Any] = {"missing": None}
    try:
        cupy = load_cupy()
    except ResourceError as error:
        found["missing"] = in_one_line(error)
    else:
        runtime = cupy.cuda.runtime
        found["cupy"] = cupy.__version__
        found["driver"] = _dotted(runtime.driverGetVersion())
        found["runtime"] = _dotted(runtime.runtimeGetVersion())
        found["devices"] = [_device_facts(cupy, i) for i in range(runtime.getDeviceCount())]
    try:
        found["nvrtc"] = "{}.{}".format(*nvrtc.version())
    except nvrtc.CompileError as error:
        found["nvrtc"] = f"none: {error}"
    files, size = cubins.stored()
    found["cubins"] = {
        "folder": str(cubins.folder()),
        "writable": cubins.writable(),
        "files": files,
        "megabytes": round(size / 1e6, 1),
    }
    return found | {"precision": {"convolutions": of_convolutions(), "products": of_products()}}


def _device_facts(cupy: Any, index: int) -> dict[str, Any]:
    properties = cupy.cuda.runtime.getDeviceProperties(index)
    device = cupy.cuda.Device(index)
    free, total = device.mem_info
    capability = device.compute_capability
    try:
        architecture = architecture_for(capability)
    except ValueError as error:
        architecture = f"none, it is older than minigan's kernels ({error})"
    return {
        "name": properties["name"].decode(),
        "memory_gib": round(total / 2**30, 1),
        "free_gib": round(free / 2**30, 1),
        "capability": f"{capability[:-1]}.{capability[-1]}",
        "architecture": architecture,
    }


def in_one_line(error: ResourceError) -> str:
    """What is missing, why, and the remedy."""
    why = " ".join(error.why.split())
    return f"{error.what} ({why}): {error.fix}"
