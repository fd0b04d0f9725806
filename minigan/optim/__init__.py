"""Optimizers: rules that change parameters along gradients. Names follow torch.optim."""

from minigan.optim import schedules
from minigan.optim.adadelta import Adadelta
from minigan.optim.adagrad import Adagrad
from minigan.optim.adam import Adam, Adamax, AdamW, lazy
from minigan.optim.base import Optimizer
from minigan.optim.clip import (
    GradientAccumulator,
    clip_grad_norm,
    clip_grad_value,
    clip_weights,
)
from minigan.optim.ema import EMA
from minigan.optim.games import ExtraAdam, Lookahead, OptimisticAdam
from minigan.optim.rmsprop import RMSprop
from minigan.optim.second_order import consensus_gradients, symplectic_gradients
from minigan.optim.sgd import SGD

__all__ = [
    "Adadelta",
    "Adagrad",
    "Adam",
    "AdamW",
    "Adamax",
    "EMA",
    "ExtraAdam",
    "GradientAccumulator",
    "Lookahead",
    "OptimisticAdam",
    "Optimizer",
    "RMSprop",
    "SGD",
    "clip_grad_norm",
    "clip_grad_value",
    "clip_weights",
    "consensus_gradients",
    "lazy",
    "schedules",
    "symplectic_gradients",
]
