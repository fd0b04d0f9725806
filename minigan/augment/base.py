"""What every augmentation can do; by itself, the one that does nothing."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

from minigan import backend, random
from minigan.backend import Array
from minigan.errors import DtypeError, ShapeError
from minigan.tensor import Tensor

Draw = Callable[[np.random.Generator], Array]


class Augment:
    """T(x) = x.

    Whatever is random is drawn by the host from the stream "augment" and fed to the device, so a
    step that is recorded on a GPU draws anew each time it is played.
    """

    def __call__(self, x: Tensor) -> Tensor:
        """Images (N, C, H, W) changed at random, each in its own way."""
        return x

    def observe(self, logits: Tensor) -> None:
        """Take note of D's logits of (augmented) reals; in D's turn."""

    def after_step(self) -> None:
        """Adapt, if it is time; to be called by the host after each step, never recorded."""

    def to(self, device: str) -> Self:
        """Move to `device` what must be where the logits are."""
        return self

    def state_dict(self) -> dict[str, Array]:
        """All that a resumed run needs."""
        return {}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on from what `state_dict` gave."""


def fed(draw: Draw, x: Tensor) -> Tensor:
    """What `draw` makes of the next generator, beside x; floats get the dtype of x."""

    def compute() -> Array:
        drawn = draw(random.draw("augment"))
        return drawn.astype(x_dtype) if drawn.dtype.kind == "f" else drawn

    x_dtype = x.dtype  # not x itself: a recording keeps `compute`
    return Tensor(backend.feed(compute, x.device))


def check_images(name: str, x: Tensor, least: int = 1) -> None:
    """Images (N, C, H, W) of floats, at least `least` pixels high and wide."""
    if x.ndim != 4 or min(x.shape[2:], default=0) < least:
        raise ShapeError(
            f"{name}: x {x.shape} are no images",
            why=f"it needs (N, C, H, W), H and W at least {least}",
        )
    if x.dtype.kind != "f":
        raise DtypeError(f"{name}: x is {x.dtype}", fix="convert with astype('float32')")
