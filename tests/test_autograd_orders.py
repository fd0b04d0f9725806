"""Gradients of gradients: plain operations to order three, fused ones through their reference."""

from __future__ import annotations

from typing import Any

import numpy as np
from opspec import leaf

import minigan as mg
import minigan.functional as F
from minigan.autograd import Fused
from minigan.tensor import Tensor


def test_three_orders_of_a_small_net(rng: np.random.Generator) -> None:
    """Closed forms for y = sum tanh(a x): y', y'', y''' in x, and mixed in a."""
    x, a = leaf(rng.uniform(-1, 1, 5)), leaf(rng.uniform(0.5, 1.5, 5))
    t = np.tanh(a.data * x.data)
    s = 1 - t * t
    y = (a * x).tanh().sum()
    (first,) = mg.grad(y, x, create_graph=True)
    np.testing.assert_allclose(first.data, a.data * s, rtol=1e-13)
    second, mixed = mg.grad(first.sum(), [x, a], create_graph=True)
    np.testing.assert_allclose(second.data, -2 * a.data**2 * t * s, rtol=1e-12)
    np.testing.assert_allclose(mixed.data, s - 2 * a.data * x.data * t * s, rtol=1e-12)
    (third,) = mg.grad(second.sum(), x)
    expected = -2 * a.data**3 * s * (s - 2 * t * t)
    np.testing.assert_allclose(third.data, expected, rtol=1e-11)


def test_a_graph_of_gradients_can_be_used_twice() -> None:
    x = leaf(np.array([1.0, 2.0]))
    (g,) = mg.grad((x * x * x).sum(), x, create_graph=True)
    (a,) = mg.grad(g.sum(), x, retain_graph=True)
    (b,) = mg.grad((g * g).sum(), x)
    np.testing.assert_allclose(a.data, 6 * x.data)
    np.testing.assert_allclose(b.data, 36 * x.data**3)


def test_cotangent_may_require_a_gradient() -> None:
    x, c = leaf(np.array([1.0, 2.0])), leaf(np.array([3.0, 4.0]))
    (g,) = mg.grad(x * x, x, c, create_graph=True)
    (gc,) = mg.grad(g.sum(), c)
    np.testing.assert_allclose(gc.data, 2 * x.data)


def test_without_create_graph_gradients_are_constants() -> None:
    x = leaf(np.array([1.0]))
    (g,) = mg.grad(x * x, x)
    assert not g.requires_grad and mg.autograd.is_recording()


def test_backward_after_a_penalty_reaches_parameters(rng: np.random.Generator) -> None:
    """The double backward of a gradient penalty fills `.grad`: |w|^2 penalised for D(x) = x w."""
    x, w = leaf(rng.normal(size=(4, 3))), leaf(rng.normal(size=(1, 3)))
    scores = F.linear(x, w)
    (g,) = mg.grad(scores.sum(), x, create_graph=True)
    length = F.norm(g, axis=1)
    ((length - 1.0) ** 2).mean().backward()
    size = float(np.sqrt((w.data**2).sum()))
    np.testing.assert_allclose(w.grad, 2 * (size - 1) * w.data / size, rtol=1e-12)


class Unchanged(Fused):
    """y = x, with a reference that returns its very input."""

    def forward(self, x: Any) -> Any:
        return x.copy()

    def backward_kernel(self, g: Any) -> Any:
        return g

    def reference(self, x: Tensor) -> Tensor:
        return x


class Cube(Fused):
    """y = a x^3 with the derivative kept on self by forward: a constant to the kernel only."""

    saves = ("x",)
    a: float

    def forward(self, x: Any) -> Any:
        self.slope = 3 * self.a * x * x
        return self.a * x**3

    def backward_kernel(self, g: Any, x: Any) -> Any:
        return g * self.slope

    def reference(self, x: Tensor) -> Tensor:
        return x * x * x * self.a


def test_fused_differentiates_its_reference() -> None:
    x = leaf(np.array([1.0, 2.0]))
    (g,) = mg.grad(Unchanged.apply(x).sum(), x, create_graph=True)
    assert g.data.tolist() == [1.0, 1.0]
    (g,) = mg.grad(Cube.apply(x, a=2.0).sum(), x, create_graph=True)
    (gg,) = mg.grad(g.sum(), x, create_graph=True)
    (ggg,) = mg.grad(gg.sum(), x)
    np.testing.assert_allclose(g.data, 6 * x.data**2)
    np.testing.assert_allclose(gg.data, 12 * x.data)
    np.testing.assert_allclose(ggg.data, [12.0, 12.0])


def test_fused_with_one_tensor_for_two_inputs() -> None:
    class Product(Fused):
        saves = ("a", "b")

        def forward(self, a: Any, b: Any) -> Any:
            return a * b

        def backward_kernel(self, g: Any, a: Any, b: Any) -> Any:
            return g * b, g * a

        def reference(self, a: Tensor, b: Tensor) -> Tensor:
            return a * b

    x = leaf(np.array([3.0]))
    for create_graph in (False, True):
        (g,) = mg.grad(Product.apply(x, x), x, create_graph=create_graph)
        assert g.item() == 6.0
