"""What one tiny operation costs, forward and backward, against PyTorch in the same process.

The chain y = tanh(y * w + b) over 16 float64 elements, 30 times: 90 operations that do next to
no arithmetic, so that the time is the engine's. Both engines take turns, on one thread, and the
medians of the thread's CPU time are compared: read the ratios, the microseconds depend on the
machine. Targets: at most 0.9 of PyTorch's time, at most 1.3 under create_graph.

    python -m benchmarks.op_overhead [--json] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable

import numpy as np

import minigan as mg

ELEMENTS, REPEATS = 16, 30
OPERATIONS = 3 * REPEATS
TARGETS = {"plain": 0.9, "create_graph": 1.3}

W, B, X = np.full(ELEMENTS, 0.9), np.full(ELEMENTS, 0.1), np.linspace(-1, 1, ELEMENTS)


def ours(create_graph: bool) -> Callable[[], None]:
    """One forward and backward pass of minigan."""
    w, b, x = mg.tensor(W, requires_grad=True), mg.tensor(B, requires_grad=True), mg.tensor(X)

    def run() -> None:
        y = x
        for _ in range(REPEATS):
            y = (y * w + b).tanh()
        if create_graph:
            mg.grad(y.sum(), [w, b], create_graph=True)
        else:
            y.sum().backward()

    return run


def torchs(create_graph: bool) -> Callable[[], None]:
    """The same in PyTorch."""
    import torch

    torch.set_num_threads(1)
    w = torch.tensor(W, requires_grad=True)
    b = torch.tensor(B, requires_grad=True)
    x = torch.tensor(X)

    def run() -> None:
        y = x
        for _ in range(REPEATS):
            y = torch.tanh(y * w + b)
        if create_graph:
            torch.autograd.grad(y.sum(), [w, b], create_graph=True)
        else:
            y.sum().backward()

    return run


def measure(runs: dict[str, Callable[[], None]], rounds: int) -> dict[str, float]:
    """Median microseconds per operation of each run; they take turns."""
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds):
        for name, run in runs.items():
            start = time.thread_time()
            run()
            times[name].append((time.thread_time() - start) / OPERATIONS * 1e6)
    warm = rounds // 10
    return {name: statistics.median(values[warm:]) for name, values in times.items()}


def compare(rounds: int) -> dict[str, dict[str, float]]:
    """Microseconds per operation and their ratio, without and with create_graph."""
    results: dict[str, dict[str, float]] = {}
    for mode in TARGETS:
        create_graph = mode == "create_graph"
        runs = {"minigan": ours(create_graph)}
        try:
            runs["torch"] = torchs(create_graph)
        except ImportError:
            pass
        results[mode] = measure(runs, rounds)
        if "torch" in runs:
            results[mode]["ratio"] = results[mode]["minigan"] / results[mode]["torch"]
            results[mode]["target"] = TARGETS[mode]
    return results


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=600, help="repetitions of each (default 600)")
    options = parser.parse_args()
    results = compare(options.rounds)
    if options.json:
        print(json.dumps({"op_overhead": results}))
        return
    print("microseconds per operation, forward and backward (median of thread CPU time)")
    for mode, row in results.items():
        line = f"  {mode:<13} minigan {row['minigan']:5.2f}"
        if "torch" in row:
            line += f"   torch {row['torch']:5.2f}   ratio {row['ratio']:.2f}"
            line += f"   (target: at most {row['target']})"
        print(line)


if __name__ == "__main__":
    main()
