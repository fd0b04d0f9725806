"""Files that PyTorch itself writes, in all its layouts, read here without it: bit for bit."""

from __future__ import annotations

import re
from collections import OrderedDict
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
import pytest

from minigan import gans, nn, tensor, weights
from minigan.errors import CheckpointError
from minigan.gans.dcgan import Discriminator, Generator
from minigan.weights.pth import load_pth, states

pytestmark = pytest.mark.torch

DTYPES = [
    "float16", "float32", "float64", "int8", "int16", "int32", "int64", "bool", "uint8", "uint16",
    "uint32", "uint64",
]  # fmt: skip


def corpus() -> dict[str, Any]:
    """One tensor of everything that a file can hold."""
    import torch

    torch.manual_seed(0)
    base = torch.randn(6, 5, 4)
    tree: dict[str, Any] = {
        "plain": base,
        "transposed": base.transpose(0, 2),
        "slice": base[1:4, ::2, 1],
        "expanded": base[:1].expand(3, 5, 4),
        "scalar": torch.tensor(3.5),
        "empty": torch.zeros(0, 3),
        "channels last": torch.randn(2, 3, 4, 5).to(memory_format=torch.channels_last),
        "parameter": torch.nn.Parameter(torch.randn(3)),
        "tied": base,
    }
    tree |= {name: torch.arange(7).to(getattr(torch, name)) for name in DTYPES}
    return tree


def same(ours: np.ndarray[Any, Any], theirs: Any) -> None:
    expected = theirs.detach().contiguous().numpy()
    assert ours.dtype == expected.dtype and ours.shape == expected.shape
    assert ours.tobytes() == expected.tobytes()


@pytest.mark.parametrize("protocol", [2, 3, 4, 5])
@pytest.mark.parametrize("checksums", [True, False])
def test_every_layout_bit_for_bit(tmp_path: Path, protocol: int, checksums: bool) -> None:
    import torch
    from torch.serialization import set_crc32_options

    tree = corpus()
    try:
        set_crc32_options(checksums)
        torch.save(tree, tmp_path / "x.pth", pickle_protocol=protocol)
    finally:
        set_crc32_options(True)
    found = load_pth(tmp_path / "x.pth")
    assert found.keys() == tree.keys()
    for name, theirs in tree.items():
        same(found[name], theirs)


def test_bfloat16(tmp_path: Path) -> None:
    import torch

    x = torch.randn(5, 3).to(torch.bfloat16)
    torch.save({"x": x, "t": x.T, "s": x[0, 0]}, tmp_path / "x.pth")
    found = load_pth(tmp_path / "x.pth")
    same(found["x"], x.float())
    same(found["t"], x.T.float())
    same(found["s"], x[0, 0].float())


def test_a_training_checkpoint(tmp_path: Path) -> None:
    import torch

    net = torch.nn.Sequential(
        torch.nn.utils.spectral_norm(torch.nn.Conv2d(2, 3, 3)), torch.nn.BatchNorm2d(3)
    )
    adam = torch.optim.Adam(net.parameters())
    net(torch.randn(2, 2, 5, 5)).sum().backward()
    adam.step()
    tree = {
        "epoch": 3,
        "netG": torch.nn.DataParallel(net).state_dict(),
        "optimizer": adam.state_dict(),
        "best": (0.5, None, True, "text", [1, 2]),
        "size": torch.Size([2, 3]),
        "dtype": torch.float32,
        "device": torch.device("cpu"),
    }
    torch.save(tree, tmp_path / "x.pth")
    found = load_pth(tmp_path / "x.pth")
    assert (found["epoch"], found["best"], found["size"]) == (3, tree["best"], (2, 3))
    moments = found["optimizer"]["state"][0]["exp_avg"]
    same(moments, adam.state_dict()["state"][0]["exp_avg"])
    (only,) = states(found).values()
    assert set(only) == {f"module.{name}" for name in net.state_dict()}


def test_old_formats_are_refused_and_the_remedy_works(tmp_path: Path, monkeypatch: Any) -> None:
    import torch

    monkeypatch.chdir(tmp_path)
    state = OrderedDict(a=torch.randn(3), b=torch.randn(2, 2).T)
    torch.save(state, "old.pth", _use_new_zipfile_serialization=False)
    with pytest.raises(CheckpointError, match="old format") as caught:
        load_pth("old.pth")
    remedy = re.search(r"torch\.save\(.*\)", str(caught.value))
    assert remedy is not None
    exec(remedy[0], {"torch": torch})
    found = load_pth("new.pth")
    for name, theirs in state.items():
        same(found[name], theirs)


def test_whole_models_and_torchscript_are_refused(tmp_path: Path) -> None:
    import torch

    net = torch.nn.Linear(2, 3)
    torch.save(net, tmp_path / "model.pth")
    with pytest.raises(CheckpointError, match=r"asks for 'torch\.nn\.modules\.linear\.Linear'"):
        load_pth(tmp_path / "model.pth")
    torch.save({"x": torch.zeros(2, dtype=torch.complex64)}, tmp_path / "complex.pth")
    with pytest.raises(CheckpointError, match=r"numbers of type ComplexFloatStorage"):
        load_pth(tmp_path / "complex.pth")
    torch.save({"x": torch.zeros(2).to(torch.float8_e5m2)}, tmp_path / "float8.pth")
    with pytest.raises(CheckpointError, match=r"numbers of type float8_e5m2"):
        load_pth(tmp_path / "float8.pth")


