"""How a generator with batch norm draws: with which statistics.

eval      the running statistics of training: each image depends on its own noise alone
standing  statistics of 16 batches of fresh noise, taken anew for the weights as they are now.
          Running ones lag behind the weights, and an average of weights never had any of its own
batch     those of the images drawn together, and dropout as in training: the grids of the first
          DCGAN code were drawn so. Each image then depends on its neighbours
"""

from __future__ import annotations

import contextlib
import copy
import zlib
from collections.abc import Callable, Iterator
from typing import Any

from minigan import nn
from minigan.gans.checks import check_choice
from minigan.nn.norm import _Running

MODES = ("eval", "standing", "batch")
STANDING_BATCHES = 16


@contextlib.contextmanager
def sampling(G: nn.Module, mode: str, standing: Standing) -> Iterator[nn.Module]:
    """G ready to draw in a mode; afterwards G is as it was before, in every bit.

    Parameters
    ----------
    G : the generator.
    mode : "eval", "standing" or "batch".
    standing : makes the copy that draws in the mode of that name.
    """
    check_choice("mode", mode, MODES)
    training = {module: module.training for module in G.modules()}
    buffers = list(G.named_buffers()) if mode == "batch" else []
    saved = [(buffer, buffer.data, buffer.data.copy()) for _, buffer in buffers]
    try:
        if mode == "standing":
            yield standing.of(G)
        else:
            yield G.train(mode == "batch")
    finally:
        for module, was in training.items():
            module.training = was
        for buffer, home, numbers in saved:
            home[...] = numbers  # the same place in memory: recorded steps know it
            buffer.data = home


class Standing:
    """Copies of generators with standing statistics, kept while the weights are the same.

    Parameters
    ----------
    draw : lets the network it is given make the k-th of the batches that statistics come from.
    """

    def __init__(self, draw: Callable[[nn.Module, int], Any]) -> None:
        self.draw = draw
        self.made: dict[tuple[Any, ...], nn.Module] = {}

    def of(self, G: nn.Module) -> nn.Module:
        """A copy of G, made now or before."""
        mark = fingerprint(G)
        if mark not in self.made:
            newest = list(self.made.items())[-1:]  # the average beside the raw weights
            self.made = dict(newest) | {mark: standing(G, self.draw)}
        return self.made[mark]


def standing(G: nn.Module, draw: Callable[[nn.Module, int], Any]) -> nn.Module:
    """A copy of G whose norms have the statistics of 16 batches, each with an equal share."""
    twin = copy.deepcopy(G).eval()
    for norm in twin.modules():
        if isinstance(norm, _Running) and norm.num_batches_tracked is not None:
            norm.momentum = None  # average over all batches
            norm.num_batches_tracked.data[...] = 0
            norm.training = True
    for k in range(STANDING_BATCHES):
        draw(twin, k)
    return twin.eval()


def fingerprint(net: nn.Module) -> tuple[Any, ...]:
    """Tells networks with other numbers, or on another device, apart."""
    crc = 0
    for array in net.state_dict().values():
        crc = zlib.crc32(array.tobytes(), crc)
    return next(net.parameters()).device, crc
