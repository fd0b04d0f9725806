"""The evaluator on procedural digits: its classifiers, figures that must rank, bad input."""

from __future__ import annotations

import tracemalloc
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toygame import Toy

import minigan as mg
from minigan.data import Dataset, digits, to_float
from minigan.errors import CheckpointError, DataError, ShapeError, UsageError
from minigan.metrics import Evaluator, load_classifier, measure_game, prdc, stacked_modes
from minigan.metrics import classifier as classifiers
from minigan.metrics.classifier import SHA256, save, to_input
from minigan.metrics.evaluator import pixels
from minigan.metrics.modes import stack
from minigan.metrics.neighbours import closeness, memorisation
from minigan.metrics.of_game import hook
from minigan.metrics.table import MEANING, table
from minigan.metrics.train_classifier import accuracy, train

Array = np.ndarray[Any, Any]
FOLDER = Path(classifiers.__file__).parent / "data"


def make(n: int, seed: int) -> Dataset:
    images, labels, _ = digits.make(n, seed=seed)
    return Dataset("some-digits", images, labels, digits.CLASSES)


@pytest.fixture(scope="module")
def reals() -> Dataset:
    return make(1200, seed=11)


@pytest.fixture(scope="module")
def judge(reals: Dataset) -> Evaluator:
    """600 images for reference; 600 others are "seen"."""
    known = load_classifier("digits")
    images, labels = reals.images, reals.labels
    assert labels is not None
    return Evaluator(known, images[:600], images[600:], seen=True, labels=labels[:600])


@pytest.fixture(scope="module")
def new() -> Array:
    return make(600, seed=12).images


# The classifiers ---------------------------------------------------------------------------------


def test_the_weights_are_those_that_the_code_names() -> None:
    files = {path.stem: path.stat().st_size for path in FOLDER.iterdir()}
    assert files.keys() == SHA256.keys() == {"mnist", "fashion-mnist", "digits"}
    assert sum(files.values()) < 1_000_000
    for name, least in (("mnist", 0.99), ("fashion-mnist", 0.90), ("digits", 0.99)):
        net = load_classifier(name)
        assert net.sha256 == SHA256[name]
        assert net.about["data"] == name and net.about["seed"] == 0
        assert net.about["accuracy"] >= least
        assert len(net.about["classes"]) == net.classes == 10


def test_digits_are_read(reals: Dataset) -> None:
    assert accuracy(load_classifier("digits"), reals) > 0.99
    assert accuracy(load_classifier("mnist"), reals) > 0.8  # another hand


def test_features_are_standardised_and_do_not_depend_on_the_portion(reals: Dataset) -> None:
    net = load_classifier("digits")
    features, probabilities = net.look(reals.images)
    assert features.dtype == probabilities.dtype == np.float64
    np.testing.assert_allclose(features.mean(0), 0, atol=0.2)
    np.testing.assert_allclose(features.std(0), 1, atol=0.2)
    np.testing.assert_allclose(probabilities.sum(1), 1, rtol=1e-12)
    again, _ = net.look(reals.images[700:710])
    np.testing.assert_allclose(again, features[700:710], atol=1e-4)


