"""Losses from logits, and distances."""

from __future__ import annotations

import importlib
from typing import Any

import numpy as np
from hypothesis import strategies as st
from opspec import Array, Case, OpSpec
from strategies import Draw, cases, integers, shapes, values

from minigan.ops import loss as losses
from minigan.tensor import Tensor

reference = importlib.import_module("minigan_kernels.reference.loss")

REDUCTIONS = st.sampled_from(["mean", "sum", "none"])


def reduced(loss: Array, reduction: str, count: int | None = None) -> Array:
    if reduction == "none":
        return loss
    divisor = 1 if reduction == "sum" else loss.size if count is None else count
    return np.asarray(loss.sum() / divisor)


def reducing(definition: Any) -> Any:
    """A reference per element becomes one with a reduction."""

    def with_reduction(*inputs: Any, reduction: str, **options: Any) -> Array:
        return reduced(definition(*inputs, **options), reduction)

    return with_reduction


@cases
def targets(draw: Draw, rng: np.random.Generator) -> Case:
    shape = draw(shapes())
    return Case((values(rng, shape), values(rng, shape, 0.0, 1.0)), {"reduction": draw(REDUCTIONS)})


@cases
def one_target(draw: Draw, rng: np.random.Generator) -> Case:
    options = {"target": draw(st.sampled_from([0.0, 1.0, 0.9])), "reduction": draw(REDUCTIONS)}
    return Case((values(rng, draw(shapes())),), options)


@cases
def verdicts(draw: Draw, rng: np.random.Generator) -> Case:
    x = values(rng, draw(shapes()), kinks=(-1.0, 1.0))
    return Case((x,), {"real": draw(st.booleans()), "reduction": draw(REDUCTIONS)})


@cases
def pairs(draw: Draw, rng: np.random.Generator) -> Case:
    """x - y is away from the kinks of |d| at 0 and of the Huber loss at 0.5."""
    shape = draw(shapes())
    y = values(rng, shape)
    x = y + values(rng, shape, kinks=(-0.5, 0.0, 0.5))
    return Case((x, y), {"reduction": draw(REDUCTIONS)})


@cases
def gaussians(draw: Draw, rng: np.random.Generator) -> Case:
    shape = draw(shapes())
    return Case((values(rng, shape), values(rng, shape)), {"reduction": draw(REDUCTIONS)})


def labelled(smoothing: bool) -> st.SearchStrategy[Case]:
    @cases
    def classified(draw: Draw, rng: np.random.Generator) -> Case:
        n, classes, spatial = draw(st.integers(1, 4)), draw(st.integers(2, 5)), draw(shapes(0, 2))
        labels = integers(rng, (n, *spatial), classes)
        ignored = draw(st.sampled_from([-100, 0]))
        if draw(st.booleans()):
            labels.flat[0] = ignored
        if (labels == ignored).all():
            ignored = -100
            labels[labels == ignored] = 0
        options = {"ignore_index": ignored, "reduction": draw(REDUCTIONS)}
        if smoothing:
            options["label_smoothing"] = draw(st.sampled_from([0.0, 0.1, 1.0]))
        return Case((values(rng, (n, classes, *spatial)), labels), options)

    return classified


def over_valid(definition: Any) -> Any:
    def with_reduction(
        x: Array, labels: Array, ignore_index: int, reduction: str, **options: Any
    ) -> Array:
        loss = definition(x, labels, ignore_index, **options)
        return reduced(loss, reduction, int((labels != ignore_index).sum()))

    return with_reduction


def definition_bce(logits: Array, target: Any) -> Array:
    return np.asarray(reference.binary_cross_entropy_with_logits(logits, target))


def definition_hinge(logits: Array, real: bool) -> Array:
    return np.maximum(0, 1 - logits if real else 1 + logits)


def definition_softplus(logits: Array, real: bool) -> Array:
    p = 1 / (1 + np.exp(-logits))
    return np.asarray(-np.log(p if real else 1 - p))


def smooth(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    return losses.smooth_l1_loss(x, y, reduction=reduction, beta=0.5)


def huber(x: Tensor, y: Tensor, reduction: str) -> Tensor:
    return losses.huber_loss(x, y, reduction=reduction, delta=0.5)


bce = losses.binary_cross_entropy_with_logits

SPECS = [
    OpSpec("binary_cross_entropy_with_logits", bce, reducing(definition_bce), targets, linear=(1,)),
    OpSpec("binary_cross_entropy_with_logits-constant", bce, reducing(definition_bce), one_target),
    OpSpec("hinge_loss", losses.hinge_loss, reducing(definition_hinge), verdicts),
    OpSpec("softplus_loss", losses.softplus_loss, reducing(definition_softplus), verdicts),
    OpSpec(
        "cross_entropy",
        losses.cross_entropy,
        over_valid(reference.cross_entropy),
        labelled(True),
        float32_slack=100,  # a confident right answer: the logarithm of nearly 1
    ),
    OpSpec(
        "nll_loss",
        losses.nll_loss,
        over_valid(reference.nll_loss),
        labelled(False),
        linear=(0,),
        nonfinite=False,  # an element that no label names does not matter
    ),
    OpSpec("mse_loss", losses.mse_loss, reducing(lambda x, y: (x - y) ** 2), pairs),
    OpSpec("l1_loss", losses.l1_loss, reducing(lambda x, y: np.abs(x - y)), pairs),
    OpSpec(
        "smooth_l1_loss",
        smooth,
        reducing(lambda x, y: reference.smooth_l1_loss(x, y, 0.5)),
        pairs,
    ),
    OpSpec(
        "huber_loss",
        huber,
        reducing(lambda x, y: 0.5 * reference.smooth_l1_loss(x, y, 0.5)),
        pairs,
    ),
    OpSpec("kl_normal", losses.kl_normal, reducing(reference.kl_normal), gaussians),
]
