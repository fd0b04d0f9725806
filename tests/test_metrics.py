"""The formulas of the metrics: closed forms, slow oracles, bounds, and the published packages."""

from __future__ import annotations

import sys
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any
from unittest.mock import MagicMock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigan.errors import DataError, ShapeError
from minigan.metrics import Mixture, fid, grid, kid, memorisation, prdc, ring
from minigan.metrics import neighbours as nb
from minigan.metrics.classes import (
    checked_labels,
    class_accuracy,
    class_figures,
    entropy_score,
    kl,
)
from minigan.metrics.frechet import Moments, frechet, moments, root
from minigan.metrics.gaussian import pixel_gaussian
from minigan.metrics.kernel import mmd2
from minigan.metrics.modes import found
from minigan.metrics.neighbours import closeness, nearest, reach

Array = np.ndarray[Any, Any]


def features(seed: int, n: int = 200, dims: int = 6, shift: float = 0.0) -> Array:
    rng = np.random.default_rng(seed)
    mix = np.random.default_rng(7).standard_normal((dims, dims))
    return rng.standard_normal((n, dims)) @ mix + shift


# Fréchet distance --------------------------------------------------------------------------------


def test_frechet_of_gaussians_with_diagonal_covariances() -> None:
    """d^2 = |m1 - m2|^2 + sum (s1 - s2)^2 for standard deviations s1, s2."""
    a = Moments(np.array([1.0, 2.0, 0.0]), np.diag([4.0, 9.0, 0.0]))
    b = Moments(np.array([1.0, -1.0, 0.5]), np.diag([1.0, 25.0, 2.25]))
    assert frechet(a, b) == pytest.approx(9.25 + 1 + 4 + 2.25, rel=1e-12)


@given(st.integers(0, 1000), st.integers(1, 8))
def test_frechet_against_the_square_root_of_the_product(seed: int, dims: int) -> None:
    """tr (C1 C2)^1/2 is the sum of the square roots of the eigenvalues of C1 C2."""
    rng = np.random.default_rng(seed)
    a, b = (
        Moments(rng.standard_normal(dims), m @ m.T / dims)
        for m in rng.standard_normal((2, dims, dims + 2))
    )
    overlap = np.sqrt(np.linalg.eigvals(a.cov @ b.cov).real.clip(0)).sum()
    expected = ((a.mean - b.mean) ** 2).sum() + np.trace(a.cov + b.cov) - 2 * overlap
    assert frechet(a, b) == pytest.approx(expected, rel=1e-8, abs=1e-10)
    assert frechet(a, b) == pytest.approx(frechet(b, a), rel=1e-10, abs=1e-12)


def test_equal_sets_are_at_distance_zero_and_rotations_do_not_matter() -> None:
    x, y = features(0), features(1, shift=0.5)
    assert fid(x, x) < 1e-10
    assert fid(x, x[::-1]) < 1e-10
    turn, _ = np.linalg.qr(np.random.default_rng(3).standard_normal((6, 6)))
    assert fid(x @ turn, y @ turn) == pytest.approx(fid(x, y), rel=1e-9)
    assert fid(x + 3, y + 3) == pytest.approx(fid(x, y), rel=1e-9)
    assert fid(2 * x, 2 * y) == pytest.approx(4 * fid(x, y), rel=1e-9)


def test_covariances_without_full_rank_are_no_special_case() -> None:
    x = features(0)
    collapsed = np.tile(x[:1], (200, 1))
    expected = ((x.mean(0) - x[0]) ** 2).sum() + np.cov(x.T).trace()
    assert fid(x, collapsed) == pytest.approx(expected, rel=1e-10)
    dead = x * np.array([1, 1, 1, 1, 0, 0])
    assert fid(dead, dead) < 1e-10
    assert np.isfinite(fid(dead, x))


def test_moments_are_those_of_numpy() -> None:
    x = features(0, shift=1e4)
    found = moments(x.astype(np.float32))
    assert found.mean.dtype == np.float64
    exact = moments(x)
    np.testing.assert_allclose(exact.cov, np.cov(x.T), rtol=1e-9)
    np.testing.assert_allclose(root(exact.cov) @ root(exact.cov), exact.cov, rtol=1e-9)


def test_fewer_samples_than_features_are_refused() -> None:
    with pytest.raises(DataError, match=r"6 samples are too few for 6 features"):
        fid(features(0), features(1, n=6))
    assert fid(features(0), features(1, n=7)) > 0


# Kernel distance ---------------------------------------------------------------------------------


