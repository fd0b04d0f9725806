"""Figures, verdicts, budgets, the display: everything that reads the course of a run."""

from __future__ import annotations

import io
import json
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from minigan.errors import UsageError
from minigan.training.budget import Budget, Clock
from minigan.training.environment import differences, environment
from minigan.training.figures import Figures
from minigan.training.health import WINNING_TICKS, Health, pairwise_distance
from minigan.training.previews import due, real_images
from minigan.training.progress import (
    Display,
    LiveDisplay,
    display,
    duration,
    figures_line,
    live_line,
    plain_line,
)
from minigan.training.rundir import RunFolder

steps_of_figures = st.lists(
    st.dictionaries(st.sampled_from(["a", "b"]), st.floats(-1e6, 1e6)), min_size=1, max_size=8
)


@given(steps_of_figures, st.integers(0, 8))
def test_means_survive_a_save_in_mid_tick(steps: list[dict[str, float]], cut: int) -> None:
    whole, first, second = Figures(), Figures(), Figures()
    for step in steps:
        whole.add(step)
    for step in steps[:cut]:
        first.add(step)
    second.load_state(json.loads(json.dumps(first.state())))
    for step in steps[cut:]:
        second.add(step)
    means = whole.tick()
    assert second.tick() == means
    for name, mean in means.items():
        values = [step[name] for step in steps if name in step]
        assert mean == pytest.approx(np.mean(values), rel=1e-9, abs=1e-6)
    assert whole.tick() == {}


# Verdicts --------------------------------------------------------------------------------------


def line(step: int, **changes: Any) -> dict[str, Any]:
    usual = {"loss_D": 0.6, "loss_G": 1.2, "gnorm_D": 1.0, "gnorm_G": 2.0}
    return {"step": step, **usual, "d_real": 0.8, "d_fake": 0.2, **changes}


def test_a_healthy_run_is_ok() -> None:
    health = Health()
    assert {health.see(line(s, diversity=0.9)).word for s in range(10, 3000, 10)} == {"ok"}


def test_d_wins_after_fifty_sure_ticks_and_not_before() -> None:
    health = Health()
    sure = {"d_real": 0.995, "d_fake": 0.004}
    words = [health.see(line(s, **sure)).word for s in range(1, WINNING_TICKS + 2)]
    assert words == ["ok"] * (WINNING_TICKS - 1) + ["D winning"] * 2
    assert "50 ticks" in health.see(line(99, **sure)).reason or "52 ticks" in health.verdict.reason
    assert health.see(line(100)).word == "ok"


def test_collapse_is_suspected_after_the_beginning_only() -> None:
    health = Health()
    assert health.see(line(100, diversity=0.01)).word == "ok"
    verdict = health.see(line(200, diversity=0.1))
    assert verdict.word == "collapse?"
    assert "10%" in verdict.reason
    assert health.see(line(300, diversity=0.5)).word == "ok"


def test_divergence_needs_a_hundred_times_the_median() -> None:
    health = Health()
    for step in range(30):
        assert health.see(line(step)).word == "ok"
    assert health.see(line(31, gnorm_G=150.0)).word == "ok"
    verdict = health.see(line(32, gnorm_G=250.0))
    assert verdict.word == "diverging"
    assert "gnorm_G is 250, usually 2" in verdict.reason


def test_small_numbers_never_diverge() -> None:
    health = Health()
    for step in range(30):
        health.see(line(step, loss_D=1e-6))
    assert health.see(line(31, loss_D=0.9)).word == "ok"


@pytest.mark.parametrize("bad", [None, float("nan"), float("inf")])
def test_not_a_number(bad: float | None) -> None:
    verdict = Health().see(line(10, loss_G=bad))
    assert verdict.word == "NaN"
    assert "loss_G" in verdict.reason


def test_pairwise_distance_equals_the_definition(rng: np.random.Generator) -> None:
    images = rng.standard_normal((5, 1, 3, 3))
    distances = [
        np.sqrt(((a - b) ** 2).sum()) for i, a in enumerate(images) for b in images[i + 1 :]
    ]
    assert pairwise_distance(images) == pytest.approx(np.mean(distances), rel=1e-9)
    assert pairwise_distance(np.zeros((4, 1, 2, 2))) == 0.0
    assert pairwise_distance(images[:1]) == 0.0


# Budgets ---------------------------------------------------------------------------------------


def test_budgets() -> None:
    assert Budget(steps=100).last_step(64) == 100
    assert Budget(kimg=1).last_step(64) == 16  # 1024 images, the first multiple beyond 1000
    assert Budget(steps=100, kimg=1).last_step(64) == 16
    assert Budget(minutes=1).last_step(64) is None
    assert str(Budget(steps=3000, minutes=2.5)) == "3,000 steps or 2.5 minutes"
    with pytest.raises(UsageError, match="no budget"):
        Budget()
    with pytest.raises(UsageError, match="negative"):
        Budget(steps=-1)
    with pytest.raises(UsageError, match="negative"):
        Budget(minutes=float("nan"))


