"""The network through whose eyes the metrics see: a small classifier that minigan itself trained.

    image 1x28x28 -> conv 5x5, 20 -> pool 2 -> conv 5x5, 50 -> pool 2 -> 64 features -> 10 classes

It is LeNet's layout with ReLU. Figures made with it compare with one another only: they are not
those of Inception, nor of any other classifier. So there is exactly one per dataset, its weights
are part of the package, their SHA-256 stands here, and `train_classifier` made them.

Images are rounded to bytes first: what is measured is what a viewer would see, and a float image
cannot gain anything over its picture file.
"""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from importlib import resources
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

from minigan import autograd, nn
from minigan.data.pixels import Bytes, resized, to_float, to_uint8, with_channels
from minigan.errors import CheckpointError, DataError, ShapeError, UsageError, did_you_mean
from minigan.tensor import Tensor
from minigan.weights import load_file, save_file

Array = npt.NDArray[Any]

SIDE = 28
FEATURES = 64
SHA256 = {
    "mnist": "0d5216eb68b627f93839f107934fd8a7d5596688d6d8f5b76f7150efced543f1",
    "fashion-mnist": "c0c8f6afed1dce4becb2a52c9e63a71500db67f8282883de6151e39e895f27f1",
    "digits": "d65b63b90df9a7c9347e38caa65058838480fa3db38f275304e5df0d7e55435f",
}
_CHUNK = 500  # images that go through the network at a time
_LIMIT = 1.5  # a generator without tanh may go a little beyond [-1, 1]


