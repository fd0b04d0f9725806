"""Checkpoints of a run: pointers, pruning, fallback, refusal of what does not fit."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigan.errors import CheckpointError, NumericError
from minigan.training import checkpoint
from minigan.training.checkpoint import Checkpoints, check_fits
from minigan.weights import save_file


def arrays(value: float = 1.0) -> dict[str, np.ndarray[Any, Any]]:
    return {"networks.G.w": np.full((2, 3), value, np.float32), "optimizers.G.step": np.array(3)}


def names(folder: Path) -> list[str]:
    return sorted(path.name for path in folder.iterdir())


def test_the_last_three_and_the_best_are_kept(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step, score in ((10, 5.0), (20, 3.0), (30, 4.0), (40, None), (50, 9.0), (60, None)):
        checkpoints.save(arrays(step), {"step": step}, score)
    kept = [f"step-{step:06d}.safetensors" for step in (20, 40, 50, 60)]
    assert names(tmp_path) == ["best.json", "latest.json", *kept]
    assert json.loads((tmp_path / "latest.json").read_text()) == {"file": kept[-1], "step": 60}
    best = json.loads((tmp_path / "best.json").read_text())
    assert best == {"file": kept[0], "step": 20, "score": 3.0}
    assert checkpoints.load().step == 60
    assert checkpoints.best().step == 20


def test_best_is_the_newest_without_scores(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    checkpoints.save(arrays(), {"step": 1})
    assert checkpoints.best().step == 1


@pytest.mark.parametrize("damage", ["empty", "half", "flip"])
def test_a_damaged_newest_falls_back_and_names_both(tmp_path: Path, damage: str) -> None:
    checkpoints = Checkpoints(tmp_path)
    for step in (10, 20):
        newest = checkpoints.save(arrays(step), {"step": step})
    data = bytearray(newest.read_bytes())
    if damage == "flip":
        data[-3] ^= 4
    newest.write_bytes({"empty": b"", "half": data[: len(data) // 2], "flip": data}[damage])
    with pytest.warns(UserWarning, match=r"step-000020.*using step-000010") as warned:
        assert checkpoints.load().step == 10
    assert len(warned) == 1
    assert newest.exists()
    with pytest.warns(UserWarning):
        checkpoints.load(set_aside=True)
    assert checkpoints.load().step == 10  # without a warning now
    assert (tmp_path / "step-000020.safetensors.damaged").exists()


def test_no_sound_checkpoint_is_an_error(tmp_path: Path) -> None:
    checkpoints = Checkpoints(tmp_path)
    with pytest.raises(CheckpointError, match="holds no checkpoint"):
        checkpoints.load()
    checkpoints.save(arrays(), {"step": 1}).write_bytes(b"x" * 100)
    with pytest.raises(CheckpointError, match="no sound checkpoint") as error:
        checkpoints.load()
    assert "step-000001" in str(error.value)


def test_weights_that_are_not_finite_are_never_saved(tmp_path: Path) -> None:
    with pytest.raises(NumericError, match=r"networks\.G\.w"):
        Checkpoints(tmp_path).save(arrays(np.inf), {"step": 1})
    assert names(tmp_path) == []


def test_another_architecture_gives_a_table() -> None:
    found = {
        "networks.G.w": np.zeros((2, 4), np.float32),
        "networks.G.old": np.zeros(2),
        "optimizers.G.step": np.zeros((), np.int32),
    }
    expected = arrays() | {"networks.G.new": np.zeros(5)}
    with pytest.raises(CheckpointError) as error:
        check_fits(expected, found, "file.safetensors")
    text = str(error.value)
    assert "file.safetensors belongs to another model" in text
    assert "missing    networks.G.new     (5,)" in text
    assert "extra      networks.G.old     (2,)" in text
    assert "different  networks.G.w       float32 (2, 4) in the file, float32 (2, 3) wanted" in text
    assert "optimizers.G.step" in text
    check_fits(arrays(), arrays(2.0), "same")


def test_long_tables_are_cut() -> None:
    many = {f"w{i:02}": np.zeros(1) for i in range(40)}
    with pytest.raises(CheckpointError, match="and 28 more"):
        check_fits(many, {}, "x")


def test_newer_formats_and_plain_weights_are_refused(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    path = tmp_path / "x.safetensors"
    save_file(path, arrays(), {"state": {"step": 1, "schema": 99}})
    for read in (checkpoint.load, checkpoint.load_state):
        with pytest.raises(CheckpointError, match="format 99"):
            read(path)
    save_file(path, arrays(), {"note": "weights only"})
    with pytest.raises(CheckpointError, match="no checkpoint of a training run"):
        checkpoint.load(path)


def test_state_without_arrays(tmp_path: Path) -> None:
    path = Checkpoints(tmp_path).save(arrays(), {"step": 4, "config": {"preset": "dcgan"}})
    assert checkpoint.load_state(path)["config"] == {"preset": "dcgan"}


def test_pointers_that_lead_out_of_the_folder_do_not(tmp_path: Path) -> None:
    folder = tmp_path / "checkpoints"
    folder.mkdir()
    checkpoints = Checkpoints(folder)
    checkpoints.save(arrays(), {"step": 1}, score=1.0)
    checkpoints.save(arrays(), {"step": 2})
    (tmp_path / "secret.safetensors").write_bytes(b"x")
    (folder / "best.json").write_text('{"file": "../secret.safetensors", "score": 0}')
    with pytest.raises(CheckpointError, match="checkpoints/secret"):
        checkpoints.best()
    (folder / "best.json").write_text("{")
    assert checkpoints.best().step == 2
