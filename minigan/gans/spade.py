"""SPADE: paints photos from label maps, with the map steering every norm.

Park, Liu, Wang, Zhu: Semantic Image Synthesis with Spatially-Adaptive Normalization (2019),
arXiv:1903.07291.

A network that takes the map m as its input and then normalises forgets it: where m is uniform, so
is every feature, and a norm makes it 0, whatever the class. So here m is no input of the layers. It
makes the scale and the shift of each norm, after the means are gone:

    SPADE(x, m) = x^ (1 + gamma(m)) + beta(m)        x^ = (x - mean) / std, gamma and beta from
                                                     two convolutions each (`nn.SPADE`)
    block(x, m) = c1(lrelu(SPADE1(h, m))) + s,       h = c0(lrelu(SPADE0(x, m)))
                                                     s = x, or cs(SPADEs(x, m))
    G(m, z)     = tanh(c(lrelu(b_n(up ... b_1(up b_0(start))))))

start is a linear map of noise z, or a convolution of m made small. D sees the map and the image
side by side, at two sizes (multiscale.py):

    L_D = 1/S sum_s E relu(1 - D_s(m, x)) + E relu(1 + D_s(m, x~))
    L_G = 1/S sum_s (-E D_s(m, x~) + 10 sum_l E |f_sl(m, x) - f_sl(m, x~)|)  (+ perceptual loss)

As in the authors' code: Xavier initialisation times 0.02, spectral norm in all 3x3 layers of blocks
and all inner layers of D; reals and fakes go through D as one batch; G moves first, then D looks at
fakes that the moved G drew. Here any size of map will do: it is continued at the lower and right
border to a multiple of 2^upsamplings, and the image is cut. The perceptual loss needs a network
that the user brings (`game.perceptual_features`).
"""

from __future__ import annotations

from typing import Any

import minigan.functional as F
from minigan import autograd, nn, optim, random
from minigan.backend import Array
from minigan.errors import UsageError
from minigan.gans import multiscale
from minigan.gans.checks import check_choice
from minigan.gans.label_maps import Maps, crop_to, pad_to_multiple
from minigan.gans.labels import LabelGame, Losses
from minigan.gans.two_player import probability
from minigan.losses import adversarial, feature_matching
from minigan.nn import init
from minigan.nn.blocks import convolution
from minigan.tensor import Tensor

LEAKY: dict[str, Any] = {"activation": "leaky_relu", "negative_slope": 0.2}


class SpadeBlock(nn.Module):
    """The residual block of the docstring above; the shortcut has no activation."""

    def __init__(
        self,
        in_channels: int,
        out_channels: int,
        label_channels: int,
        hidden: int = 128,
        norm: str = "batch",
        spectral: bool = True,
    ) -> None:
        middle = min(in_channels, out_channels)
        self.conv_0 = convolution(in_channels, middle, 3, spectral)
        self.conv_1 = convolution(middle, out_channels, 3, spectral)
        self.norm_0 = nn.SPADE(in_channels, label_channels, hidden, norm=norm)
        self.norm_1 = nn.SPADE(middle, label_channels, hidden, norm=norm)
        self.conv_s: nn.Module | None = None
        if in_channels != out_channels:
            self.conv_s = convolution(in_channels, out_channels, 1, spectral, bias=False)
            self.norm_s = nn.SPADE(in_channels, label_channels, hidden, norm=norm)

    def forward(self, x: Tensor, m: Tensor) -> Tensor:
        if m.shape[2:] != x.shape[2:]:
            m = F.interpolate(m, x.shape[2:], mode="nearest")
        h = self.conv_0(self.norm_0(x, m, **LEAKY))
        h = self.conv_1(self.norm_1(h, m, **LEAKY))
        return h + (x if self.conv_s is None else self.conv_s(self.norm_s(x, m)))


