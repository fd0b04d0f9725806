"""All figures of a set of images at once, and the same of real images to hold them against.

    judge = Evaluator.for_data("mnist")
    judge.measure(images)             images (N, 1, 28, 28) in [-1, 1]
    judge.floor(len(images))          what as many real images get: no generator can do better
    judge.gaussian(len(images))       what a Gaussian in pixel space gets: better than that, please

The reference is the test split, the floor comes from the training split. An absolute number says
nothing without these two, and figures of different N do not compare.
"""

from __future__ import annotations

from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan import data
from minigan.data import Dataset
from minigan.data.pixels import Bytes
from minigan.data.sets import NAMED_SETS
from minigan.errors import DataError
from minigan.metrics.classes import checked_labels, class_accuracy, class_figures, shares
from minigan.metrics.classifier import FEATURES, Classifier, load, to_bytes, to_input
from minigan.metrics.frechet import frechet, moments
from minigan.metrics.gaussian import pixel_gaussian
from minigan.metrics.kernel import kid
from minigan.metrics.neighbours import K_COVER, K_REGION, closeness, memorisation, prdc, reach
from minigan.random import generator

Array = npt.NDArray[Any]
Figures = dict[str, float]

_REFERENCE = 10_000  # real images that one compares with, at most
_MEMORY = 1000  # fakes whose nearest real images are sought


