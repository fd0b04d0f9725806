"""Datasets: by name, from a folder, or made by this program.

train = data.load("mnist")                       # or "digits", or a folder of pictures
for batch in data.Batches(train, batch_size=64, seed=0):
    batch.images                                 # float32 (64, 1, 28, 28) in [-1, 1]

pairs = data.load("facades", kind="pairs", size=128, jitter=1.12)
for batch in data.batches(pairs, batch_size=1, seed=0):
    batch.a, batch.b                             # label map in colours, photo
"""

from __future__ import annotations

from . import digits, scenes
from .batches import Batch, Batches
from .catalog import load
from .coupled import (
    LabelBatch,
    LabelBatches,
    PairBatch,
    PairBatches,
    UnpairedBatch,
    UnpairedBatches,
    batches,
    instance_edges,
)
from .dataset import Dataset
from .folder import FolderDataset
from .frame import pad_to_multiple
from .grid import image_grid, preview, save_png
from .inspect import FileState
from .make_pairs import make_pairs
from .manage import SetInfo, check, get, info, list_sets
from .picture import read_picture
from .pixels import to_float, to_uint8
from .places import cache_folder
from .prefetch import Prefetch
from .views import LabelDataset, PairDataset, UnpairedDataset, colour_maps

__all__ = [
    "Batch",
    "Batches",
    "Dataset",
    "FileState",
    "FolderDataset",
    "LabelBatch",
    "LabelBatches",
    "LabelDataset",
    "PairBatch",
    "PairBatches",
    "PairDataset",
    "Prefetch",
    "SetInfo",
    "UnpairedBatch",
    "UnpairedBatches",
    "UnpairedDataset",
    "batches",
    "cache_folder",
    "check",
    "colour_maps",
    "digits",
    "get",
    "image_grid",
    "info",
    "instance_edges",
    "list_sets",
    "load",
    "make_pairs",
    "pad_to_multiple",
    "preview",
    "read_picture",
    "save_png",
    "scenes",
    "to_float",
    "to_uint8",
]
