"""Peak memory: of the training steps of `steps.py`, and the working memory of single layers.

Steps: each side in a fresh process, which first plays a step of a tiny network of the same kind, so
that everything is imported, compiled and started; from there the growth of its resident memory is
measured to the peak of two steps. Weights, and the two numbers that Adam keeps per weight, are the
same on both sides and are also given by themselves: what remains is activations, gradients and
working memory.

Layers: a forked process per layer and side; what a call needs at its peak beyond its inputs and its
result, in megabytes.

Needs Linux: /proc/self/status and, to start a new peak, /proc/self/clear_refs.

    python -m benchmarks.memory step cyclegan128 minigan      one figure, as JSON
    python -m benchmarks.memory workspace "torch nchw" "cyc.res32 N1"
"""

from __future__ import annotations

import ctypes
import datetime
import gc
import json
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import torchside
from benchmarks.cases import words
from benchmarks.layers import DIRECTIONS, Layer, layers, ours, theirs
from benchmarks.results import Results
from benchmarks.steps import adams, nets

MB = 1e6
SIDES = ("minigan", "torch nchw", "torch channels_last")
STEPS = ("dcgan28 w64", "dcgan64", "cyclegan128", "spade128")
LAYERS = (
    "mnist.g2 N64",
    "mnist.d2 N64",
    "dc64.g2 N16",
    "dc64.d2 N16",
    "dc64.d2 N64",
    "cyc.c7 N1",
    "cyc.res32 N1",
    "cyc.res64 N4",
    "cyc.u2 N1",
    "spade.8 N1",
    "sty.32 N4",
    "p1.128 N4",
)


def resident() -> float:
    """Bytes of this process in memory now."""
    return _status("VmRSS")


def peak() -> float:
    """The most bytes that it had in memory since `new_peak`."""
    return _status("VmHWM")


def _status(name: str) -> float:
    for line in Path("/proc/self/status").read_text().splitlines():
        if line.startswith(name):
            return 1024.0 * int(line.split()[1])
    raise OSError(f"no {name} in /proc/self/status")


def new_peak() -> None:
    """Let `peak` start from the present."""
    Path("/proc/self/clear_refs").write_text("5")


def settle() -> None:
    """Give back what is free."""
    gc.collect()
    ctypes.CDLL(None).malloc_trim(0)


# Steps -----------------------------------------------------------------------------------------


def step_memory(name: str, side: str) -> dict[str, float]:
    """Peak of two steps beyond a warm process, in megabytes."""
    small, big = ({n.name: n for n in nets(tiny)}[name] for tiny in (True, False))
    play(small, side)()
    settle()
    before = resident()
    step = play(big, side)
    new_peak()
    step()
    numbers = step()
    known = 3 * 4 * numbers
    return {
        "peak_mb": (peak() - before) / MB,
        "weights_and_adam_mb": known / MB,
        "rest_mb": (peak() - before - known) / MB,
    }


def play(net: Any, side: str) -> Callable[[], int]:
    """A function that plays a step of one side and returns the number of parameters."""
    batch = net.batch(np.random.default_rng(0))
    if side == "minigan":
        game = net.ours()

        def step() -> int:
            game.step(batch)
            return sum(p.size for p in game.parameters)

        return step
    layout = torchside.layouts()[side.removeprefix("torch ")]
    other = net.theirs(adams()["fused"])
    for network in other.networks.values():
        network.to(memory_format=layout)
    tensors = {key: torchside.tensor(array, layout) for key, array in batch.items()}

    def their_step() -> int:
        other.step(tensors)
        return sum(p.numel() for n in other.networks.values() for p in n.parameters())

    return their_step


# Layers ----------------------------------------------------------------------------------------


def workspaces(side: str, names: list[str]) -> dict[str, dict[str, float]]:
    """Working memory of layers in each direction; every layer in a process of its own."""
    if side != "minigan":
        torchside.torch()  # imported once; its threads start in the children only
    known = {layer.name: layer for layer in layers()}
    return {name: _in_child(partial(workspace, side, known[name])) for name in names}


