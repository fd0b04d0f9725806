"""Optimizers: rules that change parameters along gradients. Names follow torch.optim."""

from minigan.optim.adam import Adam, Adamax, AdamW, lazy
from minigan.optim.base import Optimizer
from minigan.optim.ema import EMA
