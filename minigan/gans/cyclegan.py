"""CycleGAN: pictures of one kind become such of another, learned without pairs.

Zhu, Park, Isola, Efros: Unpaired Image-to-Image Translation using Cycle-Consistent Adversarial
Networks (2017), arXiv:1703.10593.

The idea: G turns pictures of A into such of B, F does the reverse, and each has a discriminator.
These alone could be content with any picture of the other kind. So there and back again must give
the picture one came from: that keeps what is in it.

    L_D_B = 1/2 (E (D_B(b) - 1)^2 + E D_B(pool G(a))^2)       L_D_A the same with a and F(b)
    L_G   = E (D_B(G(a)) - 1)^2 + E (D_A(F(b)) - 1)^2                  adversarial
          + lambda_a E |F(G(a)) - a| + lambda_b E |G(F(b)) - b|        cycle
          + lambda_id (lambda_b E |G(b) - b| + lambda_a E |F(a) - a|)  identity: keeps colours

The pool mixes fakes of the past among those that D sees; see `image_pool`.

Training order (as in the authors' PyTorch code): a step of G and F together; then one of D_A and
D_B together, on the fakes that G and F made before their step. One Adam for two networks does the
same as two of them would. With `simultaneous` all gradients are taken at the weights of before.

Names: the authors' code calls G G_A, F G_B, D_B D_A (what it judges came from A) and D_A D_B.
"""

from __future__ import annotations

from typing import Any, ClassVar

from minigan.backend import Array
from minigan.errors import UsageError
from minigan.gans.checks import check_choice
from minigan.gans.image_pool import ImagePool
from minigan.gans.patches import discriminator, receptive_field
from minigan.gans.residual_generator import ResNetGenerator
from minigan.gans.translator import DIRECTIONS, Translator, accuracy, both, side_by_side
from minigan.gans.two_player import probability
from minigan.gans.unet import UNet, levels_for
from minigan.nn import Module, init
from minigan.reconstruction import l1
from minigan.tensor import Tensor

Losses = dict[str, Tensor]


