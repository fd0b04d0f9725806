"""A DCGAN learns to draw digits: the whole of it, top to bottom.

    python examples/dcgan_mnist.py                     five minutes on two cores
    python examples/dcgan_mnist.py --data fashion-mnist --minutes 10

What to expect: blobs after a few seconds, strokes after half a minute, digits that can be read
after two or three. Everything goes into a new folder below runs/: pictures (samples/), curves and
the evolution of the samples (report.html), checkpoints. Ctrl-C saves and stops.

Two networks play a game. G turns noise z into images; D says how real an image looks, as a logit
(the log-odds of "real"). In each step D learns to tell a real batch x from G(z), then G learns to
make D say "real" of G(z):

    L_D = BCE(D(x), 1) + BCE(D(G(z)), 0)           L_G = BCE(D(G(z)), 1)

Radford, Metz, Chintala 2015, arXiv:1511.06434. The library's own form of this file, for all sizes
of images, is minigan/gans/dcgan.py; `minigan train dcgan` runs that one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import numpy as np

import minigan as mg
import minigan.functional as F
from minigan import nn, optim, random
from minigan.backend import check_device
from minigan.data import Batches, Dataset, Prefetch, load
from minigan.errors import DataError
from minigan.gans import Game, Player
from minigan.nn import init
from minigan.training import RunFolder, train

NZ, WIDTH, BATCH = 100, 32, 64  # noise, feature maps next to the image, images per step
LR = {"G": 2e-4, "D": 1e-4}  # of Adam; D half as fast, or it wins before G has drawn anything
BETAS = (0.5, 0.999)


# 1. The networks ---------------------------------------------------------------------------------


class Generator(nn.Module):
    """z (N, 100) -> images (N, 1, 28, 28) in [-1, 1]; transposed convolutions double the size."""

    def __init__(self) -> None:
        self.main = nn.Sequential(
            nn.ConvTranspose2d(NZ, 2 * WIDTH, 7, bias=False),  # 1x1 -> 7x7
            nn.BatchNorm2d(2 * WIDTH),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, stride=2, padding=1, bias=False),  # 14x14
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.ConvTranspose2d(WIDTH, 1, 4, stride=2, padding=1, bias=False),  # 28x28
            nn.Tanh(),
        )

    def forward(self, z: mg.Tensor) -> mg.Tensor:
        return self.main(z.reshape(*z.shape, 1, 1))


class Discriminator(nn.Module):
    """Images (N, 1, 28, 28) -> logits (N,); the mirror image of the generator."""

    def __init__(self) -> None:
        self.main = nn.Sequential(
            nn.Conv2d(1, WIDTH, 4, stride=2, padding=1, bias=False),  # 14x14
            nn.LeakyReLU(0.2),
            nn.Conv2d(WIDTH, 2 * WIDTH, 4, stride=2, padding=1, bias=False),  # 7x7
            nn.BatchNorm2d(2 * WIDTH),
            nn.LeakyReLU(0.2),
            nn.Conv2d(2 * WIDTH, 1, 7, bias=False),  # 1x1
        )

    def forward(self, x: mg.Tensor) -> mg.Tensor:
        return self.main(x).reshape(x.shape[0])


# 2. The game: who owns what, and what each player minimises --------------------------------------


class DigitGame(Game):
    name, image_shape = "dcgan", (1, 28, 28)

    def __init__(self) -> None:
        self.options = {"size": 28, "channels": 1, "nz": NZ, "width": WIDTH}  # the preset's
        self.G, self.D = Generator(), Discriminator()
        for net in (self.G, self.D):
            init.dcgan_(net)  # weights N(0, 0.02)
        self.networks = {"G": self.G, "D": self.D}
        self.ema = {"G": optim.EMA(self.G, 0.999)}  # a calmer copy of G, for pictures
        self.players = [self.player("D", self.d_losses), self.player("G", self.g_losses)]
        self.log = {}
        self.fixed_z = self.noise(random.draw("preview"), 64)

    def player(self, name: str, losses: Any) -> Player:
        parameters = list(self.networks[name].parameters())
        return Player(name, parameters, optim.Adam(parameters, LR[name], BETAS), losses)

    def start(self, batch: Any) -> None:
        """A new step: real images x, noise z, fakes G(z) that both turns use."""
        self.x = self.tensor(batch.images)
        self.fake = self.G(self.feed(lambda: self.noise(random.draw("z"), len(batch))))

    def d_losses(self) -> dict[str, mg.Tensor]:
        real, fake = self.D(self.x), self.D(self.fake.detach())  # detach: G is held fixed
        self.log |= {"d_real": probability(real), "d_fake": probability(fake)}
        return {"loss_d_real": bce(real, 1.0), "loss_d_fake": bce(fake, 0.0)}

    def g_losses(self) -> dict[str, mg.Tensor]:
        fake = self.D(self.fake)  # D has moved since its own turn
        self.log["d_fake_g"] = probability(fake)
        return {"loss_g": bce(fake, 1.0)}

    def noise(self, rng: np.random.Generator, n: int) -> np.ndarray:
        return rng.standard_normal((n, NZ), dtype=np.float32)

    def preview(self) -> dict[str, np.ndarray]:
        """The same 64 noise vectors every time, through G and through its average."""
        z = self.fixed_z
        return {"fakes": self.sample(z, net="raw"), "fakes-ema": self.sample(z, net="ema")}

    @mg.no_grad()
    def sample(self, z: np.ndarray, *, net: str = "ema", labels: Any = None) -> np.ndarray:
        G = self.ema["G"].module if net == "ema" else self.G
        images = G.eval()(mg.tensor(z)).numpy()  # eval: each image depends on its own z alone
        self.G.train()
        return images


bce = F.binary_cross_entropy_with_logits


def probability(logits: mg.Tensor) -> mg.Tensor:
    return F.sigmoid(logits.detach()).mean()


# 3. The data, and the loop -----------------------------------------------------------------------


def dataset(name: str | None) -> Dataset:
    """The named set; without a name MNIST, or the procedural digits where MNIST cannot be had."""
    try:
        return load(name or "mnist", size=28, channels=1)
    except DataError as error:
        if name is not None:
            raise
        print(f"\n*** MNIST cannot be had ({error.what}).")
        print("*** Learning the procedural 'digits' set instead; see `minigan data info mnist`.\n")
        return load("digits")


def main() -> None:
    parser = argparse.ArgumentParser(description="A DCGAN learns to draw digits.")
    parser.add_argument("--data", help="mnist, fashion-mnist, digits or a folder of images")
    parser.add_argument("--steps", type=int, help="budget in steps")
    parser.add_argument("--minutes", type=float, help="budget in minutes (default 5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of all runs")
    options = parser.parse_args()
    if options.steps is None and options.minutes is None:
        options.minutes = 5.0

    check_device(options.device)
    mg.manual_seed(options.seed)
    images = dataset(options.data)
    game = DigitGame().to(options.device)
    run = RunFolder.create(options.out, f"dcgan-{images.name}-s{options.seed}")
    print(f"{len(images):,} images of {images.name}, run folder {run.path}")
    with Prefetch(Batches(images, BATCH, options.seed)) as batches:
        # For each step: game.start(batch); then for each player in turn
        #     losses = player.losses();  player.optimizer.step(mg.grad(sum, player.parameters))
        result = train(
            game,
            batches,
            run,
            steps=options.steps,
            minutes=options.minutes,
            config={"data": {"name": options.data or images.name}},  # for `minigan train --resume`
        )
    print(f"{result.step} steps, verdict: {result.verdict.word}. Open {run.path / 'report.html'}")


if __name__ == "__main__":
    main()
