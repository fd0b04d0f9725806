"""Whole training steps of `steps.py` on a GPU: a user's step, and PyTorch's in four ways.

    minigan             operation by operation
    minigan recorded    as a CUDA graph, as `minigan train` plays it
    torch nchw          eager, as it is
    torch channels_last eager, with cuDNN's search for the best algorithms
    torch graph         channels_last, captured by `torch.cuda.CUDAGraph`
    torch compile       channels_last, networks compiled with "max-autotune" (section "compile")

The batch lies on the device; no side reads losses in the timed calls. All begin with the same
weights, and convolutions may use TF32 on both sides. The error is that of the first step's losses
against PyTorch's in float64; a side that is off by more than a hundredth computes something else.
The floor adds up the operations, each at the limit of arithmetic or of memory, as if it ran alone.
"""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any

import numpy as np

import minigan as mg
from benchmarks import torchside
from benchmarks.counting import Count
from benchmarks.gpu_timing import Clock, Contender, at_most, compared, race, shared
from benchmarks.steps import LossesDiffer, Net, adams, load, nets
from minigan import autograd

AGREE = 1e-2  # of losses: TF32 through two networks
Losses = dict[str, float]


def measure(bench: Any) -> None:
    """All steps, but torch.compile."""
    for net in nets(small=not bench.on_gpu):
        bench.add("steps", net.name, partial(entry, bench, net), 90)


def measure_compiled(bench: Any) -> None:
    """The steps against torch.compile, which takes minutes to get ready."""
    if not bench.on_gpu or torchside.torch() is None:
        bench.skip("compile", "it needs a GPU and PyTorch")
        return
    for net in nets():
        bench.add("compile", net.name, partial(compiled_entry, bench, net), 150)


def entry(bench: Any, net: Net) -> dict[str, Any]:
    """One training step in all ways but torch.compile."""
    step = Both(bench, net)
    sides, skipped = our_sides(step)
    theirs, also = their_sides(step)
    found = compared(race(Clock(bench.backend.xp), [*sides, *theirs]))
    return found | step.facts() | {"skipped": skipped | also}


def compiled_entry(bench: Any, net: Net) -> dict[str, Any]:
    """One training step beside torch.compile; without its own CUDA graphs if these fail."""
    step = Both(bench, net)
    sides, skipped = our_sides(step)
    for mode in ("max-autotune", "max-autotune-no-cudagraphs"):
        try:
            other = step.theirs("channels_last")
            for network in other.networks.values():
                network.compile(mode=mode)
            call = eager(step, other, "channels_last")
            step.check(f"torch compile {mode}", {k: float(v) for k, v in call(0).items()})
            break
        except Exception as problem:
            skipped[f"torch compile {mode}"] = f"{type(problem).__name__}: {problem}"[:300]
    else:
        raise RuntimeError(str(skipped))
    found = compared(race(Clock(bench.backend.xp), [*sides, Contender("torch compile", call)]))
    return found | step.facts() | {"mode": mode, "skipped": skipped}


class Both:
    """A step in both engines: the same weights, the same batch, on the device.

    Attributes
    ----------
    losses : name of a side -> those of its first step.
    """

    def __init__(self, bench: Any, net: Net) -> None:
        self.bench, self.net, self.torch = bench, net, torchside.torch()
        mg.manual_seed(0)
        self.original = net.ours()
        batch = net.batch(np.random.default_rng(0))
        self.batch = {
            # what the host draws in each step, it also sends in each step
            k: a if k in net.noise else bench.backend.upload(a)
            for k, a in batch.items()
        }
        self.losses: dict[str, Losses] = {}
        self.exact = self._exact(batch)
        self.count = Count(bench.limits)

    def ours(self) -> Any:
        """Our game with the original weights, on the device."""
        mg.manual_seed(0)
        game = self.net.ours()
        game.to(self.bench.backend.name)
        return game

    def theirs(self, layout: str, dtype: Any = None) -> Any:
        """PyTorch's game with the same weights; its Adam can be captured."""
        other = self.net.theirs(adams()["fused" if self.bench.on_gpu else "foreach"])
        load(other, self.original, torchside.layouts()[layout])
        for network in other.networks.values():
            network.to(self.bench.where, dtype)
        for rule in (other.opt_g, other.opt_d):
            for group in rule.param_groups:
                group["capturable"] = self.bench.on_gpu
        return other

    def tensors(self, layout: str) -> dict[str, Any]:
        upload = self.bench.backend.upload
        memory = torchside.layouts()[layout]
        return {
            k: shared(self.torch, upload(a) if isinstance(a, np.ndarray) else a, memory)
            for k, a in self.batch.items()
        }

    def _exact(self, batch: dict[str, Any]) -> Losses | None:
        if self.torch is None:
            return None
        where = self.bench.where
        tensors = {k: self.torch.tensor(a, device=where).double() for k, a in batch.items()}
        found: Losses = self.theirs("nchw", self.torch.float64).step(tensors)
        return found

    def check(self, name: str, losses: Losses) -> None:
        """Keep the losses of a side's first step, if they are right."""
        self.losses[name] = losses
        if self.exact is not None and not error(losses, self.exact) < AGREE:
            raise LossesDiffer(f"{self.net.name}: {name} has {losses}, float64 {self.exact}")

    def facts(self) -> dict[str, Any]:
        found: dict[str, Any] = {"family": self.net.name.split()[0], "losses": self.losses}
        found |= {"gflop": self.count.flops / 1e9, "floor_ms": self.count.floor * 1e3}
        if self.exact is not None:
            exact = self.exact
            found["error"] = {name: error(losses, exact) for name, losses in self.losses.items()}
        return found