class CycleGAN(Translator):
    """G: A -> B, F: B -> A, their discriminators, and the recipe of the paper.

    Parameters
    ----------
    size, height : of the pictures: width, and height if it is another; any numbers.
    channels, channels_a : of B, and of A if they are others.
    generator : "resnet" or "unet", both with instance norm.
    blocks : of the ResNet: 9 for 256 pixels, 6 for 128.
    levels : of the U-Net; 0: as many as halve the shorter side to a pixel, 8 at most.
    width, width_d : maps of the first layer of the generators and of the discriminators.
    norm : "instance", "batch" or "none", in all networks.
    dropout : in the generators.
    patch : side of the patches that are judged; see `Pix2Pix`.
    lambda_a, lambda_b : weights of both cycles.
    lambda_id : weight of the identities, relative to the cycles'; 0: none.
    pool : how many fakes of the past each discriminator may see; 0: none.
    simultaneous : all players move along gradients at the same weights.
    recipe : options of `Translator`.
    """

    name = "cyclegan"
    data = "unpaired"
    directions = DIRECTIONS
    recipe: ClassVar[dict[str, Any]] = {"loss": "lsgan"}
    mode: ClassVar[str] = "eval"

    def __init__(
        self,
        size: int = 256,
        height: int = 0,
        channels: int = 3,
        channels_a: int = 0,
        generator: str = "resnet",
        blocks: int = 9,
        levels: int = 0,
        width: int = 64,
        width_d: int = 64,
        norm: str = "instance",
        dropout: float = 0.0,
        patch: int = 70,
        lambda_a: float = 10.0,
        lambda_b: float = 10.0,
        lambda_id: float = 0.5,
        pool: int = 50,
        simultaneous: bool = False,
        **recipe: Any,
    ) -> None:
        check_choice("generator", generator, ("resnet", "unet"))
        sides, of_a, of_b = (height or size, size), channels_a or channels, channels
        if lambda_id and of_a != of_b:
            raise UsageError(
                f"{of_a} channels of A, {of_b} of B: a generator cannot take both kinds",
                why="the identity terms show each generator what it shall produce",
                fix="use pictures with as many channels, or lambda_id=0",
            )

        def network(came: int, made: int) -> UNet | ResNetGenerator:
            if generator == "resnet":
                return ResNetGenerator(came, made, width, blocks, norm, dropout)
            return UNet(came, made, levels or levels_for(sides), width, norm, dropout)

        self.G, self.F = network(of_a, of_b), network(of_b, of_a)
        self.D_A = discriminator(of_a, width_d, patch, norm, sides)
        self.D_B = discriminator(of_b, width_d, patch, norm, sides)
        self.pool_a = ImagePool(pool, (of_a, *sides), "pool a")
        self.pool_b = ImagePool(pool, (of_b, *sides), "pool b")
        self.channels_of = {"AtoB": of_a, "BtoA": of_b}
        self.lambda_a, self.lambda_b, self.lambda_id = lambda_a, lambda_b, lambda_id
        self.simultaneous = simultaneous
        nets: dict[str, Module] = {"G": self.G, "F": self.F, "D_A": self.D_A, "D_B": self.D_B}
        for net in nets.values():
            init.dcgan_(net)
        super().__init__(nets, ["G", "F"], (of_b, *sides), **self.recipe | recipe)
        self.preview_columns = 4 if of_a == of_b else 3
        self.make_players()

    def make_players(self) -> None:
        """The generators together, then the discriminators together."""
        self.players = [
            self.player("G", self.g_losses, self.G, self.F),
            self.player("D", self.d_losses, self.D_A, self.D_B),
        ]

    def start(self, batch: Any) -> None:
        self.a, self.b = self.pictures(batch)
        self.fake_b, self.fake_a = self.G(self.a), self.F(self.b)

    def g_losses(self) -> Losses:
        """L_G, as in the head of this file."""
        on_b, on_a = self.D_B(self.fake_b), self.D_A(self.fake_a)
        back_a, back_b = l1(self.F(self.fake_b), self.a), l1(self.G(self.fake_a), self.b)
        self.log["d_fake_g"] = (probability(on_a) + probability(on_b)) * 0.5
        self.log |= {"cycle_a": back_a.detach(), "cycle_b": back_b.detach()}
        losses = {
            "loss_gan_b": self.loss.g(on_b)["loss_g"],
            "loss_gan_a": self.loss.g(on_a)["loss_g"],
            "loss_cycle_a": back_a * self.lambda_a,
            "loss_cycle_b": back_b * self.lambda_b,
        }
        if self.lambda_id:
            losses["loss_id_b"] = l1(self.G(self.b), self.b) * (self.lambda_b * self.lambda_id)
            losses["loss_id_a"] = l1(self.F(self.a), self.a) * (self.lambda_a * self.lambda_id)
        return losses

    def d_losses(self) -> Losses:
        """L_D_A and L_D_B on reals and on fakes from the pools."""
        losses: Losses = {}
        beliefs = []
        for side, D, real, fake, pool in (
            ("a", self.D_A, self.a, self.fake_a, self.pool_a),
            ("b", self.D_B, self.b, self.fake_b, self.pool_b),
        ):
            on_real, on_fake = D(real), D(pool(fake.detach(), self.feed))
            parts = self.loss.d(on_real, on_fake)
            losses[f"loss_d_{side}"] = parts["loss_d_real"] + parts["loss_d_fake"]
            self.log[f"d_accuracy_{side}"] = accuracy(on_real, on_fake, self.middle)
            beliefs.append((probability(on_real), probability(on_fake)))
        of_a, of_b = beliefs
        self.log["d_real"], self.log["d_fake"] = (
            (x + y) * 0.5 for x, y in zip(of_a, of_b, strict=True)
        )
        return losses

    def parts(self) -> dict[str, Any]:
        """With the pools, unless they are empty for ever."""
        pools = {"pools.a": self.pool_a, "pools.b": self.pool_b}
        return super().parts() | (pools if self.pool_a.size else {})

    def preview(self) -> dict[str, Array]:
        """a, G(a), F(G(a)) and the identity F(a) in a row; the same for b."""
        a, b = self.kept_pictures()

        def sheet(first: str, second: str, given: Array, net: str) -> Array:
            made = self.through(first, given, net)
            columns = [given, made, self.through(second, made, net)]
            if self.preview_columns == 4:
                columns.append(self.through(second, given, net))
            return side_by_side(*columns)

        there = both(lambda net: sheet("G", "F", a, net), "AtoB", bool(self.ema))
        return there | both(lambda net: sheet("F", "G", b, net), "BtoA", bool(self.ema))

    def way(self, direction: str) -> tuple[str, int]:
        return {"AtoB": "G", "BtoA": "F"}[direction], self.channels_of[direction]

    def facts(self) -> dict[str, str]:
        side, multiple = receptive_field(self.D_A), self.G.multiple
        return {
            "receptive field of D": f"{side}x{side} pixels",
            "sizes": f"any; G and F pad sides to a multiple of {multiple} and crop the result",
        }
