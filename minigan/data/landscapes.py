"""The procedural set `scenes` as a dataset: made picture by picture when asked for."""

from __future__ import annotations

import hashlib
import threading
from functools import cached_property

import numpy as np

from . import scenes
from .dataset import Indices
from .frame import Frame, enlarged
from .pixels import Bytes, with_channels
from .views import LabelDataset, View

_SEEDS = {"train": 0, "test": 1}
COUNTS = {"train": 4000, "test": 500}


class _Studio:
    """Makes landscapes and keeps them while there is room."""

    def __init__(self, seed: int, size: tuple[int, int], cache_bytes: int) -> None:
        self.seed, self.size = seed, size
        self._room = cache_bytes // (4 * size[0] * size[1])
        self._kept: dict[int, tuple[Bytes, Bytes]] = {}
        self._lock = threading.Lock()

    def get(self, indices: Indices) -> tuple[Bytes, Bytes]:
        """Photos uint8 (B, 3, H, W) and maps uint8 (B, 1, H, W)."""
        wanted = [int(i) for i in np.asarray(indices, np.intp)]
        known = {i: found for i in wanted if (found := self._kept.get(i)) is not None}
        missing = [i for i in dict.fromkeys(wanted) if i not in known]
        if missing:
            made = scenes.at(np.array(missing), self.seed, self.size)
            new = dict(zip(missing, zip(made.photos, made.maps[:, None], strict=True), strict=True))
            known |= new
            with self._lock:  # a prefetching thread may be here too
                room = max(0, self._room - len(self._kept))
                self._kept |= dict(list(new.items())[:room])
        if not wanted:
            return np.empty((0, 3, *self.size), np.uint8), np.empty((0, 1, *self.size), np.uint8)
        return np.stack([known[i][0] for i in wanted]), np.stack([known[i][1] for i in wanted])


class _Part(View):
    """The photos or the maps of a studio."""

    def __init__(self, studio: _Studio, count: int, channels: int, maps: bool) -> None:
        super().__init__("scenes", count, (channels, *studio.size))
        self.studio, self.maps = studio, maps

    @cached_property
    def fingerprint(self) -> str:
        known = scenes.VERSION, self.studio.seed, len(self), self.image_shape, self.maps
        return hashlib.sha256(repr(known).encode()).hexdigest()

    def raw(self, indices: Indices) -> Bytes:
        photos, maps = self.studio.get(indices)
        return maps if self.maps else with_channels(photos, self.image_shape[0])


def load_scenes(
    split: str,
    size: tuple[int, int] | None,
    channels: int | None,
    jitter: float,
    multiple: int,
    limit: int | None,
    cache_bytes: int,
) -> LabelDataset:
    """The set `scenes`; see `minigan.data.load`."""
    size = size or (64, 64)
    count = min(COUNTS[split], limit or COUNTS[split])
    studio = _Studio(_SEEDS[split], enlarged(size, jitter), cache_bytes)
    return LabelDataset(
        "scenes",
        _Part(studio, count, channels or 3, maps=False),
        _Part(studio, count, 1, maps=True),
        scenes.CLASSES,
        scenes.COLOURS,
        Frame(size, multiple),
        split=split,
        source=f"minigan.data.scenes.make({count}, seed={_SEEDS[split]})",
    )
