"""Adaptive discriminator augmentation: changes of place and colour, as many as D needs.

Karras, Aittala, Hellsten, Laine, Lehtinen, Aila: Training Generative Adversarial Networks with
Limited Data (2020), arXiv:2006.06676, appendix B; its pipeline "bgc".

Every change below is made to each image with probability p, in this order. Since an image stays as
it is with a good chance, G does not learn to draw changed ones, unless p comes near 1.

    blit      mirror; quarter turns; move by whole pixels, up to 1/8 of the size
    geometry  scale 2^N(0, .2^2); turn; stretch 2^N(0, .2^2); turn; move by N(0, .125^2) of the size
              (a turn with probability 1 - sqrt(1 - p), so that one of the two happens with p)
    colour    brightness N(0, .2^2); contrast 2^N(0, .5^2); luma flip; hue; saturation 2^N(0, 1)

How much D knows the reals by heart is measured by

    r_t = E[sign D(T(x))]                                 over the last `interval` steps
    p  <- p + sign(r_t - target) images / (1000 kimg)     limited to [0, 1]

with the images that D has seen meanwhile: p takes `kimg` thousand images from 0 to 1.

Where this departs from the paper: an image that no change befalls keeps its bits, and one that is
only blitted is moved without interpolation; the paper sends all images through its filters. The
hue exists for three channels only; all else of the colours works on any number, about the axis
of grey. p stays at most 1. `augment/warp.py` says how an image is turned.

The sum of signs stays on the device; `after_step` reads it in every `interval`-th step. That, p and
the number of steps are in `state_dict`, so a resumed run adapts at the same steps by the same
amounts, to the bit.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any, Self

import numpy as np

import minigan.functional as F
from minigan.augment.base import Augment, check_images, fed
from minigan.augment.draws import blits, colours, geometry
from minigan.augment.warp import warped
from minigan.backend import Array, beside, to_device, to_numpy
from minigan.errors import CheckpointError, UsageError
from minigan.ops.indexing import GatherPositions
from minigan.tensor import Tensor


class ADA(Augment):
    """See above.

    Parameters
    ----------
    p : probability of each change at the beginning.
    target : of r_t; None leaves p as it is.
    kimg : thousands of images in which p can go from 0 to 1.
    interval : steps between two adaptations.

    Attributes
    ----------
    p : of each change now.
    r : the last r_t: 0 where D finds reals and fakes alike, 1 where it is sure of every real.
    """

    def __init__(
        self, p: float = 0.0, target: float | None = 0.6, kimg: float = 500.0, interval: int = 4
    ) -> None:
        if not 0 <= p <= 1:
            raise UsageError(f"ada: p = {p} is not a probability", fix="use 0 <= p <= 1")
        if target is not None and not (-1 < target < 1 and kimg > 0 and interval >= 1):
            raise UsageError(
                f"ada: target {target}, kimg {kimg}, interval {interval}",
                why="r_t lies between -1 and 1, the other two are positive",
            )
        self.p, self.target, self.kimg, self.interval = float(p), target, kimg, interval
        self.r = 0.0
        self.steps = 0
        self.seen: Array = np.zeros(2)  # sum of sign D(T(x)), images; where the logits are

    def __call__(self, x: Tensor) -> Tensor:
        check_images("ada", x, least=2)
        n, channels, *size = x.shape
        return self._recolour(self._warp(self._blit(x, n, size), n, size), n, channels)

    def _blit(self, x: Tensor, n: int, size: list[int]) -> Tensor:
        drawn = fed(lambda rng: blits(rng, n, size, self.p), x).data
        rows, columns = drawn[:, : size[0]], drawn[:, size[0] :]
        return GatherPositions.apply(x, index=rows[:, None, :, None] + columns[:, None, None, :])

    def _warp(self, x: Tensor, n: int, size: list[int]) -> Tensor:
        drawn = fed(lambda rng: geometry(rng, n, size, self.p), x)
        return where_drawn(drawn, (2, 3), warped, x)

    def _recolour(self, x: Tensor, n: int, channels: int) -> Tensor:
        drawn = fed(lambda rng: colours(rng, n, channels, self.p), x)
        return where_drawn(drawn, (channels, channels + 1), mixed, x)

    # How p adapts --------------------------------------------------------------------------------

    def observe(self, logits: Tensor) -> None:
        """Add up sign D(T(x)) on the device: logits of an image each, or maps of them."""
        if self.target is None:
            return
        n = len(logits)
        self.seen[:1] += F.sign(logits.detach()).mean().data * n
        self.seen[1:] += n

    def after_step(self) -> None:
        """Adapt p in every `interval`-th step."""
        self.steps += 1
        if self.target is None or self.steps % self.interval:
            return
        total, images = map(float, to_numpy(self.seen))
        self.seen[...] = 0.0
        if not images:
            raise UsageError(
                "ada: nobody has observed D's logits of reals", fix="call observe in D's turn"
            )
        self.r = total / images
        if np.isfinite(self.r):  # a turn with NaN teaches nothing
            moved = self.p + np.sign(self.r - self.target) * images / (1000 * self.kimg)
            self.p = float(np.clip(moved, 0.0, 1.0))

    def to(self, device: str) -> Self:
        self.seen = to_device(self.seen, device)
        return self

    def state_dict(self) -> dict[str, Array]:
        numbers = {"p": self.p, "r": self.r, "steps": self.steps}
        state = {name: np.asarray(number) for name, number in numbers.items()}
        return state | {"seen": np.array(to_numpy(self.seen))}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        names = {"p", "r", "steps", "seen"}
        if set(state) != names:
            raise CheckpointError(f"ada: the checkpoint has {sorted(state)}, not {sorted(names)}")
        self.p, self.r, self.steps = float(state["p"]), float(state["r"]), int(state["steps"])
        self.seen[...] = beside(np.asarray(state["seen"]), self.seen)


def where_drawn(
    drawn: Tensor, shape: tuple[int, int], change: Callable[[Tensor, Tensor], Tensor], x: Tensor
) -> Tensor:
    """change(x, matrix) for the images that something befalls: column 0 of `drawn` says which."""
    n = len(x)
    matrices = drawn[:, 1:].reshape(n, *shape)
    if isinstance(drawn.data, np.ndarray):  # the CPU records no steps, so it may look
        touched = np.flatnonzero(drawn.data[:, 0])
        if len(touched) < n:
            if not len(touched):
                return x
            return F.index_put(x, touched, change(x[touched], matrices[touched]))
    befallen = Tensor((drawn.data[:, 0] != 0).reshape(-1, 1, 1, 1))
    return F.where(befallen, change(x, matrices), x)


def mixed(x: Tensor, matrices: Tensor) -> Tensor:
    """x (N,C,H,W), the colour of each pixel taken to matrix (C, C + 1) @ (colour, 1)."""
    n, channels, *size = x.shape
    linear, offset = matrices[:, :, :channels], matrices[:, :, channels:]
    pixels = x.transpose(0, 2, 3, 1).reshape(n, -1, channels)  # a view where channels are last
    changed = pixels * linear if channels == 1 else pixels @ linear.transpose(0, 2, 1)
    changed = changed + offset.transpose(0, 2, 1)
    return changed.reshape(n, *size, channels).transpose(0, 3, 1, 2)
