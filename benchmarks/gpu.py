"""`python -m benchmarks gpu`: all that a machine with an NVIDIA GPU can tell, in one command.

    facts     the device, its driver, bandwidth, what a launch costs
    tests     the kernels and all operations with device cuda, as `pytest` runs them here
    layers    convolutions beside cuDNN (`gpu_layers.py`), TF32 and float32-accurate
    ops       norms, activations, resampling, losses, attention, optimizers beside PyTorch
    steps     whole training steps beside PyTorch, eager

It takes 25 minutes, `--quick` 5. Results: benchmarks/results/NAME.json and NAME.md.
"""

from __future__ import annotations

import datetime
import json
import os
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import numpy as np

from benchmarks import ourside, torchside
from benchmarks.gpu_timing import Clock, Contender, host_microseconds, race
from benchmarks.results import FOLDER, rounded, write
from benchmarks.tables import error, grid, number
from benchmarks.timing import geometric_mean, versus

ROOT = Path(__file__).resolve().parent.parent
SECTIONS = ("facts", "tests", "layers", "ops", "steps")
Entries = dict[str, Any]


class Bench:
    """One run: the device, PyTorch, and what was measured so far."""

    def __init__(self, options: Any) -> None:
        from minigan.backend import find

        self.options = options
        self.backend = find(options.device)
        self.where = "cuda" if self.backend.name.startswith("cuda") else "cpu"
        self.end = time.monotonic() + 60 * (5 if options.quick else 25)
        self.data: dict[str, Any] = {"date": datetime.date.today().isoformat()}

    @property
    def torch(self) -> Any:
        import torch

        return torch

    def save(self) -> None:
        name = self.options.save
        if name:
            FOLDER.mkdir(exist_ok=True)
            write(FOLDER / f"{name}.json", json.dumps(rounded(self.data), indent=1) + "\n")
            write(FOLDER / f"{name}.md", document(name, self.data))

    def add(self, section: str, name: str, measure: Callable[[], dict[str, Any]]) -> None:
        """Measure one entry, unless time is up; a failure is noted and does not end the others."""
        if time.monotonic() > self.end:
            self.data.setdefault("left out", []).append(f"{section}: {name}")
            return
        try:
            self.data.setdefault(section, {})[name] = measure()
            say(f"{section} {name}: {line(self.data[section][name])}")
        except Exception as problem:
            self.data.setdefault("failed", []).append(f"{section}: {name}: {problem!r}"[:500])
            say(f"{section} {name} FAILED {problem!r}")
        self.save()


def measure(options: Any) -> int:
    """Run the chosen sections; the exit status is 1 if a test or a measurement failed."""
    bench = Bench(options)
    for section in SECTIONS:
        if not options.only or section in options.only.split(","):
            globals()[section](bench)
            bench.save()
    print(document(options.save, bench.data))
    return int(bool(bench.data.get("failed")) or bench.data.get("tests", {}).get("status", 0) != 0)


def facts(bench: Bench) -> None:
    """What device this is, and what it costs to use it."""
    xp, found = bench.backend.xp, {}
    kernels = bench.backend.kernels
    x = bench.backend.upload(np.zeros(256, np.float32))
    wait = (lambda: xp.cuda.Device().synchronize()) if bench.where == "cuda" else (lambda: None)
    count = 2000 if bench.where == "cuda" else 10
    found["launch us"] = host_microseconds(lambda: kernels.tanh(x), wait, count)
    if bench.where == "cuda":
        properties = xp.cuda.runtime.getDeviceProperties(0)
        found["device"] = properties["name"].decode()
        found["multiprocessors"] = properties["multiProcessorCount"]
        found["driver"] = xp.cuda.runtime.driverGetVersion()
        found["cupy"] = xp.__version__
        big = xp.zeros(1 << 28, xp.float32)
        other = xp.empty_like(big)
        seconds = Clock(xp).seconds(lambda i: xp.copyto(other, big), 0, 5, 1) / 5
        found["copy TB/s"] = 2 * big.nbytes / seconds / 1e12
    found["torch"] = bench.torch.__version__
    found["python"] = sys.version.split()[0]
    bench.data["facts"] = found
    say(str(found))


