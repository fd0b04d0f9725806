"""What `import minigan` costs beyond NumPy, in new processes. Target: under 0.3 s.

python -m benchmarks.import_time [--json] [--rounds N]
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys

CODE = """
import time
import numpy
start = time.perf_counter()
import {module}
print(time.perf_counter() - start)
"""
MODULES = ("minigan", "minigan.functional", "minigan.nn")


def seconds(module: str) -> float:
    """Import time of a module after NumPy, in a fresh interpreter."""
    command = [sys.executable, "-c", CODE.format(module=module)]
    return float(subprocess.run(command, capture_output=True, text=True, check=True).stdout)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--json", action="store_true", help="print one JSON object")
    parser.add_argument("--rounds", type=int, default=5, help="processes per module (default 5)")
    options = parser.parse_args()
    medians = {
        module: statistics.median(seconds(module) for _ in range(options.rounds))
        for module in MODULES
    }
    if options.json:
        print(json.dumps({"import_time": medians}))
        return
    print("seconds to import beyond NumPy (median; target: under 0.3)")
    for module, median in medians.items():
        print(f"  {module:<20} {median:.3f}")


if __name__ == "__main__":
    main()
