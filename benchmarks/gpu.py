"""`python -m benchmarks gpu`: all that a machine with an NVIDIA GPU can tell, in one command.

    facts        the device, its driver, bandwidth, what a launch costs
    kernels      compiles all kernels, so that the first run of one is not slow
    conformance  every kernel against its twin on the CPU (`gpu_conformance.py`)
    tests        the tests of kernels, operations and steps with this device
    sanitizer    compute-sanitizer over small calls of every kernel, where it is installed
    layers       convolutions beside cuDNN, TF32 and float32-accurate (`gpu_layers.py`)
    ops          norms, activations, resampling, losses, attention, optimizers (`gpu_ops.py`)
    steps        whole training steps, eager and recorded, beside PyTorch's (`gpu_steps.py`)
    compile      the same beside torch.compile

It takes 25 minutes, `--quick` 5. On a GPU every section is a process of its own, with its share of
the time: what one leaves over the next may use, and one that dies or hangs costs only itself. After
every entry benchmarks/results/NAME.json and NAME.md are written, so a run that is killed keeps what
it has; NAME is the GPU's unless `--save` says otherwise.
"""

from __future__ import annotations

import datetime
import gc
import json
import shutil
import subprocess
import sys
import time
from collections.abc import Callable
from typing import Any

import numpy as np
from minigan_kernels.cuda.launch_error import is_fatal

from benchmarks.gpu_report import document, line
from benchmarks.gpu_timing import Clock, Limits, at_most, host_microseconds
from benchmarks.results import FOLDER, rounded, write
from minigan.cuda import load_cupy
from minigan.errors import ResourceError

BUDGETS = {  # seconds, and of `--quick`
    "facts": (30, 20),
    "kernels": (40, 20),
    "conformance": (60, 25),
    "tests": (280, 60),
    "sanitizer": (110, 0),
    "layers": (330, 70),
    "ops": (210, 45),
    "steps": (210, 60),
    "compile": (230, 0),
}
ENTRY = 45  # seconds for one entry, at most
STARTING = 45  # seconds that a process may take to begin and to end
DEAD = 75  # exit status of a process whose GPU serves it no more
ATTEMPTS = 4  # processes for one section


class Bench:
    """One run: the device, PyTorch, and what was measured so far.

    Parameters
    ----------
    options : quick, device, save.
    section : that is measured now.
    seconds : for it.
    """

    def __init__(self, options: Any, section: str, seconds: float) -> None:
        from minigan.backend import find

        self.options, self.section, self.quick = options, section, options.quick
        self.backend = find(options.device)
        self.on_gpu = self.backend.name.startswith("cuda")
        self.where = self.backend.name if self.on_gpu else "cpu"  # PyTorch's
        self.small = self.quick or not self.on_gpu
        self.end = time.monotonic() + seconds
        self.data = read(options.save)
        self.done = {*self.data.get(section, {}), *self.data.get("failed", {}).get(section, {})}

    def left(self) -> float:
        """Seconds that the section still has."""
        return self.end - time.monotonic()

    @property
    def limits(self) -> Limits:
        """What this GPU can do, as measured, or an H200 if that is not known."""
        found = self.data.get("facts", {})
        known = {"tensor": found.get("TF32 TFLOP/s"), "memory": found.get("copy TB/s")}
        return Limits(**{key: value * 1e12 for key, value in known.items() if value})

    def save(self) -> None:
        save(self.options.save, self.data)

    def say(self, text: str) -> None:
        print(text, file=sys.stderr, flush=True)

    def skip(self, section: str, why: str) -> None:
        """Say why a section was not measured."""
        self.data.setdefault("skipped", {})[section] = why
        self.say(f"{section}: {why}")
        self.save()

    def add(
        self, section: str, name: str, measure: Callable[[], dict[str, Any]], most: float = ENTRY
    ) -> None:
        """Measure an entry that is not there yet, unless time is up; a failure is written down."""
        if name in self.done:
            return
        if self.left() < 1:
            self.data.setdefault("left out", {}).setdefault(section, []).append(name)
            return
        self.data["at work on"] = name
        self.save()
        try:
            with at_most(min(most, self.left())):
                self.data.setdefault(section, {})[name] = measure()
            self.say(f"{section} {name}: {line(self.data[section][name])}")
        except Exception as problem:
            self.fail(section, name, f"{type(problem).__name__}: {problem}"[:600])
            if is_fatal(problem):
                raise SystemExit(DEAD) from problem
        finally:
            self.data.pop("at work on", None)
            self.save()
            self.tidy()

    def tidy(self) -> None:
        """Give back the memory of the entry."""
        gc.collect()
        if self.on_gpu:
            self.backend.xp.get_default_memory_pool().free_all_blocks()
            if "torch" in sys.modules:
                sys.modules["torch"].cuda.empty_cache()

    def fail(self, section: str, name: str, why: str) -> None:
        self.data.setdefault("failed", {}).setdefault(section, {})[name] = why
        self.say(f"{section} {name} FAILED {why}")