class Evaluator:
    """Measures images against real ones.

    Parameters
    ----------
    classifier : whose features are compared.
    reference : real images, uint8 (N, C, H, W); in random order if they have one.
    others : more real images, for the floor.
    seen : whether `others` are what a generator was trained on, and `reference` is not.
    labels : classes of the reference, if known; games with classes are asked for these.
    name : what messages call the data.
    """

    def __init__(
        self,
        classifier: Classifier,
        reference: Bytes,
        others: Bytes,
        *,
        seen: bool = False,
        labels: Array | None = None,
        name: str = "data",
    ) -> None:
        self.classifier, self.name, self.seen = classifier, name, seen
        order = generator(0, "metrics reference", 0).permutation(len(reference))[:_REFERENCE]
        self.reference = reference[order]
        self.labels = None if labels is None else labels[order]
        self.others = others[generator(0, "metrics floor", 0).permutation(len(others))]
        self.features, self._probabilities = classifier.look(self.reference)
        self.moments = moments(self.features)
        self.shares = shares(self._probabilities.argmax(axis=1), classifier.classes)
        self._reach: dict[int, Array] = {}
        self._floors: dict[int, Figures] = {}
        self._gaussians: dict[int, Figures] = {}

    @classmethod
    def for_data(
        cls,
        source: str | Dataset | Array,
        *,
        classifier: str | Path | Classifier | None = None,
        labels: Array | None = None,
        size: int | tuple[int, int] | None = None,
        root: str | Path | None = None,
    ) -> Evaluator:
        """Return the evaluator of a dataset.

        Parameters
        ----------
        source : a name or folder as for `data.load`, a Dataset, or images (N, C, H, W). Of a named
            set the test split is the reference; anything else is cut into random halves.
        classifier : a name, a file of `train_classifier`, or a Classifier. By default that of
            the dataset.
        labels : of images given as an array.
        size, root : as for `data.load`, when `source` is a name.

        Raises
        ------
        UsageError : there is no classifier for this data.
        DataError : too few images, or classes that do not fit the classifier.
        """
        if isinstance(source, str | Path):
            source = data.load(source, size=size, root=root)
        if not isinstance(source, Dataset):
            source = Dataset("images", to_bytes(source), labels)
        net = classifier if isinstance(classifier, Classifier) else load(classifier or source.name)
        name, classes = source.name, source.classes
        if classes and len(classes) != net.classes:
            raise DataError(
                f"{name} has {len(classes)} classes, the classifier knows {net.classes}",
                fix="train one: python -m minigan.metrics.train_classifier --data "
                f"{name} --out FILE, and pass the file",
            )
        if name in NAMED_SETS:
            train, test = _splits(source)
            return cls(net, test.images, train.images, seen=True, labels=test.labels, name=name)
        order = generator(0, "metrics halves", 0).permutation(len(source))[: 2 * _REFERENCE]
        half, other = np.array_split(order, 2)
        known = None if source.labels is None else source.labels[half]
        return cls(net, source.raw(half), source.raw(other), labels=known, name=name)

    # Figures -------------------------------------------------------------------------------------

    def measure(self, images: Array, labels: Array | None = None) -> Figures:
        """Return all figures of images (N, C, H, W), float in [-1, 1] or uint8.

        fid, kid (and kid_error), precision, recall, density, coverage, score, confidence,
        class_kl, classes, min_class, memorised and copies (where the training images are known),
        class_accuracy (if `labels`, the classes asked for, are given), and n = N. `fid` is first:
        it elects the best checkpoint.

        Raises
        ------
        DataError : NaN, fewer images than features, labels that do not fit.
        ShapeError : images that the classifier cannot look at.
        """
        if labels is not None:
            labels = checked_labels(labels, len(images), self.classifier.classes)
        images = to_bytes(images)
        figures, probabilities = self._by_features(images)
        if labels is not None:
            figures["class_accuracy"] = class_accuracy(probabilities, labels)
        if self.seen:
            fakes = pixels(images[:_MEMORY])
            figures |= memorisation(fakes, self._seen_pixels, pixels(self.reference), self._close)
        return {**figures, "n": len(images)}

    def floor(self, n: int) -> Figures:
        """The figures of n real images of the training split (fewer if there are fewer).

        class_accuracy is that of the reference images; memorised and copies are what new real
        images would have by definition.
        """
        if n not in self._floors:
            figures, _ = self._by_features(self.others[:n])
            if self.labels is not None:
                figures["class_accuracy"] = class_accuracy(self._probabilities, self.labels)
            if self.seen:
                figures |= {"memorised": 0.0, "copies": 0.01}
            self._floors[n] = {**figures, "n": min(n, len(self.others))}
        return self._floors[n]

    def gaussian(self, n: int) -> Figures:
        """The figures of n draws of a Gaussian with 50 directions in pixel space."""
        if n not in self._gaussians:
            draws = pixel_gaussian(to_input(self.others[:_REFERENCE]), n)
            self._gaussians[n] = {**self._by_features(draws)[0], "n": n}
        return self._gaussians[n]

    def requested_labels(self, n: int, classes: int) -> Array:
        """Classes (n,) to ask a conditional generator for: spread as in the reference."""
        rng = generator(0, "metrics labels", 0)
        if self.labels is None:
            return rng.permutation(np.arange(n) % classes)
        if self.labels.max() >= classes:
            raise DataError(
                f"the GAN has {classes} classes, {self.name} has {self.labels.max() + 1}",
                fix="evaluate it with the data that it was trained on",
            )
        return np.resize(self.labels, n)

    def about(self) -> dict[str, Any]:
        """What the figures depend on, for the record."""
        known = self.classifier.about
        return {
            "data": self.name,
            "reference": len(self.reference),
            "classifier": known.get("data", ""),
            "classifier_sha256": self.classifier.sha256,
            "classifier_accuracy": known.get("accuracy"),
        }

    # Parts of the above --------------------------------------------------------------------------

    def _by_features(self, images: Array) -> tuple[Figures, Array]:
        """What the classifier's features and probabilities tell."""
        if len(images) <= FEATURES:
            raise DataError(
                f"metrics: {len(images)} images are fewer than the classifier has features",
                why=f"the covariance of {FEATURES} features needs more than {FEATURES} images",
                fix="measure at least 1,000; 10,000 are usual",
            )
        features, probabilities = self.classifier.look(images)
        distance, error = kid(self.features, features)
        count = min(len(features), len(self.features))  # as many of both: coverage depends on it
        figures = {
            "fid": frechet(self.moments, moments(features)),
            "kid": distance,
            "kid_error": error,
            **prdc(self.features[:count], features[:count], real_reach=self._reach_of(count)),
            **class_figures(probabilities, self.shares),
        }
        return figures, probabilities

    def _reach_of(self, count: int) -> Array:
        if count not in self._reach:
            self._reach[count] = reach(self.features[:count], max(K_REGION, K_COVER))
        return self._reach[count]

    @cached_property
    def _seen_pixels(self) -> Array:
        return pixels(self.others)

    @cached_property
    def _close(self) -> float:
        return closeness(pixels(self.reference[:_MEMORY]), self._seen_pixels)


def pixels(images: Bytes) -> Array:
    """Images as rows of float32 in [0, 1]."""
    return to_input(images).reshape(len(images), -1).astype(np.float32) / np.float32(255)


def _splits(known: Dataset) -> tuple[Dataset, Dataset]:
    """The training and the test split of a named set, of which one is at hand."""
    other = "test" if known.split == "train" else "train"
    channels, height, width = known.image_shape
    folder = known.source if Path(known.source).is_dir() else None
    found = data.load(known.name, split=other, size=(height, width), channels=channels, root=folder)
    return (known, found) if other == "test" else (found, known)
