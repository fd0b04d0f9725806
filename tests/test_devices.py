"""Every operation gives the same on a GPU as on the CPU: values, gradients, second derivatives.

The GPU is the emulated one where there is none; MINIGAN_DEVICE=cuda takes the real one.
"""

from __future__ import annotations

import os
from typing import Any

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from opspec import Array, Case, OpSpec
from specs import ALL
from strategies import rngs

import minigan as mg
from minigan.backend import find, to_numpy
from minigan.tensor import Tensor

NAME = os.environ.get("MINIGAN_DEVICE", "emulated")
if NAME == "emulated":
    from emulator.loader import emulated_backend

    emulated_backend()

pytestmark = pytest.mark.usefixtures("accurate")
EXAMPLES = int(os.environ.get("MINIGAN_EXAMPLES", "3"))


def on(device: str, inputs: Any) -> list[Any]:
    """Inputs of a call as tensors on a device that ask for gradients; labels and None stay."""
    backend = find(device)
    moved: list[Any] = []
    for x in inputs:
        if x is None or isinstance(x, Tensor):
            moved.append(x)
            continue
        t = Tensor(backend.upload(x.copy() if device == "cpu" else x))
        t.requires_grad = x.dtype.kind == "f"
        moved.append(t)
    return moved


def in_dtype(x: Any, dtype: str) -> Any:
    """Arrays of floats in another dtype; all else as it is."""
    if isinstance(x, np.ndarray | np.generic) and x.dtype.kind == "f":
        return np.asarray(x, dtype)
    return x


def results(spec: OpSpec, case: Case, cotangents: list[Array], device: str) -> list[Any]:
    """The value, the gradients by the kernels, the same on Tensors, and those of a projection."""
    mg.manual_seed(0)
    args = on(device, case.inputs)
    y = spec.fn(*args, **case.kwargs)
    found = [y]
    places = [args[i] for i in spec.places(case.inputs)] if spec.order else []
    if places and y.node is not None:
        backend = find(device)
        g = Tensor(backend.upload(cotangents[0].reshape(y.shape).astype(y.dtype)))
        found += mg.grad(y, places, [g], retain_graph=True)
        first = mg.grad(y, places, [g], create_graph=spec.order > 1)
        found += first
        if spec.order > 1:
            parts = [
                (d * Tensor(backend.upload(h.astype(d.dtype)))).sum()
                for d, h in zip(first, cotangents[1:], strict=False)
                if d is not None and d.node is not None
            ]
            if parts:
                found += mg.grad(sum(parts[1:], parts[0]), places)
    for r in found:
        assert r is None or r.device == find(device).name
    return [None if r is None else to_numpy(r.data) for r in found]


@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("spec", ALL, ids=repr)
@given(data=st.data())
@settings(max_examples=EXAMPLES)
def test_a_gpu_gives_what_the_cpu_gives(spec: OpSpec, dtype: str, data: st.DataObject) -> None:
    if dtype == "float32" and not spec.float32:
        pytest.skip("float64 only")
    case = data.draw(spec.cases)
    rng = data.draw(rngs(1))
    inputs = tuple(in_dtype(x, dtype) for x in case.inputs)
    case = Case(inputs, {name: in_dtype(x, dtype) for name, x in case.kwargs.items()})
    mg.manual_seed(0)
    shape = spec.fn(*on("cpu", inputs), **case.kwargs).shape
    shapes = [shape, *(inputs[i].shape for i in spec.places(inputs))]
    cotangents = [np.asarray(rng.uniform(-1, 1, s)) for s in shapes]
    expected = results(spec, case, cotangents, "cpu")
    found = results(spec, case, cotangents, NAME)
    eps = float(np.finfo(dtype).eps)
    for a, b in zip(found, expected, strict=True):
        assert (a is None) == (b is None)
        if a is None:
            continue
        assert a.shape == b.shape and a.dtype == b.dtype
        # Two ways to compute the same: a few roundings of sums as long as the largest values.
        scale = max(1.0, float(np.abs(b[np.isfinite(b)]).max(initial=0)))
        slack = spec.slack * spec.float32_slack * 64
        np.testing.assert_allclose(a, b, rtol=slack * eps, atol=slack * eps * scale)
