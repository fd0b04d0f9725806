"""Adversarial losses and reconstruction losses: formulas, gradients, and mistakes of well-known
implementations, each test naming the one it is about."""

from __future__ import annotations

import warnings
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from opspec import leaf
from strategies import rngs

import minigan as mg
import minigan.functional as F
from minigan import losses, nn, optim
from minigan.check import gradcheck
from minigan.errors import ShapeError, UsageError
from minigan.losses import ADVERSARIAL, adversarial
from minigan.tensor import Tensor

Array = np.ndarray[Any, Any]


def softplus(t: Array) -> Array:
    return np.logaddexp(0, t)


def sigmoid(t: Array) -> Array:
    return 1 / (1 + np.exp(-t))


def relu(t: Array) -> Array:
    return np.maximum(t, 0)


# name -> (L_D, L_G) of real and fake logits, written down from the papers
FORMULAS: dict[str, tuple[Any, Any]] = {
    "minimax": (
        lambda r, f: softplus(-r).mean() + softplus(f).mean(),
        lambda r, f: np.log(1 - sigmoid(f)).mean(),
    ),
    "ns": (
        lambda r, f: -np.log(sigmoid(r)).mean() - np.log(1 - sigmoid(f)).mean(),
        lambda r, f: -np.log(sigmoid(f)).mean(),
    ),
    "lsgan": (
        lambda r, f: 0.5 * ((r - 1) ** 2).mean() + 0.5 * (f**2).mean(),
        lambda r, f: 0.5 * ((f - 1) ** 2).mean(),
    ),
    "wgan": (lambda r, f: f.mean() - r.mean(), lambda r, f: -f.mean()),
    "hinge": (lambda r, f: relu(1 - r).mean() + relu(1 + f).mean(), lambda r, f: -f.mean()),
    "relativistic": (
        lambda r, f: -np.log(sigmoid(r - f)).mean(),
        lambda r, f: -np.log(sigmoid(f - r)).mean(),
    ),
    "relativistic-average": (
        lambda r, f: softplus(-(r - f.mean())).mean() + softplus(f - r.mean()).mean(),
        lambda r, f: softplus(r - f.mean()).mean() + softplus(-(f - r.mean())).mean(),
    ),
}


def total(terms: dict[str, Tensor]) -> Tensor:
    first, *others = terms.values()
    for other in others:
        first = first + other
    return first


def logits(rng: np.random.Generator, *shape: int) -> Array:
    """Numbers on both sides of all kinks, and away from them."""
    t = rng.normal(0, 2, shape)
    return t + 0.05 * np.sign(t - np.round(t))


# Formulas ----------------------------------------------------------------------------------------


def test_every_loss_is_tested() -> None:
    assert set(FORMULAS) == set(ADVERSARIAL)


@given(
    rngs(), st.sampled_from(list(FORMULAS)), st.sampled_from([(5,), (3, 1, 2, 4), (40, 1, 7, 7)])
)
def test_formulas(rng: np.random.Generator, name: str, shape: tuple[int, ...]) -> None:
    real, fake = logits(rng, *shape), logits(rng, *shape)
    loss = adversarial(name)
    d, g = FORMULAS[name]
    np.testing.assert_allclose(total(loss.d(Tensor(real), Tensor(fake))).item(), d(real, fake))
    np.testing.assert_allclose(total(loss.g(Tensor(fake), Tensor(real))).item(), g(real, fake))


@pytest.mark.parametrize("name", FORMULAS)
@pytest.mark.parametrize("shape", [(5,), (40, 1, 7, 7)])
def test_float32_is_as_good_and_stays(
    name: str, shape: tuple[int, ...], rng: np.random.Generator
) -> None:
    real, fake = (logits(rng, *shape).astype(np.float32) for _ in range(2))
    loss, (d, g) = adversarial(name), FORMULAS[name]
    for term, wanted in (
        (total(loss.d(Tensor(real), Tensor(fake))), d(real.astype(float), fake.astype(float))),
        (total(loss.g(Tensor(fake), Tensor(real))), g(real.astype(float), fake.astype(float))),
    ):
        assert term.dtype == np.float32
        np.testing.assert_allclose(term.item(), wanted, rtol=2e-6, atol=2e-6)


@pytest.mark.parametrize("name", FORMULAS)
def test_derivatives(name: str, rng: np.random.Generator) -> None:
    real, fake = logits(rng, 4, 1, 2, 2), logits(rng, 4, 1, 2, 2)
    loss = adversarial(name)
    gradcheck(lambda r, f: total(loss.d(r, f)), [real, fake])
    gradcheck(lambda f, r: total(loss.g(f, r)), [fake, real])


