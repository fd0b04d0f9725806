"""A Wasserstein GAN with gradient penalty draws clothes: the whole of it, top to bottom.

    python examples/wgan_gp_fashion.py                  five minutes on two cores
    python examples/wgan_gp_fashion.py --data mnist --minutes 10

D is a critic: the difference of its means estimates how far the fakes are from the real images (the
Wasserstein distance), provided that D is nowhere steeper than 1. A penalty asks for that on the
straight lines between real images and fakes:

    W   = E D(x) - E D(G(z))                                    "w_estimate" in the report
    x^  = a x + (1 - a) G(z),   a ~ U(0, 1), one for each image
    L_D = -W + 10 E (|dD(x^)/dx^| - 1)^2                        five times in each step
    L_G = -E D(G(z))                                            once

To lower L_D, the gradient of a gradient is needed: `mg.grad(..., create_graph=True)`.
Gulrajani et al. 2017, arXiv:1704.00028. W falls while the pictures get better, which is what the
losses of other GANs do not do. The library's own form is minigan/gans/wgan_gp.py with
minigan/penalties.py; `minigan train wgan-gp` runs that one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import minigan as mg
import minigan.functional as F
from minigan import nn, optim, random
from minigan.data import Batches, Dataset, Prefetch, load
from minigan.errors import DataError
from minigan.gans import Game, Player
from minigan.nn import init
from minigan.training import RunFolder, train

NZ, WIDTH, BATCH, CRITIC_STEPS, LAMBDA = 100, 32, 64, 3, 10.0
LR, BETAS = 3e-4, (0.5, 0.9)  # of Adam; the paper has 1e-4, and five critic steps, for days


def generator() -> nn.Module:
    """z (N, 100, 1, 1) -> images (N, 1, 28, 28) in [-1, 1]."""
    half = {"kernel_size": 4, "stride": 2, "padding": 1}
    return nn.Sequential(
        *(nn.ConvTranspose2d(NZ, 2 * WIDTH, 7), nn.BatchNorm2d(2 * WIDTH), nn.ReLU()),  # 7x7
        *(nn.ConvTranspose2d(2 * WIDTH, WIDTH, **half), nn.BatchNorm2d(WIDTH), nn.ReLU()),  # 14x14
        *(nn.ConvTranspose2d(WIDTH, 1, **half), nn.Tanh()),  # 28x28
    )


def critic() -> nn.Module:
    """Images (N, 1, 28, 28) -> scores (N,). No batch norm: the penalty is about single images."""
    return nn.Sequential(
        *(nn.Conv2d(1, WIDTH, 4, stride=2, padding=1), nn.LeakyReLU(0.2)),  # 14x14
        *(nn.Conv2d(WIDTH, 2 * WIDTH, 4, stride=2, padding=1), nn.LeakyReLU(0.2)),  # 7x7
        *(nn.Conv2d(2 * WIDTH, 1, 7), nn.Flatten(0)),  # 1x1
    )


class ClothesGame(Game):
    name, image_shape = "wgan-gp-fashion", (1, 28, 28)
    batches_per_step = CRITIC_STEPS  # the critic sees other reals in each of its turns

    def __init__(self) -> None:
        self.options = {}
        self.G, self.D = generator(), critic()
        for net in (self.G, self.D):
            init.dcgan_(net)
        self.networks = {"G": self.G, "D": self.D}
        self.ema = {"G": optim.EMA(self.G, 0.99)}
        d, g = self.player("D", self.d_losses, CRITIC_STEPS), self.player("G", self.g_losses, 1)
        self.players = [d, g]
        self.log, self.fixed_z = {}, self.noise(random.draw("preview"), 64)

    def player(self, name: str, losses: Any, repeats: int) -> Player:
        parameters = list(self.networks[name].parameters())
        return Player(name, parameters, optim.Adam(parameters, LR, BETAS), losses, repeats)

    def start(self, batch: Any) -> None:
        self.reals = F.chunk(self.tensor(batch.images), CRITIC_STEPS)
        self.turn = 0

    def fakes(self) -> mg.Tensor:
        return self.G(self.feed(lambda: self.noise(random.draw("z"), BATCH)))

    def d_losses(self) -> dict[str, mg.Tensor]:
        x, fake = self.reals[self.turn], self.fakes().detach()  # detach: G is held fixed
        self.turn += 1
        w = self.D(x).mean() - self.D(fake).mean()
        self.log["w_estimate"] = w.detach()
        return {"loss_w": -w, "loss_gp": LAMBDA * self.gradient_penalty(x, fake)}

    def gradient_penalty(self, x: mg.Tensor, fake: mg.Tensor) -> mg.Tensor:
        """E (|dD(x^)/dx^| - 1)^2; a graph of the gradient itself, so that it can be lowered."""
        a = self.feed(lambda: random.draw("gp").random((BATCH, 1, 1, 1), np.float32))
        between = (a * x + (1 - a) * fake).detach()
        between.requires_grad = True
        (slope,) = mg.grad(self.D(between).sum(), [between], create_graph=True)
        norm = F.sqrt(slope.square().sum(axis=(1, 2, 3)) + 1e-12)  # (N,), one for each image
        return (norm - 1).square().mean()

    def g_losses(self) -> dict[str, mg.Tensor]:
        return {"loss_g": -self.D(self.fakes()).mean()}

    def noise(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.standard_normal((n, NZ, 1, 1), dtype=np.float32)

    def preview(self) -> dict[str, np.ndarray]:
        return {
            "fakes": self.sample(self.fixed_z, net="raw"),
            "fakes-ema": self.sample(self.fixed_z),
        }

    @mg.no_grad()
    def sample(self, z: np.ndarray, *, net: str = "ema", labels: Any = None) -> np.ndarray:
        G = self.ema["G"].module if net == "ema" else self.G
        images = G.eval()(self.tensor(z)).numpy()
        self.G.train()
        return images


def clothes() -> Dataset:
    try:
        return load("fashion-mnist", size=28, channels=1)
    except DataError as error:
        print(f"\n*** Fashion-MNIST cannot be had ({error.what}); learning 'digits' instead.\n")
        return load("digits")


def main() -> None:
    parser = argparse.ArgumentParser()
    parser.add_argument("--data", help="fashion-mnist, mnist, digits or a folder of images")
    parser.add_argument("--steps", type=int, help="budget in steps of G")
    parser.add_argument("--minutes", type=float, default=5.0, help="budget in minutes")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of all runs")
    options = parser.parse_args()
    mg.manual_seed(options.seed)
    images = load(options.data, size=28, channels=1) if options.data else clothes()
    game = ClothesGame().to(options.device)
    run = RunFolder.create(options.out, f"{game.name}-{images.name}-s{options.seed}")
    print(f"{len(images):,} images of {images.name}, run folder {run.path}")
    with Prefetch(Batches(images, BATCH * CRITIC_STEPS, options.seed)) as batches:
        result = train(game, batches, run, steps=options.steps, minutes=options.minutes)
    print(f"{result.step} steps, verdict: {result.verdict.word}. Open {run.path / 'report.html'}")


if __name__ == "__main__":
    main()
