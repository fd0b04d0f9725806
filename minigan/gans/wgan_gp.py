"""WGAN-GP: the slope of the critic is asked to be one, instead of boxing its weights.

Gulrajani, Ahmed, Arjovsky, Dumoulin, Courville: Improved Training of Wasserstein GANs (2017),
arXiv:1704.00028.

The idea: clipped weights make a critic that uses little of what it could say. The best critic has
slope 1 nearly everywhere on the straight lines between real images and fakes; so ask for that.

    x^ = a x + (1 - a) G(z),   a ~ U(0, 1) for each pair
    L_D = E D(G(z)) - E D(x) + lambda E (|dD(x^)/dx^| - 1)^2       lambda = 10
    L_G = -E D(G(z))

The penalty is about D at each single image, so D must not have batch norm, through which images of
a batch see one another. The slope does not settle at 1 exactly: what a step gains by distance it
loses by penalty at n = 1 + W / (2 lambda n), where W is the distance left.

Where this departs from the paper: the networks are DCGAN's, D without norms, instead of its 5x5
kernels (MNIST) or residual ones (`sngan32` has those: -o loss=wgan -o penalty=gp -o spectral=no);
images are not dequantised. The preset gives D three turns and both a rate of 3e-4, for a CPU's
minutes.
"""

from __future__ import annotations

from minigan.gans.dcgan import DCGAN


class WGANGP(DCGAN):
    """DCGAN's networks, with a critic without norms under the gradient penalty."""

    name = "wgan-gp"
    recipe = DCGAN.recipe | {
        "norm": "none",
        "loss": "wgan",
        "penalty": "gp",
        "d_steps": 5,
        "lr": 1e-4,
        "lr_d": 1e-4,
        "beta2": 0.9,
    }
