"""What runs in processes of its own on a GPU: the compiler, the tests, and compute-sanitizer."""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import time
from concurrent.futures import ProcessPoolExecutor
from multiprocessing import get_context
from pathlib import Path
from typing import Any

from minigan_kernels.cuda import check, cubins
from minigan_kernels.cuda.sources import Source

ROOT = Path(__file__).resolve().parent.parent
TOOLS = ("memcheck", "racecheck")


def kernels(bench: Any) -> None:
    """Compile all kernels for this GPU, on all cores: what follows finds them in the cache."""
    if not bench.on_gpu:
        bench.skip("kernels", "the emulated GPU has a compiler of its own")
        return
    architecture = bench.backend.kernels.device.loader.architecture
    wanted = [
        (source, group[0], architecture)
        for source in check.sources()
        if architecture in source.architectures
        for group in dict.fromkeys(map(source.together_with, source.instances))
    ]
    start = time.monotonic()
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        sizes = list(pool.map(_compiled, *zip(*wanted, strict=True)))
    seconds = time.monotonic() - start
    bench.data["kernels"] = {"cubins": len(sizes), "bytes": sum(sizes), "seconds": seconds}
    bench.say(str(bench.data["kernels"]))


def _compiled(source: Source, instance: str, architecture: str) -> int:
    return len(cubins.cubin(source, instance, architecture)[0])


def run(command: list[str], seconds: float, **environment: str) -> dict[str, Any]:
    """Exit status (-1: not done in time), seconds, and the end of what it printed."""
    start = time.monotonic()
    try:
        done = subprocess.run(
            command,
            cwd=ROOT,
            env={**os.environ, **environment},
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
            timeout=max(1.0, seconds),
        )
        status, text = done.returncode, done.stdout
    except subprocess.TimeoutExpired as late:
        said: Any = late.stdout or b""
        known = said if isinstance(said, str) else said.decode(errors="replace")
        status, text = -1, f"{known}\nnot done after {seconds:.0f} s"
    return {"status": status, "seconds": time.monotonic() - start, "tail": text[-6000:]}


def tests(bench: Any) -> None:
    """The tests of kernels and operations on this device."""
    files = sorted((ROOT / "tests").glob("test_cuda_*.py"))
    files += [ROOT / "tests" / f"test_device{name}.py" for name in ("s", "_steps", "_faults")]
    command = [sys.executable, "-m", "pytest", "-q", "--maxfail=20", "-p", "no:cacheprovider"]
    found = run([*command, *map(str, files)], bench.left(), MINIGAN_DEVICE=bench.options.device)
    bench.data["tests"] = found
    bench.say(found["tail"])


def sanitizer(bench: Any) -> None:
    """`gpu_conformance.py` with small arrays under compute-sanitizer: memory, then races."""
    program = find_sanitizer()
    if program is None or not bench.on_gpu:
        bench.skip("sanitizer", "compute-sanitizer was not found" if bench.on_gpu else "no GPU")
        return
    small = ["-m", "benchmarks.gpu_conformance", "--device", bench.options.device, "--small"]
    for i, tool in enumerate(TOOLS):
        options = ["--tool", tool, "--error-exitcode", "9"]
        share = bench.left() / (len(TOOLS) - i)
        raw = ["--raw"] if tool == "memcheck" else []
        found = run([program, *options, sys.executable, *small, *raw], share)
        summary = re.findall(r"(?:ERROR|RACECHECK) SUMMARY: .*", found["tail"])
        found["summary"] = summary[-1] if summary else found["tail"].strip().splitlines()[-1:]
        bench.data.setdefault("sanitizer", {})[tool] = found
        bench.say(f"{tool}: status {found['status']}, {found['summary']}")
        bench.save()


def find_sanitizer() -> str | None:
    """The program, on the path or in a CUDA toolkit."""
    roots = [os.environ.get(name) for name in ("CUDA_HOME", "CUDA_PATH")]
    folders = [Path(root) / "bin" for root in (*roots, "/usr/local/cuda") if root]
    places = os.pathsep.join(map(str, [os.environ.get("PATH", ""), *folders]))
    return shutil.which("compute-sanitizer", path=places)
