"""NaN watch, memory meter, and the graph as text and picture."""

from __future__ import annotations

import numpy as np
import pytest
from opspec import leaf

import minigan as mg
import minigan.functional as F
from minigan import autograd
from minigan.check import CheckFailed, adjoint, gradcheck
from minigan.debug import graph_dot, graph_text, memory_meter, nan_watch
from minigan.errors import DtypeError, NumericError


def test_nan_watch_names_the_first_operation_and_the_line() -> None:
    x = leaf(np.array([1.0, -1.0]))
    with np.errstate(invalid="ignore"), nan_watch(), pytest.raises(NumericError) as caught:
        h = x * 2.0
        y = h.log()  # the culprit
        (y + 1.0).exp().sum()
    text = str(caught.value)
    assert "Log made NaN" in text and "y = h.log()  # the culprit" in text
    assert "test_debug.py" in text and "[-2, 2]" in text
    x.exp()
    assert not autograd.HOOKS


def test_nan_watch_in_the_backward_pass() -> None:
    """sqrt at 0 is finite; its slope is not. The forward's line is named."""
    x = leaf(np.array([0.0, 1.0]))
    with np.errstate(divide="ignore"), nan_watch(), pytest.raises(NumericError) as caught:
        y = x.sqrt()  # forward
        y.sum().backward()
    text = str(caught.value)
    assert "backward of Sqrt made infinity" in text and "y = x.sqrt()  # forward" in text


def test_nan_watch_lets_finite_numbers_pass() -> None:
    x = leaf(np.array([0.5, 1.0]))
    with nan_watch():
        (g,) = mg.grad(F.sqrt(x).sum(), x, create_graph=True)
        mg.grad(g.sum(), x)
        _ = mg.tensor([1, 2]) * 3


def test_memory_meter_counts_results_that_live() -> None:
    x = leaf(np.ones(1000))
    with memory_meter() as meter:
        a = x.exp()
        assert meter.live == 8000
        b = a.reshape(10, 100).T  # views own nothing
        assert meter.live == 8000
        c = b + 1.0
        assert meter.live == 16000
        del a, b, c
        assert meter.live == 0 and meter.peak == 16000
    assert meter.by_operation["Exp"] == 8000 and "Exp" in meter.table()


def test_graph_text() -> None:
    x, w = leaf(np.ones(3)), leaf(np.ones(3))
    lines = graph_text(((x * w) * 2.0).sum()).splitlines()
    assert [line.split("(")[0].split()[-1] for line in lines[:3]] == ["Sum", "Scale", "Mul"]
    assert "c=2.0" in lines[1] and lines[2].endswith("<- #0 #1")
    assert len(lines) == 5 and all("Leaf" in line for line in lines[3:])
    assert graph_text(mg.tensor(1.0)) == ""


def test_graph_text_of_a_deep_graph() -> None:
    y = leaf(np.ones(1))
    for _ in range(5000):
        y = y + 1.0
    assert len(graph_text(y).splitlines()) == 5001


def test_graph_dot() -> None:
    x = leaf(np.ones(3))
    dot = graph_dot((x * x).sum())
    assert dot.startswith("digraph") and dot.rstrip().endswith("}")
    assert dot.count("n0 -> n1;") == 2 and "Mul" in dot


def test_gradcheck_accepts_and_refuses() -> None:
    x = np.array([0.3, -0.7])
    assert gradcheck(lambda x: x.tanh() * x, [x], order=3)

    class Wrong(autograd.Function):
        """y = x^2 with dx = 1.0001 * 2 x g."""

        saves = ("x",)

        def forward(self, x: np.ndarray) -> np.ndarray:
            return x * x

        def backward(self, g: object, x: object) -> object:
            return g * x * 2.0002  # type: ignore[operator]

    with pytest.raises(CheckFailed, match="order 1") as caught:
        gradcheck(Wrong.apply, [x])
    assert "input 0[" in str(caught.value)
    with pytest.raises(DtypeError, match="float64"):
        gradcheck(lambda x: x, [x.astype(np.float32)])


def test_gradcheck_finds_errors_of_higher_order_only() -> None:
    """The slope is right but kept as a constant on self: wrong from order 2 on."""

    class Constant(autograd.Function):
        def forward(self, x: np.ndarray) -> np.ndarray:
            self.slope = 3 * x * x
            return np.asarray(x**3)

        def backward(self, g: object) -> object:
            return g * self.slope  # type: ignore[operator]

    x = np.array([0.3, -0.7])
    assert gradcheck(Constant.apply, [x], order=1)
    with pytest.raises(CheckFailed, match="order 2"):
        gradcheck(Constant.apply, [x], order=2)


def test_adjoint_accepts_and_refuses() -> None:
    x = np.arange(6.0).reshape(2, 3)
    assert adjoint(lambda x: F.pad_zeros(x, [(1, 0), (0, 2)]), x)

    class Wrong(autograd.Function):
        """y = x reversed, whose gradient forgets to reverse."""

        def forward(self, x: np.ndarray) -> np.ndarray:
            return x[::-1].copy()

        def backward(self, g: object) -> object:
            return g

    with pytest.raises(CheckFailed, match="transpose"):
        adjoint(Wrong.apply, x)