def test_damaged_files_of_torch(tmp_path: Path) -> None:
    import torch

    state = OrderedDict(w=torch.randn(40), b=torch.arange(3))
    torch.save(state, tmp_path / "x.pth")
    good = (tmp_path / "x.pth").read_bytes()
    rng = np.random.default_rng(0)
    refused = 0
    for place in rng.integers(0, 8 * len(good), 400):
        data = bytearray(good)
        data[place // 8] ^= 1 << place % 8
        (tmp_path / "x.pth").write_bytes(data)
        try:
            found = load_pth(tmp_path / "x.pth")
        except CheckpointError:
            refused += 1
            continue
        for name, theirs in state.items():
            same(found[name], theirs)
    assert refused > 100
    for length in range(0, len(good), 17):
        (tmp_path / "x.pth").write_bytes(good[:length])
        with pytest.raises(CheckpointError):
            load_pth(tmp_path / "x.pth")


class Normed(nn.Module):
    """One layer with spectral norm, here."""

    def __init__(self, transposed: bool) -> None:
        layer = nn.ConvTranspose2d(2, 3, 2) if transposed else nn.Conv2d(2, 3, 2)
        self.conv = nn.spectral_norm(layer)

    def forward(self, x: Any) -> Any:
        return self.conv(x)


def normed_in_torch(transposed: bool, hook: bool) -> Any:
    """The same in PyTorch, by its old hook or its new parametrization."""
    import torch

    kind = torch.nn.ConvTranspose2d if transposed else torch.nn.Conv2d
    norm = torch.nn.utils.spectral_norm if hook else torch.nn.utils.parametrizations.spectral_norm
    net = torch.nn.Sequential(OrderedDict(conv=norm(kind(2, 3, 2))))
    return net.double()


@pytest.mark.parametrize("transposed", [False, True])
@pytest.mark.parametrize("layout", ["hook", "parametrization", "PyTorch 1.0"])
def test_spectral_norm_of_every_time(tmp_path: Path, transposed: bool, layout: str) -> None:
    """PyTorch still reads what its version 1.0 wrote: W, u, W / sigma, and no v."""
    import torch

    torch.manual_seed(2)
    theirs = normed_in_torch(transposed, hook=layout != "parametrization")
    x = torch.randn(2, 2, 5, 5, dtype=torch.float64)
    theirs(x)
    theirs.eval()
    state = OrderedDict(theirs.state_dict())
    if layout == "PyTorch 1.0":
        del state["conv.weight_v"]
        state["conv.weight"] = state["conv.weight_orig"] / 1.3
        theirs = normed_in_torch(transposed, hook=True).eval()
        theirs.load_state_dict(state)
    torch.save(state, tmp_path / "x.pth")
    ours = Normed(transposed).astype("float64").eval()
    weights.load(ours, tmp_path / "x.pth")
    got = ours(tensor(x.numpy())).numpy()
    np.testing.assert_allclose(got, theirs(x).detach().numpy(), 1e-9, 1e-12)


def published_dcgan(nz: int, width: int) -> tuple[Any, Any]:
    """The two networks of pytorch/examples for 64 x 64 pixels, by their shapes."""
    import torch.nn as nn

    def name(layers: list[Any]) -> Any:
        holder = nn.Module()
        holder.main = nn.Sequential(*layers)
        return holder

    up: list[Any] = []
    maps = [nz, 8 * width, 4 * width, 2 * width, width]
    for i, (a, b) in enumerate(pairwise(maps)):
        stride, padding = (1, 0) if i == 0 else (2, 1)
        conv = nn.ConvTranspose2d(a, b, 4, stride, padding, bias=False)
        up += [conv, nn.BatchNorm2d(b), nn.ReLU()]
    up += [nn.ConvTranspose2d(width, 3, 4, 2, 1, bias=False), nn.Tanh()]
    down: list[Any] = [nn.Conv2d(3, width, 4, 2, 1, bias=False), nn.LeakyReLU(0.2)]
    for a, b in zip(maps[:1:-1], maps[-2:0:-1], strict=False):
        down += [nn.Conv2d(a, b, 4, 2, 1, bias=False), nn.BatchNorm2d(b), nn.LeakyReLU(0.2)]
    down += [nn.Conv2d(8 * width, 1, 4, 1, 0, bias=False)]  # and a sigmoid, which ours lacks
    return name(up), name(down)


@pytest.mark.parametrize(("dtype", "tolerance"), [("float32", 1e-4), ("float64", 1e-9)])
def test_dcgan_of_pytorch_examples(tmp_path: Path, dtype: str, tolerance: float) -> None:
    import torch

    torch.manual_seed(1)
    G, D = (net.to(getattr(torch, dtype)) for net in published_dcgan(7, 4))
    z = torch.randn(3, 7, 1, 1, dtype=getattr(torch, dtype))
    images = G.main(z)  # moves the running statistics too
    D.main(images)
    ours: tuple[Any, Any] = (Generator(64, 3, 7, 4), Discriminator(64, 3, 4))
    for theirs, net, kind in zip((G, D), ours, "GD", strict=True):
        torch.save(torch.nn.DataParallel(theirs).state_dict(), tmp_path / f"{kind}.pth")
        weights.load(net.astype(dtype).eval(), tmp_path / f"{kind}.pth")
        assert net.num_parameters() == sum(p.numel() for p in theirs.parameters())
        theirs.eval()
    expected = G.main(z)
    got = ours[0](tensor(z[:, :, 0, 0].numpy()))
    np.testing.assert_allclose(got.numpy(), expected.detach().numpy(), 0, tolerance)
    logits = D.main(expected).detach().numpy()[:, 0, 0, 0]
    np.testing.assert_allclose(ours[1](got).numpy(), logits, tolerance, tolerance)


def test_the_preset_has_as_many_parameters_as_the_published_network() -> None:
    game = gans.make("dcgan", size=64, channels=3, nz=100, width=64)
    counts = {name: net.num_parameters() for name, net in game.networks.items()}
    assert (counts["G"], counts["D"]) == (3_576_704, 2_765_568)
