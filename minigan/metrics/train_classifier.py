"""Train the classifier of a dataset: python -m minigan.metrics.train_classifier --data mnist

The weights in this package were made by this command for mnist, fashion-mnist and digits, with its
default options. It prints the accuracy on the test images and the SHA-256 that `classifier.py`
holds. On another processor the last bits, and so the hash, may differ.
"""

from __future__ import annotations

import time
from pathlib import Path

import click
import numpy as np

import minigan as mg
import minigan.functional as F
from minigan import data, optim
from minigan.data import Batches, Dataset
from minigan.data.sets import SPLITS
from minigan.errors import DataError
from minigan.metrics.classifier import SIDE, Classifier, save
from minigan.tensor import Tensor

_BATCH, _RATE = 128, 2e-3


def train(train_set: Dataset, test_set: Dataset, epochs: int, seed: int) -> Classifier:
    """Adam with a cosine from 2e-3 to 0, batch 128; then the statistics of the features."""
    if train_set.labels is None or test_set.labels is None:
        raise DataError(f"{train_set.name} has no labels", fix="a classifier needs classes")
    mg.manual_seed(seed)
    net = Classifier(len(train_set.classes))
    batches = Batches(train_set, _BATCH, seed)
    steps = epochs * batches.per_epoch
    optimizer = optim.Adam(net.parameters(), optim.schedules.cosine(_RATE, steps))
    started = time.monotonic()
    for step in range(steps):
        batch = batches.batch(step)
        loss = F.cross_entropy(net(Tensor(batch.images)), train_set.labels[batch.indices])
        optimizer.step(mg.grad(loss, optimizer.params))
        if (step + 1) % batches.per_epoch == 0:
            seconds = time.monotonic() - started
            click.echo(f"step {step + 1}/{steps} loss {loss.item():.4f} {seconds:.0f} s")
    for parameter in net.parameters():  # as they will be stored
        parameter.data[...] = parameter.data.astype(np.float16)
    features, _ = net.look(train_set.images)
    net.mean.data[...] = features.mean(axis=0)
    net.scale.data[...] = features.std(axis=0).clip(1e-6)
    net.about = {
        "data": train_set.name,
        "fingerprint": train_set.fingerprint,
        "classes": list(train_set.classes),
        "epochs": epochs,
        "seed": seed,
        "accuracy": accuracy(net, test_set),
    }
    return net


def accuracy(net: Classifier, test_set: Dataset) -> float:
    """Share of the test images whose class the network names."""
    _, probabilities = net.look(test_set.images)
    return float(np.mean(probabilities.argmax(axis=1) == test_set.labels))


@click.command()
@click.option("--data", "name", default="mnist", show_default=True, metavar="NAME|DIR")
@click.option("--data-root", "root", metavar="DIR", help="Where to look for named datasets first.")
@click.option("--epochs", type=click.IntRange(1), default=8, show_default=True)
@click.option("--seed", type=click.IntRange(0), default=0, show_default=True)
@click.option("--out", type=click.Path(path_type=Path), help="[NAME.safetensors]")
def main(name: str, root: str | None, epochs: int, seed: int, out: Path | None) -> None:
    """Train the classifier that judges GANs of a dataset, and write its weights."""
    train_set, test_set = (
        data.load(name, split=split, size=SIDE, channels=1, root=root) for split in SPLITS
    )
    net = train(train_set, test_set, epochs, seed)
    path = out or Path(f"{train_set.name}.safetensors")
    digest = save(net, path)
    click.echo(f"{path}: accuracy {net.about['accuracy']:.4f}, seed {seed}, sha256 {digest}")


if __name__ == "__main__":
    main()
