"""The names of parameters in published checkpoints, and how each becomes a name here.

Networks here keep the attribute names of the repositories that made them known, so most names
need no change. What does change stands in the tables of this file:

    pytorch/examples, DCGAN                  main.{i}
    junyanz/pytorch-CycleGAN-and-pix2pix     U-Net model.model.1.model.3 ..., ResNet
                                             model.{i}.conv_block.{j}, discriminators model.{i}
    NVIDIA/pix2pixHD                         model.{i}, model1_1, model1_2, scale{s}_layer{l}
    NVlabs/SPADE                             head_0.norm_0.mlp_gamma, discriminator_{s}.model{l}
    rosinality/style-based-gan-pytorch       style.{i}.linear, generator.progression.{i}.conv1 ...

PyTorch itself adds to names: `module.` in front (DataParallel), and the three tensors of spectral
norm. `nn.from_torch` undoes that for every family.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Iterable, Mapping
from dataclasses import dataclass

from minigan.errors import CheckpointError, UsageError, did_you_mean
from minigan.nn.state import from_torch


@dataclass(frozen=True)
class Family:
    """The names of one repository.

    Parameters
    ----------
    repository : where they come from.
    marks : pairs (present, absent) of patterns: a checkpoint is of this family if for one pair some
        name matches the first, and none matches the second ("" matches none).
    batch_norm : if not None, and there are marks, the checkpoint must have, or must not have,
        running statistics beside weights.
    rules : (pattern, replacement), applied one after the other; None drops the name.
    """

    repository: str
    marks: tuple[tuple[str, str], ...] = ()
    batch_norm: bool | None = None
    rules: tuple[tuple[str, str | None], ...] = ()


# Instance norm does not use running statistics; PyTorch before 0.4 saved them all the same.
_NO_STATISTICS = (r"\.(running_mean|running_var|num_batches_tracked)$", None)

_CYCLEGAN_MARKS = (
    (r"^model\.model\.0\.", ""),  # U-Net
    (r"^model\.10\.conv_block\.", ""),  # ResNet: two halvings, then blocks from 10
    (r"^model\.0\.weight$", "conv_block"),  # PatchGAN
    (r"^net\.0\.weight$", ""),  # PixelGAN
)

FAMILIES: Mapping[str, Family] = {
    "stylegan": Family(
        "rosinality/style-based-gan-pytorch",
        marks=((r"^(generator\.)?progression\.\d+\.", ""), (r"^style\.\d+\.linear\.", "")),
        rules=(
            # The blur [1, 2, 1] is fixed, and is made anew here.
            (r"\.weight_flip$", None),
            (r"\.conv1\.[12]\.weight$", None),
            (r"progression\.\d+\.conv2\.0\.weight$", None),
        ),
    ),
    "spade": Family(
        "NVlabs/SPADE",
        marks=(
            (r"\.mlp_shared\.", ""),
            (r"\.param_free_norm\.", ""),
            (r"^discriminator_\d+\.model\d", ""),
            (r"^fc_var\.", ""),
        ),
    ),
    "pix2pixhd": Family(
        "NVIDIA/pix2pixHD",
        marks=(
            (r"^scale\d+_layer\d+\.", ""),
            (r"^layer\d+\.\d+\.", r"^fc_"),
            (r"^model1_1\.", ""),
            (r"^model\.\d+\.conv_block\.", r"^model\.10\.conv_block\."),
            (r"^model\.1\.weight$", r"conv_block|^model\.0\."),  # the encoder of features
        ),
        rules=(_NO_STATISTICS,),
    ),
    "pix2pix": Family(
        "junyanz/pytorch-CycleGAN-and-pix2pix, batch norm",
        marks=_CYCLEGAN_MARKS,
        batch_norm=True,
    ),
    "cyclegan": Family(
        "junyanz/pytorch-CycleGAN-and-pix2pix, instance norm",
        marks=_CYCLEGAN_MARKS,
        batch_norm=False,
        rules=(_NO_STATISTICS,),
    ),
    "dcgan": Family("pytorch/examples, DCGAN", marks=((r"^main\.\d+\.weight$", ""),)),
    "torch": Family("any other PyTorch network"),
}

# Where the layers with parameters stand in a residual block: conv, norm, conv, norm. A dropout
# layer moves the second half by one. It has no parameters, so weights fit with and without it.
_RESIDUAL = {"plain": ("1", "2", "5", "6"), "dropout": ("1", "2", "6", "7")}
_IN_BLOCK = re.compile(r"\bconv_block\.(\d+)\b")


def rename(name: str, family: str) -> str | None:
    """Return the name here of the name in a checkpoint of `family`; None if it is not needed."""
    for pattern, replacement in _family(family).rules:
        if replacement is not None:
            name = re.sub(pattern, replacement, name)
        elif re.search(pattern, name):
            return None
    return from_torch(name)


def detect(names: Collection[str]) -> str:
    """Return the family that the names of a checkpoint are from; "torch" if they are from none."""
    plain = [name.removeprefix("module.") for name in names]
    batch_norm = _has_batch_norm(set(plain))
    for key, family in FAMILIES.items():
        if family.batch_norm not in (None, batch_norm):
            continue
        for present, absent in family.marks:
            if _any(present, plain) and not (absent and _any(absent, plain)):
                return key
    return "torch"


def translate(names: Iterable[str], family: str, known: Collection[str] = ()) -> dict[str, str]:
    """Return {name in the checkpoint: name here} of all that is needed.

    Beyond `rename` it knows what only the whole set tells: of a weight that PyTorch 1.0 saved
    before and after spectral norm, the one before counts; and a residual block may have its
    dropout layer in the checkpoint only, or in the network only.

    Parameters
    ----------
    names : of the checkpoint.
    known : names in the network.

    Raises
    ------
    CheckpointError : two names become one.
    """
    names = list(names)
    before = {name for name in names if name.endswith("weight_orig")}
    renamed = {
        name: target
        for name in names
        if f"{name}_orig" not in before and (target := rename(name, family)) is not None
    }
    theirs, ours = _layout(renamed.values()), _layout(known)
    if theirs and ours and theirs != ours:
        moves = dict(zip(_RESIDUAL[theirs], _RESIDUAL[ours], strict=True))
        for name, target in renamed.items():
            renamed[name] = _IN_BLOCK.sub(
                lambda found: f"conv_block.{moves.get(found[1], found[1])}", target
            )
    first: dict[str, str] = {}
    for name, target in renamed.items():
        if first.setdefault(target, name) != name:
            raise CheckpointError(
                f"'{first[target]}' and '{name}' would both become '{target}'",
                where=f"names of the family {family}",
                fix="choose one network of the file with key=",
            )
    return renamed


def _family(name: str) -> Family:
    if name not in FAMILIES:
        raise UsageError(
            f"there is no family of names '{name}'{did_you_mean(name, FAMILIES)}",
            fix=f"families are {', '.join(FAMILIES)}; without one it is found by the names",
        )
    return FAMILIES[name]


def _any(pattern: str, names: Iterable[str]) -> bool:
    return any(re.search(pattern, name) for name in names)


def _has_batch_norm(names: set[str]) -> bool:
    """Running statistics beside a weight: batch norm; alone they are those of instance norm."""
    ends = (name.removesuffix("running_mean") for name in names if name.endswith("running_mean"))
    return any(f"{layer}weight" in names for layer in ends)


def _layout(names: Iterable[str]) -> str:
    """Whether residual blocks have a dropout layer; "" if there are no blocks."""
    places = {found[1] for name in names for found in _IN_BLOCK.finditer(name)}
    if "5" in places:
        return "plain"
    return "dropout" if "6" in places else ""
