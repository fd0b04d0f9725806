"""Spectral normalisation: a layer whose weight is divided by its largest singular value.

Miyato et al.: Spectral Normalization for Generative Adversarial Networks (2018), arXiv:1802.05957.
"""

from __future__ import annotations

from typing import TypeVar

import numpy as np

from minigan.autograd import is_recomputing
from minigan.backend import Array
from minigan.errors import UsageError
from minigan.nn.linear import Weighted, normal
from minigan.nn.module import Buffer, Module
from minigan.tensor import Tensor

WARM_START = 15  # power iterations at construction
L = TypeVar("L", bound=Weighted)


class SpectralNorm(Module):
    """W -> W / sigma,   sigma = u^T W v, with W seen as a matrix (out, rest).

    u and v approach the first singular vectors by power iteration, v <- W^T u / |W^T u|,
    u <- W v / |W v|, a little with every forward while training. They are constants to the
    gradient; sigma is not: d(sigma) = u v^T . dW.

    Parameters
    ----------
    weight : the weight to begin with.
    dim : its axis of outputs: 0, but 1 for transposed convolutions.
    n_power_iterations : per forward while training.
    eps : least length that a vector is divided by.
    """

    def __init__(
        self, weight: Tensor, dim: int = 0, n_power_iterations: int = 1, eps: float = 1e-12
    ) -> None:
        self.dim, self.n_power_iterations, self.eps = dim, n_power_iterations, eps
        rows = weight.shape[dim]
        self.u = Buffer(normal((rows,), 1.0).astype(weight.dtype))
        self.v = Buffer(normal((weight.size // rows,), 1.0).astype(weight.dtype))
        self.restart(weight)

    def restart(self, weight: Tensor) -> None:
        """Make up for a weight that changed at once: 15 iterations."""
        self.iterate(self.matrix(weight).data, WARM_START)

    def matrix(self, weight: Tensor) -> Tensor:
        """The weight as (out, rest)."""
        if self.dim:
            rest = [axis for axis in range(weight.ndim) if axis != self.dim]
            weight = weight.transpose(self.dim, *rest)
        return weight.reshape(weight.shape[0], -1)

    def iterate(self, matrix: Array, times: int) -> None:
        """Bring u and v closer to the singular vectors.

        They become new arrays: a graph that still needs the old ones keeps them.
        """
        u, v = self.u.data, self.v.data
        for _ in range(times):
            v = self._unit(matrix.T @ u)
            u = self._unit(matrix @ v)
        self.u.data, self.v.data = u, v

    def _unit(self, x: Array) -> Array:
        length = np.maximum(np.sqrt((x * x).sum()), self.eps)
        return (x / length).astype(x.dtype, copy=False)

    def forward(self, weight: Tensor) -> Tensor:
        matrix = self.matrix(weight)
        if self.training and not is_recomputing():
            self.iterate(matrix.data, self.n_power_iterations)
        u, v = Tensor(self.u.data[None, :]), Tensor(self.v.data[:, None])
        sigma = (u @ matrix) @ v  # 1,1
        return weight / sigma.reshape(())

    def extra_repr(self) -> str:
        return f"n_power_iterations={self.n_power_iterations}"


def spectral_norm(
    module: L, name: str = "weight", n_power_iterations: int = 1, eps: float = 1e-12
) -> L:
    """Make `module` compute with its weight divided by the largest singular value; return it.

    The learned parameter keeps its name and stays undivided; the vectors are the buffers `sn.u`
    and `sn.v`. `load_state_dict(state, rename=nn.from_torch)` reads PyTorch's names.

    Parameters
    ----------
    module : Linear, Embedding, or a convolution.
    name : of the parameter; these layers have one, "weight".
    n_power_iterations, eps : see `SpectralNorm`. 15 iterations are made at once.
    """
    if not isinstance(module, Weighted) or name != "weight":
        raise UsageError(
            f"spectral_norm: {type(module).__name__} has no weight of the name '{name}' to divide",
            fix="apply it to each Linear, Embedding or convolution inside",
        )
    if module.sn is not None:
        raise UsageError(f"spectral_norm: this {type(module).__name__} has it already")
    module.sn = SpectralNorm(module.weight, module.out_axis, n_power_iterations, eps)
    return module


def remove_spectral_norm(module: L) -> L:
    """Write the divided weight into the parameter and drop u and v: the same function, plain."""
    if module.sn is not None:
        module.sn.eval()
        module.weight.data[...] = module.used_weight().data / module.weight_factor
        module.weight.bump()
        module.sn = None
    return module
