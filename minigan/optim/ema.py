"""A moving average of a network's weights: the network to sample from."""

from __future__ import annotations

import copy
from collections.abc import Mapping
from typing import Any, Self

import numpy as np

from minigan.backend import Array, backend_of
from minigan.errors import UsageError
from minigan.nn.module import Module, Parameter


class EMA:
    """weights <- beta weights + (1 - beta) those of the network; buffers are copied.

    Buffers (running statistics, the vectors of spectral norm) belong to the weights of their
    moment: averaging a variance is wrong, and leaving it as it was at the start is worse.

    Parameters
    ----------
    module : the network that is trained.
    beta : share that stays, in [0, 1).
    warmup : in step t use min(beta, (1 + t) / (10 + t)), so that the first, random weights are
        forgotten soon.

    Attributes
    ----------
    module : a copy of the network with arrays of its own, without gradients, in eval mode.
    steps : updates made.
    """

    def __init__(self, module: Module, beta: float = 0.999, warmup: bool = True) -> None:
        if not 0 <= beta < 1:
            raise UsageError(f"EMA: beta={beta} is not in [0, 1)")
        self.source, self.beta, self.warmup, self.steps = module, beta, warmup, 0
        self.module = copy.deepcopy(module)
        self.module.requires_grad_(False).eval()

    @classmethod
    def with_half_life(cls, module: Module, kimg: float, batch: int, warmup: bool = True) -> Self:
        """Forget half after `kimg` thousand images: beta = 0.5^(batch / (1000 kimg))."""
        return cls(module, 0.5 ** (batch / (kimg * 1000)), warmup)

    def update(self) -> None:
        """Take the present weights of the network into the average."""
        beta = min(self.beta, (1 + self.steps) / (10 + self.steps)) if self.warmup else self.beta
        self.steps += 1
        averages, targets = [], []
        pairs = zip(self.module.named_tensors(), self.source.named_tensors(), strict=True)
        for (_, mine), (_, theirs) in pairs:
            if isinstance(mine, Parameter):
                averages.append(mine.data)
                targets.append(theirs.data)
            else:
                mine.data[...] = theirs.data
            mine.bump()
        if averages:
            backend_of(averages[0]).kernels.lerp_step(averages, targets, 1 - beta)

    def state_dict(self) -> dict[str, Array]:
        """The average by the network's names with "module." in front, and "step"."""
        state = {f"module.{name}": array for name, array in self.module.state_dict().items()}
        return {"step": np.asarray(self.steps)} | state

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave; see `Module.load_state_dict` for errors."""
        self.module.load_state_dict(
            state, rename=lambda name: None if name == "step" else name.removeprefix("module.")
        )
        self.steps = int(np.asarray(state.get("step", 0)))
