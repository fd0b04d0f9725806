"""A GAN is a game: players own networks, and in each step each of them lowers its own loss.

The training loop (minigan/training/loop.py) knows nothing else about a GAN:

    for each step:
        game.start(batch)
        for each player, as often as it repeats:
            losses = player.losses()
            grads  = mg.grad(sum of losses, player.parameters)
            player.optimizer.step(grads)
        game.finish()
"""

from __future__ import annotations

from abc import ABC, abstractmethod
from collections.abc import Callable, Hashable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan.backend import feed, find, to_device
from minigan.errors import CheckpointError, UsageError
from minigan.nn import Module, Parameter
from minigan.optim import EMA, Optimizer
from minigan.tensor import Tensor

Array = npt.NDArray[Any]
Arrays = dict[str, Array]


@dataclass
class Player:
    """One side of the game.

    Attributes
    ----------
    name : short and unique within the game, such as "D" or "G"; statistics carry it.
    parameters : what this player may change.
    optimizer : steps them.
    losses : called at the player's turn; the sum of the values is minimised. Names start with
        "loss_" and are logged.
    repeats : turns per step (a WGAN critic takes five).
    """

    name: str
    parameters: list[Parameter]
    optimizer: Optimizer
    losses: Callable[[], dict[str, Tensor]]
    repeats: int = 1


