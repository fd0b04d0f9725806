"""Batches of toy pictures a and b: b is a with its colours turned round (or a shuffled b)."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

import numpy as np

from minigan.random import generator

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Pair:
    a: Array
    b: Array
    indices: Array

    @property
    def images(self) -> Array:
        return self.b


class Pairs:
    """Endless batches by number; smooth pictures (C, height, width) in [-1, 1]."""

    def __init__(
        self, sides: tuple[int, int], batch_size: int = 1, channels: int = 3, seed: int = 0
    ) -> None:
        self.sides, self.batch_size, self.channels, self.seed = sides, batch_size, channels, seed

    def indices(self, step: int) -> Array:
        return np.arange(step * self.batch_size, (step + 1) * self.batch_size)

    def batch(self, step: int) -> Pair:
        rng = generator(self.seed, "toy", step)
        height, width = self.sides
        shape = (self.batch_size, self.channels, 1, 1)
        row, column = np.linspace(0, 6, height)[:, None], np.linspace(0, 6, width)
        tilt, turn, shift = (rng.standard_normal(shape) for _ in range(3))
        a = np.sin(tilt * row + turn * column + shift).astype(np.float32)
        return Pair(a, -a[:, ::-1].copy(), self.indices(step))
