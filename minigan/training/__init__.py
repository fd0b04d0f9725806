"""Training: the loop, checkpoints, the run folder, progress, previews, report.

run = RunFolder.create("runs", "dcgan-digits-s0")
train(gans.make("dcgan"), data.Batches(data.load("digits"), 64), run, steps=1000)
"""

from minigan.training.loop import train
from minigan.training.rundir import RunFolder
from minigan.training.session import Result

__all__ = ["Result", "RunFolder", "train"]
