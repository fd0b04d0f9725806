"""README does what it says: its commands run in order, and so does its code."""

from __future__ import annotations

import json
import re
import subprocess
import sys
from pathlib import Path

import numpy as np
import pytest
from readme_commands import DONE_BEFORE, README, ROOT, SHORTER, blocks, run_all


def test_every_shortened_command_stands_in_readme() -> None:
    missing = [c for c in (*SHORTER, *DONE_BEFORE) if c not in README]
    assert not missing, missing


def test_readme_names_no_file_that_is_not_there() -> None:
    folders = "minigan|kernels|tests|examples|benchmarks"
    named = re.findall(rf"(?<![\w/.])((?:{folders})/[\w./-]*)", README)
    missing = sorted({n for n in named if not (ROOT / n.rstrip(".")).exists()})
    assert len(named) > 8 and not missing, missing


@pytest.mark.slow
def test_commands_run(tmp_path: Path) -> None:
    assert run_all(tmp_path, str(Path(sys.executable).parent)) >= 6


@pytest.mark.slow
def test_the_thirty_lines_train_a_gan(tmp_path: Path) -> None:
    code = next(block for block in blocks("python") if "opt_g.step" in block)
    assert len([line for line in code.splitlines() if line.strip()]) <= 32
    check = (
        "\nimport json"
        "\nz = random.draw('z').standard_normal((1000, 2), dtype='float32')"
        "\nsamples = G(mg.tensor(z)).numpy()"
        "\nprint(json.dumps(samples.tolist()))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code + check],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=600,
        check=True,
    )
    samples = np.array(json.loads(done.stdout.splitlines()[-1]))
    angle = np.arange(8) * np.pi / 4
    centres = np.stack([np.cos(angle), np.sin(angle)], axis=1)
    distance = np.linalg.norm(samples[:, None] - centres, axis=2)
    good = distance.min(axis=1) < 0.15  # three standard deviations
    modes = set(distance.argmin(axis=1)[good])
    # Here 78% and 8 modes; other processors round otherwise, and a game amplifies that.
    assert good.mean() > 0.4 and len(modes) >= 6, (good.mean(), modes)


def test_the_gradient_check_of_readme() -> None:
    code = next(block for block in blocks("python") if "gradcheck" in block)
    names: dict[str, object] = {}
    prelude = "import numpy as np\nimport minigan as mg\nimport minigan.functional as F\n"
    exec(prelude + code.replace("mg.check.gradcheck(", "ok = mg.check.gradcheck("), names)
    assert names["ok"] is True
