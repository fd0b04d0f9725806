"""Toy label maps and photos, and small games that learn from them."""

from __future__ import annotations

from typing import Any

import numpy as np

import minigan as mg
from minigan import gans
from minigan.data.coupled import LabelBatch

CLASSES = 3
SMALL: dict[str, dict[str, Any]] = {
    "spade": {"width": 2, "hidden": 4, "width_d": 4, "layers": 2, "upsamplings": 5},
    "gaugan": {"width": 2, "hidden": 4, "width_d": 4, "layers": 2, "nz": 5},
    "pix2pixhd": {
        "width": 2, "blocks": 1, "local_blocks": 1, "width_d": 4, "layers": 2, "features": 2,
        "width_e": 2, "global_steps": 2, "fixed_steps": 2,
    },
}  # fmt: skip


class Toys:
    """Endless batches of squares in two colours of which each class has its own."""

    def __init__(
        self, size: int | tuple[int, int] = 32, batch_size: int = 2, instances: bool = True
    ) -> None:
        self.size = (size, size) if isinstance(size, int) else size
        self.batch_size, self.instances = batch_size, instances

    def indices(self, step: int) -> Any:
        return np.arange(step * self.batch_size, (step + 1) * self.batch_size)

    def batch(self, step: int) -> LabelBatch:
        rng = np.random.default_rng(step)
        height, width = self.size
        cells = rng.integers(0, CLASSES, (self.batch_size, 4, 4))
        rows, columns = np.arange(height) * 4 // height, np.arange(width) * 4 // width
        labels = cells[:, rows][:, :, columns]
        ids = np.broadcast_to(rows[:, None] * 4 + columns, labels.shape).astype(np.int64)
        photos = np.stack([labels / 2 - 0.5, 0.5 - labels / 2, 0.2 * labels], 1)
        photos = (photos + rng.normal(0, 0.05, photos.shape)).clip(-1, 1).astype(np.float32)
        known = ids.copy() if self.instances else None
        return LabelBatch(photos, labels, known, None, self.indices(step))


def small(name: str, **options: Any) -> Any:
    """A game that plays many steps a second."""
    mg.manual_seed(0)
    return gans.make(
        name, **SMALL[name] | {"size": 32, "classes": CLASSES, "previews": 3} | options
    )
