"""One file per GAN. `make("dcgan", size=32)` builds a game; `options` tells what can be set."""

from __future__ import annotations

import inspect
from typing import Any

from minigan.errors import UsageError, did_you_mean
from minigan.gans.acgan import ACGAN
from minigan.gans.began import BEGAN
from minigan.gans.biggan import BigGAN
from minigan.gans.cgan import CGAN
from minigan.gans.cyclegan import CycleGAN
from minigan.gans.dcgan import DCGAN
from minigan.gans.game import Game, Player
from minigan.gans.gaugan import GauGAN
from minigan.gans.infogan import InfoGAN
from minigan.gans.lsgan import LSGAN
from minigan.gans.pacgan import PacGAN
from minigan.gans.pix2pix import Pix2Pix
from minigan.gans.pix2pixhd import Pix2PixHD
from minigan.gans.projection import Projection
from minigan.gans.r1gan import R1GAN
from minigan.gans.sagan import SAGAN
from minigan.gans.sngan import SNGAN
from minigan.gans.spade import Spade
from minigan.gans.unrolled import UnrolledGAN
from minigan.gans.vanilla import Vanilla
from minigan.gans.wgan import WGAN
from minigan.gans.wgan_gp import WGANGP

__all__ = ["PRESETS", "Game", "Player", "make", "options"]

# preset name -> (class, what differs from the defaults of the class)
PRESETS: dict[str, tuple[type[Game], dict[str, Any]]] = {
    # Small enough to learn digits in minutes on two cores. At this width D wins for good within 200
    # steps on some seeds (seed 1 of the procedural digits) unless it learns half as fast.
    "dcgan": (DCGAN, {"width": 32, "lr_d": 1e-4}),
    "dcgan64": (DCGAN, {"size": 64, "channels": 3, "width": 128}),  # 1024 maps at 4x4
    "vanilla": (Vanilla, {}),
    "vanilla-maxout": (
        Vanilla,
        {"form": "maxout", "width": 240, "optimizer": "sgd", "lr": 0.1, "lr_d": 0.05, "ema": 0.0},
    ),
    "lsgan": (LSGAN, {"width": 32, "lr": 4e-4, "lr_d": 1e-4}),  # or D wins, as in dcgan
    "wgan": (WGAN, {"width": 32, "lr": 5e-4, "lr_d": 5e-4}),
    "wgan-gp": (WGANGP, {"width": 32, "d_steps": 3, "lr": 3e-4, "lr_d": 3e-4}),
    "sngan": (
        SNGAN,
        {"size": 28, "channels": 1, "width": 32, "body": "dcgan", "d_steps": 1, "lr_d": 4e-4}
        | {"beta1": 0.5, "beta2": 0.999},
    ),
    "sngan32": (SNGAN, {}),  # the paper's network
    "r1gan": (R1GAN, {"width": 32, "penalty_weight": 0.1, "lr": 5e-4, "lr_d": 5e-4, "ema": 0.99}),
    "projection": (Projection, {}),
    "sagan": (SAGAN, {}),
    "biggan": (BigGAN, {}),
    "cgan": (CGAN, {}),
    "cgan-mlp": (CGAN, {"body": "mlp"}),
    "acgan": (ACGAN, {}),
    "infogan": (InfoGAN, {}),
    "began": (BEGAN, {}),
    "pacgan": (PacGAN, {}),
    "unrolled": (UnrolledGAN, {}),
    "pix2pix": (Pix2Pix, {}),
    "pix2pix128": (Pix2Pix, {"size": 128, "width": 24, "width_d": 24}),
    "cyclegan": (CycleGAN, {}),
    "cyclegan128": (CycleGAN, {"size": 128, "blocks": 6, "width": 16, "width_d": 24}),
    "pix2pixhd": (Pix2PixHD, {}),
    "spade": (Spade, {}),
    "spade64": (Spade, {"width": 16, "most": 64}),  # G has 0.9 million parameters
    "spade128": (Spade, {"size": 128, "upsamplings": 6, "most": 96}),
    "spade256": (
        Spade,  # the paper's networks and rates
        {"size": 256, "width": 64, "width_d": 64, "hidden": 128, "layers": 4}
        | {"lr": 1e-4, "lr_d": 4e-4},
    ),
    # With the paper's norm_e="instance" the encoder hardly sees the hour of a picture.
    "gaugan": (GauGAN, {"start": "noise", "width": 16, "most": 64, "norm_e": "none"}),
    "cyclegan64": (CycleGAN, {"size": 64, "blocks": 3, "width": 16, "width_d": 24, "patch": 34}),
}


def options(name: str) -> dict[str, Any]:
    """Return the options of a preset and their defaults."""
    if name not in PRESETS:
        raise UsageError(
            f"unknown preset '{name}'{did_you_mean(name, PRESETS)}",
            fix=f"use one of {', '.join(PRESETS)}",
        )
    game, preset = PRESETS[name]
    return defaults(game) | getattr(game, "recipe", {}) | preset


def defaults(game: type[Game]) -> dict[str, Any]:
    """Options of a class; where its `__init__` passes on **recipe, also those of its base."""
    found: dict[str, Any] = {}
    for cls in game.__mro__:
        if "__init__" not in vars(cls):
            continue
        parameters = inspect.signature(vars(cls)["__init__"]).parameters.values()
        own = {p.name: p.default for p in parameters if p.kind is not p.POSITIONAL_ONLY}
        found |= {k: v for k, v in own.items() if v is not inspect.Parameter.empty} | found
        if not any(p.kind is p.VAR_KEYWORD for p in parameters):
            break
    return found


def make(name: str, **overrides: Any) -> Game:
    """Build the game of a preset with some options replaced."""
    known = options(name)
    for key in overrides:
        if key not in known:
            raise UsageError(
                f"{name}: unknown option '{key}'{did_you_mean(key, known)}",
                fix=f"options are {', '.join(known)}",
            )
    chosen = known | overrides
    game = PRESETS[name][0](**chosen)
    game.name, game.options = name, chosen
    return game
