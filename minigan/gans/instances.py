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
from minigan.ops.indexing import ScatterRows, TakeRows
from minigan.tensor import Tensor

SLOTS = 65_536  # an object's number is smaller: what fits into a PNG of 16 bits


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
    """k centres (k,F) of points (M,F): Lloyd's rule from random points; fewer points repeat."""
    centres = points[np.arange(k) % len(points)]
    if len(points) > k:
        centres = points[rng.choice(len(points), k, replace=False)]
    for _ in range(rounds):
        distance = ((points[:, None] - centres[None]) ** 2).sum(2)
        nearest = distance.argmin(1)
        moved = np.stack(
            [points[nearest == i].mean(0) if (nearest == i).any() else centres[i] for i in range(k)]
        )
        if np.array_equal(moved, centres):
            break
        centres = moved
    return centres


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
