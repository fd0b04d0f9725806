"""What Numba's compilation adds to the main job: cold (no cache) and warm, in new processes.

Targets: 20 s cold, 1 s warm. The first DCGAN step and preview are timed against the second.

    python -m benchmarks.compile_time [--json]
"""

from __future__ import annotations

import argparse
import json
import os
import subprocess
import sys
import tempfile

CODE = """
import time
from types import SimpleNamespace
import numpy as np
import minigan as mg
from minigan import gans
game = gans.make("dcgan")
batch = SimpleNamespace(images=np.zeros((64, 1, 28, 28), np.float32))

def step():
    start = time.perf_counter()
    game.start(batch)
    for player in game.players:
        total = sum(player.losses().values(), start=mg.tensor(0.0))
        player.optimizer.step(mg.grad(total, player.parameters))
    game.finish()
    game.preview()
    return time.perf_counter() - start

first = step()
print(first - min(step() for _ in range(3)))
"""


def seconds(cache: str) -> float:
    """What the first step costs beyond the later ones, with this folder as Numba's cache."""
    env = os.environ | {"NUMBA_CACHE_DIR": cache}
    command = [sys.executable, "-c", CODE]
    return float(
        subprocess.run(command, capture_output=True, text=True, check=True, env=env).stdout
    )


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    options = parser.parse_args()
    with tempfile.TemporaryDirectory() as cache:
        results = {"cold": seconds(cache), "warm": seconds(cache)}
    if options.json:
        print(json.dumps({"compile_time": results}))
        return
    print("seconds that compilation adds to the main job")
    for name, value in results.items():
        print(f"  {name}  {value:.2f}")


if __name__ == "__main__":
    main()
