"""Published weights in networks here: chosen, renamed, checked, all or nothing; and convert."""

from __future__ import annotations

import json
from collections import OrderedDict
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from torchfile import write

from minigan import nn, tensor, weights
from minigan.cli import main
from minigan.errors import CheckpointError, UsageError
from minigan.gans.dcgan import Discriminator, Generator

State = OrderedDict[str, Any]


def state_of(network: nn.Module, seed: int = 0) -> State:
    """Random numbers under the names of a network, as a file of torch.save would have them."""
    rng = np.random.default_rng(seed)
    return OrderedDict(
        (name, np.array(rng.random(array.shape) + 0.5, array.dtype))
        for name, array in network.state_dict().items()
    )


def assert_loaded(network: nn.Module, state: State) -> None:
    for name, array in network.state_dict().items():
        np.testing.assert_array_equal(array, state[name])


@pytest.fixture
def generator() -> Generator:
    return Generator(size=28, channels=1, nz=5, width=2)


def test_a_state_dict_with_the_prefix_of_dataparallel(tmp_path: Path, generator: Any) -> None:
    state = state_of(generator)
    tree = OrderedDict((f"module.{name}", array) for name, array in state.items())
    assert weights.load(generator, write(tmp_path / "netG.pth", tree)) is None
    assert_loaded(generator, state)


def test_the_converted_file_loads_as_the_original(tmp_path: Path, generator: Any) -> None:
    state = state_of(generator)
    source = write(tmp_path / "netG.pth", state)
    weights.convert(source, tmp_path / "netG.safetensors")
    weights.load(generator, tmp_path / "netG.safetensors")
    assert_loaded(generator, state)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_one_network_of_several(tmp_path: Path, generator: Any, ending: str) -> None:
    states = {key: state_of(generator, seed) for seed, key in enumerate(["g", "g_ema"])}
    tree = {"epoch": 4, "models": states, "D": state_of(Discriminator(28, 1, 2))}
    path = write(tmp_path / "all.pth", tree)
    if ending == "safetensors":
        weights.convert(path, tmp_path / "all.safetensors")
        path = tmp_path / "all.safetensors"
    with pytest.raises(CheckpointError, match=r"'models\.g', 'models\.g_ema', 'D'(?s:.*)key="):
        weights.load(generator, path)
    weights.load(generator, path, key="models.g_ema")
    assert_loaded(generator, states["g_ema"])
    with pytest.raises(CheckpointError, match=r"nothing under the key 'model\.g' \(did you mean"):
        weights.load(generator, path, key="model.g")


def test_a_prefix_within_one_state_dict_is_a_key_too(tmp_path: Path, generator: Any) -> None:
    state = state_of(generator)
    tree = OrderedDict((f"netG.{name}", array) for name, array in state.items())
    path = write(tmp_path / "x.pth", {"state_dict": tree})
    weights.load(generator, path, key="state_dict.netG")
    assert_loaded(generator, state)


@pytest.mark.parametrize("ending", ["pth", "safetensors"])
def test_what_does_not_fit_is_a_table_and_nothing_is_loaded(
    tmp_path: Path, generator: Any, ending: str
) -> None:
    state = state_of(generator)
    before = generator.state_dict()
    del state["main.1.bias"]
    state["main.9.weight"] = np.zeros(2, np.float32)
    state["main.3.weight"] = state["main.3.weight"][:, :1]
    path = tmp_path / f"x.{ending}"
    if ending == "pth":
        write(path, {"netG": state})
    else:
        weights.save_file(path, state)
    for strict in (True, False):
        with pytest.raises(CheckpointError) as caught:
            weights.load(generator, path, strict=strict)
        said = str(caught.value)
        assert ("missing     main.1.bias  (4,)" in said) == strict
        assert ("unexpected  main.9.weight  (2,)" in said) == strict
        assert "mismatched  main.3.weight  (4, 1, 4, 4) in the file, (4, 2, 4, 4) here" in said or (
            "mismatched  main.3.weight" in said
        )
        assert str(path) in said and "pytorch/examples" in said and "family=" in said
        assert_loaded(generator, before)  # type: ignore[arg-type]