def slow_mmd2(x: Array, y: Array) -> float:
    """By the definition, pair by pair."""

    def k(a: Array, b: Array) -> float:
        return float((a @ b / len(a) + 1) ** 3)

    n, m = len(x), len(y)
    xx = [k(x[i], x[j]) for i in range(n) for j in range(n) if i != j]
    yy = [k(y[i], y[j]) for i in range(m) for j in range(m) if i != j]
    xy = [k(a, b) for a in x for b in y]
    return float(np.mean(xx) + np.mean(yy) - 2 * np.mean(xy))


def test_mmd_by_its_definition() -> None:
    x, y = features(0, n=9), features(1, n=13, shift=0.3)
    assert mmd2(x, y) == pytest.approx(slow_mmd2(x, y), rel=1e-10)
    assert mmd2(x, y) == pytest.approx(mmd2(y, x), rel=1e-10)


def test_kid_is_unbiased_and_its_error_is_right() -> None:
    """Over many pairs of sets of one distribution: mean 0, spread as the standard error says."""
    rng = np.random.default_rng(0)
    found = np.array(
        [kid(*rng.standard_normal((2, 120, 4)), block=20) for _ in range(200)]
    )  # value, error
    spread = found[:, 0].std()
    assert abs(found[:, 0].mean()) < 4 * spread / np.sqrt(200)
    assert np.sqrt((found[:, 1] ** 2).mean()) == pytest.approx(spread, rel=0.15)
    assert (found[:, 0] < 0).any()
    x, y = rng.standard_normal((2, 400, 4))
    far, error = kid(x, y + 0.5, block=100)
    assert far > 5 * error


def test_kid_takes_any_number_of_samples_from_four() -> None:
    assert np.isfinite(kid(features(0, n=5), features(1, n=2000))).all()
    with pytest.raises(DataError, match="3 samples are too few"):
        kid(features(0, n=3), features(1))


# Neighbours --------------------------------------------------------------------------------------


def slow_prdc(real: Array, fake: Array, k_region: int, k_cover: int) -> dict[str, float]:
    """By the definitions, one pair at a time."""

    def distance(a: Array, b: Array) -> Array:
        return np.array([[np.sqrt(((x - y) ** 2).sum()) for y in b] for x in a])

    def kth(points: Array, k: int) -> Array:
        return np.array(
            [sorted(np.delete(row, i))[k - 1] for i, row in enumerate(distance(points, points))]
        )

    between = distance(real, fake)
    r_region, f_region, r_cover = kth(real, k_region), kth(fake, k_region), kth(real, k_cover)
    return {
        "precision": np.mean([(between[:, j] <= r_region).any() for j in range(len(fake))]),
        "recall": np.mean([(between[i] <= f_region).any() for i in range(len(real))]),
        "density": (between <= r_cover[:, None]).sum() / k_cover / len(fake),
        "coverage": np.mean([(between[i] <= r_cover[i]).any() for i in range(len(real))]),
    }


@given(st.integers(0, 100), st.integers(1, 4), st.integers(1, 5), st.sampled_from([200, 10**6]))
def test_prdc_by_its_definitions(seed: int, k_region: int, k_cover: int, room: int) -> None:
    real, fake = features(seed, n=31, dims=3), features(seed + 1, n=23, dims=3, shift=0.7)
    with block_bytes(room):
        got = prdc(real, fake, k_region, k_cover)
    assert got == pytest.approx(slow_prdc(real, fake, k_region, k_cover), abs=1e-12)


@contextmanager
def block_bytes(room: int) -> Iterator[None]:
    before, nb._BLOCK_BYTES = nb._BLOCK_BYTES, room
    try:
        yield
    finally:
        nb._BLOCK_BYTES = before


def test_prdc_of_extremes() -> None:
    real = features(0)
    same = prdc(real, real.copy())
    assert same["precision"] == same["recall"] == same["coverage"] == 1
    assert prdc(real, features(1, shift=1e3)) == dict.fromkeys(same, 0.0)
    one = prdc(real, np.tile(real.mean(0), (200, 1)))  # collapsed into the middle
    assert one["recall"] < 0.05 and one["coverage"] < 0.2


def test_density_does_not_trust_an_outlier_as_precision_does() -> None:
    """Fig. 2 of Naeem et al.: one real point far away makes a large region around itself."""
    rng = np.random.default_rng(0)
    real = np.concatenate([rng.standard_normal((200, 2)), [[30.0, 0.0]]])
    fake = rng.standard_normal((200, 2)) + np.array([15.0, 0.0])  # nowhere near
    got = prdc(real, fake)
    assert got["precision"] > 0.9
    assert got["density"] < 0.3