def error(losses: Losses, exact: Losses) -> float:
    """The largest relative difference."""
    return max(abs(losses[k] - exact[k]) / max(abs(exact[k]), 1e-3) for k in exact)


# Our side ----------------------------------------------------------------------------------------


def our_sides(step: Both) -> tuple[list[Contender], dict[str, str]]:
    """Our step as it is and recorded; what could not be done, and why."""
    game, skipped = step.ours(), {}
    with autograd.hook(step.count):
        step.check("minigan", game.step(step.batch))
        step.count.adam(p.data for p in game.parameters)
    sides = [Contender("minigan", lambda i: game.play(step.batch))]
    try:
        again = recorded(step.ours(), step)
        step.check("minigan recorded", {k: float(v.item()) for k, v in again(0).items()})
        again(0)
        again(0)  # now it is recorded
        sides.append(Contender("minigan recorded", again))
    except Exception as problem:
        skipped["minigan recorded"] = f"{type(problem).__name__}: {problem}"[:300]
    return sides, skipped


def recorded(game: Any, step: Both) -> Callable[[int], Any]:
    """Our step as a CUDA graph. This is the one place that knows how a step is recorded."""
    from minigan_kernels.cuda.step_graph import StepGraph

    from minigan.training.recorded import state_at_home

    graph = StepGraph(step.bench.backend.kernels.device)

    def play() -> Any:
        with state_at_home(game.networks.values()):
            return game.play(step.batch)

    return lambda i: graph.run(play)


# PyTorch's ---------------------------------------------------------------------------------------


def their_sides(step: Both) -> tuple[list[Contender], dict[str, str]]:
    """Eager in both orders of memory, and as a CUDA graph; what could not be done, and why."""
    sides, skipped = [], {}
    for layout in torchside.layouts():
        other = step.theirs(layout)
        call = eager(step, other, layout)
        step.check(f"torch {layout}", {k: float(v) for k, v in call(0).items()})
        sides.append(Contender(f"torch {layout}", call))
    if step.torch is None:
        skipped["torch"] = "PyTorch is not installed"
    elif not step.bench.on_gpu:
        skipped["torch graph"] = "not on a GPU"
    else:
        try:
            with at_most(30):
                sides.append(Contender("torch graph", captured(step)))
        except Exception as problem:
            skipped["torch graph"] = f"{type(problem).__name__}: {problem}"[:300]
    return sides, skipped


def eager(step: Both, other: Any, layout: str) -> Callable[[int], Any]:
    given, torch = step.tensors(layout), step.torch

    def call(i: int) -> Any:
        torch.backends.cudnn.allow_tf32 = True
        torch.backends.cudnn.benchmark = layout == "channels_last"
        return other.play(given)

    return call


def captured(step: Both) -> Callable[[int], Any]:
    """PyTorch's whole step in a CUDA graph, as its documentation does it."""
    torch, other = step.torch, step.theirs("channels_last")
    call = eager(step, other, "channels_last")
    side = torch.cuda.Stream()
    side.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(side):
        step.check("torch graph", {k: float(v) for k, v in call(0).items()})
        for _ in range(3):
            call(0)
    torch.cuda.current_stream().wait_stream(side)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        call(0)
    return lambda i: graph.replay()