def tests(bench: Bench) -> None:
    """The tests of kernels and operations on this device."""
    files = sorted(str(p) for p in (ROOT / "tests").glob("test_cuda_*.py"))
    command = [sys.executable, "-m", "pytest", "-q", "-x", "--maxfail=20", "-p", "no:cacheprovider"]
    command += [*files, str(ROOT / "tests" / "test_devices.py")]
    environment = {**os.environ, "MINIGAN_DEVICE": bench.options.device}
    limit = 120 if bench.options.quick else 420
    start = time.monotonic()
    try:
        done = subprocess.run(
            command, cwd=ROOT, env=environment, capture_output=True, text=True, timeout=limit
        )
        status, tail = done.returncode, done.stdout[-6000:] + done.stderr[-2000:]
    except subprocess.TimeoutExpired as late:
        status, tail = -1, f"not done after {limit} s\n{(late.stdout or b'')[-4000:]!r}"
    seconds = time.monotonic() - start
    bench.data["tests"] = {"status": status, "seconds": seconds, "tail": tail}
    say(tail)


def layers(bench: Bench) -> None:
    """Convolutions; `--quick` measures forward in TF32 only."""
    from benchmarks import gpu_layers

    for precision in ("tf32", "fp32"):
        for direction in gpu_layers.DIRECTIONS:
            if bench.options.quick and (precision, direction) != ("tf32", "forward"):
                continue
            for layer in gpu_layers.layers(small=bench.where != "cuda"):
                name = f"{layer.name} {direction} {precision}"
                how = bench.backend, bench.torch, bench.where, layer, direction, precision
                bench.add("layers", name, lambda how=how: gpu_layers.entry(*how))  # type: ignore[misc]


def ops(bench: Bench) -> None:
    """The operations of `op_list.py`, recorded and differentiated as a user calls them."""
    from benchmarks.op_list import ops as listed

    for op in listed():
        if bench.options.quick and "N1" in op.name:
            continue
        for backward in (False, True):
            name = f"{op.name} {'backward' if backward else 'forward'}"
            bench.add("ops", name, lambda op=op, b=backward: op_entry(bench, op, b))  # type: ignore[misc]


def op_entry(bench: Bench, op: Any, backward: bool) -> dict[str, Any]:
    """One direction of one operation."""
    import minigan as mg
    from minigan.nn import Module
    from minigan.tensor import Tensor

    rng, torch, where = np.random.default_rng(0), bench.torch, bench.where
    arrays = [rng.standard_normal(shape, np.float32) for shape in op.shapes]
    function = op.ours()
    own: list[Any] = []
    if isinstance(function, Module):
        own = list(function.to(bench.backend.name).parameters())
    inputs = [Tensor(bench.backend.upload(ourside.lying(a))) for a in arrays]
    for x in inputs:
        x.requires_grad = True
    g = rng.standard_normal(function(*inputs).shape, np.float32)
    cotangent = Tensor(bench.backend.upload(ourside.lying(g)))
    sides = [Contender("minigan", lambda i: function(*inputs))]
    if backward:
        sides = [
            Contender("minigan", lambda i: mg.grad(function(*inputs), [*inputs, *own], [cotangent]))
        ]
    for name, layout in torchside.layouts().items():
        if name != "nchw" and len(op.shapes[0]) != 4:
            continue
        sides.append(torch_side(torch, where, op, arrays, g, backward, name, layout))
    return versus(race(Clock(bench.backend.xp), sides)) | {"family": op.family}


def torch_side(
    torch: Any, where: str, op: Any, arrays: Any, g: Any, backward: bool, name: str, layout: Any
) -> Contender:
    """PyTorch's way; a timed backward pass contains its forward pass, on both sides."""
    function = op.theirs(torch)
    own = []
    if isinstance(function, torch.nn.Module):
        own = list(function.to(where).to(memory_format=layout).parameters())

    def tensor(a: Any) -> Any:
        made = torch.tensor(a, device=where)
        return made.to(memory_format=layout) if made.ndim == 4 else made

    inputs = [tensor(a).requires_grad_() for a in arrays]
    cotangent = tensor(g)

    def call(i: int) -> Any:
        y = function(*inputs)
        return torch.autograd.grad(y, inputs + own, cotangent) if backward else y

    return Contender(f"torch {name}", call)