@pytest.mark.parametrize("name", FORMULAS)
def test_d_scale_halves_d_alone(name: str, rng: np.random.Generator) -> None:
    real, fake = Tensor(logits(rng, 6)), Tensor(logits(rng, 6))
    whole, half = adversarial(name), adversarial(name, d_scale=0.5)
    for key, term in half.d(real, fake).items():
        assert term.item() == pytest.approx(0.5 * whole.d(real, fake)[key].item())
    assert half.g(fake, real)["loss_g"].item() == whole.g(fake, real)["loss_g"].item()


def test_huge_logits_stay_finite() -> None:
    t = Tensor(np.array([-1e4, 1e4, 0.5], np.float32))
    for name in ADVERSARIAL:
        loss = adversarial(name)
        for terms in (loss.d(t, t), loss.g(t, t)):
            assert all(np.isfinite(term.item()) for term in terms.values()), name


def test_patch_maps_count_every_patch_alike(rng: np.random.Generator) -> None:
    real, fake = logits(rng, 3, 1, 4, 4), logits(rng, 3, 1, 4, 4)
    for name in ADVERSARIAL:
        maps = total(adversarial(name).d(Tensor(real), Tensor(fake)))
        flat = total(adversarial(name).d(Tensor(real.reshape(-1)), Tensor(fake.reshape(-1))))
        assert maps.item() == pytest.approx(flat.item()), name


# Targets -----------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["ns", "minimax"])
def test_smoothing_moves_the_target_of_real_images_only(
    name: str, rng: np.random.Generator
) -> None:
    r, f = logits(rng, 7), logits(rng, 7)
    smooth, plain = adversarial(name, smoothing=0.1), adversarial(name)
    terms = smooth.d(Tensor(r), Tensor(f))
    p = sigmoid(r)
    wanted = -(0.9 * np.log(p) + 0.1 * np.log(1 - p)).mean()
    np.testing.assert_allclose(terms["loss_d_real"].item(), wanted)
    assert terms["loss_d_fake"].item() == plain.d(Tensor(r), Tensor(f))["loss_d_fake"].item()
    assert smooth.g(Tensor(f))["loss_g"].item() == plain.g(Tensor(f))["loss_g"].item()


def test_smoothed_d_is_content_at_the_smoothed_target() -> None:
    t = leaf(np.full(4, np.log(9.0)))  # sigmoid = 0.9
    terms = adversarial("ns", smoothing=0.1).d(t, Tensor(np.zeros(4)))
    (g,) = mg.grad(terms["loss_d_real"], t)
    assert g is not None
    np.testing.assert_allclose(g.data, 0, atol=1e-15)


def test_least_squares_targets_and_scale(rng: np.random.Generator) -> None:
    r, f = logits(rng, 7), logits(rng, 7)
    pearson = adversarial("lsgan", targets=(-1, 1, 0), scale=1.0, d_scale=0.5)
    terms = pearson.d(Tensor(r), Tensor(f))
    np.testing.assert_allclose(terms["loss_d_real"].item(), 0.5 * ((r - 1) ** 2).mean())
    np.testing.assert_allclose(terms["loss_d_fake"].item(), 0.5 * ((f + 1) ** 2).mean())
    np.testing.assert_allclose(pearson.g(Tensor(f))["loss_g"].item(), (f**2).mean())
    smooth = adversarial("lsgan", smoothing=0.1).d(Tensor(r), Tensor(f))
    np.testing.assert_allclose(smooth["loss_d_real"].item(), 0.5 * ((r - 0.9) ** 2).mean())


def test_targets_of_ones_own(rng: np.random.Generator) -> None:
    r, f = logits(rng, 50), logits(rng, 50)
    y = losses.noisy_targets(rng, (50,), 0.7, 1.0, flip=0.2, dtype=np.float64)
    for name, element in (
        ("ns", lambda t, y: softplus(t) - y * t),
        ("lsgan", lambda t, y: 0.5 * (t - y) ** 2),
    ):
        terms = adversarial(name).d(Tensor(r), Tensor(f), targets=(Tensor(y), 0.0))
        np.testing.assert_allclose(terms["loss_d_real"].item(), element(r, y).mean())
        np.testing.assert_allclose(terms["loss_d_fake"].item(), element(f, 0).mean())
    with pytest.raises(UsageError, match="no targets"):
        adversarial("hinge").d(Tensor(r), Tensor(f), targets=(0.9, 0.0))


