"""Gradients of games corrected by second derivatives, for any optimizer to step along.

Player i minimises l_i over its parameters x_i. All gradients together, xi = (dl_1/dx_1,
dl_2/dx_2, ...), form a field that is not the gradient of anything: its Jacobian J = d(xi)/dx is
not symmetric. Around an equilibrium the antisymmetric part makes xi circle.

    losses = [d_loss(), g_loss()]             # both from the same state of the networks
    grads = consensus_gradients(losses, [opt_d.params, opt_g.params], gamma=10)
    opt_d.step(grads[0]); opt_g.step(grads[1])
"""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from minigan.autograd import grad
from minigan.backend import Array
from minigan.errors import UsageError
from minigan.tensor import Tensor

Players = Sequence[Sequence[Tensor]]


def consensus_gradients(
    losses: Sequence[Tensor], parameters: Players, gamma: float = 10.0
) -> list[list[Array]]:
    """xi + gamma J^T xi: descent on l_i and on gamma |xi|^2 / 2, which is least at equilibria.

    Mescheder, Nowozin, Geiger: The Numerics of GANs (2017), arXiv:1705.10461.

    Parameters
    ----------
    losses : one scalar per player, whose graphs were made before anybody stepped.
    parameters : the parameters of each player.
    gamma : weight of the correction.

    Returns
    -------
    For each player one array per parameter (zeros where nothing depends on it).
    """
    xi, transposed, _ = _field(losses, parameters)
    adjusted = [g + gamma * c for g, c in zip(xi, transposed, strict=True)]
    return _by_player(adjusted, parameters)


def symplectic_gradients(
    losses: Sequence[Tensor], parameters: Players, strength: float = 1.0, align: bool = True
) -> list[list[Array]]:
    """xi + s A^T xi,   A = (J - J^T) / 2 the antisymmetric part of J.

    With `align`, s = strength * sign(<xi, h> <A^T xi, h> / d + 0.1), where h = J^T xi and d is the
    number of parameters: the correction then leads to stable equilibria and away from others.

    Balduzzi et al.: The Mechanics of n-Player Differentiable Games (2018), arXiv:1802.05642.

    Parameters
    ----------
    losses, parameters : as for `consensus_gradients`.
    strength : weight of the correction.
    align : choose its sign at every step.
    """
    xi, transposed, straight = _field(losses, parameters)
    correction = [(t - s) / 2 for t, s in zip(transposed, straight, strict=True)]
    if align:
        size = sum(g.size for g in xi)
        towards = _inner(xi, transposed) * _inner(correction, transposed) / size + 0.1
        strength *= float(np.sign(towards))
    adjusted = [g + strength * c for g, c in zip(xi, correction, strict=True)]
    return _by_player(adjusted, parameters)


def _field(
    losses: Sequence[Tensor], parameters: Players
) -> tuple[list[Array], list[Array], list[Array]]:
    """xi, J^T xi and J xi, each as one flat list over all players' parameters.

    J^T u is a vector-Jacobian product with u as cotangent. It is linear in u, so its own
    vector-Jacobian product with respect to u, with xi as cotangent, is J xi.
    """
    if len(losses) != len(parameters):
        raise UsageError(f"{len(losses)} losses for {len(parameters)} players' parameters")
    x = [p for player in parameters for p in player]
    xi: list[Tensor] = []
    for loss, player in zip(losses, parameters, strict=True):
        for p, g in zip(player, grad(loss, list(player), create_graph=True), strict=True):
            xi.append(Tensor(np.zeros_like(p.data)) if g is None else g)
    values = [g.data for g in xi]
    moving = [g for g in xi if g.node is not None]  # the others are constant: rows of zeros in J
    u = [Tensor(g.data) for g in moving]
    for t in u:
        t.requires_grad = True
    transposed = grad(moving, x, u, create_graph=True) if moving else [None] * len(x)
    products = [(t, g) for t, g in zip(transposed, values, strict=True) if t is not None and t.node]
    straight: list[Tensor | None] = [None] * len(moving)
    if products:
        straight = grad([t for t, _ in products], u, [g for _, g in products])
    rows = iter(straight)
    full = [next(rows) if g.node is not None else None for g in xi]
    return values, _filled(transposed, values), _filled(full, values)


def _filled(tensors: Sequence[Tensor | None], like: list[Array]) -> list[Array]:
    return [np.zeros_like(g) if t is None else t.data for t, g in zip(tensors, like, strict=True)]


def _inner(a: list[Array], b: list[Array]) -> float:
    return float(sum(np.vdot(x, y) for x, y in zip(a, b, strict=True)))


def _by_player(flat: list[Array], parameters: Players) -> list[list[Array]]:
    rest = iter(flat)
    return [[next(rest) for _ in player] for player in parameters]
