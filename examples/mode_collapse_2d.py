"""Mode collapse, and three remedies, in two dimensions where one can see it.

    python examples/mode_collapse_2d.py           a few minutes; writes mode_collapse_2d.png

Eight Gaussians on a ring, 25 on a grid, and G and D small networks:

    vanilla    L_D = BCE(D(x), 1) + BCE(D(G(z)), 0),   L_G = BCE(D(G(z)), 1)
    unrolled   G plays against D as it will be k steps later (Metz et al. 2016)
    pacgan     D sees two samples at once, so it notices if they are alike (Lin et al. 2017)
    wgan-gp    D estimates a distance, and a penalty keeps it smooth (Gulrajani et al. 2017)

"good" samples lie within three standard deviations of a centre. Of 2500, "modes" have at least
one, "half" at least half of their share.
"""

from __future__ import annotations

import argparse
import itertools
import os
from concurrent.futures import ProcessPoolExecutor
from dataclasses import dataclass
from multiprocessing import get_context
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import minigan as mg
import minigan.functional as F
from minigan import nn, optim, random
from minigan.gans.unrolled import weights
from minigan.metrics.modes import Mixture, grid, ring
from minigan.penalties import penalty

TARGETS = {"ring": ring(8, sigma=0.01), "grid": grid(5, spacing=0.5, sigma=0.0125)}
NZ, WIDTH, BATCH, LR = 2, 128, 256, 2e-3
PIXELS, WINDOW = 240, 1.3  # a picture shows [-WINDOW, WINDOW] in both directions
bce = F.binary_cross_entropy_with_logits


def mlp(*sizes: int) -> nn.Sequential:
    pairs = itertools.pairwise(sizes)
    layers = [layer for pair in pairs for layer in (nn.Linear(*pair), nn.ReLU())]
    return nn.Sequential(*layers[:-1])


@dataclass
class Game:
    """G against D; what the games differ in are options."""

    steps: int = 6000  # of G
    turns: int = 1  # of D in each of them
    gp: float = 0.0  # weight of the gradient penalty; with one, D is a Wasserstein critic
    pack: int = 1  # samples that D sees at once
    hidden: int = 3  # layers of D
    ahead: int = 0  # k, the steps of D that G looks ahead
    eta: float = 0.1  # and their rate

    def __post_init__(self) -> None:
        self.G = mlp(NZ, *[WIDTH] * 3, 2)
        self.D = mlp(2 * self.pack, *[WIDTH] * self.hidden, 1)
        for net in () if self.gp else (self.G, self.D):  # the critic learns faster without it
            nn.init.orthogonal_(net, 0.8)

    def fakes(self, n: int) -> mg.Tensor:
        return self.G(mg.tensor(random.draw("z").standard_normal((n, NZ), dtype=np.float32)))

    def judge(self, x: mg.Tensor) -> mg.Tensor:
        return self.D(x.reshape(-1, 2 * self.pack))

    def d_loss(self, x: mg.Tensor, fake: mg.Tensor) -> mg.Tensor:
        on_real, on_fake = self.judge(x), self.judge(fake)
        if self.gp:
            smooth = penalty("gp", self.gp)(self.judge, x, fake)["loss_gp"]
            return on_fake.mean() - on_real.mean() + smooth
        return bce(on_real, 1.0) + bce(on_fake, 0.0)

    def g_loss(self, x: mg.Tensor, fake: mg.Tensor) -> mg.Tensor:
        theta = list(self.D.parameters())
        for _ in range(self.ahead):  # theta <- theta - eta dL_D/dtheta, as a function of G
            with weights(self.D, theta):
                slopes = mg.grad(self.d_loss(x, fake), theta, create_graph=True)
            theta = [p - g * self.eta for p, g in zip(theta, slopes, strict=True)]
        with weights(self.D, theta):
            return -self.judge(fake).mean() if self.gp else bce(self.judge(fake), 1.0)


GAMES = {
    "vanilla": {},
    "unrolled": {"ahead": 5, "hidden": 1, "steps": 2500},
    "pacgan": {"pack": 2, "steps": 8000},
    "wgan-gp": {"gp": 0.1, "turns": 3, "steps": 4000},
}


def play(target: str, method: str, scale: float, seed: int) -> np.ndarray:
    """Train; return 2500 samples."""
    mg.manual_seed(seed)
    game = Game(**GAMES[method])
    steps = round(scale * game.steps)
    opt_g, opt_d = (optim.Adam(net.parameters(), LR, (0.5, 0.9)) for net in (game.G, game.D))
    for step in range(steps):
        opt_g.lr = opt_d.lr = LR * (1 - step / steps)  # so that the modes become sharp
        for _ in range(game.turns):
            x = mg.tensor(TARGETS[target].sample(random.draw("data"), BATCH))
            fake = game.fakes(BATCH)
            opt_d.step(mg.grad(game.d_loss(x, fake.detach()), opt_d.params))
        opt_g.step(mg.grad(game.g_loss(x, fake), opt_g.params))
    with mg.no_grad():
        return game.fakes(2500).numpy()


def scatter(target: Mixture, samples: np.ndarray, title: str) -> Image.Image:
    """Centres as discs, good samples as green dots, the others as orange ones."""
    image = Image.new("RGB", (PIXELS, PIXELS), "#101828")
    draw = ImageDraw.Draw(image)
    distance = np.linalg.norm(samples[:, None] - target.centres, axis=2)
    good = distance.min(axis=1) <= 3 * target.sigma
    layers = target.centres, samples[~good], samples[good]
    for points, r, colour in zip(layers, (5, 1, 1), ("#2c3a58", "#f93", "#9f8"), strict=True):
        for x, y in (points * [1, -1] / WINDOW + 1) * PIXELS / 2:
            draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)
    draw.text((6, 4), title, fill="white")
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description="Mode collapse and remedies in two dimensions.")
    parser.add_argument("--steps", type=float, default=1.0, help="times the usual number of steps")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", type=Path, default=Path("mode_collapse_2d.png"))
    options = parser.parse_args()
    jobs = list(itertools.product(TARGETS, GAMES, [options.steps], [options.seed]))
    sheet = Image.new("RGB", (len(GAMES) * PIXELS, len(TARGETS) * PIXELS))
    print("target  game       modes   half  good")
    os.environ["MINIGAN_THREADS"] = "1"  # of each process; there is one for each core
    with ProcessPoolExecutor(mp_context=get_context("spawn")) as pool:
        for i, game in enumerate([pool.submit(play, *job) for job in jobs]):
            samples, (target, method, *_) = game.result(), jobs[i]
            found, of = TARGETS[target].measure(samples), len(TARGETS[target].centres)
            modes, half = f"{found['modes']}/{of}", f"{found['modes_half']}/{of}"
            print(f"{target:7} {method:9} {modes:>6} {half:>6} {found['good']:5.0%}", flush=True)
            place = i % len(GAMES) * PIXELS, i // len(GAMES) * PIXELS
            sheet.paste(scatter(TARGETS[target], samples, f"{method}: {modes} modes"), place)
    sheet.save(options.out)


if __name__ == "__main__":
    main()
