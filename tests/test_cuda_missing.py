"""What a user reads where there is no GPU, or not all that belongs to one."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
from minigan_kernels.cuda import nvrtc

import minigan as mg
from minigan import cuda
from minigan.cli.info import describe_machine
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
    runtime.getDeviceProperties = lambda index: {"name": b"NVIDIA H200"}
    device = SimpleNamespace(compute_capability=capability, mem_info=(70 << 30, 140 << 30))
    made.cuda, made.__version__ = (
        SimpleNamespace(runtime=runtime, Device=lambda i: device),
        "14.2.0",
    )
    return made


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


MISSING = [
    (None, "cuda", r"needs CuPy.*minigan\[cuda13\]"),
    (fake_cupy(devices=None, driver=0), "cuda", "no NVIDIA driver answers.*nvidia-smi"),
    (fake_cupy(devices=None, driver=12080), "cuda", r"too old for CUDA 13\.0.*12\.8"),
    (fake_cupy(devices=None), "cuda", "no GPU can be used.*CUDA_VISIBLE_DEVICES"),
    (fake_cupy(devices=0), "cuda", "no GPU is visible.*CUDA_VISIBLE_DEVICES"),
    (fake_cupy(devices=2), "cuda:2", "'cuda:2' does not exist.*2 GPUs are visible"),
    (fake_cupy(capability="75"), "cuda", "older than minigan's kernels.*75"),
]


@pytest.mark.parametrize(("cupy", "device", "message"), MISSING)
def test_what_is_missing_is_said_with_its_remedy(
    cupy: ModuleType | None, device: str, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    with pytest.raises(ResourceError, match=f"(?s){message}"):
        mg.tensor([1.0], device=device)
    assert mg.tensor([1.0]).device == "cpu"  # and the program goes on


@pytest.mark.parametrize(("cupy", "message"), [(c, m) for c, device, m in MISSING[:5]])
def test_info_env_says_in_one_line_why_there_is_no_gpu(
    cupy: ModuleType | None, message: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setitem(sys.modules, "cupy", cupy)
    facts, lines = describe_machine()
    (line,) = [line for line in lines if line.startswith("gpu  ")]
    assert re.search(message, line) and "none: " in line
    assert json.loads(json.dumps(facts))["cuda"]["missing"] in line
    assert any(line.startswith("cubins") for line in lines)


def test_info_env_describes_each_gpu(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(devices=2, driver=13010))
    (tmp_path / "abc.cubin").write_bytes(bytes(2_000_000))
    monkeypatch.setenv("MINIGAN_CUBINS", str(tmp_path))
    monkeypatch.setattr("minigan_kernels.cuda.nvrtc.version", lambda: (13, 0))
    rows = {line[:14].strip(): line[15:] for line in describe_machine()[1]}
    assert rows["cupy"] == "14.2.0, driver for CUDA 13.1, runtime 13.0"
    gpu = "NVIDIA H200, 140.0 GiB (70.0 free), compute capability 9.0, kernels: sm_90a"
    assert rows["cuda:0"] == rows["cuda:1"] == gpu and rows["nvrtc"] == "13.0"
    assert rows["cubins"] == f"1 files, 2.0 MB in {tmp_path}"
    assert rows["gpu precision"].startswith("convolutions tf32, matrix products fp32")


def test_info_env_describes_what_cannot_be_used(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise nvrtc.CompileError("NVRTC was not found")

    monkeypatch.setitem(sys.modules, "cupy", fake_cupy(capability="75"))
    monkeypatch.setattr("minigan_kernels.cuda.nvrtc.library", missing)
    rows = {line[:14].strip(): line[15:] for line in describe_machine()[1]}
    assert "7.5, kernels: none, it is older than minigan's kernels" in rows["cuda:0"]
    assert rows["nvrtc"] == "none: NVRTC was not found"


def test_a_missing_compiler_is_said(monkeypatch: pytest.MonkeyPatch) -> None:
    def missing() -> None:
        raise nvrtc.CompileError("NVRTC was not found")

    monkeypatch.setitem(sys.modules, "cupy", fake_cupy())
    monkeypatch.setattr("minigan_kernels.cuda.nvrtc.library", missing)
    with pytest.raises(ResourceError, match=r"(?s)compiler of its kernels.*minigan\[cuda13\]"):
        mg.tensor([1.0], device="cuda")


@pytest.mark.parametrize("name", ["cuda:", "cuda:x", "cuda:-1", "gpu"])
def test_a_name_that_is_no_device(name: str) -> None:
    with pytest.raises(UsageError, match="unknown device"):
        mg.tensor([1.0], device=name)


def test_minigan_alone_imports_no_cupy() -> None:
    code = "import sys, minigan, minigan.cli; assert not [m for m in sys.modules if 'cupy' in m]"
    subprocess.run([sys.executable, "-c", code], check=True)
