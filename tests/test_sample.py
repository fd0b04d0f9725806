"""Conventions, edges and messages of grid_sample and affine_grid."""

from __future__ import annotations

from typing import Any

import numpy as np
import pytest
from minigan_kernels import cpu, reference
from opspec import LAYOUTS, Array, close, laid_out, leaf

import minigan as mg
import minigan.functional as F
from minigan.errors import ShapeError, UsageError
from minigan.tensor import Tensor

PADDING = ["zeros", "border", "reflection"]


def at(values: list[float], *places: float, **options: Any) -> list[float]:
    """One row of pixels, read at the given x coordinates."""
    x = Tensor(np.array(values, np.float64).reshape(1, 1, 1, -1))
    grid = Tensor(np.array([[[[u, 0.0] for u in places]]]))
    return [round(float(v), 10) for v in F.grid_sample(x, grid, **options).data.ravel()]


def turn(angle: float, scale: float = 1.0) -> Tensor:
    c, s = np.cos(angle) * scale, np.sin(angle) * scale
    return Tensor(np.array([[[c, -s, 0.0], [s, c, 0.0]]]))


@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("shape", [(1, 2, 4, 5), (1, 1, 1, 3), (1, 2, 2, 3, 4)])
def test_the_identity_returns_the_image(
    align: bool, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    x = rng.normal(size=shape)
    axes = len(shape) - 2
    grid = F.affine_grid(Tensor(np.eye(axes, axes + 1)[None]), shape, align_corners=align)
    close(F.grid_sample(Tensor(x), grid, align_corners=align).data, x, 1e-13, "identity")


def test_a_quarter_turn(rng: np.random.Generator) -> None:
    x = rng.normal(size=(1, 2, 4, 4))
    grid = F.affine_grid(turn(np.pi / 2), x.shape)
    y = F.grid_sample(Tensor(x), grid).data
    # Output (x, y) reads the image at (-y, x): what was at the right comes to the top.
    close(y, np.rot90(x, 1, axes=(2, 3)), 1e-12, "turn")


def test_corners_are_edges_or_centres() -> None:
    row = [1.0, 2.0, 3.0, 4.0]
    assert at(row, -1, 1, align_corners=True) == [1, 4]
    assert at(row, -1, 1) == [0.5, 2.0]  # half of the pixel lies outside, which is zero
    assert at(row, -0.75, 0.75) == [1, 4]
    assert at(row, 0) == at(row, 0, align_corners=True) == [2.5]


def test_what_lies_outside() -> None:
    row = [1.0, 2.0, 3.0, 4.0]
    assert at(row, -1.5, 1.25, 9.0) == [0, 0, 0]
    assert at(row, -1.5, 1.25, 9.0, padding_mode="border") == [1, 4, 4]
    # Folded at the outer edges: -1.25 is as far out as -0.75 is in.
    assert at(row, -1.25, -1.75, 3.0, padding_mode="reflection") == [1, 2, 1]
    # Folded at the outer centres: 5/3 is 1/3.
    assert at(row, 5 / 3, padding_mode="reflection", align_corners=True) == [3]
    assert at([7.0], 0.3, -5.0, padding_mode="reflection", align_corners=True) == [7, 7]


def test_nearest_takes_the_even_one_of_two() -> None:
    row = [10.0, 11.0, 12.0, 13.0]
    assert at(row, -0.4, 0.3, mode="nearest") == [11, 12]
    assert at(row, -0.5, 0.0, 0.5, mode="nearest") == [10, 12, 12]  # between 0|1, 1|2, 2|3


@pytest.mark.parametrize("padding_mode", PADDING)
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("align", [False, True])
@pytest.mark.parametrize("u", [np.nan, np.inf, -np.inf, 1e30])
def test_wild_coordinates_do_no_harm(padding_mode: str, mode: str, align: bool, u: float) -> None:
    x, grid = np.ones((1, 1, 3, 3)), np.full((1, 1, 1, 2), u)
    options = mode, padding_mode, align
    with np.errstate(all="ignore"):
        y = cpu.grid_sample(x, grid, *options)
        cpu.grid_sample_backward(y, x, grid, *options)
        if padding_mode != "reflection" or not np.isfinite(u):
            np.testing.assert_array_equal(y, reference.grid_sample(x, grid, *options))
    assert np.isnan(y).all() or not np.isnan(u)


@pytest.mark.parametrize("layout", LAYOUTS)
@pytest.mark.parametrize("padding_mode", PADDING)
def test_grid_sample_kernels_agree(
    layout: str, padding_mode: str, rng: np.random.Generator
) -> None:
    for shape in [(2, 3, 4, 5), (0, 1, 3, 3), (1, 2, 1, 3), (2, 2, 3, 2, 3)]:
        axes = len(shape) - 2
        x = laid_out(rng.normal(size=shape), layout)
        grid = laid_out(rng.uniform(-2, 2, (shape[0], *[3] * axes, axes)), layout)
        for mode in ("bilinear", "nearest"):
            for align in (False, True):
                options = mode, padding_mode, align
                y = cpu.grid_sample(x, grid, *options)
                close(y, reference.grid_sample(x, grid, *options), 1e-12, f"{layout} {options}")
                g = laid_out(rng.normal(size=y.shape), layout)
                found = cpu.grid_sample_backward(g, x, grid, *options)
                expected = reference.grid_sample_backward(g, x, grid, *options)
                for a, b in zip(found, expected, strict=True):
                    close(a, b, 1e-12, f"gradient, {layout} {options}")
                assert cpu.grid_sample_backward(g, x, grid, *options, (False, True))[0] is None
                assert cpu.grid_sample_backward(g, x, grid, *options, (True, False))[1] is None


def test_gradient_adds_up_where_places_meet() -> None:
    x = leaf(np.zeros((1, 1, 1, 2)))
    grid = Tensor(np.array([[[[-0.5, 0.0], [-0.5, 0.0], [0.0, 0.0]]]]))
    (g,) = mg.grad(F.grid_sample(x, grid), x, np.array([[[[1.0, 2.0, 4.0]]]]))
    assert g.data.ravel().tolist() == [5.0, 2.0]


def test_no_gradient_in_the_grid_beyond_the_border() -> None:
    x = Tensor(np.arange(4.0).reshape(1, 1, 1, 4))
    grid = leaf(np.array([[[[-2.0, 0.0], [0.1, 0.0], [2.0, 0.0]]]]))
    (g,) = mg.grad(F.grid_sample(x, grid, padding_mode="border").sum(), grid)
    assert g.data[0, 0, :, 0].tolist() == [0.0, 2.0, 0.0]
    (g,) = mg.grad(F.grid_sample(x, grid, padding_mode="reflection").sum(), grid)
    assert g.data[0, 0, 1, 0] == 2.0


def test_a_penalty_through_an_augmentation(rng: np.random.Generator) -> None:
    """R1 with ADA: the gradient of |d f(T(x)) / dx|^2 in x, which torch cannot give."""
    grid = F.affine_grid(turn(0.3, 0.9), (1, 1, 4, 4))

    def penalty(x: Tensor) -> Tensor:
        y = F.grid_sample(x, grid, padding_mode="reflection").tanh().sum()
        (g,) = mg.grad(y, x, create_graph=True)
        return g.square().sum()

    x = rng.normal(size=(1, 1, 4, 4))
    image = leaf(x)
    (claimed,) = mg.grad(penalty(image), image)
    way = rng.normal(size=x.shape)

    def value(t: float) -> float:
        return float(penalty(leaf(x + t * way)))

    h = 1e-4
    measured = (8 * (value(h) - value(-h)) - value(2 * h) + value(-2 * h)) / (12 * h)
    assert measured == pytest.approx(float((claimed.data * way).sum()), rel=1e-8)


@pytest.mark.parametrize(
    ("x", "grid", "options", "error", "text"),
    [
        ((1, 1, 3, 3), (1, 2, 2, 3), {}, ShapeError, "do not fit"),
        ((2, 1, 3, 3), (1, 2, 2, 2), {}, ShapeError, "do not fit"),
        ((1, 1, 3), (1, 2, 1), {}, ShapeError, "do not fit"),
        ((1, 1, 0, 3), (1, 2, 2, 2), {}, ShapeError, "empty"),
        ((1, 1, 3, 3), (1, 2, 2, 2), {"mode": "biliner"}, UsageError, "did you mean 'bilinear'"),
        ((1, 1, 3, 3), (1, 2, 2, 2), {"padding_mode": "reflect"}, UsageError, "'reflection'"),
    ],
)
def test_messages(
    x: Any, grid: Any, options: dict[str, Any], error: type[Exception], text: str
) -> None:
    with pytest.raises(error, match=text):
        F.grid_sample(mg.tensor(np.zeros(x)), mg.tensor(np.zeros(grid)), **options)


def test_affine_grid_messages() -> None:
    with pytest.raises(ShapeError, match="does not fit size"):
        F.affine_grid(mg.tensor(np.zeros((1, 2, 3))), (2, 1, 3, 3))
    with pytest.raises(ShapeError, match="does not fit size"):
        F.affine_grid(mg.tensor(np.zeros((1, 3, 4))), (1, 1, 3, 3))


@pytest.mark.torch
@pytest.mark.parametrize("padding_mode", PADDING)
@pytest.mark.parametrize("mode", ["bilinear", "nearest"])
@pytest.mark.parametrize("align", [False, True])
def test_equals_torch(padding_mode: str, mode: str, align: bool, rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")

    def leaves(*arrays: Array) -> Any:
        return [torch.from_numpy(a).requires_grad_() for a in arrays]

    for shape in [(2, 3, 4, 5), (1, 1, 1, 1), (1, 2, 6, 1), (2, 2, 3, 4, 2)]:
        axes = len(shape) - 2
        arrays = rng.normal(size=shape), rng.uniform(-2.5, 2.5, (shape[0], *[3] * axes, axes))
        x, grid = leaves(*arrays)
        y = torch.nn.functional.grid_sample(x, grid, mode, padding_mode, align)
        g = rng.normal(size=tuple(y.shape))
        y.backward(torch.from_numpy(g))
        ours = [leaf(a) for a in arrays]
        z = F.grid_sample(*ours, mode, padding_mode, align)
        close(z.data, y.detach().numpy(), 1e-12, "value")
        for a, b in zip(mg.grad(z, ours, g), (x.grad, grid.grad), strict=True):
            close(a.data, b.numpy(), 1e-11, "gradient")
