"""What users read when they make a mistake: the whole text, kept in fixtures/messages.txt.

After a deliberate change: MINIGAN_UPDATE=1 pytest tests/test_messages.py, and read the diff.
"""

from __future__ import annotations

import os
import re
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from opspec import leaf

import minigan as mg
import minigan.functional as F
from minigan import nn
from minigan.debug import nan_watch
from minigan.errors import MiniganError, did_you_mean
from minigan.tensor import Tensor

GOLDEN = Path(__file__).parent / "fixtures" / "messages.txt"


def t(*shape: int, dtype: str = "float32") -> Tensor:
    return mg.tensor(np.ones(shape, dtype))


def backward_twice() -> None:
    loss = (leaf(np.ones(3)) * 2.0).sum()
    loss.backward()
    loss.backward()


def changed(name: str) -> None:
    layer = nn.Linear(3, 2)
    if name:
        layer = nn.Sequential(layer)
    x = leaf(np.ones((4, 3), np.float32))
    loss = layer(x).sum()
    weight = next(iter(layer.parameters()))
    weight.data *= 0.9
    weight.bump()
    mg.grad(loss, x)


def result_changed() -> None:
    y = leaf(np.ones(3)).exp()
    y.bump()
    mg.grad(y.sum(), y) and mg.grad(y.exp().sum(), y)
    y.sum().backward()


def no_gradient() -> None:
    with mg.no_grad():
        y = leaf(np.ones(3)).sum()
    y.backward()


def infinite_slope() -> None:
    with np.errstate(divide="ignore"), nan_watch():
        leaf(np.zeros(3)).sqrt().sum().backward()


def in_a_module() -> None:
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.Sequential(nn.Conv2d(8, 4, 3)))
    net(t(1, 3, 8, 8))


def assign() -> None:
    t(3)[0] = 1.0


def half_done(x: Tensor) -> tuple[Tensor, Tensor]:
    return x, x


MISTAKES: dict[str, Callable[[], object]] = {
    "backward twice": backward_twice,
    "backward of a vector": lambda: (leaf(np.ones(3)) * 2.0).backward(),
    "backward of a constant": no_gradient,
    "grad of a constant": lambda: mg.grad(leaf(np.ones(3)).sum(), t(3)),
    "cotangent of another shape": lambda: mg.grad(
        leaf(np.ones(3)) * 2.0, leaf(np.ones(3)), np.ones(2)
    ),
    "parameter changed before backward": lambda: changed("net"),
    "result changed before backward": result_changed,
    "requires_grad of a result": lambda: setattr(leaf(np.ones(3)) * 2.0, "requires_grad", False),
    "requires_grad of integers": lambda: mg.tensor([1, 2], requires_grad=True),
    "checkpoint of two results": lambda: mg.checkpoint(half_done, leaf(np.ones(3))),  # type: ignore[arg-type]
    "assignment to an element": assign,
    "rank-changing broadcast": lambda: t(3) + t(3, 1),
    "shapes that do not fit": lambda: t(2, 3) * t(2, 4),
    "mixed dtypes": lambda: t(3) + t(3, dtype="float64"),
    "array of another dtype": lambda: t(3) * np.ones(3),
    "float times integers": lambda: mg.tensor([1, 2]) * 0.5,
    "not a number": lambda: t(3) + "1",
    "item of many": lambda: t(3).item(),
    "data of another shape": lambda: setattr(t(3), "data", np.ones(4, np.float32)),
    "strings": lambda: mg.tensor("text"),
    "unknown device": lambda: mg.tensor([1.0], device="tpu"),
    "unknown precision": lambda: mg.precision("fp8").__enter__(),
    "infinite slope under nan_watch": infinite_slope,
    "reshape": lambda: t(2, 3).reshape(4, 2),
    "matmul": lambda: t(2, 3) @ t(2, 3),
    "linear": lambda: F.linear(t(2, 3), t(4, 5)),
    "concat": lambda: F.concat([t(2, 3), t(3, 3)], axis=1),
    "split": lambda: F.split(t(4, 3), [1, 1]),
    "reduce over a missing axis": lambda: t(2, 3).sum(axis=2),
    "mean of nothing": lambda: t(0, 3).mean(),
    "index with floats": lambda: t(3)[t(3)],
    "conv2d channels": lambda: F.conv2d(t(8, 3, 32, 32), t(16, 4, 3, 3)),
    "conv2d kernel larger than the input": lambda: F.conv2d(t(1, 3, 2, 2), t(4, 3, 5, 5)),
    "conv2d without a batch axis": lambda: F.conv2d(t(3, 8, 8), t(4, 3, 3, 3)),
    "conv_transpose2d output_padding": lambda: F.conv_transpose2d(
        t(1, 3, 4, 4), t(3, 2, 4, 4), stride=2, output_padding=2
    ),
    "a layer deep in a network": in_a_module,
    "batch_norm of one value": lambda: F.batch_norm(t(1, 3), training=True),
    "batch_norm weight": lambda: F.batch_norm(t(2, 3, 4, 4), weight=t(4), training=True),
    "group_norm groups": lambda: F.group_norm(t(2, 3, 4, 4), 2),
    "interpolate mode": lambda: F.interpolate(t(1, 3, 4, 4), 8, mode="bilinera"),
    "pad too far": lambda: F.pad(t(1, 3, 4, 4), 4, mode="reflect"),
    "pixel_shuffle channels": lambda: F.pixel_shuffle(t(1, 3, 4, 4), 2),
    "embedding index": lambda: F.embedding(mg.tensor([7]), t(5, 2)),
    "cross_entropy with probabilities for labels": lambda: F.cross_entropy(t(2, 3), t(2, 3)),
    "mse_loss shapes": lambda: F.mse_loss(t(4, 1), t(4)),
    "dropout probability": lambda: F.dropout(t(3), 1.5),
}  # fmt: skip