def test_strict_false_takes_what_there_is_but_not_nothing(tmp_path: Path, generator: Any) -> None:
    state = state_of(generator)
    bias = state["main.1.bias"]
    weights.load(generator, write(tmp_path / "x.pth", {"main.1.bias": bias}), strict=False)
    np.testing.assert_array_equal(generator.state_dict()["main.1.bias"], bias)
    other = {"features.0.weight": bias}
    with pytest.raises(CheckpointError, match=r"unexpected  features\.0\.weight"):
        weights.load(generator, write(tmp_path / "y.pth", other), strict=False)


@pytest.mark.parametrize("bad", [np.nan, np.inf, 1e39])
def test_numbers_that_are_none_are_refused(tmp_path: Path, generator: Any, bad: float) -> None:
    state = state_of(generator)
    before = generator.state_dict()
    state["main.4.bias"] = np.array([1.0, bad])
    with pytest.raises(CheckpointError, match=r"'main\.4\.bias' holds NaN(?s:.*)x\.pth"):
        weights.load(generator, write(tmp_path / "x.pth", state))
    assert_loaded(generator, before)  # type: ignore[arg-type]


def test_other_precisions_are_converted(tmp_path: Path, generator: Any) -> None:
    state = state_of(generator)
    half = OrderedDict((n, a.astype("f2") if a.dtype == "f4" else a) for n, a in state.items())
    weights.load(generator, write(tmp_path / "x.pth", half))
    for name, array in generator.state_dict().items():
        assert array.dtype == state[name].dtype
        np.testing.assert_array_equal(array, half[name].astype(array.dtype))


def test_the_family_can_be_said(tmp_path: Path, generator: Any) -> None:
    path = write(tmp_path / "x.pth", state_of(generator))
    weights.load(generator, path, family="torch")
    with pytest.raises(CheckpointError, match=r"missing     main\.1\.running_mean"):
        weights.load(generator, path, family="cyclegan")
    with pytest.raises(UsageError, match="no family of names 'pix3pix'"):
        weights.load(generator, path, family="pix3pix")


def test_files_without_tensors_are_refused(tmp_path: Path, generator: Any) -> None:
    with pytest.raises(CheckpointError, match=r"x\.pth holds no dictionary of tensors"):
        weights.load(generator, write(tmp_path / "x.pth", {"epoch": 3}))


class Normed(nn.Module):
    """A layer with spectral norm, and an attribute path as in published networks."""

    def __init__(self, transposed: bool) -> None:
        layer = nn.ConvTranspose2d(2, 3, 2) if transposed else nn.Conv2d(2, 3, 2)
        self.conv_0 = nn.spectral_norm(layer)

    def forward(self, x: Any) -> Any:
        return self.conv_0(x)


@pytest.mark.parametrize("transposed", [False, True])
def test_spectral_norm_as_pytorch_1_0_saved_it(tmp_path: Path, transposed: bool) -> None:
    """It saved W and W / sigma, and no v: the network here must compute with W / sigma."""
    rng = np.random.default_rng(3)
    network, plain = Normed(transposed).astype("float64").eval(), nn.Conv2d(2, 3, 2)
    shape = network.conv_0.weight.shape
    W, bias, u, sigma = rng.normal(size=shape), rng.normal(size=3), rng.normal(size=3), 1.7
    state = {"conv_0.weight_orig": W, "conv_0.bias": bias, "conv_0.weight_u": u}
    weights.load(network, write(tmp_path / "x.pth", state | {"conv_0.weight": W / sigma}))
    plain = (nn.ConvTranspose2d if transposed else nn.Conv2d)(2, 3, 2).astype("float64")
    plain.load_state_dict({"weight": W / sigma, "bias": bias})
    x = tensor(rng.normal(size=(1, 2, 5, 5)))
    np.testing.assert_allclose(network(x).numpy(), plain(x).numpy(), rtol=1e-12)
    with pytest.raises(CheckpointError, match=r"missing     conv_0\.sn\.v"):
        weights.load(network, write(tmp_path / "y.pth", state))