class Game(ABC):
    """Base of every GAN: `__init__` sets the attributes, `start`, `preview`, `sample` do the rest.

    Attributes
    ----------
    name : the preset's name.
    options : of the preset, with their values; checkpoints carry them.
    image_shape : C, H, W of what the generator makes.
    players : in the order in which they move.
    networks : name -> Module, such as {"G": ..., "D": ...}.
    ema : name of a network -> its moving average.
    device : where the networks live; `tensor` brings data there.
    log : figures of the step just played. Progress, verdict and report know by name
        "d_real" = mean sigmoid(D(x)), "d_fake" = mean sigmoid(D(G(z))) in D's turn and
        "d_fake_g" = the same in G's turn; any other name is logged and drawn too. Numbers, or
        Tensors of one element, which are read when the step is over.
    batch : images per step unless the user wants another number.
    batches_per_step : real batches that a step needs (a critic that moves five times sees five);
        `start` gets them as one batch of so many times the images.
    data : what it learns from: "images", "pairs", "labels" (photos with label maps) or "unpaired".
        `start` gets the Batch, PairBatch, LabelBatch or UnpairedBatch of minigan.data.
    jitter : of all but images, unless the user wants another: pictures are enlarged by this factor
        and cut at random.
    class_colours : uint8 (classes, 3) in which to show label maps, if the data has some.
    simultaneous : whether all players move along gradients at the same weights, instead of one
        after the other.
    directions : of a game that turns pictures into others: those that `translate` knows.
    preview_columns : pictures in a row of a preview; None: about as many as there are rows.
    """

    name: str
    options: dict[str, Any]
    image_shape: tuple[int, int, int]
    players: list[Player]
    networks: dict[str, Module]
    ema: dict[str, EMA]
    log: dict[str, float | Tensor]
    device: str = "cpu"
    batch: int = 64
    batches_per_step: int = 1
    data: str = "images"
    jitter: float = 1.0
    class_colours: Array | None = None
    simultaneous: bool = False
    directions: tuple[str, ...] = ()
    preview_columns: int | None = None

    def to(self, device: str) -> Game:
        """Move the game to a device: networks, averages, and what the optimizers remember."""
        for part in self.parts().values():
            part.to(device)
        self.device = find(device).name
        return self

    def tensor(self, array: Array) -> Tensor:
        """Data or noise as a Tensor on the device of the game."""
        return Tensor(to_device(array, self.device))

    def feed(self, compute: Callable[[], Array]) -> Tensor:
        """A Tensor of what `compute` gives in this step: noise, labels, a coefficient.

        A step on a GPU is recorded once and then played again and again. It computes the same from
        other numbers; the host's part in it is what goes through `feed`, and the batch.
        """
        return Tensor(feed(compute, self.device))

    def phase(self) -> Hashable:
        """What decides, beside the shapes of the batch, of which operations the next step consists.

        For example whether a lazy penalty is due, or the resolution of a growing network. Each
        phase is recorded on its own.
        """
        return None

    def before_step(self) -> None:  # noqa: B027  (most games have nothing to adapt)
        """Adapt what depends on numbers of the device. It is the host's, and never recorded."""

    def check(self, batch: Any) -> None:  # noqa: B027  (nor do they need more than pictures)
        """Refuse a batch from the host that the game cannot use, such as one without classes."""

    @abstractmethod
    def start(self, batch: Any) -> None:
        """Begin a step: keep the real batch, draw the noise, make what the turns share.

        Neither here nor in the losses may a number be read back from the device.
        """

    def finish(self) -> None:
        """End a step: the moving averages follow the weights."""
        for average in self.ema.values():
            average.update()

    def keep_previews(self, batches: Any) -> None:  # noqa: B027  (most preview noise)
        """Keep what previews shall show of the data, from `batches.batch(0)` and those after it.

        The loop calls it before the first picture, in each session of a run.
        """

    @abstractmethod
    def preview(self) -> Arrays:
        """Return name -> images (N, C, H, W) in [-1, 1] from fixed noise.

        "fakes" comes from the raw weights, "fakes-ema" from their moving average. It must leave
        no trace: no random stream but "preview", no running statistics, the mode as it was.
        """

    @abstractmethod
    def sample(self, z: Array, *, net: str = "ema", labels: Array | None = None) -> Array:
        """Return images (N, C, H, W) in [-1, 1] for noise z (N, ...), each independent of N.

        net : "ema" (the raw weights if there is no average) or "raw".
        labels : class indices (N,), for conditional games only.
        """

    @abstractmethod
    def noise(self, rng: np.random.Generator, n: int) -> Array:
        """Return n draws of the noise that `sample` takes."""

    def translate(
        self,
        images: Array,
        direction: str | None = None,
        *,
        net: str = "ema",
        mode: str | None = None,
        seed: int = 0,
    ) -> Array:
        """Turn pictures (N, C, H, W) in [-1, 1], of any size, into others; each by itself.

        Parameters
        ----------
        direction : one of `directions`, such as "AtoB"; None: the first.
        net : "ema" (the raw weights if there is no average) or "raw".
        mode : statistics of norms; see the game's file.
        seed : of what is random in it, the same for each picture.
        """
        raise UsageError(
            f"{self.name}: this GAN does not turn pictures into others",
            fix="draw from it with `sample`, or train one of pairs or of two kinds of pictures",
        )

    def takes(self, direction: str | None = None) -> int:
        """The channels of the pictures that `translate` takes."""
        return self.image_shape[0]

    def facts(self) -> dict[str, str]:
        """What `minigan info` shall say besides the options and the parameters."""
        return {}

    @property
    def optimizers(self) -> dict[str, Optimizer]:
        """The optimizer of each player, by the player's name."""
        return {player.name: player.optimizer for player in self.players}

    def parts(self) -> dict[str, Any]:
        """Everything with a state, by the prefix of its names in a checkpoint.

        A game with more state (an image pool, an augmentation strength) adds it here.
        """
        named: dict[str, Any] = {f"networks.{name}": net for name, net in self.networks.items()}
        named |= {f"optimizers.{name}": optimizer for name, optimizer in self.optimizers.items()}
        return named | {f"ema.{name}": average for name, average in self.ema.items()}

    def state_dict(self) -> Arrays:
        """Return everything that training changes: networks, optimizers, averages, buffers."""
        return {
            f"{prefix}.{name}": array
            for prefix, part in self.parts().items()
            for name, array in part.state_dict().items()
        }

    def load_state_dict(self, arrays: Mapping[str, Array]) -> None:
        """Take over what `state_dict` returned; every array must find its place."""
        parts = self.parts()
        sorted_out: dict[str, Arrays] = {prefix: {} for prefix in parts}
        for name, array in arrays.items():
            prefix = next((p for p in parts if name.startswith(p + ".")), None)
            if prefix is None:
                raise CheckpointError(f"{self.name}: the game has no place for '{name}'")
            sorted_out[prefix][name.removeprefix(prefix + ".")] = array
        for prefix, part in parts.items():
            part.load_state_dict(sorted_out[prefix])
