"""Whole training steps, both players, beside PyTorch: what a user waits for.

    dcgan28 w64, w32   DCGAN for 28-pixel digits, batch 64, width 64 and 32
    dcgan64            DCGAN of the paper: 64 pixels, 3 channels, 1024 .. 128 maps, batch 16
    cyclegan128        two ResNet-6 generators, two 70x70 PatchGANs, 128 pixels, batch 1
    spade128           SPADE generator (ngf 64), two discriminators, 35 labels, 128 pixels, batch 1

Ours run through the engine: minigan's layers, losses, gradients and Adam. PyTorch's networks
(`networks_torch.py`) are built from the same weights and must give the same losses in the first
step (1e-4 relative), else the case fails. PyTorch gets NCHW and channels_last, and of its fused and
its foreach Adam the one that is faster on these parameters; D asks for no gradients in G's turn, on
both sides. The error is that of the losses of the first step, ours against PyTorch's.
"""

from __future__ import annotations

import time
from collections.abc import Callable
from functools import partial
from types import SimpleNamespace
from typing import Any, NamedTuple

import numpy as np

from benchmarks import ourside, torchside
from benchmarks.cases import Case, Work, measure_section
from benchmarks.counting import Count, counting
from benchmarks.results import Results
from benchmarks.timing import Side

AGREE = 1e-4  # relative difference of the losses of the first step
SAMPLE = 1 << 24  # numbers on which PyTorch's optimizers are compared

Batch = dict[str, Any]


class LossesDiffer(Exception):
    """The two sides do not compute the same thing."""


class Net(NamedTuple):
    """A training step in both engines.

    Attributes
    ----------
    ours : makes the game: an object with networks, parameters and step(batch).
    theirs : the same from PyTorch, given the optimizer.
    batch : the arrays of one step.
    noise : names in the batch that are drawn anew in every timed step, on both sides.
    gflop : of the step, about: only to share the time budget.
    """

    name: str
    ours: Callable[[], Any]
    theirs: Callable[[Any], Any]
    batch: Callable[[np.random.Generator], Batch]
    noise: tuple[str, ...] = ()
    gflop: float = 1.0


class DCGAN:
    """A game of minigan.gans, played as the training loop plays it."""

    def __init__(self, preset: str, **options: Any) -> None:
        from minigan import gans

        self.game = gans.make(preset, **options)
        self.game.ema.clear()  # sampling needs it, training does not
        self.networks = self.game.networks
        self.parameters = [p for player in self.game.players for p in player.parameters]

    def to(self, device: str) -> None:
        """Move everything to a device."""
        self.game.to(device)

    def step(self, batch: Batch) -> dict[str, float]:
        """One step of both players; returns their losses."""
        return {name: float(loss.item()) for name, loss in self.play(batch).items()}

    def play(self, batch: Batch) -> dict[str, Any]:
        """The same; the losses are not yet read from the device."""
        import minigan as mg
        from minigan.training.guard import add_up

        game: Any = self.game
        if "z" in batch:
            game.noise = lambda rng, n: batch["z"]
        elif "noise" in vars(game):
            del game.noise
        game.start(SimpleNamespace(images=batch["images"]))
        losses = {}
        for player in game.players:
            total = add_up(player.losses())
            player.optimizer.step(mg.grad(total, player.parameters))
            losses[player.name] = total.detach()
        return losses


def nets(small: bool = False) -> list[Net]:
    """All steps; `small` gives them a few channels and pixels, for tests and to warm up."""
    return [
        dcgan28("dcgan28 w64", 4 if small else 64, 2 if small else 64, 9.4),
        dcgan28("dcgan28 w32", 4 if small else 32, 2 if small else 64, 2.5),
        dcgan64(4 if small else 128, 2 if small else 16),
        cyclegan(8 if small else 64, 32 if small else 128),
        spade(4 if small else 64, 64 if small else 128),
    ]


