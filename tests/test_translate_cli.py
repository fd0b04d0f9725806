"""minigan translate, from a run trained for two steps to files and folders."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_cli import Cli, cli  # noqa: F401  (a fixture)

TINY = ["--steps", "2", "-o", "size=16", "-o", "width=4", "-o", "blocks=1", "-o", "width_d=4"]


def painted(folder: Path, count: int, size: tuple[int, int] = (20, 16)) -> Path:
    folder.mkdir(parents=True)
    rng = np.random.default_rng(len(str(folder)))
    for i in range(count):
        noise = rng.integers(0, 256, (*size, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"{i}.png")
    return folder


def pixels(path: Path) -> np.ndarray[Any, Any]:
    with Image.open(path) as picture:
        return np.asarray(picture)


@pytest.fixture(scope="module")
def run(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A CycleGAN that has seen four pictures of each kind."""
    from minigan.cli import app

    root = tmp_path_factory.mktemp("unpaired")
    for kind in ("trainA", "trainB"):
        painted(root / "data" / kind, 4, (16, 16))
    with pytest.raises(SystemExit) as ended:
        app.main(["train", "cyclegan64", "--data", str(root / "data"), "--out", str(root / "runs"),
                  "--no-progress", *TINY])  # fmt: skip
    assert ended.value.code == 0
    (made,) = (root / "runs").iterdir()
    return made


def test_a_file(cli: Cli, run: Path, tmp_path: Path) -> None:  # noqa: F811
    source = painted(tmp_path / "in", 1) / "0.png"
    for name in ("a.png", "b.png"):
        code, out, _ = cli("translate", run, source, tmp_path / name)
        assert code == 0 and "1 pictures of step 2" in out
    assert pixels(tmp_path / "a.png").shape == (20, 16, 3)  # as it was
    assert (tmp_path / "a.png").read_bytes() == (tmp_path / "b.png").read_bytes()
    cli("translate", run, source, tmp_path / "c.png", "--direction", "BtoA", "--compare")
    both = pixels(tmp_path / "c.png")
    assert both.shape == (20, 32, 3)
    np.testing.assert_array_equal(both[:, :16], pixels(source))
    cli("translate", run, source, tmp_path / "d.png", "--size", "8")
    assert pixels(tmp_path / "d.png").shape == (8, 8, 3)


def test_a_folder_with_a_damaged_picture(cli: Cli, run: Path, tmp_path: Path) -> None:  # noqa: F811
    source = painted(tmp_path / "in", 2)
    (source / "bad.jpg").write_bytes(b"\xff\xd8 no picture")
    code, out, err = cli("translate", run, source, tmp_path / "new" / "out", "--json")
    told = json.loads(out)
    assert code == 0 and len(told["written"]) == 2 and told["refused"] == [str(source / "bad.jpg")]
    assert "left out" in err and "bad.jpg" in err
    assert sorted(p.name for p in (tmp_path / "new" / "out").iterdir()) == ["0.png", "1.png"]


@pytest.mark.parametrize(
    ("arguments", "text"),
    [
        (["nowhere", "out"], "no file or folder nowhere"),
        (["empty", "out"], "holds no pictures"),
        (["in/0.png", "out.gif"], "cannot write '.gif'"),
        (["in", "in/0.png"], "is a file"),
        (["in/0.png", "out.png", "--direction", "up"], "AtoB"),
        (["twice", "out"], "would both become"),
    ],
)
def test_mistakes(
    cli: Cli,  # noqa: F811
    run: Path,
    tmp_path: Path,
    monkeypatch: Any,
    arguments: list[str],
    text: str,
) -> None:
    painted(tmp_path / "in", 1)
    (tmp_path / "empty").mkdir()
    twice = painted(tmp_path / "twice", 1)
    Image.fromarray(pixels(twice / "0.png")).save(twice / "0.jpg")
    monkeypatch.chdir(tmp_path)
    code, _, err = cli("translate", run, *arguments)
    assert code in (1, 2, 4) and text in err
    assert not Path("out").exists()
