"""What goes wrong on a GPU is said, and the program goes on."""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from minigan_kernels.cuda.cupy_loader import CupyLoader
from minigan_kernels.cuda.device import integers
from minigan_kernels.cuda.launch_error import LaunchError, failure
from minigan_kernels.cuda.sources import Source
from PIL import Image
from test_devices import NAME

import minigan as mg
import minigan.functional as F
from minigan import nn, optim
from minigan.backend import find
from minigan.cli.app import describe, main
from minigan.errors import DtypeError, UsageError


def both(*shape: int) -> tuple[mg.Tensor, mg.Tensor]:
    """The same numbers on the CPU and on the GPU."""
    here = mg.tensor(np.random.default_rng(0).standard_normal(shape).astype(np.float32))
    return here, here.to(NAME)


@pytest.mark.parametrize(
    "call",
    [
        lambda a, b: a + b,
        lambda a, b: b * a,
        lambda a, b: F.conv2d(a, b),
        lambda a, b: F.conv2d(b, a),
        lambda a, b: F.concat([a, b]),
        lambda a, b: F.mse_loss(a, b),
        lambda a, b: F.batch_norm(b, None, None, a[0, :, 0, 0], a[0, :, 0, 0], True),
    ],
)
def test_mixed_devices_are_refused(call: Any) -> None:
    here, there = both(3, 3, 4, 4)
    with pytest.raises(UsageError, match=r"different devices(.|\n)*\.to\(device\)"):
        call(here, there)
    assert np.isfinite((there + there).numpy()).all()


def test_numbers_come_back_only_when_asked_for() -> None:
    here, there = both(2, 3)
    assert there.device == find(NAME).name and here.device == "cpu"
    assert np.array_equal(there.numpy(), here.numpy()) and there.to("cpu").device == "cpu"
    with pytest.raises(TypeError):
        np.asarray(there.data)


@pytest.mark.parametrize("dtype", ["int64", "bool", "float16"])
@pytest.mark.parametrize("call", [F.tanh, lambda x: F.softmax(x, 1), lambda x: x @ x])
def test_an_unsupported_dtype_is_refused(call: Any, dtype: str) -> None:
    x = mg.tensor(np.ones((2, 2), dtype)).to(NAME)
    with pytest.raises(DtypeError, match=rf"{dtype} \(2, 2\)(.|\n)*\.astype\('float32'\)"):
        call(x)
    assert np.isfinite(call(x.astype("float32")).numpy()).all()


@contextmanager
def left(nbytes: int) -> Iterator[None]:
    """A GPU with so many bytes more than are in use."""
    pool = find(NAME).xp.get_default_memory_pool()
    pool.free_all_blocks()
    pool.set_limit(size=pool.total_bytes() + nbytes)
    try:
        yield
    finally:
        pool.set_limit(size=0)


def test_out_of_memory_names_the_holders() -> None:
    x = mg.tensor(np.ones((512, 1024), np.float32)).to(NAME)
    x.requires_grad = True
    with left(5 << 20):
        with pytest.raises(MemoryError) as caught:
            kept = [F.tanh(x)]
            while True:
                kept.append(F.tanh(kept[-1]))
        text = "\n".join(caught.value.__notes__)
        assert "in the forward of Tanh on float32 (512, 1024)" in text
        assert "2.0 MiB  a Tensor that learns, float32 (512, 1024)" in text
        del kept, caught
        assert F.tanh(x[:1]).shape == (1, 1024)  # the program goes on


def test_out_of_memory_in_the_backward_pass_names_the_holders() -> None:
    x = mg.tensor(np.ones((512, 1024), np.float32)).to(NAME)
    x.requires_grad = True
    y = F.tanh(x).sum()
    with left(1 << 20):
        with pytest.raises(MemoryError) as caught:
            mg.grad(y, [x])
        text = "\n".join(caught.value.__notes__)
        assert "in the backward of" in text and text.count("a Tensor that learns") == 1
        assert "2.0 MiB" in text
        del y, caught
        assert F.tanh(x[:1]).shape == (1, 1024)


