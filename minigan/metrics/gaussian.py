"""A Gaussian in pixel space: what images without any structure beyond the second moments get."""

from __future__ import annotations

from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.data.pixels import Bytes
from minigan.random import generator

Array = npt.NDArray[Any]

_DIRECTIONS = 50


def pixel_gaussian(images: Bytes, n: int, directions: int = _DIRECTIONS) -> Bytes:
    """Return n draws m + sum_i sqrt(w_i) e_i v_i, e ~ N(0, 1), of images (N, C, H, W).

    v_i are the `directions` eigenvectors of the pixels' covariance with the largest eigenvalues
    w_i, that is, their principal components.
    """
    rows = images.reshape(len(images), -1).astype(np.float64)
    mean = rows.mean(axis=0)
    values, vectors = np.linalg.eigh(np.cov(rows.T))
    scaled = vectors[:, -directions:] * np.sqrt(values[-directions:].clip(0))
    noise = generator(0, "metrics gaussian", 0).standard_normal((n, scaled.shape[1]))
    drawn = np.rint((mean + noise @ scaled.T).clip(0, 255)).astype(np.uint8)
    return drawn.reshape(n, *images.shape[1:])
