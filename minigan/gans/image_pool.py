"""The image pool of CycleGAN: D looks at fakes of the past too.

Shrivastava et al.: Learning from Simulated and Unsupervised Images through Adversarial Training
(2016), arXiv:1612.07828, section 2.3; Zhu et al. (2017), section 4: 50 pictures.

The first `size` fakes are kept, and given back as they are. Of those that follow, with probability
1/2 each, one is given back as it is and not kept; or an old one is given in its place, and it takes
the place of that one. D then cannot forget what G has left behind, and the two do not oscillate.
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Self

import numpy as np

from minigan import nn, random
from minigan.backend import Array, backend_of
from minigan.tensor import Tensor

Feed = Callable[[Callable[[], Array]], Tensor]


class ImagePool(nn.Module):
    """Fakes of the past; a part of the game's state.

    Parameters
    ----------
    size : pictures kept; 0: none, and all fakes are given back as they are.
    shape : C, H, W.
    stream : of the decisions.

    Attributes
    ----------
    slots : (size + 1, C, H, W) on the device. The last is for what is not kept: an assignment
        that always happens can be recorded.
    stored : pictures kept so far. It belongs to the host, which decides.
    """

    def __init__(self, size: int, shape: tuple[int, int, int], stream: str) -> None:
        self.size, self.stream = size, stream
        self.slots = nn.Buffer(np.zeros((size + 1, *shape), np.float32))
        self.stored = nn.Buffer(np.zeros((), np.int64))

    def forward(self, fakes: Tensor, feed: Feed) -> Tensor:
        """Fakes (N,C,H,W) without gradients -> as many, some of them old.

        feed : `Game.feed`; the decisions go through it.
        """
        if not self.size:
            return fakes
        xp = backend_of(fakes.data).xp
        plan = feed(lambda: self.decide(len(fakes))).data  # (N,2): the place, whether the old one
        given = []
        for i in range(len(fakes)):
            place, fake = plan[i, :1], fakes.data[i : i + 1]
            old = self.slots.data[place]  # a copy
            self.slots.data[place] = fake
            given.append(xp.where(plan[i, 1] != 0, old, fake))
        return Tensor(xp.concatenate(given))

    def decide(self, n: int) -> Array:
        """For each of n fakes the place where it is put, and whether the old one there is given."""
        rng, plan = random.draw(self.stream), np.zeros((n, 2), np.int64)
        for row in plan:
            if self.stored.data < self.size:
                row[:] = int(self.stored.data), 0
                self.stored.data[...] += 1
            elif rng.random() < 0.5:
                row[:] = rng.integers(self.size), 1
            else:
                row[:] = self.size, 0
        return plan

    def to(self, device: str) -> Self:
        """Move the slots to a device; the count stays with the host."""
        count = self.stored.data
        super().to(device)
        self.stored.data = count
        return self
