"""The named sets: what their files are called, where they come from, how to know them again.

The checksums of MNIST and Fashion-MNIST were taken from the published files themselves; those of
KMNIST from the published checksum list of TensorFlow Datasets, which agrees with several others.
"""

from __future__ import annotations

from dataclasses import dataclass

SPLITS = ("train", "test")
PICTURE_SET_NAMES = ("facades", "camvid", "summer2winter", "scenes")  # see `picture_sets`


@dataclass(frozen=True)
class SetFile:
    """One file of a set: its name, its length in bytes and its SHA-256."""

    name: str
    size: int
    sha256: str


@dataclass(frozen=True)
class NamedSet:
    """A set of labelled 28 x 28 grey images that `load` knows by name.

    files : for each split the file of the images and the file of the labels; empty if the set is
        made by this program.
    """

    name: str
    title: str
    classes: tuple[str, ...]
    counts: dict[str, int]
    files: dict[str, tuple[SetFile, SetFile]]
    mirrors: tuple[str, ...]
    licence: str
    source: str

    @property
    def all_files(self) -> tuple[SetFile, ...]:
        """The files of both splits."""
        return tuple(file for pair in self.files.values() for file in pair)


def _idx_files(*sizes_and_sums: tuple[int, str]) -> dict[str, tuple[SetFile, SetFile]]:
    """Pair the four files that all sets of the MNIST family have."""
    names = (
        "train-images-idx3-ubyte.gz",
        "train-labels-idx1-ubyte.gz",
        "t10k-images-idx3-ubyte.gz",
        "t10k-labels-idx1-ubyte.gz",
    )
    files = [SetFile(n, *known) for n, known in zip(names, sizes_and_sums, strict=True)]
    return {"train": (files[0], files[1]), "test": (files[2], files[3])}


_COUNTS = {"train": 60_000, "test": 10_000}

MNIST = NamedSet(
    name="mnist",
    title="handwritten digits",
    classes=tuple("0123456789"),
    counts=_COUNTS,
    files=_idx_files(
        (9_912_422, "440fcabf73cc546fa21475e81ea370265605f56be210a4024d2ca8f203523609"),
        (28_881, "3552534a0a558bbed6aed32b30c495cca23d567ec52cac8be1a0730e8010255c"),
        (1_648_877, "8d422c7b0a1c1c79245a5bcf07fe86e33eeafee792b84584aec276f5a2dbc4e6"),
        (4_542, "f7ae60f92e00ec6debd23a6088c31dbd2371eca3ffa0defaefb259924204aec6"),
    ),
    mirrors=(
        "https://ossci-datasets.s3.amazonaws.com/mnist/",
        "https://storage.googleapis.com/cvdf-datasets/mnist/",
    ),
    licence="CC BY-SA 3.0",
    source="LeCun, Bottou, Bengio, Haffner: Gradient-based learning applied to document "
    "recognition, Proc. IEEE 86(11), 1998",
)

FASHION_MNIST = NamedSet(
    name="fashion-mnist",
    title="pictures of clothing",
    classes=(
        "T-shirt/top",
        "Trouser",
        "Pullover",
        "Dress",
        "Coat",
        "Sandal",
        "Shirt",
        "Sneaker",
        "Bag",
        "Ankle boot",
    ),
    counts=_COUNTS,
    files=_idx_files(
        (26_421_880, "3aede38d61863908ad78613f6a32ed271626dd12800ba2636569512369268a84"),
        (29_515, "a04f17134ac03560a47e3764e11b92fc97de4d1bfaf8ba1a3aa29af54cc90845"),
        (4_422_102, "346e55b948d973a97e58d2351dde16a484bd415d4595297633bb08f03db6a073"),
        (5_148, "67da17c76eaffca5446c3361aaab5c3cd6d1c2608764d35dfb1850b086bf8dd5"),
    ),
    mirrors=(
        "http://fashion-mnist.s3-website.eu-central-1.amazonaws.com/",
        "https://storage.googleapis.com/tensorflow/tf-keras-datasets/",
    ),
    licence="MIT",
    source="Xiao, Rasul, Vollgraf: Fashion-MNIST, arXiv:1708.07747",
)

KMNIST = NamedSet(
    name="kmnist",
    title="cursive Japanese characters",
    classes=("o", "ki", "su", "tsu", "na", "ha", "ma", "ya", "re", "wo"),
    counts=_COUNTS,
    files=_idx_files(
        (18_165_135, "51467d22d8cc72929e2a028a0428f2086b092bb31cfb79c69cc0a90ce135fde4"),
        (29_497, "e38f9ebcd0f3ebcdec7fc8eabdcdaef93bb0df8ea12bee65224341c8183d8e17"),
        (3_041_136, "edd7a857845ad6bb1d0ba43fe7e794d164fe2dce499a1694695a792adfac43c5"),
        (5_120, "20bb9a0ef54c7db3efc55a92eef5582c109615df22683c380526788f98e42a1c"),
    ),
    mirrors=(
        "https://codh.rois.ac.jp/kmnist/dataset/kmnist/",
        "http://codh.rois.ac.jp/kmnist/dataset/kmnist/",
    ),
    licence="CC BY-SA 4.0",
    source="Clanuwat et al.: Deep Learning for Classical Japanese Literature, arXiv:1812.01718",
)

DIGITS = NamedSet(
    name="digits",
    title="procedural handwriting, made by this program",
    classes=tuple("0123456789"),
    counts=_COUNTS,
    files={},
    mirrors=(),
    licence="none needed",
    source="minigan.data.digits",
)

NAMED_SETS = {s.name: s for s in (MNIST, FASHION_MNIST, KMNIST, DIGITS)}
