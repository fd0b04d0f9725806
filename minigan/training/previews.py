"""Pictures of the same noise as training goes on, and how much they differ from one another."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.data.grid import image_grid, save_png
from minigan.gans.game import Game
from minigan.training.health import pairwise_distance
from minigan.training.rundir import RunFolder

_MOST_APART = 1000  # steps
_READABLE = 64  # pixels: smaller images are enlarged, at most four times


def due(step: int, every: int) -> bool:
    """Whether a preview belongs to this step.

    every : steps between previews; 0 chooses 0, 10, 20, ..., 90, 100, 200, ..., 900, 1000, ...:
        dense at the beginning where most happens, and never more than 1000 steps apart.
    """
    if every:
        return step % every == 0
    power = 10 ** (len(str(step)) - 1)
    return step % min(max(power, 10), _MOST_APART) == 0


class Previews:
    """Writes samples/NAME-STEP.png for each grid of `game.preview`.

    Parameters
    ----------
    every : see `due`.
    """

    def __init__(self, game: Game, run: RunFolder, every: int = 0) -> None:
        self.game, self.run, self.every = game, run, every

    def write(self, step: int, batch: Any) -> tuple[str, dict[str, float]]:
        """Write the grids of this step; return the name of the first and figures about them.

        "diversity" is the mean distance between the samples over that between real images.
        """
        grids, reals = self.game.preview(), real_images(batch, self.game.image_shape)
        if step == 0 and reals is not None:
            self._save("reals.png", reals[:64])
        for name, images in grids.items():
            self._save(f"{name}-{step:06d}.png", images, self.game.preview_columns)
        return f"samples/{next(iter(grids))}-{step:06d}.png", _diversity(reals, grids.get("fakes"))

    def _save(self, name: str, images: npt.NDArray[Any], columns: int | None = None) -> None:
        scale = min(4, max(1, _READABLE // images.shape[-1]))
        save_png(self.run.samples / name, image_grid(images, columns, scale))


def _diversity(real: npt.NDArray[Any] | None, fake: npt.NDArray[Any] | None) -> dict[str, float]:
    usual = 0.0 if real is None else pairwise_distance(real)
    return {"diversity": pairwise_distance(fake) / usual} if usual and fake is not None else {}


def real_images(batch: Any, shape: tuple[int, int, int]) -> npt.NDArray[Any] | None:
    """Find the images in a batch: its `images`, itself, or the first array that looks like them."""
    candidates = [getattr(batch, "images", None), batch]
    if isinstance(batch, tuple | list):
        candidates += batch
    if isinstance(batch, Mapping):
        candidates += batch.values()
    for array in candidates:
        if isinstance(array, np.ndarray) and array.shape[1:] == shape:
            return array
    return None
