"""Optimizers: equal to torch, to their kernels' definitions, and to themselves after a resume."""

from __future__ import annotations

import math
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from minigan_kernels import cpu, reference
from opspec import LAYOUTS, laid_out

import minigan as mg
from minigan import nn, optim
from minigan.errors import CheckpointError, DtypeError, ShapeError, UsageError

FIXTURES = Path(__file__).parent / "fixtures"
sys.path.insert(0, str(FIXTURES))

from make_optim_fixtures import CASES, KEPT, SHAPES, STEPS, flat, missing, torch_steps  # noqa: E402


def unflat(row: Any) -> list[Any]:
    """The arrays of a row of numbers."""
    ends = np.cumsum([math.prod(shape) for shape in SHAPES])[:-1]
    return [part.reshape(shape) for part, shape in zip(np.split(row, ends), SHAPES, strict=True)]


def our_steps(name: str, options: Any, start: Any, grads: Any) -> dict[int, list[Any]]:
    """The counterpart of fixtures/make_optim_fixtures.torch_steps."""
    params = [nn.Parameter(p) for p in start]
    optimizer = getattr(optim, name)(params, **options)
    kept = {}
    for step, row in enumerate(grads, 1):
        optimizer.step([None if missing(step, i) else g for i, g in enumerate(row)])
        if step in KEPT:
            kept[step] = [p.data.copy() for p in params]
    return kept


@pytest.mark.parametrize("case", CASES)
def test_equals_stored_torch(case: str) -> None:
    with np.load(FIXTURES / "optim.npz") as archive:
        start, grads, expected = archive["start"], archive["grads"], archive[case]
    kept = our_steps(*CASES[case], unflat(start), [unflat(g) for g in grads])
    for step, row in zip(KEPT, expected, strict=True):
        np.testing.assert_allclose(flat(kept[step]), row, rtol=1e-12, atol=1e-14)


@pytest.mark.torch
@pytest.mark.parametrize("case", CASES)
def test_equals_torch(case: str, rng: np.random.Generator) -> None:
    pytest.importorskip("torch")
    start = [rng.standard_normal(s) for s in SHAPES]
    grads = [[rng.standard_normal(s) for s in SHAPES] for _ in range(STEPS)]
    ours, theirs = (f(*CASES[case], start, grads) for f in (our_steps, torch_steps))
    for step in KEPT:
        np.testing.assert_allclose(flat(ours[step]), flat(theirs[step]), rtol=1e-12, atol=1e-14)


# Kernels ---------------------------------------------------------------------------------------


def calls() -> list[tuple[str, int, Callable[[list[Any], list[Any]], tuple[Any, ...]]]]:
    """(kernel, number of written lists, arguments from those lists and the gradients)."""
    steps = [3, 1]
    return [
        ("sgd_step", 1, lambda w, g: (w[0], g, None, steps, 0.1, 0.0, 0.0, False, 0.2)),
        ("sgd_step", 2, lambda w, g: (w[0], g, w[1], steps, 0.1, 0.9, 0.3, False, 0.2)),
        ("sgd_step", 2, lambda w, g: (w[0], g, w[1], steps, 0.1, 0.9, 0.0, True, 0.0)),
        (
            "adam_step",
            3,
            lambda w, g: (*w[:1], g, *w[1:], None, steps, 0.1, 0.5, 0.9, 1e-8, 0.1, 0),
        ),
        (
            "adam_step",
            3,
            lambda w, g: (*w[:1], g, *w[1:], None, steps, 0.1, 0.0, 0.9, 1e-3, 0.1, 1),
        ),
        ("adam_step", 4, lambda w, g: (*w[:1], g, *w[1:], steps, 0.1, 0.5, 0.9, 1e-8, 0.0, False)),
        ("adamax_step", 3, lambda w, g: (*w[:1], g, *w[1:], steps, 0.1, 0.5, 0.9, 1e-8, 0.1)),
        ("rmsprop_step", 2, lambda w, g: (w[0], g, w[1], None, None, 0.1, 0.9, 1e-8, 0.0, 0.1)),
        ("rmsprop_step", 3, lambda w, g: (w[0], g, w[1], w[2], None, 0.1, 0.9, 1e-2, 0.0, 0.0)),
        ("rmsprop_step", 3, lambda w, g: (w[0], g, w[1], None, w[2], 0.1, 0.9, 1e-8, 0.5, 0.0)),
        ("rmsprop_step", 4, lambda w, g: (*w[:1], g, *w[1:], 0.1, 0.9, 1e-2, 0.5, 0.1)),
        ("adagrad_step", 2, lambda w, g: (w[0], g, w[1], steps, 0.1, 0.2, 1e-8, 0.1)),
        ("adadelta_step", 3, lambda w, g: (*w[:1], g, *w[1:], 1.0, 0.9, 1e-6, 0.1)),
        ("lerp_step", 1, lambda w, g: (w[0], g, 0.3)),
    ]


