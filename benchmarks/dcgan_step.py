"""One whole DCGAN training step against PyTorch, in turns in one process.

28-pixel networks of minigan/gans/dcgan.py, batch 64, float32, both players, Adam; PyTorch runs the
same networks with its default Adam and D frozen in G's turn. Both may use all cores. The step
needs 9.4 (width 64) or 2.5 (width 32) billion floating-point operations (benchmarks/README.md).

    python -m benchmarks.dcgan_step [--json] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import time
from collections.abc import Callable
from types import SimpleNamespace
from typing import Any

import numpy as np

import minigan as mg
from minigan import gans

NZ, BATCH = 100, 64


def ours(width: int, images: Any) -> Callable[[], None]:
    """One step through the engine, as the training loop plays it."""
    mg.manual_seed(0)
    game = gans.make("dcgan", width=width)
    batch = SimpleNamespace(images=images)

    def step() -> None:
        game.start(batch)
        for player in game.players:
            total = sum(player.losses().values(), start=mg.tensor(0.0))
            player.optimizer.step(mg.grad(total, player.parameters))

    return step


def torchs(width: int, images: Any) -> Callable[[], None]:
    """The same step in PyTorch."""
    import torch
    from torch import nn
    from torch.nn.functional import binary_cross_entropy_with_logits as bce

    up = {"kernel_size": 4, "stride": 2, "padding": 1, "bias": False}
    G = nn.Sequential(
        nn.ConvTranspose2d(NZ, 2 * width, 7, bias=False),
        nn.BatchNorm2d(2 * width),
        nn.ReLU(),
        nn.ConvTranspose2d(2 * width, width, **up),
        nn.BatchNorm2d(width),
        nn.ReLU(),
        nn.ConvTranspose2d(width, 1, **up),
        nn.Tanh(),
    )
    D = nn.Sequential(
        nn.Conv2d(1, width, **up),
        nn.LeakyReLU(0.2),
        nn.Conv2d(width, 2 * width, **up),
        nn.BatchNorm2d(2 * width),
        nn.LeakyReLU(0.2),
        nn.Conv2d(2 * width, 1, 7, bias=False),
        nn.Flatten(0),
    )
    opt_g = torch.optim.Adam(G.parameters(), 2e-4, (0.5, 0.999))
    opt_d = torch.optim.Adam(D.parameters(), 2e-4, (0.5, 0.999))
    x, one, zero = torch.tensor(images), torch.ones(BATCH), torch.zeros(BATCH)

    def step() -> None:
        fake = G(torch.randn(BATCH, NZ, 1, 1))
        opt_d.zero_grad()
        (bce(D(x), one) + bce(D(fake.detach()), zero)).backward()
        opt_d.step()
        D.requires_grad_(False)
        opt_g.zero_grad()
        bce(D(fake), one).backward()
        opt_g.step()
        D.requires_grad_(True)

    return step


def compare(width: int, rounds: int) -> dict[str, float]:
    """Median milliseconds of a step of each, and the median of the ratios of neighbours."""
    images = np.random.default_rng(0).uniform(-1, 1, (BATCH, 1, 28, 28)).astype(np.float32)
    runs = {"minigan": ours(width, images)}
    try:
        runs["torch"] = torchs(width, images)
    except ImportError:
        pass
    times: dict[str, list[float]] = {name: [] for name in runs}
    for _ in range(rounds + 2):
        for name, step in runs.items():
            step()  # untimed: the thread pool of the other engine goes to sleep
            start = time.perf_counter()
            step()
            times[name].append((time.perf_counter() - start) * 1e3)
    result = {name: statistics.median(values[2:]) for name, values in times.items()}
    if "torch" in runs:
        pairs = zip(times["torch"][2:], times["minigan"][2:], strict=True)
        result["torch_over_minigan"] = statistics.median(t / m for t, m in pairs)
    return result


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=20, help="timed steps of each (default 20)")
    options = parser.parse_args()
    results = {f"width {width}": compare(width, options.rounds) for width in (32, 64)}
    if options.json:
        print(json.dumps({"dcgan_step": results}))
        return
    print("milliseconds per DCGAN step, 28 pixels, batch 64 (median)")
    for name, row in results.items():
        line = f"  {name:<10} minigan {row['minigan']:7.1f}"
        if "torch" in row:
            line += (
                f"   torch {row['torch']:7.1f}   torch / minigan {row['torch_over_minigan']:.2f}"
            )
        print(line)


if __name__ == "__main__":
    main()
