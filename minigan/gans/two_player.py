"""The course of every GAN with one generator and one discriminator.

    step of one D turn (d_steps = 1)            step of k > 1 D turns
    --------------------------------            ---------------------
    x real, y its classes                       k batches of x, one for each turn of D
    z, y~ new;  x~ = G(z, y~)                   in each turn of D: z, y~ new, x~ = G(z, y~), G fixed
    D: lower L_D(D(T x), D(T x~)) + penalty     D: the same
    G: lower L_G(D(T x~)), the same x~          G: z, y~ new once more; lower L_G(D(T x~))

T is the augmentation, drawn anew whenever D looks. G always plays against the D that has just
moved. A GAN of this kind is a subclass that brings networks and a recipe; most bring no more.
"""

from __future__ import annotations

from collections.abc import Hashable
from typing import Any, ClassVar

import numpy as np

import minigan.functional as F
from minigan import autograd, nn, optim, random
from minigan.augment import augment as augmentation
from minigan.backend import Array
from minigan.errors import UsageError
from minigan.gans.checks import check_choice, check_classes
from minigan.gans.game import Game, Player
from minigan.gans.sampling import Standing, sampling
from minigan.losses import adversarial
from minigan.penalties import penalty as gradient_penalty
from minigan.tensor import Tensor

Losses = dict[str, Tensor]
CRITICS = ("wgan", "relativistic", "relativistic-average")  # D + constant is as good as D
_CHUNK = 64  # images that `sample` computes at once