@pytest.mark.parametrize("layout", [*LAYOUTS[:-1], "plain"])
@pytest.mark.parametrize("dtype", ["float64", "float32"])
def test_kernels_equal_their_definition(dtype: str, layout: str, rng: np.random.Generator) -> None:
    """Any strides of any array, also different ones for the parameter and its memory."""
    for name, count, arguments in calls():
        written = [[rng.uniform(0.5, 1.5, s).astype(dtype) for s in ((2, 3, 4, 2), (5,))]
                   for _ in range(count)]  # fmt: skip
        g = [rng.standard_normal(w.shape).astype(dtype) for w in written[0]]
        expected = [[w.astype(np.float64) for w in row] for row in written]
        getattr(reference, name)(*arguments(expected, [x.astype(np.float64) for x in g]))
        mixed = [
            [laid_out(w, layout if i != 1 else "fortran") if layout != "plain" else w for w in row]
            for i, row in enumerate(written)
        ]
        laid = [laid_out(x, "transposed") for x in g]
        before = [x.copy() for x in laid]
        getattr(cpu, name)(*arguments(mixed, laid))
        for row, wanted in zip(mixed, expected, strict=True):
            for w, value in zip(row, wanted, strict=True):
                tolerance = 1e-12 if dtype == "float64" else 3e-6
                np.testing.assert_allclose(w, value, rtol=tolerance, atol=tolerance, err_msg=name)
        assert all(np.array_equal(x, y) for x, y in zip(laid, before, strict=True))


def test_channels_last_parameters_are_updated_in_place(rng: np.random.Generator) -> None:
    array = np.moveaxis(np.ascontiguousarray(rng.standard_normal((3, 2, 2, 4))), -1, 1)
    p = nn.Parameter(array)
    memory = p.data
    assert memory.strides == array.strides
    opt = optim.Adam([p], 0.1)
    opt.step([rng.standard_normal(p.shape)])
    assert p.data is memory and not np.array_equal(memory, array)
    assert opt.memory["exp_avg"][0].strides == memory.strides  # one pass, no copies


# Behaviour of all ------------------------------------------------------------------------------

EVERY: dict[str, Callable[[Any], optim.Optimizer]] = {
    **{case: lambda p, c=case: getattr(optim, CASES[c][0])(p, **CASES[c][1]) for case in CASES},
    "optimistic": lambda p: optim.OptimisticAdam(p, 0.01, weight_decay=0.1),
    "extra": lambda p: optim.ExtraAdam(p, 0.01, (0.5, 0.9)),
    "lookahead": lambda p: optim.Lookahead(optim.Adam(p, 0.01), k=3, alpha=0.4),
    "schedule": lambda p: optim.SGD(p, optim.schedules.exponential(0.1, 0.9), momentum=0.5),
}


def parameters(dtype: str = "float32") -> list[nn.Parameter]:
    rng = np.random.default_rng(3)
    return [nn.Parameter(rng.standard_normal(s).astype(dtype)) for s in SHAPES]


def play(opt: optim.Optimizer, first: int, last: int) -> None:
    """Steps first .. last - 1; ExtraAdam extrapolates before each."""
    for step in range(first, last):
        rng = np.random.default_rng(step)
        grads: list[Any] = [rng.standard_normal(p.shape).astype(p.dtype) for p in opt.params]
        grads[1] = None if step % 3 == 1 else grads[1]
        if isinstance(opt, optim.ExtraAdam):
            opt.extrapolate(grads)
        opt.step([None if g is None else g * 0.5 for g in grads])


@pytest.mark.parametrize("name", EVERY)
def test_resume_is_bitwise(name: str, tmp_path: Path) -> None:
    through, halted, resumed = (EVERY[name](parameters()) for _ in range(3))
    play(through, 0, 14)
    play(halted, 0, 7)
    np.savez(tmp_path / "state.npz", **halted.state_dict())
    for p, q in zip(resumed.params, halted.params, strict=True):
        p.data[...] = q.data
    with np.load(tmp_path / "state.npz") as state:
        resumed.load_state_dict(state)
    play(resumed, 7, 14)
    for p, q in zip(resumed.params, through.params, strict=True):
        assert p.data.tobytes() == q.data.tobytes()
    ours, theirs = resumed.state_dict(), through.state_dict()
    assert all(ours[k].tobytes() == theirs[k].tobytes() for k in theirs)
    assert int(theirs["step"]) == 14


