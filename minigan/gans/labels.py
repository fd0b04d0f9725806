"""What GANs that paint label maps have in common: SPADE, GauGAN and pix2pixHD.

A label map (N,H,W) has the number of a class at every pixel. Networks see it as K channels of 0 and
1, one for each class ("one-hot"), perhaps with one more channel that is 1 where an object ends:

    m[n, k, i, j] = 1 if label[n, i, j] = k else 0
    edge[i, j]    = 1 if the object at (i, j) is not that of the pixel above, below, left or right
"""

from __future__ import annotations

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

import minigan.functional as F
from minigan import autograd, optim, random
from minigan.backend import Array
from minigan.data.pixels import to_uint8
from minigan.errors import ShapeError, UsageError
from minigan.gans.checks import falling
from minigan.gans.game import Game, Player
from minigan.gans.label_maps import UNKNOWN, Maps, check_maps, coloured, edges_of, maps_of
from minigan.gans.sampling import Standing, sampling
from minigan.tensor import Tensor

PERCEPTUAL_WEIGHTS = (1 / 32, 1 / 16, 1 / 8, 1 / 4, 1.0)  # of VGG's relu1_1 ... relu5_1
_CHUNK = 16  # images that `sample` computes at once
Losses = dict[str, Tensor]


class LabelGame(Game):
    """Base of the games that turn label maps into photos.

    Attributes
    ----------
    classes : labels are 0 ... classes - 1.
    unknown : whether the label 255 is allowed too; it has a channel of its own.
    edges : whether the networks see edges of objects.
    class_colours : uint8 (classes, 3), for previews; None leaves the map out of them.
    perceptual_features : images (N,C,H,W) in [-1, 1] -> features layer by layer, of a network that
        the user brings (the papers take five layers of VGG-19); None leaves out the loss.
    examples : what previews show.
    """

    data = "labels"
    batch = 4
    class_colours: Array | None = None
    perceptual_features: Callable[[Tensor], Sequence[Tensor]] | None = None
    examples: Maps | None = None

    def fit(self, size: int, channels: int, classes: int, unknown: bool, edges: bool) -> int:
        """Take over the form of the data; return how many channels a map has for the networks."""
        if classes < 1 or (unknown and classes > UNKNOWN):
            raise UsageError(
                f"{self.name}: {classes} classes", fix=f"use 1 to {UNKNOWN} classes, labels from 0"
            )
        self.image_shape = (channels, size, size)
        self.classes, self.unknown, self.edges = classes, unknown, edges
        return classes + unknown + edges

    def adam(
        self, name: str, nets: Sequence[Any], losses: Any, lr: float, recipe: dict[str, Any]
    ) -> Player:
        """One side, with Adam, whose rate may fall to 0 between decay_start and decay_end."""
        parameters = [p for net in nets for p in net.parameters()]
        rate = falling(lr, recipe["decay_start"], recipe["decay_end"])
        betas = recipe["beta1"], recipe["beta2"]
        return Player(name, parameters, optim.Adam(parameters, rate, betas), losses)

    def check(self, batch: Any) -> None:
        """Refuse data without label maps, and labels that are no class."""
        if getattr(batch, "labels", None) is None or batch.labels.ndim != 3:
            raise UsageError(
                f"{self.name}: the data has no label maps",
                why="this GAN learns how maps of classes become photos",
                fix="use the set scenes, or a folder with photos and label maps",
            )
        check_maps(batch.labels, self.classes, self.unknown, self.name)

    # Maps ----------------------------------------------------------------------------------------

    @property
    def dtype(self) -> Any:
        """In which the networks compute."""
        return self.players[0].parameters[0].dtype

    def condition(self, maps: Any) -> Tensor:
        """The maps as the networks see it: (N, classes + unknown + edges, H, W).

        maps : a batch, or `Maps`. Without `edges` they are those of the instances, and without
            instances those of the labels.
        """
        labels, edges, instances = maps.labels, maps.edges, maps.instances
        check_maps(labels, self.classes, self.unknown, self.name)
        map_ = self.tensor(labels)
        n, height, width = map_.shape
        numbers = [*range(self.classes), *([UNKNOWN] if self.unknown else [])]
        ids = self.tensor(np.array(numbers, labels.dtype).reshape(1, -1, 1, 1))
        hot = (map_.reshape(n, 1, height, width) == ids).astype(self.dtype)
        if not self.edges:
            return hot
        if edges is not None:
            drawn = self.tensor(edges).astype(self.dtype)
        else:
            drawn = edges_of(map_ if instances is None else self.tensor(instances), self.dtype)
        return F.concat([hot, drawn], 1)

    # The losses of G that both papers have -------------------------------------------------------

    def perceptual(self, real: Tensor, fake: Tensor, weight: float) -> Losses:
        """weight * sum_l w_l mean |phi_l(x) - phi_l(x~)|, if the user brought phi."""
        if self.perceptual_features is None or not weight:
            return {}
        with autograd.no_grad():
            wanted = list(self.perceptual_features(real))
        given = list(self.perceptual_features(fake))
        shares = PERCEPTUAL_WEIGHTS if len(wanted) == 5 else (1 / len(wanted),) * len(wanted)
        terms = [F.l1_loss(f, r) * w for f, r, w in zip(given, wanted, shares, strict=True)]
        total = terms[0]
        for term in terms[1:]:
            total = total + term
        return {"loss_perceptual": total * weight}

    # Pictures ------------------------------------------------------------------------------------

    @abstractmethod
    def draw(self, net: str, z: Array, maps: Maps) -> Tensor:
        """Images of maps in the styles z; `net` is "ema" or "raw"."""

    @abstractmethod
    def painter(self, net: str) -> Any:
        """The generator that `draw` uses."""

    def keep_previews(self, batches: Any) -> None:
        """Let previews show the first maps of the data, and beside them their photos."""
        taken: list[Maps] = []
        while sum(len(maps.labels) for maps in taken) < len(self.fixed_noise):
            taken.append(maps_of(batches.batch(len(taken))))
        columns: Any = zip(*taken, strict=True)
        joined: Any = [None if c[0] is None else np.concatenate(c) for c in columns]
        self.examples = Maps(*joined).part(slice(len(self.fixed_noise)))

    @autograd.no_grad()
    def sample(
        self,
        z: Array,
        *,
        net: str = "ema",
        labels: Array | None = None,
        mode: str = "eval",
        edges: Array | None = None,
        instances: Array | None = None,
        photos: Array | None = None,
    ) -> Array:
        """Images (N,C,H,W) in [-1, 1] of label maps `labels` (N,H,W) of any size.

        mode : "eval", or "batch" (see minigan/gans/sampling.py).
        edges, instances : (N,1,H,W) and (N,H,W), for games that use them.
        photos : (N,C,H,W) in [-1, 1], for games that take styles of objects from them.
        """
        if labels is None or labels.ndim != 3:
            raise UsageError(
                f"{self.name}: of which label maps?",
                why="this GAN paints maps of classes",
                fix="minigan paint; in Python, labels= takes whole numbers of shape (N,H,W)",
            )
        if len(labels) != len(z):
            raise ShapeError(f"{self.name}: {len(z)} codes for label maps of shape {labels.shape}")
        images = []
        with sampling(self.painter(net), mode, Standing(_no_standing)):
            step = len(z) if mode == "batch" else _CHUNK
            for i in range(0, len(z), step):
                part = slice(i, i + step)
                maps = Maps(labels, edges, instances, photos).part(part)
                images.append(self.draw(net, z[part], maps).numpy())
        return np.concatenate(images)

    def render(
        self,
        labels: Array,
        z: Array | None = None,
        style: Array | None = None,
        seed: int = 0,
        net: str = "ema",
    ) -> Array:
        """Paint one label map: the same arguments give the same bytes.

        Parameters
        ----------
        labels : (H,W), whole numbers; any size.
        z : a style as a code (nz,).
        style : a picture, uint8 (H,W,C), whose style is wanted (GauGAN).
        seed : of the code, if neither is given.

        Returns
        -------
        uint8 (H,W,C)
        """
        if labels.ndim != 2:
            raise ShapeError(f"{self.name}: one label map is (H,W), not {labels.shape}")
        if z is None:
            rng = random.generator(seed, "paint", 0)
            z = self.noise(rng, 1)[0] if style is None else self.encode(style)[0]
        image = self.sample(z[None], net=net, labels=labels[None])[0]
        return to_uint8(image).transpose(1, 2, 0)

    def encode(self, photo: Array, net: str = "ema") -> Array:
        """The code z (N,nz) of the style of photos."""
        raise UsageError(
            f"{self.name}: this GAN has no encoder of styles",
            fix="choose a style by its seed, or train gaugan",
        )

    def preview(self) -> dict[str, Array]:
        """Pictures of the examples; "compare" has the map, the picture and the photo in a row."""
        maps = self.examples or Maps(self.fixed_maps, None, None, None)
        z, given = self.fixed_noise[: len(maps.labels)], maps._asdict()
        grids = {"fakes": self.sample(z, net="raw", **given)}
        if self.ema:
            grids["fakes-ema"] = self.sample(z, net="ema", **given)
        row = [grids.get("fakes-ema", grids["fakes"])]
        if self.class_colours is not None and row[0].shape[1] == 3:
            row.insert(0, coloured(maps.labels, self.class_colours))
        if maps.photos is not None:
            row.append(maps.photos)
        return grids | ({"compare": np.concatenate(row, 3)} if len(row) > 1 else {})

    def fix_previews(self, count: int) -> None:
        """Codes of the previews, and maps for as long as there are no examples."""
        rng = random.draw("preview")
        self.fixed_noise = self.noise(rng, count)
        _, height, width = self.image_shape
        corners = rng.random((count, min(self.classes, 8), 2))
        classes = rng.integers(0, self.classes, corners.shape[:2])
        rows, columns = np.arange(height)[:, None] / height, np.arange(width) / width
        self.fixed_maps = np.zeros((count, height, width), np.int64)
        for map_, places, ids in zip(self.fixed_maps, corners, classes, strict=True):
            for (top, left), class_ in zip(places, ids, strict=True):
                map_[(rows >= top) & (columns >= left)] = class_


def _no_standing(net: Any, k: int) -> Any:
    raise UsageError("label maps have no standing statistics", fix="use mode 'eval' or 'batch'")
