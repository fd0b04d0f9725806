"""pix2pixHD: photos of label maps from coarse to fine, with styles of single objects.

Wang, Liu, Zhu, Tao, Kautz, Catanzaro: High-Resolution Image Synthesis and Semantic Manipulation
with Conditional GANs (2017), arXiv:1711.11585.

G is a global generator for images of half the size, and an enhancer that is wrapped around it
(coarse_to_fine.py). D looks at the map and the image at several sizes (multiscale.py):

    L_D = 1/2 sum_s (E (D_s(m, x) - 1)^2 + E D_s(m, x~)^2)
    L_G = sum_s E (D_s(m, x~) - 1)^2 + 10 * 4/(layers + 1) * 1/S sum_sl E |f_sl(m,x) - f_sl(m,x~)|

m has an edge wherever two objects meet, so that neighbours of one class come apart. With `features`
G also sees a code of every object, which an encoder reads from the photo (instances.py); E is
trained with G, and codes of the data give other styles to paint with (`cluster`).

The course of the training, by `global_steps` and `fixed_steps`:

    "global"    the global generator alone, with a last layer of its own, on small photos
    "enhancer"  the enhancers around it, while it is held fixed
    "whole"     everything

As in the authors' code, all gradients are taken at the same weights, before anybody moves. There
the first stage is a run of its own with another D; here D stays, since it takes any size. And the
global generator always sees the map as it will see it inside: as means of pixels.
"""

from __future__ import annotations

from collections.abc import Hashable, Iterable
from typing import Any

import numpy as np

import minigan.functional as F
from minigan import autograd, nn, optim, random
from minigan.backend import Array
from minigan.errors import UsageError
from minigan.gans import multiscale
from minigan.gans.coarse_to_fine import (
    FeatureEncoder,
    GlobalGenerator,
    Head,
    LocalEnhancer,
    shrunk,
)
from minigan.gans.instances import Styles, check_ids, instance_mean, kmeans, object_codes
from minigan.gans.label_maps import Maps, crop_to
from minigan.gans.labels import LabelGame, Losses
from minigan.gans.two_player import probability
from minigan.losses import adversarial, feature_matching
from minigan.nn import init
from minigan.tensor import Tensor

CENTRES = 10  # of each class's codes


