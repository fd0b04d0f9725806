"""minigan evaluate, minigan train --evaluate, and what the report makes of the figures."""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image
from test_report import Page, make_run

from minigan.cli import app
from minigan.data import digits
from minigan.metrics import of_game
from minigan.training import RunFolder
from minigan.training.measured import kinds, rows
from minigan.training.report import report

SMALL = ["-o", "width=4", "-o", "nz=4", "-o", "previews=4", "--batch", "16"]
Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command; return its exit code, standard output and standard error."""
    monkeypatch.delenv("MINIGAN_DEBUG", raising=False)
    monkeypatch.setattr("warnings.showwarning", None)
    monkeypatch.setattr(of_game, "QUICK", 80)

    def call(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            app.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        assert isinstance(ended.value.code, int)
        return ended.value.code, captured.out, captured.err

    return call


@pytest.fixture(scope="module")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 300 pictures of digits."""
    folder = tmp_path_factory.mktemp("pictures")
    for i, image in enumerate(digits.make(300, seed=21)[0]):
        Image.fromarray(image[0]).save(folder / f"{i:03}.png")
    return folder


def train(cli: Cli, folder: Path, pictures: Path, *more: Any) -> RunFolder:
    made = ("train", "dcgan", "--data", pictures, "--out", folder, "--json", "--no-progress")
    code, out, err = cli(*made, "--classifier", "digits", *SMALL, *more)
    assert code == 0, err
    return RunFolder.open(json.loads(out)["run"])


def test_training_measures_and_elects_the_best(cli: Cli, tmp_path: Path, pictures: Path) -> None:
    run = train(cli, tmp_path, pictures, "--steps", 6, "--evaluate", 2)
    lines = run.metrics()
    assert [line["step"] for line in lines] == [2, 4, 6]
    assert all(line["n"] == 80 and line["net"] == "ema" for line in lines)
    assert all(line["floor.fid"] < line["fid"] for line in lines)
    best = json.loads((run.checkpoints.folder / "best.json").read_text())
    assert best["score"] == min(line["fid"] for line in lines)
    page = Page((run.path / "report.html").read_text())
    assert "Fréchet distance (FID), N = 80" in page.text
    assert "fid of real images" in page.text and "real images" in page.text
    config = run.config()
    assert config["evaluate"] == 2 and config["classifier"] == "digits"
    assert "--evaluate 2 --classifier digits" in config["command"]
    assert "fid" in (run.path / "log.txt").read_text()
    assert "floor" not in (run.path / "log.txt").read_text()


def test_measuring_changes_no_bit_of_the_training_and_resumes(
    cli: Cli, tmp_path: Path, pictures: Path
) -> None:
    plain = train(cli, tmp_path, pictures, "--steps", 4)
    measured = train(cli, tmp_path, pictures, "--steps", 2, "--evaluate", 1)
    assert cli("train", "--resume", measured.path, "--steps", 4, "--no-progress")[0] == 0
    assert [line["step"] for line in measured.metrics()] == [1, 2, 3, 4]
    a, b = (run.checkpoints.load().arrays for run in (plain, measured))
    for name in a:
        np.testing.assert_array_equal(a[name], b[name], err_msg=name)


def test_evaluating_a_run(cli: Cli, tmp_path: Path, pictures: Path) -> None:
    run = train(cli, tmp_path, pictures, "--steps", 1)
    code, out, err = cli("evaluate", run.path, "--classifier", "digits", "--n", 100)
    assert code == 0, err
    assert "step 1, net ema" in out and "sha256" in out and "N = 100" in out
    assert "pixel Gaussian" in out and "precision" in out
    assert "against 150 images" in out
    (line,) = run.metrics()
    assert line["step"] == 1 and line["n"] == 100 and "floor.kid" in line
    assert f"{line['fid']:.4g}" in out
    (file,) = run.checkpoints.paths()
    code, out, err = cli(
        "evaluate", file, "--net", "raw", "--classifier", "digits", "--n", 100, "--json"
    )
    assert code == 0, err
    told = json.loads(out)
    assert told["net"] == "raw" and told["figures"]["n"] == 100 and told["floor"]["fid"] > 0
    assert len(told["classifier_sha256"]) == 64
    assert len(run.metrics()) == 1  # a checkpoint is no run