def message(mistake: Callable[[], object]) -> str:
    with pytest.raises(MiniganError) as caught:
        mistake()
    return str(caught.value)


def without_places(text: str) -> str:
    """File names and line numbers differ between checkouts."""
    return re.sub(r"\S*[/\\](\w+\.py):\d+", r"\1:LINE", text)


def stored() -> dict[str, str]:
    parts = re.split(r"^== (.*)\n", GOLDEN.read_text(encoding="utf-8"), flags=re.M)[1:]
    return {name: text.rstrip("\n") for name, text in zip(parts[::2], parts[1::2], strict=True)}


def test_messages_are_as_agreed() -> None:
    found = {name: without_places(message(mistake)) for name, mistake in MISTAKES.items()}
    if os.environ.get("MINIGAN_UPDATE"):
        text = "\n".join(f"== {name}\n{text}\n" for name, text in found.items())
        GOLDEN.write_text(text, encoding="utf-8")
    expected = stored()
    assert list(found) == list(expected)
    for name in found:
        assert found[name] == expected[name], name


@pytest.mark.parametrize("name", MISTAKES)
def test_messages_have_a_form(name: str) -> None:
    """A first line that says what, short lines, and more than that: a reason or a remedy."""
    what, *rest = message(MISTAKES[name]).splitlines()
    assert len(what) > 10 and not what.endswith(".")
    assert all(re.match(r"  (where|why|fix): \S", line) for line in rest), rest
    assert rest, f"'{what}' says neither where nor why nor how to fix it"
    assert "<" not in what, "no object addresses"


def test_numpy_errors_carry_the_operation() -> None:
    """An error that is not ours gets a note with the operation and its inputs."""
    with pytest.raises(RuntimeWarning) as caught:
        F.exp(mg.tensor(np.array([1e6])))
    assert any("Exp" in note and "float64 (1,)" in note for note in caught.value.__notes__)


def test_did_you_mean() -> None:
    assert did_you_mean("bilinera", ["bilinear", "nearest"]) == " (did you mean 'bilinear'?)"
    assert did_you_mean("xyz", ["bilinear", "nearest"]) == ""


def test_every_error_is_also_a_builtin() -> None:
    import minigan.errors as errors

    builtin = {"ShapeError": ValueError, "DtypeError": TypeError, "GraphError": RuntimeError,
               "NumericError": ArithmeticError, "UsageError": ValueError, "DataError": ValueError,
               "CheckpointError": ValueError, "ResourceError": RuntimeError}  # fmt: skip
    for name, parent in builtin.items():
        assert issubclass(getattr(errors, name), (parent, MiniganError)), name
        assert issubclass(getattr(errors, name), parent), name
