"""The command line, in this process; what needs a process of its own is marked by `spawn`."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from PIL import Image

import minigan as mg
from minigan import gans
from minigan.cli import app
from minigan.cli.sample import between
from minigan.training import RunFolder

SMALL = ["-o", "size=8", "-o", "channels=1", "-o", "width=4", "-o", "nz=4", "-o", "previews=4"]

Cli = Callable[..., tuple[int, str, str]]


@pytest.fixture
def cli(capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch) -> Cli:
    """Run a command; return its exit code, standard output and standard error."""
    monkeypatch.delenv("MINIGAN_DEBUG", raising=False)
    monkeypatch.setattr("warnings.showwarning", None)  # so that main's own goes afterwards

    def call(*arguments: Any) -> tuple[int, str, str]:
        capsys.readouterr()
        with pytest.raises(SystemExit) as ended:
            app.main([str(argument) for argument in arguments])
        captured = capsys.readouterr()
        code = ended.value.code
        assert isinstance(code, int)
        assert "Traceback" not in captured.err
        return code, captured.out, captured.err

    return call


@pytest.fixture(scope="session")
def pictures(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder of 24 grey pictures."""
    folder = tmp_path_factory.mktemp("pictures")
    rng = np.random.default_rng(0)
    for i in range(24):
        Image.fromarray(rng.integers(0, 256, (8, 8), dtype=np.uint8)).save(folder / f"{i:02}.png")
    return folder


@pytest.fixture(scope="session")
def trained(tmp_path_factory: pytest.TempPathFactory, pictures: Path) -> Path:
    """A run of twelve steps."""
    out = tmp_path_factory.mktemp("out")
    with pytest.raises(SystemExit) as ended:
        app.main(train(pictures, out, "--steps", "12", "--seed", "5"))
    assert ended.value.code == 0
    return out / "00000-dcgan-pictures-s5"


def train(pictures: Path, out: Path, *more: str) -> list[str]:
    name = [] if "--name" in more else ["--name", "dcgan-pictures-s5"]
    options = ["--data", str(pictures), "--out", str(out), "--batch", "8", *name]
    return ["train", "dcgan", *options, *SMALL, *more]


# Help and mistakes -----------------------------------------------------------------------------


@pytest.mark.parametrize(
    "command", [[], ["train"], ["sample"], ["info"], ["report"], ["data"], ["data", "check"]]
)
def test_help_is_there_and_fits_a_terminal(cli: Cli, command: list[str]) -> None:
    code, out, _ = cli(*command, "--help")
    assert code == 0
    assert "Usage: minigan" in out
    assert max(map(len, out.splitlines())) <= 100
    assert cli(*command, "-h")[1] == out


def test_version(cli: Cli) -> None:
    assert cli("--version")[1] == f"minigan {mg.__version__}\n"


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["trian"], 2, "did you mean 'train'"),
        (["data", "lst"], 2, "lst"),
        (["train", "dcgan", "--stesp", "3"], 2, "--steps"),
        (["train", "dcgan", "--steps", "many"], 2, "'many' is not a valid integer"),
        (["train", "dcgan", "--batch", "0"], 2, "x>=1"),
        (["train"], 1, "say what to train"),
        (["train", "dcgn"], 1, "unknown preset 'dcgn' (did you mean 'dcgan'?)"),
        (["train", "dcgan", "-o", "widht=3"], 1, "(did you mean 'width'?)"),
        (["train", "dcgan", "-o", "width=x"], 1, "width=x is not a whole number"),
        (["train", "dcgan", "--data", "mnits"], 1, "(did you mean 'mnist'?)"),
        (["train", "dcgan", "--device", "tpu"], 1, "unknown device 'tpu'"),
        (["train", "--resume", "nowhere"], 1, "there is no folder nowhere"),
        (["sample", "nowhere"], 1, "there is no run or checkpoint nowhere"),
        (["sample", "nowhere", "--out", "x.bmp"], 1, "cannot write '.bmp' files"),
        (["info", "dcgam"], 1, "(did you mean 'dcgan'?)"),
        (["report", "nowhere"], 1, "there is no folder nowhere"),
        (["data", "info", "nowhere"], 1, "nowhere"),
    ],
)
def test_mistakes(cli: Cli, arguments: list[str], code: int, text: str) -> None:
    given, out, err = cli(*arguments)
    assert (given, out) == (code, "")
    assert text in err
    assert err.lower().count("error:") == 1