def test_evaluating_arrays(cli: Cli, tmp_path: Path, pictures: Path) -> None:
    images, labels, _ = digits.make(200, seed=22)
    path = tmp_path / "many.npz"
    np.savez(path, images=images, labels=labels)
    options = ("--data", pictures, "--classifier", "digits")
    code, out, err = cli("evaluate", path, *options, "--json")
    assert code == 0, err
    figures = json.loads(out)["figures"]
    assert figures["class_accuracy"] > 0.98 and figures["n"] == 200 and figures["fid"] < 5
    bare = tmp_path / "bare.npy"
    np.save(bare, images[:100])
    assert json.loads(cli("evaluate", bare, *options, "--json")[1])["figures"]["n"] == 100


@pytest.mark.parametrize(
    ("arrays", "options", "words"),
    [
        ({"images": np.zeros((30, 1, 28, 28))}, [], "30 images are fewer than the classifier"),
        ({"images": np.zeros((90, 1, 9, 9))}, [], "9 x 9 do not fit the classifier"),
        ({"images": np.full((90, 1, 28, 28), np.nan)}, [], "90 of 90 images hold NaN"),
        ({"images": np.zeros((90, 28, 28))}, [], "must be (N, C, H, W)"),
        ({"pixels": np.zeros(3)}, [], "holds pixels, but no 'images'"),
        ({"images": np.zeros((90, 1, 28, 28))}, ["--n", "91"], "holds 90 images, not 91"),
        (
            {"images": np.zeros((90, 1, 28, 28)), "labels": np.arange(90)},
            [],
            "labels from 0 to 89 do not fit 10 classes",
        ),
        (None, [], "cannot be read as arrays"),
    ],
)
def test_bad_arrays_are_refused(
    cli: Cli,
    tmp_path: Path,
    pictures: Path,
    arrays: dict[str, Any] | None,
    options: list[str],
    words: str,
) -> None:
    path = tmp_path / "x.npz"
    if arrays is None:
        path.write_bytes(b"PK no archive")
    else:
        np.savez(path, **arrays)
    given = ("--data", pictures, "--classifier", "digits", *options)
    code, out, err = cli("evaluate", path, *given)
    assert code in (1, 4) and not out
    assert words in err and "Traceback" not in err


def test_what_is_missing_is_said(cli: Cli, tmp_path: Path, pictures: Path) -> None:
    path = tmp_path / "x.npz"
    np.savez(path, images=np.zeros((90, 1, 28, 28)))
    assert "--data mnist" in cli("evaluate", path)[2]
    assert "train one: python -m" in cli("evaluate", path, "--data", pictures)[2]
    assert "no file" in cli("evaluate", tmp_path / "y.npz", "--data", pictures)[2]
    options = ("--data", pictures, "--out", tmp_path, "--evaluate", 2, *SMALL)
    assert "no classifier for" in cli("train", "dcgan", *options)[2]
    assert not list(tmp_path.glob("0*"))  # refused before a folder was made


# The report --------------------------------------------------------------------------------------


def test_figures_of_different_n_are_not_joined(tmp_path: Path) -> None:
    run = make_run(tmp_path)
    for step in (100, 200, 300):
        run.add_metrics({"step": step, "fid": 9.0 - step / 100, "n": 2000, "floor.fid": 0.3})
        run.add_metrics({"step": step, "fid": 7.0, "n": 10_000, "net": "raw", "floor.fid": 0.1})
    run.add_metrics({"step": 300, "fid": 5.5, "n": 2000, "floor.fid": 0.3})  # once more
    found = kinds(run.metrics())
    assert list(found) == ["N = 2,000", "N = 10,000, raw weights"]
    assert [line["fid"] for line in found["N = 2,000"]] == [8.0, 7.0, 5.5]
    page = Page(report([run.path]).read_text())
    assert "Fréchet distance (FID), N = 2,000" in page.text
    assert "Fréchet distance (FID), N = 10,000, raw weights" in page.text
    table = rows(run.metrics())
    assert table[-1] == {"step": "real images", "n": 2000, "fid": 0.3}
    assert all(not name.startswith("floor.") for row in table for name in row)


def test_runs_are_compared_by_their_figures(tmp_path: Path) -> None:
    runs = [make_run(tmp_path, name, seed=i) for i, name in enumerate("ab")]
    for i, run in enumerate(runs):
        for step in (100, 200):
            run.add_metrics({"step": step, "fid": 9.0 - i, "n": 2000, "floor.fid": 0.3})
    page = Page(report([run.path for run in runs]).read_text())
    assert "fid, N = 2,000" in page.text
    assert "floor.fid" not in page.text


def test_the_command_that_trains_the_classifier_explains_itself() -> None:
    command = [sys.executable, "-m", "minigan.metrics.train_classifier", "--help"]
    told = subprocess.run(command, capture_output=True, text=True, check=True, timeout=60)
    assert "--data" in told.stdout and "[default: 8" in told.stdout
