"""mg.checkpoint: the same numbers from less memory."""

from __future__ import annotations

import gc
import weakref
from collections.abc import Callable

import numpy as np
import pytest
from opspec import directional, leaf

import minigan as mg
import minigan.functional as F
from minigan import autograd, nn, random
from minigan.debug import memory_meter
from minigan.errors import GraphError, UsageError
from minigan.tensor import Tensor


def block(x: Tensor) -> Tensor:
    return (((x * 1.5).tanh() * x).exp() - 1.0).tanh()


def test_values_and_gradients_are_the_same(rng: np.random.Generator) -> None:
    array, g = rng.uniform(-1, 1, (3, 4)), rng.uniform(-1, 1, (3, 4))
    x, y = leaf(array), leaf(array)
    a, b = block(x), mg.checkpoint(block, y)
    assert a.data.tobytes() == b.data.tobytes()
    (ga,), (gb,) = mg.grad(a, x, g), mg.grad(b, y, g)
    assert ga.data.tobytes() == gb.data.tobytes()


def test_several_inputs_and_none_of_them_twice(rng: np.random.Generator) -> None:
    x, y, c = leaf(rng.normal(size=3)), leaf(rng.normal(size=3)), mg.tensor(np.ones(3))

    def fn(a: Tensor, b: Tensor, c: Tensor) -> Tensor:
        return a * b.tanh() + a * c

    out = mg.checkpoint(fn, x, y, c)
    gx, gy = mg.grad(out.sum(), [x, y])
    np.testing.assert_allclose(gx.data, np.tanh(y.data) + 1)
    np.testing.assert_allclose(gy.data, x.data / np.cosh(y.data) ** 2)
    (g,) = mg.grad(mg.checkpoint(fn, x, x, x).sum(), x)
    np.testing.assert_allclose(g.data, np.tanh(x.data) + x.data / np.cosh(x.data) ** 2 + 2 * x.data)


def test_closure_parameters_get_gradients(rng: np.random.Generator) -> None:
    x, w, b = leaf(rng.normal(size=(2, 3))), leaf(rng.normal(size=(4, 3))), leaf(np.ones(4))
    plain = F.linear(x, w, b).tanh().sum()
    expected = mg.grad(plain, [x, w, b])
    found = mg.grad(mg.checkpoint(lambda x: F.linear(x, w, b).tanh(), x).sum(), [x, w, b])
    for a, e in zip(found, expected, strict=True):
        np.testing.assert_allclose(a.data, e.data, rtol=1e-13)
    # Also when only the closure needs a gradient, and through `.backward`.
    out = mg.checkpoint(lambda x: F.linear(x, w, b).tanh(), x.detach())
    out.sum().backward()
    np.testing.assert_allclose(w.grad, expected[1].data, rtol=1e-13)


def test_second_and_third_order(rng: np.random.Generator) -> None:
    array = rng.uniform(-1, 1, 4)

    def second(xs: list[np.ndarray]) -> Tensor:
        x = leaf(xs[0])
        total = mg.checkpoint(block, x).sum()
        for _ in range(2):
            (g,) = mg.grad(total, x, create_graph=True)
            total = (g * g).sum()
        return total, x

    total, x = second([array])
    (g,) = mg.grad(total, x)
    directional(lambda xs: second(xs)[0].item(), [array], [g.data], rng)


def test_nested(rng: np.random.Generator) -> None:
    x, w = leaf(rng.uniform(-1, 1, 4)), leaf(rng.uniform(-1, 1, 4))

    def inner(h: Tensor) -> Tensor:
        return (h * w).tanh()

    def outer(h: Tensor) -> Tensor:
        return mg.checkpoint(inner, h * 2.0).exp() * w

    expected = mg.grad((inner(x * 2.0).exp() * w).sum(), [x, w])
    for create_graph in (False, True):
        found = mg.grad(mg.checkpoint(outer, x).sum(), [x, w], create_graph=create_graph)
        for a, e in zip(found, expected, strict=True):
            np.testing.assert_allclose(a.data, e.data, rtol=1e-13)