def steps(bench: Bench) -> None:
    """Whole training steps of `steps.py`."""
    from benchmarks.steps import nets

    for net in nets(small=bench.where != "cuda"):
        bench.add("steps", net.name, lambda net=net: step_entry(bench, net))  # type: ignore[misc]


def step_entry(bench: Bench, net: Any) -> dict[str, Any]:
    """One training step, eager, beside PyTorch's; both must give the same losses at first."""
    import minigan as mg
    from benchmarks.steps import adams, load

    mg.manual_seed(0)
    torch, where = bench.torch, bench.where
    game = net.ours()
    batch = net.batch(np.random.default_rng(0))
    contenders, losses = [], {}
    for name, layout in torchside.layouts().items():
        other = net.theirs(adams()["fused"])
        load(other, game, layout)
        for network in other.networks.values():
            network.to(where)
        given = {k: torch.tensor(a, device=where) for k, a in batch.items()}
        losses[name] = other.step(given)
        contenders.append(Contender(f"torch {name}", lambda i, o=other, b=given: o.step(b)))  # type: ignore[misc]
    game.to(bench.backend.name)
    losses["minigan"] = game.step(batch)
    ours = Contender("minigan", lambda i: game.step(batch))
    return versus(race(Clock(bench.backend.xp), [ours, *contenders])) | {"losses": losses}


# What is shown ---------------------------------------------------------------------------------


def line(entry: dict[str, Any]) -> str:
    """An entry on one line."""
    ours = entry["ms"]["minigan"]["median"]
    text = f"{ours:.4f} ms, {entry['best']} {entry['ms'][entry['best']]['median']:.4f} ms, "
    text += f"ratio {entry['ratio']['median']:.2f}"
    if "floor_ms" in entry:
        text += f", reached {entry['floor_ms'] / ours:.2f}, error {entry['error']['minigan']:.0e}"
    return text


def document(name: str | None, data: dict[str, Any]) -> str:
    """All of it as Markdown."""
    lines = [f"# {name or 'GPU'}, {data['date']}", ""]
    lines += [f"- {key}: {value}" for key, value in data.get("facts", {}).items()]
    if "tests" in data:
        found = data["tests"]
        last = found["tail"].strip().splitlines()[-1:] or [""]
        lines += ["", f"Tests: status {found['status']}, {found['seconds']:.0f} s. {last[0]}"]
    lines += [f"- **Failed** {text}" for text in data.get("failed", [])]
    for section in ("layers", "ops", "steps"):
        if data.get(section):
            lines += ["", f"## {section}", "", *summary(data[section]), "", *table(data[section])]
    return "\n".join(lines) + "\n"


def groups(entries: Entries) -> Iterator[tuple[str, list[Any]]]:
    """Entries that belong together: by precision and direction, or by family."""
    keys: dict[str, list[Any]] = {}
    for entry in entries.values():
        key = f"{entry['direction']} {entry['precision']}" if "precision" in entry else ""
        keys.setdefault(key or entry.get("family", "all"), []).append(entry)
    yield from keys.items()


def summary(entries: Entries) -> list[str]:
    """Geometric means of PyTorch's time over ours."""
    names = sorted({name for e in entries.values() for name in e["ms"] if name != "minigan"})
    rows = []
    for key, members in groups(entries):
        means = []
        for name in names:
            found = [
                e["ms"][name]["median"] / e["ms"]["minigan"]["median"]
                for e in members
                if name in e["ms"]
            ]
            means.append(f"{geometric_mean(found):.2f}" if found else "-")
        rows.append([key, str(len(members)), *means])
    return grid(["PyTorch / minigan", "cases", *names], rows)


def table(entries: Entries) -> list[str]:
    """Every entry."""
    rows = []
    for name, e in entries.items():
        ours = e["ms"]["minigan"]["median"]
        row = [name, number(ours), number(e["ms"][e["best"]]["median"]), e["best"]]
        row += [f"{e['ratio']['median']:.2f}"]
        row += [f"{e['floor_ms'] / ours:.2f}" if "floor_ms" in e else "-"]
        row += [error(e["error"]["minigan"]) if "error" in e else "-"]
        rows.append(row)
    return grid(["case", "minigan ms", "PyTorch ms", "its best", "ratio", "reached", "error"], rows)


def say(text: str) -> None:
    print(text, file=sys.stderr, flush=True)
