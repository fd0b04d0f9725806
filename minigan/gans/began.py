"""BEGAN: D is an auto-encoder, and what it cannot reconstruct counts as fake.

Berthelot, Schumm, Metz: BEGAN, Boundary Equilibrium Generative Adversarial Networks (2017),
arXiv:1703.10717.

    L(v) = mean |v - D(v)|                       how badly the auto-encoder D reconstructs v

    L_D = L(x) - k L(G(z))                       good at reals, bad at fakes
    L_G = L(G(z))
    k  <- k + lambda_k (gamma L(x) - L(G(z)))    within [0, 1]; k = 0 at first

k holds the players in balance at L(G(z)) = gamma L(x): while G is behind, its fakes are easy to
reconstruct, and D need not fight them. A small gamma gives clear images that are much alike, a
large one variety. The progress can be read off:

    M = L(x) + |gamma L(x) - L(G(z))|            falls as both get better

In the terms of this library BEGAN is the loss "wgan" with the critic -L, and k in front of D's
second term.

Where this departs from the paper: k starts where it does there but moves faster (`lambda_k`), and
there is no schedule of the learning rate, since runs are short; nearest-neighbour enlargement
stands in front of a convolution rather than behind two; z is normal.
"""

from __future__ import annotations

from typing import Any, ClassVar

import numpy as np

import minigan.functional as F
from minigan import autograd, nn
from minigan.errors import UsageError
from minigan.gans import dcgan
from minigan.gans.two_player import Losses, TwoPlayer
from minigan.tensor import Tensor


class Decoder(nn.Module):
    """h (N, nz) -> images (N, channels, size, size): also the form of the generator.

    bounded : whether a tanh keeps the images in [-1, 1].
    """

    def __init__(self, size: int, channels: int, nz: int, width: int, bounded: bool) -> None:
        start, doublings = dcgan.pyramid(size)
        layers: list[nn.Module] = [
            nn.Linear(nz, width * start * start),
            nn.Reshape(width, start, start),
        ]
        for _ in range(doublings):
            layers += [
                nn.Conv2d(width, width, 3, padding=1),
                nn.ELU(),
                nn.Upsample(scale_factor=2),
            ]
        layers += [nn.Conv2d(width, width, 3, padding=1), nn.ELU()]
        layers += [nn.Conv2d(width, channels, 3, padding=1), *([nn.Tanh()] if bounded else [])]
        self.main = nn.Sequential(*layers)

    def forward(self, h: Tensor) -> Tensor:
        return self.main(h)


class AutoEncoder(nn.Module):
    """Images -> images, through `hidden` numbers per image."""

    def __init__(self, size: int, channels: int, hidden: int, width: int) -> None:
        start, doublings = dcgan.pyramid(size)
        layers: list[nn.Module] = []
        maps = channels
        for i in range(doublings):
            layers += [nn.Conv2d(maps, (i + 1) * width, 4, stride=2, padding=1), nn.ELU()]
            maps = (i + 1) * width
        layers += [nn.Flatten(), nn.Linear(maps * start * start, hidden)]
        self.encoder = nn.Sequential(*layers)
        self.decoder = Decoder(size, channels, hidden, width, bounded=False)

    def forward(self, x: Tensor) -> Tensor:
        return self.decoder(self.encoder(x))


class Balance(nn.Module):
    """k, which belongs to the state of the game but to no network."""

    def __init__(self) -> None:
        self.k = nn.Buffer(np.zeros(()))


class BEGAN(TwoPlayer):
    """A small auto-encoder as D, its decoder's form as G.

    Parameters
    ----------
    size, channels : of the images.
    nz : length of the noise vector, and of the code inside D.
    width : feature maps of all layers but D's deeper ones.
    gamma : L(G(z)) / L(x) to be held, the diversity ratio, in (0, 1].
    lambda_k : the rate at which k follows. With 0.005 G draws nothing but ones after 500 steps on
        MNIST: they are the easiest to reconstruct, and k is not yet there to forbid it.
    options : see `TwoPlayer`.
    """

    name = "began"
    recipe: ClassVar[dict[str, Any]] = {"loss": "wgan", "lr": 5e-4, "lr_d": 5e-4}

    def __init__(
        self,
        size: int = 28,
        channels: int = 1,
        nz: int = 64,
        width: int = 16,
        gamma: float = 0.75,
        lambda_k: float = 0.05,
        **options: Any,
    ) -> None:
        if options.get("loss") == "relativistic":
            raise UsageError(
                "began: the loss 'relativistic' has no term of its own for fakes",
                why="k is the weight of that term",
                fix="use 'wgan', which is BEGAN, or one of the other losses",
            )
        self.gamma, self.lambda_k = gamma, lambda_k
        self.balance = Balance()
        G = Decoder(size, channels, nz, width, bounded=True)
        D = AutoEncoder(size, channels, nz, width)
        super().__init__(G, D, (channels, size, size), nz, **self.recipe | options)

    def parts(self) -> dict[str, Any]:
        return super().parts() | {"balance": self.balance}

    def judge(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """-L(v) of each image: the better D reconstructs it, the more real it is."""
        return -(x - self.D(x)).abs().mean(axis=(1, 2, 3))

    def judge_both(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """-L(x) and -L(G(z)); their means are kept for k."""
        on_real, on_fake = super().judge_both(real, fake)
        self.l_real, self.l_fake = -on_real.detach().mean(), -on_fake.detach().mean()
        return on_real, on_fake

    def d_losses(self) -> Losses:
        """L_D = L(x) - k L(G(z))."""
        losses = super().d_losses()
        k = self.balance.k.detach().astype(losses["loss_d_fake"].dtype)
        return losses | {"loss_d_fake": losses["loss_d_fake"] * k}

    @autograd.no_grad()
    def finish(self) -> None:
        """Move k, in place: a recorded step finds it there again. Log k and M."""
        gap = self.l_real * self.gamma - self.l_fake
        k = self.balance.k
        k.data[...] = F.clamp(k + gap.astype(k.dtype) * self.lambda_k, 0.0, 1.0).data
        k.bump()
        self.log |= {"k": k.detach(), "M": self.l_real + gap.abs()}
        super().finish()