def test_distances_are_never_negative_and_find_duplicates() -> None:
    x = features(0, shift=1e3)
    assert all((block >= 0).all() for _, block in nb.distances(x, x))
    twice = np.concatenate([x, x])
    np.testing.assert_allclose(reach(twice, 1)[:, 0], 0, atol=1e-6)
    with pytest.raises(DataError, match="3 samples are too few for their 3 nearest"):
        reach(x[:3], 3)


def test_memorisation_tells_a_copier_from_a_generator() -> None:
    rng = np.random.default_rng(0)
    seen, unseen, new = (rng.standard_normal((n, 5)) for n in (3000, 1000, 1000))
    close = closeness(unseen, seen)
    assert np.mean(nearest(unseen, seen) <= close) == pytest.approx(0.01, abs=1e-3)
    fair = memorisation(new, seen, unseen, close)
    assert abs(fair["memorised"]) < 4 * np.sqrt(3 / 1000)  # sd: sqrt(p (1 - p) / N) / (1 - p)
    assert fair["copies"] < 0.03
    copier = memorisation(seen[:500] + 1e-4 * new[:500], seen, unseen, close)
    assert copier["memorised"] > 0.95 and copier["copies"] > 0.95
    half = memorisation(np.concatenate([seen[:500], new[:500]]), seen, unseen, close)
    assert half["memorised"] == pytest.approx(0.5, abs=0.15)
    assert half["copies"] == pytest.approx(0.5, abs=0.03)
    assert memorisation(unseen, seen, unseen, close)["memorised"] == pytest.approx(-3)


# Classes -----------------------------------------------------------------------------------------


def test_the_score_of_known_distributions() -> None:
    sure = np.eye(10)[np.arange(1000) % 10]
    assert entropy_score(sure) == pytest.approx(10, rel=1e-12)
    assert entropy_score(sure[::10]) == pytest.approx(1)  # one class only
    assert entropy_score(np.full((100, 10), 0.1)) == pytest.approx(1)  # no idea
    p = np.array([[0.9, 0.1], [0.2, 0.8]])
    mean = p.mean(0)
    terms = [(row * np.log(row / mean)).sum() for row in p]
    assert entropy_score(p) == pytest.approx(np.exp(np.mean(terms)), rel=1e-12)


def test_kl_counts_empty_classes_as_nothing() -> None:
    assert kl(np.array([0.5, 0.5, 0.0]), np.array([0.5, 0.5, 0.0])) == 0
    assert kl(np.array([1.0, 0.0]), np.array([0.5, 0.5])) == pytest.approx(np.log(2))


def test_class_figures_of_a_generator_that_lost_classes() -> None:
    predicted = np.concatenate([np.repeat(np.arange(8), 120), np.repeat(8, 19), [9]])
    got = class_figures(np.eye(10)[predicted], np.full(10, 0.1))
    assert got["classes"] == 8  # 19 of 980 are less than 2 %
    assert got["min_class"] == pytest.approx(1 / 980)
    assert got["confidence"] == 1
    shares = np.bincount(predicted) / 980
    assert got["class_kl"] == pytest.approx((shares * np.log(shares / 0.1)).sum())
    missing = class_figures(np.eye(10)[predicted[:960]], np.full(10, 0.1))
    assert missing["min_class"] == 0 and missing["class_kl"] == pytest.approx(np.log(10 / 8))


def test_labels_are_checked() -> None:
    right = np.arange(10)
    assert checked_labels(right, 10, 10) is right
    assert class_accuracy(np.eye(10)[[0, 1, 2, 3]], np.array([0, 1, 2, 9])) == 0.75
    for labels, words in (
        (right.astype(float), "whole numbers, not float64"),
        (right[:9], "must be 10 whole numbers"),
        (right + 1, "1 to 10 do not fit 10 classes"),
        (right - 1, "-1 to 8 do not fit 10 classes"),
        (np.eye(10, dtype=int), "must be 10 whole numbers"),
    ):
        with pytest.raises(DataError, match=words):
            checked_labels(labels, 10, 10)


# Modes -------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("mixture", "modes"), [(ring(), 8), (grid(), 25)])
def test_modes_of_the_real_mixture(mixture: Mixture, modes: int) -> None:
    points = mixture.sample(np.random.default_rng(0), 5000)
    got = mixture.measure(points)
    assert got["modes"] == got["modes_half"] == modes
    assert got["good"] == pytest.approx(1 - np.exp(-4.5), abs=0.005)  # P(chi^2_2 <= 9)
    assert got["reverse_kl"] < 0.01 and got["n"] == 5000


