"""Run all benchmarks, write benchmarks/results/NAME.json and print README's table.

python -m benchmarks.record NAME
"""

from __future__ import annotations

import argparse
import datetime
import json
import os
import platform
import subprocess
import sys
from pathlib import Path
from typing import Any

BENCHMARKS = ("op_overhead", "dcgan_step", "compile_time", "import_time")
RESULTS = Path(__file__).parent / "results"


def machine() -> dict[str, Any]:
    import numpy

    model = platform.processor()
    cpuinfo = Path("/proc/cpuinfo")
    if cpuinfo.exists():
        lines = [x for x in cpuinfo.read_text().splitlines() if x.startswith("model name")]
        model = lines[0].split(":")[1].strip() if lines else model
    versions = {"python": platform.python_version(), "numpy": numpy.__version__}
    try:
        import torch

        versions["torch"] = torch.__version__
    except ImportError:
        pass
    return {"processor": model, "cores": os.cpu_count(), **versions}


def run(name: str) -> dict[str, Any]:
    command = [sys.executable, "-m", f"benchmarks.{name}", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=True)
    result: dict[str, Any] = json.loads(done.stdout)
    return result


def table(results: dict[str, Any]) -> str:
    """The rows of README, one measurement a line."""
    rows = ["| what | minigan | PyTorch | PyTorch / minigan |", "|---|---|---|---|"]

    def add(what: str, ours: float, theirs: float | None, unit: str) -> None:
        other = "-" if theirs is None else f"{theirs:.3g} {unit}"
        ratio = "-" if theirs is None else f"{theirs / ours:.2f}"
        rows.append(f"| {what} | {ours:.3g} {unit} | {other} | {ratio} |")

    for mode, row in results["op_overhead"].items():
        what = f"tiny operation, forward and backward ({mode.replace('_', ' ')})"
        add(what, row["minigan"], row.get("torch"), "us")
    for name, row in results["dcgan_step"].items():
        add(f"DCGAN step, 28 px, batch 64, {name}", row["minigan"], row.get("torch"), "ms")
    add("compilation in the main job, first time", results["compile_time"]["cold"], None, "s")
    add("the same from the cache", results["compile_time"]["warm"], None, "s")
    add("`import minigan` beyond NumPy", results["import_time"]["minigan"], None, "s")
    return "\n".join(rows)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("name", help="of the results file, such as cpu-2-cores")
    options = parser.parse_args()
    results: dict[str, Any] = {"date": datetime.date.today().isoformat(), "machine": machine()}
    for name in BENCHMARKS:
        print(f"running {name} ...", file=sys.stderr, flush=True)
        results |= run(name)
    path = RESULTS / f"{options.name}.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps(results, indent=2) + "\n")
    print(table(results))


if __name__ == "__main__":
    main()
