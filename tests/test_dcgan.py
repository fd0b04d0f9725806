"""DCGAN: shapes of the paper, parity with PyTorch step for step, the training order."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest

import minigan as mg
from minigan import data, gans
from minigan.errors import UsageError
from minigan.gans.dcgan import DCGAN, Discriminator, Generator, pyramid

FIXTURE = Path(__file__).parent / "fixtures" / "dcgan_steps.npz"


def float64_game(weights: dict[str, Any], nz: int, width: int) -> DCGAN:
    game = DCGAN(size=28, nz=nz, width=width, previews=4)
    for name, net in game.networks.items():
        net.astype(np.float64)
        prefix = f"{name}."
        net.load_state_dict(
            {f"main.{k.removeprefix(prefix)}": v for k, v in weights.items() if k[:2] == prefix}
        )
    game.players = [
        game.player("D", game.D, game.d_losses, 2e-4, 0.5),
        game.player("G", game.G, game.g_losses, 2e-4, 0.5),
    ]
    return game


def play(weights: dict[str, Any], real: Any, noise: Any, nz: int, width: int) -> dict[str, Any]:
    """The counterpart of fixtures/make_dcgan_fixture.play, through the game's own turns."""
    game = float64_game(weights, nz, width)
    out: dict[str, Any] = {}
    losses = []
    for step, z in enumerate(noise):
        game.noise = lambda rng, n, z=z: z  # type: ignore[method-assign]
        game.start(SimpleNamespace(images=real))
        totals = {}
        for player in game.players:
            total = sum(player.losses().values(), start=mg.tensor(np.zeros(())))
            grads = mg.grad(total, player.parameters)
            if step == 0:
                names = [n for n, _ in game.networks[player.name].named_parameters()]
                for name, g in zip(names, grads, strict=True):
                    assert g is not None
                    out[f"grad.{player.name}.{name.removeprefix('main.')}"] = g.data
            player.optimizer.step(grads)
            totals[player.name] = total.item()
        losses.append((totals["D"], totals["G"]))
    out["losses"] = np.array(losses)
    for name, net in game.networks.items():
        for key, value in net.state_dict().items():
            out[f"final.{name}.{key.removeprefix('main.')}"] = value
    return out


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    np.testing.assert_allclose(ours["losses"][0], theirs["losses"][0], rtol=1e-10)
    # 50 steps of Adam amplify rounding: early on it divides by sqrt(v) of tiny gradients.
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=1e-6)
    names = [n for n in theirs if n.startswith(("grad.", "final."))]
    assert len(names) == len([n for n in ours if n != "losses"]) and len(names) > 20
    for name in names:
        scale = np.abs(theirs[name]).max()
        tolerance = 1e-10 if name.startswith("grad.") else 1e-6
        np.testing.assert_allclose(
            ours[name], theirs[name], rtol=0, atol=tolerance * scale, err_msg=name
        )


def test_steps_equal_the_stored_pytorch_run() -> None:
    stored = dict(np.load(FIXTURE))
    weights = {k.removeprefix("initial."): v for k, v in stored.items() if k.startswith("initial.")}
    compare(play(weights, stored["real"], stored["noise"], 8, 4), stored)


@pytest.mark.torch
def test_steps_equal_pytorch_live() -> None:
    pytest.importorskip("torch")
    from fixtures import make_dcgan_fixture as fixture

    weights, real, noise = fixture.start()
    theirs = fixture.play(weights, real, noise, fixture.NZ, fixture.WIDTH)
    compare(play(weights, real, noise, fixture.NZ, fixture.WIDTH), theirs)


def test_the_paper_has_1024_maps_at_4x4() -> None:
    G = Generator(64, 3, 100, width=128)
    assert G.main[0].weight.shape == (100, 1024, 4, 4)
    assert sum(p.size for p in G.parameters()) == 12_658_432  # as counted in PyTorch
    assert sum(p.size for p in Discriminator(64, 3, width=128).parameters()) == 11_036_160
    assert sum(p.size for p in Generator(64, 3, 100, 64).parameters()) == 3_576_704
    names = [name for name, _ in G.named_parameters() if name.endswith("weight")]
    assert names == [f"main.{i}.weight" for i in (0, 1, 3, 4, 6, 7, 9, 10, 12)]


@pytest.mark.parametrize("size", [28, 32, 64])
def test_shapes_and_range(size: int) -> None:
    game = gans.make("dcgan", size=size, width=4, channels=3, previews=5)
    z = game.noise(mg.random.generator(0, "z", 0), 5)
    images = game.sample(z)
    assert images.shape == (5, 3, size, size) and images.dtype == np.float32
    assert np.abs(images).max() <= 1
    assert game.networks["D"](mg.tensor(images)).shape == (5,)


def test_an_image_depends_on_its_own_noise_alone() -> None:
    game = gans.make("dcgan", width=4, previews=4)
    z = game.noise(mg.random.generator(0, "z", 0), 6)
    together, alone = game.sample(z), game.sample(z[2:3])
    np.testing.assert_allclose(together[2:3], alone, atol=1e-6)


