"""The figures of a game: draw from its generator as `minigan sample` would, then measure."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.gans.game import Game
from minigan.metrics.classifier import to_bytes
from minigan.metrics.evaluator import Evaluator
from minigan.random import generator

Array = npt.NDArray[Any]

QUICK, FULL = 2_000, 10_000  # images for a look during training, and for a figure to publish
_CHUNK = 500


def measure_game(
    judge: Evaluator, game: Game, n: int = FULL, *, net: str = "ema", seed: int = 0
) -> dict[str, float]:
    """Return the figures of n images of a game; it is left as it was, and no stream is touched.

    A game with classes is asked for those of the reference, and its `class_accuracy` is measured.

    Parameters
    ----------
    net : "ema" (the raw weights if there is no average) or "raw".
    seed : of the noise; the same in every call, so that figures of two steps compare.
    """
    z = game.noise(generator(seed, "metrics noise", 0), n)
    classes = getattr(game, "classes", 0)
    labels = judge.requested_labels(n, classes) if classes else None
    images = draw(game, z, labels, net)
    return judge.measure(images, labels)


def draw(game: Game, z: Array, labels: Array | None, net: str) -> npt.NDArray[np.uint8]:
    """Images of noise z, as bytes, some at a time."""
    drawn = []
    for start in range(0, len(z), _CHUNK):
        where = slice(start, start + _CHUNK)
        chosen = None if labels is None else labels[where]
        images = game.sample(z[where], net=net, labels=chosen)
        drawn.append(to_bytes(np.clip(images, -1, 1)))  # a generator need not end in tanh
    return np.concatenate(drawn)


def line(judge: Evaluator, figures: dict[str, float], net: str) -> dict[str, Any]:
    """The figures as a line of metrics.jsonl: with the net, and those of real images."""
    floor = judge.floor(int(figures["n"]))
    floors = {f"floor.{name}": floor[name] for name in figures if name in floor and name != "n"}
    return {**figures, "net": net, **floors}


def hook(judge: Evaluator, n: int | None = None) -> Callable[[Game], dict[str, Any]]:
    """What `train(..., evaluate=)` wants: measures n images of a game (2,000), the FID first."""

    def evaluate(game: Game) -> dict[str, Any]:
        net = "ema" if game.ema else "raw"
        return line(judge, measure_game(judge, game, n or QUICK, net=net), net)

    return evaluate
