"""cGAN: both players are told the class, so one can ask for it.

Mirza, Osindero: Conditional Generative Adversarial Nets (2014), arXiv:1411.1784.

    x, y real image and its class;  z ~ N(0, 1), y~ uniform over the classes, x~ = G(z, y~)

    L_D = BCE(D(x, y), 1) + BCE(D(x~, y~), 0)
    L_G = BCE(D(x~, y~), 1)

G gets z and the one-hot y side by side. What decides how fast the label is obeyed is how D gets it
(`label`):

    "layers"      the one-hot y beside the input of *every* layer; in front of a convolution as
                  planes, constant over positions (the DCGAN authors' conditional code)
    "projection"  a last layer of its own for each class: D(x, y) = w . h(x) + b + E_y . h(x)
                  (Miyato and Koyama 2018; there h is summed over positions first)
    "pixels"      the one-hot y beside the pixels and nowhere else, which is the textbook form.
                  Warning: among 784 pixels D overlooks ten numbers for a long time, and as long as
                  D does not look, G need not obey. An MLP of this form drew the wanted digit in
                  11 of 100 cases after 1200 steps, where chance is 10; with "layers" in 60

On MNIST (one run each, convolutions, lr_d = 1e-4) 77 % of the digits were right after 1500 steps
with "layers" and 89 % with "projection", the default; with lr_d = 2e-4 92 %, and 96 % after 2000.

Where this departs from the paper: there both networks are MLPs of maxout and ReLU layers, trained
by SGD (`body="mlp"` is an MLP in the manner of today); here they are those of DCGAN by default. y~
is drawn by itself, not taken from the batch.
"""

from __future__ import annotations

from typing import Any, ClassVar

import minigan.functional as F
from minigan import nn
from minigan.gans import dcgan, vanilla
from minigan.gans.checks import check_choice
from minigan.gans.two_player import TwoPlayer
from minigan.nn import init
from minigan.tensor import Tensor

BODIES = ("conv", "mlp")
LABELS = ("layers", "projection", "pixels")


def beside(x: Tensor, y: Tensor, classes: int) -> Tensor:
    """x (N,C,*spatial) and the one-hot y, in all positions alike: (N, C + classes, *spatial)."""
    hot = F.one_hot(y, classes, dtype=x.dtype)
    planes = hot.reshape(*hot.shape, *[1] * (x.ndim - 2))
    return F.concat([x, F.broadcast_to(planes, (*hot.shape, *x.shape[2:]))], 1)


class Generator(nn.Module):
    """z (N, nz) and classes (N,) -> images (N, channels, size, size) in [-1, 1]."""

    def __init__(
        self, size: int, channels: int, classes: int, nz: int, width: int, body: str = "conv"
    ) -> None:
        self.classes = classes
        if body == "conv":
            main = dcgan.Generator(size, channels, nz + classes, width).main
            self.main = nn.Sequential(nn.Reshape(nz + classes, 1, 1), *main)
        else:
            self.main = vanilla.generator((channels, size, size), nz + classes, 4 * width)

    def forward(self, z: Tensor, y: Tensor) -> Tensor:
        return self.main(beside(z, y, self.classes))


class Discriminator(nn.Module):
    """Images (N, channels, size, size) and classes (N,) -> logits (N,)."""

    def __init__(
        self, size: int, channels: int, classes: int, width: int, body: str, label: str
    ) -> None:
        self.classes, self.label, self.flat = classes, label, body == "mlp"
        self.stages = nn.ModuleList()
        if body == "conv":
            start, doublings = dcgan.pyramid(size)
            maps = channels
            for i in range(doublings):
                conv = nn.Conv2d(self.wider(maps), width << i, 4, stride=2, padding=1)
                maps = width << i
                norm = [nn.BatchNorm2d(maps)] if i else []
                self.stages.append(nn.Sequential(conv, *norm, nn.LeakyReLU(0.2)))
            features = maps * start * start
        else:
            features = channels * size * size
            for _ in range(3):
                linear = nn.Linear(self.wider(features), 16 * width)
                self.stages.append(nn.Sequential(linear, nn.LeakyReLU(0.2)))
                features = 16 * width
        self.last = nn.Linear(features + (classes if label == "layers" else 0), 1)
        self.E = nn.Embedding(classes, features) if label == "projection" else None

    def wider(self, maps: int) -> int:
        """Maps that the next stage sees, with the label."""
        first = len(self.stages) == 0
        told = self.label == "layers" or (self.label == "pixels" and first)
        return maps + (self.classes if told else 0)

    def forward(self, x: Tensor, y: Tensor) -> Tensor:
        h = x.flatten(1) if self.flat else x
        for i, stage in enumerate(self.stages):
            if self.label == "layers" or (self.label == "pixels" and i == 0):
                h = beside(h, y, self.classes)
            h = stage(h)
        h = h.flatten(1)
        if self.label == "layers":
            h = beside(h, y, self.classes)
        logits = self.last(h).reshape(x.shape[0])
        return logits if self.E is None else logits + (self.E(y) * h).sum(axis=1)


class CGAN(TwoPlayer):
    """DCGAN's networks (or MLPs) that know the class, and the recipe of DCGAN.

    Parameters
    ----------
    size, channels : of the images.
    classes : how many there are.
    nz : length of the noise vector.
    width : feature maps next to the image; hidden layers of an MLP are 4 to 32 times as wide.
    body : "conv" or "mlp".
    label : how D is told the class: "layers", "projection" or "pixels"; see above.
    options : see `TwoPlayer`.
    """

    name = "cgan"
    recipe: ClassVar[dict[str, Any]] = {"previews": 100}

    def __init__(
        self,
        size: int = 28,
        channels: int = 1,
        classes: int = 10,
        nz: int = 100,
        width: int = 32,
        body: str = "conv",
        label: str = "projection",
        **options: Any,
    ) -> None:
        check_choice("body", body, BODIES)
        check_choice("label", label, LABELS)
        G = Generator(size, channels, classes, nz, width, body)
        D = Discriminator(size, channels, classes, width, body, label)
        if body == "conv":
            init.dcgan_(G)
            init.dcgan_(D)
        shape = (channels, size, size)
        super().__init__(G, D, shape, nz, classes, **self.recipe | options)
