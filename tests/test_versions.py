"""Values that change between forward and backward: refused, never silently wrong.

The classic case in GAN training: the optimizer of D steps between G's forward and G's backward.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from opspec import leaf

import minigan as mg
import minigan.functional as F
from minigan.errors import GraphError
from minigan.tensor import Tensor


def step(p: Tensor) -> None:
    """What an optimizer does: write into the array, and say so."""
    p.data[...] *= 0.9
    p.bump()


def replace(p: Tensor) -> None:
    """Assigning new data is a change as well."""
    p.data = p.data * 0.9


@pytest.mark.parametrize("change", [step, replace])
def test_a_step_between_forward_and_backward_raises(change: Callable[[Tensor], None]) -> None:
    x, w = leaf(np.ones((2, 3))), leaf(np.ones((4, 3)))
    loss = F.linear(x, w).sum()
    change(w)
    with pytest.raises(GraphError) as caught:
        mg.grad(loss, x)
    text = str(caught.value)
    assert "Linear" in text and "before the optimizer steps" in text


def test_the_message_names_the_parameter() -> None:
    class Named(Tensor):
        name = "D.layers.0.weight"

    w = Named(np.ones((4, 3)))
    w.requires_grad = True
    loss = F.linear(leaf(np.ones((2, 3))), w).sum()
    step(w)
    with pytest.raises(GraphError, match=r"D\.layers\.0\.weight changed after Linear saved it"):
        loss.backward()


def test_changing_what_no_backward_reads_is_fine() -> None:
    """x + b reads neither x nor b; w's own gradient in Linear reads x, not w."""
    x, w, b = leaf(np.ones((2, 3))), leaf(np.ones((2, 3))), leaf(np.ones((2, 3)))
    loss = (x + b).sum()
    step(b)
    (g,) = mg.grad(loss, x)
    assert g.data.tolist() == np.ones((2, 3)).tolist()
    step(w)  # before the forward
    (g,) = mg.grad((x * w).sum(), x)
    np.testing.assert_allclose(g.data, w.data)


VIEWS: dict[str, Callable[[Tensor], Tensor]] = {
    "reshape": lambda w: w.reshape(-1),
    "transpose": lambda w: w.T,
    "index": lambda w: w[0],
    "detach": lambda w: w.detach(),
    "broadcast": lambda w: F.broadcast_to(w.reshape(1, 2, 3), (2, 2, 3)),
    "chain": lambda w: w.T.reshape(-1)[1:],
    "crop": lambda w: F.crop(w, [(0, 0), (1, 0)]),
}


@pytest.mark.parametrize("view", VIEWS.values(), ids=VIEWS.keys())
@pytest.mark.parametrize("recorded", [True, False])
def test_views_share_the_version(view: Callable[[Tensor], Tensor], recorded: bool) -> None:
    """w.reshape(...) is saved, then w is changed: the view's values change with it."""
    w = leaf(np.arange(6.0).reshape(2, 3))
    if not recorded:
        with mg.no_grad():
            v = view(w)
    else:
        v = view(w)
    x = leaf(np.ones(v.shape))
    loss = (x * v).sum()
    step(w)
    with pytest.raises(GraphError, match="changed after Mul saved it"):
        mg.grad(loss, x)
    # And the other way round: a change through the view is seen by what saved w.
    w = leaf(np.arange(6.0).reshape(2, 3))
    v = view(w)
    loss = (w * w).sum()
    v.bump()
    with pytest.raises(GraphError, match="changed after Mul saved it"):
        mg.grad(loss, w)


def test_a_saved_output_that_changed_raises() -> None:
    x = leaf(np.array([0.5, 1.0]))
    y = x.exp()
    step(y)
    with pytest.raises(GraphError, match="Exp"):
        mg.grad(y.sum(), x)


def test_under_create_graph_too() -> None:
    x, w = leaf(np.array([1.0, 2.0])), leaf(np.array([3.0, 4.0]))
    y = (x * w).tanh()
    (g,) = mg.grad(y.sum(), x, create_graph=True)
    step(w)
    with pytest.raises(GraphError, match="changed"):
        mg.grad(g.sum(), w)


def test_the_safe_orders_work() -> None:
    """grad of both losses, then both steps; or forward, backward, step for each in turn."""
    x, w = leaf(np.ones((2, 3))), leaf(np.ones((4, 3)))
    y = F.linear(x, w)
    gx = mg.grad(y.sum(), [x], retain_graph=True)
    gw = mg.grad(y.mean(), [w])
    for p, (g,) in ((x, gx), (w, gw)):
        p.data[...] -= 0.1 * g.data
        p.bump()
    mg.grad(F.linear(x, w).sum(), [x, w])


def test_running_statistics_do_not_disturb(rng: np.random.Generator) -> None:
    """A buffer that is updated after every forward, read by none: nothing is refused."""
    x, running = leaf(rng.normal(size=(4, 3))), mg.tensor(np.zeros((1, 3)))
    total: Any = 0.0
    for _ in range(3):
        mean = x.mean(axis=0, keepdims=True)
        running.data[...] += 0.1 * (mean.data - running.data)
        running.bump()
        total = ((x - mean) ** 2).sum() + total
    mg.grad(total, x)
