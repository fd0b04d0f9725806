"""Equalized learning rate: He's constant applied when the weight is used, not when it is drawn.

Karras et al.: Progressive Growing of GANs (2017), arXiv:1710.10196, section 4.1.
"""

from __future__ import annotations

import math
from typing import TypeVar

from minigan.nn.init import fans
from minigan.nn.linear import Weighted, normal

L = TypeVar("L", bound=Weighted)


def equalized(module: L, gain: float = math.sqrt(2), lrmul: float = 1.0) -> L:
    """Draw the weight from N(0, 1) / lrmul and use it as weight * gain * lrmul / sqrt(fan_in).

    All weights are then of the same size, so the steps of Adam, which do not depend on the size
    of gradients, change all layers at the same speed. The bias starts at 0 and is used * lrmul.

    Parameters
    ----------
    module : Linear, or a convolution. fan_in is the number of inputs of an output, also for
        transposed convolutions: in_channels times the kernel's size.
    gain : sqrt(2) before a ReLU, 1 otherwise.
    lrmul : factor on the speed of learning (StyleGAN's mapping network: 0.01).
    """
    fan_in, _ = fans(module)
    module.weight.data[...] = normal(module.weight.shape, 1 / lrmul)
    module.weight.bump()
    module.weight_factor = gain * lrmul / math.sqrt(fan_in)
    if module.bias is not None:
        module.bias.data[...] = 0
        module.bias.bump()
        module.bias_factor = lrmul
    return module