def test_centres() -> None:
    np.testing.assert_allclose(ring(4, 2.0).centres, [[2, 0], [0, 2], [-2, 0], [0, -2]], atol=1e-12)
    assert {tuple(c) for c in grid(3, 2.0).centres} == {
        (x, y) for x in (-2, 0, 2) for y in (-2, 0, 2)
    }


def test_the_two_rules_differ() -> None:
    """One stray point counts as a mode under the first rule, not under the second."""
    mixture = ring()
    points = np.repeat(mixture.centres[:2], 500, axis=0)
    points = np.concatenate([points, mixture.centres[2:3], [[0.0, 0.0]]])  # one in the middle: bad
    got = mixture.measure(points)
    assert (got["modes"], got["modes_half"]) == (3, 2)
    assert got["good"] == pytest.approx(1001 / 1002)
    shares = np.array([500, 500, 1]) / 1001
    assert got["reverse_kl"] == pytest.approx((shares * np.log(8 * shares)).sum())


def test_half_of_an_even_share_is_thirteen_of_26000_stacks() -> None:
    counts = np.zeros(1000, int)
    counts[:3] = 12, 13, 14
    assert found(counts, 26_000)["modes_half"] == 2


def test_no_good_points_at_all() -> None:
    got = ring().measure(np.zeros((10, 2)))
    assert (got["modes"], got["good"], got["reverse_kl"]) == (0, 0, float("inf"))
    with pytest.raises(ShapeError):
        ring().measure(np.zeros((10, 3)))
    with pytest.raises(DataError, match="NaN"):
        ring().measure(np.full((10, 2), np.nan))


# The Gaussian in pixels --------------------------------------------------------------------------


def test_a_pixel_gaussian_has_the_moments_of_the_images() -> None:
    rng = np.random.default_rng(0)
    basis = rng.standard_normal((3, 36))
    rows = 128 + 12 * rng.standard_normal((4000, 3)) @ basis
    images = rows.clip(0, 255).astype(np.uint8).reshape(-1, 1, 6, 6)
    drawn = pixel_gaussian(images, 4000, directions=3)
    assert drawn.dtype == np.uint8 and drawn.shape == images.shape
    a, b = (moments(x.reshape(-1, 36).astype(float)) for x in (images, drawn))
    assert frechet(a, b) < 0.02 * np.trace(a.cov)


# The published packages --------------------------------------------------------------------------


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
def test_against_torch_fidelity(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("", ".datasets", ".transforms", ".transforms.functional"):
        # its formulas do not need torchvision, whose build would have to fit torch's
        monkeypatch.setitem(sys.modules, f"torchvision{name}", MagicMock())
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        torch = pytest.importorskip("torch")
        pytest.importorskip("torch_fidelity")
        from torch_fidelity import metric_fid, metric_isc, metric_kid, metric_prc

    real, fake = features(0, n=400), features(1, n=400, shift=0.4)
    stats = [metric_fid.fid_features_to_statistics(torch.tensor(x)) for x in (real, fake)]
    theirs = metric_fid.fid_statistics_to_metric(*stats, False)["frechet_inception_distance"]
    assert fid(real, fake) == pytest.approx(theirs, rel=1e-8)

    grams = [metric_kid.kernel_poly(a, b) for a, b in ((real, real), (real, fake), (fake, fake))]
    assert mmd2(real, fake) == pytest.approx(metric_kid.mmd2(*grams), rel=1e-8)

    logits = np.random.default_rng(0).standard_normal((500, 10)) * 3
    theirs = metric_isc.isc_features_to_metric(torch.tensor(logits), splits=1)
    powers = np.exp(logits)
    ours = entropy_score(powers / powers.sum(1, keepdims=True))
    assert ours == pytest.approx(theirs["inception_score_mean"], rel=1e-10)

    sets = torch.tensor(fake), torch.tensor(real)
    precision, recall = metric_prc.calculate_precision_recall_full(*sets, 3)
    got = prdc(real, fake)
    assert (got["precision"], got["recall"]) == pytest.approx((precision, recall), abs=1e-6)


@pytest.mark.torch
@pytest.mark.filterwarnings("ignore")
@pytest.mark.parametrize("k", [1, 5])
def test_against_prdc(k: int) -> None:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        theirs = pytest.importorskip("prdc")
    real, fake = features(0, n=400), features(1, n=300, shift=0.4)
    expected = theirs.compute_prdc(real, fake, nearest_k=k)
    assert prdc(real, fake, k, k) == pytest.approx(expected, abs=1e-12)
