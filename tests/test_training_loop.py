"""The loop: exact resume, SIGKILL, signals, NaN, full disks, budgets, evaluation."""

from __future__ import annotations

import errno
import io
import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from toygame import Toy, batches

import minigan as mg
from minigan.data import Prefetch
from minigan.errors import CheckpointError, DataError, NumericError, UsageError
from minigan.training import RunFolder, checkpoint, session, train
from minigan.training.budget import Clock
from minigan.training.guard import global_norm
from minigan.training.saver import Saver
from minigan.weights import atomic

TIMING = {"sec", "img_s", "rss_mb"}
PLAN = {"tick": 5, "preview": 20, "checkpoint": 7}  # a checkpoint falls into the middle of a tick


def play(run: RunFolder, steps: int, game: Toy | None = None, **options: Any) -> session.Result:
    """Train the toy as the command line does: seed, game, loop."""
    if game is None:
        mg.manual_seed(11)
        game = Toy()
    given = {**PLAN, **options}
    feed = given.pop("batches", None) or batches()
    return train(game, feed, run, steps=steps, stream=io.StringIO(), **given)


def new_run(folder: Path, name: str = "toy") -> RunFolder:
    return RunFolder.create(folder / "runs", name)


def outcome(run: RunFolder) -> dict[str, Any]:
    """Everything of a run that must not depend on interruptions."""
    snapshot = run.checkpoints.load()
    stats = [{k: v for k, v in line.items() if k not in TIMING} for line in run.stats()]
    state = {k: v for k, v in snapshot.state.items() if k not in ("seconds", "config")}
    return {
        "arrays": {name: array.tobytes() for name, array in snapshot.arrays.items()},
        "state": state,
        "stats": stats,
        "pictures": {p.name: p.read_bytes() for p in sorted(run.samples.iterdir())},
    }


def assert_same(a: RunFolder, b: RunFolder) -> None:
    first, second = outcome(a), outcome(b)
    assert first["state"] == second["state"]
    assert first["arrays"].keys() == second["arrays"].keys()
    different = [k for k in first["arrays"] if first["arrays"][k] != second["arrays"][k]]
    assert different == []
    assert first["stats"] == second["stats"]
    assert first["pictures"] == second["pictures"]


