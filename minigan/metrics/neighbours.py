"""Measures by nearest neighbours: precision, recall, density, coverage; memorised images.

A set of points stands for the region within reach of any of them, where the reach r(x) of a point
is the distance to its k-th nearest neighbour in the set.

    precision = share of fakes in the region of the real images        are the samples good?
    recall    = share of real images in the region of the fakes        is everything there?
    density   = real regions that a fake lies in, on average, / k      precision, robust to outliers
    coverage  = share of real images whose region holds a fake         recall, robust to outliers

Kynkäänniemi et al. (2019), arXiv:1904.06991 (precision, recall; k = 3); Naeem et al. (2020),
arXiv:2002.09797 (density, coverage; k = 5). Even two sets of real images do not reach 1.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.errors import DataError

Array = npt.NDArray[Any]

K_REGION, K_COVER = 3, 5  # of precision and recall, and of density and coverage
_CLOSE = 0.01
_BLOCK_BYTES = 8_000_000  # of distances held at a time: they should stay in the cache


def distances(a: Array, b: Array) -> Iterator[tuple[slice, Array]]:
    """Squared distances between all points of a (N, D) and b (M, D), some rows at a time.

    |x - y|^2 = |x|^2 + |y|^2 - 2 x.y is one matrix product per block, instead of N M D differences.
    """
    norms = np.einsum("nd,nd->n", b, b)
    rows = max(1, _BLOCK_BYTES // (b.itemsize * len(b)))
    for start in range(0, len(a), rows):
        x = a[start : start + rows]
        block = x @ b.T
        block *= -2
        block += norms
        block += np.einsum("nd,nd->n", x, x)[:, None]
        yield slice(start, start + len(x)), np.maximum(block, 0, out=block)


def reach(points: Array, k: int) -> Array:
    """Squared distances (N, k) from each point to its 1st ... k-th nearest other point."""
    if len(points) <= k:
        raise DataError(f"{len(points)} samples are too few for their {k} nearest neighbours")
    found = np.empty((len(points), k))
    for rows, block in distances(points, points):
        row = np.arange(len(block))
        block[row, row + rows.start] = np.inf  # not itself
        for i in range(k):  # k small: taking the smallest k times beats partial sorting
            closest = block.argmin(axis=1)
            found[rows, i] = block[row, closest]
            block[row, closest] = np.inf
    return found


def nearest(points: Array, others: Array) -> Array:
    """Squared distance (N,) from each point to the nearest of `others`."""
    found = np.empty(len(points), points.dtype)
    for rows, block in distances(points, others):
        found[rows] = block.min(axis=1)
    return found


def prdc(
    real: Array,
    fake: Array,
    k_region: int = K_REGION,
    k_cover: int = K_COVER,
    real_reach: Array | None = None,
) -> dict[str, float]:
    """Return precision, recall, density and coverage of features (N, D) and (M, D).

    real_reach : what `reach` gave for the real ones, if it is known already.
    """
    if real_reach is None:
        real_reach = reach(real, max(k_region, k_cover))
    region, cover = real_reach[:, k_region - 1], real_reach[:, k_cover - 1]
    fake_region = reach(fake, k_region)[:, -1]
    precise = np.zeros(len(fake), bool)
    recalled, covered = np.empty(len(real), bool), np.empty(len(real), bool)
    inside = 0
    for rows, block in distances(real, fake):
        precise |= (block <= region[rows, None]).any(axis=0)
        recalled[rows] = (block <= fake_region).any(axis=1)
        hits = np.count_nonzero(block <= cover[rows, None], axis=1)
        inside += int(hits.sum())
        covered[rows] = hits > 0
    return {
        "precision": float(precise.mean()),
        "recall": float(recalled.mean()),
        "density": inside / (k_cover * len(fake)),
        "coverage": float(covered.mean()),
    }


def closeness(unseen: Array, seen: Array) -> float:
    """The squared distance to the nearest seen image that 99 % of the unseen ones exceed."""
    return float(np.quantile(nearest(unseen, seen), _CLOSE))


def memorisation(fake: Array, seen: Array, unseen: Array, close: float) -> dict[str, float]:
    """Does the generator repeat what it was trained on? Pixels or features, one row per image.

    memorised : of all real images, seen and unseen, is the nearest one to a fake more often a
        seen one than their numbers explain? (share - expected) / (1 - expected): 0 for a
        generator that does not know which were seen, 1 if the nearest is always one of them.
        Only varied samples tell: those of a collapsed generator all have the same neighbour.
    copies : share of fakes that come as close to a seen image as `close` (see `closeness`), which
        1 % of new real images do.
    """
    to_seen, to_unseen = nearest(fake, seen), nearest(fake, unseen)
    expected = len(seen) / (len(seen) + len(unseen))
    share = np.mean((to_seen < to_unseen) + 0.5 * (to_seen == to_unseen))
    return {
        "memorised": float((share - expected) / (1 - expected)),
        "copies": float(np.mean(to_seen <= close)),
    }