@pytest.mark.parametrize(
    ("error", "code", "text"),
    [
        (MemoryError("Unable to allocate 9 GiB"), 5, "out of memory"),
        (OSError(28, "No space left on device", "/x/y"), 1, "No space left on device"),
        (ZeroDivisionError("division by zero"), 1, "MINIGAN_DEBUG=1"),
        (mg.errors.NumericError("G: loss is nan", fix="lower it"), 3, "fix: lower it"),
        (mg.errors.DataError("file damaged"), 4, "error: file damaged"),
        (mg.errors.CheckpointError("does not fit"), 4, "does not fit"),
        (mg.errors.ShapeError("no"), 1, "error: no"),
        (KeyboardInterrupt(), 130, ""),
    ],
)
def test_exit_codes(
    cli: Cli, monkeypatch: pytest.MonkeyPatch, error: BaseException, code: int, text: str
) -> None:
    def fail(*args: Any) -> None:
        raise error

    monkeypatch.setattr("minigan.cli.info.describe", fail)
    given, _, err = cli("info", "env")
    assert given == code
    assert text in err


def test_debug_shows_tracebacks(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("MINIGAN_DEBUG", "1")
    with pytest.raises(mg.errors.UsageError):
        app.main(["train"])


# Training --------------------------------------------------------------------------------------


def test_a_run_and_its_banner(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    code, out, err = cli(*train(pictures, tmp_path, "--steps", "4", "--seed", "5"))
    assert (code, err) == (0, "")
    for part in ("minigan ", "numpy", "threads", "device cpu (auto)", "24 images, 8x8x1"):
        assert part in out
    for part in ("dcgan", "M parameters", "00000-dcgan-pictures-s5", "seed 5", "budget 4 steps"):
        assert part in out
    assert "done: step 4" in out
    run = RunFolder.open(tmp_path / "00000-dcgan-pictures-s5")
    config = run.config()
    assert config["overrides"]["width"] == 4
    assert config["options"]["lr"] == 2e-4
    assert config["data"]["images"] == 24
    assert len(config["data"]["fingerprint"]) == 64
    assert config["command"].startswith("minigan train dcgan --data ")
    assert out.splitlines()[0] in (run.path / "log.txt").read_text()


def test_resume_needs_only_the_run(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    whole = train(pictures, tmp_path / "a", "--steps", "8", "--seed", "2", "--name", "x")
    assert cli(*whole)[0] == 0
    half = train(pictures, tmp_path / "b", "--steps", "4", "--seed", "2", "--name", "x")
    assert cli(*half)[0] == 0
    run = tmp_path / "b" / "00000-x"
    code, out, _ = cli("train", "--resume", run, "--steps", "8")
    assert code == 0
    assert "resuming at step 4" in out
    first, second = (
        RunFolder.open(tmp_path / name / "00000-x").checkpoints.load() for name in "ab"
    )
    assert all(np.array_equal(second.arrays[k], first.arrays[k]) for k in first.arrays)
    assert first.state["random"] == second.state["random"]
    assert cli("train", "--resume", run)[0] == 0  # nothing left to do
    code, _, err = cli("train", "--resume", run, "--batch", "4")
    assert code == 1
    assert "--batch cannot be changed" in err


def test_changed_data_is_noticed(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    own = tmp_path / "own"
    own.mkdir()
    for path in pictures.iterdir():
        (own / path.name).write_bytes(path.read_bytes())
    assert cli(*train(own, tmp_path / "out", "--steps", "2"))[0] == 0
    Image.fromarray(np.zeros((8, 8), np.uint8)).save(own / "00.png")
    code, _, err = cli("train", "--resume", tmp_path / "out" / "00000-dcgan-pictures-s5")
    assert code == 4
    assert "is not what the run was started with" in err


def test_a_dry_run_writes_nothing(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    out_folder = tmp_path / "out"
    code, out, _ = cli(*train(pictures, out_folder, "-n", "--steps", "50"))
    assert code == 0
    for part in ("G: ", "main.0.weight", "50 steps in about", "nothing was written", "MB"):
        assert part in out
    assert not out_folder.exists()
    code, out, _ = cli(*train(pictures, out_folder, "-n", "--kimg", "1", "--json"))
    plan = json.loads(out)
    assert plan["options"]["width"] == 4
    assert plan["total_seconds"] > 0


def test_json_on_standard_output_only(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    code, out, err = cli(*train(pictures, tmp_path, "--steps", "2", "--json"))
    told = json.loads(out)
    assert code == 0
    assert told["step"] == 2
    assert Path(told["report"]).is_file()
    assert "done: step 2" in err


def test_nan_exits_with_three(cli: Cli, pictures: Path, tmp_path: Path) -> None:
    with np.errstate(all="ignore"):
        code, _, err = cli(*train(pictures, tmp_path, "--steps", "30", "-o", "lr=1e25"))
    assert code == 3
    assert "not step" in err or "NaN or infinity" in err
    assert (tmp_path / "00000-dcgan-pictures-s5" / "crash" / "crash.json").exists()


def test_out_of_memory_exits_with_five(
    cli: Cli, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def hungry(*args: Any) -> None:
        raise MemoryError("Unable to allocate 9 TiB")

    monkeypatch.setattr("minigan.gans.dcgan.DCGAN.start", hungry)
    code, _, err = cli(*train(pictures, tmp_path, "--steps", "3"))
    assert code == 5
    assert "Unable to allocate 9 TiB (batch 8; try --batch 4)" in err


def spawn(*arguments: str) -> subprocess.Popen[str]:
    code = "from minigan.cli import main; main()"
    pipe = subprocess.PIPE
    return subprocess.Popen(
        [sys.executable, "-c", code, *arguments], stdout=pipe, stderr=pipe, text=True
    )


@pytest.mark.skipif(os.name == "nt", reason="signals of POSIX")
def test_ctrl_c_tells_how_to_go_on(pictures: Path, tmp_path: Path) -> None:
    process = spawn(*train(pictures, tmp_path, "--steps", "1000000"))
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step "):
            break
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=60)
    assert process.returncode == 130, err
    assert f"minigan train --resume {tmp_path}/00000-dcgan-pictures-s5" in out
    assert "finishing this step and saving" in err


# Sampling --------------------------------------------------------------------------------------


def samples(path: Path) -> Any:
    with np.load(path, allow_pickle=False) as file:
        return {name: file[name] for name in file.files}


def test_a_seed_gives_one_image_in_any_company(cli: Cli, trained: Path, tmp_path: Path) -> None:
    assert cli("sample", trained, "--seeds", "0-15", "--out", tmp_path / "a.npz")[0] == 0
    assert cli("sample", trained, "--seeds", "7,3", "--out", tmp_path / "b.npz")[0] == 0
    many, two = samples(tmp_path / "a.npz"), samples(tmp_path / "b.npz")
    assert many["images"].shape == (16, 1, 8, 8)
    np.testing.assert_array_equal(two["images"], many["images"][[7, 3]])
    assert two["seeds"].tolist() == [7, 3]
    about = json.loads(str(two["about"]))
    assert about["mode"].startswith("eval: running statistics")
    assert (about["net"], about["step"], about["preset"]) == ("ema", 12, "dcgan")
    assert cli("sample", trained, "--net", "raw", "--out", tmp_path / "c.npz")[0] == 0
    assert not np.array_equal(samples(tmp_path / "c.npz")["images"], many["images"])


def test_a_bare_checkpoint_is_enough(cli: Cli, trained: Path, tmp_path: Path) -> None:
    (bare := tmp_path / "somewhere.safetensors").write_bytes(
        RunFolder.open(trained).checkpoints.paths()[0].read_bytes()
    )
    assert cli("sample", bare, "--seeds", "3", "--out", tmp_path / "a.npy")[0] == 0
    assert cli("sample", trained, "--seeds", "3", "--out", tmp_path / "b.npy")[0] == 0
    a, b = (np.load(tmp_path / name, allow_pickle=False) for name in ("a.npy", "b.npy"))
    np.testing.assert_array_equal(a, b)


def test_grids_and_what_they_say_of_themselves(cli: Cli, trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "grid.png"
    code, text, _ = cli("sample", trained, "--grid", "2x3", "--out", out, "--json")
    assert code == 0
    with Image.open(out) as image:
        assert image.size == (4 * (3 * 8 + 2 * 2), 4 * (2 * 8 + 2))
        about = json.loads(image.info["minigan"])
    told = json.loads(text)
    assert told["images"] == 6
    assert about["seeds"] == told["seeds"] == [0, 1, 2, 3, 4, 5]
    code, _, err = cli("sample", trained, "--grid", "1x2", "--seeds", "0-5", "--out", out)
    assert code == 1
    assert "6 seeds do not fit" in err


@pytest.mark.parametrize("kind", ["slerp", "lerp", "circle"])
@pytest.mark.parametrize("suffix", ["gif", "webp"])
def test_walks(cli: Cli, trained: Path, tmp_path: Path, kind: str, suffix: str) -> None:
    out = tmp_path / f"walk.{suffix}"
    given = ["--interpolate", kind, "--frames", "6", "--grid", "1x2", "--out", out]
    assert cli("sample", trained, *given)[0] == 0
    with Image.open(out) as image:
        assert image.n_frames == 6
        assert image.info.get("loop") == 0
    strip = tmp_path / "strip.png"
    assert cli("sample", trained, *given[:-1], strip)[0] == 0
    with Image.open(strip) as image:
        assert image.size == (4 * (6 * 8 + 5 * 2), 4 * (2 * 8 + 2))
    arrays = tmp_path / "walk.npz"
    assert cli("sample", trained, *given[:-1], arrays)[0] == 0
    assert samples(arrays)["images"].shape == (6, 2, 1, 8, 8)


def test_a_walk_needs_seeds(cli: Cli, trained: Path, tmp_path: Path) -> None:
    given = ["--interpolate", "slerp", "--seeds", "3", "--out", tmp_path / "x.gif"]
    code, _, err = cli("sample", trained, *given)
    assert code == 1
    assert "needs at least 2 seeds" in err


@pytest.mark.parametrize("kind", ["slerp", "lerp", "circle"])
def test_ways_are_closed_and_pass_their_seeds(rng: np.random.Generator, kind: str) -> None:
    way = rng.standard_normal((3, 50)).astype(np.float32)
    assert np.allclose(between(way, 0.0, kind), way[0], atol=1e-6)
    assert np.allclose(between(way, 1 - 1e-9, kind), way[0], atol=1e-5)
    if kind != "circle":
        assert np.allclose(between(way, 1 / 3, kind), way[1], atol=1e-5)
    sphere = way / np.linalg.norm(way, axis=1, keepdims=True)
    if kind == "slerp":
        norms = [np.linalg.norm(between(sphere, t, kind)) for t in np.linspace(0, 0.99, 20)]
        assert np.allclose(norms, 1.0, atol=1e-5)
    assert between(way, 0.4, kind).dtype == np.float32


def test_a_checkpoint_of_an_unknown_gan(cli: Cli, tmp_path: Path) -> None:
    from minigan.training.checkpoint import save

    path = tmp_path / "x.safetensors"
    save(path, {}, {"step": 1, "config": {"preset": "future", "options": {}}})
    code, _, err = cli("sample", path)
    assert code == 4
    assert "'future', which is no preset here" in err


def test_a_plain_weight_file_is_no_checkpoint(cli: Cli, tmp_path: Path) -> None:
    from minigan.weights import save_file

    path = tmp_path / "x.safetensors"
    save_file(path, {"w": np.zeros(3)})
    code, _, err = cli("sample", path)
    assert code == 4
    assert "no checkpoint of a training run" in err
    code, out, _ = cli("info", path)
    assert code == 0
    assert "float64  3" in out


# Info, report, data ----------------------------------------------------------------------------


def test_info_of_everything(cli: Cli, trained: Path) -> None:
    code, out, _ = cli("info", trained)
    assert code == 0
    assert "step-000012.safetensors" in out
    assert "options.width        4" in out
    path = RunFolder.open(trained).checkpoints.paths()[0]
    code, out, _ = cli("info", path, "--json")
    facts = json.loads(out)
    assert facts["state"]["step"] == 12
    assert facts["tensors"]["networks.G.main.0.weight"] == ["float32", [4, 4, 4, 4]]
    assert "optimizers.G.step" in cli("info", path)[1]
    assert json.loads(cli("info", "dcgan", "--json")[1])["options"]["size"] == 28
    assert "main.0.weight" in cli("info", "dcgan")[1]
    assert json.loads(cli("info", "env", "--json")[1])["minigan"] == mg.__version__


def test_report_of_one_and_of_two(cli: Cli, trained: Path, tmp_path: Path) -> None:
    code, out, _ = cli("report", trained, "--out", tmp_path / "one.html", "--json")
    assert code == 0
    assert json.loads(out)["bytes"] == (tmp_path / "one.html").stat().st_size
    code, out, _ = cli("report", trained, trained, "--out", tmp_path / "two.html")
    assert code == 0
    assert "2 runs side by side" in (tmp_path / "two.html").read_text()


def test_data_commands(
    cli: Cli, pictures: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("MINIGAN_OFFLINE", "1")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    monkeypatch.delenv("MINIGAN_DATA", raising=False)
    names = [one["name"] for one in json.loads(cli("data", "list", "--json")[1])]
    assert {"mnist", "digits"} <= set(names)
    assert "minigan data get mnist" in cli("data", "list")[1]
    assert "60,000" in cli("data", "info", "mnist")[1]
    facts = json.loads(cli("data", "info", pictures, "--json")[1])
    assert facts["images"] == 24
    assert facts["sizes"] == {"8x8": 24}
    assert cli("data", "check", pictures) == (0, "all is well\n", "")
    code, _, err = cli("data", "get", "mnist")
    assert code == 4
    assert "MINIGAN_OFFLINE" in err
    out = tmp_path / "p.png"
    assert cli("data", "preview", pictures, "--size", "8", "--out", out)[0] == 0
    assert out.stat().st_size > 0
    broken = tmp_path / "broken"
    broken.mkdir()
    (broken / "a.png").write_bytes((pictures / "00.png").read_bytes()[:70])
    (broken / "b.png").write_bytes((pictures / "00.png").read_bytes())
    code, text, _ = cli("data", "check", broken)
    assert code == 4
    assert "damaged" in text
    assert "a.png" in text


# Imports ---------------------------------------------------------------------------------------


def test_help_imports_nothing_heavy() -> None:
    code = (
        "import sys; from minigan.cli import app\n"
        "try: app.main(['train', '--help'])\n"
        "except SystemExit: pass\n"
        "heavy = {'numba', 'rich', 'PIL', 'safetensors', 'torch', 'minigan.gans', 'minigan.data',"
        "'minigan.training'} & set(sys.modules); assert not heavy, heavy"
    )
    subprocess.run([sys.executable, "-c", code], check=True, stdout=subprocess.DEVNULL)


def test_help_reaches_no_network_thread_or_file(tmp_path: Path) -> None:
    code = (
        "import sys, threading, os\n"
        "bad = []\n"
        "def hook(event, args):\n"
        "    writes = event == 'open' and isinstance(args[1], str) and set(args[1]) & set('wax+')\n"
        "    if event.startswith('socket.') or writes: bad.append((event, args))\n"
        "sys.addaudithook(hook)\n"
        "import minigan, minigan.training, minigan.cli\n"
        "assert threading.active_count() == 1\n"
        "assert not bad, bad\n"
    )
    environment = {**os.environ, "PYTHONDONTWRITEBYTECODE": "1"}
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path, env=environment)
    assert not list(tmp_path.iterdir())


def test_a_closed_pipe_is_no_error(trained: Path) -> None:
    process = spawn("info", str(trained))
    assert process.stdout is not None
    process.stdout.close()
    assert process.stderr is not None
    time.sleep(0)
    assert "Traceback" not in process.stderr.read()
    process.wait()
    process.stderr.close()


def test_info_alone_lists_the_presets(cli: Cli) -> None:
    code, out, _ = cli("info")
    lines = out.splitlines()
    assert code == 0 and len(lines) == len(gans.PRESETS)
    assert lines[0].startswith("dcgan ") and all(": " in line for line in lines)
