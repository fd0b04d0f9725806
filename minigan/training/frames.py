"""The pictures of a run, shrunk to their own pixels and packed as lossless WebP data URIs."""

from __future__ import annotations

import base64
import io
import re
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt

_NAME = re.compile(r"(.+)-(\d{6,})\.png")


def frames(samples: Path) -> dict[str, dict[int, Path]]:
    """Find samples/NAME-STEP.png: name -> step -> file, both in order."""
    found: dict[str, dict[int, Path]] = {}
    for path in sorted(samples.glob("*.png")):
        if match := _NAME.fullmatch(path.name):
            found.setdefault(match[1], {})[int(match[2])] = path
    return {name: dict(sorted(steps.items())) for name, steps in found.items()}


def pack(files: dict[int, Path], limit: int) -> tuple[dict[int, str], tuple[int, int]]:
    """Return step -> data URI of at most `limit` bytes in all, and (width, height) of a frame.

    If they do not fit, every second frame is left out, and so on; the first and last stay.
    """
    data: dict[int, bytes] = {}
    size = (0, 0)
    for step, path in files.items():
        try:
            pixels = shrink(read(path))
        except (OSError, ValueError, SyntaxError):
            continue  # half a picture of a run that was killed is no reason to have no report
        size = (pixels.shape[1], pixels.shape[0])
        data[step] = webp(pixels)
    while len(data) > 2 and sum(map(len, data.values())) * 4 / 3 > limit:
        steps = list(data)
        data = {step: data[step] for step in dict.fromkeys([*steps[::2], steps[-1]])}
    if sum(map(len, data.values())) * 4 / 3 > limit:
        data = {}
    return {step: uri(image) for step, image in data.items()}, size


def read(path: Path) -> npt.NDArray[np.uint8]:
    """Read a PNG as (H, W) or (H, W, 3) bytes."""
    from PIL import Image

    with Image.open(path, formats=("PNG",)) as image:
        return np.asarray(image.convert("L" if image.mode in ("1", "L") else "RGB"))


def shrink(pixels: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint8]:
    """Undo an enlargement by whole pixels (4, 3 or 2 times); the browser enlarges again."""
    for scale in (4, 3, 2):
        small = pixels[::scale, ::scale]
        large = small.repeat(scale, axis=0).repeat(scale, axis=1)
        if large.shape == pixels.shape and np.array_equal(large, pixels):
            return small
    return pixels


def webp(pixels: npt.NDArray[Any]) -> bytes:
    """Encode without loss."""
    from PIL import Image

    buffer = io.BytesIO()
    Image.fromarray(pixels).save(buffer, "WEBP", lossless=True, quality=60, method=3)
    return buffer.getvalue()


def uri(image: bytes) -> str:
    """The image as a data URI."""
    return f"data:image/webp;base64,{base64.b64encode(image).decode()}"
