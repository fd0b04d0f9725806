"""Which lines of the .cu and .cuh files the tests run in the emulator.

    python tests/emulator/coverage.py          # prints each file; fails below 95% in all

Lines that only a GPU has (the PTX of mg*.cuh, whose twins stand in the emulator) are not compiled
here and do not count.
"""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
from collections import defaultdict
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
LEAST = 0.95


def lines_of(folder: Path) -> dict[str, dict[int, int]]:
    """File -> line -> how often it ran, over all that was compiled."""
    found: dict[str, dict[int, int]] = defaultdict(lambda: defaultdict(int))
    for data in folder.glob("*.gcda"):
        command = ["gcov", "--json-format", "--stdout", str(data)]
        text = subprocess.run(command, cwd=folder, capture_output=True, text=True, check=True)
        for report in text.stdout.splitlines():
            for file in json.loads(report)["files"]:
                if file["file"].endswith((".cu", ".cuh")):
                    for line in file["lines"]:
                        found[Path(file["file"]).name][line["line_number"]] += line["count"]
    return found


def main() -> int:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        env = {
            **os.environ,
            "MINIGAN_EMULATOR_CACHE": name,
            "MINIGAN_EMULATOR_COVERAGE": "1",
        }
        tests = [str(p) for p in (ROOT / "tests").glob("test_cuda_*.py")]
        tests += [str(ROOT / "tests" / "test_devices.py")]
        command = [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *tests]
        done = subprocess.run(command, cwd=folder, env=env)
        if done.returncode:
            return done.returncode
        found = lines_of(folder)
    total = ran = 0
    for file, lines in sorted(found.items()):
        missed = sorted(n for n, count in lines.items() if not count)
        total, ran = total + len(lines), ran + len(lines) - len(missed)
        print(f"{file:24s} {1 - len(missed) / len(lines):6.1%}", *missed[:30])
    print(f"{'all':24s} {ran / total:6.1%} of {total} lines")
    return int(ran < LEAST * total)


if __name__ == "__main__":
    sys.exit(main())