def measure(options: Any) -> int:
    """Measure the chosen sections; the exit status is 1 if a test or a measurement failed."""
    if options.inside:
        run_section(options, options.inside, options.seconds)
        return 0
    on_gpu = options.device.startswith("cuda")
    chosen = options.only.split(",") if options.only else list(BUDGETS)
    if on_gpu:
        try:
            load_cupy()
        except ResourceError as error:
            print(error, file=sys.stderr)
            return 2
        options.save = options.save or gpu_name()
    if not options.only:
        save(options.save, {})
    save(options.save, read(options.save) | {"date": datetime.date.today().isoformat()})
    end = time.monotonic()
    for section in chosen:
        full, short = BUDGETS[section]
        budget = full if options.only or not options.quick else short
        end += budget
        seconds = end - time.monotonic()
        forget(options.save, section)
        if budget and seconds > 1:
            (in_processes if on_gpu else run_section)(options, section, seconds)
        else:
            data = read(options.save)
            data.setdefault("skipped", {})[section] = "no time" if budget else "--quick"
            save(options.save, data)
    data = read(options.save)
    print(document(options.save, data))
    measured = (e for section in ("conformance", "layers") for e in data.get(section, {}).values())
    bad = any(e["faults"] for e in measured)
    return int(bad or bool(data.get("failed")) or data.get("tests", {}).get("status", 0) != 0)


def in_processes(options: Any, section: str, seconds: float) -> None:
    """Measure a section in a process of its own; where that dies, in another one for the rest."""
    end = time.monotonic() + seconds
    command = [sys.executable, "-m", "benchmarks", "gpu", "--inside", section]
    command += ["--device", options.device, "--save", options.save]
    command += ["--quick"] if options.quick else []
    for _ in range(ATTEMPTS):
        left = end - time.monotonic()
        if left < 1:
            return
        try:
            status = subprocess.run(
                [*command, "--seconds", f"{left:.0f}"], timeout=left + STARTING
            ).returncode
        except subprocess.TimeoutExpired:
            status = -1
        data = read(options.save)
        if "at work on" in data:  # it did not live to say what happened
            why = "did not end in time" if status == -1 else f"the process died, status {status}"
            name = data.pop("at work on")
            data.setdefault("failed", {}).setdefault(section, {})[name] = why
            save(options.save, data)
        elif status not in (0, DEAD):
            data.setdefault("failed", {}).setdefault(section, {})["start"] = f"status {status}"
            save(options.save, data)
            return
        if status == 0:
            return