@pytest.mark.parametrize("name", EVERY)
def test_steps_reduce_a_bowl(name: str) -> None:
    p = nn.Parameter(np.array([3.0, -2.0]))
    opt = EVERY[name]([p])
    start = float(np.square(p.data).sum())
    for _ in range(200):
        if isinstance(opt, optim.ExtraAdam):
            opt.extrapolate([p.data.copy()])
        opt.step([p.data.copy()])
    assert float(np.square(p.data).sum()) < 0.9 * start


@pytest.mark.parametrize("name", EVERY)
def test_gradients_are_values_and_versions_rise(name: str) -> None:
    opt = EVERY[name](parameters())
    grads: list[Any] = [mg.tensor(np.ones(p.shape, np.float32)) for p in opt.params]
    grads[1] = None
    skipped, memory = opt.params[1].data.copy(), [p.data for p in opt.params]
    opt.step(grads)
    assert all(np.all(g.data == 1) for g in grads if g is not None)
    assert opt.params[0].version[0] > 0 and np.array_equal(opt.params[1].data, skipped)
    assert all(p.data is m for p, m in zip(opt.params, memory, strict=True))


def test_closed_forms() -> None:
    """With a constant gradient g, Adam's first steps have the length lr exactly (eps = 0)."""
    p = nn.Parameter(np.array([1.0, 1.0]))
    opt = optim.Adam([p], lr=0.25, eps=0.0)
    opt.step([np.array([4.0, -1e-3])])
    opt.step([np.array([4.0, -1e-3])])
    np.testing.assert_allclose(p.data, [0.5, 1.5], rtol=1e-14)
    q = nn.Parameter(np.array([1.0]))
    optim.AdamW([q], lr=0.5, weight_decay=0.1, eps=0.0).step([np.array([2.0])])
    np.testing.assert_allclose(q.data, [0.95 - 0.5])


def test_gradients_of_backward_are_the_default() -> None:
    p, q = nn.Parameter([2.0]), nn.Parameter([1.0])
    opt = optim.SGD([p, q], lr=0.5)
    (p * p).sum().backward()
    opt.step()
    assert p.item() == 0 and q.item() == 1  # q has no gradient
    opt.zero_grad()
    assert p.grad is None


def test_a_stale_graph_is_refused_after_a_step() -> None:
    p = nn.Parameter([2.0])
    loss = (p * p).sum()
    optim.SGD([p], lr=0.1).step([np.ones(1, np.float32)])
    with pytest.raises(mg.errors.GraphError, match="before the optimizer steps"):
        loss.backward()


def test_the_learning_rate_may_be_a_function_of_the_step() -> None:
    p = nn.Parameter(np.zeros(1))
    seen: list[int] = []

    def schedule(step: int) -> float:
        seen.append(step)
        return 10.0**-step

    opt = optim.SGD([p], lr=schedule)
    for _ in range(3):
        opt.step([np.array([-1.0])])
    assert seen == [0, 1, 2] and math.isclose(p.item(), 1.11)
    opt.lr = 2.0
    assert opt.rate == 2.0
    momentum = optim.SGD([p], 0.1, momentum=optim.schedules.linear(0.5, 0.7, 10))
    momentum.step([np.array([1.0])])
    momentum.step([np.array([1.0])])
    np.testing.assert_allclose(momentum.memory["momentum_buffer"][0], 1.52)


# Mistakes --------------------------------------------------------------------------------------


def test_mistakes_in_the_parameters() -> None:
    layer = nn.Linear(2, 2)
    with pytest.raises(UsageError, match="weight occurs twice"):
        optim.SGD([layer.weight, layer.bias, layer.weight])  # type: ignore[list-item]
    with pytest.raises(UsageError, match="there are no parameters"):
        optim.SGD(nn.ReLU().parameters())
    with pytest.raises(UsageError, match="params is one tensor"):
        optim.SGD(layer.weight)  # type: ignore[arg-type]
    with pytest.raises(UsageError, match=r"params\[0\] is"):
        optim.SGD([np.zeros(3)])  # type: ignore[list-item]


def test_mistakes_in_the_options() -> None:
    p = parameters()
    for make in (
        lambda: optim.SGD(p, lr=-1.0),
        lambda: optim.Adam(p, lr=float("nan")),
        lambda: optim.Adam(p, betas=(0.5, 1.0)),
        lambda: optim.Adam(p, eps=-1e-8),
        lambda: optim.RMSprop(p, alpha=1.5),
        lambda: optim.SGD(p, momentum=1.0),
        lambda: optim.SGD(p, nesterov=True),
        lambda: optim.Lookahead(optim.SGD(p), k=0),
    ):
        with pytest.raises(UsageError):
            make()