def test_noisy_targets() -> None:
    y = losses.noisy_targets(np.random.default_rng(0), (20000,), 0.7, 1.2, flip=0.05)
    flipped = y < 0.5
    assert y.dtype == np.float32
    assert abs(flipped.mean() - 0.05) < 0.01
    assert 0.7 <= y[~flipped].min() and y[~flipped].max() <= 1.2
    assert -0.2001 <= y[flipped].min() and y[flipped].max() <= 0.3001


# What the losses are for -------------------------------------------------------------------------


def gradient_of_g(name: str, fake: Array, real: Array | None = None) -> Array:
    t = leaf(fake)
    (g,) = mg.grad(adversarial(name).g(t, None if real is None else Tensor(real))["loss_g"], t)
    assert g is not None
    return g.data


def test_minimax_saturates_and_the_other_does_not() -> None:
    t = np.full(5, -8.0)
    minimax, ns = gradient_of_g("minimax", t), gradient_of_g("ns", t)
    np.testing.assert_allclose(minimax, -sigmoid(t) / 5)
    np.testing.assert_allclose(ns, -sigmoid(-t) / 5)
    assert np.linalg.norm(minimax) < 0.01 * np.linalg.norm(ns)
    np.testing.assert_allclose(ns / minimax, np.exp(8))


def test_minimax_is_what_d_minimises_with_the_other_sign(rng: np.random.Generator) -> None:
    t = Tensor(logits(rng, 9))
    loss = adversarial("minimax")
    assert loss.g(t)["loss_g"].item() == -loss.d(t, t)["loss_d_fake"].item()


def test_hinge_stops_at_the_margin_for_d_and_never_for_g() -> None:
    sure = leaf(np.array([1.5, 4.0])), leaf(np.array([-1.5, -4.0]))
    for g in mg.grad(total(adversarial("hinge").d(*sure)), list(sure)):
        assert g is not None and not g.data.any()
    np.testing.assert_allclose(gradient_of_g("hinge", np.array([-4.0, 0.0, 4.0])), -1 / 3)


def test_the_generator_is_pushed_up_by_every_loss(rng: np.random.Generator) -> None:
    """Against a sign mistake in any of them: a higher D(G(z)) is better for G, where D doubts."""
    fake, real = -np.abs(logits(rng, 6)), np.abs(logits(rng, 6))
    for name in ADVERSARIAL:
        assert (gradient_of_g(name, fake, real) < 0).all(), name
        r, f = leaf(fake), leaf(real)  # D has it the wrong way round
        up, down = mg.grad(total(adversarial(name).d(r, f)), [r, f])
        assert up is not None and down is not None
        assert (up.data < 0).all() and (down.data > 0).all(), name


@pytest.mark.parametrize("name", ["relativistic", "relativistic-average"])
def test_relativistic_generator_sees_the_real_batch(name: str, rng: np.random.Generator) -> None:
    """Bug 3, PyTorch-GAN relativistic_gan: L_G is overwritten by the non-saturating loss."""
    fake, real = logits(rng, 6), logits(rng, 6)
    first, second = (gradient_of_g(name, fake, r) for r in (real, real + 1.0))
    assert (np.abs(first - second) > 1e-3).all()
    assert np.abs(first - gradient_of_g("ns", fake)).max() > 1e-3
    r = leaf(real)
    (g,) = mg.grad(adversarial(name).g(Tensor(fake), r)["loss_g"], r)
    assert g is not None and (np.abs(g.data) > 1e-4).all()


@pytest.mark.parametrize("name", ["relativistic", "relativistic-average"])
def test_relativistic_losses_see_differences_only(name: str, rng: np.random.Generator) -> None:
    r, f = logits(rng, 6), logits(rng, 6)
    loss = adversarial(name)
    a, b = (total(loss.d(Tensor(r + c), Tensor(f + c))).item() for c in (0.0, 7.0))
    assert a == pytest.approx(b)


def test_relativistic_mistakes(rng: np.random.Generator) -> None:
    t, longer = Tensor(logits(rng, 6)), Tensor(logits(rng, 8))
    with pytest.raises(UsageError, match="real images too"):
        adversarial("relativistic").g(t)
    with pytest.raises(ShapeError, match="paired with one fake"):
        adversarial("relativistic").d(t, longer)
    adversarial("relativistic-average").d(t, longer)


# Turns -------------------------------------------------------------------------------------------