def run_section(options: Any, section: str, seconds: float) -> None:
    """Measure a section in this process."""
    from benchmarks import gpu_checks, gpu_conformance, gpu_layers, gpu_ops, gpu_steps

    work: dict[str, Callable[[Bench], None]] = {
        "facts": facts,
        "kernels": gpu_checks.kernels,
        "conformance": gpu_conformance.measure,
        "tests": gpu_checks.tests,
        "sanitizer": gpu_checks.sanitizer,
        "layers": gpu_layers.measure,
        "ops": gpu_ops.measure,
        "steps": gpu_steps.measure,
        "compile": gpu_steps.measure_compiled,
    }
    bench = Bench(options, section, seconds)
    work[section](bench)
    bench.save()


def facts(bench: Bench) -> None:
    """What device this is, and what it costs to use it."""
    from benchmarks import torchside

    xp, kernels, torch = bench.backend.xp, bench.backend.kernels, torchside.torch()
    found: dict[str, Any] = {"python": sys.version.split()[0], "numpy": np.__version__}
    found["torch"] = torch.__version__ if torch else "not installed"
    x = bench.backend.upload(np.zeros(256, np.float32))
    wait = (lambda: xp.cuda.Device().synchronize()) if bench.on_gpu else (lambda: None)
    found["launch us"] = host_microseconds(
        lambda: kernels.tanh(x), wait, 2000 if bench.on_gpu else 10
    )
    if bench.on_gpu:
        properties = xp.cuda.runtime.getDeviceProperties(xp.cuda.runtime.getDevice())
        found["device"] = properties["name"].decode()
        found["multiprocessors"] = properties["multiProcessorCount"]
        found["driver"] = xp.cuda.runtime.driverGetVersion()
        found["cupy"] = xp.__version__
        found["architecture"] = kernels.device.loader.architecture
        big = xp.zeros(1 << 28, xp.float32)
        other = xp.empty_like(big)
        seconds = best_of(Clock(xp), lambda i: xp.copyto(other, big))
        found["copy TB/s"] = 2 * big.nbytes / seconds / 1e12
        if torch:
            torch.backends.cuda.matmul.allow_tf32 = True
            a = torch.randn(8192, 8192, device=bench.where)
            seconds = best_of(Clock(xp), lambda i: a @ a)
            torch.backends.cuda.matmul.allow_tf32 = False
            found["TF32 TFLOP/s"] = 2 * 8192**3 / seconds / 1e12
    bench.data["facts"] = found
    bench.say(str(found))


def best_of(clock: Clock, call: Callable[[int], Any]) -> float:
    """Seconds of a call, the best of five turns of five."""
    clock.seconds(call, 0, 5, 1)
    return min(clock.seconds(call, 0, 5, 1) / 5 for _ in range(5))


# Files -----------------------------------------------------------------------------------------

_MEMORY: dict[str, Any] = {}  # of a run without a name


def read(name: str | None) -> dict[str, Any]:
    """What was measured under a name so far."""
    if name is None:
        return _MEMORY
    path = FOLDER / f"{name}.json"
    found: dict[str, Any] = json.loads(path.read_text()) if path.exists() else {}
    return found


def save(name: str | None, data: dict[str, Any]) -> None:
    """Replace both files of a name."""
    if name is None:
        if data is not _MEMORY:
            kept = dict(data)
            _MEMORY.clear()
            _MEMORY.update(kept)
        return
    FOLDER.mkdir(exist_ok=True)
    write(FOLDER / f"{name}.json", json.dumps(rounded(data), indent=1) + "\n")
    write(FOLDER / f"{name}.md", document(name, data))


def forget(name: str | None, section: str) -> None:
    """Remove what an earlier run has measured in a section."""
    data = read(name)
    data.pop(section, None)
    for kind in ("failed", "left out", "skipped"):
        data.get(kind, {}).pop(section, None)
    save(name, data)


def gpu_name() -> str:
    """The name of the first GPU, such as "nvidia-h200", as nvidia-smi tells it."""
    if shutil.which("nvidia-smi"):
        command = ["nvidia-smi", "--query-gpu=name", "--format=csv,noheader"]
        said = subprocess.run(command, capture_output=True, text=True).stdout.splitlines()
        if said:
            return "-".join(said[0].lower().split())
    return "gpu"
