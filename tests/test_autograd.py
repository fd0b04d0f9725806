"""The engine: traversal, freeing, `backward` and `grad`, accumulation, higher orders."""

from __future__ import annotations

import sys
import threading
import weakref
from typing import Any

import numpy as np
import pytest
from opspec import leaf

import minigan as mg
import minigan.functional as F
from minigan import autograd
from minigan.autograd import Function
from minigan.errors import GraphError, MiniganError, ShapeError
from minigan.tensor import Tensor


class Visits:
    """A hook that lists the operations run, forward and backward."""

    def __init__(self) -> None:
        self.forwards: list[str] = []
        self.backwards: list[str] = []

    def forward(self, node: Any, arrays: Any, out: Any) -> None:
        self.forwards.append(type(node).__name__)

    def backward(self, node: Any, g: Any, grads: Any) -> None:
        self.backwards.append(type(node).__name__)


# Depth ------------------------------------------------------------------------------------------


def test_million_deep_chain(no_collector: None) -> None:
    """No recursion anywhere: forward, backward, and dropping a graph without a backward."""
    assert sys.getrecursionlimit() <= 10_000
    x = leaf(np.array([1.0]))
    y = x
    for _ in range(1_000_000):
        y = y + 1.0
    (g,) = mg.grad(y, x)
    assert g is not None and g.item() == 1.0 and y.item() == 1_000_001.0
    y = x
    for _ in range(1_000_000):
        y = y + 1.0
    node = weakref.ref(y.node)
    del y
    assert node() is None


# backward ---------------------------------------------------------------------------------------


def test_backward_twice_names_the_remedy() -> None:
    x = leaf(np.ones(3))
    loss = (x.exp() * x).sum()
    loss.backward()
    with pytest.raises(GraphError) as caught:
        loss.backward()
    assert "retain_graph=True" in str(caught.value) and "Sum" in str(caught.value)
    mul = x * x
    loss, other = mul.sum(), mul.mean()
    loss.backward()
    with pytest.raises(GraphError, match=r"Mul[\s\S]*retain_graph=True"):
        other.backward()


def test_retain_graph() -> None:
    x = leaf(np.array([1.0, 2.0]))
    loss = (x * x).sum()
    loss.backward(retain_graph=True)
    loss.backward()
    assert x.grad.tolist() == [4.0, 8.0]  # accumulated twice


def test_backward_needs_a_scalar_and_a_graph() -> None:
    x = leaf(np.ones(3))
    with pytest.raises(ShapeError, match="3 elements"):
        (x * 2).backward()
    with pytest.raises(GraphError):
        mg.tensor(1.0).backward()
    with mg.no_grad():
        y = (x * x).sum()
    with pytest.raises(GraphError, match="no_grad"):
        y.backward()


def test_backward_of_a_leaf_itself() -> None:
    x = leaf(np.array(3.0))
    x.backward()
    assert x.grad == 1.0
    (g,) = mg.grad(x, x)
    assert g is not None and g.item() == 1.0


def test_gradients_accumulate_in_leaves() -> None:
    x = leaf(np.array([1.0, 2.0]))
    (x * 3.0).sum().backward()
    kept = x.grad
    (x * 4.0).sum().backward()
    assert x.grad.tolist() == [7.0, 7.0]
    assert kept.tolist() == [3.0, 3.0], "the array handed out before was changed"
    x.grad = None
    (x * 4.0).sum().backward()
    assert x.grad.tolist() == [4.0, 4.0]


def test_gradients_of_two_leaves_share_no_memory() -> None:
    """p.grad is the user's: scaling one in place must not change another."""
    a, b, w = leaf(np.ones(3)), leaf(np.ones(3)), np.array([1.0, 2.0, 3.0])
    ((a + b) * w).sum().backward()
    assert not np.shares_memory(a.grad, b.grad)
    a.grad *= 0.5
    assert b.grad.tolist() == [1.0, 2.0, 3.0]
    (a + 1.0).sum().backward()
    assert a.grad.flags.writeable


# grad -------------------------------------------------------------------------------------------


def test_grad_touches_no_grad() -> None:
    x, w = leaf(np.ones(3)), leaf(np.ones(3))
    mg.grad((x * w).sum(), [x])
    assert x.grad is None and w.grad is None


def test_grad_visits_only_paths_to_its_inputs() -> None:
    """d/dx of a loss that also depends on a long branch over w runs nothing of that branch."""
    x, w = leaf(np.ones(3)), leaf(np.ones(3))
    branch = w.exp().tanh().exp()
    loss = (x * x + branch).sum()
    with autograd.hook(Visits()) as seen:
        mg.grad(loss, x)
    assert sorted(seen.backwards) == ["Add", "Mul", "Sum"]


def test_grad_stops_at_an_intermediate() -> None:
    """The input's own operation is not run, and what lies below it stays usable."""
    x = leaf(np.array([0.3, 0.7]))
    h = x.exp()
    loss = (h * h).sum()
    with autograd.hook(Visits()) as seen:
        (gh,) = mg.grad(loss, h)
    assert sorted(seen.backwards) == ["Mul", "Sum"]
    (gx,) = mg.grad(h, x, gh)
    np.testing.assert_allclose(gx.data, 2 * np.exp(2 * x.data), rtol=1e-14)