class Classifier(nn.Module):
    """Images (N, 1, 28, 28) -> features (N, 64) -> logits (N, classes).

    mean, scale : mean and standard deviation of each feature over the training set.
    about : how it was trained: data, seed, epochs, accuracy, fingerprint, names of the classes.
    """

    def __init__(self, classes: int = 10) -> None:
        self.body = nn.Sequential(
            nn.Conv2d(1, 20, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(20, 50, 5),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Flatten(),
            nn.Linear(50 * 4 * 4, FEATURES),
            nn.LeakyReLU(0.2),  # with ReLU a third of the features would be zero everywhere
        )
        self.head = nn.Linear(FEATURES, classes)
        self.mean = nn.Buffer(np.zeros(FEATURES, np.float32))
        self.scale = nn.Buffer(np.ones(FEATURES, np.float32))
        self.about: dict[str, Any] = {}
        self.sha256 = ""

    def forward(self, x: Tensor) -> Tensor:
        return self.head(self.body(x))

    @property
    def classes(self) -> int:
        """Number of classes."""
        return self.head.weight.shape[0]

    @autograd.no_grad()
    def look(self, images: Array) -> tuple[Array, Array]:
        """Return standardised features (N, 64) and probabilities (N, classes), both float64.

        Parameters
        ----------
        images : (N, C, H, W), float in [-1, 1] or uint8; see `to_input` for sizes.
        """
        features = np.empty((len(images), FEATURES))
        logits = np.empty((len(images), self.classes))
        for where, chunk in chunks(images):
            seen = self.body(Tensor(to_float(to_input(chunk))))
            logits[where] = self.head(seen).numpy()
            features[where] = (seen.numpy() - self.mean.numpy()) / self.scale.numpy()
        return features, softmax(logits)


def chunks(images: Array) -> Iterator[tuple[slice, Array]]:
    """Parts of the images small enough for the network, and where they belong."""
    for start in range(0, len(images), _CHUNK):
        where = slice(start, min(start + _CHUNK, len(images)))
        yield where, images[where]


def softmax(logits: Array) -> Array:
    """exp(l) / sum exp(l) over the last axis."""
    powers = np.exp(logits - logits.max(axis=-1, keepdims=True))
    return powers / powers.sum(axis=-1, keepdims=True)


# Images ------------------------------------------------------------------------------------------


def to_bytes(images: Array) -> Bytes:
    """Return images (N, C, H, W) as uint8 after checking them."""
    images = np.asarray(images)
    if images.ndim != 4 or images.shape[1] not in (1, 3):
        raise ShapeError(
            f"metrics: images must be (N, C, H, W) with 1 or 3 channels, not {images.shape}"
        )
    if images.dtype == np.uint8:
        return images
    if images.dtype.kind != "f":
        raise DataError(
            f"metrics: images must be float in [-1, 1] or uint8, not {images.dtype}",
        )
    if not np.isfinite(images).all():
        broken = ~np.isfinite(images).all(axis=(1, 2, 3))
        raise DataError(
            f"metrics: {int(broken.sum())} of {len(images)} images hold NaN or infinity",
            where=f"the first is image {int(np.flatnonzero(broken)[0])}",
            why="a figure of the others alone would be better than the generator deserves",
        )
    if len(images) and max(-images.min(), images.max()) > _LIMIT:
        raise DataError(
            f"metrics: images lie in [{images.min():.3g}, {images.max():.3g}], not in [-1, 1]",
            fix="pass uint8, or scale bytes with byte / 127.5 - 1",
        )
    return to_uint8(images)


def to_input(images: Array) -> Bytes:
    """Return images as the classifier takes them: uint8 (N, 1, 28, 28).

    Colour becomes grey. From 32 x 32 the margin of two pixels is cut off that `data.load` puts
    around images of 28, so nothing is interpolated. Larger squares shrink (bicubic); figures at
    different sizes do not compare.
    """
    grey = with_channels(to_bytes(images), 1)
    height, width = grey.shape[2:]
    if height != width or height < SIDE:
        raise ShapeError(
            f"metrics: images of {height} x {width} do not fit the classifier",
            why=f"it was trained on {SIDE} x {SIDE}",
            fix="use square images of at least that size",
        )
    if height == SIDE + 4:
        return grey[:, :, 2:-2, 2:-2]
    return resized(grey, SIDE)


# Weights -----------------------------------------------------------------------------------------


def load(name: str | Path = "mnist") -> Classifier:
    """Return the classifier of a dataset ("mnist", ...) or of a file of `train_classifier`.

    Raises
    ------
    UsageError : there is none of that name.
    CheckpointError : the file is damaged, or is not the one whose SHA-256 stands here.
    """
    if isinstance(name, str) and name in SHA256:
        packaged = resources.files("minigan.metrics") / "data" / f"{name}.safetensors"
        with resources.as_file(packaged) as path:
            return _read(path, SHA256[name])
    path = Path(name)
    if not path.exists():
        raise UsageError(
            f"there is no classifier for '{name}'{did_you_mean(str(name), SHA256)}",
            why=f"minigan brings those of {', '.join(SHA256)}",
            fix="train one: python -m minigan.metrics.train_classifier --data NAME --out FILE, "
            "and pass the file",
        )
    return _read(path, None)


def _read(path: Path, expected: str | None) -> Classifier:
    try:
        digest = hashlib.sha256(path.read_bytes()).hexdigest()
    except OSError as error:
        raise CheckpointError(f"{path} cannot be read: {error.strerror}") from error
    if expected not in (None, digest):
        raise CheckpointError(
            f"{path} is not the classifier that came with this version",
            why=f"its SHA-256 is {digest[:16]}..., not {expected[:16]}...",
            fix="install minigan again",
        )
    arrays, metadata = load_file(path, finite=True)
    if "head.weight" not in arrays or "about" not in metadata:
        raise CheckpointError(f"{path} holds no classifier", fix="see train_classifier")
    net = Classifier(len(arrays["head.weight"]))
    net.load_state_dict({name: array.astype(np.float32) for name, array in arrays.items()})
    net.about, net.sha256 = metadata["about"], digest
    net.eval()
    return net


def save(net: Classifier, path: Path) -> str:
    """Write the weights as float16, which halves the file and moves no decision; return SHA-256."""
    halves = {name: array.astype(np.float16) for name, array in net.state_dict().items()}
    save_file(path, halves, {"about": net.about})
    return hashlib.sha256(path.read_bytes()).hexdigest()
