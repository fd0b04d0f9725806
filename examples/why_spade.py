"""Why SPADE exists: an ordinary norm forgets a uniform label map. One picture, one second.

    python examples/why_spade.py                       writes why_spade.png

Two generators with random weights look at four maps, each of one class everywhere. In the first
one, the map is the input, as in pix2pixHD: convolutions, each with instance norm. Where the map is
uniform, so is all that a convolution makes of it; the norm takes away the mean, and nothing is
left. It paints the same picture for sky and for grass. In the second one, the map steers the norms
(Park et al., 2019, arXiv:1903.07291), and every class has its own picture.

The upper row is the first generator, the lower row the second one. A fifth map has two classes,
side by side: then the first one sees at least that they are two.
"""

from __future__ import annotations

import argparse

import numpy as np

import minigan as mg
import minigan.functional as F
from minigan import nn
from minigan.data import image_grid, save_png
from minigan.gans.spade import SpadeBlock

CLASSES, SIDE, MAPS = 4, 48, 16


def maps() -> mg.Tensor:
    """Five maps (5, 4, 48, 48): the classes one by one, then the first two side by side."""
    labels = np.arange(5)[:, None, None] * np.ones((SIDE, SIDE), np.int64)
    labels[4] = np.arange(SIDE) >= SIDE // 2
    return F.one_hot(labels, CLASSES, axis=1)


def forgetful() -> nn.Module:
    """Two layers of convolution, instance norm and ReLU, then an image."""
    layers: list[nn.Module] = []
    for before, after in ((CLASSES, MAPS), (MAPS, MAPS)):
        # Mirrored borders: zeros would be an edge that even a uniform map has.
        layers += [nn.ReflectionPad2d(1), nn.Conv2d(before, after, 3)]
        layers += [nn.InstanceNorm2d(after), nn.ReLU()]
    return nn.Sequential(*layers, nn.Conv2d(MAPS, 3, 1), nn.Tanh())


class Steered(nn.Module):
    """A block of SPADE over noise that is the same for all maps, then an image."""

    def __init__(self) -> None:
        self.block = SpadeBlock(MAPS, MAPS, CLASSES, hidden=16, norm="instance")
        self.image = nn.Conv2d(MAPS, 3, 1)
        self.noise = 0.3 * mg.random.draw("noise").standard_normal((1, MAPS, 8, 8), np.float32)

    def forward(self, m: mg.Tensor) -> mg.Tensor:
        noise = F.interpolate(mg.tensor(self.noise), m.shape[2:], mode="bilinear")
        x = F.broadcast_to(noise, (len(m), *noise.shape[1:]))
        return F.tanh(0.3 * self.image(self.block(x, m)))


def main() -> None:
    parser = argparse.ArgumentParser(description="Why SPADE exists, in one picture.")
    parser.add_argument("--out", default="why_spade.png")
    out = parser.parse_args().out
    mg.manual_seed(2)
    with mg.no_grad():
        nets = forgetful(), Steered()
        for net in nets:
            nn.init.he_normal_(net)
        rows = [net(maps()).numpy() for net in nets]
    for name, images in zip(("instance norm", "SPADE"), rows, strict=True):
        apart = np.abs(images[1:4] - images[0]).max()
        print(f"{name:<14} pictures of different classes differ by up to {apart:.2g}")
    save_png(out, image_grid(np.concatenate(rows), columns=5, scale=2))
    print(f"wrote {out}")


if __name__ == "__main__":
    main()
