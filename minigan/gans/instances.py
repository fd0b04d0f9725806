"""Styles of single objects, as pix2pixHD has them: pooled features, and clusters of them.

Wang et al. (2017), arXiv:1711.11585, section 3.4. An encoder's features of a photo are averaged
over each object, so that every object has one short code:

    f[n, :, i, j] <- mean of f[n] over all pixels of the object that has pixel (i, j)

G takes them beside the label map. To paint without a photo, the codes of the data are clustered,
class by class (K-means), and a centre is chosen for each class of the picture.
"""

from __future__ import annotations

import numpy as np

import minigan.functional as F
from minigan import nn
from minigan.backend import Array
from minigan.errors import UsageError
from minigan.ops.indexing import ScatterRows, TakeRows
from minigan.tensor import Tensor

SLOTS = 65_536  # an object's number is smaller: what fits into a PNG of 16 bits


def check_ids(ids: Array, name: str) -> None:
    """Refuse objects with numbers that are too large; only those on the host are looked at."""
    if isinstance(ids, np.ndarray) and ids.size and not 0 <= ids.min() <= ids.max() < SLOTS:
        raise UsageError(
            f"{name}: instances are numbered {ids.min()} ... {ids.max()}",
            fix=f"use numbers from 0 to {SLOTS - 1}",
        )


def instance_mean(x: Tensor, ids: Tensor) -> Tensor:
    """Features (N,F,H,W), averaged over the pixels that have one number in ids (N,H,W)."""
    n, maps, height, width = x.shape
    offsets = np.arange(n, dtype=np.int64).reshape(n, 1, 1) * SLOTS
    index = (ids + Tensor(offsets).to(ids.device)).reshape(-1).data
    rows = x.transpose(0, 2, 3, 1).reshape(-1, maps)
    total = ScatterRows.apply(rows, index=index, rows=n * SLOTS)
    ones = (rows[:, :1] * 0.0 + 1.0).detach()
    count = ScatterRows.apply(ones, index=index, rows=n * SLOTS)
    mean = total / F.clamp(count, 1.0)
    return TakeRows.apply(mean, index=index).reshape(n, height, width, maps).transpose(0, 3, 1, 2)


def object_codes(features: Array, labels: Array, ids: Array) -> dict[int, Array]:
    """The pooled features of all objects by class: {class: (objects, F)}."""
    found: dict[int, list[Array]] = {}
    for pooled, map_, numbers in zip(features, labels, ids, strict=True):
        _, first = np.unique(numbers, return_index=True)  # any pixel of an object has its code
        for place in first:
            code = pooled.reshape(len(pooled), -1)[:, place]
            found.setdefault(int(map_.reshape(-1)[place]), []).append(code)
    return {label: np.stack(codes) for label, codes in found.items()}


def kmeans(points: Array, k: int, rng: np.random.Generator, rounds: int = 50) -> Array:
    """k centres (k,F) of points (M,F) by Lloyd's rule; fewer points than centres repeat.

    It starts as k-means++ does: the next centre is a point that is likely to be far from all before
    it. Arthur and Vassilvitskii (2007).
    """
    if len(points) <= k:
        return points[np.arange(k) % len(points)]
    centres = points[[rng.integers(len(points))]]
    for _ in range(k - 1):
        far = _distances(points, centres).min(1)
        chances = far / far.sum() if far.any() else None
        centres = np.concatenate([centres, points[[rng.choice(len(points), p=chances)]]])
    for _ in range(rounds):
        nearest = _distances(points, centres).argmin(1)
        sets = [points[nearest == i] for i in range(k)]
        moved = np.stack([s.mean(0) if len(s) else c for s, c in zip(sets, centres, strict=True)])
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


def _distances(points: Array, centres: Array) -> Array:
    """Squared distances (M,k), in float64."""
    apart = points[:, None].astype(np.float64) - centres[None]
    return (apart * apart).sum(2)


class Styles(nn.Module):
    """Centres of each class's codes; 0 until `Pix2PixHD.cluster` was called."""

    def __init__(self, classes: int, count: int, features: int) -> None:
        self.centres = nn.Buffer(np.zeros((classes, count, features), np.float32))

    def forward(self, hot: Tensor, z: Tensor) -> Tensor:
        """A map of codes (N,F,H,W) for one-hot maps (N,K,H,W) and z (N,K) in [0, 1).

        z chooses one of the centres of each class.
        """
        n, classes, height, width = hot.shape
        count = self.centres.shape[1]
        choice = Tensor(np.eye(count, dtype=np.float32)).to(hot.device)
        rows = (z * count).data.astype(np.int64).clip(0, count - 1)
        weights = TakeRows.apply(choice, index=rows.reshape(-1)).reshape(n, classes, count, 1)
        table = (weights * Tensor(self.centres.data)[None]).sum(axis=2)  # N,K,F
        maps = table.transpose(0, 2, 1).astype(hot.dtype) @ hot.reshape(n, classes, -1)
        return maps.reshape(n, -1, height, width)
