"""Adam and its relatives: steps of a size that hardly depends on the size of the gradients."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from minigan.backend import Array
from minigan.nn.module import Parameter
from minigan.optim.base import Optimizer, Rate


class Adam(Optimizer):
    """m <- beta1 m + (1 - beta1) g,   v <- beta2 v + (1 - beta2) g^2,

    p <- p - lr (m / (1 - beta1^t)) / (sqrt(v / (1 - beta2^t)) + eps).

    Kingma and Ba: Adam (2014), arXiv:1412.6980; eps stands where PyTorch has it, outside of the
    corrected root (TensorFlow's has another size). GANs use beta1 = 0.5 or 0.

    Parameters
    ----------
    params, lr : see `Optimizer`.
    betas : decay of the averages m and v.
    eps : keeps the denominator from zero.
    weight_decay : adds weight_decay * p to g.
    amsgrad : divide by the largest v so far (Reddi et al., 2018).
    """

    decoupled = False
    remembers: tuple[str, ...] = ("exp_avg", "exp_avg_sq")

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self._check(beta1=(betas[0], 0, 1), beta2=(betas[1], 0, 1), eps=(eps, 0, 1))
        self._check(weight_decay=(weight_decay, 0, float("inf")))
        for name in (*self.remembers, *(["max_exp_avg_sq"] if amsgrad else [])):
            self._remember(name)

    def update(self, chosen: list[int], grads: list[Array], lr: float) -> None:
        self._adam(self._arrays(chosen), chosen, grads, lr, self.weight_decay)

    def _adam(
        self, p: list[Array], chosen: list[int], grads: list[Array], lr: float, decay: float
    ) -> None:
        self._kernels.adam_step(
            p,
            grads,
            self._recall("exp_avg", chosen),
            self._recall("exp_avg_sq", chosen),
            self._recall("max_exp_avg_sq", chosen),
            self.counts[chosen].tolist(),
            lr,
            *self.betas,
            self.eps,
            decay,
            self.decoupled,
        )

    def directions(self, chosen: list[int], grads: list[Array]) -> list[Array]:
        """u = m^ / (sqrt(v^) + eps), which a step multiplies by -lr; m and v take in the gradients.

        It is a step of Adam with lr = -1 that starts at 0.
        """
        if self.weight_decay:
            pairs = zip(grads, self._arrays(chosen), strict=True)
            grads = [g + self.weight_decay * p for g, p in pairs]
        u = [np.zeros_like(p) for p in self._arrays(chosen)]
        self._adam(u, chosen, grads, -1.0, 0.0)
        return u


class AdamW(Adam):
    """p <- p (1 - lr weight_decay), then the step of `Adam` on the plain gradient.

    Loshchilov and Hutter: Decoupled Weight Decay Regularization (2017), arXiv:1711.05101.
    Parameters as for `Adam`.
    """

    decoupled = True

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: Rate = 1e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 1e-2,
        amsgrad: bool = False,
    ) -> None:
        super().__init__(params, lr, betas, eps, weight_decay, amsgrad)


class Adamax(Optimizer):
    """m <- beta1 m + (1 - beta1) g,   u <- max(beta2 u, |g| + eps),

    p <- p - lr / (1 - beta1^t) m / u.

    Adam with the largest instead of the mean square gradient (section 7.1 of the Adam paper).

    Parameters
    ----------
    params, lr : see `Optimizer`.
    betas : decay of m and of u.
    eps : keeps u from zero.
    weight_decay : adds weight_decay * p to g.
    """

    def __init__(
        self,
        params: Iterable[Parameter],
        lr: Rate = 2e-3,
        betas: tuple[float, float] = (0.9, 0.999),
        eps: float = 1e-8,
        weight_decay: float = 0.0,
    ) -> None:
        super().__init__(params, lr)
        self.betas, self.eps, self.weight_decay = betas, eps, weight_decay
        self._check(beta1=(betas[0], 0, 1), beta2=(betas[1], 0, 1), eps=(eps, 0, 1))
        self._check(weight_decay=(weight_decay, 0, float("inf")))
        self._remember("exp_avg")
        self._remember("exp_inf")

    def update(self, chosen: list[int], grads: list[Array], lr: float) -> None:
        self._kernels.adamax_step(
            self._arrays(chosen),
            grads,
            self._recall("exp_avg", chosen),
            self._recall("exp_inf", chosen),
            self.counts[chosen].tolist(),
            lr,
            *self.betas,
            self.eps,
            self.weight_decay,
        )


def lazy(lr: float, betas: tuple[float, float], interval: int) -> tuple[float, tuple[float, float]]:
    """Return lr and betas of Adam for a penalty that is computed only every `interval` steps.

    StyleGAN2's lazy regularisation makes interval + 1 updates where one was meant to be, so
    c = interval / (interval + 1) scales them: lr c, (beta1^c, beta2^c). Multiply the penalty's
    gradient by `interval`.
    """
    c = interval / (interval + 1)
    return lr * c, (betas[0] ** c, betas[1] ** c)
