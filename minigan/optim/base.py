"""What all optimizers have in common: parameters, the learning rate, memory, saving and loading."""

from __future__ import annotations

import math
import operator
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any, Self

import numpy as np
from minigan_kernels.group import Group

from minigan.backend import Array, again, backend_of, beside, to_device, to_numpy
from minigan.errors import DtypeError, ShapeError, UsageError
from minigan.nn.module import Parameter
from minigan.nn.state import mismatched, missing, refuse, unexpected
from minigan.tensor import Tensor

Rate = float | Callable[[int], float]
Gradients = Sequence[Tensor | Array | None]


class Optimizer:
    """Base of the optimizers: a subclass names its memory and writes `update`.

    Parameters
    ----------
    params : the parameters to change, each once.
    lr : the learning rate, or a schedule: a function of the number of steps made so far.

    Attributes
    ----------
    params : list of parameters.
    lr : number or schedule; may be assigned at any time.
    steps : updates made.
    memory : name -> one array per parameter, such as "exp_avg" for Adam.
    records : whether its steps can be recorded on a GPU: on the device, they are kernels alone.
    """

    records = True

    def __init__(self, params: Iterable[Parameter], lr: Rate) -> None:
        self.params = _check_params(type(self).__name__, params)
        self.lr = lr
        self.steps = 0
        self.counts = np.zeros(len(self.params), np.int64)  # updates of each parameter
        self.memory: dict[str, list[Array]] = {}
        self._dtypes = [p.dtype for p in self.params]
        self._group = Group()
        if not callable(lr):
            self._check(lr=(lr, 0, math.inf))

    def _remember(self, name: str, value: float = 0.0) -> None:
        """Start a piece of memory for each parameter, filled with `value`."""
        self.memory[name] = [np.full_like(p.data, value) for p in self.params]

    def _check(self, **options: tuple[float, float, float]) -> None:
        """Refuse options that are not in [low, high)."""
        for name, (value, low, high) in options.items():
            if not low <= value < high:
                raise UsageError(
                    f"{type(self).__name__}: {name}={value} is not in [{low:g}, {high:g})"
                )

    @property
    def rate(self) -> float:
        """The learning rate of the next step."""
        return float(self.lr(self.steps) if callable(self.lr) else self.lr)

    def step(self, grads: Gradients | None = None) -> None:
        """Change the parameters along their gradients, in place.

        Parameters
        ----------
        grads : gradients in the order of `params`; by default what `backward` left in `.grad`.
            They are read only. A parameter whose gradient is None is left as it is.
        """
        chosen, arrays = self._gradients(grads)
        again(lambda: self._step(chosen, arrays))

    def _step(self, chosen: list[int], grads: list[Array]) -> None:
        rate = self.rate
        self.steps += 1
        self.counts[chosen] += 1
        if chosen:
            self.update(chosen, grads, rate)
        for i in chosen:
            self.params[i].bump()

    def update(self, chosen: list[int], grads: list[Array], lr: float) -> None:
        """Apply the rule to the parameters with the numbers `chosen`, whose gradients are given."""
        raise UsageError("Optimizer is the common part; use SGD, Adam or another with a rule")

    def _arrays(self, chosen: list[int]) -> list[Array]:
        """The chosen parameters' arrays: one `Group` as long as they stay the same."""
        arrays = [self.params[i]._data for i in chosen]
        last = self._group
        if len(last) != len(arrays) or not all(map(operator.is_, last, arrays)):
            self._group = Group(arrays)
        return self._group

    def _recall(self, name: str, chosen: list[int]) -> list[Array] | None:
        """The chosen parameters' memory of that name, None if this optimizer has none."""
        if name not in self.memory:
            return None
        arrays = self.memory[name]
        return arrays if len(chosen) == len(arrays) else [arrays[i] for i in chosen]

    @property
    def _kernels(self) -> Any:
        return backend_of(self.params[0].data).kernels

    def zero_grad(self) -> None:
        """Forget the gradients that `backward` accumulated."""
        for p in self.params:
            if p.requires_grad:
                p.grad = None

    def _gradients(self, grads: Gradients | None) -> tuple[list[int], list[Array]]:
        """The numbers of the parameters that have a gradient, and those gradients, checked."""
        if grads is None:
            grads = [p.grad for p in self.params]
        if len(grads) != len(self.params):
            raise UsageError(
                f"{type(self).__name__}.step: {len(grads)} gradients for "
                f"{len(self.params)} parameters",
                fix="pass one for each parameter, in the order of the optimizer's params; None "
                "where there is none",
            )
        chosen, arrays = [], []
        for i, (p, g) in enumerate(zip(self.params, grads, strict=True)):
            if p._data.dtype != self._dtypes[i]:
                raise DtypeError(
                    f"{type(self).__name__}: {_name(p, i)} has become {p.dtype}",
                    why=f"what the optimizer remembers of it is {self._dtypes[i]}",
                    fix="convert the network first, then make the optimizer",
                )
            if g is not None:
                array = g._data if isinstance(g, Tensor) else g
                if array.shape != p._data.shape or array.dtype != p._data.dtype:
                    _refuse_gradient(type(self).__name__, _name(p, i), p, array)
                chosen.append(i)
                arrays.append(array)
        return chosen, arrays

    def to(self, device: str) -> Self:
        """Move what it remembers to `device`, where the parameters are."""
        for name, arrays in self.memory.items():
            self.memory[name] = Group(to_device(array, device) for array in arrays)
        return self

    # Saving and loading ------------------------------------------------------------------------

    def state_dict(self) -> dict[str, Array]:
        """Copies of all that the optimizer remembers: "step", "steps", and "exp_avg.0" and so on.

        Options such as the learning rate are not part of it.
        """
        return {n: np.array(to_numpy(array), order="C") for n, array in self._state().items()}

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Continue from what `state_dict` gave.

        Raises
        ------
        CheckpointError
            with a table of what does not fit. Nothing is loaded then.
        """
        arrays = {name: np.asarray(value) for name, value in state.items()}
        known = self._state()
        rows = missing(arrays, list(known), known) + unexpected(arrays, known)
        refuse(f"load_state_dict: {type(self).__name__}", rows + mismatched(arrays, known))
        self._load(arrays)

    def _state(self) -> dict[str, Array]:
        """All memory by flat names, not copied."""
        state = {"step": np.asarray(self.steps), "steps": self.counts}
        for name, arrays in self.memory.items():
            state |= {f"{name}.{i}": array for i, array in enumerate(arrays)}
        return state

    def _load(self, arrays: Mapping[str, Array]) -> None:
        for name, array in self._state().items():
            array[...] = beside(arrays[name], array)
        self.steps = int(arrays["step"])

    def __repr__(self) -> str:
        count = sum(p.size for p in self.params)
        return f"{type(self).__name__}({len(self.params)} parameters, {count} numbers, {self.lr=})"


def _check_params(name: str, params: Iterable[Parameter]) -> list[Parameter]:
    if isinstance(params, Tensor):
        raise UsageError(f"{name}: params is one tensor", fix="pass a list of parameters")
    found = list(params)
    if not found:
        raise UsageError(f"{name}: there are no parameters", fix="pass list(module.parameters())")
    seen: set[int] = set()
    for i, p in enumerate(found):
        if not isinstance(p, Tensor) or p.dtype.kind != "f":
            raise UsageError(f"{name}: params[{i}] is {p!r}", fix="pass parameters")
        if id(p) in seen:
            raise UsageError(
                f"{name}: {_name(p, i)} occurs twice",
                why="it would be changed twice in a step",
                fix="module.parameters() lists shared parameters once",
            )
        seen.add(id(p))
    return found


def _refuse_gradient(optimizer: str, name: str, p: Tensor, g: Array) -> None:
    if g.shape != p.shape:
        raise ShapeError(
            f"{optimizer}.step: the gradient of {name} has shape {g.shape}, not {p.shape}",
            fix="pass the gradients in the order of the optimizer's params",
        )
    raise DtypeError(f"{optimizer}.step: the gradient of {name} is {g.dtype}, not {p.dtype}")


def _name(p: Tensor, i: int) -> str:
    """What to call a parameter in a message: its own name, or its number."""
    return getattr(p, "name", "") or f"params[{i}]"