def test_initialisation_of_the_paper() -> None:
    G = gans.make("dcgan", size=32, width=32).networks["G"]
    weight, gamma = G.main[3].weight.data, G.main[4].weight.data
    assert abs(weight.std() - 0.02) < 0.001 and abs(weight.mean()) < 0.001
    assert abs(gamma.mean() - 1) < 0.02 and not G.main[4].bias.data.any()


def test_d_turn_leaves_g_alone_and_g_turn_sees_the_new_d() -> None:
    game = gans.make("dcgan", width=4, previews=4)
    game.start(SimpleNamespace(images=np.zeros((4, 1, 28, 28), np.float32)))
    d_loss = sum(game.players[0].losses().values(), start=mg.tensor(0.0))
    assert mg.grad(d_loss, game.players[1].parameters, retain_graph=True) == [None] * len(
        game.players[1].parameters
    )
    before = game.players[1].losses()["loss_g"].item()
    game.players[0].optimizer.step(mg.grad(d_loss, game.players[0].parameters))
    assert game.players[1].losses()["loss_g"].item() != before


def test_errors() -> None:
    with pytest.raises(UsageError, match="no pyramid of doublings ends at 30 pixels"):
        pyramid(30)
    with pytest.raises(UsageError, match=r"did you mean 'dcgan'"):
        gans.make("dcgam")
    with pytest.raises(UsageError, match=r"unknown option 'widht' \(did you mean 'width'\?\)"):
        gans.make("dcgan", widht=3)


def test_the_example_and_the_preset_are_one_network() -> None:
    """Same names, shapes and first images, so that `minigan sample` opens runs of the example."""
    import importlib.util

    path = Path(__file__).parent.parent / "examples" / "dcgan_mnist.py"
    spec = importlib.util.spec_from_file_location("dcgan_mnist", path)
    assert spec is not None and spec.loader is not None
    example = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(example)
    mg.manual_seed(3)
    theirs = example.DigitGame()
    mg.manual_seed(3)
    ours = gans.make("dcgan", **theirs.options)
    assert list(ours.state_dict()) == list(theirs.state_dict())
    for name, array in ours.state_dict().items():
        np.testing.assert_array_equal(array, theirs.state_dict()[name], err_msg=name)
    np.testing.assert_array_equal(ours.preview()["fakes"], theirs.preview()["fakes"])


_PLAYER = """
import sys
import minigan as mg
from minigan import data
from minigan import data, gans
from minigan.training import RunFolder, train
mg.manual_seed(5)
game = gans.make("dcgan", width=8, previews=16)
batches = data.Batches(data.load("digits", limit=640), 16, seed=5)
run = RunFolder.open(sys.argv[1])
with data.Prefetch(batches) as ahead:
    train(game, ahead, run, steps=200, resume=True, tick=10, preview=50, checkpoint=20)
"""


@pytest.mark.slow
def test_200_steps_equal_100_and_sigkill_and_100(tmp_path: Path) -> None:
    """Weights, optimizers, averages, counters, figures and pictures, bit for bit."""
    import signal
    import subprocess
    import sys

    from test_training_loop import assert_same

    from minigan.training import RunFolder

    whole, killed = (RunFolder.create(tmp_path, name) for name in ("whole", "killed"))
    for run in (whole, killed):
        run.write_config({})
    command = [sys.executable, "-u", "-c", _PLAYER]
    subprocess.run([*command, str(whole.path)], check=True, capture_output=True, timeout=600)
    process = subprocess.Popen([*command, str(killed.path)], stdout=subprocess.PIPE, text=True)
    assert process.stdout is not None
    for line in process.stdout:
        if line.startswith("step ") and int(line.split()[1]) >= 100:
            process.send_signal(signal.SIGKILL)
            break
    process.communicate()
    assert process.returncode == -signal.SIGKILL
    assert 80 <= killed.checkpoints.load().step < 200
    subprocess.run([*command, str(killed.path)], check=True, capture_output=True, timeout=600)
    assert_same(whole, killed)


def test_the_command_line_resumes_and_samples_runs_of_the_example(tmp_path: Path) -> None:
    import subprocess
    import sys

    example = Path(__file__).parent.parent / "examples" / "dcgan_mnist.py"

    def run(*command: str) -> str:
        done = subprocess.run(
            [sys.executable, *command], cwd=tmp_path, capture_output=True, text=True, timeout=250
        )
        assert done.returncode == 0, done.stdout + done.stderr
        return done.stdout

    images = tmp_path / "images"
    images.mkdir()
    for i in range(64):
        data.save_png(images / f"{i}.png", np.full((28, 28, 1), 3 * i, np.uint8))
    run(str(example), "--data", "images", "--steps", "2", "--out", "runs")
    (folder,) = (tmp_path / "runs").iterdir()
    text = run("-m", "minigan", "train", "--resume", str(folder), "--steps", "3")
    assert "resuming at step 2" in text and "step 3" in text
    run("-m", "minigan", "sample", str(folder), "--grid", "2x2", "--out", "x.png")
    assert (tmp_path / "x.png").stat().st_size > 100