class Generator(nn.Module):
    """Label maps (N, label_channels, H, W), and noise (N, nz) -> images (N, channels, H, W).

    Parameters
    ----------
    label_channels : of a map.
    channels : of an image.
    size : side of the images it learns from; noise makes size / 2^upsamplings squared to start.
    width : maps next to the image; 16 times as many at the start.
    most : maps in a layer at most; 0, as in the paper: any number.
    hidden : maps between a label map and gamma, beta.
    upsamplings : doublings: 5 ("normal" in the authors' code), 6 ("more") or 7 ("most").
    start : "map" or "noise".
    nz : length of the noise vector.
    norm : "batch" or "instance", without weights of its own.
    """

    def __init__(
        self,
        label_channels: int,
        channels: int = 3,
        size: int = 256,
        width: int = 64,
        hidden: int = 128,
        upsamplings: int = 5,
        start: str = "map",
        nz: int = 256,
        norm: str = "batch",
        most: int = 0,
    ) -> None:
        check_choice("start", start, ("map", "noise"))
        check_choice("norm", norm, ("batch", "instance"))
        if upsamplings not in (5, 6, 7):
            raise UsageError(f"upsamplings={upsamplings}", fix="use 5, 6 or 7")
        self.multiple, self.upsamplings = 2**upsamplings, upsamplings
        most = most or 16 * width
        self.side, self.maps = -(-size // self.multiple), min(16 * width, most)

        def block(before: int, after: int) -> SpadeBlock:
            before, after = min(before * width, most), min(after * width, most)
            return SpadeBlock(before, after, label_channels, hidden, norm)

        self.fc: nn.Module
        if start == "noise":
            self.fc = nn.Linear(nz, self.maps * self.side**2)
        else:
            self.fc = nn.Conv2d(label_channels, self.maps, 3, padding=1)
        self.head_0 = block(16, 16)
        self.G_middle_0, self.G_middle_1 = block(16, 16), block(16, 16)
        self.up_0, self.up_1, self.up_2, self.up_3 = (block(2 * k, k) for k in (8, 4, 2, 1))
        last = min(width, most)
        if upsamplings == 7:
            before, last = last, max(1, width // 2)
            self.up_4 = SpadeBlock(before, last, label_channels, hidden, norm)
        self.conv_img = nn.Conv2d(last, channels, 3, padding=1)

    def forward(self, m: Tensor, z: Tensor | None = None) -> Tensor:
        size = m.shape[2:]
        m = pad_to_multiple(m, self.multiple)
        x = self.head_0(self.begin(m, z), m)
        x = self.G_middle_0(double(x), m)
        x = self.G_middle_1(double(x) if self.upsamplings > 5 else x, m)
        for block in (self.up_0, self.up_1, self.up_2, self.up_3):
            x = block(double(x), m)
        if self.upsamplings == 7:
            x = self.up_4(double(x), m)
        return crop_to(F.tanh(self.conv_img(F.leaky_relu(x, 0.2))), size)

    def begin(self, m: Tensor, z: Tensor | None) -> Tensor:
        """The smallest maps: from z, or from m made small. For other sizes, z's are stretched."""
        height, width = (side // self.multiple for side in m.shape[2:])
        if isinstance(self.fc, nn.Conv2d):
            return self.fc(F.interpolate(m, (height, width), mode="nearest"))
        if z is None:
            raise UsageError("SPADE: this generator starts from noise", fix="call G(m, z)")
        x = self.fc(z).reshape(len(z), self.maps, self.side, self.side)
        if x.shape[2:] == (height, width):
            return x
        return F.interpolate(x, (height, width), mode="bilinear")


def double(x: Tensor) -> Tensor:
    """Every pixel as 2x2 pixels."""
    return F.interpolate(x, scale_factor=2, mode="nearest")


class Spade(LabelGame):
    """The players and the recipe of section 4 of the paper.

    Parameters
    ----------
    size, channels : of the images.
    classes : labels are 0 ... classes - 1.
    unknown : let 255 mean "unknown", with a channel of its own.
    edges : show edges of instances to both networks.
    width, width_d : maps of G next to the image, and of D's first layer.
    hidden, upsamplings, start, nz, norm, most : see `Generator`.
    layers, scales : of D, see `multiscale.SpadeDiscriminator`.
    loss : "hinge", "lsgan", "ns" or "wgan".
    feature_matching : weight of that loss.
    perceptual : weight of that loss, if the user brings features.
    fresh : D looks at fakes of the G that has just moved; False: at those that G was judged by,
        which saves a third of G's time.
    lr, lr_d : two time scales, 1e-4 and 4e-4 in the paper.
    decay_start, decay_end : the rates fall in a line to 0 between these steps; 0: never.
    beta1, beta2 : of both Adams.
    ema : decay of the moving average of G; 0: none, as in the paper.
    previews : pictures in a preview grid.
    """

    name = "spade"

    def __init__(
        self,
        size: int = 64,
        channels: int = 3,
        classes: int = 12,
        *,
        unknown: bool = False,
        edges: bool = False,
        width: int = 12,
        width_d: int = 24,
        hidden: int = 32,
        upsamplings: int = 5,
        start: str = "map",
        nz: int = 64,
        norm: str = "batch",
        most: int = 0,
        layers: int = 3,
        scales: int = 2,
        loss: str = "hinge",
        feature_matching: float = 10.0,
        perceptual: float = 10.0,
        fresh: bool = True,
        lr: float = 4e-4,
        lr_d: float = 8e-4,
        decay_start: int = 0,
        decay_end: int = 0,
        beta1: float = 0.0,
        beta2: float = 0.9,
        ema: float = 0.0,
        previews: int = 16,
    ) -> None:
        check_choice("loss", loss, ("hinge", "lsgan", "ns", "wgan"))
        k = self.fit(size, channels, classes, unknown, edges)
        self.G = Generator(k, channels, size, width, hidden, upsamplings, start, nz, norm, most)
        self.D = multiscale.SpadeDiscriminator(k + channels, width_d, layers, scales)
        self.nz, self.scales = nz if start == "noise" else 0, scales
        self.matching, self.perceptual_weight, self.fresh = feature_matching, perceptual, fresh
        self.loss = adversarial(loss, **({"scale": 1.0} if loss == "lsgan" else {}))
        self.networks = {"G": self.G, "D": self.D} | self.more_networks(width, nz)
        for net in self.networks.values():
            init.spade_(net)
        drawing = [net for name, net in self.networks.items() if name != "D"]
        self.ema = {n: optim.EMA(net, ema) for n, net in self.networks.items() if ema and n != "D"}
        recipe: dict[str, Any] = {"decay_start": decay_start, "decay_end": decay_end}
        recipe |= {"beta1": beta1, "beta2": beta2}
        self.players = [
            self.adam("G", drawing, self.g_losses, lr, recipe),
            self.adam("D", [self.D], self.d_losses, lr_d, recipe),
        ]
        self.log = {}
        self.fix_previews(previews)

    def more_networks(self, width: int, nz: int) -> dict[str, nn.Module]:
        """Networks beside G and D that G's player moves too."""
        return {}

    # The step ------------------------------------------------------------------------------------

    def start(self, batch: Any) -> None:
        """Keep the photos and the maps."""
        self.real = self.tensor(batch.images).astype(self.dtype)
        self.m = self.condition(batch)

    def g_losses(self) -> Losses:
        """L_G: hinge, feature matching, and what a subclass has."""
        self.fake, more = self.generate()
        on_fake, on_real = self.judge(self.fake)
        share = 1 / self.scales
        losses = multiscale.g_losses(self.loss, on_fake, share) | more
        if self.matching:
            f_real, f_fake = multiscale.features(on_real), multiscale.features(on_fake)
            losses["loss_features"] = feature_matching(f_real, f_fake) * (self.matching * share)
        self.log["d_fake_g"] = probability(on_fake[0][-1])
        return losses | self.perceptual(self.real, self.fake, self.perceptual_weight)

    def d_losses(self) -> Losses:
        """L_D: hinge of reals and of fakes; G is held fixed."""
        if self.fresh:
            with autograd.no_grad():
                self.fake, _ = self.generate()
        on_fake, on_real = self.judge(self.fake.detach())
        self.log |= {"d_real": probability(on_real[0][-1]), "d_fake": probability(on_fake[0][-1])}
        return multiscale.d_losses(self.loss, on_real, on_fake, 1 / self.scales)

    def judge(self, fake: Tensor) -> tuple[list[multiscale.Scale], list[multiscale.Scale]]:
        """What D says of fakes and of reals, which it sees as one batch."""
        pairs = [F.concat([self.m, fake], 1), F.concat([self.m, self.real], 1)]
        return multiscale.halves(self.D(F.concat(pairs)))

    def generate(self) -> tuple[Tensor, Losses]:
        """x~ = G(m, z) for new noise, and losses that come with it."""
        n = len(self.real)
        z = self.feed(lambda: self.noise(random.draw("z"), n)) if self.nz else None
        return self.G(self.m, None if z is None else z.astype(self.dtype)), {}

    # Pictures ------------------------------------------------------------------------------------

    def noise(self, rng: Any, n: int) -> Array:
        """z ~ N(0, 1), shape (n, nz); (n, 0) for a generator that starts from the map."""
        return rng.standard_normal((n, self.nz), dtype="float32")

    def painter(self, net: str) -> Any:
        return self.ema["G"].module if net == "ema" and self.ema else self.G

    def draw(self, net: str, z: Array, maps: Maps) -> Tensor:
        code = self.tensor(z).astype(self.dtype) if self.nz else None
        return self.painter(net)(self.condition(maps), code)
