"""The benchmark of quality: what it writes, what it skips, and that both engines start alike."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from benchmarks import quality, readme, results, tables, torchside
from benchmarks.__main__ import main, parser
from minigan import data, metrics


class Judge:
    """Stands in for the evaluator: the FID is how much the pictures vary."""

    def measure(self, images: Any) -> dict[str, float]:
        assert images.shape[1:] == (1, 28, 28) and np.abs(images).max() <= 1
        return {"fid": float(images.std()), "n": len(images)}

    def floor(self, n: int) -> dict[str, float]:
        return {"fid": 0.5}


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Where results are written; 300 digits to learn from, and no real evaluator."""
    digits = data.Dataset("digits", data.load("digits").images[:300])
    monkeypatch.setattr(results, "FOLDER", tmp_path)
    monkeypatch.setattr(data, "load", lambda name: digits)
    monkeypatch.setattr(metrics.Evaluator, "for_data", lambda known: Judge())
    return tmp_path


COMMAND = "quality --save here --data digits --seeds 0,1 --steps 1,2 --images 70 --width 4".split()


def test_the_command_parses() -> None:
    options = parser().parse_args(["quality"])
    assert (options.steps, options.seeds) == ([938, 1876, 2814], [0, 1, 2])
    options = parser().parse_args([*COMMAND, "-o", "lr=1e-3", "--only", "minigan"])
    assert (options.steps, options.options, options.save) == ([1, 2], ["lr=1e-3"], "here")
    with pytest.raises(SystemExit):
        parser().parse_args(["quality", "--only", "jax"])


def test_ours_is_written_once(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "--only", "minigan"]) == 0
    first = results.read("here")["quality"]
    assert len(first) == 2
    for entry in first.values():
        assert set(entry["raw"]) == set(entry["ema"]) == {"1", "2"}
        assert entry["first"]["D"] > 0 and entry["floor"] == 0.5
    assert "digits, width 4, 70 images" in capsys.readouterr().out
    # A second call finds them there; a longer budget trains again and keeps the steps of before.
    assert main([*COMMAND, "--only", "minigan"]) == 0
    assert capsys.readouterr().err.count("there already") == 2
    assert results.read("here")["quality"] == first
    assert main([*COMMAND[:-6], "--steps", "3", *COMMAND[-4:], "--only", "minigan"]) == 0
    longer = results.read("here")["quality"]
    assert all(set(entry["raw"]) == {"1", "2", "3"} for entry in longer.values())
    assert [e["raw"]["2"] for e in longer.values()] == [e["raw"]["2"] for e in first.values()]


def test_a_variant_is_ours_alone(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*COMMAND, "-o", "ema=0", "-o", "lr=1e-3"]) == 0
    entries = results.read("here")["quality"]
    assert {(e["engine"], e["variant"]) for e in entries.values()} == {("minigan", "ema=0 lr=1e-3")}
    assert not any("ema" in entry for entry in entries.values())
    assert main([*COMMAND, "-o", "speed=1"]) == 2
    assert "no option 'speed'" in capsys.readouterr().err


def test_without_torch(
    folder: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setattr(torchside, "torch", lambda: None)
    assert main([*COMMAND, "--only", "torch"]) == 0
    shown = capsys.readouterr()
    assert "PyTorch is not installed" in shown.err and "nothing was measured" in shown.out


def entry(engine: str, seed: int, fid: float, **other: Any) -> dict[str, Any]:
    made = {"engine": engine, "seed": seed, "variant": "", "group": "g", "pair": f"p{seed}"}
    made |= {"floor": 1.7, "first": {"D": 1.0, "G": 2.0}, "raw": {"938": {"fid": fid}}}
    return made | other


def test_the_table() -> None:
    entries = {
        str(i): e
        for i, e in enumerate(
            [
                *(entry("minigan", i, fid) for i, fid in enumerate((110.0, 90.0, 100.0))),
                *(entry("torch", i, fid) for i, fid in enumerate((80.0, 200.0, 90.0))),
                entry("minigan", 0, 45.0, variant="lr=1e-3", ema={"938": {"fid": 30.0}}),
            ]
        )
    }
    text = tables.quality_tables(entries)
    assert text[0] == "g; real training images have 1.7."
    assert "| minigan raw | 100 (110, 90, 100) | 1.11 |" in text
    assert "| torch raw | 90 (80, 200, 90) | - |" in text
    assert "| minigan lr=1e-3 raw | 45 (45) | 0.50 |" in text
    assert "| minigan lr=1e-3 ema | 30 (30) | 0.33 |" in text


def test_rows_of_the_readme() -> None:
    entries = [
        *(entry("minigan", i, fid) for i, fid in enumerate((110.0, 90.0, 100.0))),
        *(entry("torch", i, fid) for i, fid in enumerate((80.0, 200.0, 90.0))),
        entry("minigan", 0, 45.0, variant="lr=1e-3"),
        entry("minigan", 0, 45.0, group="other"),
    ]
    (row,) = readme.quality_rows({"quality": dict(enumerate(entries))})
    assert row == ["FID of DCGAN after 938 steps (g), median of 3 seeds", "100", "90", "0.90"]
    assert readme.quality_rows({}) == []


def test_other_first_losses_are_refused() -> None:
    known = results.Results(None, {})
    known.add("quality", "a", entry("minigan", 0, 1.0))
    quality.check_start(known, entry("torch", 0, 1.0))
    quality.check_start(known, entry("torch", 1, 1.0, first={"D": 9.0, "G": 2.0}))
    with pytest.raises(quality.LossesDiffer, match="1\\.001"):
        quality.check_start(known, entry("torch", 0, 1.0, first={"D": 1.001, "G": 2.0}))


@pytest.mark.torch
def test_both_engines_take_the_same_steps(folder: Path, capsys: pytest.CaptureFixture[str]) -> None:
    pytest.importorskip("torch")
    assert main(COMMAND) == 0, capsys.readouterr().err
    by_engine: dict[str, list[Any]] = {"minigan": [], "torch": []}
    for entry in results.read("here")["quality"].values():
        by_engine[entry["engine"]].append(entry)
    for ours, theirs in zip(*by_engine.values(), strict=True):
        for step in ("1", "2"):
            fids = ours["raw"][step]["fid"], theirs["raw"][step]["fid"]
            assert fids[0] == pytest.approx(fids[1], rel=1e-3)
        assert ours["raw"]["1"] != ours["raw"]["2"]
    assert " torch raw " in (folder / "here.md").read_text()
