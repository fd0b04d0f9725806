"""What happens to all images before D sees them, so that it cannot learn few of them by heart.

    D's turn: D(T(x)), D(T(G(z)))        G's turn: D(T(G(z)))

T is drawn anew for every image each time. It is differentiable, to every order, so G learns through
it. Reals and fakes pass the same T, so G still has to match the reals as they are, unless T makes
different sets of images alike (Karras et al. 2020, section 2.2): blur and turns of all images
would, changes that leave a good part of them alone do not.
"""

from __future__ import annotations

from typing import Any

from minigan.augment.ada import ADA
from minigan.augment.base import Augment
from minigan.augment.diffaugment import DiffAugment
from minigan.errors import UsageError, did_you_mean

__all__ = ["ADA", "Augment", "DiffAugment", "augment"]

NAMES = ("none", "diffaugment", "ada")


def augment(name: str, **options: Any) -> Augment:
    """Make an augmentation by its name.

    Parameters
    ----------
    name : "none"; "diffaugment", or "diffaugment:translation,cutout" for some of its policies;
        "ada", or "ada:0.2" for a probability that stays as it is.
    options : of the class, see `DiffAugment` and `ADA`.
    """
    kind, colon, strength = name.partition(":")
    if kind not in NAMES or (colon and (kind == "none" or not strength)):
        raise UsageError(
            f"unknown augmentation '{name}'{did_you_mean(kind, NAMES)}",
            fix=f"use one of {', '.join(NAMES)}, diffaugment:translation,cutout or ada:0.2",
        )
    if kind == "diffaugment":
        return DiffAugment(**({"policy": strength} if colon else {}), **options)
    if kind == "ada":
        return ADA(**(_fixed(strength) if colon else {}), **options)
    if options:
        raise UsageError(f"augmentation 'none' has no option '{next(iter(options))}'")
    return Augment()


def _fixed(strength: str) -> dict[str, Any]:
    try:
        return {"p": float(strength), "target": None}
    except ValueError:
        raise UsageError(f"ada: '{strength}' is no probability", fix="use ada:0.2") from None
