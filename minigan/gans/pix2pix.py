"""pix2pix: a picture becomes another, learned from pairs.

Isola, Zhu, Zhou, Efros: Image-to-Image Translation with Conditional Adversarial Networks (2016),
arXiv:1611.07004.

The idea: a loss that compares pixels gives blurred pictures, as it averages over all that may be.
D looks at input and output together, says of each patch whether it is real, and so teaches the
details; the L1 distance to the target keeps the whole in place.

    L_D = 1/2 (BCE(D(a, b), 1) + BCE(D(a, G(a)), 0))          a input, b target
    L_G = lambda_gan BCE(D(a, G(a)), 1) + lambda_l1 E |b - G(a)|

means over patches and pixels. There is no z: G would learn to ignore it. What noise there is comes
from dropout, which goes on when G is used, and batch norm takes the statistics of the picture
itself then.

Training order (as in the authors' PyTorch code): G(a) once; a step of D on it, held fixed, then on
the target; a step of G against the D of after its step.

Where this departs from the paper: it follows the authors' second code. The first one gives G the
logits of D from before its step, and sets all biases to 0 after each step.
"""

from __future__ import annotations

from typing import Any

import numpy as np

import minigan.functional as F
from minigan.backend import Array
from minigan.errors import UsageError
from minigan.gans.checks import check_choice
from minigan.gans.patches import discriminator, receptive_field
from minigan.gans.residual_generator import ResNetGenerator
from minigan.gans.translator import DIRECTIONS, Translator, accuracy, both, side_by_side
from minigan.gans.two_player import probability
from minigan.gans.unet import UNet, levels_for
from minigan.nn import init
from minigan.reconstruction import l1
from minigan.tensor import Tensor


class Pix2Pix(Translator):
    """G and D, and the recipe of the paper.

    Parameters
    ----------
    size, height : of the pictures: width, and height if it is another. Any numbers go: the U-Net
        pads to a multiple of 2^levels and crops.
    channels, channels_a : of B, and of A if they are others.
    direction : "AtoB", or "BtoA": which part of a pair is the input.
    generator : "unet", or "resnet" (that of CycleGAN).
    levels : of the U-Net; 0: as many as halve the shorter side to a pixel, 8 at most.
    blocks : of the ResNet.
    width, width_d : maps of the first layer of G and of D.
    norm : "batch", "instance" or "none", in G and in D.
    dropout, dropout_at : see `UNet`.
    patch : side of the patches that D judges: 1 (single pixels), 16, 34, 70, 142, 286; 0: the
        whole picture.
    conditional : whether D sees the input beside the output.
    lambda_l1 : weight of L1; 0: the adversarial loss alone.
    lambda_gan : weight of the adversarial loss; 0: L1 alone, and D does not play.
    recipe : options of `Translator`.
    """

    name = "pix2pix"
    data = "pairs"

    def __init__(
        self,
        size: int = 256,
        height: int = 0,
        channels: int = 3,
        channels_a: int = 0,
        direction: str = "AtoB",
        generator: str = "unet",
        levels: int = 0,
        blocks: int = 9,
        width: int = 64,
        width_d: int = 64,
        norm: str = "batch",
        dropout: float = 0.5,
        dropout_at: str = "middle",
        patch: int = 70,
        conditional: bool = True,
        lambda_l1: float = 100.0,
        lambda_gan: float = 1.0,
        **recipe: Any,
    ) -> None:
        check_choice("direction", direction, DIRECTIONS)
        check_choice("generator", generator, ("unet", "resnet"))
        if not (lambda_l1 or lambda_gan):
            raise UsageError("lambda_l1 and lambda_gan are 0: there is nothing to learn from")
        sides = (height or size, size)
        ends = (channels_a or channels, channels)
        came, made = ends if direction == "AtoB" else ends[::-1]
        if generator == "unet":
            levels = levels or levels_for(sides)
            self.G: UNet | ResNetGenerator = UNet(
                came, made, levels, width, norm, dropout, dropout_at
            )
        else:
            self.G = ResNetGenerator(came, made, width, blocks, norm, dropout)
        judged = came + made if conditional else made
        self.D = discriminator(judged, width_d, patch, norm, sides)
        init.dcgan_(self.G)
        init.dcgan_(self.D)
        self.directions = (direction,)
        self.channels_in, self.conditional = came, conditional
        self.lambda_l1, self.lambda_gan = lambda_l1, lambda_gan
        super().__init__({"G": self.G, "D": self.D}, ["G"], (made, *sides), **self.recipe | recipe)
        self.make_players()

    def make_players(self) -> None:
        """D and G, or G alone."""
        self.players = [self.player("G", self.g_losses, self.G)]
        if self.lambda_gan:
            self.players.insert(0, self.player("D", self.d_losses, self.D))

    def judge(self, a: Tensor, b: Tensor) -> Tensor:
        """D(a, b): a logit for each patch."""
        return self.D(F.concat([a, b], 1) if self.conditional else b)

    def start(self, batch: Any) -> None:
        a, b = self.pictures(batch)
        self.a, self.b = (a, b) if self.directions == ("AtoB",) else (b, a)
        self.fake = self.G(self.a)

    def d_losses(self) -> dict[str, Tensor]:
        """L_D, the fake before the real, as the running statistics of the authors' D."""
        on_fake = self.judge(self.a, self.fake.detach())
        on_real = self.judge(self.a, self.b)
        self.log |= {"d_real": probability(on_real), "d_fake": probability(on_fake)}
        self.log["d_accuracy"] = accuracy(on_real, on_fake, self.middle)
        return self.loss.d(on_real, on_fake)

    def g_losses(self) -> dict[str, Tensor]:
        """L_G."""
        losses = {}
        if self.lambda_gan:
            on_fake = self.judge(self.a, self.fake)
            self.log["d_fake_g"] = probability(on_fake)
            losses["loss_gan"] = self.loss.g(on_fake)["loss_g"] * self.lambda_gan
        distance = l1(self.fake, self.b)
        self.log["l1"] = distance.detach()
        if self.lambda_l1:
            losses["loss_l1"] = distance * self.lambda_l1
        return losses

    def preview(self) -> dict[str, Array]:
        """Input, output, target, and how far apart the last two are: black is equal."""
        a, b = self.kept_pictures()
        given, target = (a, b) if self.directions == ("AtoB",) else (b, a)

        def sheet(net: str) -> Array:
            made = self.through("G", given, net)
            return side_by_side(given, made, target, np.abs(made - target) - 1)

        return both(sheet, "pairs", bool(self.ema))

    def way(self, direction: str) -> tuple[str, int]:
        return "G", self.channels_in

    def facts(self) -> dict[str, str]:
        side = receptive_field(self.D)
        multiple = self.G.multiple
        return {
            "receptive field of D": f"{side}x{side} pixels",
            "sizes": f"any; G pads sides to a multiple of {multiple} and crops the result",
        }
