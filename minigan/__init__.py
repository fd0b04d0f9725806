"""minigan: automatic differentiation by hand, and the GANs of the literature built on it."""

from minigan import check, debug, functional, ops
from minigan.autograd import enable_grad, grad, no_grad
from minigan.backend import precision
from minigan.random import manual_seed
from minigan.recompute import checkpoint
from minigan.tensor import Tensor, tensor

__version__ = "0.1.0"
