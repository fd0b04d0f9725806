"""A moving average of a network's weights: the network to sample from."""

from __future__ import annotations

import copy
import itertools
import operator
from collections.abc import Mapping
from typing import Any, Self

import numpy as np
from minigan_kernels.group import Group

from minigan.backend import Array, again, backend_of
from minigan.errors import UsageError
from minigan.nn.module import Buffer, Module, Parameter
from minigan.tensor import Tensor


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
        self._pairs = _Pairs(self.module, self.source)

    @classmethod
    def with_half_life(cls, module: Module, kimg: float, batch: int, warmup: bool = True) -> Self:
        """Forget half after `kimg` thousand images: beta = 0.5^(batch / (1000 kimg))."""
        return cls(module, 0.5 ** (batch / (kimg * 1000)), warmup)

    def update(self) -> None:
        """Take the present weights of the network into the average."""
        if not self._pairs.are_current():
            self._pairs = _Pairs(self.module, self.source)
        again(self._lerp)
        for mine, theirs in self._pairs.buffers:
            mine.data[...] = theirs.data

    def _lerp(self) -> None:
        beta = min(self.beta, (1 + self.steps) / (10 + self.steps)) if self.warmup else self.beta
        self.steps += 1
        averages, targets = self._pairs.averages, self._pairs.targets
        if averages:
            backend_of(averages[0]).kernels.lerp_step(averages, targets, 1 - beta)
        for average in self._pairs.mine:
            average.bump()

    def to(self, device: str) -> Self:
        """Move the average to `device`, where the network is."""
        self.module.to(device)
        return self

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


class _Pairs:
    """The tensors of the average beside those of the network, found once for many updates.

    To look through two networks takes longer than to average a small one. So this keeps what stood
    in the attributes of all modules, and in the lists and dictionaries there. Nothing has changed
    while the very same objects stand there and the tensors still have the same arrays.
    """

    def __init__(self, module: Module, source: Module) -> None:
        self.of = module, source
        pairs = list(zip(module.named_tensors(), source.named_tensors(), strict=True))
        self.mine = [mine for (_, mine), _ in pairs]
        self.tensors = [*self.mine, *(theirs for _, (_, theirs) in pairs)]
        self.arrays = [t._data for t in self.tensors]
        self.buffers = [(a, b) for (_, a), (_, b) in pairs if not isinstance(a, Parameter)]
        learned = [(a.data, b.data) for (_, a), (_, b) in pairs if isinstance(a, Parameter)]
        self.averages = Group(a for a, _ in learned)
        self.targets = Group(b for _, b in learned)
        self.places = [*_places(module), *_places(source)]
        found = itertools.chain.from_iterable(self.places)
        self.contents = [_CHANGING if _is_passing(value) else value for value in found]

    def are_current(self) -> bool:
        """Whether all is as it was."""
        now = itertools.chain.from_iterable(self.places)
        return (
            sum(map(len, self.places)) == len(self.contents)
            and all(map(operator.is_, now, self.contents))
            and all(map(operator.is_, map(_array_of, self.tensors), self.arrays))
        )

    def __reduce__(self) -> Any:
        return _Pairs, self.of  # the places belong to these very modules


_array_of = operator.attrgetter("_data")
_CHANGING = object()  # stands nowhere, so who keeps it is looked through every time


def _places(root: Module) -> list[Any]:
    """Live views of all places where tensors of a network, or modules, may stand."""
    places: list[Any] = []
    todo: list[Any] = [vars(module) for module in root.modules()]
    while todo:
        place = todo.pop()
        places.append(place.values() if isinstance(place, dict) else place)
        inner = (v for v in places[-1] if isinstance(v, list | tuple | dict))
        todo += [v for v in inner if not _is_passing(v)]
    return places


def _is_passing(value: Any) -> bool:
    """Whether it is, or holds, a result of some step, which must not be kept alive from here."""
    if isinstance(value, Parameter | Buffer):
        return False
    if isinstance(value, list | tuple):
        return any(map(_is_passing, value))
    if isinstance(value, dict):
        return any(map(_is_passing, value.values()))
    return isinstance(value, Tensor | np.ndarray)