def noisy(x: Tensor) -> Tensor:
    mask = random.draw("dropout").random(x.shape) > 0.5
    return (x * mask.astype(x.dtype)).tanh()


def test_random_draws_repeat_themselves() -> None:
    """The recomputed mask is the forward's, and the streams go on as if nothing had happened."""
    x = leaf(np.ones(50))
    mg.manual_seed(3)
    y = mg.checkpoint(noisy, x)
    random.draw("dropout"), random.draw("z")
    after = random.state()
    (g,) = mg.grad(y.sum(), x)
    assert np.array_equal(g.data != 0, y.data != 0)
    assert random.state() == after
    mg.manual_seed(3)
    assert np.array_equal(noisy(x).data, y.data)


def test_dropout_and_batch_norm_inside() -> None:
    """The layers with randomness and with running statistics, against a run without checkpoint."""
    net = nn.Sequential(nn.Conv2d(2, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Dropout(0.5))
    array = np.random.default_rng(0).normal(size=(2, 2, 5, 5)).astype(np.float32)
    initial = {name: a.copy() for name, a in net.state_dict().items()}
    results = []
    for run in (lambda x: net(x), lambda x: mg.checkpoint(net, x)):
        mg.manual_seed(1)
        net.load_state_dict(initial)
        x = leaf(array)
        y = run(x)
        grads = mg.grad((y * y).sum(), [x, *net.parameters()])
        state = net.state_dict()
        results.append([y.data, *(g.data for g in grads), *(a.copy() for a in state.values())])
    for a, b in zip(*results, strict=True):
        assert a.tobytes() == b.tobytes()


def test_side_effects_happen_once() -> None:
    x, count = leaf(np.ones(3)), []

    def fn(x: Tensor) -> Tensor:
        if not autograd.is_recomputing():
            count.append(1)
        return x.exp()

    y = mg.checkpoint(fn, x)
    mg.grad(y.sum(), x)
    assert count == [1] and not autograd.is_recomputing()


def test_memory_is_lower(rng: np.random.Generator) -> None:
    """Eight blocks of five operations: one block's results at a time instead of all."""
    array = rng.uniform(-0.1, 0.1, 2**16)

    def peak(run: Callable[[Callable[[Tensor], Tensor], Tensor], Tensor]) -> int:
        x = leaf(array)
        with memory_meter() as meter:
            y = x
            for _ in range(8):
                y = run(block, y)
            mg.grad(y.mean(), x)
        return meter.peak

    plain = peak(lambda fn, y: fn(y))
    assert peak(mg.checkpoint) < 0.6 * plain


def test_nothing_of_the_inner_graph_is_kept() -> None:
    gc.disable()
    try:
        x, inner = leaf(np.ones(3)), []

        def fn(x: Tensor) -> Tensor:
            h = x.exp()
            inner.append(weakref.ref(h.node))
            return h.tanh()

        y = mg.checkpoint(fn, x)
        assert inner[0]() is None
        mg.grad(y.sum(), x)
        node = weakref.ref(y.node)
        del y
        assert inner[1]() is None and node() is None
    finally:
        gc.enable()


@pytest.mark.parametrize("which", ["input", "closure"])
def test_changes_in_between_are_refused(which: str) -> None:
    """The recomputation would see other values than the forward did."""
    x, b = leaf(np.array([0.5, -0.2])), leaf(np.array([0.1, 0.1]))
    y = mg.checkpoint(lambda x: (x + b).abs(), x)
    target = x if which == "input" else b
    target.data[:] = -9
    target.bump()
    with pytest.raises(GraphError, match="changed"):
        mg.grad(y.sum(), x)


def test_without_gradients_it_is_a_plain_call() -> None:
    x = leaf(np.ones(3))
    with mg.no_grad():
        assert not mg.checkpoint(block, x).requires_grad
    assert not mg.checkpoint(block, x.detach()).requires_grad
    assert mg.checkpoint(lambda x: x, x) is x


def test_only_one_tensor_may_be_returned() -> None:
    with pytest.raises(UsageError, match="one Tensor"):
        mg.checkpoint(lambda x: (x, x), leaf(np.ones(3)))  # type: ignore[arg-type,return-value]