class TwoPlayer(Game):
    """G against D. Positional parameters come from the subclass, the others are options.

    Parameters
    ----------
    G, D : the networks: G(z) or G(z, y) -> images, D(x) or D(x, y) -> logits.
    image_shape : C, H, W.
    nz : length of the noise vector.
    classes : how many classes there are; 0 for a GAN without labels.
    loss : "minimax", "ns", "lsgan", "wgan", "hinge", "relativistic" or "relativistic-average".
    smoothing : D's target for reals is 1 - smoothing (one-sided label smoothing).
    penalty : "none", "gp", "gp-one-sided", "dragan", "r1", "r2", "zero-centred", "wgan-div" or
        "drift"; at the augmented images, where D judges, and with the classes of the reals.
    penalty_weight : None takes the usual one.
    penalty_every : apply it in every k-th turn of D, k times as strong.
    clip : bring the weights of D into [-clip, clip] before each of its turns; 0: leave them.
    spectral : divide every weight of D by its largest singular value.
    augment : "none", "diffaugment" or "ada": what happens to all images before D sees them.
    d_steps : turns of D for one of G, each with reals of its own.
    d_batches : "separate": reals and fakes go through D one after the other, so batch norm sees
        one kind at a time; "joint": as one batch.
    simultaneous : both move along gradients at the same weights (Goodfellow's code), so G plays
        against the D of before its turn.
    optimizer : "adam", "rmsprop" (beta2 is its alpha) or "sgd" (beta1 is its momentum).
    lr, lr_d : learning rates of G and of D.
    beta1, beta2 : of the optimizers of both players.
    ema : decay of the moving average of G that is kept for sampling; 0: none.
    previews : images in a preview grid.

    Attributes
    ----------
    recipe : what a subclass wants as defaults of these options.
    mode : how `sample` draws unless it is told otherwise; see minigan/gans/sampling.py.
    real, y : what D's turn looks at, and the classes; y is None without classes.
    fake, y_fake : G's images of this turn, and the classes that were asked for.
    """

    recipe: ClassVar[dict[str, Any]] = {}
    mode: ClassVar[str] = "eval"

    def __init__(
        self,
        G: nn.Module,
        D: nn.Module,
        image_shape: tuple[int, int, int],
        nz: int,
        classes: int = 0,
        /,
        *,
        loss: str = "ns",
        smoothing: float = 0.0,
        penalty: str = "none",
        penalty_weight: float | None = None,
        penalty_every: int = 1,
        clip: float = 0.0,
        spectral: bool = False,
        augment: str = "none",
        d_steps: int = 1,
        d_batches: str = "separate",
        simultaneous: bool = False,
        optimizer: str = "adam",
        lr: float = 2e-4,
        lr_d: float = 2e-4,
        beta1: float = 0.5,
        beta2: float = 0.999,
        ema: float = 0.999,
        previews: int = 64,
    ) -> None:
        if d_steps < 1 or (simultaneous and d_steps > 1):
            raise UsageError(
                f"d_steps={d_steps}{', simultaneous' if simultaneous else ''}: no such order",
                why="D has at least one turn, and just one if both players move at the same time",
            )
        check_choice("d_batches", d_batches, ("separate", "joint"))
        check_choice("optimizer", optimizer, ("adam", "rmsprop", "sgd"))
        self.G, self.D, self.image_shape, self.nz, self.classes = G, D, image_shape, nz, classes
        if spectral:
            normalise_spectrum(D)
        self.loss = adversarial(loss, **({"smoothing": smoothing} if smoothing else {}))
        self.loss_name, self.is_critic = loss, loss in CRITICS
        self.penalty = gradient_penalty(penalty, penalty_weight, penalty_every, self.feed)
        self.augment = augmentation(augment)
        self.clip, self.joint = clip, d_batches == "joint"
        self.d_steps = self.batches_per_step = d_steps
        self.simultaneous = simultaneous
        self.optimizer, self.beta2 = optimizer, beta2
        self.networks = {"G": G, "D": D}
        self.ema = {"G": optim.EMA(G, ema)} if ema else {}
        self.players = [
            self.player("D", D, self.d_losses, lr_d, beta1, d_steps),
            self.player("G", G, self.g_losses, lr, beta1),
        ]
        self.log = {}
        self.standing = Standing(self.draw_anything)
        self.fix_previews(previews)

    def player(
        self, name: str, net: nn.Module, losses: Any, lr: float, beta1: float, repeats: int = 1
    ) -> Player:
        """One side, with an optimizer of its own."""
        parameters = list(net.parameters())
        rule: optim.Optimizer
        if self.optimizer == "adam":
            rule = optim.Adam(parameters, lr, (beta1, self.beta2))
        elif self.optimizer == "rmsprop":
            rule = optim.RMSprop(parameters, lr, alpha=self.beta2)
        else:
            rule = optim.SGD(parameters, lr, momentum=beta1)
        return Player(name, parameters, rule, losses, repeats)

    # What a subclass may do otherwise ------------------------------------------------------------

    def generate(self, z: Tensor, y: Tensor | None = None, net: nn.Module | None = None) -> Tensor:
        """G(z) or G(z, y), by `net` if it is not to be G itself."""
        G = self.G if net is None else net
        return G(z) if y is None else G(z, y)

    def judge(self, x: Tensor, y: Tensor | None = None) -> Tensor:
        """D(x) or D(x, y): logits."""
        return self.D(x) if y is None else self.D(x, y)

    def noise(self, rng: np.random.Generator, n: int) -> Array:
        """z ~ N(0, 1), shape (n, nz)."""
        return rng.standard_normal((n, self.nz), dtype=np.float32)

    # The step ------------------------------------------------------------------------------------

    def start(self, batch: Any) -> None:
        """Share out the reals among D's turns; if there is one, G answers once for both."""
        self.reals = self.share_out(batch.images)
        self.classes_of_reals = self.share_out(batch.labels if self.classes else None)
        self.turn = 0
        if self.d_steps == 1:
            self.draw_fakes()

    def draw_fakes(self) -> None:
        """z and y~ new, x~ = G(z, y~)."""
        n = len(self.reals[0])
        self.y_fake = self.draw_classes(n) if self.classes else None
        self.fake = self.generate(self.feed(lambda: self.noise(random.draw("z"), n)), self.y_fake)

    def d_losses(self) -> Losses:
        """L_D = d_real(D(T x)) + d_fake(D(T x~)) + penalty; G is held fixed."""
        if self.clip:
            optim.clip_weights(self.players[0].parameters, self.clip)
        if self.d_steps > 1:
            with autograd.no_grad():
                self.draw_fakes()
        self.real, self.y = self.reals[self.turn], self.classes_of_reals[self.turn]
        self.turn += 1
        real, fake = self.augment(self.real), self.augment(self.fake.detach())
        on_real, on_fake = self.judge_both(real, fake)
        self.augment.observe(on_real)
        self.log |= self.belief(on_real, on_fake)
        losses = self.loss.d(on_real, on_fake)
        if self.penalty.due(self.turns_made):
            losses |= self.penalty(
                lambda x: self.judge(x, self.y),
                real,
                fake,
                of_fake=lambda x: self.judge(x, self.y_fake),
            )
        return losses

    def g_losses(self) -> Losses:
        """L_G = g(D(T x~)) with the D that has just moved."""
        if self.d_steps > 1:
            self.draw_fakes()
        on_fake = self.judge(self.augment(self.fake), self.y_fake)
        if not self.is_critic:
            self.log["d_fake_g"] = probability(on_fake)
        if not self.loss.needs_real:
            return self.loss.g(on_fake)
        return self.loss.g(on_fake, self.judge(self.augment(self.real), self.y))

    def judge_both(self, real: Tensor, fake: Tensor) -> tuple[Tensor, Tensor]:
        """D's logits of reals and of fakes, in two batches or in a joint one."""
        if not self.joint:
            return self.judge(real, self.y), self.judge(fake, self.y_fake)
        y = None
        if self.y is not None and self.y_fake is not None:
            y = F.concat([self.y, self.y_fake])
        logits = self.judge(F.concat([real, fake]), y)
        half = len(logits) // 2  # not len(real): a D of packs gives fewer logits
        return logits[:half], logits[half:]

    def belief(self, on_real: Tensor, on_fake: Tensor) -> dict[str, float | Tensor]:
        """For the log. The zero of a critic means nothing, so there it is the distance of both."""
        if self.is_critic:
            name = "w_estimate" if self.loss_name == "wgan" else "d_gap"
            return {name: on_real.detach().mean() - on_fake.detach().mean()}
        return {"d_real": probability(on_real), "d_fake": probability(on_fake)}

    @property
    def turns_made(self) -> int:
        """Turns of D so far. Its optimizer counts them, so a resumed run knows."""
        return self.players[0].optimizer.steps

    def phase(self) -> Hashable:
        """In which of the coming turns of D the penalty is due."""
        return tuple(self.penalty.due(self.turns_made + i) for i in range(self.d_steps))

    def before_step(self) -> None:
        """An augmentation that adapts does it between two steps."""
        if self.turns_made:
            self.augment.after_step()

    def parts(self) -> dict[str, Any]:
        """With the state of an augmentation that adapts."""
        state = {"augment": self.augment} if self.augment.state_dict() else {}
        return super().parts() | state

    # Classes -------------------------------------------------------------------------------------

    def check(self, batch: Any) -> None:
        """A GAN with classes needs labels that are classes."""
        if not self.classes:
            return
        if batch.labels is None:
            raise UsageError(
                f"{self.name}: the images have no classes",
                why="this GAN draws what it is asked for, so it must learn from labelled images",
                fix="use a folder with one sub-folder per class, or a GAN without classes",
            )
        check_classes(batch.labels, self.classes, self.name)

    def draw_classes(self, n: int) -> Tensor:
        """y~, all classes equally likely."""
        return self.feed(lambda: random.draw("classes").integers(0, self.classes, n))

    def share_out(self, array: Array | None) -> list[Any]:
        """An equal part of a batch for each turn of D."""
        if array is None:
            return [None] * self.d_steps
        whole = self.tensor(array)
        return F.chunk(whole, self.d_steps) if self.d_steps > 1 else [whole]

    # Pictures ------------------------------------------------------------------------------------

    def fix_previews(self, count: int) -> None:
        """Noise of the previews. With classes: one noise in each row, one class in each column."""
        rng = random.draw("preview")
        self.fixed_classes: Array | None = None
        if not self.classes:
            self.fixed_noise = self.noise(rng, count)
            return
        side = int(np.ceil(count**0.5))
        self.fixed_noise = self.noise(rng, side).repeat(side, axis=0)[:count]
        self.fixed_classes = np.arange(count) % side % self.classes

    def preview(self) -> dict[str, Array]:
        z, y = self.fixed_noise, self.fixed_classes
        grids = {"fakes": self.sample(z, net="raw", labels=y)}
        return grids | ({"fakes-ema": self.sample(z, net="ema", labels=y)} if self.ema else {})

    @autograd.no_grad()
    def sample(
        self, z: Array, *, net: str = "ema", labels: Array | None = None, mode: str | None = None
    ) -> Array:
        """Images for noise z, and of the classes `labels`; `sampling` explains the modes."""
        mode = mode or self.mode
        if labels is not None and not self.classes:
            raise UsageError(f"{self.name}: this GAN has no classes", fix="leave the labels away")
        if labels is None and self.classes:
            last = self.classes - 1
            raise UsageError(
                f"{self.name}: of which classes?", fix=f"give labels, or --classes 0-{last}"
            )
        if labels is not None:
            check_classes(labels, self.classes, self.name)
        G = self.ema["G"].module if net == "ema" and self.ema else self.G
        with sampling(G, mode, self.standing) as ready:
            images = []
            for i in range(0, len(z), len(z) if mode == "batch" else _CHUNK):
                part = slice(i, i + (len(z) if mode == "batch" else _CHUNK))
                y = None if labels is None else self.tensor(labels[part])
                images.append(self.generate(self.tensor(z[part]), y, ready).numpy())
        return np.concatenate(images)

    def draw_anything(self, net: nn.Module, k: int) -> Tensor:
        """The k-th batch that standing statistics look at."""
        rng = random.generator(0, "standing", k)
        z = self.tensor(self.noise(rng, _CHUNK))
        y = self.tensor(rng.integers(0, self.classes, _CHUNK)) if self.classes else None
        return self.generate(z, y, net)


def probability(logits: Tensor) -> Tensor:
    """Mean of sigmoid(logits): what D believes, for the log."""
    return F.sigmoid(logits.detach()).mean()


def normalise_spectrum(net: nn.Module) -> None:
    """Divide every weight by its largest singular value, from now on."""
    for layer in net.modules():
        if isinstance(layer, nn.Weighted) and layer.sn is None:
            nn.spectral_norm(layer)
