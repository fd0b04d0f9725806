"""SAGAN: convolutions see neighbours; self-attention lets distant parts of an image agree.

Zhang, Goodfellow, Metaxas, Odena: Self-Attention Generative Adversarial Networks (2018),
arXiv:1805.08318.

    y = x + gamma o(a),   a_i = sum over j of softmax_j(theta(x)_i . phi(x)_j) g(x)_j

in one place of G and one of D; gamma starts at 0, so the networks learn from neighbours first.
Two more ideas, both since taken up everywhere: spectral norm in G as well as in D, and a larger
learning rate for D than for G (TTUR) instead of several turns of D.

    f(x, y) = psi(phi(x)) + E_y . phi(x)            the projection discriminator
    L_D = E relu(1 - f(x, y)) + E relu(1 + f(G(z, y~), y~)),   L_G = -E f(G(z, y~), y~)

Where this departs from the paper: keys and values are pooled and g has C/2 channels, as in the
authors' code; both learning rates are higher and the average of G is shorter, since the networks
are small and the runs are short. At 128 pixels the numbers of maps are the paper's.
"""

from __future__ import annotations

from typing import Any, ClassVar

from minigan.gans.resnet import Discriminator, Generator
from minigan.gans.two_player import TwoPlayer
from minigan.nn import init


class SAGAN(TwoPlayer):
    """Projection GAN with attention and spectral norm in both networks, and two learning rates.

    Parameters
    ----------
    size, channels : of the images.
    classes : how many there are; 0 for a GAN without labels.
    nz : length of the noise vector.
    width, width_d : maps of G and of D; see `resnet.Generator` and `resnet.Discriminator`.
    attention : resolution of the maps it works on, in both networks; None is half the size.
    recipe : options of `TwoPlayer`.
    """

    name = "sagan"
    recipe: ClassVar[dict[str, Any]] = {
        "loss": "hinge",
        "spectral": True,
        "lr": 4e-4,
        "lr_d": 1.6e-3,
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
        attention: int | None = None,
        **recipe: Any,
    ) -> None:
        place = size // 2 if attention is None else attention
        G = Generator(size, channels, nz, width, classes, spectral_norm=True, attention=place)
        D = Discriminator(size, channels, width_d, classes, attention=place, spectral_norm=False)
        init.glorot_uniform_(G)
        init.glorot_uniform_(D)
        shape = (channels, size, size)
        super().__init__(G, D, shape, nz, classes, **self.recipe | recipe)