def test_a_run_leaves_everything_behind(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    result = play(run, 43)
    assert (result.step, result.signal, result.skipped) == (43, None, 0)
    assert result.verdict.word == "ok"
    assert [line["step"] for line in run.stats()] == list(range(5, 41, 5))
    assert {"loss_D", "loss_d_real", "loss_G", "gnorm_D", "d_real"} <= run.stats()[0].keys()
    assert "loss_g" not in run.stats()[0]  # a single part would only repeat the whole
    steps = [p.name for p in run.samples.glob("fakes-0*.png")]
    assert sorted(steps) == [f"fakes-{s:06d}.png" for s in (0, 20, 40, 43)]
    names = [p.name for p in run.checkpoints.paths()]
    assert names == [f"step-{s:06d}.safetensors" for s in (43, 42, 35)]
    config = run.config()
    assert config["preset"] == "toy"
    assert config["every"] == PLAN
    assert config["seed"] == 11
    assert run.environment()["numpy"] == np.__version__
    assert (run.path / "report.html").stat().st_size > 10_000
    assert not (run.path / "run.lock").exists()
    assert "step 5 kimg" in (run.path / "log.txt").read_text()


def test_two_runs_are_alike(tmp_path: Path) -> None:
    first, second = new_run(tmp_path), new_run(tmp_path)
    play(first, 40)
    play(second, 40)
    assert_same(first, second)


@pytest.mark.parametrize("cuts", [[60], [3, 51, 52, 90]])
def test_resumed_runs_equal_uninterrupted_ones(tmp_path: Path, cuts: list[int]) -> None:
    whole, parts = new_run(tmp_path), new_run(tmp_path)
    play(whole, 120)
    for i, steps in enumerate([*cuts, 120]):
        assert play(parts, steps, resume=i > 0).step == steps
    for step in cuts:  # a session that comes to its end draws a picture
        for picture in parts.samples.glob(f"*-{step:06d}.png"):
            if step % PLAN["preview"]:
                picture.unlink()
    assert_same(whole, parts)


def test_a_resume_needs_no_seed_to_train_on(tmp_path: Path) -> None:
    whole, parts = new_run(tmp_path), new_run(tmp_path)
    play(whole, 60)
    play(parts, 30)
    mg.manual_seed(99)
    play(parts, 60, Toy(), resume=True)
    assert outcome(whole)["arrays"] == outcome(parts)["arrays"]


_PLAYER = """
import sys
sys.path.insert(0, sys.argv[3])
import minigan as mg
from toygame import Toy, batches
from minigan.data import Prefetch
from minigan.training import RunFolder, train
from minigan.training.session import Session
pause = float(sys.argv[4]) if len(sys.argv) > 4 else 0
if pause:
    import time
    after = Session.after
    Session.after = lambda self, *rest: (after(self, *rest), time.sleep(pause))[0]
mg.manual_seed(11)
run = RunFolder.open(sys.argv[1])
result = train(Toy(), Prefetch(batches()), run, steps=int(sys.argv[2]), resume=True,
               tick=5, preview=20, checkpoint=7)
print("ended", result.step, result.signal, flush=True)
sys.exit(128 + result.signal if result.signal else 0)
"""


def start_player(run: RunFolder, steps: int, pause: float = 0.0) -> subprocess.Popen[str]:
    here = str(Path(__file__).parent)
    arguments = [sys.executable, "-c", _PLAYER, str(run.path), str(steps), here, str(pause)]
    return subprocess.Popen(arguments, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True)


def wait_for_line(process: subprocess.Popen[str], start: str) -> str:
    assert process.stdout is not None
    seen = []
    for line in process.stdout:
        seen.append(line)
        if line.startswith(start):
            return line
    raise AssertionError("".join(seen))


def check_kills(folder: Path, steps: int, kills: int, seed: int) -> None:
    """SIGKILL a run again and again at random times; in the end it equals a whole one."""
    whole, killed = new_run(folder), new_run(folder)
    play(whole, steps)
    killed.write_config({})
    rng = np.random.default_rng(seed)
    for _ in range(kills):
        process = start_player(killed, steps, pause=0.002)
        wait_for_line(process, "step ")
        time.sleep(float(rng.uniform(0, 0.12)))
        process.send_signal(signal.SIGKILL)
        process.communicate()
    process = start_player(killed, steps)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 0, text
    assert_same(whole, killed)
    assert not list(killed.path.rglob("*.tmp"))


def test_a_run_killed_twice_equals_a_whole_one(tmp_path: Path) -> None:
    check_kills(tmp_path, 150, kills=2, seed=0)


@pytest.mark.slow
@pytest.mark.parametrize("seed", range(1, 6))
def test_a_run_killed_twelve_times_equals_a_whole_one(tmp_path: Path, seed: int) -> None:
    check_kills(tmp_path, 400, kills=12, seed=seed)


# Signals ---------------------------------------------------------------------------------------


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_finishes_the_step_and_saves(tmp_path: Path, number: int) -> None:
    run = new_run(tmp_path)
    run.write_config({})
    process = start_player(run, 100_000, pause=0.01)
    wait_for_line(process, "step ")
    process.send_signal(number)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 128 + number, text
    step = int(text.split("ended ")[1].split()[0])
    assert run.checkpoints.load().step == step
    assert "finishing this step" in text
    assert (run.path / "report.html").exists()
    again = start_player(run, step + 3)
    text, _ = again.communicate(timeout=60)
    assert f"resuming at step {step}" in text
    assert f"ended {step + 3} None" in text


def test_the_second_signal_stops_at_once(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    run.write_config({})
    process = start_player(run, 100_000, pause=30.0)
    for _ in range(600):
        if run.samples.joinpath("fakes-000000.png").exists():
            break
        time.sleep(0.05)
    time.sleep(0.3)
    process.send_signal(signal.SIGINT)
    time.sleep(0.2)
    assert process.poll() is None
    started = time.monotonic()
    process.send_signal(signal.SIGINT)
    text, _ = process.communicate(timeout=60)
    assert process.returncode == 130, text
    assert time.monotonic() - started < 10
    assert "stopped at once" in text


# NaN -------------------------------------------------------------------------------------------


class Poisoned(Toy):
    """Turns bad in G's turn of some steps: log of a negative number."""

    bad_steps: tuple[int, ...] = ()
    step = -1

    def start(self, batch: Any) -> None:
        self.indices = batch.indices
        super().start(batch)

    def g_losses(self) -> dict[str, mg.Tensor]:
        losses = super().g_losses()
        if any((batches().indices(s) == self.indices).all() for s in self.bad_steps):
            with np.errstate(invalid="ignore"):
                losses["loss_log"] = mg.functional.log(losses["loss_g"] * -1.0)
        return losses


def poisoned(*steps: int) -> Poisoned:
    mg.manual_seed(11)
    game = Poisoned()
    game.bad_steps = steps
    return game


def test_nan_stops_before_the_optimizer(tmp_path: Path) -> None:
    run, game = new_run(tmp_path), poisoned(12)
    weights: list[dict[str, Any]] = []
    step = game.players[1].optimizer.step
    game.players[1].optimizer.step = lambda grads: (  # type: ignore[method-assign]
        step(grads),
        weights.append(game.G.state_dict()),
    )[0]
    with np.errstate(invalid="ignore"), pytest.raises(NumericError) as error:
        play(run, 40, game)
    text = str(error.value)
    assert "G: loss_log is nan" in text
    assert "Log" in text  # the first bad operation
    assert "the weights are still finite" in text
    assert len(weights) == 12
    now = {name: p.data for name, p in game.G.named_parameters()}
    assert all(np.array_equal(now[name], weights[-1][name]) for name in now)
    crash = json.loads((run.crash / "crash.json").read_text())
    assert crash["step"] == 12
    assert crash["batch_indices"] == batches().indices(12).tolist()
    assert "NumericError" in (run.crash / "traceback.txt").read_text()
    assert run.checkpoints.load().step == 7
    assert play(run, 20, resume=True).step == 20  # with a sound loss: the crash is history
    assert not run.crash.exists()
    assert (run.path / "crash-1" / "crash.json").exists()


def test_nan_in_the_data_names_the_first_operation(tmp_path: Path) -> None:
    class Bad:
        batch_size = 16

        def __init__(self) -> None:
            self.inner = batches()

        def indices(self, step: int) -> Any:
            return self.inner.indices(step)

        def batch(self, step: int) -> Any:
            batch = self.inner.batch(step)
            if step == 3:
                batch.images[2, 0, 1, 1] = np.nan
            return batch

    with pytest.raises(NumericError, match="D: loss_d_real is nan") as error:
        play(new_run(tmp_path), 40, batches=Bad())
    assert "Linear" in str(error.value)
    assert "1 not finite" in str(error.value)


def test_nan_can_be_skipped(tmp_path: Path) -> None:
    run, game = new_run(tmp_path), poisoned(5, 6, 30)
    with np.errstate(invalid="ignore"):
        result = play(run, 40, game, on_nan="skip")
    assert result.skipped == 3
    assert result.verdict.word == "ok"
    assert run.stats()[-1]["skipped"] == 3
    assert game.players[1].optimizer.steps == 37
    assert game.players[0].optimizer.steps == 40
    again, resumed = new_run(tmp_path), poisoned(5, 6, 30)
    with np.errstate(invalid="ignore"):
        play(again, 20, resumed, on_nan="skip")
        play(again, 40, poisoned(5, 6, 30), on_nan="skip", resume=True)
    assert_same(run, again)


def test_skipping_gives_up_when_it_never_ends(tmp_path: Path) -> None:
    with np.errstate(invalid="ignore"), pytest.raises(NumericError, match="turns in a row"):
        mg.manual_seed(11)
        play(new_run(tmp_path), 200, AlwaysBad(), on_nan="skip")


class AlwaysBad(Toy):
    def d_losses(self) -> dict[str, mg.Tensor]:
        return {k: mg.functional.log(v * -1.0) for k, v in super().d_losses().items()}

    def g_losses(self) -> dict[str, mg.Tensor]:
        return {k: mg.functional.log(v * -1.0) for k, v in super().g_losses().items()}


def test_running_statistics_do_not_keep_nan(tmp_path: Path) -> None:
    class BadNoise(Toy):
        drawn = 0

        def noise(self, rng: Any, n: int) -> Any:
            z = super().noise(rng, n)
            self.drawn += 1
            if self.drawn == 8:
                z[0, 0] = np.nan
            return z

    mg.manual_seed(11)
    game = BadNoise()
    result = play(new_run(tmp_path), 20, game, on_nan="skip")
    assert result.skipped == 1
    assert all(np.isfinite(buffer.data).all() for buffer in game.G.buffers())


def test_options_are_checked(tmp_path: Path) -> None:
    with pytest.raises(UsageError, match="on_nan"):
        play(new_run(tmp_path), 1, on_nan="ignore")
    with pytest.raises(UsageError, match="tick every 0"):
        play(new_run(tmp_path), 1, tick=0)
    with pytest.raises(UsageError, match="preview"):
        play(new_run(tmp_path), 1, preview=-1)


def test_the_norm_of_gradients(rng: np.random.Generator) -> None:
    arrays = [rng.standard_normal((3, 4)), rng.standard_normal(5)]
    flat = np.concatenate([a.reshape(-1) for a in arrays])
    grads = [mg.tensor(arrays[0]), None, mg.tensor(arrays[1])]
    assert global_norm(grads) == pytest.approx(np.linalg.norm(flat))
    large = mg.tensor(np.full(4, 1e30, np.float32))  # its squares overflow float32
    assert global_norm([large]) == pytest.approx(2e30)
    assert np.isnan(global_norm([mg.tensor([np.nan, 1.0])]))


# Disks -----------------------------------------------------------------------------------------


def full_disk(monkeypatch: pytest.MonkeyPatch, fails: Any) -> list[str]:
    """Let checkpoints fail when `fails(call number)`; returns the names that were tried."""
    real, calls = checkpoint.save_file, []

    def save_file(path: Path, *rest: Any) -> None:
        calls.append(path.name)
        if fails(len(calls)):
            raise OSError(errno.ENOSPC, "No space left on device")
        real(path, *rest)

    monkeypatch.setattr(checkpoint, "save_file", save_file)
    return calls


def test_a_full_disk_is_survived_twice(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk(monkeypatch, lambda call: call in (2, 3, 5))
    run, stream = new_run(tmp_path), io.StringIO()
    mg.manual_seed(11)
    train(Toy(), batches(), run, steps=42, stream=stream, **PLAN)
    text = stream.getvalue()
    assert text.count("WARNING: the checkpoint of step") == 3
    assert "No space left on device (1 of 3" in text
    assert "No space left on device (2 of 3" in text
    assert run.checkpoints.load().step == 42


def test_the_third_failure_in_a_row_stops(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    full_disk(monkeypatch, lambda call: call >= 3)
    run = new_run(tmp_path)
    with pytest.raises(CheckpointError, match="third time in a row"):
        play(run, 100)
    assert run.checkpoints.load().step == 14
    monkeypatch.undo()
    assert play(run, 20, resume=True).step == 20


def test_an_end_that_is_not_saved_is_an_error(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    full_disk(monkeypatch, lambda call: call == 2)
    run = new_run(tmp_path)
    with pytest.raises(CheckpointError, match="the checkpoint of step 10 could not be written"):
        play(run, 10)
    assert run.checkpoints.load().step == 7


def test_a_resume_keeps_plan_and_seed(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    play(run, 20, tick=4)
    mg.manual_seed(99)
    play(run, 40, Toy(), resume=True, tick=None)
    assert run.config()["every"]["tick"] == 4
    assert run.config()["seed"] == 11


def test_reports_pictures_and_lines_never_stop_a_run(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def full(*args: Any, **kwargs: Any) -> None:
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr("minigan.training.previews.save_png", full)
    monkeypatch.setattr("minigan.training.report.write_text", full)
    monkeypatch.setattr(RunFolder, "add_stats", full)
    run, stream = new_run(tmp_path), io.StringIO()
    mg.manual_seed(11)
    assert train(Toy(), batches(), run, steps=10, stream=stream, **PLAN).step == 10
    for part in ("no picture of step 0", "no report", "lost the line of step 5"):
        assert part in stream.getvalue()


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="needs /dev/full")
def test_writing_to_a_really_full_device() -> None:
    with pytest.raises(OSError, match="No space"), open("/dev/full", "wb", buffering=0) as file:
        file.write(b"x")
    with pytest.raises(OSError, match="No space"):
        os.write(os.open("/dev/full", os.O_WRONLY), b"x")


def test_weights_that_overflow_are_not_saved(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    mg.manual_seed(11)
    game = Toy()
    with pytest.raises(NumericError, match=r"networks\.G\.3\.weight|holds NaN or infinity"):
        game.G.state_dict()
        for p in game.G.parameters():
            p.data[...] = np.inf
        Saver(run, 1, print).save(game.state_dict(), {"step": 1}, None)
    assert run.checkpoints.paths() == []


# Budgets, evaluation, resume -------------------------------------------------------------------


def test_minutes_are_monotonic_and_add_up(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    monkeypatch.setattr(time, "time", lambda: -1e9)  # the wall clock is nobody's business
    after = session.Session.after

    def slow(self: Any, *rest: Any) -> None:
        now[0] += 1.0
        after(self, *rest)

    monkeypatch.setattr(session.Session, "after", slow)
    run = new_run(tmp_path)
    mg.manual_seed(11)
    options: dict[str, Any] = {"stream": io.StringIO(), **PLAN}
    assert train(Toy(), batches(), run, minutes=0.5, **options).step == 30
    result = train(Toy(), batches(), run, minutes=0.75, resume=True, **options)
    assert result.step == 45
    assert result.seconds == pytest.approx(45.0)
    assert train(Toy(), batches(), new_run(tmp_path), kimg=0.1, **options).step == 7


def test_slow_steps_are_saved_every_three_minutes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    now = [0.0]
    monkeypatch.setattr(time, "monotonic", lambda: now[0])
    saver = Saver(new_run(tmp_path), 1000, print)
    assert not saver.due(1)
    now[0] += 181.0
    assert saver.due(2)
    assert saver.due(1000)


def test_evaluation_elects_the_best(tmp_path: Path) -> None:
    scores = {10: 5.0, 20: 2.0, 30: 3.0, 40: 4.0}
    run, seen = new_run(tmp_path), []

    def evaluate(game: Any) -> dict[str, float]:
        seen.append(game.players[0].optimizer.steps)
        return {"fid": scores[seen[-1]], "kid": 0.1}

    play(run, 48, evaluate=evaluate, evaluate_every=10)
    assert seen == [10, 20, 30, 40]
    assert run.checkpoints.best().step == 20
    assert [line["fid"] for line in run.metrics()] == [5.0, 2.0, 3.0, 4.0]
    assert "fid" in (run.path / "report.html").read_text()


def test_previews_leave_no_trace(tmp_path: Path) -> None:
    first, second = new_run(tmp_path), new_run(tmp_path)
    play(first, 30, preview=1)
    play(second, 30, preview=1000)
    assert outcome(first)["arrays"] == outcome(second)["arrays"]


def test_repeats(tmp_path: Path) -> None:
    mg.manual_seed(11)
    game = Toy(repeats=3)
    play(new_run(tmp_path), 7, game)
    assert [player.optimizer.steps for player in game.players] == [21, 7]


def test_prefetching_changes_nothing(tmp_path: Path) -> None:
    first, second = new_run(tmp_path), new_run(tmp_path)
    play(first, 30)
    with Prefetch(batches()) as ahead:
        play(second, 30, batches=ahead)
    assert_same(first, second)


def test_errors_of_the_reading_thread_come_through(tmp_path: Path) -> None:
    feed = batches()
    read = feed.dataset.batch
    feed.dataset.batch = lambda i: read(i) if 40 not in i else 1 / 0  # type: ignore[method-assign]
    run = new_run(tmp_path)
    with Prefetch(feed) as ahead, pytest.raises(DataError, match=r"(?s)reading a batch.*40"):
        play(run, 30, batches=ahead)
    assert (run.crash / "crash.json").exists()


def test_a_folder_with_a_run_is_not_overwritten(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    play(run, 8)
    with pytest.raises(UsageError, match="already holds a run"):
        play(run, 8)


def test_resuming_with_another_model_shows_a_table(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    play(run, 8)
    game = Toy()
    game.networks["D"] = game.D = mg.nn.Sequential(mg.nn.Linear(64, 1))
    with pytest.raises(CheckpointError, match=r"extra +networks\.D\.3\.weight"):
        play(run, 16, game, resume=True)


def test_a_damaged_checkpoint_costs_only_its_steps(tmp_path: Path) -> None:
    whole, run = new_run(tmp_path), new_run(tmp_path)
    play(whole, 60)
    play(run, 40)
    newest = run.checkpoints.paths()[0]
    newest.write_bytes(newest.read_bytes()[:-10])
    with pytest.warns(UserWarning, match=r"step-000040.*using step-000035"):
        play(run, 60, resume=True)
    assert_same(whole, run)


def test_another_machine_is_noted(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    run = new_run(tmp_path)
    play(run, 8)
    run.write_environment({**run.environment(), "simd": "abacus"})
    stream = io.StringIO()
    train(Toy(), batches(), run, steps=9, resume=True, stream=stream, **PLAN)
    assert "not bit for bit, the machine differs: simd abacus -> " in stream.getvalue()


def test_mistakes_before_the_first_step_are_no_crash(tmp_path: Path) -> None:
    run = new_run(tmp_path)
    with pytest.raises(UsageError, match="checkpoint every 0"):
        play(run, 4, checkpoint=0)
    assert not run.crash.exists()


def test_running_out_of_memory_is_written_down(tmp_path: Path) -> None:
    class Hungry(Toy):
        def start(self, batch: Any) -> None:
            raise MemoryError("Unable to allocate 9 TiB")

    mg.manual_seed(11)
    run = new_run(tmp_path)
    with pytest.raises(MemoryError):
        play(run, 4, Hungry())
    assert json.loads((run.crash / "crash.json").read_text())["error"] == "MemoryError"


def test_the_clock_goes_on(monkeypatch: pytest.MonkeyPatch) -> None:
    assert Clock(before=10.0).seconds() >= 10.0
    assert atomic.remove_stale([]) == []