def test_changed_weights_are_refused(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    net = load_classifier("digits")
    mine = tmp_path / "mine.safetensors"
    digest = save(net, mine)
    assert load_classifier(mine).sha256 == digest
    monkeypatch.setitem(SHA256, "digits", "0" * 64)
    with pytest.raises(CheckpointError, match="is not the classifier that came with"):
        load_classifier("digits")
    mine.write_bytes(mine.read_bytes()[:-1] + b"\x00")
    with pytest.raises(CheckpointError, match="damaged"):
        load_classifier(mine)
    with pytest.raises(UsageError, match=r"no classifier for 'mnits' \(did you mean 'mnist'"):
        load_classifier("mnits")


def test_training_a_classifier(reals: Dataset, tmp_path: Path) -> None:
    few = Dataset("few", reals.images[:512], reals.labels[:512], digits.CLASSES)  # type: ignore[index]
    net = train(few, make(200, seed=13), epochs=3, seed=1)
    assert net.about["accuracy"] > 0.3
    assert net.about["fingerprint"] == few.fingerprint
    save(net, tmp_path / "net.safetensors")
    read = load_classifier(tmp_path / "net.safetensors")
    assert read.about == net.about
    for (name, a), (_, b) in zip(net.named_parameters(), read.named_parameters(), strict=True):
        np.testing.assert_array_equal(a.data, b.data, err_msg=name)
    with pytest.raises(DataError, match="no labels"):
        train(Dataset("x", reals.images), reals, 1, 0)


# Images ------------------------------------------------------------------------------------------


def test_sizes_and_colours(new: Array) -> None:
    few = new[:5]
    padded = np.pad(few, ((0, 0), (0, 0), (2, 2), (2, 2)))
    np.testing.assert_array_equal(to_input(padded), few)
    np.testing.assert_array_equal(to_input(np.repeat(few, 3, axis=1)), few)
    np.testing.assert_array_equal(to_input(to_float(few)), few)
    assert to_input(few.repeat(2, axis=2).repeat(2, axis=3)).shape == few.shape
    for shape, words in (
        ((5, 1, 8, 8), "8 x 8 do not fit"),
        ((5, 1, 28, 32), "28 x 32 do not fit"),
        ((5, 2, 28, 28), "1 or 3 channels"),
        ((5, 28, 28), "must be"),
    ):
        with pytest.raises(ShapeError, match=words):
            to_input(np.zeros(shape, np.float32))


def test_broken_pixels_are_refused_by_number(judge: Evaluator, new: Array) -> None:
    images = to_float(new)
    images[[7, 9], 0, 3, 3] = np.nan
    with pytest.raises(DataError, match=r"2 of 600 images hold NaN(.|\n)*image 7"):
        judge.measure(images)
    with pytest.raises(DataError, match=r"\[0, 255\], not in \[-1, 1\]"):
        judge.measure(new.astype(np.float32))
    with pytest.raises(DataError, match="uint8, not int64"):
        judge.measure(new.astype(np.int64))


# Figures -----------------------------------------------------------------------------------------


def test_all_figures_of_new_real_images(judge: Evaluator, new: Array) -> None:
    got, floor = judge.measure(new), judge.floor(600)
    assert next(iter(got)) == "fid"
    assert set(MEANING) - set(got) == {"class_accuracy"}
    assert got["n"] == floor["n"] == 600
    assert got["fid"] == pytest.approx(floor["fid"], rel=0.5)
    assert abs(got["kid"]) < 5 * got["kid_error"] + 0.01
    assert min(got[name] for name in ("precision", "recall", "coverage")) > 0.8
    assert got["score"] > 9 and got["classes"] == 10 and got["class_kl"] < 0.05
    assert abs(got["memorised"]) < 0.3 and got["copies"] < 0.05
    seen, unseen = pixels(judge.others), pixels(judge.reference)
    expected = memorisation(pixels(new), seen, unseen, closeness(unseen, seen))
    assert {name: got[name] for name in expected} == pytest.approx(expected)
    assert floor["class_accuracy"] > 0.99
    assert all(isinstance(value, int | float) for value in got.values())


def test_worse_images_get_worse_figures(judge: Evaluator, new: Array) -> None:
    rng = np.random.default_rng(0)
    x = to_float(new)
    figures = {
        "real": judge.floor(600),
        "noisy": judge.measure(np.clip(x + 0.4 * rng.standard_normal(x.shape, np.float32), -1, 1)),
        "gaussian": judge.gaussian(600),
        "constant": judge.measure(np.full_like(x, -1)),
    }
    fids = [f["fid"] for f in figures.values()]
    assert fids == sorted(fids) and fids[2] > 20 * fids[0]
    kids = [f["kid"] for f in figures.values()]
    assert kids == sorted(kids)
    assert figures["constant"]["recall"] == 0 and figures["constant"]["classes"] == 1


def test_lost_classes_show_in_recall_and_not_in_precision(judge: Evaluator) -> None:
    data = make(1500, seed=14)
    assert data.labels is not None
    got = judge.measure(data.images[data.labels < 5][:600])
    assert got["classes"] == 5 and got["class_kl"] == pytest.approx(np.log(2), abs=0.05)
    assert got["precision"] > 0.8 and got["recall"] < 0.7 and got["coverage"] < 0.7


def test_neighbours_are_sought_among_as_many_real_images(judge: Evaluator, new: Array) -> None:
    got = judge.measure(new[:200])
    features, _ = judge.classifier.look(new[:200])
    expected = prdc(judge.features[:200], features)
    assert {name: got[name] for name in expected} == pytest.approx(expected)
    assert got["coverage"] > 0.8  # 200 fakes could not cover 600 regions of nearest neighbours


def test_repeating_training_images_is_noticed(judge: Evaluator, reals: Dataset) -> None:
    got = judge.measure(reals.images[600:])
    assert got["memorised"] == pytest.approx(1) and got["copies"] == 1
    assert got["fid"] < 2 * judge.floor(600)["fid"]  # which the distance does not mind


def test_classes_asked_for(judge: Evaluator) -> None:
    data = make(300, seed=15)
    assert data.labels is not None
    assert judge.measure(data.images, data.labels)["class_accuracy"] > 0.99
    wrong = judge.measure(data.images, (data.labels + 1) % 10)
    assert wrong["class_accuracy"] < 0.01
    with pytest.raises(DataError, match="do not fit 10 classes"):
        judge.measure(data.images, data.labels + 1)
    asked = judge.requested_labels(1000, 10)
    np.testing.assert_array_equal(asked[:600], judge.labels)
    with pytest.raises(DataError, match="the GAN has 5 classes, data has 10"):
        judge.requested_labels(100, 5)


def test_too_few_images_and_classes_that_do_not_fit(judge: Evaluator, reals: Dataset) -> None:
    with pytest.raises(DataError, match="64 images are fewer than the classifier has features"):
        judge.measure(reals.images[:64])
    assert judge.measure(reals.images[:65])["n"] == 65
    seven = Dataset("seven", reals.images, np.zeros(1200, np.int64), tuple("abcdefg"))
    with pytest.raises(DataError, match="seven has 7 classes, the classifier knows 10"):
        Evaluator.for_data(seven, classifier="digits")
    with pytest.raises(UsageError, match="no classifier for 'some-digits'"):
        Evaluator.for_data(reals)


def test_halves_of_any_other_data(reals: Dataset, new: Array) -> None:
    for source in (reals, reals.images, to_float(reals.images)):
        judge = Evaluator.for_data(source, classifier="digits")
        assert len(judge.reference) == len(judge.others) == 600
        got = judge.measure(new)
        assert "memorised" not in got and got["fid"] < 5
    assert judge.labels is None
    assert judge.requested_labels(20, 4).max() == 3


def test_a_second_evaluator_finds_the_same(judge: Evaluator, reals: Dataset, new: Array) -> None:
    labels = reals.labels
    assert labels is not None
    twin = Evaluator(
        load_classifier("digits"), judge.reference, judge.others, seen=True, labels=labels[:600]
    )
    other, mine = twin.measure(new), judge.measure(new)
    for name in ("fid", "recall", "score"):  # the order of the reference is another one
        assert other[name] == pytest.approx(mine[name], rel=1e-9)
    assert judge.measure(new) == mine


def test_memory_stays_bounded(judge: Evaluator) -> None:
    """3000 x 3000 distances in float64 would be 72 MB."""
    many = np.tile(make(600, seed=16).images, (5, 1, 1, 1))
    features = np.random.default_rng(0).standard_normal((3000, 64))
    tracemalloc.start()
    try:
        prdc(features, features[::-1] + 0.1)
        distances = tracemalloc.get_traced_memory()[1]
        tracemalloc.reset_peak()
        judge.classifier.look(many)
        network = tracemalloc.get_traced_memory()[1]
    finally:
        tracemalloc.stop()
    assert distances < 40e6
    assert network < 200e6


# Games and stacks --------------------------------------------------------------------------------


class Digits(Toy):
    """A "generator" that knows the digits; its noise chooses among them."""

    name, classes = "digits", 10

    def __init__(self, known: Dataset) -> None:
        super().__init__()
        self.known = known

    def sample(self, z: Any, *, net: str = "ema", labels: Any = None) -> Array:
        assert self.known.labels is not None
        which = (np.abs(z[:, 0]) * 1e4).astype(int) % len(self.known)
        if labels is not None:
            mates = [np.flatnonzero(self.known.labels == label) for label in labels]
            which = np.array([m[i % len(m)] for m, i in zip(mates, which, strict=True)])
        return self.known.batch(which)


def test_a_game_is_measured_and_left_alone(judge: Evaluator) -> None:
    game = Digits(make(900, seed=17))
    before = mg.random.state()
    got = measure_game(judge, game, 700)
    assert mg.random.state() == before
    assert got["n"] == 700 and got["class_accuracy"] > 0.99
    assert got == measure_game(judge, game, 700)
    assert got != measure_game(judge, game, 700, seed=1)
    told = hook(judge, 300)(game)
    assert next(iter(told)) == "fid" and told["n"] == 300 and told["net"] == "ema"
    assert told["floor.fid"] == judge.floor(300)["fid"]
    with pytest.raises(ShapeError, match="8 x 8 do not fit"):
        measure_game(judge, Toy(), 100)


def test_stacked_digits_are_counted(judge: Evaluator) -> None:
    rng = np.random.default_rng(0)
    data = make(400, seed=18)
    assert data.labels is not None
    every = stacked_modes(stack(data.images, rng, 2000), judge.classifier)
    assert 800 < every["modes"] <= 1000 and every["reverse_kl"] < 0.5 and every["n"] == 2000
    sevens = data.images[data.labels == 7]
    one = stacked_modes(stack(sevens, rng, 200), judge.classifier)
    assert one["modes_half"] <= 4 and one["reverse_kl"] > 6
    with pytest.raises(ShapeError, match="three channels"):
        stacked_modes(data.images, judge.classifier)


def test_the_table(judge: Evaluator, new: Array) -> None:
    lines = table(judge.measure(new), judge.floor(600), judge.gaussian(600))
    assert "N = 600" in lines[0] and "600 real" in lines[0]
    assert len(lines) == len(MEANING)  # a headline, and all but class_accuracy
    assert all(len(line) <= 120 for line in lines)
    assert "±" in lines[2]


@pytest.mark.slow
def test_a_named_set_is_measured_against_its_test_split() -> None:
    judge = Evaluator.for_data("digits")
    assert judge.seen and len(judge.reference) == 10_000 and len(judge.others) == 60_000
    assert load_classifier("digits").about["accuracy"] == pytest.approx(
        judge.floor(10_000)["class_accuracy"], abs=2e-3
    )
    assert judge.floor(10_000)["fid"] < 0.1 < judge.floor(1000)["fid"] < 1
    assert judge.gaussian(10_000)["fid"] > 20
    fresh = judge.measure(make(2000, seed=19).images)
    assert abs(fresh["memorised"]) < 0.25 and fresh["copies"] < 0.03
    copied = judge.measure(judge.others[:2000])
    assert copied["memorised"] > 0.95 and copied["copies"] == 1
