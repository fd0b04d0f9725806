"""Measures that a classifier's probabilities p(y|x) give: how sure, how varied, how balanced.

    score      = exp( E_x KL( p(y|x) || p(y) ) )      from 1 to the number of classes

Salimans et al.: Improved Techniques for Training GANs (2016), arXiv:1606.03498, with our own
classifier in the place of Inception.
"""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.errors import DataError

Array = npt.NDArray[Any]

_PRESENT = 0.2  # a class is there if it has a fifth of its even share: 2 % of ten classes


def entropy_score(probabilities: Array) -> float:
    """exp of the mean KL divergence of p(y|x) from its mean p(y), over all samples at once."""
    marginal = probabilities.mean(axis=0)
    return float(np.exp(kl(probabilities, marginal).mean()))


def kl(p: Array, q: Array) -> Array:
    """KL(p || q) = sum p log(p / q) over the last axis; 0 log 0 = 0."""
    ratio = np.divide(p, q, out=np.ones(np.broadcast_shapes(p.shape, q.shape)), where=p > 0)
    return (p * np.log(ratio)).sum(axis=-1)


def shares(predicted: Array, classes: int) -> Array:
    """Share of each class (classes,) among predicted classes (N,)."""
    return np.bincount(predicted, minlength=classes) / len(predicted)


def class_figures(probabilities: Array, real_shares: Array) -> dict[str, float]:
    """Return score, confidence and how the classes are spread.

    score : see above.
    confidence : mean probability of the most probable class.
    class_kl : KL of the predicted classes' shares from those of the real images, in nats.
    classes : how many classes have at least a fifth of an even share.
    min_class : the smallest share of a class.
    """
    found = shares(probabilities.argmax(axis=1), len(real_shares))
    return {
        "score": entropy_score(probabilities),
        "confidence": float(probabilities.max(axis=1).mean()),
        "class_kl": float(kl(found, real_shares.clip(1e-12))),
        "classes": int(np.count_nonzero(found >= _PRESENT / len(found))),
        "min_class": float(found.min()),
    }


def checked_labels(labels: Array, count: int, classes: int) -> Array:
    """Return requested labels as they must be: one whole number in [0, classes) per image."""
    labels = np.asarray(labels)
    if labels.shape != (count,) or labels.dtype.kind not in "iu":
        raise DataError(
            f"metrics: labels must be {count} whole numbers, not {labels.dtype} {labels.shape}",
            why="each image is compared with the class that was asked for",
        )
    if count and not 0 <= labels.min() <= labels.max() < classes:
        raise DataError(
            f"metrics: labels from {labels.min()} to {labels.max()} do not fit {classes} classes",
            why=f"the classifier knows the classes 0 to {classes - 1}",
            fix="use the data and the classifier that the GAN was trained for",
        )
    return labels


def class_accuracy(probabilities: Array, labels: Array) -> float:
    """Share of the images that the classifier takes for the class asked for."""
    return float(np.mean(probabilities.argmax(axis=1) == labels))
