"""LSGAN: least squares instead of cross-entropy.

Mao, Li, Xie, Lau, Wang, Smolley: Least Squares Generative Adversarial Networks (2016),
arXiv:1611.04076.

The idea: cross-entropy has no gradient left for fakes on the right side of D's border, however far
they are from real images. A squared distance pulls them to the border, so G goes on learning.

    L_D = 1/2 E (D(x) - b)^2 + 1/2 E (D(G(z)) - a)^2      a = 0, b = 1
    L_G = 1/2 E (D(G(z)) - c)^2                           c = 1

D must not end with a sigmoid: it would bound D and bring the vanishing gradients back.

Where this departs from the paper: its networks begin with linear layers and have 5x5 kernels; these
are DCGAN's.
"""

from __future__ import annotations

from minigan.gans.dcgan import DCGAN


class LSGAN(DCGAN):
    """DCGAN with another loss."""

    name = "lsgan"
    recipe = DCGAN.recipe | {"loss": "lsgan"}