def test_mistakes_in_the_gradients_change_nothing() -> None:
    net = nn.Sequential(nn.Linear(2, 3))
    opt = optim.Adam(net.parameters(), 0.1)
    before, state = net.state_dict(), opt.state_dict()
    good = [np.ones((3, 2), np.float32), np.ones(3, np.float32)]
    with pytest.raises(UsageError, match="1 gradients for 2 parameters"):
        opt.step(good[:1])
    with pytest.raises(ShapeError, match=r"the gradient of 0\.bias has shape \(3, 2\), not \(3,\)"):
        opt.step([good[0], good[0]])
    with pytest.raises(DtypeError, match="float64"):
        opt.step([good[0], np.ones(3)])
    assert all(np.array_equal(v, before[k]) for k, v in net.state_dict().items())
    assert all(np.array_equal(v, state[k]) for k, v in opt.state_dict().items())
    net.astype("float64")
    with pytest.raises(DtypeError, match=r"0\.weight has become float64"):
        opt.step([g.astype(np.float64) for g in good])


def test_loading_another_optimizer_is_refused_whole() -> None:
    a, b = optim.Adam(parameters(), 0.1), optim.RMSprop(parameters(), 0.1)
    play(a, 0, 3)
    state = a.state_dict()
    with pytest.raises(CheckpointError, match=r"missing +square_avg\.0(.|\n)*unexpected +exp_avg"):
        b.load_state_dict(state)
    state["exp_avg.1"] = np.zeros(7)
    fresh = optim.Adam(parameters(), 0.1)
    with pytest.raises(CheckpointError, match=r"mismatched +exp_avg\.1 +\(7,\) in the file"):
        fresh.load_state_dict(state)
    assert fresh.steps == 0 and not fresh.memory["exp_avg"][0].any()


# Clipping and accumulation ---------------------------------------------------------------------


def test_clip_grad_norm() -> None:
    grads = [np.array([3.0], np.float32), None, mg.tensor(np.array([[4.0]], np.float32))]
    clipped, norm = optim.clip_grad_norm(grads, 1.0)
    assert norm == 5 and clipped[1] is None and clipped[0] is not None
    assert clipped[0].dtype == np.float32 and grads[0][0] == 3  # type: ignore[index]
    assert math.isclose(clipped[0][0], 0.6, rel_tol=1e-5)
    same, _ = optim.clip_grad_norm(grads, 10.0)
    assert same[0] is grads[0]
    huge, norm = optim.clip_grad_norm([np.full(4, 1e38, np.float32)], 1.0)
    assert math.isclose(norm, 2e38, rel_tol=1e-6) and huge[0] is not None
    np.testing.assert_allclose(huge[0], 0.5, rtol=1e-5)
    assert math.isnan(optim.clip_grad_norm([np.array([np.nan])], 1.0)[1])
    with pytest.raises(UsageError):
        optim.clip_grad_norm(grads, 0.0)


def test_clip_values_and_weights() -> None:
    values = optim.clip_grad_value([np.array([-3.0, 0.5]), None], 1.0)
    assert values[1] is None and np.array_equal(values[0], [-1, 0.5])  # type: ignore[arg-type]
    p = nn.Parameter([-0.5, 0.002])
    optim.clip_weights([p], 0.01)
    np.testing.assert_allclose(p.data, [-0.01, 0.002])
    assert p.version[0] == 1


def test_accumulated_gradients_equal_those_of_the_whole_batch(rng: np.random.Generator) -> None:
    net = nn.Linear(3, 2).astype("float64")
    x = rng.standard_normal((10, 3))

    def gradients(rows: Any) -> Any:
        return mg.grad(net(mg.tensor(rows)).square().mean(), list(net.parameters()))

    accumulator = optim.GradientAccumulator()
    for part in (x[:4], x[4:7], x[7:]):
        accumulator.add(gradients(part), weight=len(part))
    for a, b in zip(accumulator.mean(), gradients(x), strict=True):
        np.testing.assert_allclose(a, b.data, rtol=1e-12)
    accumulator.add([None, np.ones(2)])
    accumulator.add([None, np.zeros(2)])
    mean = accumulator.mean()
    assert mean[0] is None and np.array_equal(mean[1], [0.5, 0.5])  # type: ignore[arg-type]
    with pytest.raises(UsageError, match="nothing was added"):
        accumulator.mean()


def test_lazy_regularisation_of_stylegan2() -> None:
    lr, betas = optim.lazy(0.002, (0.0, 0.99), 16)
    assert math.isclose(lr, 0.002 * 16 / 17) and betas[0] == 0
    assert math.isclose(betas[1], 0.99 ** (16 / 17))