def networks() -> tuple[nn.Module, nn.Module]:
    G = nn.Sequential(nn.Linear(3, 5), nn.LeakyReLU(0.2), nn.Linear(5, 4)).astype("float64")
    D = nn.Sequential(nn.Linear(4, 5), nn.LeakyReLU(0.2), nn.Linear(5, 1)).astype("float64")
    return G, D


@pytest.mark.parametrize("name", ADVERSARIAL)
def test_detached_fakes_give_g_nothing_in_the_turn_of_d(
    name: str, rng: np.random.Generator
) -> None:
    """Bug 6, torchgan: fakes that are not detached when D learns."""
    G, D = networks()
    fake, real = G(Tensor(rng.standard_normal((6, 3)))), Tensor(rng.standard_normal((6, 4)))
    terms = total(adversarial(name).d(D(real), D(fake.detach())))
    assert all(g is None for g in mg.grad(terms, list(G.parameters()), retain_graph=True))
    found = mg.grad(terms, list(D.parameters()))
    assert all(g is not None for g in found)
    for_g = adversarial(name).g(D(fake), D(real))["loss_g"]
    assert all(g is not None and g.data.any() for g in mg.grad(for_g, list(G.parameters())))


def test_gradients_of_d_do_not_outlive_the_turn_of_g(rng: np.random.Generator) -> None:
    """Bug 25: gradients that G's turn left in D are added to those of D's next turn."""

    def d_after(turn_of_g: bool) -> Array:
        mg.manual_seed(0)
        G, D = networks()
        z, real = Tensor(np.ones((6, 3))), Tensor(np.full((6, 4), 0.5))
        loss, step = adversarial("ns"), optim.SGD(list(D.parameters()), 0.1)
        if turn_of_g:
            mg.grad(loss.g(D(G(z)))["loss_g"], list(G.parameters()))
            assert all(p.grad is None for p in D.parameters())
        terms = total(loss.d(D(real), D(G(z).detach())))
        step.step(mg.grad(terms, list(D.parameters())))
        return np.concatenate([p.numpy().ravel() for p in D.parameters()])

    np.testing.assert_array_equal(d_after(True), d_after(False))


# Probabilities instead of logits -----------------------------------------------------------------

ENDS = {
    "module": lambda t: nn.Sigmoid()(t),
    "reshaped": lambda t: F.sigmoid(t).reshape(-1),
    "one of two columns": lambda t: F.sigmoid(F.concat([t, t], 1))[:, 0],
    "mean of patches": lambda t: F.sigmoid(t).mean(1),
    "fused": lambda t: F.bias_act(t, activation="sigmoid"),
    "half of a joint batch": lambda t: F.split(F.sigmoid(t), 3)[0],
}


@pytest.mark.parametrize("end", ENDS)
@pytest.mark.parametrize("name", ["ns", "lsgan", "wgan", "hinge"])
def test_a_sigmoid_before_the_loss_is_refused(
    end: str, name: str, rng: np.random.Generator
) -> None:
    """Bug 2 (its two-class form): a sigmoid, and then a loss that has one inside."""
    bad = ENDS[end](leaf(rng.standard_normal((6, 1))))
    good = leaf(rng.standard_normal(bad.shape))
    for real, fake in ((bad, good), (good, bad)):
        with pytest.raises(UsageError, match="ends with a sigmoid"):
            adversarial(name).d(real, fake)
    with pytest.raises(UsageError, match="ends with a sigmoid"):
        adversarial(name).g(bad)


def test_a_sigmoid_inside_d_is_fine(rng: np.random.Generator) -> None:
    t = F.sigmoid(leaf(rng.standard_normal((6, 1)))) * 3.0 - 1.0
    adversarial("ns").d(t, t)


def probabilities(rng: np.random.Generator, dtype: Any = np.float64) -> Tensor:
    return Tensor(rng.random(8).astype(dtype))


@pytest.mark.parametrize("name", ["ns", "minimax", "hinge"])
def test_numbers_that_stay_in_0_1_are_warned_about_once(
    name: str, rng: np.random.Generator
) -> None:
    """Bug 2, where the graph does not tell: D computes its sigmoid by hand, or without a graph."""
    loss = adversarial(name)
    for _ in range(losses.PATIENCE - 1):
        loss.d(probabilities(rng), probabilities(rng))
    with pytest.warns(UserWarning, match="losses take logits"):
        loss.d(probabilities(rng), probabilities(rng))
    for _ in range(3 * losses.PATIENCE):
        loss.d(probabilities(rng), probabilities(rng))


