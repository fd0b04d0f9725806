"""What a user reads where there is no GPU, or not all that belongs to one."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Iterator
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest

import minigan as mg
from minigan import cuda
from minigan.errors import ResourceError, UsageError


class CUDARuntimeError(RuntimeError):
    pass


def fake_cupy(
    devices: int | None = 1, driver: int = 13000, capability: str = "90", wanted: int = 13000
) -> ModuleType:
    """A module that answers like CuPy on a machine with these things."""

    def count() -> int:
        if devices is None:
            raise CUDARuntimeError("cudaErrorInsufficientDriver")
        return devices

    made: Any = ModuleType("cupy")
    made.ndarray = type("ndarray", (), {})
    runtime = SimpleNamespace(
        CUDARuntimeError=CUDARuntimeError,
        getDeviceCount=count,
        driverGetVersion=lambda: driver,
        runtimeGetVersion=lambda: wanted,
    )
    device = lambda index: SimpleNamespace(compute_capability=capability)  # noqa: E731
    made.cuda = SimpleNamespace(runtime=runtime, Device=device)
    return made  # type: ignore[no-any-return]


@pytest.fixture(autouse=True)
def forget() -> Iterator[None]:
    """No test sees the CuPy of another, nor that of this machine."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("minigan.backend._BY_NAME", {})
        patch.setattr("minigan.backend._OF_ARRAY", {})
        cuda.load_cupy.cache_clear()
        cuda._backend.cache_clear()
        yield
    cuda.load_cupy.cache_clear()
    cuda._backend.cache_clear()


@pytest.mark.parametrize(
    ("cupy", "device", "message"),
    [
        (None, "cuda", r"needs CuPy.*minigan\[cuda13\]"),
        (fake_cupy(devices=None, driver=0), "cuda", "no NVIDIA driver answers.*nvidia-smi"),
        (fake_cupy(devices=None, driver=12080), "cuda", r"too old for CUDA 13\.0.*12\.8"),
        (fake_cupy(devices=None), "cuda", "no GPU can be used.*CUDA_VISIBLE_DEVICES"),
        (fake_cupy(devices=0), "cuda", "no GPU is visible.*CUDA_VISIBLE_DEVICES"),
        (fake_cupy(devices=2), "cuda:2", "'cuda:2' does not exist.*2 GPUs are visible"),
        (fake_cupy(capability="75"), "cuda", "older than minigan's kernels.*75"),
    ],
)
def test_what_is_missing_is_said_with_its_remedy(
    cupy: ModuleType | None, device: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(ResourceError, match=f"(?s){message}"):
        mg.tensor([1.0], device=device)
    assert mg.tensor([1.0]).device == "cpu"  # and the program goes on


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cuda:-1", "gpu"])
def test_a_name_that_is_no_device(name: str) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        mg.tensor([1.0], device=name)


def test_minigan_alone_imports_no_cupy() -> None:
    code = "import sys, minigan, minigan.cli; assert not [m for m in sys.modules if 'cupy' in m]"
    subprocess.run([sys.executable, "-c", code], check=True)
