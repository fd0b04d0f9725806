"""Our operations against PyTorch: value, gradient, second-order gradient of its own samples.

The stored set needs no torch; the live one (marker torch) runs every sample of op_db that one of
our operations takes. See fixtures/make_torch_fixtures.py.
"""

from __future__ import annotations

import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from opspec import Array, leaf

import minigan as mg
import minigan.functional as F
from minigan.tensor import Tensor

FIXTURES = Path(__file__).parent / "fixtures"
sys.path.insert(0, str(FIXTURES))

from make_torch_fixtures import wave  # noqa: E402 (needs no torch)

RTOL = 1e-10


def stored() -> tuple[list[dict[str, Any]], Any]:
    arrays = np.load(FIXTURES / "torch_ops.npz")
    return json.loads(str(arrays["calls"])), arrays


CALLS, ARRAYS = stored()
OPERATIONS = sorted({call["op"] for call in CALLS})


def close(actual: Array, expected: Array, what: str) -> None:
    assert actual.shape == expected.shape, f"{what}: {actual.shape}, torch has {expected.shape}"
    if not expected.size:
        return
    finite = np.isfinite(expected)
    assert np.array_equal(finite, np.isfinite(actual)), f"{what}: not finite in other places"
    scale = max(float(np.max(np.abs(expected[finite]), initial=0.0)), 1e-3)
    error = float(np.max(np.abs(actual - expected)[finite], initial=0.0))
    assert error <= RTOL * scale, f"{what}: off by {error:.3g} (values up to {scale:.3g})"


def replay(call: dict[str, Any], arrays: Sequence[Array]) -> None:
    """Run our operation on the inputs and compare all that torch said."""
    wrt, count = call["wrt"], call["inputs"]
    rest = iter(arrays[count:])
    inputs = [leaf(a) if i in wrt else Tensor(a) for i, a in enumerate(arrays[:count])]

    def tensors(value: Any) -> Any:
        if isinstance(value, dict):
            return inputs[value["t"]]
        return [tensors(v) for v in value] if isinstance(value, list | tuple) else value

    args = [tensors(a) for a in call["args"]]
    with np.errstate(all="ignore"):  # samples include logarithms of negative numbers
        y = getattr(F, call["op"])(*args, **{k: tensors(v) for k, v in call["kwargs"].items()})
        close(y.data, next(rest), "value")
        xs = [inputs[i] for i in wrt]
        first = mg.grad(y, xs, wave(y.shape, 0.3), create_graph=call["order"] == 2)
        for i, g in enumerate(first):
            close(np.zeros_like(xs[i].data) if g is None else g.data, next(rest), f"gradient {i}")
        if call["order"] == 1:
            return
        total: Any = mg.tensor(np.zeros(()))
        for i, g in enumerate(first):
            if g is not None:
                total = total + (g * wave(g.shape, 0.7 + i)).sum()
        second = mg.grad(total, xs) if total.node is not None else [None] * len(xs)
        for i, (x, g) in enumerate(zip(xs, second, strict=True)):
            expected = next(rest)
            close(np.zeros_like(x.data) if g is None else g.data, expected, f"second order {i}")


@pytest.mark.parametrize("name", OPERATIONS)
def test_stored_answers(name: str) -> None:
    assert hasattr(F, name), f"functional has no {name}"
    for i, call in enumerate(CALLS):
        if call["op"] == name:
            count = call["inputs"] + 1 + len(call["wrt"]) * call["order"]
            try:
                replay(call, [ARRAYS[f"{i}.{j}"] for j in range(count)])
            except Exception as error:
                error.add_note(f"sample {i}: {call}")
                raise


def test_the_stored_set_is_broad_and_small() -> None:
    assert len(OPERATIONS) >= 75 and len(CALLS) >= 400
    assert (FIXTURES / "torch_ops.npz").stat().st_size < 2_000_000


@pytest.mark.torch
@pytest.mark.parametrize("name", OPERATIONS)
def test_live_answers(name: str) -> None:
    """Every sample that torch has for this operation, at any size up to 20,000 numbers."""
    pytest.importorskip("torch")
    import make_torch_fixtures as maker

    compared = 0
    for sample in maker.spread(samples_by_name(maker)[name], 200):
        done = maker.answers(sample)
        if done is None or sum(a.size for a in done[1]) > 20_000:
            continue
        try:
            replay(*done)
        except Exception as error:
            error.add_note(f"call: {done[0]}, shapes {[a.shape for a in done[1]]}")
            raise
        compared += 1
    assert compared


_SAMPLES: dict[str, list[Any]] = {}


def samples_by_name(maker: Any) -> dict[str, list[Any]]:
    """All samples by our operation's name, made once."""
    if not _SAMPLES:
        for sample in maker.all_samples():
            _SAMPLES.setdefault(sample.ours[0], []).append(sample)
    return _SAMPLES
