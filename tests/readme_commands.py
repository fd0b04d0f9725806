"""Runs the shell commands of README in order, in a folder of its own.

    python tests/readme_commands.py BIN_FOLDER

BIN_FOLDER holds the `python` and `minigan` to use, so that an installed wheel can be tried from an
environment without pytest.
"""

from __future__ import annotations

import os
import re
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

# Commands that would take minutes get a smaller budget; nothing else is changed.
SHORTER = {
    "python examples/dcgan_mnist.py": "python examples/dcgan_mnist.py --data digits --steps 3",
    "minigan train dcgan --data digits --steps 400 --out runs": (
        "minigan train dcgan --data digits --steps 6 --out runs"
    ),
}
# They make the environment that the other commands run in.
DONE_BEFORE = {"pip install -e .", "pip install -e '.[test]'", "pytest -n 2"}


def blocks(language: str) -> list[str]:
    """The code blocks of README in a language."""
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands() -> list[str]:
    lines = [line.split("  #")[0].strip() for block in blocks("bash") for line in block.split("\n")]
    return [line for line in lines if line and not line.startswith("#")]


def run_all(folder: Path, bin_folder: str) -> int:
    """Run the commands in `folder`; return how many ran. Raises at the first that fails."""
    shutil.copytree(ROOT / "examples", folder / "examples")
    env = os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    todo = [SHORTER.get(c, c) for c in commands() if c not in DONE_BEFORE]
    for command in todo:
        done = subprocess.run(
            command, shell=True, cwd=folder, env=env, capture_output=True, text=True, timeout=600
        )
        if done.returncode:
            raise SystemExit(f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}")
    for picture in ("grid.png", "walk.webp"):
        assert (folder / picture).stat().st_size > 500, picture
    return len(todo)


if __name__ == "__main__":
    with tempfile.TemporaryDirectory() as place:
        print(run_all(Path(place), sys.argv[1]), "commands of README ran")