def dcgan28(name: str, width: int, n: int, gflop: float) -> Net:
    return Net(
        name,
        lambda: DCGAN("dcgan", width=width, lr_d=2e-4),
        lambda optimizer: networks_torch().DCGAN(28, 1, width, optimizer),
        lambda rng: {"images": images(rng, n, 1, 28), "z": normal(rng, n, 100)},
        ("z",),
        gflop,
    )


def dcgan64(width: int, n: int) -> Net:
    return Net(
        "dcgan64",
        lambda: DCGAN("dcgan64", width=width),
        lambda optimizer: networks_torch().DCGAN(64, 3, width, optimizer),
        lambda rng: {"images": images(rng, n, 3, 64), "z": normal(rng, n, 100)},
        ("z",),
        120.0,
    )


def cyclegan(width: int, size: int) -> Net:
    blocks = 6

    def ours() -> Any:
        from benchmarks.networks import CycleGAN

        return CycleGAN(width, blocks)

    return Net(
        "cyclegan128",
        ours,
        lambda optimizer: networks_torch().CycleGAN(width, blocks, optimizer),
        lambda rng: {"a": images(rng, 1, 3, size), "b": images(rng, 1, 3, size)},
        gflop=450.0,
    )


def spade(width: int, size: int, labels: int = 35) -> Net:
    hidden = 2 * width

    def ours() -> Any:
        from benchmarks.networks import Spade

        return Spade(labels, width, hidden)

    return Net(
        "spade128",
        ours,
        lambda optimizer: networks_torch().Spade(labels, width, hidden, optimizer),
        lambda rng: {
            "maps": label_maps(rng, labels, size),
            "images": images(rng, 1, 3, size),
        },
        gflop=450.0,
    )


def networks_torch() -> Any:
    from benchmarks import networks_torch

    return networks_torch


# Inputs ----------------------------------------------------------------------------------------


def images(rng: np.random.Generator, n: int, channels: int, size: int) -> Any:
    return rng.uniform(-1, 1, (n, channels, size, size)).astype(np.float32)


def normal(rng: np.random.Generator, *shape: int) -> Any:
    return rng.standard_normal(shape, np.float32)


