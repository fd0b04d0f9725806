"""How good is a GAN? Figures that need no network, each beside what real images get.

judge = metrics.Evaluator.for_data("mnist")
judge.measure(images)["fid"], judge.floor(len(images))["fid"]
"""

from __future__ import annotations

from minigan.metrics.classifier import Classifier
from minigan.metrics.classifier import load as load_classifier
from minigan.metrics.evaluator import Evaluator
from minigan.metrics.frechet import fid
from minigan.metrics.kernel import kid
from minigan.metrics.modes import Mixture, grid, ring, stacked_modes
from minigan.metrics.neighbours import memorisation, prdc
from minigan.metrics.of_game import measure_game

__all__ = [
    "Classifier",
    "Evaluator",
    "Mixture",
    "fid",
    "grid",
    "kid",
    "load_classifier",
    "measure_game",
    "memorisation",
    "prdc",
    "ring",
    "stacked_modes",
]
