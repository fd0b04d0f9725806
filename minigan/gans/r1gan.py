"""R1-GAN: the plain loss, and a penalty on the slope of D at real images only.

Mescheder, Geiger, Nowozin: Which Training Methods for GANs do actually Converge? (2018),
arXiv:1801.04406.

The idea: near the end of training, where fakes are as good as real images, D should be flat; if it
keeps a slope there, it pushes G past the goal, and both circle for ever. It is enough to ask for a
small slope on the data themselves:

    L_D = E sp(-D(x)) + E sp(D(G(z))) + gamma / 2 E |dD(x)/dx|^2        sp = softplus
    L_G = E sp(-D(G(z)))

No norm is needed anywhere in D, and no second turn. StyleGAN trains with this loss.

gamma is for the formula above, with its half. The authors' code has no half and reg = 10, which is
gamma = 20; small images need less (here 0.1 for 28 pixels). -o penalty_every=16 computes the
penalty in every 16th step only, 16 times as strong, as StyleGAN2 does.

Where this departs from the paper: the networks are DCGAN's, D without norms, instead of residual
ones; Adam without momentum in place of RMSprop.
"""

from __future__ import annotations

from minigan.gans.dcgan import DCGAN


class R1GAN(DCGAN):
    """DCGAN's networks, D without norms, penalised at real images."""

    name = "r1gan"
    recipe = DCGAN.recipe | {
        "norm": "none",
        "penalty": "r1",
        "penalty_weight": 10.0,
        "beta1": 0.0,
        "beta2": 0.99,
    }