class Pix2PixHD(LabelGame):
    """The players and the recipe.

    Parameters
    ----------
    size, channels, classes, unknown, edges : see `Spade`; edges are on here.
    width : maps of G next to the full image; the global generator has width * 2^enhancers.
    downs, blocks : of the global generator, see `coarse_to_fine.GlobalGenerator`.
    enhancers, local_blocks : see `coarse_to_fine.LocalEnhancer`; 0 enhancers: the global
        generator is all, in full size.
    features : length of an object's code; 0: no encoder.
    width_e, downs_e : of the encoder.
    width_d, layers, scales : of D, see `multiscale.HDDiscriminator`.
    global_steps, fixed_steps : lengths of the first two stages.
    feature_matching, perceptual : weights of these losses; the second needs the user's features.
    lr, lr_d, beta1, beta2, decay_start, decay_end, ema, previews : see `Spade`.
    """

    name = "pix2pixhd"
    simultaneous = True

    def __init__(
        self,
        size: int = 64,
        channels: int = 3,
        classes: int = 12,
        *,
        unknown: bool = False,
        edges: bool = True,
        width: int = 16,
        downs: int = 2,
        blocks: int = 4,
        enhancers: int = 1,
        local_blocks: int = 2,
        features: int = 0,
        width_e: int = 8,
        downs_e: int = 2,
        width_d: int = 24,
        layers: int = 3,
        scales: int = 2,
        global_steps: int = 0,
        fixed_steps: int = 0,
        feature_matching: float = 10.0,
        perceptual: float = 10.0,
        lr: float = 2e-4,
        lr_d: float = 2e-4,
        decay_start: int = 0,
        decay_end: int = 0,
        beta1: float = 0.5,
        beta2: float = 0.999,
        ema: float = 0.0,
        previews: int = 16,
    ) -> None:
        if not enhancers and (global_steps or fixed_steps):
            raise UsageError(
                f"{self.name}: global_steps={global_steps}, fixed_steps={fixed_steps}",
                why="without enhancers there is one stage only",
                fix="leave them away, or use enhancers=1",
            )
        k = self.fit(size, channels, classes, unknown, edges)
        self.enhancers, self.features = enhancers, features
        self.nz = classes + unknown if features else 0
        self.ends = global_steps, global_steps + fixed_steps
        form = (k + features, channels, width, downs, blocks)
        self.G: Any = LocalEnhancer(*form, enhancers, local_blocks) if enhancers else None
        self.G = self.G or GlobalGenerator(*form)
        self.D = multiscale.HDDiscriminator(k + channels, width_d, layers, scales)
        self.networks = {"G": self.G}
        if global_steps:
            self.networks["head"] = Head(width * 2**enhancers, channels)
        if features:
            self.networks["E"] = FeatureEncoder(channels, features, width_e, downs_e)
            self.styles = Styles(self.nz, CENTRES, features)
        drawing = dict(self.networks)
        self.networks["D"] = self.D
        for net in self.networks.values():
            init.dcgan_(net)
        self.ema = {name: optim.EMA(net, ema) for name, net in drawing.items() if ema}
        self.loss = adversarial("lsgan", scale=1.0, d_scale=0.5)
        self.matching = feature_matching * 4 / (layers + 1) / scales
        self.perceptual_weight = perceptual
        recipe: dict[str, Any] = {"decay_start": decay_start, "decay_end": decay_end}
        recipe |= {"beta1": beta1, "beta2": beta2}
        self.players = [
            self.adam("D", [self.D], self.d_losses, lr_d, recipe),
            self.adam("G", list(drawing.values()), self.g_losses, lr, recipe),
        ]
        self.log = {}
        self.fix_previews(previews)

    def check(self, batch: Any) -> None:
        """Labels must be classes, and the numbers of objects small."""
        super().check(batch)
        if self.features and batch.instances is not None:
            check_ids(batch.instances, self.name)

    # The course ----------------------------------------------------------------------------------

    @property
    def stage(self) -> str:
        """One of "global", "enhancer", "whole". G's optimizer counts, so a resumed run knows."""
        steps = self.players[1].optimizer.steps
        if steps < self.ends[0]:
            return "global"
        return "enhancer" if steps < self.ends[1] else "whole"

    def phase(self) -> Hashable:
        return self.stage

    # The step ------------------------------------------------------------------------------------

    def start(self, batch: Any) -> None:
        """The map, the photo and what G makes, in the size of this stage."""
        self.m = self.condition(batch)
        self.real = self.tensor(batch.images).astype(self.dtype)
        x = self.m
        if self.features:
            x = F.concat([x, self.codes(self.real, batch, self.networks["E"])], 1)
        stage = self.stage
        if stage == "global":
            self.fake = self.networks["head"](self.G.model(self.G.small(x)))
            self.m = self.G.small(self.m)
            self.real = shrunk(self.real, self.enhancers, self.G.multiple)
        else:
            self.fake = self.G(x, frozen=stage == "enhancer")

    def d_losses(self) -> Losses:
        """L_D; what D says of the photo serves G's turn too."""
        self.on_real = self.judge(self.real)
        on_fake = self.judge(self.fake.detach())
        self.log |= {
            "d_real": probability(self.on_real[0][-1]),
            "d_fake": probability(on_fake[0][-1]),
        }
        return multiscale.d_losses(self.loss, self.on_real, on_fake, 1.0)

    def g_losses(self) -> Losses:
        """L_G."""
        on_fake = self.judge(self.fake)
        losses = multiscale.g_losses(self.loss, on_fake, 1.0)
        if self.matching:
            f_real, f_fake = multiscale.features(self.on_real), multiscale.features(on_fake)
            losses["loss_features"] = feature_matching(f_real, f_fake) * self.matching
        self.log["d_fake_g"] = probability(on_fake[0][-1])
        return losses | self.perceptual(self.real, self.fake, self.perceptual_weight)

    def judge(self, images: Tensor) -> list[multiscale.Scale]:
        """What D says of images of the maps."""
        return self.D(F.concat([self.m, images], 1))

    def codes(self, photos: Tensor, maps: Any, E: nn.Module) -> Tensor:
        """E's features of photos, averaged over objects; without instances, over classes."""
        ids = maps.labels if maps.instances is None else maps.instances
        check_ids(ids, self.name)
        return instance_mean(E(photos), self.tensor(ids))

    # Pictures ------------------------------------------------------------------------------------

    def noise(self, rng: Any, n: int) -> Array:
        """z (n, classes) in [0, 1): which style each class has; (n, 0) without features."""
        return rng.random((n, self.nz), dtype="float32")

    def painter(self, net: str) -> Any:
        return self.ema["G"].module if net == "ema" and self.ema else self.G

    def part_for(self, net: str, name: str) -> nn.Module:
        """A network, or its average."""
        return self.ema[name].module if net == "ema" and self.ema else self.networks[name]

    def draw(self, net: str, z: Array, maps: Maps) -> Tensor:
        """Styles come from the photos if there are any, and else from the clusters by z."""
        m, G = self.condition(maps), self.painter(net)
        x = m
        if self.features:
            x = F.concat([m, self.code_map(net, z, maps, m)], 1)
        if self.stage != "global":
            return G(x)
        small = self.part_for(net, "head")(G.model(G.small(x)))
        return crop_to(F.interpolate(small, scale_factor=2**self.enhancers), m.shape[2:])

    def code_map(self, net: str, z: Array, maps: Maps, m: Tensor) -> Tensor:
        """A code for every pixel."""
        if maps.photos is None:
            return self.styles(m[:, : self.nz], self.tensor(z))
        photos = self.tensor(maps.photos).astype(self.dtype)
        return self.codes(photos, maps, self.part_for(net, "E"))

    @autograd.no_grad()
    def cluster(self, batches: Iterable[Any], net: str = "ema") -> None:
        """Find centres of the codes of all objects in the batches, class by class.

        The checkpoint keeps them. Until it is called, pictures without photos have code 0.
        """
        if not self.features:
            raise UsageError(f"{self.name}: there are no codes", fix="train with -o features=3")
        found: dict[int, list[Array]] = {}
        for batch in batches:
            photos = self.tensor(batch.images).astype(self.dtype)
            pooled = self.codes(photos, batch, self.part_for(net, "E")).numpy()
            ids = batch.labels if batch.instances is None else batch.instances
            for label, codes in object_codes(pooled, batch.labels, ids).items():
                found.setdefault(min(label, self.classes), []).append(codes)
        centres = np.zeros(self.styles.centres.shape, np.float32)
        for label, parts in found.items():
            rng = random.generator(0, "clusters", label)
            centres[label] = kmeans(np.concatenate(parts), CENTRES, rng)
        self.styles.centres.data[...] = self.tensor(centres).data
        self.styles.centres.bump()

    def parts(self) -> dict[str, Any]:
        """With the centres."""
        return super().parts() | ({"styles": self.styles} if self.features else {})