def test_a_few_small_logits_are_no_reason_to_warn(rng: np.random.Generator) -> None:
    loss, low = adversarial("ns"), Tensor(-np.ones(8))
    for i in range(5 * losses.PATIENCE):
        loss.d(probabilities(rng), low if i % losses.PATIENCE == 7 else probabilities(rng))


@pytest.mark.parametrize("name", ["lsgan", "wgan", "relativistic", "relativistic-average"])
def test_losses_whose_scores_may_lie_anywhere_do_not_warn(
    name: str, rng: np.random.Generator
) -> None:
    loss = adversarial(name)
    for _ in range(2 * losses.PATIENCE):
        loss.d(probabilities(rng), probabilities(rng))


def test_softmax_before_cross_entropy_is_warned_about(rng: np.random.Generator) -> None:
    """Bug 2, PyTorch-GAN acgan and infogan: a softmax, and then cross-entropy that has one."""
    t, y = Tensor(rng.standard_normal((6, 10))), rng.integers(0, 10, 6)
    with pytest.warns(UserWarning, match="leave out the softmax"):
        F.cross_entropy(F.softmax(t, 1), y)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        F.cross_entropy(t, y)


# Names -------------------------------------------------------------------------------------------


def test_names_and_options() -> None:
    for name in ADVERSARIAL:
        assert adversarial(name).name == name
    with pytest.raises(UsageError, match=r"did you mean 'hinge'"):
        adversarial("hing")
    with pytest.raises(UsageError, match=r"no option 'smoothin' \(did you mean 'smoothing'"):
        adversarial("ns", smoothin=0.1)
    with pytest.raises(UsageError, match="no option 'smoothing'"):
        adversarial("wgan", smoothing=0.1)
    with pytest.raises(UsageError, match=r"not in \[0, 0.5\)"):
        adversarial("ns", smoothing=0.9)


# PyTorch -----------------------------------------------------------------------------------------


@pytest.mark.torch
def test_equals_torch(rng: np.random.Generator) -> None:
    torch = pytest.importorskip("torch")
    bce, mse = torch.nn.BCEWithLogitsLoss(), torch.nn.MSELoss()
    relu = torch.nn.functional.relu
    ones, zeros = torch.ones_like, torch.zeros_like
    written: dict[str, tuple[Any, Any]] = {
        "ns": (lambda r, f: bce(r, ones(r)) + bce(f, zeros(f)), lambda r, f: bce(f, ones(f))),
        "minimax": (
            lambda r, f: bce(r, ones(r)) + bce(f, zeros(f)),
            lambda r, f: -bce(f, zeros(f)),
        ),
        "lsgan": (
            lambda r, f: 0.5 * (mse(r, ones(r)) + mse(f, zeros(f))),
            lambda r, f: 0.5 * mse(f, ones(f)),
        ),
        "wgan": (lambda r, f: f.mean() - r.mean(), lambda r, f: -f.mean()),
        "hinge": (
            lambda r, f: relu(1 - r).mean() + relu(1 + f).mean(),
            lambda r, f: -f.mean(),
        ),
        "relativistic": (
            lambda r, f: bce(r - f, ones(r)),
            lambda r, f: bce(f - r, ones(r)),
        ),
        "relativistic-average": (
            lambda r, f: bce(r - f.mean(), ones(r)) + bce(f - r.mean(), zeros(r)),
            lambda r, f: bce(r - f.mean(), zeros(r)) + bce(f - r.mean(), ones(r)),
        ),
    }
    assert set(written) == set(ADVERSARIAL)
    r, f = logits(rng, 5, 1, 3, 3), logits(rng, 5, 1, 3, 3)
    for name, (d, g) in written.items():
        loss = adversarial(name)
        for ours, theirs in (
            (lambda x, y, loss=loss: total(loss.d(x, y)), d),
            (lambda x, y, loss=loss: total(loss.g(y, x)), g),
        ):
            mine = leaf(r), leaf(f)
            value = ours(*mine)
            yours = [torch.tensor(a, requires_grad=True) for a in (r, f)]
            other = theirs(*yours)
            other.backward()
            assert value.item() == pytest.approx(other.item(), rel=1e-10)
            for a, b in zip(mg.grad(value, list(mine)), yours, strict=True):
                if a is None:
                    assert b.grad is None
                else:
                    np.testing.assert_allclose(a.data, b.grad, rtol=1e-10, atol=1e-14)
