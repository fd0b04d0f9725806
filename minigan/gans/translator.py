"""What GANs that turn pictures into other pictures have in common.

They draw from no noise: `translate` takes the place of `sample`. Previews show pictures of the data
beside what becomes of them, a picture in each row.

How a picture is translated (`mode`):

batch   as in training: norms take the statistics of the picture itself, and dropout goes on. So
        pix2pix is meant to be used; with running statistics its colours are often wrong
eval    running statistics and no dropout. With instance norm and without dropout there is no
        difference

Each picture is translated alone, so that the others cannot change it; a seed gives the same dropout
every time.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Collection, Iterator
from typing import Any, ClassVar

import numpy as np

from minigan import autograd, nn, optim, random
from minigan.backend import Array
from minigan.errors import ShapeError, UsageError
from minigan.gans.checks import check_choice, falling
from minigan.gans.game import Game, Player
from minigan.gans.sampling import Standing, sampling
from minigan.losses import AdversarialLoss, adversarial
from minigan.tensor import Tensor

LOSSES = ("ns", "lsgan", "hinge")
DIRECTIONS = ("AtoB", "BtoA")
_NO_STANDING = Standing(lambda net, k: None)  # there is no noise to take statistics from


class Translator(Game):
    """Base of pix2pix and CycleGAN. Positional parameters come from the subclass.

    Parameters
    ----------
    networks, averaged : name -> network; the names of those that a moving average is kept of.
    image_shape : C, H, W of the result.
    loss : "ns" (cross-entropy), "lsgan" (squares, not halved) or "hinge". L_D is halved, as in the
        authors' code, which slows D down in relation to G.
    lr, lr_d : learning rates of the generators and of the discriminators.
    beta1, beta2 : of Adam.
    decay_start, decay_end : the learning rates fall in a line to 0 between these steps; 0: never.
    ema : decay of the moving average of the generators; 0, as in the papers: none.
    previews : rows of pictures in a preview.
    """

    batch = 1
    jitter = 286 / 256
    preview_columns = 4
    recipe: ClassVar[dict[str, Any]] = {}
    mode: ClassVar[str] = "batch"

    def __init__(
        self,
        networks: dict[str, nn.Module],
        averaged: Collection[str],
        image_shape: tuple[int, int, int],
        /,
        *,
        loss: str = "ns",
        lr: float = 2e-4,
        lr_d: float = 2e-4,
        beta1: float = 0.5,
        beta2: float = 0.999,
        decay_start: int = 0,
        decay_end: int = 0,
        ema: float = 0.0,
        previews: int = 8,
    ) -> None:
        self.networks, self.image_shape = networks, image_shape
        self.loss = patch_loss(loss)
        self.middle = 0.5 if loss == "lsgan" else 0.0  # between the logits of reals and of fakes
        decay = decay_start, decay_end
        self.betas = beta1, beta2
        self.rates = {"G": falling(lr, *decay), "D": falling(lr_d, *decay)}
        self.ema = {name: optim.EMA(networks[name], ema) for name in averaged} if ema else {}
        self.previews, self.kept = previews, (np.empty(0), np.empty(0))
        self.log = {}

    def player(self, name: str, losses: Any, *nets: nn.Module) -> Player:
        """One side, which owns several networks, with one optimizer for all of them."""
        parameters = [p for net in nets for p in net.parameters()]
        rule = optim.Adam(parameters, self.rates[name], self.betas)
        return Player(name, parameters, rule, losses)

    # Pictures ------------------------------------------------------------------------------------

    def pictures(self, batch: Any) -> tuple[Tensor, Tensor]:
        """The pictures a and b of a batch."""
        if not (hasattr(batch, "a") and hasattr(batch, "b")):
            raise UsageError(
                f"{self.name}: the data has one kind of pictures",
                why="this GAN learns how one kind becomes another",
                fix="use a folder with pairs, or with the parts trainA and trainB",
            )
        return self.tensor(batch.a), self.tensor(batch.b)

    def keep_previews(self, batches: Any) -> None:
        """Keep the first pictures of the data, one for each row of a preview."""
        taken, k = [batches.batch(0)], 1
        while sum(len(part.a) for part in taken) < self.previews:
            taken.append(batches.batch(k))
            k += 1
        a = np.concatenate([part.a for part in taken])[: self.previews]
        b = np.concatenate([part.b for part in taken])[: self.previews]
        self.kept = a, b

    def kept_pictures(self) -> tuple[Array, Array]:
        """What `keep_previews` kept."""
        if not len(self.kept[0]):
            raise UsageError(
                f"{self.name}: there are no pictures to preview",
                fix="call keep_previews(batches) first",
            )
        return self.kept

    def through(
        self, name: str, images: Array, net: str = "ema", mode: str | None = None, seed: int = 0
    ) -> Array:
        """Pictures (N,C,H,W) through one of the networks, each alone."""
        mode = mode or self.mode
        check_choice("mode", mode, ("batch", "eval"))
        check_choice("net", net, ("ema", "raw"))
        G = self.ema[name].module if net == "ema" and self.ema else self.networks[name]
        dtype = next(G.parameters()).dtype
        done = []
        with autograd.no_grad(), sampling(G, mode, _NO_STANDING) as ready:
            for i in range(len(images)):
                with own_noise(seed):
                    done.append(ready(self.tensor(images[i : i + 1].astype(dtype))).numpy())
        return np.concatenate(done)

    def translate(
        self,
        images: Array,
        direction: str | None = None,
        *,
        net: str = "ema",
        mode: str | None = None,
        seed: int = 0,
    ) -> Array:
        name, channels = self.way(self._known(direction))
        if images.ndim != 4 or images.shape[1] != channels or not len(images):
            raise ShapeError(
                f"{self.name}: cannot translate pictures of shape {images.shape}",
                why=f"they must be (N, {channels}, H, W), at least one",
            )
        return self.through(name, images, net, mode, seed)

    def takes(self, direction: str | None = None) -> int:
        """The channels of the pictures that `translate` takes."""
        return self.way(self._known(direction))[1]

    def _known(self, direction: str | None) -> str:
        direction = direction or self.directions[0]
        if direction not in self.directions:
            raise UsageError(
                f"{self.name}: it did not learn the direction '{direction}'",
                fix=f"it has learned {', '.join(self.directions)}",
            )
        return direction

    def way(self, direction: str) -> tuple[str, int]:
        """The network for a direction, and the channels of what it takes."""
        raise UsageError("Translator is the common part; use Pix2Pix or CycleGAN")

    def sample(self, z: Array, *, net: str = "ema", labels: Array | None = None) -> Array:
        """There is nothing to draw from."""
        raise self._no_noise()

    def noise(self, rng: np.random.Generator, n: int) -> Array:
        """There is none."""
        raise self._no_noise()

    def _no_noise(self) -> UsageError:
        return UsageError(
            f"{self.name}: this GAN draws nothing from noise",
            why="it turns pictures into others",
            fix="translate pictures: game.translate(images)",
        )


def patch_loss(name: str) -> AdversarialLoss:
    """The adversarial loss over patches, L_D halved."""
    check_choice("loss", name, LOSSES)
    squares = {"scale": 1.0} if name == "lsgan" else {}
    return adversarial(name, d_scale=0.5, **squares)


def accuracy(real: Tensor, fake: Tensor, middle: float) -> Tensor:
    """The share of patches that D gets right, reals and fakes counting alike: 0.5 is chance."""
    right = [Tensor((real.data > middle).astype(real.dtype)).mean()]
    right.append(Tensor((fake.data < middle).astype(fake.dtype)).mean())
    return (right[0] + right[1]) * 0.5


@contextlib.contextmanager
def own_noise(seed: int) -> Iterator[None]:
    """Draw from streams that start at `seed`; afterwards all are where they were."""
    before = random.state()
    random.manual_seed(seed)
    try:
        yield
    finally:
        random.set_state(before)


def side_by_side(*columns: Array) -> Array:
    """Pictures of the i-th row one after the other, (rows * columns, C, H, W); grey as colour."""
    channels = max(column.shape[1] for column in columns)
    same = [np.broadcast_to(c, (len(c), channels, *c.shape[2:])) for c in columns]
    rows = np.stack(same, axis=1)
    return rows.reshape(-1, *rows.shape[2:])


def both(preview: Callable[[str], Array], name: str, has_ema: bool) -> dict[str, Array]:
    """A preview by the raw weights, and one by their moving average."""
    sheets = {name: preview("raw")}
    return sheets | ({f"{name}-ema": preview("ema")} if has_ema else {})
