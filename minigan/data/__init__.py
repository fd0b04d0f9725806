"""Datasets: by name, from a folder, or made by this program.

train = data.load("mnist")                       # or "digits", or a folder of pictures
for batch in data.Batches(train, batch_size=64, seed=0):
    batch.images                                 # float32 (64, 1, 28, 28) in [-1, 1]
"""

from __future__ import annotations

from . import digits
from .batches import Batch, Batches
from .catalog import load
from .dataset import Dataset
from .folder import FolderDataset
from .grid import image_grid, preview, save_png
from .manage import FileState, SetInfo, check, get, info, list_sets
from .picture import read_picture
from .pixels import to_float, to_uint8
from .places import cache_folder
from .prefetch import Prefetch

__all__ = [
    "Batch",
    "Batches",
    "Dataset",
    "FileState",
    "FolderDataset",
    "Prefetch",
    "SetInfo",
    "cache_folder",
    "check",
    "digits",
    "get",
    "image_grid",
    "info",
    "list_sets",
    "load",
    "preview",
    "read_picture",
    "save_png",
    "to_float",
    "to_uint8",
]