def test_training_out_of_memory_exits_with_the_remedy(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    pictures = tmp_path / "pictures"
    pictures.mkdir()
    for i in range(8):
        Image.fromarray(np.full((28, 28), i, np.uint8)).save(pictures / f"{i}.png")
    train = ["train", "dcgan", "--device", NAME, "--steps", "2", "--batch", "8", "-o", "width=4"]
    train += ["--data", str(pictures)]
    with left(1 << 20), pytest.raises(SystemExit) as caught:
        main([*train, "--out", str(tmp_path), "--no-progress"])
    text = capsys.readouterr().err
    assert caught.value.code == 5, text
    assert "out of memory" in text and "the largest:" in text and "try --batch 4" in text


BROKEN = Source("pool.cu", ("max_pool<float, 1>",))


def test_a_failed_launch_names_the_kernel_and_what_it_was_given() -> None:
    device = find(NAME).kernels.device
    x, threads = device.empty((2, 3)), 4096  # more than a block can have
    with pytest.raises(LaunchError) as caught:
        arguments = x, x, None, integers(outer=7, inner=1)
        device.launch(BROKEN, "max_pool<float, 1>", (5, 1), (threads,), *arguments, shared=32)
    text = str(caught.value)
    assert "kernel max_pool<float, 1> of pool.cu: " in text
    assert "grid (5, 1), block (4096,), 32 bytes of shared memory" in text
    assert "arguments: float32 (2, 3), float32 (2, 3), 0, {outer: 7, inner: 1}" in text
    assert both(2, 3)[1].tanh().shape == (2, 3)


def test_what_a_driver_says_is_passed_on() -> None:
    launch = "a.cu", "f<float>", (1,), (32,), (np.int64(3),), 0
    found = failure(RuntimeError("CUDA_ERROR_INVALID_VALUE: invalid"), *launch)
    assert isinstance(found, LaunchError) and "f<float> of a.cu: CUDA_ERROR" in str(found)
    assert "fix" not in str(found) and "CUDA_ERROR" in describe(found)[1]
    assert "CUDA_LAUNCH_BLOCKING" in describe(RuntimeError("cudaErrorLaunchFailure: x"))[1]
    found = failure(RuntimeError("CUDA_ERROR_ILLEGAL_ADDRESS"), *launch)
    assert "an earlier one" in str(found) and "CUDA_LAUNCH_BLOCKING=1" in str(found)
    assert isinstance(failure(RuntimeError("CUDA_ERROR_OUT_OF_MEMORY"), *launch), MemoryError)


class Driver:
    """A CuPy whose driver refuses to load, or to launch."""

    CU_FUNC_ATTRIBUTE_MAX_DYNAMIC_SHARED_SIZE_BYTES = 8

    def __init__(self, loads: bool) -> None:
        self.loads, self.ptr, self.driver, self.function = loads, 0, self, self
        self.cuda = self

    def Module(self) -> Any:
        return self

    def load(self, code: bytes) -> None:
        if not self.loads:
            raise RuntimeError("CUDA_ERROR_INVALID_IMAGE")

    def get_function(self, name: str) -> Any:
        return SimpleNamespace(ptr=0, __call__=None)

    def funcSetAttribute(self, pointer: int, attribute: int, value: int) -> None:
        raise RuntimeError("CUDA_ERROR_INVALID_VALUE")


def test_a_real_loader_says_the_same(monkeypatch: pytest.MonkeyPatch) -> None:
    made = b"", {BROKEN.instances[0]: "mangled"}
    monkeypatch.setattr("minigan_kernels.cuda.cupy_loader.cubin", lambda *how: made)
    launch = CupyLoader(Driver(loads=True), "80").function(BROKEN, BROKEN.instances[0])
    with pytest.raises(LaunchError, match=r"max_pool<float, 1> of pool\.cu(.|\n)*grid \(2,\)"):
        launch((2,), (32,), (), 1 << 20)
    with pytest.raises(LaunchError, match=r"not load pool\.cu, compiled for sm_80(.|\n)*driver"):
        CupyLoader(Driver(loads=False), "80").function(BROKEN, BROKEN.instances[0])


def test_weights_keep_their_order_in_memory_on_the_way() -> None:
    layer = nn.Conv2d(3, 5, 3)
    strides = layer.weight.data.strides
    saved = layer.state_dict()["weight"]
    layer.to(NAME)
    assert tuple(layer.weight.data.strides) == strides
    assert np.array_equal(layer.state_dict()["weight"], saved)
    layer.to("cpu")
    assert np.array_equal(layer.weight.numpy(), saved)


def test_a_checkpoint_goes_from_device_to_device() -> None:
    """Trained on the GPU for a step, continued on the CPU: the optimizer's memory comes along."""
    network = nn.Linear(4, 2).to(NAME)
    adam = optim.Adam(list(network.parameters()), 1e-3)
    x = both(3, 4)[1]
    adam.step(mg.grad(network(x).square().sum(), list(network.parameters())))
    weights, memory = network.state_dict(), adam.state_dict()
    other = nn.Linear(4, 2)
    again = optim.Adam(list(other.parameters()), 1e-3)
    other.load_state_dict(weights)
    again.load_state_dict(memory)
    for name, array in again.state_dict().items():
        assert np.array_equal(array, memory[name])
    network.load_state_dict(other.state_dict())
    assert network.weight.device == find(NAME).name
