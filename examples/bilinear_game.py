"""The smallest GAN: min over x, max over y, of f(x, y) = x y. Who finds the equilibrium (0, 0)?

The players' gradients, (y, -x), are at right angles to the way there, so SGD spirals outward and
Adam circles. Optimism, extrapolation, lookahead and second derivatives lead in.

    python examples/bilinear_game.py --out bilinear_game.png
"""

import argparse

import numpy as np
from PIL import Image, ImageDraw

import minigan as mg
from minigan import nn, optim

STEPS, LR, BETAS = 500, 0.1, (0.0, 0.999)
PANEL, RANGE = 360, 2.5  # pixels of a panel, and the largest x and y in it


def separate_gradients(losses, players):  # the losses share a graph, so it must be kept
    return [mg.grad(f, p, retain_graph=True) for f, p in zip(losses, players, strict=True)]


def both(optimizer, **options):
    """The same optimizer for both players."""
    return lambda x, y: [optimizer([x], LR, **options), optimizer([y], LR, **options)]


def lookahead(x, y):
    follower = optim.Lookahead(optim.SGD([y], LR), k=None)
    return [optim.Lookahead(optim.SGD([x], LR), k=10, followers=[follower]), follower]


METHODS = {  # name -> optimizers of x and y, gradients
    "SGD": (both(optim.SGD), separate_gradients),
    "Adam": (both(optim.Adam, betas=BETAS), separate_gradients),
    "OptimisticAdam": (both(optim.OptimisticAdam, betas=BETAS), separate_gradients),
    "ExtraAdam": (both(optim.ExtraAdam, betas=BETAS), separate_gradients),
    "Lookahead(SGD), k = 10": (lookahead, separate_gradients),
    "SGD, consensus": (both(optim.SGD), lambda f, p: optim.consensus_gradients(f, p, 1.0)),
    "SGD, symplectic adjustment": (both(optim.SGD), optim.symplectic_gradients),
}


def play(make_optimizers, gradients, steps=STEPS):
    """The path (steps + 1, 2) of (x, y) from (1, 1)."""
    x, y = nn.Parameter(np.ones(())), nn.Parameter(np.ones(()))
    optimizers = make_optimizers(x, y)

    def turn(methods):
        f = x * y
        for method, grads in zip(methods, gradients([f, -f], [[x], [y]]), strict=True):
            method(grads)

    path = [(1.0, 1.0)]
    for _ in range(steps):
        if isinstance(optimizers[0], optim.ExtraAdam):
            turn([optimizer.extrapolate for optimizer in optimizers])
        turn([optimizer.step for optimizer in optimizers])
        path.append((x.item(), y.item()))
    return np.array(path)


def draw_path(draw, path, left, top):
    """x to the right, y upward; early steps are light, late ones dark."""
    draw.rectangle([left, top, left + PANEL, top + PANEL], outline="black")
    middle, scale = np.array([left + PANEL / 2, top + PANEL / 2]), PANEL / 2 / RANGE
    draw.line([left, middle[1], left + PANEL, middle[1]], fill="#cccccc")
    draw.line([middle[0], top, middle[0], top + PANEL], fill="#cccccc")
    points = middle + scale * path * [1, -1]
    for t in range(1, len(path)):
        if np.abs(path[t]).max() > RANGE:
            break  # it has left the picture
        shade = 180 - 180 * t // len(path)
        draw.line([*points[t - 1], *points[t]], fill=(shade, shade, 230), width=2)
    for point, colour in ((points[0], "green"), (middle, "red")):
        draw.ellipse([*(point - 5), *(point + 5)], fill=colour)


def main(out):
    image = Image.new("RGB", (4 * (PANEL + 20) + 20, 2 * (PANEL + 70) + 20), "white")
    draw = ImageDraw.Draw(image)
    for i, (name, method) in enumerate(METHODS.items()):
        path = play(*method)
        left, top = 20 + i % 4 * (PANEL + 20), 70 + i // 4 * (PANEL + 70)
        draw_path(draw, path, left, top)
        text = f"distance 1.4 -> {np.hypot(*path[-1]):.2g}"
        draw.text((left, top - 50), f"{name}\n{text}", fill="black", font_size=20)
        print(f"{name:28} {text}")
    text = f"min over x (across), max over y (up)\n\n{STEPS} steps, lr {LR}, betas {BETAS}\n\n"
    text += "green: start (1, 1)\nred: equilibrium (0, 0)\nlight to dark: early to late"
    draw.text((20 + 3 * (PANEL + 20), PANEL + 140), text, fill="black", font_size=20)
    image.save(out)


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--out", default="bilinear_game.png", help="the picture")
    main(parser.parse_args().out)
