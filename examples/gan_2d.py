"""The vanilla GAN in two dimensions, where one can watch both players.

    python examples/gan_2d.py                     about a minute; writes gan_2d.gif

Eight Gaussians lie on a ring. The generator bends 2-d noise until its samples (orange) cover them
(white); the discriminator's belief is the field behind (light: real, dark: fake). Watch the field
chase the samples and flatten to one half as it loses the game.

Goodfellow et al.: Generative Adversarial Networks (2014), arXiv:1406.2661, with the non-saturating
loss of its section 3:

    L_D = BCE(D(x), 1) + BCE(D(G(z)), 0)        L_G = BCE(D(G(z)), 1)
"""

from __future__ import annotations

import argparse
import itertools
from pathlib import Path

import numpy as np
from PIL import Image, ImageDraw

import minigan as mg
import minigan.functional as F
from minigan import nn, optim, random

RADIUS, SPREAD, MODES = 2.0, 0.06, 8
PIXELS, WINDOW = 384, 3.0  # the picture shows [-WINDOW, WINDOW] in both directions


def ring(rng: np.random.Generator, n: int) -> np.ndarray:
    """n points (n, 2) of the mixture of Gaussians on a ring."""
    angle = 2 * np.pi * rng.integers(0, MODES, n) / MODES
    centres = RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    return (centres + SPREAD * rng.standard_normal((n, 2))).astype(np.float32)


def mlp(*sizes: int) -> nn.Sequential:
    layers: list[nn.Module] = []
    for fan_in, fan_out in itertools.pairwise(sizes):
        layers += [nn.Linear(fan_in, fan_out), nn.LeakyReLU(0.2)]
    return nn.Sequential(*layers[:-1])


def modes_covered(samples: np.ndarray) -> tuple[int, float]:
    """How many of the eight modes hold samples, and the share of samples within 3 sigma of one."""
    angle = 2 * np.pi * np.arange(MODES) / MODES
    centres = RADIUS * np.stack([np.cos(angle), np.sin(angle)], axis=1)
    distance = np.linalg.norm(samples[:, None] - centres, axis=2)
    good = distance.min(axis=1) < 3 * SPREAD
    return len(set(distance.argmin(axis=1)[good])), float(good.mean())


@mg.no_grad()
def picture(G: nn.Module, D: nn.Module, z: np.ndarray, real: np.ndarray, step: int) -> Image.Image:
    """Real points, generated points and D's field."""
    axis = np.linspace(-WINDOW, WINDOW, 96, dtype=np.float32)
    grid = np.stack(np.meshgrid(axis, -axis), axis=-1).reshape(-1, 2)
    logits = D(mg.tensor(grid)).numpy().reshape(96, 96)
    belief = 0.5 + 0.5 * np.tanh(0.5 * logits)[..., None]
    field = (1 - belief) * np.array([24, 28, 58]) + belief * np.array([96, 148, 190])
    image = Image.fromarray(field.astype(np.uint8)).resize(
        (PIXELS, PIXELS), Image.Resampling.BICUBIC
    )
    draw = ImageDraw.Draw(image)
    for points, colour, r in ((real, "white", 1), (G(mg.tensor(z)).numpy(), "#ff9030", 2)):
        for x, y in (points * [1, -1] / WINDOW + 1) * PIXELS / 2:
            draw.ellipse([x - r, y - r, x + r, y + r], fill=colour)
    draw.text((8, 6), f"step {step}", fill="white")
    return image


def main() -> None:
    parser = argparse.ArgumentParser(description="A GAN on a ring of Gaussians, as an animation.")
    parser.add_argument("--steps", type=int, default=4000)
    parser.add_argument("--batch", type=int, default=256)
    parser.add_argument("--lr", type=float, default=1e-3)
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--frames", type=int, default=60)
    parser.add_argument("--out", type=Path, default=Path("gan_2d.gif"))
    options = parser.parse_args()

    mg.manual_seed(options.seed)
    G, D = mlp(2, 128, 128, 128, 2), mlp(2, 128, 128, 128, 1)
    params_g, params_d = list(G.parameters()), list(D.parameters())
    opt_g = optim.Adam(params_g, options.lr, betas=(0.5, 0.999))
    opt_d = optim.Adam(params_d, options.lr, betas=(0.5, 0.999))
    preview = random.draw("preview")
    fixed_z, shown = preview.standard_normal((500, 2), dtype=np.float32), ring(preview, 500)

    frames = []
    every = max(1, options.steps // options.frames)
    for step in range(options.steps + 1):
        if step % every == 0:
            frames.append(picture(G, D, fixed_z, shown, step))
        if step % (10 * every) == 0:
            covered, good = modes_covered(G(mg.tensor(fixed_z)).numpy())
            print(f"step {step:5d}   modes {covered}/{MODES}   samples near a mode {good:.0%}")
        x = mg.tensor(ring(random.draw("data"), options.batch))
        fake = G(mg.tensor(random.draw("z").standard_normal((options.batch, 2), dtype=np.float32)))

        loss_d = bce(D(x), 1.0) + bce(D(fake.detach()), 0.0)
        opt_d.step(mg.grad(loss_d, params_d))

        loss_g = bce(D(fake), 1.0)
        opt_g.step(mg.grad(loss_g, params_g))

    frames[0].save(options.out, save_all=True, append_images=frames[1:], duration=80, loop=0)
    print(f"animation: {options.out}")


bce = F.binary_cross_entropy_with_logits

if __name__ == "__main__":
    main()
