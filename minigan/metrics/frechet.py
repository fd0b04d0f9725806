"""The Fréchet distance between two sets of features, as if each were a Gaussian.

    d^2 = |m1 - m2|^2 + tr C1 + tr C2 - 2 tr (C1^1/2 C2 C1^1/2)^1/2

Heusel et al.: GANs Trained by a Two Time-Scale Update Rule (2017), arXiv:1706.08500.

The last term is the sum of the singular values of C1^1/2 C2^1/2, and so it is computed here: the
roots of symmetric matrices come from their eigenvalues, nothing can become complex, matrices
without full rank are no special case, and no root is taken of a rounding error. The usual
sqrtm(C1 C2) has all three troubles.

The estimate is biased upwards, and the bias grows as samples get fewer. Only figures of equal N
compare; beside each belongs the figure of as many real images.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.errors import DataError

Array = npt.NDArray[Any]


@dataclass(frozen=True)
class Moments:
    """Mean (D,) and unbiased covariance (D, D) of some features, float64."""

    mean: Array
    cov: Array


def moments(features: Array) -> Moments:
    """Return the moments of features (N, D). Raises DataError unless N > D."""
    count, dims = features.shape
    if count <= dims:
        raise DataError(
            f"fid: {count} samples are too few for {dims} features",
            why="their covariance has no full rank, so the distance would measure the lack of it",
            fix=f"use more than {dims} samples; 10,000 are usual",
        )
    mean = features.mean(axis=0, dtype=np.float64)
    centred = features - mean
    return Moments(mean, centred.T @ centred / (count - 1))


def frechet(a: Moments, b: Moments) -> float:
    """Return the squared Fréchet distance between two Gaussians; 0 if they are equal."""
    difference = a.mean - b.mean
    overlap = np.linalg.svd(root(a.cov) @ root(b.cov), compute_uv=False).sum()
    distance = difference @ difference + np.trace(a.cov) + np.trace(b.cov) - 2 * overlap
    return max(float(distance), 0.0)


def fid(real: Array, fake: Array) -> float:
    """Return the Fréchet distance between features (N, D) and (M, D)."""
    return frechet(moments(real), moments(fake))


def root(cov: Array) -> Array:
    """The symmetric square root of a positive semi-definite matrix: V sqrt(w) V^T."""
    values, vectors = np.linalg.eigh(cov)
    return (vectors * np.sqrt(values.clip(0))) @ vectors.T
