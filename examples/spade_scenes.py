"""SPADE learns to paint landscapes: from maps of classes to pictures, top to bottom.

    python examples/spade_scenes.py                    ten minutes on two cores
    python examples/spade_scenes.py --data DIR         a folder with photos and label maps

What to expect: after a minute the right colours in the right places, after five trees, clouds and
waves. The run folder below runs/ has samples/compare-*.png (map, picture, photo side by side) and
report.html; `minigan paint RUN` lets you paint with it. Ctrl-C saves and stops.

The data are `scenes`, which minigan makes itself: maps of twelve classes (sky, water, tree ...) and
renderings of them. G turns a map m, one channel of 0 and 1 per class, into an image; D looks at map
and image together. What makes it work is the norm (Park et al., 2019, arXiv:1903.07291):

    SPADE(x, m) = (x - mean) / std * (1 + gamma(m)) + beta(m)

An ordinary norm takes away what a uniform piece of the map had to say. Here the map speaks after
that, pixel by pixel. minigan/gans/spade.py has more: styles, any size, the paper's networks.
"""

from __future__ import annotations

import argparse
from typing import Any

import minigan as mg
import minigan.functional as F
from minigan import autograd, data, nn, optim
from minigan.gans.game import Player
from minigan.gans.multiscale import SpadeDiscriminator, features
from minigan.gans.spade import Spade
from minigan.losses import feature_matching
from minigan.nn import init, spectral_norm
from minigan.training import RunFolder, train

WIDTH, MOST, HIDDEN, WIDTH_D = 16, 64, 32, 24  # maps: of G at the image, at most; for gamma; of D
LEAKY = {"activation": "leaky_relu", "negative_slope": 0.2}


# 1. The networks ---------------------------------------------------------------------------------


class Block(nn.Module):
    """y = x + c1(lrelu(SPADE(c0(lrelu(SPADE(x)))))); x goes through SPADE and cs if maps change."""

    def __init__(self, before: int, after: int, classes: int) -> None:
        before, after = min(before * WIDTH, MOST), min(after * WIDTH, MOST)
        middle = min(before, after)
        self.conv_0 = spectral_norm(nn.Conv2d(before, middle, 3, padding=1))
        self.conv_1 = spectral_norm(nn.Conv2d(middle, after, 3, padding=1))
        self.norm_0 = nn.SPADE(before, classes, HIDDEN)
        self.norm_1 = nn.SPADE(middle, classes, HIDDEN)
        if before != after:
            self.conv_s = spectral_norm(nn.Conv2d(before, after, 1, bias=False))
            self.norm_s = nn.SPADE(before, classes, HIDDEN)

    def forward(self, x: mg.Tensor, m: mg.Tensor) -> mg.Tensor:
        h = self.conv_0(self.norm_0(x, m, **LEAKY))  # SPADE makes m as small as x
        h = self.conv_1(self.norm_1(h, m, **LEAKY))
        return h + (self.conv_s(self.norm_s(x, m)) if hasattr(self, "conv_s") else x)


class Generator(nn.Module):
    """Maps (N, classes, 64, 64) -> images (N, 3, 64, 64): five doublings from 2x2."""

    def __init__(self, classes: int) -> None:
        self.fc = nn.Conv2d(classes, MOST, 3, padding=1)
        self.head_0, self.G_middle_0, self.G_middle_1 = (Block(16, 16, classes) for _ in range(3))
        self.up_0, self.up_1 = Block(16, 8, classes), Block(8, 4, classes)
        self.up_2, self.up_3 = Block(4, 2, classes), Block(2, 1, classes)
        self.conv_img = nn.Conv2d(WIDTH, 3, 3, padding=1)

    def forward(self, m: mg.Tensor, style: None = None) -> mg.Tensor:  # styles are GauGAN's
        x = self.fc(F.interpolate(m, scale_factor=1 / 32))  # every 32nd pixel
        x = self.G_middle_0(double(self.head_0(x, m)), m)
        x = self.G_middle_1(x, m)
        for block in (self.up_0, self.up_1, self.up_2, self.up_3):
            x = block(double(x), m)
        return F.tanh(self.conv_img(F.leaky_relu(x, 0.2)))


def double(x: mg.Tensor) -> mg.Tensor:
    return F.interpolate(x, scale_factor=2)


# 2. The game: what each player minimises ---------------------------------------------------------


class Painter(Spade):  # from where it has what makes m of labels, and what shows pictures
    def __init__(self, classes: int) -> None:
        k = self.fit(64, 3, classes, unknown=False, edges=False)
        self.name, self.options, self.nz = "spade64", {"classes": classes}, 0  # the preset's
        self.G, self.D = Generator(k), SpadeDiscriminator(k + 3, WIDTH_D, layers=3)  # at two sizes
        self.networks, self.ema, self.log = {"G": self.G, "D": self.D}, {}, {}
        for net in (self.G, self.D):
            init.spade_(net)
        self.players = [self.player("G", 4e-4), self.player("D", 8e-4)]
        self.fix_previews(16)

    def player(self, name: str, lr: float) -> Player:
        parameters = list(self.networks[name].parameters())
        losses = self.g_losses if name == "G" else self.d_losses
        return Player(name, parameters, optim.Adam(parameters, lr, (0.0, 0.9)), losses)

    def g_losses(self) -> dict[str, mg.Tensor]:
        """D shall say "real", and see in fakes the features that it sees in photos."""
        on_fake, on_real = self.judge(self.G(self.m))
        matching = feature_matching(features(on_real), features(on_fake))
        return {"loss_g": both(lambda f: -f, on_fake), "loss_features": 5.0 * matching}

    def d_losses(self) -> dict[str, mg.Tensor]:
        """The hinge: logits of photos above 1, those of fakes below -1, at every patch."""
        with autograd.no_grad():
            fake = self.G(self.m)  # by the G that has just moved
        on_fake, on_real = self.judge(fake)
        loss_real = both(lambda r: F.relu(1.0 - r), on_real)
        return {"loss_d_real": loss_real, "loss_d_fake": both(lambda f: F.relu(1.0 + f), on_fake)}


def both(loss: Any, scales: Any) -> mg.Tensor:
    """The mean of a loss over all patches, at both sizes; D's last layer gives the logits."""
    return (loss(scales[0][-1]).mean() + loss(scales[1][-1]).mean()) / 2.0


# 3. The data, and the loop -----------------------------------------------------------------------


def main() -> None:
    parser = argparse.ArgumentParser(description="SPADE learns to paint landscapes.")
    parser.add_argument("--data", default="scenes", help="scenes, or a folder with label maps")
    parser.add_argument("--steps", type=int, help="budget in steps")
    parser.add_argument("--minutes", type=float, help="budget in minutes (default 10)")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--device", default="cpu")
    parser.add_argument("--out", default="runs", help="folder of all runs")
    options = parser.parse_args()
    if options.steps is None and options.minutes is None:
        options.minutes = 10.0
    mg.manual_seed(options.seed)
    photos = data.load(options.data, kind="labels", size=64)
    game = Painter(len(photos.classes)).to(options.device)
    game.class_colours = photos.colours
    run = RunFolder.create(options.out, f"spade64-{photos.name}-s{options.seed}")
    print(f"{len(photos):,} photos of {photos.name}, run folder {run.path}")
    config = {"data": {"name": options.data}}  # for `minigan train --resume`
    with data.Prefetch(data.batches(photos, 4, options.seed)) as batches:
        train(game, batches, run, steps=options.steps, minutes=options.minutes, config=config)


if __name__ == "__main__":
    main()
