"""An auxiliary classifier GAN on digits: the whole of it, top to bottom.

    python examples/acgan_mnist.py                      five minutes on two cores
    python examples/acgan_mnist.py --data fashion-mnist --minutes 10

G is told the class that it shall draw. D is not told any: over one trunk h it has two outputs, how
real an image is, and what class it shows. Both players gain if C reads the class, D's from real
images and fakes, G's from what it drew:

    D(x) = w . h(x) + b             a logit                C(x) = W h(x) + c       class logits
    L_D = BCE(D(x), 1) + BCE(D(G(z, y~)), 0) + CE(C(x), y) + 0.2 CE(C(G(z, y~)), y~)
    L_G = BCE(D(G(z, y~)), 1) + CE(C(G(z, y~)), y~)          y~ drawn anew, all equally likely

Odena, Olah, Shlens 2016, arXiv:1610.09585. In the pictures below runs/ each column is a class and
each row one z. The library's own form of this file is minigan/gans/acgan.py; `minigan train acgan`
runs that one.
"""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import minigan as mg
import minigan.functional as F
from minigan import nn, random
from minigan.data import Batches, Dataset, Prefetch, load
from minigan.errors import DataError
from minigan.gans.two_player import TwoPlayer, probability
from minigan.nn import init
from minigan.training import RunFolder, train

NZ, CLASSES, WIDTH, BATCH = 100, 10, 32, 64


class Generator(nn.Module):
    """z (N, 100) and classes (N,) -> images (N, 1, 28, 28) in [-1, 1]."""

    def __init__(self) -> None:
        self.main = nn.Sequential(
            nn.Reshape(NZ + CLASSES, 1, 1),
            nn.ConvTranspose2d(NZ + CLASSES, 2 * WIDTH, 7, bias=False),  # 1x1 -> 7x7
            nn.BatchNorm2d(2 * WIDTH),
            nn.ReLU(),
            nn.ConvTranspose2d(2 * WIDTH, WIDTH, 4, stride=2, padding=1, bias=False),  # 14x14
            nn.BatchNorm2d(WIDTH),
            nn.ReLU(),
            nn.ConvTranspose2d(WIDTH, 1, 4, stride=2, padding=1, bias=False),  # 28x28
            nn.Tanh(),
        )

    def forward(self, z: mg.Tensor, y: mg.Tensor) -> mg.Tensor:
        return self.main(F.concat([z, F.one_hot(y, CLASSES)], axis=1))


class Discriminator(nn.Module):
    """Images (N, 1, 28, 28) -> logits (N,) and class logits (N, 10)."""

    def __init__(self) -> None:
        self.trunk = nn.Sequential(
            nn.Conv2d(1, WIDTH, 4, stride=2, padding=1, bias=False),  # 14x14
            nn.LeakyReLU(0.2),
            nn.Conv2d(WIDTH, 2 * WIDTH, 4, stride=2, padding=1, bias=False),  # 7x7
            nn.BatchNorm2d(2 * WIDTH),
            nn.LeakyReLU(0.2),
            nn.Flatten(),
        )
        self.real = nn.Linear(2 * WIDTH * 7 * 7, 1)
        self.classes = nn.Linear(2 * WIDTH * 7 * 7, CLASSES)

    def forward(self, x: mg.Tensor) -> tuple[mg.Tensor, mg.Tensor]:
        h = self.trunk(x)
        return self.real(h).reshape(len(h)), self.classes(h)


class DigitGame(TwoPlayer):
    """TwoPlayer brings the optimizers (Adam, 2e-4), the average of G, previews and sampling."""

    name = "acgan"

    def __init__(self) -> None:
        self.options = {"width": WIDTH, "nz": NZ, "classes": CLASSES}  # the preset's
        G, D = Generator(), Discriminator()
        init.dcgan_(G)  # weights N(0, 0.02)
        init.dcgan_(D)
        super().__init__(G, D, (1, 28, 28), NZ, CLASSES, lr_d=1e-4, previews=100)

    def start(self, batch: Any) -> None:
        """A new step: real images x of classes y, fakes of classes y~ that both turns use."""
        n = len(batch)
        self.x, self.y = self.tensor(batch.images), self.tensor(batch.labels)
        self.y_fake = self.feed(lambda: random.draw("classes").integers(0, CLASSES, n))
        self.fake = self.G(self.feed(lambda: self.noise(random.draw("z"), n)), self.y_fake)

    def d_losses(self) -> dict[str, mg.Tensor]:
        (real, c_real), (fake, c_fake) = self.D(self.x), self.D(self.fake.detach())
        self.log |= {"d_real": probability(real), "d_fake": probability(fake)}
        return {
            "loss_d_real": bce(real, 1.0),
            "loss_d_fake": bce(fake, 0.0),
            "loss_d_class": ce(c_real, self.y),
            "loss_d_class_fake": 0.2 * ce(c_fake, self.y_fake),
        }

    def g_losses(self) -> dict[str, mg.Tensor]:
        fake, c_fake = self.D(self.fake)
        return {"loss_g": bce(fake, 1.0), "loss_g_class": ce(c_fake, self.y_fake)}


bce, ce = F.binary_cross_entropy_with_logits, F.cross_entropy


def dataset(name: str | None) -> Dataset:
    """The named set; without a name MNIST, or the procedural digits where MNIST cannot be had."""
    try:
        return load(name or "mnist", size=28, channels=1)
    except DataError as error:
        if name is not None:
            raise
        print(f"\n*** MNIST cannot be had ({error.what}).\n*** Learning 'digits' instead.\n")
        return load("digits")


def main() -> None:
    parser = argparse.ArgumentParser(description="An auxiliary classifier GAN on digits.")
    parser.add_argument("--data", help="mnist, fashion-mnist, digits or a folder of classes")
    parser.add_argument("--steps", type=int, help="budget in steps")
    parser.add_argument("--minutes", type=float, help="budget in minutes (default 5)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", type=Path, default=Path("runs"), help="folder of all runs")
    options = parser.parse_args()
    if options.steps is None and options.minutes is None:
        options.minutes = 5.0
    mg.manual_seed(options.seed)
    images = dataset(options.data)
    game = DigitGame().to(options.device)
    run = RunFolder.create(options.out, f"acgan-{images.name}-s{options.seed}")
    print(f"{len(images):,} images of {images.name}, run folder {run.path}")
    with Prefetch(Batches(images, BATCH, options.seed)) as batches:
        config = {"data": {"name": options.data or images.name}}  # for `minigan train --resume`
        budget = {"steps": options.steps, "minutes": options.minutes}
        result = train(game, batches, run, config=config, **budget)
    print(f"{result.step} steps, verdict: {result.verdict.word}. Open {run.path / 'report.html'}")


if __name__ == "__main__":
    main()