def label_maps(rng: np.random.Generator, labels: int, size: int) -> Any:
    """One map (1,labels,size,size) of square regions, one channel per class."""
    classes = rng.integers(0, labels, (8, 8)).repeat(size // 8, 0).repeat(size // 8, 1)
    return np.eye(labels, dtype=np.float32)[classes].transpose(2, 0, 1)[None].copy()


# Both sides ------------------------------------------------------------------------------------


def torch_state(network: Any) -> dict[str, Any]:
    """The weights of one of our networks under PyTorch's names."""
    state = {name.removeprefix("main."): array for name, array in network.state_dict().items()}
    divided = {name.removesuffix("sn.u") for name in state if name.endswith("sn.u")}
    renamed = {}
    for name, array in state.items():
        prefix, _, last = name.rpartition(".")
        if last == "weight" and f"{prefix}." in divided:
            name += "_orig"
        renamed[name.replace("sn.u", "weight_u").replace("sn.v", "weight_v")] = array
    return renamed


def load(theirs: Any, ours: Any, layout: Any) -> None:
    """Give PyTorch's networks our weights, in the given memory order."""
    torch = torchside.torch()
    for name, network in theirs.networks.items():
        state = torch_state(ours.networks[name])
        network.load_state_dict({key: torch.tensor(array) for key, array in state.items()})
        network.to(memory_format=layout)


def adams() -> dict[str, Callable[..., Any]]:
    """PyTorch's two implementations of Adam."""
    adam = torchside.torch().optim.Adam
    return {
        "fused": lambda params, lr, betas: adam(params, lr, betas, fused=True),
        "foreach": lambda params, lr, betas: adam(params, lr, betas, foreach=True),
    }


def faster_adam(shapes: list[tuple[int, ...]]) -> str:
    """Which of them takes less time over parameters of these shapes."""
    torch = torchside.torch()
    chosen: list[Any] = []
    total = 0
    for shape in shapes:
        total += int(np.prod(shape))
        if total > SAMPLE and chosen:
            break
        chosen.append(torch.zeros(shape, requires_grad=True))
    for p in chosen:
        p.grad = torch.ones_like(p)
    seconds: dict[str, list[float]] = {}
    for name, make in adams().items():
        optimizer = make(chosen, 1e-3, (0.5, 0.999))
        for _ in range(5):
            start = time.perf_counter()
            optimizer.step()
            seconds.setdefault(name, []).append(time.perf_counter() - start)
    return min(seconds, key=lambda name: sorted(seconds[name])[2])


def work(net: Net) -> Work:
    """Build both sides, see that they agree, count what the step needs."""
    import minigan as mg

    mg.manual_seed(0)
    game = net.ours()
    batch = net.batch(np.random.default_rng(0))
    numbers = sum(p.size for p in game.parameters)
    others = {}
    adam = faster_adam([p.shape for p in game.parameters]) if torchside.torch() else ""
    for name, layout in torchside.layouts().items():
        other = net.theirs(adams()[adam])
        load(other, game, layout)
        found = sum(p.numel() for n in other.networks.values() for p in n.parameters())
        if found != numbers:
            raise LossesDiffer(f"{net.name}: {numbers} parameters, PyTorch's has {found}")
        others[name] = other, {k: torchside.tensor(v, layout) for k, v in batch.items()}
    with counting() as count:
        losses = game.step(batch)
        count.adam(p.data for p in game.parameters)
    seen = {name: other.step(their_batch) for name, (other, their_batch) in others.items()}
    differences = {name: compare(net.name, losses, them) for name, them in seen.items()}
    return Work(
        sides(net, game, batch, others),
        extra={
            "parameters": numbers,
            "losses": losses,
            "difference": max(differences.values(), default=None),
            "adam": adam or None,
            **counted(count),
        },
    )


def compare(name: str, ours: dict[str, float], theirs: dict[str, float]) -> float:
    """Largest relative difference of the losses; an error if they are not the same."""
    worst = max(abs(ours[k] - theirs[k]) / max(abs(theirs[k]), 1e-3) for k in ours)
    if not worst < AGREE:
        raise LossesDiffer(f"{name}: losses {ours}, PyTorch's {theirs}")
    return worst


def sides(net: Net, game: Any, batch: Batch, others: dict[str, Any]) -> list[Side]:
    """The timed steps. Noise is drawn in them, as in training."""
    given = {name: array for name, array in batch.items() if name not in net.noise}
    found = [Side("minigan", play(game, given), wake=ourside.wake)]
    for name, (other, tensors) in others.items():
        inputs = {key: value for key, value in tensors.items() if key not in net.noise}
        found.append(Side(f"torch {name}", play(other, inputs), wake=torchside.wake))
    return found


def play(game: Any, batch: Batch) -> Callable[[Any], Any]:
    return lambda _: game.step(batch)


def counted(count: Count) -> dict[str, Any]:
    """What was counted, in place of what a case says of itself."""
    return {
        "gflop": count.flops / 1e9,
        "mbyte": count.nbytes / 1e6,
        "floor_ms": count.floor * 1e3,
        "operations": count.operations,
    }


def cases() -> list[Case]:
    return [
        Case(net.name, net.name.split()[0], partial(work, net), net.gflop * 1e9, 0.0)
        for net in nets()
    ]


def names() -> list[str]:
    """Of all cases."""
    return [case.name for case in cases()]


def measure(options: Any, results: Results, seconds: float, say: Callable[[str], None]) -> None:
    """Measure the chosen steps into `results`."""
    measure_section("steps", cases(), options, results, seconds, say)