def test_checkpoints_of_runs_and_files_of_other_programs(tmp_path: Path, generator: Any) -> None:
    from safetensors.numpy import save_file

    state = state_of(generator)
    path = tmp_path / "x.safetensors"
    weights.save_file(path, {f"networks.G.{name}": a for name, a in state.items()})
    weights.load(generator, path, key="networks.G")
    assert_loaded(generator, state)
    state = state_of(generator, 1)
    save_file(state, path, {"format": "pt", "states": '["main"]'})
    weights.load(generator, path)
    assert_loaded(generator, state)
    weights.convert(path, tmp_path / "y.safetensors")
    data = bytearray((tmp_path / "y.safetensors").read_bytes())
    data[-1] ^= 1
    (tmp_path / "y.safetensors").write_bytes(data)
    with pytest.raises(CheckpointError, match="changed since it was saved"):
        weights.load(generator, tmp_path / "y.safetensors")


# minigan convert ---------------------------------------------------------------------------------


def run(capsys: pytest.CaptureFixture[str], *arguments: Any) -> tuple[int, str, str]:
    with pytest.raises(SystemExit) as left:
        main(["convert", *map(str, arguments)])
    said = capsys.readouterr()
    return int(left.value.code or 0), said.out, said.err


def test_convert_prints_a_table(
    tmp_path: Path, generator: Any, capsys: pytest.CaptureFixture[str]
) -> None:
    source = write(tmp_path / "netG.pth", state_of(generator))
    target = tmp_path / "netG.safetensors"
    code, out, _ = run(capsys, source, target)
    assert code == 0
    assert "main.1.num_batches_tracked  int64    scalar" in out
    assert "main.0.weight               float32  5x4x7x7" in out
    assert "tensors, " in out and "names of the family dcgan" in out
    arrays, facts = weights.load_file(target)
    assert arrays.keys() == generator.state_dict().keys()
    assert facts == {"source": "netG.pth", "key": None, "family": "dcgan", "states": [""]}

    before = target.read_bytes()
    code, out, err = run(capsys, source, target)
    assert (code, out) == (1, "") and "exists" in err and "--force" in err
    write(source, {"main.0.weight": np.zeros(1)})
    code, out, _ = run(capsys, source, target, "--force", "--json")
    assert code == 0 and target.read_bytes() != before
    assert json.loads(out) == {
        "file": str(target),
        "family": "dcgan",
        "tensors": {"": {"main.0.weight": ["float64", [1]]}},
    }


def test_convert_keeps_all_networks_or_one(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    one, two = {"a": np.zeros(2)}, {"a": np.ones(3), "b": np.array(1)}
    source, target = write(tmp_path / "x.pth", {"one": one, "two": two}), tmp_path / "x.safetensors"
    code, out, _ = run(capsys, source, target)
    assert code == 0 and "\ntwo\n" in out
    assert set(weights.load_file(target)[0]) == {"one.a", "two.a", "two.b"}
    code, _, _ = run(capsys, source, target, "--key", "two", "--force")
    assert code == 0 and set(weights.load_file(target)[0]) == {"a", "b"}


def test_convert_fails_without_leaving_anything(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "evil.pth").write_bytes(b"\x80\x02cos\nsystem\n.")
    code, out, err = run(capsys, tmp_path / "evil.pth", tmp_path / "x.safetensors")
    assert (code, out) == (4, "") and "old format" in err
    code, _, err = run(capsys, tmp_path / "evil.pth", tmp_path / "x.bin")
    assert code == 1 and "does not end with .safetensors" in err
    clash = {"a.b": np.zeros(1), "a": {"b": np.zeros(1)}}
    write(tmp_path / "clash.pth", clash)
    code, _, err = run(capsys, tmp_path / "clash.pth", tmp_path / "x.safetensors")
    assert code == 4 and "two tensors would get one name" in err
    assert not list(tmp_path.glob("x.*"))
