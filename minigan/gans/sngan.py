"""SN-GAN: every layer of D is divided by the most that it can stretch anything.

Miyato, Kataoka, Koyama, Yoshida: Spectral Normalization for Generative Adversarial Networks (2018),
arXiv:1802.05957.

The idea: a network is a chain of layers, so its slope is at most the product of theirs. The slope
of a linear layer is its largest singular value sigma; with W / sigma in every layer, and
activations that never stretch, D is 1-Lipschitz everywhere, not only where a penalty looks.

    W -> W / sigma(W),   sigma = u^T W v, u and v by one power iteration in each forward pass
    L_D = E max(0, 1 - D(x)) + E max(0, 1 + D(G(z)))                          (hinge)
    L_G = -E D(G(z))

Two forms: "dcgan" has DCGAN's networks, D without norms, for small images in minutes; "resnet" is
the residual network of the paper's appendix B (width 256 in G and half of it in D are the paper's,
for 32 pixels), with five turns of D for one of G.

Where this departs from the paper: G's batch is as large as D's, not twice; learning rates stay
constant, where the paper lets them fall to zero within its 100,000 steps.
"""

from __future__ import annotations

from typing import Any, ClassVar

from minigan.gans import dcgan, resnet
from minigan.gans.checks import check_choice
from minigan.gans.two_player import TwoPlayer
from minigan.nn import init


class SNGAN(TwoPlayer):
    """Hinge loss, and a D with spectral norm in every layer.

    Parameters
    ----------
    size, channels : of the images.
    nz : length of the noise vector.
    width : maps next to the image, in G; for "resnet" D has half as many.
    body : "dcgan" or "resnet".
    recipe : options of `TwoPlayer`.
    """

    name = "sngan"
    recipe: ClassVar[dict[str, Any]] = {
        "loss": "hinge",
        "spectral": True,
        "d_steps": 5,
        "beta1": 0.0,
        "beta2": 0.9,
    }

    def __init__(
        self,
        size: int = 32,
        channels: int = 3,
        nz: int = 128,
        width: int = 256,
        body: str = "resnet",
        **recipe: Any,
    ) -> None:
        check_choice("body", body, ("dcgan", "resnet"))
        G: dcgan.Generator | resnet.Generator
        D: dcgan.Discriminator | resnet.Discriminator
        if body == "dcgan":
            G = dcgan.Generator(size, channels, nz, width)
            D = dcgan.Discriminator(size, channels, width, norm="none")
            init.dcgan_(G)
            init.dcgan_(D)
        else:
            G = resnet.Generator(size, channels, nz, width)
            D = resnet.Discriminator(size, channels, max(1, width // 2), spectral_norm=False)
            init.sngan_(G)
            init.sngan_(D)
        super().__init__(G, D, (channels, size, size), nz, **self.recipe | recipe)