def _in_child(work: Callable[[], Any]) -> Any:
    """What `work` returns when a forked process does it. No threads may have been started yet."""
    read, write = os.pipe()
    child = os.fork()
    if child == 0:
        try:
            os.write(write, json.dumps(work()).encode())
        finally:
            os._exit(0)
    os.close(write)
    with os.fdopen(read) as pipe:
        text = pipe.read()
    os.waitpid(child, 0)
    return json.loads(text) if text else {}


def workspace(side: str, layer: Layer) -> dict[str, float]:
    """Megabytes beyond inputs and result, by direction."""
    found = {}
    tiny = layer._replace(batch=1, size=min(layer.size, layer.kernel + 2))
    for direction in DIRECTIONS:
        _call(side, tiny, direction)  # loads the kernels and starts the threads
        found[direction] = _call(side, layer, direction)
    return found


def _call(side: str, layer: Layer, direction: str) -> float:
    """In a thread of its own, whose working memory goes when it ends."""
    found = []

    def work() -> None:
        rng = np.random.default_rng(0)
        given = {
            name: rng.standard_normal((shape[0], *shape[2:], shape[1]), np.float32)
            for name, shape in layer.shapes.items()
        }
        given = {name: np.moveaxis(a, -1, 1) for name, a in given.items()}
        if side == "minigan":
            compute = ours(layer, direction)
            call: Callable[[Any], Any] = lambda _: compute(**given)  # noqa: E731
        else:
            layout = torchside.layouts()[side.removeprefix("torch ")]
            call = theirs(layer, direction, given, layout)
            given.clear()
        settle()
        new_peak()
        before = resident()
        result = call(None)
        found.append((peak() - before - result.nbytes) / MB)

    thread = threading.Thread(target=work)
    thread.start()
    thread.join()
    return max(0.0, found[0])


# The section -----------------------------------------------------------------------------------


def names() -> list[str]:
    """Of all cases."""
    return [*(f"step {name}" for name in STEPS), *(f"workspace {name}" for name in LAYERS)]


def sides() -> list[str]:
    return list(SIDES) if torchside.torch() else ["minigan"]


def measure(options: Any, results: Results, seconds: float, say: Callable[[str], None]) -> None:
    """Measure the chosen steps and layers into `results`. The time is what it takes."""
    if not Path("/proc/self/clear_refs").exists():
        say("memory: needs Linux")
        return
    chosen = [name for name in names() if words(options.only, name)]
    for name in chosen:
        kind, _, what = name.partition(" ")
        if kind != "step":
            continue
        found = {side: _child("step", what, side) for side in sides()}
        _keep(results, name, {"step": {s: f["peak_mb"] for s, f in found.items()}}, say, found)
    few = [name.removeprefix("workspace ") for name in chosen if name.startswith("workspace")]
    by_side = {side: _child("workspace", side, *few) for side in sides()} if few else {}
    for layer in few:
        megabytes = {
            direction: {side: figures[layer].get(direction) for side, figures in by_side.items()}
            for direction in DIRECTIONS
        }
        _keep(results, f"workspace {layer}", megabytes, say)


def _keep(
    results: Results,
    name: str,
    megabytes: dict[str, dict[str, float]],
    say: Callable[[str], None],
    detail: dict[str, Any] | None = None,
) -> None:
    entry: dict[str, Any] = {
        "family": name.split()[0],
        "mb": megabytes,
        "date": datetime.date.today().isoformat(),
    }
    if detail:
        entry["detail"] = detail
    results.add("memory", name, entry)
    text = ", ".join(
        f"{direction} " + " : ".join(f"{mb:.1f}" for mb in by_side.values())
        for direction, by_side in megabytes.items()
    )
    say(f"{name:<28} MB of {' : '.join(next(iter(megabytes.values())))}   {text}")


def _child(*arguments: str) -> dict[str, Any]:
    """Run this module in a fresh process."""
    done = subprocess.run(
        [sys.executable, "-m", "benchmarks.memory", *arguments],
        capture_output=True,
        text=True,
        check=False,
    )
    if done.returncode:
        raise RuntimeError(f"memory {' '.join(arguments)}: {done.stderr.strip()[-500:]}")
    result: dict[str, Any] = json.loads(done.stdout.splitlines()[-1])
    return result


if __name__ == "__main__":
    kind, *rest = sys.argv[1:]
    if kind == "step":
        print(json.dumps(step_memory(*rest)))
    else:
        print(json.dumps(workspaces(rest[0], rest[1:])))
