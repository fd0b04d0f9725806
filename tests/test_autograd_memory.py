"""What stays alive and what may be overwritten: freeing by reference counts, accumulation."""

from __future__ import annotations

import tracemalloc
import weakref
from typing import Any

import numpy as np
import pytest
from opspec import leaf

import minigan as mg
import minigan.functional as F
from minigan import autograd

# Memory -----------------------------------------------------------------------------------------


def test_ten_chained_adds_keep_one_array_alive(no_collector: None) -> None:
    size = 2**20
    x = leaf(np.zeros(size, np.uint8).view(np.float32))
    y = x + 1.0  # the first use of a kernel loads it
    tracemalloc.start()
    y = x
    for _ in range(10):
        y = y + 1.0
    live, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert live < 1.5 * size


def test_only_what_backward_reads_is_kept(no_collector: None) -> None:
    """tanh reads its output, not its input: the array of h dies with h."""
    x = leaf(np.linspace(0, 1, 5))
    h = x * 2.0
    array = weakref.ref(h.data)
    y = h.tanh()
    del h
    assert array() is None
    z = y + 1.0
    kept = weakref.ref(y.data)
    del y
    assert kept() is not None, "tanh's own output is needed"
    (g,) = mg.grad(z.sum(), x)
    np.testing.assert_allclose(g.data, 2 / np.cosh(2 * x.data) ** 2)
    del z
    assert kept() is None


def test_backward_frees_the_graph_as_it_goes(no_collector: None) -> None:
    """When the first operation's backward runs, what later ones saved is gone already."""
    x = leaf(np.linspace(0.1, 1, 5))
    first = x.exp()
    nodes = [first.node]
    y = first
    arrays = []
    for _ in range(5):
        y = y.tanh()
        nodes.append(y.node)
        arrays.append(weakref.ref(y.data))
    loss = y.sum()
    del y
    alive: list[int] = []

    class Count:
        def forward(self, node: Any, arrays: Any, out: Any) -> None: ...

        def backward(self, node: Any, g: Any, grads: Any) -> None:
            alive.append(sum(a() is not None for a in arrays))

    with autograd.hook(Count()):
        loss.backward()
    assert alive == sorted(alive, reverse=True) and alive[-1] == 0
    assert all(not node.parents for node in nodes)
    assert x.grad is not None


@pytest.mark.parametrize("create_graph", [False, True])
def test_nodes_die_without_the_collector(no_collector: None, create_graph: bool) -> None:
    x, w = leaf(np.ones((3, 4))), leaf(np.full((2, 4), 0.5))
    h = F.linear(x, w).tanh()
    node, array = weakref.ref(h.node), weakref.ref(h.data)
    loss = (h * h / 2.0).sum()
    grads = mg.grad(loss, [x, w], create_graph=create_graph)
    if create_graph:
        total = sum(((g * g).sum() for g in grads if g is not None), start=mg.tensor(np.zeros(())))
        mg.grad(total, [x, w])
        del total
    del h, loss, grads
    assert node() is None and array() is None


def test_dropping_a_loss_frees_its_graph(no_collector: None) -> None:
    x = leaf(np.ones(3))
    loss = (x.exp() * x).sum()
    node = weakref.ref(loss.node)
    del loss
    assert node() is None


def test_a_gradient_held_by_the_user_holds_no_graph(no_collector: None) -> None:
    x = leaf(np.ones(3))
    h = x.exp()
    node = weakref.ref(h.node)
    h.sum().backward()
    del h
    assert node() is None and type(x.grad) is np.ndarray


# Accumulation never changes what others hold ----------------------------------------------------


@pytest.mark.parametrize("times", [1, 2, 3, 4, 7])
def test_multiple_use(times: int) -> None:
    """The same tensor used k times, the third contribution and later being added in place."""
    x = leaf(np.array([1.0, -2.0]))
    y = x
    for _ in range(times - 1):
        y = y + x
    g = np.array([3.0, 5.0])
    (found,) = mg.grad(y, x, g)
    assert found.data.tolist() == (g * times).tolist() and g.tolist() == [3.0, 5.0]


def test_accumulation_never_writes_into_an_alias() -> None:
    """z = a + a hands one and the same array to both edges; all of them stay what they were."""
    x = leaf(np.array([1.0, 2.0]))
    h = x * 1.0
    z = h + h
    total = z + h + z + h
    g = np.array([1.0, 10.0])
    keep = g.copy()
    gh, gz, gx = mg.grad(total, [h, z, x], g)
    assert np.array_equal(g, keep)
    assert gz.data.tolist() == [2.0, 20.0]
    assert gh.data.tolist() == [6.0, 60.0] and gx.data.tolist() == [6.0, 60.0]


def test_saved_arrays_survive_accumulation() -> None:
    """exp returns g * out; out is saved, and must not become an accumulation buffer."""
    x = leaf(np.array([0.5, 1.0]))
    y = x.exp()
    out = y.data.copy()
    loss = (y + y + y * y + y).sum()
    mg.grad(loss, x, retain_graph=True)
    assert np.array_equal(y.data, out)
    a = mg.grad(loss, x, retain_graph=True)[0]
    b = mg.grad(loss, x)[0]
    assert a.data.tobytes() == b.data.tobytes()
