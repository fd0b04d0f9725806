"""Many small images as one picture, and pictures as files."""

from __future__ import annotations

import io
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from minigan.errors import ShapeError

from .pixels import Bytes, to_uint8, with_channels
from .views import LabelDataset, PairDataset

if TYPE_CHECKING:
    from PIL import Image

    from .dataset import Dataset

_GAP = 2  # pixels between images


def image_grid(
    images: npt.NDArray[Any], columns: int | None = None, scale: int = 1, gap: int = _GAP
) -> Bytes:
    """Return one picture of many, row by row.

    Parameters
    ----------
    images : (N, C, H, W), C = 1 or 3; floats in [-1, 1] (clipped, NaN drawn black) or uint8.
    columns : images per row; by default about as many as there are rows.
    scale : every pixel becomes scale x scale pixels.
    gap : black pixels between the images, before scaling.

    Returns
    -------
    uint8 (H', W', C)
    """
    if images.ndim != 4 or images.shape[1] not in (1, 3) or not len(images):
        raise ShapeError(
            f"image_grid: cannot draw an array of shape {images.shape}",
            why="needs (N, C, H, W) with at least one image of 1 or 3 channels",
        )
    pixels = images if images.dtype == np.uint8 else to_uint8(images)
    count, channels, height, width = pixels.shape
    columns = min(count, columns or int(np.ceil(count**0.5)))
    rows = -(-count // columns)
    cells = np.zeros((rows * columns, channels, height + gap, width + gap), np.uint8)
    cells[:count, :, :height, :width] = pixels
    sheet = cells.reshape(rows, columns, channels, height + gap, width + gap)
    sheet = sheet.transpose(0, 3, 1, 4, 2)  # row, y, column, x, channel
    joined = sheet.reshape(rows * (height + gap), columns * (width + gap), channels)
    return _enlarged(joined[: joined.shape[0] - gap, : joined.shape[1] - gap], scale)


def save_png(path: Path | str, picture: Bytes, scale: int = 1) -> None:
    """Write a picture, uint8 (H, W, 1 or 3) or (H, W), as PNG; never leaves half a file."""
    buffer = io.BytesIO()
    to_pillow(_enlarged(picture, scale)).save(buffer, "PNG")
    path = Path(path)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp")
    try:
        temporary.write_bytes(buffer.getbuffer())
        os.replace(temporary, path)
    except BaseException:
        temporary.unlink(missing_ok=True)
        raise


def to_pillow(picture: Bytes) -> Image.Image:
    """Return a Pillow image for uint8 (H, W, 1 or 3) or (H, W)."""
    from PIL import Image

    grey = picture.ndim == 3 and picture.shape[2] == 1
    return Image.fromarray(np.ascontiguousarray(picture[..., 0] if grey else picture))


def preview(dataset: Dataset, rows: int = 8, columns: int = 8, scale: int = 2) -> Image.Image:
    """Return a picture of the first images of a dataset; with labels, each row is one class.

    Of pairs, A and B stand side by side; of photos with label maps, the map and its photo.
    """
    pairs = dataset.as_pairs() if isinstance(dataset, LabelDataset) else dataset
    if isinstance(pairs, PairDataset):
        columns = columns // 2 * 2
        first = np.arange(min(rows * columns // 2, len(pairs)))
        a = pairs.frame.cut(with_channels(pairs.a.raw(first), pairs.image_shape[0]))
        both = np.stack([a, pairs.raw(first)], 1).reshape(-1, *pairs.image_shape)
        return to_pillow(image_grid(both, columns, scale))
    if dataset.labels is None or not dataset.classes:
        chosen = np.arange(min(rows * columns, len(dataset)))
    else:
        present, counts = np.unique(dataset.labels, return_counts=True)
        columns = min(columns, int(counts[:rows].min()))  # rows of unequal length would shift
        chosen = np.concatenate(
            [np.flatnonzero(dataset.labels == c)[:columns] for c in present[:rows]]
        )
    return to_pillow(image_grid(dataset.raw(chosen), columns, scale))


def _enlarged(picture: Bytes, scale: int) -> Bytes:
    return picture.repeat(scale, axis=0).repeat(scale, axis=1) if scale != 1 else picture
