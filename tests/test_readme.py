"""README does what it says: its commands run in order, in a clean folder, and so does its code."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent
README = (ROOT / "README.md").read_text()

# Commands that would take minutes get a smaller budget; nothing else is changed.
SHORTER = {
    "python examples/dcgan_mnist.py": "python examples/dcgan_mnist.py --data digits --steps 3",
    "python examples/gan_2d.py": "python examples/gan_2d.py --steps 20 --frames 2",
    "minigan train dcgan --data digits --steps 400 --out runs": (
        "minigan train dcgan --data digits --steps 6 --out runs"
    ),
}
# Run before this test, by .ci/run: they make the environment that the test itself runs in.
DONE_BY_CI = {"pip install -e .", "pip install -e '.[test]'", "pytest"}


def blocks(language: str) -> list[str]:
    return re.findall(rf"^```{language}\n(.*?)^```", README, re.M | re.S)


def commands() -> list[str]:
    lines = [line.strip() for block in blocks("bash") for line in block.splitlines()]
    return [line.split("  #")[0].strip() for line in lines if line and not line.startswith("#")]


def test_every_shortened_command_stands_in_readme() -> None:
    missing = [c for c in (*SHORTER, *DONE_BY_CI) if c not in README]
    assert not missing, missing


def test_readme_names_no_file_that_is_not_there() -> None:
    named = re.findall(
        r"(?<![\w/.])((?:minigan|kernels|tests|examples|benchmarks|docs)/[\w./-]*)", README
    )
    missing = sorted({n for n in named if not (ROOT / n.rstrip(".")).exists()})
    assert len(named) > 8 and not missing, missing


@pytest.mark.slow
def test_commands_run(tmp_path: Path) -> None:
    (tmp_path / "examples").symlink_to(ROOT / "examples")
    (tmp_path / "benchmarks").symlink_to(ROOT / "benchmarks")
    bin_folder = str(Path(sys.executable).parent)
    env = os.environ | {"PATH": f"{bin_folder}{os.pathsep}{os.environ['PATH']}"}
    ran = 0
    for command in commands():
        if command in DONE_BY_CI or command.startswith(
            ("python -m benchmarks", "python benchmarks")
        ):
            continue
        done = subprocess.run(
            SHORTER.get(command, command),
            shell=True,
            cwd=tmp_path,
            env=env,
            capture_output=True,
            text=True,
            timeout=600,
        )
        assert done.returncode == 0, f"{command}\n{done.stdout[-2000:]}\n{done.stderr[-2000:]}"
        ran += 1
    assert ran >= 6
    for picture in ("grid.png", "walk.webp"):
        assert (tmp_path / picture).stat().st_size > 500


@pytest.mark.slow
def test_the_thirty_lines_train_a_gan(tmp_path: Path) -> None:
    code = next(block for block in blocks("python") if "opt_g.step" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 32
    check = (
        "\nimport json"
        "\nz = random.draw('z').standard_normal((1000, 2), dtype='float32')"
        "\nsamples = G(mg.tensor(z)).numpy()"
        "\nprint(json.dumps(np.linalg.norm(samples, axis=1).tolist()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + check],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    import json

    radius = json.loads(done.stdout.splitlines()[-1])
    near = sum(0.8 < r < 1.2 for r in radius) / len(radius)
    assert near > 0.7, near  # the ring has radius 1; noise before training lies near 0


def test_the_gradient_check_of_readme() -> None:
    code = next(block for block in blocks("python") if "gradcheck" in block)
    names: dict[str, object] = {}
    prelude = "import numpy as np\nimport minigan as mg\nimport minigan.functional as F\n"
    exec(prelude + code.replace("mg.check.gradcheck(", "ok = mg.check.gradcheck("), names)
    assert names["ok"] is True
