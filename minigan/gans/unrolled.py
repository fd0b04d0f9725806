"""Unrolled GAN: G moves against the D that will have answered its move.

Metz, Poole, Pfau, Sohl-Dickstein: Unrolled Generative Adversarial Networks (2016),
arXiv:1611.02163.

The best answer of D to a G that draws one digit is to call this digit fake. If G foresees that, it
gains nothing from drawing one digit. So G lowers its loss against theta^k, which is D after k more
steps of gradient descent:

    theta^0 = theta                              D's weights
    theta^(i+1) = theta^i - eta d/dtheta L_D(theta^i; x, G(z))
    L_D(theta; x, G(z)) = BCE(D(x), 1) + BCE(D(G(z)), 0)

    D lowers L_D(theta; x, G(z)) as ever, by its own optimizer
    G lowers BCE(D(G(z); theta^k), 1)

The gradient of G goes through theta^k too, which depends on G(z) by k gradients: derivatives of
derivatives. theta itself stays as it is; the k steps are thought only.

Where this departs from the paper: G's loss is the non-saturating one by default; there G raises
L_D(theta^k) itself (loss "minimax" is that). D has no batch norm: its running statistics would
count the steps that are thought only. A penalty acts in D's own turn, not in the k steps.
"""

from __future__ import annotations

import contextlib
import functools
import operator
from collections.abc import Iterator, Sequence
from typing import Any, ClassVar

from minigan import autograd, nn
from minigan.errors import UsageError
from minigan.gans import dcgan
from minigan.gans.two_player import Losses, TwoPlayer, probability
from minigan.nn import Parameter, init
from minigan.tensor import Tensor


@contextlib.contextmanager
def weights(net: nn.Module, theta: Sequence[Tensor]) -> Iterator[None]:
    """Inside the `with` block `net` computes with theta in the place of its parameters.

    theta : one Tensor for each of `net.parameters()`, in that order.
    """
    replacement = dict(zip(map(id, net.parameters()), theta, strict=True))
    places = [
        (vars(module), name, value)
        for module in net.modules()
        for name, value in list(vars(module).items())
        if isinstance(value, Parameter)
    ]
    try:
        for attributes, name, parameter in places:
            attributes[name] = replacement[id(parameter)]
        yield
    finally:
        for attributes, name, parameter in places:
            attributes[name] = parameter


class UnrolledGAN(TwoPlayer):
    """DCGAN without batch norm in D, whose G looks `unroll` steps ahead.

    Parameters
    ----------
    size, channels : of the images.
    nz : length of the noise vector.
    width : feature maps next to the image.
    norm : of D: "none", "layer" or "instance".
    unroll : k; 0 is the ordinary GAN.
    eta : the rate of the steps ahead.
    options : see `TwoPlayer`.
    """

    name = "unrolled"
    recipe: ClassVar[dict[str, Any]] = {}

    def __init__(
        self,
        size: int = 28,
        channels: int = 1,
        nz: int = 100,
        width: int = 32,
        norm: str = "none",
        unroll: int = 3,
        eta: float = 0.1,
        **options: Any,
    ) -> None:
        if unroll < 0 or eta <= 0:
            raise UsageError(
                f"unrolled: unroll={unroll}, eta={eta}", fix="unroll at least 0, eta above 0"
            )
        self.unroll, self.eta = unroll, eta
        G = dcgan.Generator(size, channels, nz, width)
        D = dcgan.Discriminator(size, channels, width, norm)
        init.dcgan_(G)
        init.dcgan_(D)
        super().__init__(G, D, (channels, size, size), nz, **self.recipe | options)

    def g_losses(self) -> Losses:
        """L_G against theta^k."""
        if self.d_steps > 1:
            self.draw_fakes()
        real, fake = self.augment(self.real), self.augment(self.fake)
        with weights(self.D, self.look_ahead(real, fake)):
            on_fake = self.judge(fake)
            if not self.is_critic:
                self.log["d_fake_g"] = probability(on_fake)
            return self.loss.g(on_fake, self.judge(real) if self.loss.needs_real else None)

    def look_ahead(self, real: Tensor, fake: Tensor) -> list[Tensor]:
        """theta^k, as a function of the fakes that can be differentiated."""
        theta: list[Tensor] = list(self.D.parameters())
        for _ in range(self.unroll):
            with weights(self.D, theta):
                losses = self.loss.d(self.judge(real), self.judge(fake))
            loss = functools.reduce(operator.add, losses.values())
            gradients = autograd.grad(loss, theta, create_graph=True)
            theta = [
                p if g is None else p - g * self.eta for p, g in zip(theta, gradients, strict=True)
            ]
        return theta
