"""From seven loops to the fastest path: one convolution, rung by rung, against PyTorch.

The layer is a residual block of CycleGAN at 128 pixels: 256 channels of 32x32 (34x34 with its
border), 3x3, stride 1, float32, 1.2e9 floating-point operations. kernels/README.md explains every
rung and shows this table.

    python -m benchmarks.ladder [--json | --write]
"""

from __future__ import annotations

import argparse
import datetime
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numba
import numpy as np
from minigan_kernels.cpu import conv_plain, direct, parallel, winograd
from minigan_kernels.cpu.scratch import aligned
from minigan_kernels.cpu.threads import threads

from benchmarks import machine, ourside, torchside
from benchmarks.timing import Side, alternate, quartiles

CHANNELS, SIDE, K = 256, 34, 3
OUT = SIDE - K + 1
OPERATIONS = 2 * (CHANNELS * OUT * K) ** 2
ONES = (1, 1), (0, 0), (1, 1)  # stride, padding, dilation
README = Path(__file__).parent.parent / "kernels" / "README.md"
BEGIN, END = "<!-- ladder: begin -->", "<!-- ladder: end -->"

Array = Any


def seven_loops(x: Array, w: Array, y: Array) -> None:
    """The definition, channels first: x (N,C,H,W), w (O,C,k,k), y (N,O,H',W')."""
    for n in range(y.shape[0]):
        for o in range(y.shape[1]):
            for i in range(y.shape[2]):
                for j in range(y.shape[3]):
                    total = np.float32(0)
                    for c in range(x.shape[1]):
                        for p in range(w.shape[2]):
                            for q in range(w.shape[3]):
                                total += x[n, c, i + p, j + q] * w[o, c, p, q]
                    y[n, o, i, j] = total


def channels_last(x: Array, w: Array, y: Array) -> None:
    """The same, channels innermost in memory: x (N,H,W,C), w (k,k,C,O), y (N,H',W',O)."""
    for n in range(y.shape[0]):
        for i in range(y.shape[1]):
            for j in range(y.shape[2]):
                pixel = y[n, i, j]
                pixel[:] = 0
                for p in range(w.shape[0]):
                    for q in range(w.shape[1]):
                        for c in range(x.shape[3]):
                            v = x[n, i + p, j + q, c]
                            row = w[p, q, c]
                            for o in range(pixel.size):
                                pixel[o] += v * row[o]


def im2col(x: Array, w: Array, y: Array) -> None:
    """Copy every window into a row of one matrix and multiply: x (N,H,W,C), w (k*k*C, O)."""
    windows = np.lib.stride_tricks.sliding_window_view(x, (K, K), axis=(1, 2))
    rows = windows.transpose(0, 1, 2, 4, 5, 3).reshape(-1, K * K * x.shape[3])
    np.matmul(rows, w, out=y.reshape(-1, w.shape[1]))


def one_thread(call: Callable[[], Any]) -> Callable[[], Any]:
    """The same call with our parallel loop restricted to the calling thread."""

    def alone() -> None:
        before = parallel.threads
        parallel.threads = lambda: 1
        try:
            call()
        finally:
            parallel.threads = before

    return alone


def rungs() -> list[tuple[str, Callable[[], Any], float]]:
    """(name, call, share of the layer that the call computes), from the definition upwards."""
    rng = np.random.default_rng(0)
    last = aligned((1, SIDE, SIDE, CHANNELS))
    last[...] = rng.standard_normal(last.shape)
    weight = aligned((CHANNELS, K, K, CHANNELS))
    weight[...] = 0.05 * rng.standard_normal(weight.shape)
    y = aligned((1, OUT, OUT, CHANNELS))
    first, taps = np.ascontiguousarray(last.transpose(0, 3, 1, 2)), weight.transpose(0, 3, 1, 2)
    first_taps, y_first = np.ascontiguousarray(taps), np.empty((1, CHANNELS, OUT, OUT), np.float32)
    matrix = np.ascontiguousarray(weight.transpose(1, 2, 3, 0))
    loops, lines = (numba.njit(error_model="numpy")(f) for f in (seven_loops, channels_last))
    pixels = first, first_taps, y_first[:, :1, :1, :8]
    two = direct.forward, winograd.forward
    plain_direct, plain_winograd = (lambda f=f: f(last, weight, y, *ONES) for f in two)
    return [
        ("seven loops, Python", lambda: seven_loops(*pixels), 8 / y.size),
        ("seven loops, Numba", lambda: loops(first, first_taps, y_first), 1),
        ("channels last, Numba", lambda: lines(last, matrix, y), 1),
        ("im2col and BLAS", lambda: im2col(last, matrix.reshape(-1, CHANNELS), y), 1),
        (
            "panels in the cache and BLAS",
            lambda: conv_plain.conv(last.transpose(0, 3, 1, 2), taps, *ONES, 1),
            1,
        ),
        ("register tiles (direct)", one_thread(plain_direct), 1),
        (f"the same, {threads()} threads", plain_direct, 1),
        (f"Winograd, {threads()} threads", plain_winograd, 1),
    ]


def against() -> Side | None:
    """PyTorch with the same threads, channels last (its faster layout here)."""
    library = torchside.torch()
    if library is None:
        return None
    x = library.randn(1, CHANNELS, SIDE, SIDE).to(memory_format=library.channels_last)
    w = library.randn(CHANNELS, CHANNELS, K, K).to(memory_format=library.channels_last)
    conv = library.nn.functional.conv2d
    return Side("torch", lambda _: conv(x, w), wake=torchside.wake)


def measure() -> list[dict[str, Any]]:
    """One row for each rung: milliseconds, GFLOP/s, ratio to PyTorch if it is there."""
    torch = against()
    rows: list[dict[str, Any]] = []
    theirs = []
    for name, call, share in rungs():
        call()
        ours = Side(name, lambda _, call=call: call(), wake=ourside.wake)
        times = alternate([ours, torch] if torch else [ours], seconds=2)
        ms = quartiles(times[name])["median"] * 1e3 / share
        theirs += times.get("torch", [])
        rows.append({"rung": name, "ms": ms, "gflops": OPERATIONS / ms / 1e6})
    torch_ms = quartiles(theirs)["median"] * 1e3 if theirs else None
    return [
        row | {"torch_ms": torch_ms, "ratio": torch_ms and torch_ms / row["ms"]} for row in rows
    ]


def table(rows: list[dict[str, Any]]) -> str:
    """The rows in Markdown, with machine and date."""
    facts = machine.facts()
    lines = [
        f"{facts['processor']}, {facts['simd']}, PyTorch with {facts['threads']} threads, "
        f"{datetime.date.today()}",
        "",
        "| rung | ms | GFLOP/s | PyTorch's time / ours |",
        "|---|---|---|---|",
    ]
    for row in rows:
        ratio = "-" if row["ratio"] is None else f"{row['ratio']:.2g}"
        lines.append(f"| {row['rung']} | {row['ms']:.3g} | {row['gflops']:.3g} | {ratio} |")
    return "\n".join(lines)


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--write", action="store_true", help=f"rewrite the table in {README.name}")
    options = parser.parse_args()
    rows = measure()
    print(json.dumps({"ladder": rows}) if options.json else table(rows))
    if options.write:
        before, _, rest = README.read_text().partition(BEGIN)
        README.write_text(f"{before}{BEGIN}\n{table(rows)}\n{END}{rest.partition(END)[2]}")


if __name__ == "__main__":
    main()
