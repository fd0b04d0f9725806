"""Losses of G besides the adversarial one: what pulls images, features or codes towards others.

`minigan.losses` has them all too. Cross-entropy of classes, for AC-GAN and InfoGAN, is
`F.cross_entropy`.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from minigan.errors import UsageError
from minigan.ops.loss import kl_normal, l1_loss, mse_loss
from minigan.tensor import Tensor


def feature_matching(
    real: Sequence[Tensor] | Sequence[Sequence[Tensor]],
    fake: Sequence[Tensor] | Sequence[Sequence[Tensor]],
) -> Tensor:
    """Sum over scales and layers k of mean |f_k(x) - f_k(G(z))|, f_k the features inside D.

    The real features are constants: this loss trains G alone. No weights inside: pix2pixHD
    multiplies it by 10 * 4 / (layers + 1) / scales. Wang et al. (2017), arXiv:1711.11585.

    Parameters
    ----------
    real, fake : features layer by layer, or a list of such lists, one for each scale of D.
    """
    layers_real, layers_fake = _layers(real), _layers(fake)
    if len(layers_real) != len(layers_fake) or not layers_real:
        raise UsageError(
            f"feature_matching: {len(layers_real)} layers of real and {len(layers_fake)} of fake "
            "features",
            fix="take both from the same layers of the same D",
        )
    pairs = zip(layers_real, layers_fake, strict=True)
    first, *others = [l1_loss(f, r.detach()) for r, f in pairs]
    for other in others:
        first = first + other
    return first


def _layers(features: Any) -> list[Tensor]:
    """All layers of all scales, one after the other."""
    if isinstance(features, Tensor):
        return [features]
    return [layer for scale in features for layer in _layers(scale)]


def l1(input: Tensor, target: Tensor) -> Tensor:
    """Mean of |input - target| over everything (pix2pix: times 100; cycles of CycleGAN: 10)."""
    return l1_loss(input, target)


def kl(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of N(mu, e^logvar) from N(0, 1): summed over a code, averaged over the batch.

    -1/2 sum_j (1 + logvar - mu^2 - e^logvar), mean over N. SPADE sums over the batch as well (that
    is `F.kl_normal`): its weight 0.05 there is 0.05 N here.

    Parameters
    ----------
    mu, logvar : (N, ...) of one shape.
    """
    return kl_normal(mu, logvar) * (1 / mu.shape[0])


def total_variation(images: Tensor) -> Tensor:
    """Mean |x[i+1, j] - x[i, j]| + mean |x[i, j+1] - x[i, j]|, for (N,C,H,W): noise costs."""
    down = images[:, :, 1:] - images[:, :, :-1]
    right = images[:, :, :, 1:] - images[:, :, :, :-1]
    return down.abs().mean() + right.abs().mean()


def consistency(logits: Tensor, augmented: Tensor) -> Tensor:
    """Mean (D(x) - D(T x))^2: D shall not care about the augmentation T. Both sides learn.

    Balanced consistency regularisation takes it of real images and of fakes, each times 10.
    Zhao et al. (2020), arXiv:2002.04724.
    """
    return mse_loss(logits, augmented)
