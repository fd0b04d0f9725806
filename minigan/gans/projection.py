"""cGAN with projection discriminator: D asks how well features and class agree.

Miyato, Koyama: cGANs with Projection Discriminator (2018), arXiv:1802.05637.

The idea: if p(y | x) is log-linear in features of x, then the best logit is, up to what does not
depend on y, an inner product of a vector of the class with the features. So give D this form
instead of feeding it the label somewhere.

    f(x, y) = psi(phi(x)) + E_y . phi(x)        phi residual blocks and a sum over positions
                                                psi linear, E a table of one vector per class
    G(z, y): residual blocks, whose batch norms have a scale and shift per class

    L_D = E relu(1 - f(x, y)) + E relu(1 + f(G(z, y~), y~))         y~ uniform over classes
    L_G = -E f(G(z, y~), y~)

Every weight of D, E too, is divided by its largest singular value.

Where this departs from the paper: one turn of D per step and a higher learning rate for both, an
average of G for sampling, fewer maps; the learning rates stay as they are. Up to 32 pixels the
networks are those of the paper's CIFAR runs if width is 256, width_d 128 and nz 128.
"""

from __future__ import annotations

from typing import Any, ClassVar

from minigan.gans.resnet import Discriminator, Generator
from minigan.gans.two_player import TwoPlayer
from minigan.nn import init


class Projection(TwoPlayer):
    """Conditional batch norm in G, projection and spectral norm in D, the hinge loss.

    Parameters
    ----------
    size, channels : of the images.
    classes : how many there are.
    nz : length of the noise vector.
    width, width_d : maps of G and of D; see `resnet.Generator` and `resnet.Discriminator`.
    recipe : options of `TwoPlayer`.
    """

    name = "projection"
    recipe: ClassVar[dict[str, Any]] = {
        "loss": "hinge",
        "spectral": True,
        "lr": 1e-3,  # with 2e-4 the tables of G's norms hardly leave their ones and zeros
        "lr_d": 1e-3,
        "beta1": 0.0,
        "beta2": 0.9,
        "previews": 100,
    }

    def __init__(
        self,
        size: int = 28,
        channels: int = 1,
        classes: int = 10,
        nz: int = 64,
        width: int = 32,
        width_d: int = 32,
        **recipe: Any,
    ) -> None:
        G = Generator(size, channels, nz, width, classes)
        D = Discriminator(size, channels, width_d, classes, spectral_norm=False)
        init.sngan_(G)
        init.sngan_(D)
        shape = (channels, size, size)
        super().__init__(G, D, shape, nz, classes, **self.recipe | recipe)
