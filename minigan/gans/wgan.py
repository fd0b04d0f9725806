"""WGAN: a critic that measures how far the fakes are from the real images.

Arjovsky, Chintala, Bottou: Wasserstein GAN (2017), arXiv:1701.07875.

The idea: two sets of images that share nothing are equally different by every measure that compares
probabilities, so a good D teaches G nothing. The Wasserstein distance (how much has to be carried
how far to turn one into the other) shrinks as the fakes come closer. It is

    W = max over all f of slope at most 1 of  E f(x) - E f(G(z))

and the critic D is trained to be such an f, up to a factor:

    L_D = E D(G(z)) - E D(x),   then every weight w of D <- min(max(w, -c), c)       c = 0.01
    L_G = -E D(G(z))

Weights in a box bound the slope of D. The critic takes five turns for one of G, each with reals and
noise of its own, because the estimate must be good before G may follow it. There is no momentum:
the slope of a moving critic points elsewhere each time.

The log has "w_estimate" = E D(x) - E D(G(z)), which shall shrink as the pictures get better.

Where this departs from the paper: all critic turns are five, while its code takes 100 in each of
the first 25 steps and in every 500th. The preset has ten times the paper's learning rate of 5e-5,
at which nothing can be seen within minutes.
"""

from __future__ import annotations

from minigan.gans.dcgan import DCGAN


class WGAN(DCGAN):
    """DCGAN's networks, with a critic whose weights are clipped, and RMSprop."""

    name = "wgan"
    recipe = DCGAN.recipe | {
        "loss": "wgan",
        "clip": 0.01,
        "d_steps": 5,
        "optimizer": "rmsprop",
        "lr": 5e-5,
        "lr_d": 5e-5,
        "beta2": 0.99,
    }
