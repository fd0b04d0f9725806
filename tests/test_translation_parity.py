"""pix2pix and CycleGAN against PyTorch: networks, names, numbers of parameters, whole steps."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np
import pytest
from fixtures import make_translation_fixture as fixture

import minigan as mg
from minigan import gans, nn, weights
from minigan.gans.patches import PatchGAN, PixelGAN
from minigan.gans.residual_generator import ResNetGenerator
from minigan.gans.unet import UNet
from minigan.nn import linear

OPTIONS: dict[str, dict[str, Any]] = {
    "pix2pix": {"channels": 2, "channels_a": 3, "levels": 5, "patch": 16},
    "cyclegan": {"channels": 2, "blocks": 1, "patch": 16, "lambda_b": 8.0, "pool": 4},
}


def float64_game(case: str) -> Any:
    height, size = fixture.SIDES[case]
    sizes = {"size": size, "height": height, "width": 2, "width_d": 2, "previews": 1}
    game: Any = gans.make(case, **sizes, **OPTIONS[case])
    for name, net in game.networks.items():
        net.astype("float64")
        fill(net, name)
    for pool in (part for key, part in game.parts().items() if key.startswith("pools")):
        pool.astype("float64")
    game.make_players()
    return game


def own(game: Any, player: str) -> list[str]:
    """The names of a player's parameters."""
    nets = {k: n for k, n in game.networks.items() if (k[0] == "D") == (player == "D")}
    return [f"{k}.{name}" for k, net in nets.items() for name, _ in net.named_parameters()]


def fill(net: nn.Module, name: str) -> nn.Module:
    """The weights that the fixture's networks have."""
    for key, parameter in net.named_parameters():
        parameter.data = fixture.weight_like(f"{name}.{key}", parameter.shape)
    return net


def play(case: str) -> dict[str, Any]:
    """The counterpart of fixture.play, through the game's own turns."""
    game, out = float64_game(case), {}
    for step, (a, b) in enumerate(zip(*fixture.pictures(case), strict=True)):
        game.start(SimpleNamespace(a=a, b=b))
        for player in game.players:
            losses = player.losses()
            out |= {f"{step}.{name}": loss.data for name, loss in losses.items()}
            total = sum(losses.values(), start=mg.tensor(np.zeros(())))
            grads = mg.grad(total, player.parameters)
            if step == 0:
                nets = [n for n in game.networks if n in {"D": "D D_A D_B"}.get(player.name, "G F")]
                names = [
                    f"{n}.{key}" for n in nets for key, _ in game.networks[n].named_parameters()
                ]
                for name, g in zip(names, grads, strict=True):
                    assert g is not None
                    out[f"grad.{name}"] = g.data
            player.optimizer.step(grads)
    for name, net in game.networks.items():
        out |= {f"final.{name}.{key}": value for key, value in net.state_dict().items()}
    made = {"pix2pix": ("fake",), "cyclegan": ("fake_a", "fake_b")}[case]
    return out | {f"out.{name}": getattr(game, name).data for name in made}


def compare(ours: dict[str, Any], theirs: dict[str, Any]) -> None:
    """Losses and gradients of the first step to 1e-10; what Adam made of them to 1e-7."""
    assert ours.keys() == theirs.keys() and len(ours) > 40
    for name, value in theirs.items():
        exact = name.startswith(("0.", "grad"))
        scale = max(1e-12, float(np.abs(value).max()))
        if "bias" in name and name.startswith("grad"):
            scale = max(scale, 1.0)  # before a norm the gradient is 0 but for rounding
        np.testing.assert_allclose(
            ours[name], value, rtol=0, atol=(1e-10 if exact else 1e-7) * scale, err_msg=name
        )


@pytest.mark.parametrize("case", OPTIONS)
def test_steps_equal_the_stored_pytorch_run(case: str) -> None:
    stored = dict(np.load(fixture.OUT))
    theirs = {k.removeprefix(f"{case}/"): v for k, v in stored.items() if k.startswith(case)}
    compare(fixture.digest(play(case)), theirs)


@pytest.mark.torch
@pytest.mark.parametrize("case", OPTIONS)
def test_steps_equal_pytorch_live(case: str) -> None:
    pytest.importorskip("torch")
    compare(play(case), fixture.play(case))


def test_numbers_of_parameters_are_the_published_ones(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(linear, "uniform", lambda shape, bound: np.zeros(shape, np.float32))
    published = [
        (UNet(), 54_413_955),
        (UNet(levels=7), 41_828_995),
        (UNet(norm="instance"), 54_409_603),
        (PatchGAN(6), 2_768_705),
        (PatchGAN(3, norm="instance"), 2_764_737),
        (PixelGAN(6), 9_024),
        (ResNetGenerator(), 11_378_179),
        (ResNetGenerator(blocks=6), 7_837_699),
    ]
    for net, count in published:
        assert net.num_parameters() == count


NETWORKS: dict[str, tuple[Any, Any, int]] = {
    "unet": (lambda: UNet(3, 2, 6, 2, dropout=0.0), lambda: fixture.unet(3, 2, 6, 2), 64),
    "unet, dropout": (lambda: UNet(3, 2, 6, 2), lambda: fixture.unet(3, 2, 6, 2), 64),
    "unet, instance": (
        lambda: UNet(3, 2, 5, 2, "instance", 0.0),
        lambda: fixture.unet(3, 2, 5, 2, "instance"),
        32,
    ),
    "resnet 6": (
        lambda: ResNetGenerator(3, 2, 2, 6),
        lambda: fixture.residual_generator(3, 2, 2, 6),
        20,
    ),
    "resnet, dropout": (
        lambda: ResNetGenerator(3, 2, 2, 2, dropout=0.5),
        lambda: fixture.residual_generator(3, 2, 2, 2, dropout=True),
        20,
    ),
    **{
        f"patches {n} {norm}": (
            lambda n=n, norm=norm: PatchGAN(3, 2, n, norm),
            lambda n=n, norm=norm: fixture.patch_gan(3, 2, n, norm),
            32,
        )
        for n in (1, 2, 3)
        for norm in ("batch", "instance")
    },
    "pixels": (lambda: PixelGAN(3, 2), lambda: fixture.pixel_gan(3, 2), 8),
}


@pytest.mark.torch
@pytest.mark.parametrize("dtype", ["float64", "float32"])
@pytest.mark.parametrize("name", NETWORKS)
def test_networks_of_a_pth_file(name: str, dtype: str, tmp_path: Path) -> None:
    """A state dictionary of PyTorch loads by name and gives the same output, in both modes."""
    torch = pytest.importorskip("torch")
    make_ours, make_theirs, side = NETWORKS[name]
    theirs, ours = fixture.fill(make_theirs(), name), make_ours().astype(dtype)
    torch.save(theirs.state_dict(), tmp_path / "net.pth")
    weights.load(ours, tmp_path / "net.pth")
    assert ours.num_parameters() == sum(p.numel() for p in theirs.parameters())
    x = np.random.RandomState(1).standard_normal((2, 3, side, side))
    for training in [False] if "dropout" in name else [False, True]:
        theirs.train(training), ours.train(training)
        expected = theirs.forward(torch.tensor(x)).detach().numpy()
        given = ours(mg.tensor(x.astype(dtype))).numpy()
        tolerance = 1e-9 if dtype == "float64" else 1e-4
        np.testing.assert_allclose(given, expected, rtol=0, atol=tolerance * np.abs(expected).max())
