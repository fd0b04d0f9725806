"""What keeps G smooth, and weights small or orthogonal. `minigan.penalties` has these too.

Penalties on the gradient of D are in minigan/penalties.py.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator

import numpy as np

from minigan import backend, random
from minigan.autograd import grad
from minigan.backend import Array, backend_of
from minigan.errors import GraphError, ShapeError, UsageError
from minigan.nn.linear import Embedding, Weighted
from minigan.nn.module import Buffer, Module
from minigan.optim.clip import clip_weights
from minigan.tensor import Tensor

__all__ = ["PathLength", "clip_weights", "feed_beside", "orthogonal"]

Feed = Callable[[Callable[[], Array]], Tensor]
Losses = dict[str, Tensor]

EPS = 1e-12  # inside of roots: without it the second derivative at a zero gradient is NaN


def feed_beside(like: Tensor) -> Feed:
    """What `Game.feed` does, for the device of `like`: numbers of the host, new in each step."""
    return lambda compute: Tensor(backend.feed(compute, like.device))


class PathLength(Module):
    """Steps in w shall change the image equally far everywhere: |J^T y| = a for random y.

    J^T y = d/dw sum(G(w) y),   y ~ N(0, 1) / sqrt(H W),
    L = weight E (|J^T y| - a)^2,   a <- a + decay (E |J^T y| - a)

    |.| is the root of the sum over the entries of w, of the mean over layers if there are several
    styles (N, layers, w). a is a buffer: saved, moved and loaded with the module; it is a constant
    to the gradient, whereas StyleGAN2's code lets the share `decay` through.

    Karras et al. (2019), arXiv:1912.04958, section 3.2 and appendix B.

    Parameters
    ----------
    weight : factor of the loss.
    decay : of the average a.
    every : see `Penalty`; StyleGAN2 has 4.
    """

    def __init__(self, weight: float = 2.0, decay: float = 0.01, every: int = 4) -> None:
        self.weight, self.decay, self.every = weight, decay, every
        self.mean = Buffer(np.zeros((), np.float32))

    def due(self, step: int) -> bool:
        """Whether step number `step` (from 0) has it."""
        return step % self.every == 0

    def forward(self, images: Tensor, w: Tensor, feed: Feed | None = None) -> Losses:
        """{"loss_pl": L} for images (N,C,H,W) that were made from w (N, w) or (N, layers, w)."""
        if w.ndim not in (2, 3):
            raise ShapeError(
                f"PathLength: w has shape {w.shape}",
                fix="pass one style (N, w) for each image, or one for each layer (N, layers, w)",
            )
        draw = feed or feed_beside(images)
        scale = 1 / math.sqrt(math.prod(images.shape[2:]))
        shape, dtype = images.shape, images.dtype
        y = draw(lambda: random.draw("penalty").standard_normal(shape, dtype))
        (g,) = grad((images * y).sum() * scale, w, create_graph=True)
        if g is None:
            raise GraphError(
                "PathLength: the images do not depend on w",
                fix="pass the very w that the generator was given, not a detached copy",
            )
        squares = g.square().sum(axis=-1)  # N, or N,layers
        n = ((squares.mean(axis=1) if squares.ndim == 2 else squares) + EPS).sqrt()  # N
        a = self._follow(n.mean())
        return {"loss_pl": (n - a).square().mean() * (self.weight * self.every)}

    def _follow(self, batch: Tensor) -> Tensor:
        """Move a towards the mean of this batch, in place; return it as a constant (1,)."""
        a = self.mean.data + self.decay * (batch.data - self.mean.data)
        self.mean.data[...] = a
        self.mean.bump()
        return Tensor(a.astype(batch.dtype).reshape(1))


def orthogonal(network: Module, weight: float = 1e-4) -> Losses:
    """{"loss_ortho": weight / 2 sum |W W^T * (1 - I)|^2} over all weights W as (out, rest).

    Its gradient is 2 weight (W W^T * (1 - I)) W, which BigGAN adds by hand: rows of W shall be
    orthogonal, but of any length. Embeddings are left out, as there: two classes may be alike.
    Brock et al. (2018), arXiv:1809.11096, section 3.1.
    """
    total: Tensor | None = None
    for matrix in _matrices(network):
        term = ((matrix @ matrix.T) * _off_diagonal(matrix)).square().sum()
        total = term if total is None else total + term
    if total is None:
        raise UsageError(f"orthogonal: {type(network).__name__} has no layers with weights")
    return {"loss_ortho": total * (weight * 0.5)}


def _matrices(network: Module) -> Iterator[Tensor]:
    """Weights of all layers but embeddings as (out, rest), each once."""
    seen: set[int] = set()
    for layer in network.modules():
        if isinstance(layer, Weighted) and not isinstance(layer, Embedding):
            w = layer.weight
            if id(w) not in seen and w.requires_grad:
                seen.add(id(w))
                rest = [axis for axis in range(w.ndim) if axis != layer.out_axis]
                yield w.transpose(layer.out_axis, *rest).reshape(w.shape[layer.out_axis], -1)


def _off_diagonal(matrix: Tensor) -> Tensor:
    """1 - I, with as many rows as `matrix`."""
    xp = backend_of(matrix.data).xp
    return Tensor(1 - xp.eye(matrix.shape[0], dtype=matrix.dtype))
