"""What is not arithmetic: the graph's own time, import, compilation.

    tiny operation             forward and backward of operations on 16 numbers (op_overhead.py)
    tiny operation, graph      the same under create_graph
    compile cold, cached       what compilation adds to the first training step, without and with
                               compiled kernels on the disk (compile_time.py)
    import ...                 in a fresh interpreter, beyond NumPy (import_time.py)

Each is also a program: `python -m benchmarks.op_overhead --help`.
"""

from __future__ import annotations

import datetime
import json
import subprocess
import sys
from collections.abc import Callable
from typing import Any

from benchmarks.cases import words
from benchmarks.results import Results

PARTS = {
    "op_overhead": ("tiny operation", "tiny operation, graph"),
    "compile_time": ("compile cold", "compile cached"),
    "import_time": ("import minigan", "import minigan.functional", "import minigan.nn"),
}
UNIT = {"op_overhead": "us", "compile_time": "s", "import_time": "s"}


def names() -> list[str]:
    """Of all figures."""
    return [name for part in PARTS.values() for name in part]


def measure(options: Any, results: Results, seconds: float, say: Callable[[str], None]) -> None:
    """Measure the chosen figures into `results`. The time is what it takes."""
    for part, figures in PARTS.items():
        if not any(words(options.only, name) for name in figures):
            continue
        try:
            rows = entries(part, child(part))
        except (RuntimeError, ValueError) as error:
            results.fail("overhead", part, error)
            say(f"{part}  FAILED {error}")
            continue
        for name, entry in zip(figures, rows, strict=True):
            if not words(options.only, name):
                continue
            entry |= {"family": part, "date": datetime.date.today().isoformat()}
            results.add("overhead", name, entry)
            text = f"{name:<28} {entry['minigan']:.3g} {entry['unit']}"
            if "torch" in entry:
                text += f"  torch {entry['torch']:.3g} {entry['unit']}"
                text += f"  torch / minigan {entry['ratio']:.2f}"
            say(text)


def child(part: str) -> dict[str, Any]:
    """The JSON object that a program of this folder prints."""
    command = [sys.executable, "-m", f"benchmarks.{part}", "--json"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        raise RuntimeError(done.stderr.strip()[-500:])
    result: dict[str, Any] = json.loads(done.stdout)[part]
    return result


def entries(part: str, found: dict[str, Any]) -> list[dict[str, Any]]:
    """One entry per figure, in the order of PARTS."""
    rows = []
    for value in found.values():
        ours = value["minigan"] if isinstance(value, dict) else value
        entry = {"minigan": ours, "unit": UNIT[part]}
        if isinstance(value, dict) and "torch" in value:
            entry |= {"torch": value["torch"], "ratio": value["torch"] / ours}
        rows.append(entry)
    return rows