def test_the_estimate_is_a_median_of_monotonic_time(monkeypatch: pytest.MonkeyPatch) -> None:
    now = [1000.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    clock = Clock(before=50.0)
    assert clock.remaining(0, 100, None) is None
    for took in (2.0, 2.0, 2.0, 900.0, 2.0):  # the fourth: the lid was closed
        now[0] += took
        clock.tick(10)
    assert clock.remaining(50, 100, None) == pytest.approx(10.0)
    assert clock.seconds() == pytest.approx(958.0)
    assert clock.remaining(50, 100, minutes=16.0) == pytest.approx(2.0)
    assert clock.remaining(50, None, minutes=1.0) == 0.0


def test_durations() -> None:
    assert [duration(s) for s in (0, 59.6, 161, 3761)] == ["0:00", "1:00", "2:41", "1:02:41"]


# Previews --------------------------------------------------------------------------------------


def test_previews_are_dense_at_the_beginning() -> None:
    chosen = [step for step in range(3001) if due(step, 0)]
    dense = [*range(0, 100, 10), *range(100, 1000, 100), 1000, 2000, 3000]
    assert chosen == dense
    assert due(23_000, 0)
    assert not due(23_500, 0)
    assert [step for step in range(20) if due(step, 7)] == [0, 7, 14]


def test_real_images_are_found_in_any_batch() -> None:
    images = np.zeros((4, 1, 8, 8), np.float32)
    labels = np.zeros(4, np.int64)

    class Batch:
        def __init__(self) -> None:
            self.images = images

    for batch in (images, (images, labels), {"x": labels, "y": images}, Batch()):
        assert real_images(batch, (1, 8, 8)) is images
    assert real_images(labels, (1, 8, 8)) is None


# The display -----------------------------------------------------------------------------------


class Terminal(io.StringIO):
    def isatty(self) -> bool:
        return True


@pytest.fixture
def run(tmp_path: Path) -> RunFolder:
    return RunFolder.create(tmp_path, "x")


LINE = line(938, kimg=60.032, img_s=412.0, verdict="D winning")


def test_plain_lines_are_pairs(run: RunFolder) -> None:
    text = plain_line(LINE)
    words = text.split()
    assert len(words) % 2 == 0
    pairs = dict(zip(words[::2], words[1::2], strict=True))
    assert pairs["step"] == "938"
    assert pairs["verdict"] == "D_winning"
    stream = io.StringIO()
    shown = display(run, stream=stream)
    assert type(shown) is Display
    shown.begin(0, 100)
    shown.step(938, 0.3)
    shown.tick(LINE, 10.0)
    shown.snapshot(LINE, "samples/x.png")
    shown.say("hello [b]")
    shown.end()
    shown.tick(LINE, None)  # within the same second: for the log only
    assert stream.getvalue() == f"{text} eta 0:10\nhello [b]\n"
    assert (run.path / "log.txt").read_text() == f"{text}\nhello [b]\n{text}\n"


def test_live_display_on_terminals_only(run: RunFolder, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TERM", "xterm")
    assert type(display(run, progress=False, stream=Terminal())) is Display
    assert type(display(run, stream=Terminal())) is LiveDisplay
    monkeypatch.setenv("TERM", "dumb")
    assert type(display(run, stream=Terminal())) is Display


@pytest.mark.parametrize("no_color", [False, True])
def test_the_live_display(run: RunFolder, monkeypatch: pytest.MonkeyPatch, no_color: bool) -> None:
    monkeypatch.setenv("TERM", "xterm-256color")
    monkeypatch.setenv("COLUMNS", "140")
    monkeypatch.delenv("NO_COLOR", raising=False)
    if no_color:
        monkeypatch.setenv("NO_COLOR", "1")
    stream = Terminal()
    shown = display(run, stream=stream)
    shown.begin(0, 3000)
    shown.tick(LINE, 161.0)
    shown.snapshot(LINE, "samples/fakes-000938.png")
    shown.say("a [line] of text")
    shown.step(3000, 1.0)
    shown.end()
    text = stream.getvalue()
    for part in ("3000/3000", "412 img/s", "ETA 2:41", "D winning", "a [line] of text"):
        assert part in text
    assert "samples/fakes-000938.png" in text
    assert ("\x1b[33m" in text) is not no_color
    assert "a [line] of text\n" in (run.path / "log.txt").read_text()


def test_the_bar_is_drawn_four_times_a_second_at_most(
    run: RunFolder, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TERM", "xterm")
    shown = display(run, stream=Terminal())
    assert isinstance(shown, LiveDisplay)
    drawn = []
    monkeypatch.setattr(shown._bar, "refresh", lambda: drawn.append(1))
    now = [10.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    for step in range(1000):  # ten seconds
        now[0] += 0.01
        shown.step(step, 0.5)
    assert 36 <= len(drawn) <= 41


def test_lines_for_people() -> None:
    assert figures_line(LINE) == "D 0.6 G 1.2 · D(x) 0.80 D(G) 0.20"
    assert live_line(LINE, 5.0).startswith("412 img/s · ETA 0:05 · D 0.6")


# The machine -----------------------------------------------------------------------------------


def test_the_environment_is_json_and_compared(monkeypatch: pytest.MonkeyPatch) -> None:
    here = json.loads(json.dumps(environment()))
    assert here["numpy"] == np.__version__
    assert here["threads"] >= 1 and here["blas"] != "unknown"
    assert differences(here, here) == []
    changed = {**here, "simd": "abacus", "threads": 99, "command": "other", "system": "other"}
    assert differences(here, changed) == [f"simd {here['simd']} -> abacus"]
    assert differences({}, here) == []