def test_needs_follow_what_is_asked() -> None:
    needs: list[tuple[bool, ...]] = []

    class Watch:
        def forward(self, node: Any, arrays: Any, out: Any) -> None: ...

        def backward(self, node: Any, g: Any, grads: Any) -> None:
            needs.append(tuple(node.needs))
            assert all(d is None for d, need in zip(grads, node.needs, strict=True) if not need)

    x, w = leaf(np.ones((2, 3))), leaf(np.ones((4, 3)))
    with autograd.hook(Watch()):
        mg.grad(F.linear(x, w), x, np.ones((2, 4)))
        mg.grad(F.linear(x, w), w, np.ones((2, 4)))
    assert [n[:2] for n in needs] == [(True, False), (False, True)]


def test_backward_after_a_pruned_grad() -> None:
    """A pruned pass over a kept graph must not leave its pruning behind."""
    x, w = leaf(np.array([1.0, 2.0])), leaf(np.array([3.0, 4.0]))
    loss = (x * w).sum()
    mg.grad(loss, x, retain_graph=True)
    mg.grad(loss, w, retain_graph=True)
    loss.backward()
    assert x.grad.tolist() == [3.0, 4.0] and w.grad.tolist() == [1.0, 2.0]


def test_grad_of_unreached_inputs_is_none() -> None:
    x, other = leaf(np.ones(3)), leaf(np.ones(3))
    later = other * 2.0
    assert mg.grad((x * x).sum(), [other, later]) == [None, None]
    with pytest.raises(GraphError, match="constant"):
        mg.grad((x * x).sum(), mg.tensor([1.0]))


def test_grad_of_several_outputs() -> None:
    x = leaf(np.array([1.0, 2.0]))
    y, z = x * x, (x * 3.0).sum()
    (g,) = mg.grad([y, z], [x], [np.array([1.0, 1.0]), np.array(10.0)])
    assert g.data.tolist() == [32.0, 34.0]
    h = x * 2.0
    gx, gh = mg.grad([h.sum(), h.exp().sum()], [x, h])
    np.testing.assert_allclose(gx.data, 2 * gh.data)


def test_cotangents_must_fit() -> None:
    x = leaf(np.ones((2, 3)))
    for wrong in (np.ones(3), np.ones((2, 1)), np.ones((2, 3), np.float32)):
        with pytest.raises((ShapeError, MiniganError)):
            mg.grad(x * 2, x, wrong)


def test_same_input_twice_and_as_output() -> None:
    x = leaf(np.array([2.0]))
    y = x * x
    a, b, c = mg.grad(y, [x, x, y])
    assert a.item() == b.item() == 4.0 and c.item() == 1.0


def test_a_wrong_backward_is_reported() -> None:
    class Wrong(Function):
        """y = sum of x, with a backward that forgets to spread g."""

        def forward(self, x: Any) -> Any:
            return x.sum()

        def backward(self, g: Any) -> Any:
            return g

    x = leaf(np.ones(3))
    with pytest.raises(ShapeError, match=r"\(3,\)"):
        mg.grad(Wrong.apply(x), x)


def test_saves_must_name_inputs() -> None:
    with pytest.raises(MiniganError, match="weight"):

        class Misspelled(Function):
            saves = ("weight",)

            def forward(self, x: Any, wieght: Any) -> Any:
                return x


# no_grad ----------------------------------------------------------------------------------------


def test_no_grad_and_enable_grad() -> None:
    x = leaf(np.ones(2))
    with mg.no_grad():
        assert not (x * 2).requires_grad
        with mg.enable_grad():
            assert (x * 2).requires_grad
        assert not (x * 2).requires_grad
    assert (x * 2).requires_grad

    @mg.no_grad()
    def quiet() -> Tensor:
        return x * 2

    @mg.enable_grad()
    def loud() -> Tensor:
        return x * 2

    for _ in range(2):  # a decorated function can be called again
        assert not quiet().requires_grad
    with mg.no_grad():
        assert loud().requires_grad
    with pytest.raises(ZeroDivisionError), mg.no_grad():
        raise ZeroDivisionError
    assert (x * 2).requires_grad


def test_grad_mode_belongs_to_its_thread() -> None:
    x = leaf(np.ones(2))
    entered, leave, seen = threading.Event(), threading.Event(), []

    def quiet() -> None:
        with mg.no_grad():
            entered.set()
            leave.wait(10)
            seen.append((x * 2).requires_grad)

    thread = threading.Thread(target=quiet)
    thread.start()
    assert entered.wait(10)
    assert (x * 2).requires_grad
    leave.set()
    thread.join()
    assert seen == [False]


def test_graphs_in_threads() -> None:
    """Independent graphs in several threads give independent, correct gradients."""
    results: dict[int, Any] = {}

    def work(k: int) -> None:
        x = leaf(np.full(3, float(k)))
        y = x
        for _ in range(50):
            y = y + x * 0.5
        results[k] = mg.grad((y * y).sum(), x)[0].data

    threads = [threading.Thread(target=work, args=(k,)) for k in range(1, 5)]
    for t in threads:
        t.start()
    for t in threads:
        t.join()
    for k in range(1, 5):
        np.testing.assert_allclose(results[k], np.full(3, 2 * 26.0 * 26.0 * k))


# Hooks ------------------------------------------------------------------------------------------


def test_hooks_see_every_operation_and_leave() -> None:
    x = leaf(np.ones(2))
    with autograd.hook(Visits()) as seen:
        loss = (x.exp() * 2.0).sum()
        mg.grad(loss, x)
    assert seen.forwards[:3] == ["Exp", "Scale", "Sum"]
    assert seen.backwards == ["Sum", "Scale", "Exp"]
    x.exp()
    assert len(seen.backwards) == 3 and not autograd.HOOKS
    with pytest.raises(ZeroDivisionError), autograd.hook(Visits()):
        raise ZeroDivisionError
    assert not autograd.HOOKS
