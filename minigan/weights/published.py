"""Weights that other programs made: read by name into a network here, or kept as safetensors."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from minigan.errors import CheckpointError, UsageError, did_you_mean
from minigan.weights.container import Arrays, load_file, save_file
from minigan.weights.names import FAMILIES, detect, translate
from minigan.weights.pth import load_pth, states

if TYPE_CHECKING:
    from minigan.nn.module import Module

_SHOWN = 12  # keys in a message
_PARTS = 100  # networks in a file of `convert`; if there are more, they are one


def load(
    network: Module,
    path: Path | str,
    key: str | None = None,
    family: str | None = None,
    strict: bool = True,
) -> None:
    """Load published weights into `network`, all of them or none.

        minigan.weights.load(generator, "latest_net_G.pth")
        minigan.weights.load(generator, "train_step-7.model.pth", key="g_running")

    Parameters
    ----------
    network : built with the options of the one that was saved.
    path : a `.safetensors` file, or a `.pth` file of PyTorch 1.6 or later. PyTorch is not needed,
        and nothing in the file is executed.
    key : which of several networks in the file, such as "g_ema" or "state_dict.netG".
    family : whose names the file has, one of `names.FAMILIES`; found by the names if None.
    strict : names that are missing or unexpected are errors; wrong shapes always are.

    Raises
    ------
    CheckpointError : the file is damaged or not allowed, has several networks, holds NaN or
        infinity, or does not fit: the message has a table of what does not.
    """
    key, arrays = _select(path, read(path), key)
    family = family or detect(arrays)
    here = {name: tensor.data for name, tensor in network.named_tensors(unique=False)}
    where = f"{path}, key '{key}'" if key else str(path)
    where += f", names of {FAMILIES[family].repository}" if family in FAMILIES else ""
    try:
        names = translate(arrays, family, here)
        state = {target: arrays[name] for name, target in names.items()}
        state |= _solved(state, arrays, names, here)
        if not state.keys() & here.keys():
            strict = True  # nothing at all would be loaded: say so
        network.load_state_dict(_converted(state, here), strict=strict)
    except CheckpointError as error:
        error.where = where
        error.fix = error.fix and (
            "build the network with the options it was saved with; key= chooses a network of the "
            "file, family= whose names it has; strict=False accepts missing and unexpected ones"
        )
        raise


@dataclass(frozen=True)
class Converted:
    """What `convert` wrote: {network: {tensor: (dtype, shape)}}, and whose names they are."""

    family: str
    tensors: dict[str, dict[str, tuple[str, tuple[int, ...]]]]


def convert(
    source: Path | str, target: Path | str, key: str | None = None, force: bool = False
) -> Converted:
    """Write the tensors of a `.pth` file as `.safetensors`, whole or not at all.

    Names stay as they are; if the file has several networks, each name gets the key of its network
    in front, and `load(..., key=)` still finds it. bfloat16 becomes float32.

    Parameters
    ----------
    source : a file that `load` reads.
    target : ends with `.safetensors`.
    key : of the one network to keep.
    force : replace `target` if it exists.
    """
    target = Path(target)
    if target.suffix != ".safetensors":
        raise UsageError(f"{target} does not end with .safetensors", fix="name the output so")
    if target.exists() and not force:
        raise UsageError(f"{target} exists", fix="choose another name, or --force to replace it")
    found = read(source)
    if key is not None:
        found = {"": _select(source, found, key)[1]}
    family = detect([name for arrays in found.values() for name in arrays])
    flat = {_join(state, name): a for state, arrays in found.items() for name, a in arrays.items()}
    if len(flat) != sum(map(len, found.values())):
        raise CheckpointError(
            "two tensors would get one name", where=str(source), fix="choose a network with --key"
        )
    facts = {"source": Path(source).name, "key": key, "family": family, "states": list(found)}
    save_file(target, flat, facts)
    tensors = {
        state: {name: (a.dtype.name, a.shape) for name, a in arrays.items()}
        for state, arrays in found.items()
    }
    return Converted(family, tensors)


def read(path: Path | str) -> dict[str, Arrays]:
    """Return the networks in a file: {key: {name: array}}; the only one may have the key ""."""
    path = Path(path)
    if path.suffix != ".safetensors":
        found = states(load_pth(path), str(path))
    else:
        arrays, metadata = load_file(path, checksums=None)
        found = _parted(arrays, metadata.get("states"))
    if not any(found.values()):
        raise CheckpointError(
            f"{path} holds no dictionary of tensors",
            why="weights are a dictionary {name: tensor}, or dictionaries of those",
            fix="save the state_dict() of the network",
        )
    return found


def _parted(arrays: Arrays, keys: Any) -> dict[str, Arrays]:
    """The networks in a file that `convert` wrote; of any other file, all tensors as one."""
    named = isinstance(keys, list) and all(isinstance(key, str) for key in keys)
    if not named or len(keys) > _PARTS:
        return {"": arrays}
    found: dict[str, Arrays] = {key: {} for key in keys}
    for name, array in arrays.items():
        key = max((k for k in keys if not k or name.startswith(f"{k}.")), key=len, default="")
        found.setdefault(key, {})[name[len(key) + 1 :] if key else name] = array
    return found


def _select(path: Path | str, found: dict[str, Arrays], key: str | None) -> tuple[str, Arrays]:
    """The network of that key; the only one if `key` is None."""
    listed = ", ".join(f"'{k}'" if k else "'' (the outermost)" for k in list(found)[:_SHOWN])
    if key is None and len(found) == 1:
        return next(iter(found.items()))
    if key is None:
        raise CheckpointError(
            f"{path} holds {len(found)} dictionaries of tensors: {listed}",
            fix="choose one with key=",
        )
    if key in found:
        return key, found[key]
    below = {
        full.removeprefix(f"{key}."): array
        for state, arrays in found.items()
        for name, array in arrays.items()
        if (full := _join(state, name)).startswith(f"{key}.")
    }
    if not below:
        raise CheckpointError(
            f"{path} has nothing under the key '{key}'{did_you_mean(key, found)}",
            fix=f"it has {listed}",
        )
    return key, below


def _join(state: str, name: str) -> str:
    return f"{state}.{name}" if state else name


def _converted(state: Mapping[str, Any], here: Mapping[str, Any]) -> Arrays:
    """The arrays in the dtypes of the network, so that nothing can fail while they are written."""
    out = dict(state)
    for name, array in state.items():
        if name not in here or array.dtype.kind not in "fiub":
            continue
        with np.errstate(over="ignore"):
            out[name] = array.astype(np.dtype(str(here[name].dtype)), copy=False)
        if out[name].dtype.kind == "f" and not np.isfinite(out[name]).all():
            raise CheckpointError(
                f"'{name}' holds NaN or infinity, or numbers too large for {out[name].dtype}",
                why="a network with such a weight computes nothing else",
            )
    return out


# Spectral norm as PyTorch 1.0 saved it ------------------------------------------------------------


def _solved(
    state: Arrays, arrays: Arrays, names: Mapping[str, str], here: Mapping[str, Any]
) -> Arrays:
    """The vectors `sn.v` that PyTorch 1.0 did not save, from what it did save.

    It saved W (weight_orig), u (weight_u) and W / sigma (weight). With v = c W^T u the network
    divides by u^T W v = c |W^T u|^2, which shall be sigma.
    """
    solved = {}
    sources = {target: name for name, target in names.items()}
    for v in here:
        base = v.removesuffix("sn.v")
        weight, u = state.get(f"{base}weight"), state.get(f"{base}sn.u")
        if base == v or v in state or weight is None or u is None:
            continue
        divided = arrays.get(sources[f"{base}weight"].removesuffix("_orig"))
        matrix = _matrix(weight, u)
        if matrix is not None and divided is not None and divided.shape == weight.shape:
            solved[v] = _right_vector(matrix, u, weight, divided)
    return solved


def _matrix(weight: npt.NDArray[Any], u: npt.NDArray[Any]) -> npt.NDArray[Any] | None:
    """The weight as (out, rest); out is the axis that u belongs to."""
    for axis in range(min(2, weight.ndim)):
        if u.shape == (weight.shape[axis],):
            return np.moveaxis(weight, axis, 0).reshape(u.size, -1).astype(np.float64)
    return None


def _right_vector(
    matrix: npt.NDArray[Any],
    u: npt.NDArray[Any],
    weight: npt.NDArray[Any],
    divided: npt.NDArray[Any],
) -> npt.NDArray[Any]:
    W, W_sigma = weight.astype(np.float64), divided.astype(np.float64)
    product = matrix.T @ u.astype(np.float64)
    sigma = (W * W).sum() / (W * W_sigma).sum()  # W = sigma * W_sigma, by least squares
    return np.asarray(product * (sigma / (product @ product)))
