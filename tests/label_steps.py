"""Plays the steps of fixtures/make_label_fixtures.py through minigan's own games."""

from __future__ import annotations

import sys
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np

import minigan as mg
from minigan import gans, optim
from minigan.data.coupled import LabelBatch
from minigan.training.guard import Guard
from minigan.training.step import take_step

FIXTURES = Path(__file__).parent / "fixtures"
sys.path.insert(0, str(FIXTURES))

from make_label_fixtures import (  # noqa: E402 (needs no torch)
    GAMES,
    STEPS,
    data,
    edges,
    numbers,
    probed,
)

__all__ = ["compare", "compare_stored", "edges", "numbers", "play"]


def batch_of(arrays: dict[str, Any]) -> LabelBatch:
    n = len(arrays["photos"])
    return LabelBatch(arrays["photos"], arrays["labels"], arrays["instances"], None, np.arange(n))


def float64_game(kind: str) -> Any:
    """The game with the numbers of the fixture as weights."""
    mg.manual_seed(0)
    game: Any = gans.make(kind.partition("-")[0], **GAMES[kind])
    for name, net in game.networks.items():
        net.astype(np.float64)
        state = {key: numbers(key, a.shape, name) for key, a in net.state_dict().items()}
        net.load_state_dict(state)
    for player in game.players:
        old: Any = player.optimizer
        player.optimizer = optim.Adam(player.parameters, old.lr, old.betas)
    return game


def play(kind: str) -> dict[str, Any]:
    """The counterpart of make_label_fixtures.play."""
    game, arrays = float64_game(kind), data(kind)
    draws: Iterator[Any] = iter(arrays["noise"])
    game.noise = lambda rng, n: next(draws)
    out: dict[str, Any] = {"losses": []}
    first: dict[int, Any] = {}
    for player in game.players:
        player.optimizer.step = noting(player.optimizer, first)
    batch = batch_of(arrays)
    for _ in range(STEPS):
        figures: Any = take_step(game, batch, Guard(game))
        out["losses"].append([figures["loss_G"].item(), figures["loss_D"].item()])
    out["losses"] = np.array(out["losses"])
    for name, net in game.networks.items():
        for key, p in net.named_parameters():
            out[f"grad.{name}.{key}"] = first[id(p)]
    out["image"] = picture(game, batch, arrays["noise"][0])
    return out


def noting(optimizer: Any, first: dict[int, Any]) -> Any:
    """`optimizer.step` that keeps the first gradient of each parameter."""
    step = optimizer.step

    def noted(grads: Any) -> None:
        for p, g in zip(optimizer.params, grads, strict=True):
            first.setdefault(id(p), g.data.copy())
        step(grads)

    return noted


def picture(game: Any, batch: Any, eps: Any) -> Any:
    """What the fixture calls image: in eval mode, with the style of the photo."""
    for net in game.networks.values():
        net.eval()
    with mg.no_grad():
        if "E" in game.networks and not game.simultaneous:
            game.noise = lambda rng, n: eps
        game.start(batch)
        fake = game.fake if game.simultaneous else game.generate()[0]
    return fake.numpy()


def compare(ours: dict[str, Any], theirs: dict[str, Any], tolerance: float = 1e-10) -> None:
    """First losses and gradients to 1e-10, the later ones and the last image to 1e-6."""
    np.testing.assert_allclose(ours["losses"][0], theirs["losses"][0], rtol=tolerance)
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=1e-6)
    np.testing.assert_allclose(ours["image"], theirs["image"], atol=1e-6)
    names = [name for name in theirs if name.startswith("grad.")]
    assert set(names) == {name for name in ours if name.startswith("grad.")}
    largest = max(float(np.abs(theirs[name]).max()) for name in names)
    for name in names:
        # A bias before instance norm has the gradient 0; what is left of it is rounding.
        scale = max(float(np.abs(theirs[name]).max()), 1e-3 * largest)
        np.testing.assert_allclose(
            ours[name], theirs[name], rtol=0, atol=tolerance * scale, err_msg=name
        )


def compare_stored(kind: str) -> None:
    """Against label_gans.npz."""
    stored = np.load(FIXTURES / "label_gans.npz")
    theirs = {name: stored[f"{kind}/{name}"] for name in ("losses", "image", "names", "grads")}
    ours = probed(play(kind))
    assert str(ours["names"]) == str(theirs["names"])
    np.testing.assert_allclose(ours["losses"][0], theirs["losses"][0], rtol=1e-10)
    np.testing.assert_allclose(ours["losses"], theirs["losses"], rtol=1e-6)
    np.testing.assert_allclose(ours["image"], theirs["image"], atol=1e-6)
    scale = np.abs(theirs["grads"]).max()
    np.testing.assert_allclose(ours["grads"], theirs["grads"], rtol=1e-8, atol=1e-11 * scale)
